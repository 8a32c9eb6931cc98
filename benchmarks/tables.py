"""Tables of a summary as rows of text, for the HTML report and the README alike."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from benchmarks.codecs import FAST, OURS
from benchmarks.report import BAND_NAMES, band_cells, number, percent, range_cell
from benchmarks.summary import Summary, title


class Table(NamedTuple):
    """Headings and rows; every cell is text."""

    head: Sequence[str]
    rows: list[Sequence[str]]


def curve_table(summary: Summary) -> Table:
    """Our points."""
    rows = [
        (
            f"{mean.setting:g}",
            f"{mean.bpp:.3f}",
            f"{mean.psnr_db:.2f}",
            number(mean.ms_ssim, ".4f"),
            number(mean.ssim, ".4f"),
            number(mean.ssimulacra2, ".2f"),
        )
        for mean in summary.means
        if mean.codec == OURS
    ]
    return Table(("quality", "bpp", "PSNR dB", "MS-SSIM", "SSIM", "SSIMULACRA2"), rows)


def bd_table(summary: Summary) -> Table:
    """Our BD-rate against every reference, and in bands."""
    rows: list[Sequence[str]] = []
    for row in summary.rows():
        if row.whole:
            name = f"{row.reference} †" if row.published else title(row.reference)
            cells = [cell.strip() for cell in band_cells(row)]
            others = (percent(row.ms_ssim), percent(row.ssimulacra2), encode_seconds(summary, row.reference))
            rows.append((name, percent(row.whole), range_cell(row.whole), *cells, *others))
    return Table(("reference", "BD-rate", "over dB", *BAND_NAMES, "MS-SSIM", "SSIMULACRA2", "encode s"), rows)


def encode_seconds(summary: Summary, codec: str) -> str:
    """The processor's seconds to encode a picture, mean over a codec's points; a dash if it was not measured here."""
    seconds = [mean.encode_s for mean in summary.means if mean.codec == codec]
    return f"{fmean(seconds):.2f}" if seconds else "–"


def peer_table(summary: Summary) -> Table:
    """The other codecs' BD-rates against VTM, and what was published without a curve."""
    rows: list[Sequence[str]] = []
    for row in summary.comparison.rows if summary.comparison else ():
        if row.codec != OURS and row.whole:
            rows.append((title(row.codec), title(row.reference), percent(row.whole), range_cell(row.whole)))
    for rate in summary.comparison.published if summary.comparison else ():
        rows.append((f"{rate.name} †", rate.reference, f"{rate.percent:+.2f}%", "as published"))
    return Table(("codec", "reference", "BD-rate", "over dB"), rows)


def speed_table(summary: Summary) -> Table:
    """Seconds of every codec, and how much longer it takes than ours."""
    timings: list[dict[str, Any]] = summary.speed["timings"] if summary.speed else []
    ours = {row["threads"]: row for row in timings if row["codec"] == OURS}
    rows = [
        (
            title(row["codec"]),
            str(row["threads"]),
            f"{row['bytes']}" if "bytes" in row else "–",
            *(
                cell
                for step in ("encode_s", "decode_s")
                for cell in (f"{row[step]:.3f}", f"{row[step] / ours[row['threads']][step]:.2f}")
            ),
        )
        for row in timings
    ]
    return Table(("codec", "threads", "bytes", "encode s", "× ours", "decode s", "× ours"), rows)


def peak_table(summary: Summary) -> Table:
    """Peak memory of processes that code one picture, at the setting that takes most."""
    entries = [entry for results in summary.files for entry in results.extra["memory"]]
    rows = []
    for codec in dict.fromkeys(entry["codec"] for entry in entries):
        worst = [
            max((entry for entry in entries if entry["codec"] == codec), key=lambda entry: entry[f"{step}_peak_mib"])
            for step in ("encode", "decode")
        ]
        cells = [
            cell
            for step, entry in zip(("encode", "decode"), worst, strict=True)
            for cell in (
                f"{entry[f'{step}_peak_mib']:.0f}",
                f"{entry[f'{step}_peak_mib'] - entry[f'{step}_loaded_mib']:.0f}",
            )
        ]
        rows.append((title(codec), *cells))
    return Table(("codec", "encode MiB", "over loaded", "decode MiB", "over loaded"), rows)


def growth_table(summary: Summary) -> Table:
    """Memory and time over the size of the picture."""
    rows = [
        (
            f"{row['megapixels']:g}",
            *(
                cell
                for step in ("encode", "decode")
                for cell in (f"{row[f'{step}_peak_mib']:.0f}", f"{row[f'{step}_seconds']:.2f}")
            ),
        )
        for row in (summary.memory["rows"] if summary.memory else ())
    ]
    return Table(("megapixels", "encode MiB", "s", "decode MiB", "s"), rows)


def complexity_table(summary: Summary) -> Table:
    """kMAC per pixel of ours and of CompressAI's models."""
    if not summary.complexity:
        return Table(("codec", "encode", "decode"), [])
    rows: list[Sequence[str]] = [
        (title(name), f"{summary.kmacs(step):.1f}", f"{summary.kmacs('decode'):.1f}")
        for name, step in ((OURS, "encode"), (FAST, "encode_fast"))
    ]
    rows += [
        (f"CompressAI {entry['model']}", f"{entry['encode_kmac']:.1f}", f"{entry['decode_kmac']:.1f}")
        for entry in summary.complexity.get("compressai", {}).get("models", ())
    ]
    return Table(("codec", "encode", "decode"), rows)


def markdown(table: Table) -> str:
    """The table in Markdown."""
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
