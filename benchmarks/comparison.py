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


class Row(NamedTuple):
    """One codec against one reference; rates are None where the curves share no PSNR range."""

    codec: str
    reference: str
    published: bool  # whether the reference's curve is a published one, or measured here
    whole: BDRate | None
    bands: tuple[BDRate | None, ...]  # of BANDS_DB, each as far as both curves reach


class Comparison(NamedTuple):
    """All rows, and what others published without a curve."""

    model: str
    rows: list[Row]
    published: list[PublishedRate]


def curve_of(codec: str, means: Sequence[Mean]) -> Curve:
    """The measured curve of a codec, without points that lost nothing."""
    points = [mean for mean in means if mean.codec == codec and math.isfinite(mean.psnr_db)]
    return Curve(codec, [point.bpp for point in points], [point.psnr_db for point in points])


def compare(means: Sequence[Mean], anchors: Sequence[Curve]) -> list[Row]:
    """Ours against everything, the others against VTM."""
    measured = [curve_of(name, means) for name in dict.fromkeys(mean.codec for mean in means)]
    vtm = [anchor for anchor in anchors if anchor.name == VTM]
    rows = []
    for curve in measured:
        rows += [row(curve, anchor, True) for anchor in (anchors if curve.name == OURS else vtm)]
        if curve.name == OURS:
            rows += [row(curve, other, False) for other in measured if other is not curve]
    return rows


def row(curve: Curve, reference: Curve, published: bool) -> Row:
    """One comparison."""
    whole, *bands = (rate_or_none(curve, reference, band) for band in (None, *BANDS_DB))
    return Row(curve.name, reference.name, published, whole, tuple(bands))


def rate_or_none(curve: Curve, reference: Curve, band_db: tuple[float, float] | None) -> BDRate | None:
    """BD-rate, or None where there is nothing to compare."""
    try:
        return bd_rate(reference, curve, band_db)
    except ValueError:
        return None


def save_comparison(folder: Path, model: str, means: Sequence[Mean], anchors: Anchors) -> None:
    """Write what the README and the report say of BD-rates: the anchors file need not be there for these."""
    rows = [
        entry._asdict() | {"whole": as_json(entry.whole), "bands": [as_json(band) for band in entry.bands]}
        for entry in compare(means, anchors.curves)
    ]
    published = [rate._asdict() for rate in anchors.rates]
    content = {"model": {"id": model}, "bands_db": BANDS_DB, "rows": rows, "published": published}
    write_json(folder / BDRATE_FILE, content)


def load_comparison(folder: Path) -> Comparison:
    """Read what `save_comparison` wrote."""
    stored = json.loads((folder / BDRATE_FILE).read_text())
    rows = [
        Row(
            entry["codec"],
            entry["reference"],
            entry["published"],
            from_json(entry["whole"]),
            tuple(from_json(band) for band in entry["bands"]),
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
