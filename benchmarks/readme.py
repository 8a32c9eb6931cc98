"""Write RESULTS.md and the Results section of the README from a results folder; tests compare them.

python -m benchmarks.readme
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.anchors import VTM
from benchmarks.codecs import OURS
from benchmarks.results import ResultsError
from benchmarks.summary import RESULTS, Summary, SummaryError, load_summary
from benchmarks.tables import Table, bd_table, curve_table, growth_table, markdown, peer_table, speed_table
from codec.app.files import write_output

FIGURE = "benchmarks/results/plots/rd-psnr.svg"
README = Path(__file__).parent.parent / "README.md"
RESULTS_PAGE = Path(__file__).parent / "RESULTS.md"
BEGIN, END = "<!-- results: python -m benchmarks.readme writes what follows -->", "<!-- results: end -->"


# What the README names of the published curves: the reference, and the nearest in kind.
NAMED = (VTM, "BPG 4:4:4 x265 (0.9.8, CompressAI)", "CompressAI mbt2018-mean-vbr", "QARV base")
README_MAX_LINES = 35


def readme_text(summary: Summary) -> str:
    """The README's section, in Markdown: what a reader wants to know first, in README_MAX_LINES at most."""
    curve, bd = curve_table(summary), bd_table(summary)
    rows = [row for row in bd.rows if not row[0].endswith("†") or row[0].removesuffix(" †") in NAMED]
    parts = [
        f"{conditions(summary)} All tables: [`benchmarks/RESULTS.md`](benchmarks/RESULTS.md).",
        markdown(Table(curve.head, curve.rows[::2])),
        "BD-rate: percent more bits than the reference at equal PSNR (negative: fewer). † is a published curve, the"
        " others were measured side by side.",
        markdown(Table(("reference", "BD-rate", "27–30 dB"), [row[:2] + row[3:4] for row in rows])),
        *speed_sentence(summary),
        *complexity_text(summary),
    ]
    return "\n\n".join(parts)


def results_text(summary: Summary) -> str:
    """RESULTS.md."""
    parts = [
        "# Results",
        "Written by `python -m benchmarks.readme` from the files in [`results`](results).",
        f"![PSNR over bits per pixel]({FIGURE.removeprefix('benchmarks/')})",
        conditions(summary),
        markdown(curve_table(summary)),
        *bd_text(summary),
        *speed_text(summary),
        *memory_text(summary),
        *complexity_text(summary),
        *([f"Peers without a curve: {summary.missing}."] if summary.missing else []),
    ]
    return "\n\n".join(parts) + "\n"


def conditions(summary: Summary) -> str:
    """What was measured on what."""
    model, effort = summary.model["id"], summary.ours.extra["codecs"][OURS]["effort"]
    return (
        f"Kodak, {len(summary.images)} images, model `{model}`, effort {effort}, bits of the real files, 8-bit RGB;"
        " means over images of bpp and of each metric."
    )


def speed_sentence(summary: Summary) -> list[str]:
    """Seconds of ours on the most threads measured."""
    rows = [row for row in summary.speed["timings"] if row["codec"] == OURS] if summary.speed else []
    if not summary.speed or not rows:
        return []
    row = max(rows, key=lambda row: int(row["threads"]))
    return [
        f"A 768×512 picture takes {row['encode_s']:.2f} s to encode and {row['decode_s']:.2f} s to decode on"
        f" {row['threads']} threads of {summary.speed['machine']['cpu']}, model loaded."
    ]


def bd_text(summary: Summary) -> list[str]:
    """BD-rates of ours and of the others."""
    if not summary.comparison:
        return ["BD-rates have not been computed for this model."]
    return [
        "BD-rate (PCHIP of ln bpp over PSNR, over the range that both curves reach, and in bands of it, * where only"
        " part of the band is reached; positive: this codec needs more bits), then over MS-SSIM and SSIMULACRA2. † is a"
        " published curve, the others were measured side by side. Seconds are the processor's, on one thread, mean over"
        " the reference's points.",
        markdown(bd_table(summary)),
        "For comparison, the others:",
        markdown(peer_table(summary)),
    ]


def speed_text(summary: Summary) -> list[str]:
    """Seconds of one picture."""
    speed = summary.speed
    if not speed:
        return ["Speed has not been measured for this model (`python -m benchmarks.speed`)."]
    starts = ", ".join(f"`{name}` {seconds:.2f} s" for name, seconds in speed["startup_s"].items())
    return [
        f"Speed on {speed['machine']['cpu']}, {speed['machine']['cores']} cores, {speed['image']}, all at about the"
        f" same number of bytes, model loaded, median of {speed['repeats']} calls (`python -m benchmarks.speed`;"
        " CompressAI's models with random weights). Beside each time, how many times ours it is.",
        markdown(speed_table(summary)),
        f"Start of the command: {starts}.",
    ]


def memory_text(summary: Summary) -> list[str]:
    """Growth with the picture."""
    if not summary.memory:
        return ["Memory has not been measured for this model (`python -m benchmarks.memory`)."]
    return [
        "Peak memory of the process and seconds of a warm call, by the size of the picture"
        " (`python -m benchmarks.memory`).",
        markdown(growth_table(summary)),
    ]


def complexity_text(summary: Summary) -> list[str]:
    """kMAC per pixel."""
    if not summary.complexity:
        return ["Complexity has not been counted for this model (`python -m benchmarks.complexity`)."]
    parts = summary.complexity["kmac_per_px"]
    text = (
        f"{summary.kmacs('encode'):.1f} kMAC per pixel to encode ({summary.kmacs('encode_fast'):.1f} at effort 0,"
        f" analysis {parts['encode_fast']['g_a']:.1f}) and {summary.kmacs('decode'):.1f} to decode (synthesis"
        f" {parts['decode']['g_s']:.1f}), counted by torch's profiler (`python -m benchmarks.complexity`)"
    )
    counted = {entry["model"]: entry for entry in summary.complexity.get("compressai", {}).get("models", ())}
    if peer := counted.get("mbt2018-mean-vbr"):
        text += f"; CompressAI's mbt2018-mean-vbr takes {peer['encode_kmac']:.0f} and {peer['decode_kmac']:.0f}"
    return [f"{text}."]


def replaced(readme: str, section: str) -> str:
    """The README with another Results section; ValueError if it has no place for one."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the README lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{section}\n\n{END}{after}"


@click.command()
def main() -> None:
    """Rewrite RESULTS.md and the Results section of the README from benchmarks/results."""
    try:
        summary = load_summary(RESULTS)
        text = replaced(README.read_text(), readme_text(summary))
    except (SummaryError, ResultsError, ValueError, json.JSONDecodeError) as error:
        raise click.ClickException(str(error)) from error
    write_output(README, text.encode())
    write_output(RESULTS_PAGE, results_text(summary).encode())
    click.echo(f"{README.name} and {RESULTS_PAGE.name} hold the results of {RESULTS.name}")


if __name__ == "__main__":
    main()
