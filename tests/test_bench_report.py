from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import picture
from PIL import Image

from benchmarks import codecs, compressai_models, dataset, html, memory, plot, readme, speed, visual
from benchmarks.anchors import VTM, load_anchors
from benchmarks.comparison import compare, save_comparison
from benchmarks.complexity import ENTROPY, complexity, parameters
from benchmarks.files import write_json
from benchmarks.results import Record, Results
from benchmarks.summary import RESULTS, SummaryError, load_summary
from codec.api import Codec, default_codec
from codec.peers import choose_peers

MODEL = {"id": "abcdef", "sha256": "abcdef", "config": {"N": 1}}
MEAN = "CompressAI mbt2018-mean (mse)"
IMAGES = ("a.png", "b.png")


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


def test_synthetic_pictures_have_the_size_asked_for() -> None:
    height, width = memory.picture_size(0.4)
    image = memory.synthetic_picture(height, width)
    assert image.shape == (height, width, 3)
    assert height * width == pytest.approx(0.4e6, rel=0.01)
    assert 20.0 < image.std() < 80.0


def test_complexity_counts_the_real_graph(codec: Codec) -> None:
    counts = complexity(codec, 128, 192)
    config = codec.weights.config
    n, m, d = config.N, config.M, config.D
    fine = 48 + config.extra
    blocks = config.analysis_blocks * (9 * fine + 3 * fine**2) / 16 + config.analysis_coarse * (9 * n + 3 * n**2) / 64
    lapped = 3 * 2 * 16
    g_a = blocks + 4 * fine * n / 64 + 4 * n * m / 256
    # The 8 px at each edge are not filtered.
    assert g_a < 1e3 * counts["encode_fast"]["g_a"] < g_a + lapped + 1.0
    assert counts["encode_fast"][ENTROPY] == counts["decode"][ENTROPY]
    assert counts["encode"][ENTROPY] == 2.0 * counts["decode"][ENTROPY]  # the symbols are chosen twice
    assert counts["encode"]["g_s"] > counts["decode"]["g_s"]
    heads = 4 * (2 * d * d + d * d + d * 2 * m // 4) / 256
    assert 1e3 * counts["decode"][ENTROPY] > heads
    assert counts["encode_fast"]["g_s"] == counts["decode"]["g_a"] == counts["decode"]["h_a"] == 0.0
    assert counts["decode"]["g_s"] > 0.0


def test_every_parameter_is_counted(codec: Codec) -> None:
    counts = parameters(codec)
    assert counts["transforms"] == sum(count for name, count in counts.items() if name != "transforms")


def test_memory_grows_with_the_picture(tmp_path: Path) -> None:
    output = tmp_path / "memory.json"
    done = CliRunner().invoke(memory.main, ["--megapixels", "0.05,0.4", "--output", str(output)])
    assert done.exit_code == 0, done.output
    stored = json.loads(output.read_text())
    assert stored["model"]["id"] == default_codec().weights.model_id.hex()
    small, large = stored["rows"]
    assert [row["megapixels"] for row in stored["rows"]] == [0.05, 0.4]
    for step in ("encode", "decode"):
        assert small[f"{step}_loaded_mib"] <= small[f"{step}_peak_mib"] < large[f"{step}_peak_mib"]
        assert small[f"{step}_loaded_mib"] < 200.0  # ONNX Runtime, but not torch


FAKE_MODEL = """
import torch
import torchvision.transforms

class MeanScaleHyperprior(torch.nn.Module):
    def __init__(self, N, M):
        super().__init__()
        self.g_a = torch.nn.Conv2d(3, N, 3, padding=1)
        self.g_s = torch.nn.Conv2d(N, M, 1)

    def update(self, force):
        self.updated = force

    def compress(self, x):
        assert self.updated
        return {"strings": [self.g_a(x)], "shape": x.shape[2:]}

    def decompress(self, strings, shape):
        return {"x_hat": self.g_s(strings[0])}
"""


@pytest.fixture
def fake_compressai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of that name with a small network, whose package files cannot be imported, like the real one's here."""
    models = tmp_path / "packages" / "compressai" / "models"
    models.mkdir(parents=True)
    for package in (models, models.parent):
        (package / "__init__.py").write_text("raise ImportError('operator torchvision::nms does not exist')")
    (models / "google.py").write_text(FAKE_MODEL)
    info = tmp_path / "packages" / "compressai-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: compressai\nVersion: 1.0\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))


@pytest.mark.usefixtures("fake_compressai")
def test_compressai_is_measured_in_another_process(tmp_path: Path) -> None:
    Image.fromarray(picture(64, 130)).save(tmp_path / "picture.png")
    call = (Path(sys.executable), tmp_path / "picture.png", "--models", "mbt2018-mean 1–4")
    counted = compressai_models.measure_elsewhere(*call, "--count")
    (model,) = counted["models"]
    assert counted["versions"]["compressai"] == "1.0"
    assert (model["encode_kmac"], model["decode_kmac"]) == (27 * 128 / 1e3, 128 * 192 / 1e3)
    timed = compressai_models.measure_elsewhere(*call, "--repeats", "2")
    assert timed["models"][0]["encode_s"] > 0.0
    with pytest.raises(compressai_models.CompressaiError, match="no model vtm; there are"):
        compressai_models.measure_elsewhere(*call[:2], "--models", "vtm")


def test_environments_without_compressai_are_an_error(tmp_path: Path) -> None:
    Image.fromarray(picture(64, 64)).save(tmp_path / "picture.png")
    with pytest.raises(compressai_models.CompressaiError, match="has no compressai"):
        compressai_models.measure_elsewhere(Path(sys.executable), tmp_path / "picture.png")
    with pytest.raises(compressai_models.CompressaiError, match=r"cannot run .*: No such file"):
        compressai_models.measure_elsewhere(tmp_path / "python", tmp_path / "picture.png")


@pytest.mark.usefixtures("fake_compressai")
def test_speed_writes_what_it_prints(weights_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture(64, 96)).save(tmp_path / "kodim05.png")
    monkeypatch.setattr(speed, "find_kodak", lambda folder: [tmp_path / "kodim05.png"])
    monkeypatch.setattr(speed, "PEERS", ("jpeg", "jpegxl"))
    monkeypatch.setattr(speed, "measure_elsewhere", only_mean)
    options = ["--weights", str(weights_path), "--repeats", "1", "--compressai-python", sys.executable]
    done = CliRunner().invoke(speed.main, [*options, "--output", str(tmp_path / "speed.json")])
    assert done.exit_code == 0, done.output
    stored = json.loads((tmp_path / "speed.json").read_text())
    rows = [(row["codec"], row["threads"]) for row in stored["timings"]]
    names = ["yoto", "yoto-fast", "jpeg", "jpegxl", "CompressAI mbt2018-mean 1–4"]
    assert rows == [(name, threads) for threads in (1, 2) for name in names]
    assert all(row[f"{step}_s"] > 0.0 for row in stored["timings"] for step in ("encode", "decode"))
    assert min(stored["startup_s"].values()) > 0.0
    assert stored["absent"] == []
    assert "CompressAI mbt2018-mean 1–4" in done.stdout


def only_mean(python: Path, picture: Path, *options: str) -> dict[str, object]:
    """The real thing, but of one model."""
    return compressai_models.measure_elsewhere(python, picture, "--models", "mbt2018-mean 1–4", *options)


@pytest.fixture
def anchors_path(tmp_path: Path) -> Path:
    """Anchors of which ours, in `folder`, needs 10 % more than VTM."""
    entries = [
        {"name": name, "bpp": [factor * bpp for bpp in (0.1, 0.3, 1.0, 1.8)], "psnr_rgb": [27.0, 31.0, 36.0, 40.0]}
        | {"ms_ssim_rgb": [0.8, 0.9, 0.95, 0.99], "note": "10/20 kMAC/px enc/dec" if name == "stated" else ""}
        for name, factor in ((VTM, 1 / 1.1), (MEAN, 1.2), ("stated", 1.3))
    ]
    rate = {"name": "DCVC", "kodak_bd_rate_psnr_vs": "VTM-17.0", "value": -11.1}
    path = tmp_path / "anchors.json"
    path.write_text(json.dumps({"anchors": entries, "published_bd_only": [rate]}))
    return path


@pytest.fixture
def folder(tmp_path: Path, anchors_path: Path) -> Path:
    """A results folder with everything in it."""
    target = tmp_path / "results"
    target.mkdir()
    conditions = {"versions": {"torch": "1"}, "dataset": {"name": "Kodak", "sha256": {}}}
    ours = Results(target / "yoto.json", conditions | {"model": MODEL})
    others = Results(target / "peers.json", conditions)
    for results, codec, factor in ((ours, "yoto", 1.0), (others, "jpeg", 2.0)):
        for setting, bpp, psnr in ((0.0, 0.1, 27.0), (0.3, 0.3, 31.0), (0.6, 1.0, 36.0), (1.0, 1.8, 40.0)):
            for image in IMAGES:
                results.add(Record(codec, setting, image, 99, factor * bpp, psnr, 0.9, 10.0, 0.8, 0.1, 0.1))
        peaks = {f"{step}_{kind}_mib": 100.0 for step in ("encode", "decode") for kind in ("peak", "loaded")}
        results.add_memory(codec, 0.3, "a.png", peaks | {"encode_peak_mib": 345.0})
    ours.note_run("python -m benchmarks.run", {"cpu": "a <CPU>"})
    ours.note_codec("yoto", {"effort": 1})
    ours.save()
    others.note_absent(["heic"])
    others.save()
    summary = load_summary(target)
    anchors = load_anchors(anchors_path, [VTM, MEAN, "stated", "DCVC"])
    save_comparison(target, "abcdef", compare(summary.means, anchors), anchors.rates)
    shared = {"command": "python", "machine": {"cpu": "a", "cores": 2}, "model": MODEL}
    timings = [
        {"codec": "yoto", "threads": 1, "setting": 0.5, "bytes": 9, "encode_s": 0.1, "decode_s": 0.2},
        {"codec": "CompressAI mbt2018-mean 1–4", "threads": 1, "encode_s": 0.4, "decode_s": 0.5},
    ]
    more = {"image": "a.png", "repeats": 3, "load_before": 0.0, "startup_s": {"yoto-codec info": 0.1}, "absent": []}
    write_json(target / "speed.json", shared | more | {"timings": timings})
    rows = [
        {
            "megapixels": size,
            **{f"{step}_{figure}": size for step in ("encode", "decode") for figure in ("peak_mib", "seconds")},
        }
        for size in (0.1, 100.0)
    ]
    write_json(target / "memory.json", shared | {"rows": rows})
    models = [{"model": "mbt2018-mean-vbr", "anchor": MEAN, "encode_kmac": 112.0, "decode_kmac": 109.0}]
    parts = {
        "encode": {"g_a": 16.0, ENTROPY: 4.0},
        "encode_fast": {"g_a": 8.0, ENTROPY: 2.0},
        "decode": {"g_s": 12.0, ENTROPY: 2.0},
    }
    write_json(target / "complexity.json", shared | {"kmac_per_px": parts, "compressai": {"models": models}})
    return target


def test_files_of_another_model_are_refused(folder: Path) -> None:
    stored = json.loads((folder / "speed.json").read_text())
    write_json(folder / "speed.json", stored | {"model": {"id": "other"}})
    with pytest.raises(SummaryError, match=r"speed.json of .* not of model abcdef, as yoto.json is: measure again"):
        load_summary(folder)
    with pytest.raises(SummaryError, match=r"holds no yoto\.json"):
        load_summary(folder.parent)


def test_complexity_points_are_counted_or_stated(folder: Path, anchors_path: Path) -> None:
    anchors = load_anchors(anchors_path, [VTM, "stated"])
    points = plot.complexity_points(load_summary(folder), anchors, load_anchors(anchors_path, [VTM, MEAN]))
    assert [(point.name, list(point.kmacs)) for point in points] == [
        ("yoto-codec", [14.0]),
        (MEAN, [109.0]),
        ("stated", [20.0]),
    ]
    assert [point.percent for point in points] == pytest.approx([10.0, 32.0, 43.0])


def test_plots_are_written(folder: Path, anchors_path: Path, tmp_path: Path) -> None:
    options = ["--results", folder, "--anchors", anchors_path, "--anchor", VTM, "--output", tmp_path / "plots"]
    done = CliRunner().invoke(plot.main, [str(option) for option in options])
    assert done.exit_code == 0, done.output
    for name in ("rd-psnr", "rd-ms-ssim", "complexity", "growth"):
        with Image.open(tmp_path / "plots" / f"{name}.png") as image:
            assert np.asarray(image.convert("L")).std() > 5.0
        assert ET.parse(tmp_path / "plots" / f"{name}.svg").getroot().tag.endswith("svg")
    assert "yoto-codec" in (tmp_path / "plots" / "rd-psnr.svg").read_text()
    wrong = CliRunner().invoke(plot.main, [str(option) for option in [*options, "--anchor", "nobody"]])
    assert (wrong.exit_code, len(wrong.stderr.splitlines())) == (1, 1)


def test_crops_are_of_equal_bytes(codec: Codec, tmp_path: Path) -> None:
    image = picture(256, 320)
    Image.fromarray(image).save(tmp_path / "one.png")
    peers, _ = choose_peers(["webp"])
    place = visual.Place("one.png", 16, 24)
    original, ours, webp = visual.view(place, tmp_path, codecs.Yoto(codec), 0.9, peers).crops
    assert ours.bytes == len(codec.encode(image, 0.9))
    sizes = [len(peers[0].encode(image, quality)) for quality in range(100)]
    assert abs(webp.bytes - ours.bytes) == min(abs(size - ours.bytes) for size in sizes)
    (tmp_path / "crop.png").write_bytes(original.png)
    expected = image[24 : 24 + visual.HEIGHT_PX, 16 : 16 + visual.WIDTH_PX]
    assert np.array_equal(dataset.load_rgb(tmp_path / "crop.png"), expected)


class Page(HTMLParser):
    """Collects tags that do not match, addresses, and text."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_is_complete_and_self_contained(folder: Path, anchors_path: Path) -> None:
    summary, _, figures = plot.read_figures(folder, anchors_path, [VTM, MEAN, "stated", "DCVC"])
    crops = [visual.Crop("original", b"PNG"), visual.Crop("yoto-codec", b"PNG", 0.2, 1234, 30.5)]
    text = html.page(summary, figures, [visual.View(visual.PLACES[0], crops)])
    page = Page()
    page.feed(text)
    assert page.open == []
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.findall(r"url\((?!#)|@import|<script|<link", text)
    for expected in (
        "+10.00%",
        "not installed where this was measured: HEIC (x265, slow); not measured yet: WebP (method 6), AVIF",
        "DCVC †",
        "1234 bytes, 30.50 dB",
        "a <CPU>",
        "4.00",
        "345",
    ):
        assert expected in page.text, expected


def test_html_command_refuses_other_weights(
    folder: Path, weights_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(html, "find_dataset", lambda _: dataset.Dataset("Kodak", [tmp_path / "kodim01.png"]))
    options = ["--results", str(folder), "--weights", str(weights_path), "--output", str(tmp_path / "r.html")]
    done = CliRunner().invoke(html.main, options)
    assert done.exit_code == 1
    assert "is of model abcdef, loaded is" in done.stderr
    assert not (tmp_path / "r.html").exists()


def test_html_command_writes_a_page(
    folder: Path, weights_path: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("abcdef", codec.weights.model_id.hex()))
    for place in visual.PLACES:
        Image.fromarray(picture(128, 192)).save(tmp_path / place.image)
    found = dataset.Dataset("Kodak", [tmp_path / place.image for place in visual.PLACES])
    monkeypatch.setattr(html, "find_dataset", lambda _: found)
    monkeypatch.setattr(visual, "PLACES", [place._replace(left=0, top=0) for place in visual.PLACES[:2]])
    options = ["--results", str(folder), "--weights", str(weights_path), "--output", str(tmp_path / "r.html")]
    done = CliRunner().invoke(html.main, options)
    assert done.exit_code == 0, done.output
    text = (tmp_path / "r.html").read_text()
    assert text.count("<img ") == len(visual.PLACES) * (2 + len(visual.PEERS))


def test_readme_text_holds_every_part(folder: Path) -> None:
    text = readme.results_text(load_summary(folder))
    for expected in ("| 0.3 | 0.300 | 31.00 |", "| VTM 18.0 (lossy-vae) † | +10.00% | 27.0–40.0 |", "| DCVC † |"):
        assert expected in text
    for expected in ("| 0.100 | 1.00 | 0.200 | 1.00 |", "| 100 | 100 | 100.00 |", "analysis 8.0", "takes 112 and 109"):
        assert expected in text
    for name in ("speed", "memory", "complexity", "bdrate"):
        (folder / f"{name}.json").unlink()
    text = readme.results_text(load_summary(folder))
    assert "Speed has not been measured for this model" in text
    assert "BD-rates have not been computed" in text


def test_readme_has_a_place_for_the_results() -> None:
    assert (
        readme.replaced(f"a\n{readme.BEGIN}old{readme.END}\nb", "new") == f"a\n{readme.BEGIN}\n\nnew\n\n{readme.END}\nb"
    )
    with pytest.raises(ValueError, match="the README lacks the lines"):
        readme.replaced("a", "new")


def test_readme_and_results_page_hold_the_committed_results() -> None:
    summary, text = load_summary(RESULTS), readme.README.read_text()
    section = readme.readme_text(summary)
    assert text == readme.replaced(text, section), "run python -m benchmarks.readme"
    assert readme.RESULTS_PAGE.read_text() == readme.results_text(summary), "run python -m benchmarks.readme"
    assert f"]({readme.FIGURE})" in text
    assert (readme.README.parent / readme.FIGURE).is_file()
    assert len(section.splitlines()) <= readme.README_MAX_LINES
