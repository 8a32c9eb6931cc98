from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.anchors import VTM, Anchors, Kmacs, load_anchors
from benchmarks.bdrate import BDRate, Curve, bd_rate
from benchmarks.comparison import compare, load_comparison, save_comparison
from benchmarks.report import bd_table, curve_table
from benchmarks.results import Mean

PSNR_DB = (26.0, 28.5, 31.0, 34.0, 37.0, 41.0)
BPP = (0.08, 0.14, 0.3, 0.6, 1.1, 2.0)
BASE = Curve("base", BPP, PSNR_DB)


def scaled(factor: float) -> Curve:
    return Curve("scaled", [factor * rate for rate in BPP], PSNR_DB)


@pytest.mark.parametrize("percent", [-30.0, 0.0, 24.0, 150.0])
def test_bd_rate_of_a_scaled_curve_is_its_factor(percent: float) -> None:
    rate = bd_rate(BASE, scaled(1.0 + percent / 100.0))
    assert rate.percent == pytest.approx(percent, abs=1e-9)
    assert (rate.low_db, rate.high_db) == (26.0, 41.0)


def test_bd_rate_of_a_scaled_curve_is_its_factor_in_every_band() -> None:
    for band in ((26.0, 30.0), (30.0, 35.0), (35.0, 60.0)):
        assert bd_rate(BASE, scaled(0.82), band).percent == pytest.approx(-18.0, abs=1e-9)


def test_bd_rate_of_a_curve_shifted_in_psnr() -> None:
    # A straight line in ln(bpp), an octave in 6 dB, shifted by 1 dB: 2^(1/6) less rate everywhere.
    reference = Curve("line", [2.0 ** (p / 6.0) for p in PSNR_DB], PSNR_DB)
    better = Curve("better", reference.bpp, [p + 1.0 for p in PSNR_DB])
    rate = bd_rate(reference, better)
    assert rate.percent == pytest.approx(100.0 * (2.0 ** (-1.0 / 6.0) - 1.0))
    assert (rate.low_db, rate.high_db) == (27.0, 41.0)


def test_bd_rate_of_pchip_pieces_by_hand() -> None:
    # ln(bpp) is 0, 1, 1 at 30, 31, 32 dB. PCHIP's slopes there: 1.5 (one-sided), 0 (flat beside it), 0; with
    # t = PSNR - 30 the first piece is 1.5·(t³ - 2t² + t) + 3t² - 2t³ with integral 0.625, the second is 1.
    reference = Curve("flat", (1.0, 1.0, 1.0), (30.0, 31.0, 32.0))
    curve = Curve("bent", (1.0, math.e, math.e), (30.0, 31.0, 32.0))
    assert bd_rate(reference, curve).percent == pytest.approx(100.0 * math.expm1((0.625 + 1.0) / 2.0))
    assert bd_rate(reference, curve, (30.0, 31.0)).percent == pytest.approx(100.0 * math.expm1(0.625))


def test_bd_rate_of_straight_lines_is_the_mean_of_the_log_ratio() -> None:
    # ln ratio rises linearly from 0 at 30 dB to ln 4 at 40 dB: its mean is ln 2.
    reference = Curve("line", (1.0, 2.0), (30.0, 40.0))
    steeper = Curve("steeper", (1.0, 8.0), (30.0, 40.0))
    assert bd_rate(reference, steeper).percent == pytest.approx(100.0)
    assert bd_rate(steeper, reference).percent == pytest.approx(-50.0)


def test_bd_rate_uses_the_common_range_alone() -> None:
    # Lines of one slope, an octave in 10 dB, at twice the rate; they share 35–40 dB.
    reference = Curve("low", (1.0, 2.0), (30.0, 40.0))
    shifted = Curve("high", (2.0 * 2.0**0.5, 2.0 * 2.0**1.5), (35.0, 45.0))
    rate = bd_rate(reference, shifted)
    assert rate.percent == pytest.approx(100.0)
    assert (rate.low_db, rate.high_db) == (35.0, 40.0)


def test_bd_rate_in_a_band() -> None:
    reference = Curve("line", (1.0, 2.0), (30.0, 40.0))
    steeper = Curve("steeper", (1.0, 8.0), (30.0, 40.0))
    # Between 35 and 40 dB the mean of ln 4 · (p - 30)/10 is 0.75 · ln 4.
    rate = bd_rate(reference, steeper, (35.0, 42.0))
    assert rate.percent == pytest.approx(100.0 * (4.0**0.75 - 1.0))
    assert (rate.low_db, rate.high_db) == (35.0, 40.0)


def test_bd_rate_takes_points_in_any_order() -> None:
    turned = Curve("turned", BPP[::-1], PSNR_DB[::-1])
    assert bd_rate(BASE, turned).percent == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("band", [None, (20.0, 25.0)])
