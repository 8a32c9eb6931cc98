"""BD-rates of what was measured, against each other and against published curves; kept in a file of their own."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.anchors import VTM, Anchors, PublishedRate
from benchmarks.bdrate import BANDS_DB, BDRate, Curve, bd_rate
from benchmarks.codecs import OURS
from benchmarks.files import write_json
from benchmarks.results import Mean

BDRATE_FILE = "bdrate.json"
RATES = ("whole", "ms_ssim", "ssimulacra2")  # of a row


class Row(NamedTuple):
    """One codec against one reference; rates are None where the curves share no PSNR range."""

    codec: str
    reference: str
    published: bool  # whether the reference's curve is a published one, or measured here
    whole: BDRate | None
    bands: tuple[BDRate | None, ...]  # of BANDS_DB, each as far as both curves reach
    ms_ssim: BDRate | None = None  # over MS-SSIM in dB
    ssimulacra2: BDRate | None = None


class Comparison(NamedTuple):
    """All rows, and what others published without a curve."""

    model: str
    rows: list[Row]
    published: list[PublishedRate]


def curve_of(codec: str, means: Sequence[Mean], metric: str = "psnr_db") -> Curve:
    """The measured curve of a codec over a metric, without points that lost nothing or lack the metric."""
    values = [(mean.bpp, getattr(mean, metric)) for mean in means if mean.codec == codec]
    points = [(bpp, value) for bpp, value in values if value is not None and math.isfinite(value)]
    return Curve(codec, [bpp for bpp, _ in points], [value for _, value in points])


def compare(means: Sequence[Mean], anchors: Anchors | None = None, reference: str | None = None) -> list[Row]:
    """Ours against everything; the others against VTM, where it was published, and against `reference`."""
    measured = list(dict.fromkeys(mean.codec for mean in means))
    published = [curve.name for curve in anchors.curves] if anchors else []
    rows = []
    for codec in measured:
        others = [*published, *measured] if codec == OURS else [name for name in published if name == VTM]
        if reference in measured and reference not in others:
            others.append(reference)
        rows += [row(codec, other, means, anchors, other in published) for other in others if other != codec]
    return rows


def row(codec: str, reference: str, means: Sequence[Mean], anchors: Anchors | None, published: bool) -> Row:
    """One comparison."""

    def rate(metric: str, stored: Sequence[Curve], band_db: tuple[float, float] | None = None) -> BDRate | None:
        curves = stored if published else [curve_of(reference, means, metric)]
        found = next((curve for curve in curves if curve.name == reference), None)
        return rate_or_none(curve_of(codec, means, metric), found, band_db) if found else None

    psnr, ms_ssim = (anchors.curves, anchors.ms_ssim) if anchors else ([], [])
    whole, *bands = (rate("psnr_db", psnr, band) for band in (None, *BANDS_DB))
    return Row(codec, reference, published, whole, tuple(bands), rate("ms_ssim_db", ms_ssim), rate("ssimulacra2", []))


def rate_or_none(curve: Curve, reference: Curve, band_db: tuple[float, float] | None) -> BDRate | None:
    """BD-rate, or None where there is nothing to compare."""
    try:
        return bd_rate(reference, curve, band_db)
    except ValueError:
        return None


def save_comparison(folder: Path, model: str, rows: Sequence[Row], published: Sequence[PublishedRate] = ()) -> None:
    """Write what the README and the report say of BD-rates: the anchors file need not be there for these."""
    stored = [
        entry._asdict()
        | {name: as_json(getattr(entry, name)) for name in RATES}
        | {"bands": [as_json(band) for band in entry.bands]}
        for entry in rows
    ]
    rates = [rate._asdict() for rate in published]
    content = {"model": {"id": model}, "bands_db": BANDS_DB, "rows": stored, "published": rates}
    write_json(folder / BDRATE_FILE, content)


def load_comparison(folder: Path) -> Comparison:
    """Read what `save_comparison` wrote."""
    stored = json.loads((folder / BDRATE_FILE).read_text())
    rows = [
        Row(
            entry["codec"],
            entry["reference"],
            entry["published"],
            bands=tuple(from_json(band) for band in entry["bands"]),
            **{name: from_json(entry.get(name)) for name in RATES},
        )
        for entry in stored["rows"]
    ]
    return Comparison(stored["model"]["id"], rows, [PublishedRate(**entry) for entry in stored["published"]])


def as_json(rate: BDRate | None) -> dict[str, float] | None:
    """A rate as an object, since JSON knows no tuples."""
    return None if rate is None else {name: float(figure) for name, figure in rate._asdict().items()}


def from_json(rate: dict[str, Any] | None) -> BDRate | None:
    """The opposite of `as_json`."""
    return None if rate is None else BDRate(**rate)
