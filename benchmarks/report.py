"""Tables for a terminal: mean curves and BD-rates."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bdrate import BANDS_DB, BDRate
from benchmarks.comparison import Row
from benchmarks.results import AVERAGING, Mean

BAND_NAMES = tuple(f"{low:g}–{high:g} dB" for low, high in BANDS_DB)
BAND_NOTE = "* only part of the band is reached by both"


def curve_table(means: Sequence[Mean]) -> str:
    """One line for each codec and setting."""
    lines = [
        f"Rate in bits of the real files; {AVERAGING}.",
        "",
        f"{'codec':<14} {'setting':>7} {'images':>6} {'bpp':>8} {'PSNR dB':>8} {'MS-SSIM':>8} {'in dB':>7}"
        f" {'SSIM':>7} {'SSIMU2':>7} {'encode s':>9} {'decode s':>9}",
    ]
    lines += [
        f"{m.codec:<14} {m.setting:>7g} {m.images:>6} {m.bpp:>8.4f} {m.psnr_db:>8.3f} {number(m.ms_ssim, '.5f'):>8}"
        f" {number(m.ms_ssim_db, '.3f'):>7} {number(m.ssim, '.5f'):>7} {number(m.ssimulacra2, '.2f'):>7}"
        f" {m.encode_s:>9.3f} {m.decode_s:>9.3f}"
        for m in means
    ]
    return "\n".join(lines)


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def percent(rate: BDRate | None) -> str:
    """A BD-rate, or a dash."""
    return "–" if rate is None else f"{rate.percent:+.2f}%"


def bd_table(rows: Sequence[Row]) -> str:
    """One line for each pair of curves."""
    if not rows:
        return "No BD-rates: nothing to compare with."
    lines = [
        "BD-rate: percent more bits than the reference at equal PSNR, over the range that both curves reach, and in",
        f"bands of it ({BAND_NOTE}); before these, the same at equal MS-SSIM and SSIMULACRA2.",
        "",
        f"{'codec':<14} {'reference':<37} {'range dB':>11} {'BD-rate':>9} {'MS-SSIM':>9} {'SSIMU2':>9} "
        + " ".join(f"{name:>10}" for name in BAND_NAMES),
    ]
    return "\n".join([*lines, *(bd_line(row) for row in rows)])


def bd_line(row: Row) -> str:
    """One line of `bd_table`."""
    start = f"{row.codec:<14} {row.reference:<37}"
    if row.whole is None:
        return f"{start} {'–':>11}   no curves with a range in common"
    bands = " ".join(f"{cell:>10}" for cell in band_cells(row))
    rates = " ".join(f"{percent(rate):>9}" for rate in (row.whole, row.ms_ssim, row.ssimulacra2))
    return f"{start} {range_cell(row.whole):>11} {rates} {bands}"


def range_cell(rate: BDRate) -> str:
    """The PSNR range of a rate."""
    return f"{rate.low_db:.1f}–{rate.high_db:.1f}"


def band_cells(row: Row) -> list[str]:
    """BD-rate within each band, a star if it is of part of the band, or a dash."""
    return [
        "–" if rate is None else f"{rate.percent:+.2f}%{' ' if (rate.low_db, rate.high_db) == band else '*'}"
        for rate, band in zip(row.bands, BANDS_DB, strict=True)
    ]
