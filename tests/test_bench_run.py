from __future__ import annotations

import http.server
import io
import json
import math
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from conftest import picture
from PIL import Image

import cli
from benchmarks import codecs, dataset, run
from benchmarks.results import Record, Results, ResultsError
from codec.api import Codec
from codec.metrics import psnr_db, ssimulacra2
from codec.peers import PEERS


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


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A file server that logs nothing."""

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A server on loopback: its folder and its address. Two files are all that a complete set takes."""
    folder = tmp_path / "site"
    folder.mkdir()
    for name in ("one.png", "two.png"):
        (folder / name).write_bytes(name.encode() * 100)
    monkeypatch.setattr(dataset, "KODAK_SHA256", {path.name: dataset.sha256(path) for path in sorted(folder.iterdir())})
    handler = lambda *args: Quiet(*args, directory=str(folder))  # noqa: E731
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_download_fetches_what_is_missing_or_altered(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    target = tmp_path / "new" / "cache"
    dataset.download_kodak(target, url)
    assert sorted(path.name for path in target.iterdir()) == ["one.png", "two.png"]
    (target / "two.png").write_bytes(b"altered")
    (folder / "one.png").unlink()  # is not asked for again
    dataset.download_kodak(target, url)
    assert (target / "two.png").read_bytes() == (folder / "two.png").read_bytes()


def test_download_refuses_another_file(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    (folder / "two.png").write_bytes(b"another picture")
    with pytest.raises(
        dataset.DatasetError, match=r"two.png is not the published image: its SHA-256 is [0-9a-f]{64}, exp"
    ):
        dataset.download_kodak(tmp_path / "cache", url)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one.png"]


def test_download_names_what_cannot_be_fetched(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, url = site
    (folder / "two.png").unlink()
    with pytest.raises(dataset.DatasetError, match=r"cannot fetch http://127.0.0.1:\d+/two.png: HTTP Error 404"):
        dataset.download_kodak(tmp_path / "cache", url)
    with pytest.raises(dataset.DatasetError, match=r"cannot fetch http://127.0.0.1:9/one.png: .*refused"):
        dataset.download_kodak(tmp_path / "other", "http://127.0.0.1:9")


def test_benchmark_command_downloads(site: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset.download_kodak, "__defaults__", (site[1],))
    arguments = ["benchmark", "--download", "--dataset", str(tmp_path / "cache")]
    done = CliRunner().invoke(cli.main, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "cache" / "one.png").is_file()
    (site[0] / "two.png").unlink()
    (tmp_path / "cache" / "two.png").unlink()
    failed = CliRunner().invoke(cli.main, arguments)
    assert failed.exit_code == 1
    assert len(failed.stderr.splitlines()) == 1


def test_benchmark_command_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(cli, "import_module", absent)
    without_extra = CliRunner().invoke(cli.main, ["benchmark"])
    assert (without_extra.exit_code, len(without_extra.stderr.splitlines())) == (1, 1)
    assert "scipy is not installed: pip install -e '.[bench]'" in without_extra.stderr
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "cli.py"))
    from_wheel = CliRunner().invoke(cli.main, ["benchmark"])
    assert (from_wheel.exit_code, len(from_wheel.stderr.splitlines())) == (1, 1)
    assert "not in the wheel" in from_wheel.stderr


def test_limits_of_threads_are_lifted_again() -> None:
    before = torch.get_num_threads(), codecs.allowed_cores()
    with codecs.limited_to(1):
        assert torch.get_num_threads() == 1
        assert len(codecs.allowed_cores()) <= 1
        assert codecs.AvifImagePlugin.DEFAULT_MAX_THREADS == 1
    assert (torch.get_num_threads(), codecs.allowed_cores()) == before


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for seed in range(2):
        Image.fromarray(picture(176, 192, seed)).save(folder / f"{seed}.png")
    return folder


def run_benchmark(pictures: Path, weights_path: Path, folder: Path, *more: str) -> Result:
    options = ["--dataset", pictures, "--weights", weights_path, "--results", folder, "--no-page"]
    options += ["--codecs", "yoto,jpeg", *more]
    return CliRunner().invoke(run.main, [str(option) for option in options])


def test_run_measures_real_files_and_resumes(
    pictures: Path, weights_path: Path, codec: Codec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_benchmark(pictures, weights_path, tmp_path, "--qualities", "0.1,0.9", "--limit", "1")
    assert first.exit_code == 0, first.output
    image = dataset.load_rgb(pictures / "0.png")
    stored = json.loads((tmp_path / "yoto.json").read_text())
    record = next(record for record in stored["records"] if record["setting"] == 0.9)
    data = codec.encode(image, 0.9)
    assert record["bytes"] == len(data)
    assert record["bpp"] == 8 * len(data) / (176 * 192)
    decoded = np.asarray(codec.decode(data))
    assert record["psnr_db"] == psnr_db(image, decoded)
    assert record["ssimulacra2"] == ssimulacra2(image, decoded)
    assert stored["model"]["id"] == codec.weights.model_id.hex()
    assert str(pictures) not in (tmp_path / "yoto.json").read_text()

    measured = []
    measure = run.measure
    monkeypatch.setattr(run, "measure", lambda *args: measured.append(args[1:3]) or measure(*args))
    second = run_benchmark(pictures, weights_path, tmp_path, "--qualities", "0.1,0.5,0.9")
    assert second.exit_code == 0, second.output
    ours = [(setting, name) for setting, name in measured if setting < 1.0]
    assert ours == [(0.1, "1.png"), (0.5, "0.png"), (0.5, "1.png"), (0.9, "1.png")]
    stored = json.loads((tmp_path / "yoto.json").read_text())
    points = stored["means"]
    assert [(point["setting"], point["images"]) for point in points] == [(0.1, 2), (0.5, 2), (0.9, 2)]
    both = [r["psnr_db"] for r in stored["records"] if r["setting"] == 0.9]
    assert points[-1]["psnr_db"] == pytest.approx(sum(both) / 2.0)
    assert "yoto           jpeg" in second.stdout
    assert "jpeg (7 to measure)" in second.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bdrate.json", "peers.json", "yoto.json"]

    measured.clear()
    third = run_benchmark(pictures, weights_path, tmp_path, "--qualities", "0.1,0.5,0.9")
    assert measured == []
    assert third.stdout == second.stdout
    other = run_benchmark(pictures, weights_path, tmp_path, "--qualities", "0.1,0.5,0.9", "--threads", "2")
    assert other.exit_code == 0, other.output
    assert measured == []  # another machine, which two threads count as, leaves what was measured
    assert [machine["threads"] for machine in json.loads((tmp_path / "peers.json").read_text())["machines"]] == [1, 2]
    faster = run_benchmark(pictures, weights_path, tmp_path, "--effort", "0")
    assert faster.exit_code == 1
    assert "holds yoto with other options" in faster.stderr


def test_other_weights_replace_ours_and_keep_the_peers(
    pictures: Path, weights_path: Path, tmp_path: Path, codec: Codec
) -> None:
    options = ("--qualities", "0.5", "--limit", "1")
    assert run_benchmark(pictures, weights_path, tmp_path, *options).exit_code == 0
    stored = json.loads((tmp_path / "yoto.json").read_text())
    stored["model"]["id"] = "other"
    (tmp_path / "yoto.json").write_text(json.dumps(stored))
    peers_before = json.loads((tmp_path / "peers.json").read_text())["records"]
    refused = run_benchmark(pictures, weights_path, tmp_path, *options)
    assert refused.exit_code == 1
    assert "yoto.json was made with another model; name another folder" in refused.stderr
    replaced = run_benchmark(pictures, weights_path, tmp_path, *options, "--replace")
    assert replaced.exit_code == 0, replaced.output
    assert json.loads((tmp_path / "yoto.json").read_text())["model"]["id"] == codec.weights.model_id.hex()
    assert json.loads((tmp_path / "peers.json").read_text())["records"] == peers_before


def test_peak_memory_is_of_a_fresh_process(pictures: Path, tmp_path: Path) -> None:
    options = ["--dataset", str(pictures), "--results", str(tmp_path), "--codecs", "jpeg", "--limit", "1", "--memory"]
    done = CliRunner().invoke(run.main, options)
    assert done.exit_code == 0, done.output
    entries = json.loads((tmp_path / "peers.json").read_text())["memory"]
    assert [entry["setting"] for entry in entries] == list(PEERS["jpeg"].settings)
    for entry in entries:
        assert (entry["codec"], entry["image"]) == ("jpeg", "0.png")
        for step in ("encode", "decode"):
            # Python, NumPy and Pillow, but not torch.
            assert 10.0 < entry[f"{step}_loaded_mib"] <= entry[f"{step}_peak_mib"] < 150.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--codecs", "jpeg,gif"], "no codec gif"),
        (["--qualities", "0,2"], "between 0 and 1"),
        (["--qualities", "a"], "no list of numbers"),
        (["--reference", "gif"], "no codec gif"),
    ],
)
def test_run_refuses_wrong_options(options: list[str], message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(run.main, [*options, "--results", str(tmp_path)])
    assert result.exit_code == 2
    assert message in result.output


def test_any_folder_gets_a_page_with_every_metric(weights_path: Path, tmp_path: Path) -> None:
    """Pictures of any format and size, one too small for MS-SSIM, beside a codec of the user's own."""
    pictures, results = tmp_path / "mine", tmp_path / "results"
    pictures.mkdir()
    Image.fromarray(picture(176, 192)).save(pictures / "a.webp", lossless=True)
    Image.fromarray(picture(170, 165, 1)).save(pictures / "b.tif")
    Image.fromarray(picture(40, 30, 2)).save(pictures / "c.png")
    (pictures / "notes.txt").write_text("no picture")
    convert = "import sys; from PIL import Image; Image.open(sys.argv[1]).save(sys.argv[2], quality=int(sys.argv[3]))"
    (tmp_path / "convert.py").write_text(convert)
    mine = f"mine:{sys.executable} {tmp_path / 'convert.py'} {{input}} {{output}}.jpg {{quality}}"
    options = ["--dataset", pictures, "--weights", weights_path, "--results", results, "--codecs", "yoto,webp"]
    options += ["--qualities", "0,0.5,1", "--add", mine, "--add-qualities", "20,60,90", "--reference", "mine"]

    def run_it(*more: str) -> Result:
        done = CliRunner().invoke(run.main, [str(option) for option in (*options, *more)])
        assert done.exit_code == 0, done.output
        return done

    run_it("--limit", "2")
    rows = json.loads((results / "bdrate.json").read_text())["rows"]
    pairs = [(row["codec"], row["reference"]) for row in rows]
    assert pairs == [("yoto", "webp"), ("yoto", "mine"), ("webp", "mine")]
    assert all(row[metric] for row in rows[2:] for metric in ("whole", "ms_ssim", "ssimulacra2"))
    records = json.loads((results / "peers.json").read_text())["records"]
    own = next(record for record in records if (record["codec"], record["image"]) == ("mine", "a.webp"))
    assert own["bytes"] == jpeg_bytes(pictures / "a.webp", round(own["setting"]))
    page = (results / "report.html").read_text()
    assert all(part in page for part in ("mine", "a.webp", "SSIMULACRA2", "WebP (method 6)"))
    assert "VTM 18" not in page
    assert (results / "plots" / "rd-ssimulacra2.svg").is_file()

    small = run_it("--no-page")
    record = json.loads((results / "yoto.json").read_text())["records"][-1]
    assert (record["image"], record["ms_ssim"]) == ("c.png", None)
    assert record["ssimulacra2"] is not None
    assert "–" in small.stdout


def jpeg_bytes(path: Path, quality: int) -> int:
    buffer = io.BytesIO()
    Image.open(path).save(buffer, "JPEG", quality=quality)
    return len(buffer.getvalue())


def test_added_codec_may_decode_by_itself(tmp_path: Path) -> None:
    copy = f"{sys.executable} -c 'import sys, shutil; shutil.copy(*sys.argv[1:3])' {{input}} {{output}}"
    codec = codecs.CommandCodec.parse(f"raw:{copy} {{quality}} :: {copy}", [1.0])
    image = picture(20, 30)
    assert np.array_equal(codec.decode(codec.encode(image, 1.0)), image)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mine", "is not NAME:COMMAND"),
        ("mine:encode {input} {output}", "is not NAME:COMMAND"),
        ("jpeg:encode {input} {output} {quality}", "jpeg has another codec's name"),
        ("mine:encode {input} {output} {quality} :: decode", "needs {input} and {output}"),
    ],
)
def test_wrong_commands_are_refused(text: str, message: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(run.main, ["--add", text, "--results", str(tmp_path)])
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("no-such-program {input} {output} {quality}", "cannot run no-such-program: No such file"),
        ("false {input} {output} {quality}", "false failed with status 1"),
        ("true {input} {output} {quality}", "true failed with status 0: it said nothing"),
    ],
)
def test_commands_that_fail_are_one_line(pictures: Path, command: str, message: str, tmp_path: Path) -> None:
    options = ["--dataset", str(pictures), "--results", str(tmp_path), "--codecs", "jpeg", "--limit", "1"]
    done = CliRunner().invoke(run.main, [*options, "--add", f"mine:{command}"])
    assert done.exit_code == 1
    assert message in done.stderr.splitlines()[-1]


def test_altered_data_set_is_one_line_on_stderr(tmp_path: Path) -> None:
    result = CliRunner().invoke(run.main, ["--dataset", str(tmp_path / "none"), "--results", str(tmp_path)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "missing: kodim01.png" in result.stderr


def test_results_refuse_another_codec_or_file(tmp_path: Path) -> None:
    results = Results(tmp_path / "r.json", {"model": None})
    results.note_codec("jpeg", {"subsampling": "4:2:0"})
    with pytest.raises(ResultsError, match="jpeg with other options"):
        results.note_codec("jpeg", {})
    results.replace = True
    results.note_codec("jpeg", {})
    assert results.extra["codecs"] == {"jpeg": {}}
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(ResultsError, match="no results file"):
        Results(tmp_path / "bad.json", {})


def test_results_keep_infinite_figures(tmp_path: Path) -> None:
    record = Record("jpeg", 1.0, "a.png", 9, 0.1, math.inf, 1.0, math.inf, 1.0, 0.1, 0.1)
    Results(tmp_path / "r.json", {}).add(record)
    assert json.loads((tmp_path / "r.json").read_text())["records"][0]["psnr_db"] is None
    again = Results(tmp_path / "r.json", {})
    assert list(again.records.values()) == [record]
