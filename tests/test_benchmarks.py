from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import picture
from PIL import Image

from benchmarks import codecs, dataset, run, speed
from benchmarks.bdrate import OTHER_ANCHORS, VTM, Curve, bd_rate, load_anchors
from benchmarks.complexity import ENTROPY, complexity
from benchmarks.memory import picture_size, synthetic_picture
from benchmarks.metrics import ms_ssim, psnr_db, ssim
from benchmarks.report import bd_table, curve_table
from benchmarks.results import Mean, Record, Results, ResultsError
from codec.api import Codec

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


def write_anchors(path: Path, names: list[str]) -> Path:
    entries = [{"name": name, "bpp": BPP, "psnr_rgb": PSNR_DB} for name in names]
    path.write_text(json.dumps({"anchors": [*entries, {"name": "no PSNR", "bpp": [1.0]}]}))
    return path


def test_anchors_are_read_by_name(tmp_path: Path) -> None:
    path = write_anchors(tmp_path / "anchors.json", [VTM, "B"])
    assert [curve.name for curve in load_anchors(path, ["B", VTM])] == ["B", VTM]
    with pytest.raises(ValueError, match="no PSNR curve of C, no PSNR"):
        load_anchors(path, ["C", "no PSNR"])


def test_kodak_error_names_missing_and_altered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "kodim07.png").write_bytes(b"other")
    monkeypatch.setenv("YOTO_KODAK", str(tmp_path))
    with pytest.raises(dataset.DatasetError, match=r"missing: kodim01.png.*; altered: kodim07.png\.") as raised:
        dataset.find_kodak()
    assert str(tmp_path) in str(raised.value)
    assert "kodim07.png," not in str(raised.value)


def test_kodak_is_found_by_argument_then_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one.png").write_bytes(b"picture")
    digest = dataset.sha256(tmp_path / "a" / "one.png")
    monkeypatch.setattr(dataset, "KODAK_SHA256", {"one.png": digest})
    monkeypatch.setenv("YOTO_KODAK", str(tmp_path / "b"))
    assert dataset.find_kodak(tmp_path / "a") == [tmp_path / "a" / "one.png"]
    assert dataset.find_kodak() == [tmp_path / "b" / "one.png"]
    monkeypatch.delenv("YOTO_KODAK")
    monkeypatch.setattr(dataset, "CACHE", tmp_path / "nowhere")
    with pytest.raises(dataset.DatasetError, match="missing: one"):
        dataset.find_kodak()


def test_kodak_has_24_images() -> None:
    assert len(set(dataset.KODAK_SHA256.values())) == 24


def test_folder_without_pictures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(dataset.DatasetError, match="holds no pictures"):
        dataset.find_images(tmp_path)


def test_metrics_of_equal_pictures() -> None:
    a = picture(176, 192)
    assert psnr_db(a, a) == math.inf
    assert ms_ssim(a, a) == (1.0, math.inf)
    assert ssim(a, a) == pytest.approx(1.0)


def test_psnr_of_a_known_error() -> None:
    a = np.full((32, 48, 3), 100, np.uint8)
    assert psnr_db(a, a + 5) == pytest.approx(20.0 * math.log10(255.0 / 5.0))


def test_ssim_of_flat_pictures_is_the_luminance_term() -> None:
    a, b = np.full((192, 176, 3), 100, np.uint8), np.full((192, 176, 3), 120, np.uint8)
    c1 = (0.01 * 255.0) ** 2
    luminance = (2.0 * 100.0 * 120.0 + c1) / (100.0**2 + 120.0**2 + c1)
    assert ssim(a, b) == pytest.approx(luminance, abs=1e-6)
    # MS-SSIM takes luminance at the coarsest scale alone, whose weight is 0.1333.
    value, db = ms_ssim(a, b)
    assert value == pytest.approx(luminance**0.1333, abs=1e-5)
    assert db == pytest.approx(-10.0 * math.log10(1.0 - value))


def test_ms_ssim_refuses_small_pictures() -> None:
    with pytest.raises(ValueError, match="160×200 px; MS-SSIM needs 161"):
        ms_ssim(picture(200, 160), picture(200, 160))


