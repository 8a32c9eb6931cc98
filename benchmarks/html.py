"""One self-contained HTML page of a results folder: plots, tables, pictures, and how it was all measured.

python -m benchmarks.html --results FOLDER --dataset KODAK --output report.html
"""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import click
from matplotlib.figure import Figure

from benchmarks.bdrate import BANDS_DB
from benchmarks.codecs import OURS, Yoto
from benchmarks.dataset import Dataset, DatasetError, find_dataset
from benchmarks.plot import anchor_option, anchors_option, read_figures, results_option, svg
from benchmarks.results import AVERAGING
from benchmarks.summary import Summary, title
from benchmarks.tables import (
    Table,
    bd_table,
    complexity_table,
    curve_table,
    growth_table,
    peak_table,
    peer_table,
    speed_table,
)
from benchmarks.visual import PEERS, View, places, view
from codec.api import Codec
from codec.app.files import write_output
from codec.errors import CodecError
from codec.peers import choose_peers

CSS = """
:root { color-scheme: light dark; --line: #8886; --quiet: #666; --ground: #fff; --text: #1a1a1a; --ours: #d1344b22; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; --ground: #16181b; --text: #e6e6e6; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--ground); }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { margin-top: 1.8rem; }
p.note { color: var(--quiet); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: .3rem; }
tr.ours td { background: var(--ours); font-weight: 600; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; }
.crops { display: grid; grid-template-columns: repeat(3, 1fr); gap: .8rem; }
.crops figure { margin: 0; } .crops img { width: 100%; display: block; image-rendering: pixelated; }
figcaption { font-size: .85rem; color: var(--quiet); } figcaption b { color: var(--text); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
dt { font-weight: 600; } dd { margin: 0 0 .5rem 1rem; overflow-wrap: anywhere; }
@media (max-width: 40rem) { .crops { grid-template-columns: repeat(2, 1fr); } }
"""
CAPTIONS = {
    "rd-psnr": "PSNR of the decoded 8-bit RGB against the bits of the real file.",
    "rd-ms-ssim": "MS-SSIM against the bits of the real file."
    " Ours and the published models were trained for squared error.",
    "rd-ssimulacra2": "SSIMULACRA2, which follows what people see, against the bits of the real file.",
    "complexity": "BD-rate over the complexity of decoding; lower left is better. Models in two sizes, one for"
    " low and one for high rates, are a line. CompressAI's models were counted here, their curves are published.",
    "growth": "Time and peak memory of the process for pictures of 0.1 to 100 megapixels.",
}


