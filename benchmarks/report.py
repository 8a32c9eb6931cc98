"""Tables for people: mean curves and BD-rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.bdrate import BANDS_DB, VTM, Curve, bd_rate
from benchmarks.codecs import OURS
from benchmarks.results import AVERAGING, Mean


def curve_of(codec: str, means: Sequence[Mean]) -> Curve:
    """The measured curve of a codec, without points that lost nothing."""
    points = [mean for mean in means if mean.codec == codec and math.isfinite(mean.psnr_db)]
    return Curve(codec, [point.bpp for point in points], [point.psnr_db for point in points])


def curve_table(means: Sequence[Mean]) -> str:
    """One line for each codec and setting."""
    lines = [
        f"Rate in bits of the real files; {AVERAGING}.",
        "",
        f"{'codec':<10} {'setting':>8} {'images':>6} {'bpp':>8} {'PSNR dB':>8} {'MS-SSIM':>8} {'in dB':>7} {'SSIM':>7}"
        f" {'encode s':>9} {'decode s':>9}",
    ]
    lines += [
        f"{m.codec:<10} {m.setting:>8g} {m.images:>6} {m.bpp:>8.4f} {m.psnr_db:>8.3f} {m.ms_ssim:>8.5f}"
        f" {m.ms_ssim_db:>7.3f} {m.ssim:>7.5f} {m.encode_s:>9.3f} {m.decode_s:>9.3f}"
        for m in means
    ]
    return "\n".join(lines)


def bd_table(means: Sequence[Mean], anchors: Sequence[Curve]) -> str:
    """BD-rates: ours against everything, the others against VTM."""
    measured = [curve_of(name, means) for name in dict.fromkeys(mean.codec for mean in means)]
    vtm = [anchor for anchor in anchors if anchor.name == VTM]
    pairs: list[tuple[Curve, Curve]] = []
    for curve in measured:
        others = [*anchors, *(other for other in measured if other is not curve)] if curve.name == OURS else vtm
        pairs += [(curve, other) for other in others]
    if not pairs:
        return "No BD-rates: nothing to compare with."
    bands = " ".join(f"{f'{low:g}–{high:g} dB':>10}" for low, high in BANDS_DB)
    lines = [
        "BD-rate: percent more bits than the reference at equal PSNR, over the range that both curves reach, and in",
        "bands of it (* only part of the band is reached by both).",
        "",
        f"{'codec':<10} {'reference':<37} {'range dB':>11} {'BD-rate':>9} {bands}",
    ]
    return "\n".join([*lines, *(bd_line(curve, reference) for curve, reference in pairs)])


def bd_line(curve: Curve, reference: Curve) -> str:
    """One line of `bd_table`."""
    start = f"{curve.name:<10} {reference.name:<37}"
    try:
        whole = bd_rate(reference, curve)
    except ValueError:
        return f"{start} {'–':>11}   no curves with a range in common"
    bands = " ".join(f"{band_cell(curve, reference, band):>10}" for band in BANDS_DB)
    return f"{start} {f'{whole.low_db:.1f}–{whole.high_db:.1f}':>11} {whole.percent:>+8.2f}% {bands}"


def band_cell(curve: Curve, reference: Curve, band_db: tuple[float, float]) -> str:
    """BD-rate within a band, or a dash."""
    try:
        rate = bd_rate(reference, curve, band_db)
    except ValueError:
        return "–"
    return f"{rate.percent:+.2f}%{' ' if (rate.low_db, rate.high_db) == band_db else '*'}"
