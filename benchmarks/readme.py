"""Write the Results section of the README from a results folder; tests compare the two.

python -m benchmarks.readme
"""

from __future__ import annotations

import json
from pathlib import Path

import click

from benchmarks.codecs import OURS
from benchmarks.results import OURS_FILE, PEERS_FILE, ResultsError
from benchmarks.summary import RESULTS, Summary, SummaryError, load_summary
from benchmarks.tables import bd_table, curve_table, growth_table, markdown, peer_table, speed_table
from codec.app.files import write_output

FIGURE = "benchmarks/results/plots/rd-psnr.svg"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- results: python -m benchmarks.readme writes what follows -->", "<!-- results: end -->"


def results_text(summary: Summary) -> str:
    """The section, in Markdown."""
    model, effort = summary.model["id"], summary.ours.extra["codecs"][OURS]["effort"]
    parts = [
        f"![PSNR over bits per pixel]({FIGURE})",
        f"Kodak, {len(summary.images)} images, model `{model}`, effort {effort}, bits of the real files, 8-bit RGB;"
        f" means over images of bpp and of PSNR, by `python -m benchmarks.run` into {link(OURS_FILE)} and"
        f" {link(PEERS_FILE)}.",
        markdown(curve_table(summary)),
        *bd_text(summary),
        *speed_text(summary),
        *memory_text(summary),
        *complexity_text(summary),
        *([f"Peers without a curve: {summary.missing}."] if summary.missing else []),
    ]
    return "\n\n".join(parts)


def link(name: str) -> str:
    """A link to a results file."""
    return f"[`{name}`](benchmarks/results/{name})"


def bd_text(summary: Summary) -> list[str]:
    """BD-rates of ours and of the others."""
    if not summary.comparison:
        return ["BD-rates have not been computed for this model."]
    return [
        "BD-rate (PCHIP of ln bpp over PSNR, over the range that both curves reach, and in bands of it, * where only"
        " part of the band is reached; positive: this codec needs more bits). † is a published curve, the others were"
        " measured side by side.",
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
    """Rewrite the Results section of the README from benchmarks/results."""
    try:
        text = replaced(README.read_text(), results_text(load_summary(RESULTS)))
    except (SummaryError, ResultsError, ValueError, json.JSONDecodeError) as error:
        raise click.ClickException(str(error)) from error
    write_output(README, text.encode())
    click.echo(f"{README.name} holds the results of {RESULTS.name}")


if __name__ == "__main__":
    main()