def page(summary: Summary, figures: dict[str, Figure], views: Sequence[View]) -> str:
    """The whole page."""
    images = summary.ours.conditions["dataset"]["name"]
    parts = [
        f"<h1>yoto-codec on {text(images)}</h1>",
        f"<p>Model {text(summary.model['id'])}, {len(summary.images)} pictures. Rate is that of the real file,"
        f" {AVERAGING}. † marks what others published; everything else was measured here.</p>",
        *([f"<p>Peers without a curve: {text(summary.missing)}.</p>"] if summary.missing else []),
        "<h2>Rate and distortion</h2>",
        *(plot(name, figures) for name in ("rd-psnr", "rd-ms-ssim", "rd-ssimulacra2") if name in figures),
        section("Our points", curve_table(summary)),
        section(
            "BD-rate of yoto-codec",
            bd_table(summary),
            "Percent more bits than the reference at equal PSNR (negative: fewer), over the range that both curves"
            f" reach, and in {len(BANDS_DB)} bands of it (* only part of the band is reached by both); then the same at"
            " equal MS-SSIM and SSIMULACRA2, and the processor's seconds to encode with the reference, mean over its"
            " points.",
        ),
        section("BD-rate of the others", peer_table(summary)),
        *(["<h2>Complexity</h2>", plot("complexity", figures)] if "complexity" in figures else []),
        section("kMAC per pixel", complexity_table(summary), "Counted by torch's profiler from what is executed."),
        "<h2>Speed and memory</h2>",
        speed_section(summary),
        section(
            "Peak memory",
            peak_table(summary),
            "Of a fresh process that encodes or decodes one picture, at the setting that takes most; beside it, how"
            " much of it was added to what the loaded codec takes.",
        ),
        *(["<h3>Growth with the picture</h3>", plot("growth", figures)] if "growth" in figures else []),
        section("", growth_table(summary)),
        *(["<h2>Side by side at equal bytes</h2>", *(pictures(entry) for entry in views)] if views else []),
        "<h2>How it was measured</h2>",
        provenance(summary),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>yoto-codec on {text(images)}</title>\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Text with what HTML would misread escaped."""
    return html.escape(str(value))


def plot(name: str, figures: dict[str, Figure]) -> str:
    """A plot with its caption."""
    return f"<figure>{svg(figures[name], name)}<figcaption>{text(CAPTIONS[name])}</figcaption></figure>"


def section(heading: str, table: Table, note: str = "") -> str:
    """A table under its heading, our rows set off; nothing if it has no rows."""
    if not table.rows:
        return ""
    head = "".join(f"<th>{text(cell)}</th>" for cell in table.head)
    rows = "".join(
        f"<tr{' class=ours' if row[0] == title(OURS) else ''}>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>"
        for row in table.rows
    )
    before = f"<h3>{text(heading)}</h3>" if heading else ""
    after = f'<p class="note">{text(note)}</p>' if note else ""
    return f'{before}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{after}'


def speed_section(summary: Summary) -> str:
    """Seconds of one picture, and of starting the command."""
    speed = summary.speed
    if not speed:
        return '<p class="note">Speed has not been measured for this model.</p>'
    starts = ", ".join(f"{text(name)} {seconds:.2f} s" for name, seconds in speed["startup_s"].items())
    note = (
        f"{speed['image']}, all at about the same number of bytes, model loaded, median of {speed['repeats']} calls;"
        f" load of the machine before: {speed['load_before']:.2f}. CompressAI's models have random weights."
    )
    return section("Speed", speed_table(summary), note) + f"<p>Start of the command: {starts}.</p>"


def pictures(entry: View) -> str:
    """The crops of one place."""
    figures = []
    for crop in entry.crops:
        source = f"data:image/png;base64,{base64.b64encode(crop.png).decode()}"
        caption = f"<b>{text(crop.name)}</b>"
        if crop.bytes is not None:
            caption += f" {crop.bytes} bytes, {crop.psnr_db:.2f} dB, quality {crop.setting:g}"
        image = f'<img src="{source}" alt="{text(crop.name)}">'
        figures.append(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
    return f"<h3>{text(entry.place.image)}</h3><div class=crops>{''.join(figures)}</div>"


def provenance(summary: Summary) -> str:
    """Machine, versions, model, options, commands."""
    commands, entries = [], [("model", f"{summary.model['sha256']} (SHA-256), {pairs(summary.model['config'])}")]
    for results in summary.files:
        conditions = results.conditions
        entries += [(f"{results.path.name}: machine", pairs(machine)) for machine in results.extra["machines"]]
        entries.append((f"{results.path.name}: versions", pairs(conditions["versions"])))
        entries.append((f"{results.path.name}: options", pairs(results.extra["codecs"])))
        commands += results.extra["commands"]
    for content, name in ((summary.speed, "speed"), (summary.memory, "memory"), (summary.complexity, "complexity")):
        if content:
            entries += [(f"{name}.json: machine", pairs(content["machine"]))] if "machine" in content else []
            commands.append(content["command"])
    listed = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in entries)
    return f"<dl>{listed}</dl><h3>Commands</h3><pre>{text(chr(10).join(commands))}</pre>"


def pairs(content: dict[str, object]) -> str:
    """A dictionary on one line."""
    return ", ".join(f"{name} {value}" for name, value in content.items())


def write_page(
    output: Path, summary: Summary, figures: dict[str, Figure], dataset: Dataset, ours: Yoto, quality: float
) -> None:
    """Write the page, with pictures of this quality and the peers' of as many bytes."""
    peers, _ = choose_peers(PEERS)
    views = [view(place, dataset.paths[0].parent, ours, quality, peers) for place in places(dataset)]
    write_output(output, page(summary, figures, views).encode())


@click.command()
@results_option
@anchors_option
@anchor_option
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the pictures that were measured.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--quality", type=click.FloatRange(0.0, 1.0), default=0.2, show_default=True, help="Of the pictures.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="HTML file.")
def main(
    folder: Path,
    anchors_path: Path | None,
    names: tuple[str, ...],
    dataset: Path | None,
    weights: Path | None,
    quality: float,
    output: Path,
) -> None:
    """Write one HTML page with everything that a results folder holds."""
    summary, _, figures = read_figures(folder, anchors_path, names)
    try:
        found, codec = find_dataset(dataset), Codec(weights)
    except (DatasetError, CodecError) as error:
        raise click.ClickException(str(error)) from error
    if codec.weights.model_id.hex() != summary.model["id"]:
        raise click.ClickException(
            f"{folder} is of model {summary.model['id']}, loaded is {codec.weights.model_id.hex()}: give its --weights"
        )
    write_page(output, summary, figures, found, Yoto(codec), quality)
    click.echo(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