def test_bd_rate_refuses_disjoint_ranges(band: tuple[float, float] | None) -> None:
    other = Curve("other", (1.0, 2.0), (50.0, 60.0)) if band is None else BASE
    with pytest.raises(ValueError, match="no PSNR range in common"):
        bd_rate(BASE, other, band)


@pytest.mark.parametrize(
    ("bpp", "psnr"), [((0.5, 1.0), (30.0, 30.0)), ((0.0, 1.0), (30.0, 40.0)), ((0.5, 1.0), (30.0, math.inf))]
)
def test_bd_rate_refuses_what_is_no_curve(bpp: tuple[float, ...], psnr: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"no curve|same PSNR|no PSNR range"):
        bd_rate(BASE, Curve("bad", bpp, psnr))


def write_anchors(path: Path, names: list[str], **more: object) -> Path:
    entries = [{"name": name, "bpp": BPP, "psnr_rgb": PSNR_DB, **more} for name in names]
    published = [{"name": "rate", "kodak_bd_rate_psnr_vs": "VTM-17.0", "value": -11.1}]
    stored = {"anchors": [*entries, {"name": "no PSNR", "bpp": [1.0]}], "published_bd_only": published}
    path.write_text(json.dumps(stored))
    return path


def test_anchors_are_read_by_name(tmp_path: Path) -> None:
    path = write_anchors(
        tmp_path / "anchors.json", [VTM, "B"], ms_ssim_rgb=[0.9] * 6, note="about 790/425 kMAC/px enc/dec"
    )
    anchors = load_anchors(path, ["B", "rate", VTM])
    assert [curve.name for curve in anchors.curves] == ["B", VTM]
    assert anchors.ms_ssim[0].psnr_db == pytest.approx([10.0] * 6)
    assert anchors.rates == [("rate", "VTM-17.0", -11.1)]
    assert anchors.kmacs["B"] == Kmacs(790.0, 425.0)
    with pytest.raises(ValueError, match="neither a PSNR curve nor a BD-rate of C, no PSNR"):
        load_anchors(path, ["C", "no PSNR"])


@pytest.mark.parametrize("content", ["[]", "{", '{"anchors": [{}]}'])
def test_other_files_are_no_anchors(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match="is no anchors file"):
        load_anchors(tmp_path / "a.json")


def means_of(codec: str, factor: float, points: int = len(BPP)) -> list[Mean]:
    return [
        Mean(codec, i / 5.0, 24, 1.0, factor * rate, psnr, 0.9, 10.0, 0.9, 0.1, 0.1)
        for i, (rate, psnr) in enumerate(zip(BPP[:points], PSNR_DB[:points], strict=True))
    ]


def published(*curves: Curve) -> Anchors:
    return Anchors(list(curves), [], [], {})


def test_tables_hold_curves_and_bands() -> None:
    means = means_of("yoto", 1.1)
    assert len(curve_table(means).splitlines()) == 3 + len(BPP)
    line = bd_table(compare(means, published(BASE._replace(name=VTM)))).splitlines()[-1]
    assert line.split() == ["yoto", *VTM.split(), "26.0–41.0", "+10.00%", "–", "–", *["+10.00%"] * 4]
    partly = bd_table(compare(means[:3], published(Curve(VTM, BPP[:3], PSNR_DB[:3])))).splitlines()[-1]
    assert partly.split()[-8:] == ["26.0–31.0", "+10.00%", "–", "–", "+10.00%", "+10.00%*", "–", "–"]
    nothing = bd_table(compare(means, published(Curve(VTM, (1.0, 2.0), (50.0, 60.0))))).splitlines()[-1]
    assert nothing.endswith("no curves with a range in common")
    assert bd_table([]).startswith("No BD-rates")


def test_ours_is_compared_with_all_and_others_with_vtm() -> None:
    means = [*means_of("yoto", 1.1), *means_of("jpeg", 2.2)]
    rows = compare(means, published(BASE._replace(name=VTM), BASE._replace(name="B")))
    pairs = [(row.codec, row.reference, row.published) for row in rows]
    assert pairs == [("yoto", VTM, True), ("yoto", "B", True), ("yoto", "jpeg", False), ("jpeg", VTM, True)]
    assert rows[2].whole == pytest.approx(BDRate(-50.0, 26.0, 41.0))


def test_comparison_is_read_as_it_was_written(tmp_path: Path) -> None:
    anchors = load_anchors(write_anchors(tmp_path / "a.json", [VTM]), [VTM, "rate"])
    means = means_of("yoto", 1.1, points=3)
    save_comparison(tmp_path, "abc", compare(means, anchors), anchors.rates)
    comparison = load_comparison(tmp_path)
    assert comparison.model == "abc"
    assert comparison.rows == compare(means, anchors)
    assert comparison.rows[0].bands[-1] is None
    assert comparison.published == anchors.rates
