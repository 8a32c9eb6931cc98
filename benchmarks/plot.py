"""Plots of a results folder, as PNG and SVG files, and as SVG for the report.

python -m benchmarks.plot --results FOLDER --output FOLDER
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.anchors import ANCHORS, DEFAULT_ANCHORS, VTM, Anchors, load_anchors
from benchmarks.bdrate import Curve, bd_rate
from benchmarks.codecs import OURS
from benchmarks.comparison import curve_of
from benchmarks.dataset import KODAK
from benchmarks.results import Mean, ResultsError
from benchmarks.summary import RESULTS, Summary, SummaryError, load_summary, title
from codec.app.files import write_output

# Published curves drawn unless others are chosen: more would hide each other.
DRAWN_ANCHORS = (VTM, "CompressAI mbt2018-mean (mse)", "CompressAI mbt2018-mean-vbr", "QARV base")
BPP_MAX = 2.0
KMAC_TICKS = (5, 10, 20, 50, 100, 200, 500, 1000, 2000)
OURS_COLOUR = "#d1344b"
# Of middle lightness, so that they show on white and on black.
COLOURS = ("#3a86c8", "#2a9d6f", "#d08a1d", "#8e6bbf", "#b5654a", "#4aa5b5", "#9a8c2c", "#7f7f7f", "#c25fa0")
INK = "#010203"  # stands for the text colour of the page; see `svg`
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.2,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


class Point(NamedTuple):
    """BD-rate of a codec against its complexity, kMAC per pixel of decoding; two sizes of one family give a range."""

    name: str
    kmacs: Sequence[float]
    percent: float
    published: bool  # curve, or curve and complexity


def rate_figure(means: Sequence[Mean], published: Sequence[Curve], metric: str, label: str) -> Figure:
    """Curves of a metric over bpp: measured ones with marks, published ones dashed."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 5.4))
        axes = figure.subplots()
        known = [mean for mean in means if is_drawn(getattr(mean, metric))]
        names = [name for name in dict.fromkeys(mean.codec for mean in known) if not has_slower(name, means)]
        colours = iter(COLOURS * 2)
        for name in names:
            points = [mean for mean in known if mean.codec == name and mean.bpp <= BPP_MAX]
            emphasis = (
                {"color": OURS_COLOUR, "linewidth": 2.6, "zorder": 3} if name == OURS else {"color": next(colours)}
            )
            values = [getattr(point, metric) for point in points]
            axes.plot(
                [point.bpp for point in points], values, marker="o", markersize=3.5, label=title(name), **emphasis
            )
        for curve in published:
            points = sorted((bpp, value) for bpp, value in zip(curve.bpp, curve.psnr_db, strict=True) if bpp <= BPP_MAX)
            colour = next(colours)
            axes.plot(*zip(*points, strict=True), color=colour, linestyle="--", linewidth=1.1, label=f"{curve.name} †")
        values = [getattr(mean, metric) for mean in known if mean.codec == OURS]
        room = 0.07 * (max(values) - min(values)) + 0.01
        axes.set(xlabel="bits per pixel", ylabel=label, xlim=(0.0, BPP_MAX))
        axes.set_ylim(min(values) - room, max(values) + 2.0 * room)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        if published:
            figure.text(1.0, 0.0, "† published", fontsize=8, ha="right", va="bottom")
        return figure


def is_drawn(value: float | None) -> bool:
    """Whether a figure has a place in a plot."""
    return value is not None and math.isfinite(value)


def has_slower(name: str, means: Sequence[Mean]) -> bool:
    """Whether the same format was also measured at a slower setting; one of the two is enough to draw."""
    return any(mean.codec == f"{name}-slowest" for mean in means)


def complexity_points(summary: Summary, anchors: Anchors, everything: Anchors) -> list[Point]:
    """Ours, CompressAI's models (counted here), and what the anchors file says of others.

    Args:
        summary: what was measured.
        anchors: the chosen anchors, for what they say of complexity.
        everything: the curves of CompressAI's models, and VTM's.
    """
    curves = {curve.name: curve for curve in (*anchors.curves, *everything.curves)}
    reference = curves[VTM]
    points = []
    ours = curve_of(OURS, summary.means)
    kmacs = summary.kmacs("decode")
    if kmacs:
        points.append(Point(title(OURS), [kmacs], bd_rate(reference, ours).percent, False))
    counted: dict[str, list[float]] = {}
    for entry in (summary.complexity or {}).get("compressai", {}).get("models", ()):
        counted.setdefault(entry["anchor"], []).append(entry["decode_kmac"])
    for name, sizes in counted.items():
        points.append(Point(name, sorted(sizes), bd_rate(reference, curves[name]).percent, True))
    for name, stated in anchors.kmacs.items():
        points.append(Point(name, [stated.decode], bd_rate(reference, curves[name]).percent, True))
    return points