@pytest.mark.parametrize("name", codecs.PEER_NAMES)
def test_peers_spend_more_for_better(name: str) -> None:
    (peer,), absent = codecs.choose_peers([name])
    assert absent == []
    image = picture(96, 128)
    low, high = (peer.encode(image, setting) for setting in (peer.settings[1], peer.settings[-2]))
    assert len(low) < len(high)
    assert psnr_db(image, peer.decode(low)) < psnr_db(image, peer.decode(high))
    assert peer.decode(high).shape == image.shape


def test_absent_codecs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codecs.features, "check", lambda feature: feature != "avif")
    present, absent = codecs.choose_peers(["avif", "jpeg", "avif-slow"])
    assert [peer.name for peer in present] == ["jpeg"]
    assert absent == ["avif", "avif-slow"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(2):
        Image.fromarray(picture(176, 192, seed)).save(folder / f"{seed}.png")
    return folder


def run_benchmark(pictures: Path, weights_path: Path, output: Path, *more: str) -> Result:
    options = ["--images", pictures, "--weights", weights_path, "--output", output, "--codecs", "yoto,jpeg", *more]
    return CliRunner().invoke(run.main, [str(option) for option in options])


def test_run_measures_real_files_and_resumes(
    pictures: Path, weights_path: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results.json"
    first = run_benchmark(pictures, weights_path, output, "--qualities", "0.1,0.9", "--limit", "1")
    assert first.exit_code == 0, first.output
    image = dataset.load_rgb(pictures / "0.png")
    stored = json.loads(output.read_text())
    record = next(r for r in stored["records"] if r["codec"] == "yoto" and r["setting"] == 0.9)
    data = codec.encode(image, 0.9)
    assert record["bytes"] == len(data)
    assert record["bpp"] == 8 * len(data) / (176 * 192)
    assert record["psnr_db"] == psnr_db(image, np.asarray(codec.decode(data)))
    assert stored["model"]["id"] == codec.weights.model_id.hex()

    measured = []
    measure = run.measure
    monkeypatch.setattr(run, "measure", lambda *args: measured.append(args[1:3]) or measure(*args))
    second = run_benchmark(pictures, weights_path, output, "--qualities", "0.1,0.5,0.9")
    assert second.exit_code == 0, second.output
    ours = [(setting, name) for setting, name in measured if setting < 1.0]
    assert ours == [(0.1, "1.png"), (0.5, "0.png"), (0.5, "1.png"), (0.9, "1.png")]
    stored = json.loads(output.read_text())
    points = [mean for mean in stored["means"] if mean["codec"] == "yoto"]
    assert [(point["setting"], point["images"]) for point in points] == [(0.1, 2), (0.5, 2), (0.9, 2)]
    both = [r["psnr_db"] for r in stored["records"] if r["codec"] == "yoto" and r["setting"] == 0.9]
    assert points[-1]["psnr_db"] == pytest.approx(sum(both) / 2.0)
    assert "yoto       jpeg" in second.stdout
    assert "jpeg 18/18: 96 1.png" in second.stderr
    assert list(tmp_path.iterdir()) == [output]

    measured.clear()
    third = run_benchmark(pictures, weights_path, output, "--qualities", "0.1,0.5,0.9")
    assert measured == []
    assert third.stdout == second.stdout
    other = run_benchmark(pictures, weights_path, output, "--threads", "2")
    assert other.exit_code == 1
    assert "made with another machine" in other.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "jpeg,gif"], "no codec gif"),
        (["--qualities", "0,2"], "between 0 and 1"),
        (["--qualities", "a"], "no list of numbers"),
    ],
)
def test_run_refuses_wrong_options(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(run.main, [*options, "--output", str(tmp_path / "o.json")])
    assert result.exit_code == 2
    assert message in result.output


def test_published_curves_are_refused_for_other_pictures(pictures: Path, weights_path: Path, tmp_path: Path) -> None:
    anchors = write_anchors(tmp_path / "a.json", [VTM, *OTHER_ANCHORS])
    result = run_benchmark(pictures, weights_path, tmp_path / "o.json", "--anchors", str(anchors))
    assert result.exit_code == 2
    assert "the anchors are of the Kodak images" in result.output


def test_altered_data_set_is_one_line_on_stderr(tmp_path: Path) -> None:
    result = CliRunner().invoke(run.main, ["--dataset", str(tmp_path), "--output", str(tmp_path / "o.json")])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "missing: kodim01.png" in result.stderr


def test_results_refuse_another_codec_or_file(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json", {"model": None})
    results.note_codec("jpeg", {"subsampling": "4:2:0"})
    with pytest.raises(ResultsError, match="jpeg with other options"):
        results.note_codec("jpeg", {})
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ResultsError, match="no results file"):
        Results(tmp_path / "bad.json", {})


def test_results_keep_infinite_figures(tmp_path: Path) -> None:
    record = Record("jpeg", 1.0, "a.png", 9, 0.1, math.inf, 1.0, math.inf, 1.0, 0.1, 0.1)
    Results(tmp_path / "r.json", {}).add(record)
    assert json.loads((tmp_path / "r.json").read_text())["records"][0]["psnr_db"] is None
    again = Results(tmp_path / "r.json", {})
    assert list(again.records.values()) == [record]


def test_tables_hold_curves_and_bands() -> None:
    means = [
        Mean("yoto", i / 5.0, 24, 1.0, 1.1 * rate, psnr, 0.9, 10.0, 0.9, 0.1, 0.1)
        for i, (rate, psnr) in enumerate(zip(BPP, PSNR_DB, strict=True))
    ]
    assert len(curve_table(means).splitlines()) == 3 + len(BPP)
    line = bd_table(means, [BASE._replace(name=VTM)]).splitlines()[-1]
    assert line.split() == ["yoto", *VTM.split(), "26.0–41.0", "+10.00%", *["+10.00%"] * 4]
    partly = bd_table(means[:3], [Curve(VTM, BPP[:3], PSNR_DB[:3])]).splitlines()[-1]
    assert partly.split()[-6:] == ["26.0–31.0", "+10.00%", "+10.00%", "+10.00%*", "–", "–"]
    nothing = bd_table(means, [Curve(VTM, (1.0, 2.0), (50.0, 60.0))]).splitlines()[-1]
    assert nothing.endswith("no curves with a range in common")


def test_section_timer_counts_each_second_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 10.0])
    monkeypatch.setattr(speed.time, "perf_counter", lambda: next(clock))
    timer = speed.SectionTimer()
    inner = timer.wrap("inner", lambda: None)
    timer.wrap("outer", inner)()
    assert timer.seconds == {"inner": 2.0, "outer": 8.0}


