"""Bjøntegaard delta rate: how much more rate one curve needs than another at equal PSNR."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator

BANDS_DB = ((27.0, 30.0), (30.0, 33.0), (33.0, 36.0), (36.0, 40.0))


class Curve(NamedTuple):
    """A rate–distortion curve, points in any order."""

    name: str
    bpp: Sequence[float]
    psnr_db: Sequence[float]


class BDRate(NamedTuple):
    """Percent more rate (negative: less), averaged over the PSNR range low_db … high_db."""

    percent: float
    low_db: float
    high_db: float


def bd_rate(reference: Curve, curve: Curve, band_db: tuple[float, float] | None = None) -> BDRate:
    """Compare two curves over their common PSNR range: ln(bpp) over PSNR by PCHIP, integrated.

    Args:
        reference: what 0 % stands for.
        curve: what is judged.
        band_db: compare only inside this band, as far as both curves reach.

    Raises:
        ValueError: the curves share no range, or one of them is no curve.
    """
    low = max(min(reference.psnr_db), min(curve.psnr_db), *(band_db or ())[:1])
    high = min(max(reference.psnr_db), max(curve.psnr_db), *(band_db or ())[1:])
    if low >= high:
        where = f" within {band_db[0]:g}–{band_db[1]:g} dB" if band_db else ""
        raise ValueError(f"'{reference.name}' and '{curve.name}' have no PSNR range in common{where}")
    area = _log_rate(curve).integrate(low, high) - _log_rate(reference).integrate(low, high)
    return BDRate(100.0 * math.expm1(float(area) / (high - low)), low, high)


def _log_rate(curve: Curve) -> PchipInterpolator:
    """ln(bpp) as a function of PSNR."""
    bpp, psnr_db = np.asarray(curve.bpp, float), np.asarray(curve.psnr_db, float)
    if len(bpp) != len(psnr_db) or len(bpp) < 2 or not np.isfinite(psnr_db).all() or not (bpp > 0.0).all():
        raise ValueError(f"'{curve.name}' is no curve: it takes two points or more of positive rate and finite PSNR")
    order = np.argsort(psnr_db)
    if (np.diff(psnr_db[order]) == 0.0).any():
        raise ValueError(f"'{curve.name}' has two points of the same PSNR")
    return PchipInterpolator(psnr_db[order], np.log(bpp[order]))