def complexity_figure(points: Sequence[Point]) -> Figure:
    """BD-rate against VTM over kMAC per pixel of decoding."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 4.6))
        axes = figure.subplots()
        for point, colour in zip(points, (OURS_COLOUR, *COLOURS), strict=False):
            label = point.name + (" †" if point.published else "")
            axes.plot(point.kmacs, [point.percent] * len(point.kmacs), marker="o", color=colour, label=label)
        axes.axhline(0.0, linewidth=1.0, linestyle="--", color=INK, alpha=0.6)
        axes.annotate(
            "VTM 18.0",
            (0.01, 0.0),
            (0, 3),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            fontsize=8.5,
        )
        axes.set(xscale="log", xlabel="kMAC per pixel to decode", ylabel="BD-rate against VTM 18.0, %")
        axes.set_xticks([tick for tick in KMAC_TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]])
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=9)
        return figure


def growth_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Seconds and peak memory over the size of the picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 3.8))
        left, right = figure.subplots(1, 2)
        draw_growth(left, rows, "seconds", "seconds")
        left.set_yscale("log")
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter(NullFormatter())
        draw_growth(right, rows, "peak_mib", "peak of the process, MiB")
        right.set_ylim(bottom=0.0)
        return figure


def draw_growth(axes: Axes, rows: Sequence[dict[str, Any]], figure: str, label: str) -> None:
    """Encoding and decoding in one panel."""
    sizes = [row["megapixels"] for row in rows]
    for step, colour in (("encode", OURS_COLOUR), ("decode", COLOURS[0])):
        axes.plot(sizes, [row[f"{step}_{figure}"] for row in rows], marker="o", color=colour, label=step)
    axes.set(xscale="log", xlabel="megapixels", ylabel=label)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.legend()


def all_figures(
    summary: Summary, anchors: Anchors | None, everything: Anchors | None, drawn: Sequence[str]
) -> dict[str, Figure]:
    """Every plot for which there are figures, by the name of its file."""
    published, ms_ssim = (
        [curve for curve in curves if curve.name in drawn]
        for curves in ((anchors.curves, anchors.ms_ssim) if anchors else ([], []))
    )
    figures = {}
    for name, metric, label, curves in (
        ("rd-psnr", "psnr_db", "PSNR of RGB, dB", published),
        ("rd-ms-ssim", "ms_ssim_db", "MS-SSIM of RGB, dB: −10·log₁₀(1 − MS-SSIM)", ms_ssim),
        ("rd-ssimulacra2", "ssimulacra2", "SSIMULACRA2", []),
    ):
        if any(mean.codec == OURS and is_drawn(getattr(mean, metric)) for mean in summary.means):
            figures[name] = rate_figure(summary.means, curves, metric, label)
    if anchors and everything and summary.complexity:
        figures["complexity"] = complexity_figure(complexity_points(summary, anchors, everything))
    if summary.memory:
        figures["growth"] = growth_figure(summary.memory["rows"])
    return figures


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG element for a page: no background, text and axes in the colour of the text around it."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    return text[text.index("<svg") :]


def write_files(figures: dict[str, Figure], folder: Path) -> None:
    """PNG and SVG files, black on white."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        for form in ("png", "svg"):
            with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
                buffer = io.BytesIO()
                metadata = {"Date": None} if form == "svg" else None
                figure.savefig(buffer, format=form, dpi=144, metadata=metadata)
            write_output(folder / f"{name}.{form}", buffer.getvalue())


def read_figures(
    folder: Path, anchors_path: Path | None, names: Sequence[str]
) -> tuple[Summary, Anchors | None, dict[str, Figure]]:
    """Results, anchors and plots for the options of a command; one line on stderr if they cannot be had."""
    try:
        summary = load_summary(folder)
        if summary.ours.conditions["dataset"]["name"] != KODAK:
            anchors_path = None  # the published curves are of Kodak
        anchors = load_anchors(anchors_path, names or DEFAULT_ANCHORS) if anchors_path else None
        entries = (summary.complexity or {}).get("compressai", {}).get("models", ())
        counted = dict.fromkeys([VTM, *(entry["anchor"] for entry in entries)])
        everything = load_anchors(anchors_path, list(counted)) if anchors_path else None
    except (SummaryError, ResultsError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    return summary, anchors, all_figures(summary, anchors, everything, names or DRAWN_ANCHORS)


results_option = click.option("--results", "folder", type=click.Path(path_type=Path), default=RESULTS, help="Folder.")
anchors_option = click.option(
    "--anchors", "anchors_path", type=click.Path(exists=True, path_type=Path), default=ANCHORS, help="Published curves."
)
anchor_option = click.option("--anchor", "names", multiple=True, help="Name of a published codec instead of a choice.")


@click.command()
@results_option
@anchors_option
@anchor_option
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder for PNG and SVG files.")
def main(folder: Path, anchors_path: Path | None, names: tuple[str, ...], output: Path) -> None:
    """Draw the plots of a results folder."""
    _, _, figures = read_figures(folder, anchors_path, names)
    write_files(figures, output)
    click.echo(f"{', '.join(figures)} as PNG and SVG in {output}")


if __name__ == "__main__":
    main()