def test_entropy_path_is_timed_in_both_directions(codec: Codec) -> None:
    image = picture(64, 64)
    with speed.timed_entropy_path() as timer:
        data = codec.encode(image)
        encode = dict(timer.seconds)
        codec.decode(data)
    assert encode[speed.PRIOR] > 0.0
    assert encode[speed.CODER] > 0.0
    assert timer.seconds[speed.PRIOR] > encode[speed.PRIOR]
    assert timer.seconds[speed.CODER] > encode[speed.CODER]


def test_nearest_size_is_found() -> None:
    (jpeg,), _ = codecs.choose_peers(["jpeg"])
    image = picture(96, 96)
    sizes = {quality: len(jpeg.encode(image, quality)) for quality in range(101)}
    target = sizes[63] + 2
    found = speed.match_bytes(jpeg, image, target)
    assert abs(sizes[found] - target) == min(abs(size - target) for size in sizes.values())


def test_synthetic_pictures_have_the_size_asked_for() -> None:
    height, width = picture_size(0.4)
    image = synthetic_picture(height, width)
    assert image.shape == (height, width, 3)
    assert height * width == pytest.approx(0.4e6, rel=0.01)
    assert 20.0 < image.std() < 80.0


def test_complexity_counts_the_real_graph(codec: Codec) -> None:
    counts = complexity(codec, 128, 192)
    config = codec.weights.config
    n, m, d = config.N, config.M, config.D
    block = (9 * n + n * 2 * n + n * n) / 64
    lapped = 3 * 2 * 16
    g_a = 192 * n / 64 + block + 4 * n * m / 256
    # The 8 px at each edge are not filtered.
    assert g_a < 1e3 * counts["encode"]["g_a"] < g_a + lapped + 1.0
    assert counts["encode"][ENTROPY] == counts["decode"][ENTROPY]
    heads = 4 * (2 * d * d + d * d + d * 2 * m // 4) / 256
    assert 1e3 * counts["decode"][ENTROPY] > heads
    assert counts["encode"]["g_s"] == counts["decode"]["g_a"] == counts["decode"]["h_a"] == 0.0
    assert counts["decode"]["g_s"] > 0.0
