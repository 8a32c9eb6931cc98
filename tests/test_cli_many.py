"""The command line on folders, targets and comparisons."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from test_cli import ROOT, assert_fails, run
from test_image import deep

from codec.api import Codec
from codec.format.bitstream import unpack
from codec.picture import formats


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures in a tree below `in`."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(24, 30, number)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no picture, and not asked for")
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# Folders.


def test_folder_there_and_back(folder, weights_path, codec):
    encoded = run("encode", "in", "-o", "out", "--recursive", "-q", "30%", "--weights", weights_path)
    assert (encoded.exit_code, encoded.stderr) == (0, "")
    assert files(folder / "out") == ["a.yoto", "b.yoto", "sub/c.yoto"]
    size = sum((folder / "out" / name).stat().st_size for name in files(folder / "out"))
    assert encoded.stdout.startswith(f"3 written, 0 skipped, 0 failed; {size} bytes, ")
    assert (folder / "out/a.yoto").read_bytes() == codec.encode(Image.open("in/a.png"), 0.3)
    decoded = run("decode", "out", "-o", "back", "-r", "--suffix", "webp", "--weights", weights_path)
    assert (decoded.exit_code, decoded.stderr) == (0, "")
    assert files(folder / "back") == ["a.webp", "b.webp", "sub/c.webp"]
    with Image.open("back/a.webp") as image:
        assert image.size == (30, 24)


@pytest.mark.parametrize("inputs", [["in/*.[pj]*g"], ["in/a.png", "in/b.jpg"], ["in"]], ids=" ".join)
def test_patterns_files_and_folders(folder, weights_path, inputs):
    assert run("encode", *inputs, "-o", "out", "--weights", weights_path).exit_code == 0
    assert files(folder / "out") == ["a.yoto", "b.yoto"]


def test_one_file_goes_to_a_folder_that_is_there(folder, weights_path):
    (folder / "out").mkdir()
    assert run("encode", "in/a.png", "-o", "out", "--weights", weights_path).exit_code == 0
    assert files(folder / "out") == ["a.yoto"]


def test_one_bad_file_does_not_stop_the_rest(folder, weights_path):
    (folder / "in/bad.png").write_bytes(b"no image")
    result = run("encode", "in", "missing.png", "-o", "out", "--json", "--weights", weights_path)
    assert result.exit_code == 1
    assert files(folder / "out") == ["a.yoto", "b.yoto"]
    missing, bad = sorted(result.stderr.splitlines(), key=len)
    assert bad.startswith("Error: in/bad.png is not an image")
    assert missing == "Error: missing.png: No such file or directory"
    summary = json.loads(result.stdout)
    assert (summary["written"], summary["skipped"], summary["failed"]) == (2, 0, 2)


def test_existing_outputs(folder, weights_path):
    def again(*options: str) -> str:
        return run("encode", "in", "-o", "out", *options, "--weights", weights_path).stdout.partition(";")[0]

    (folder / "out").mkdir()
    (folder / "out/a.yoto").write_bytes(b"old")
    assert again() == "1 written, 0 skipped, 1 failed"
    assert again("--skip-existing") == "0 written, 2 skipped, 0 failed"
    assert (folder / "out/a.yoto").read_bytes() == b"old"
    assert again("--force") == "2 written, 0 skipped, 0 failed"
    assert unpack((folder / "out/a.yoto").read_bytes()).width == 30


def test_shards_share_the_work(folder, weights_path):
    done = []
    for number in (1, 2):
        shard = ("--shard", f"{number}/2", "--jobs", 1)
        assert run("encode", "in", "-r", "-o", f"out{number}", *shard, "--weights", weights_path).exit_code == 0
        done += files(folder / f"out{number}")
    assert sorted(done) == ["a.yoto", "b.yoto", "sub/c.yoto"]
    assert len(files(folder / "out1")) == 2


def test_verbose_names_each_file_and_quiet_none(folder, weights_path):
    loud = run("encode", "in", "-o", "loud", "--verbose", "--weights", weights_path)
    assert sorted(line.split(":")[0] for line in loud.stderr.splitlines()) == ["loud/a.yoto", "loud/b.yoto"]
    quiet = run("encode", "in", "-o", "quiet", "--quiet", "--weights", weights_path)
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert files(folder / "quiet") == files(folder / "loud")


def test_targets_are_met_in_folders_and_missed_with_a_warning(folder, weights_path):
    result = run("encode", "in", "-o", "out", "--target-bytes", 1, "--weights", weights_path)
    assert result.exit_code == 0
    warnings = result.stderr.splitlines()
    assert [line.split(":")[1] for line in warnings] == [" in/a.png", " in/b.jpg"]
    assert all("out of reach" in line for line in warnings)


def test_progress_bar_is_drawn_on_a_terminal_for_folders_and_for_one_large_picture(folder, weights_path):
    Image.fromarray(picture(40, 1100)).save("large.png")
    program = """
import sys, cli
for arguments in (
    "encode in -o out",
    "encode large.png",
    "decode large.yoto back.png",
    "encode in/a.png",
    "encode in/a.png targeted.yoto --target-bpp 1",
    "encode large.png targeted.yoto --target-psnr 30 -f",
):
    print("<", file=sys.stderr, flush=True)
    cli.main([*arguments.split(), "--weights", sys.argv[1]], standalone_mode=False)
"""
    leader, follower = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, str(weights_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=follower, env=environment, timeout=600)
    shown = os.read(leader, 1 << 16).decode()
    os.close(follower)
    os.close(leader)
    assert done.returncode == 0
    parts = shown.split("<")[1:]
    assert ["100%" in part for part in parts] == [True, True, True, False, True, True]
    for part in parts[4:]:  # one bar, which does not go back
        shares = [int(share) for share in re.findall(r"(\d+)%", part)]
        assert len(set(shares)) > 2
        assert shares == sorted(shares)
    assert done.stdout.startswith(b"2 written")


def test_two_inputs_for_one_output_stop_neither_the_folder_nor_each_other(folder, weights_path):
    Image.fromarray(picture(24, 30)).save("in/a.jpg")
    Image.fromarray(picture(24, 30)).save("in/sub/b.jpg")
    result = run("encode", "in", "in/sub/b.jpg", "-o", "out", "--force", "--weights", weights_path)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert "in/b.jpg and in/sub/b.jpg would both be written to out/b.yoto" in result.stderr
    assert files(folder / "out") == ["a.jpg.yoto", "a.png.yoto", "b.yoto"]


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("encode", "in/a.png in/b.jpg"),
        ("encode", "in/a.png hidden"),
        ("encode", "in/a.png new.png"),
        ("encode", "in/a.png raw.cr2"),
        ("decode", "x y"),
    ],
)
def test_second_argument_that_is_an_input_is_no_output(folder, weights_path, codec, command, arguments, force):
    Path("hidden").write_bytes(Path("in/a.png").read_bytes())
    Path("raw.cr2").write_bytes(b"what only a camera's maker reads")
    for name in "xy":
        Path(name).write_bytes(codec.encode(picture(8, 8)))
    before = {name: Path(name).read_bytes() for name in files(folder)}
    result = run(command, *arguments.split(), *force, "--weights", weights_path)
    assert_fails(result)
    assert f"{arguments.split()[1]} is taken for an input" in result.stderr
    assert {name: Path(name).read_bytes() for name in files(folder)} == before


def test_original_beside_its_file_is_not_overwritten_unless_named(folder, weights_path):
    original = Path("in/a.png").read_bytes()
    assert run("encode", "in/a.png", "--weights", weights_path).exit_code == 0
    assert_fails(run("decode", "in/a.yoto", "-f", "--weights", weights_path), "in/a.png: is a picture", "-o")
    beside = run("decode", "in/a.yoto", "in/b.yoto", "in/c.yoto", "-f", "--weights", weights_path)
    assert "in/a.png: is a picture" in beside.stderr
    assert Path("in/a.png").read_bytes() == original
    assert run("decode", "in/a.yoto", "-f", "-o", "in/a.png", "--weights", weights_path).exit_code == 0
    assert Path("in/a.png").read_bytes() != original


def test_three_inputs_are_written_beside_themselves(folder, weights_path):
    done = run("encode", "in/a.png", "in/b.jpg", "in/sub/c.png", "--weights", weights_path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert [name for name in files(folder) if name.endswith(".yoto")] == ["in/a.yoto", "in/b.yoto", "in/sub/c.yoto"]


@pytest.mark.parametrize(("command", "given"), [("encode", "in"), ("decode", "in"), ("encode", "in/*.png")])
@pytest.mark.parametrize("output", ["-", "in/notes.txt"])
def test_many_files_do_not_go_to_one(folder, command, given, output):
    kind = "pattern" if "*" in given else "folder"
    assert_fails(run(command, given, "-o", output), f"{given} is a {kind}, and {output} is none for the results")


def test_folder_alone_is_worked_on_in_its_place(folder, weights_path):
    pictures = {name: Path(name).read_bytes() for name in files(folder)}
    done = run("encode", "in", "-r", "--weights", weights_path)
    assert (done.exit_code, done.stderr) == (0, "")
    made = ["in/a.yoto", "in/b.yoto", "in/sub/c.yoto"]
    assert files(folder) == sorted([*pictures, *made])
    again = run("decode", "in", "-r", "-f", "--weights", weights_path)  # of which two would replace their originals
    refused = {line.split(":")[2] for line in again.stderr.splitlines() if "maybe the original" in line}
    assert (again.exit_code, refused) == (1, {" in/a.png", " in/sub/c.png"})
    assert {name: Path(name).read_bytes() for name in pictures} == pictures
    assert files(folder) == sorted([*pictures, *made, "in/b.png"])


@pytest.mark.parametrize(
    "arguments",
    [
        "encode in/a.png --shard 1/2",
        "encode in -o out --shard 0/2",
        "encode in -o out --shard 3/2",
        "encode in -o out --shard half",
        "encode in -o out --jobs 0",
        "encode in/a.png in/b.jpg -o out.yoto",
        "encode in/a.png in/b.jpg out.yoto",
        "encode - in/b.jpg -o out",
        "decode in -o out --region 0,0,1,1",
        "decode in -o out --partial",
        "decode in -o out --suffix .",
        "decode in -o out --suffix a/b",
        "decode in -o out --suffix tar.gz",
        "encode in -o out --metrics",
        "encode in/a.png --quality 0.5 --target-bpp 1",
        "encode in/a.png --target-bytes 100 --target-psnr 30",
        "encode in/a.png --target-bytes 0",
        "encode in/a.png --target-bytes nan",
        "encode in/a.png --target-bpp -1",
        "encode in/a.png --target-psnr inf",
        "encode in/a.png --target-psnr high",
        "encode in/a.png --quality 101%",
        "encode in/a.png --quality nan",
        "encode in/a.png --quality %",
        "encode in/a.png --effort 9",
        "encode in/a.png --levels 5",
        "encode in/a.png --levels 5:5",
        "encode in/a.png --levels 0:inf",
        "compare in/a.png",
    ],
)
def test_usage_errors_exit_with_2(folder, arguments):
    result = run(*arguments.split())
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    assert "Error: " in result.stderr
    assert not (folder / "out").exists()


def test_folder_names_what_it_left_out(folder, weights_path):
    result = run("encode", "in", "-o", "out", "--json", "--weights", weights_path)
    assert json.loads(result.stdout)["left_out"] == {".txt": 1, "folders (--recursive takes them)": 1}
    assert "left out: 1 .txt" in run("encode", "in", "-o", "out", "-r", "-f", "--weights", weights_path).stdout
    assert_fails(run("decode", "in", "-o", "out"), "no file to work on; left out: 1 .jpg, 1 .png, 1 .txt, 1 folders")


def test_pictures_of_other_formats(folder, weights_path, monkeypatch):
    formats.plugins()
    (folder / "more").mkdir()
    for suffix in ("heic", "jxl", "avif"):
        Image.fromarray(picture(24, 30)).save(f"more/{suffix}.{suffix}", quality=95)
    assert run("encode", *sorted(Path("more").iterdir()), "--weights", weights_path).exit_code == 0
    assert files(folder / "more")[1::2] == ["avif.yoto", "heic.yoto", "jxl.yoto"]
    assert run("decode", "more/heic.yoto", "back.jxl", "--weights", weights_path).exit_code == 0
    with Image.open("back.jxl") as image:
        assert image.size == (30, 24)
    monkeypatch.setattr(formats, "plugins", frozenset)  # as if not installed
    monkeypatch.setattr(Image, "ID", [form for form in Image.ID if form not in ("HEIF", "JXL")])
    monkeypatch.delitem(Image.OPEN, "HEIF")
    for name in ("more/heic.heic", "more/jxl.jxl"):
        assert_fails(run("encode", name, "-f", "--weights", weights_path), name, "pip install 'yoto-codec[formats]'")
    piped = run("encode", "-", "--weights", weights_path, stdin=Path("more/heic.heic").read_bytes())
    assert_fails(piped, "needs pillow-heif: pip install")
    left_out = run("encode", "more", "-o", "out", "-f", "--weights", weights_path).stdout
    assert "1 .heic (needs pillow-heif: pip install 'yoto-codec[formats]')" in left_out


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_times_are_kept_if_told_so(folder, weights_path, codec, command):
    source = folder / "in" / ("a.png" if command == "encode" else "a.yoto")
    if command == "decode":
        source.write_bytes(codec.encode(picture(8, 8)))
    os.utime(source, ns=(1, 1_234_567_890_123_456_789))
    for output in ("x.png", "new/"):
        run(command, source, "-o", output, "--keep-time", "--weights", weights_path)
    (made,) = (folder / "new").iterdir()
    for path in (folder / "x.png", made):
        assert path.stat().st_mtime_ns == 1_234_567_890_123_456_789


# One file.


def test_what_gif_cannot_hold_is_said(folder, weights_path, codec):
    Path("x.yoto").write_bytes(codec.encode(np.dstack([picture(40, 40), np.full((40, 40), 99, np.uint8)])))
    Path("y.yoto").write_bytes(codec.encode(np.zeros((8, 8, 3), np.uint8)))
    one = run("decode", "x.yoto", "x.gif", "--weights", weights_path)
    assert (one.exit_code, [line[:18] for line in one.stderr.splitlines()]) == (0, ["Warning: GIF holds"] * 2)
    many = run("decode", "x.yoto", "y.yoto", "-o", "out", "--suffix", "gif", "--weights", weights_path)
    assert (many.exit_code, many.stderr.count("Warning: x.yoto: GIF holds"), many.stderr.count("\n")) == (0, 2, 2)


def test_yoto_file_under_a_pictures_name_is_said(folder, weights_path):
    result = run("encode", "in/a.png", "-o", "x.png", "--weights", weights_path)
    assert (result.exit_code, result.stderr) == (0, "Warning: x.png will hold a .yoto file, whatever its suffix says\n")


def test_as_many_threads_as_told(folder, weights_path, monkeypatch):
    counts = []
    encode = Codec.encode
    monkeypatch.setattr(Codec, "encode", lambda *a, **k: counts.append(torch.get_num_threads()) or encode(*a, **k))
    before = torch.get_num_threads()
    for threads in (1, 3):
        assert run("encode", "in/a.png", "-f", "--threads", threads, "--weights", weights_path).exit_code == 0
    assert (counts, torch.get_num_threads()) == ([1, 3], before)


@pytest.mark.parametrize(("set_before", "expected"), [(None, "passive"), ("active", "active")])
def test_threads_that_wait_leave_the_cores_to_others(folder, codec, monkeypatch, set_before, expected):
    """Before torch is loaded, which `info` does not."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    if set_before:
        monkeypatch.setenv("OMP_WAIT_POLICY", set_before)
    Path("x.yoto").write_bytes(codec.encode(picture(8, 8)))
    assert run("info", "x.yoto").exit_code == 0
    assert os.environ["OMP_WAIT_POLICY"] == expected


def test_larger_pictures_than_allowed_are_refused(folder, weights_path, monkeypatch):
    refused = run("encode", "in/a.png", "--max-megapixels", 0.0007, "--weights", weights_path)
    assert_fails(refused, "in/a.png has 30×24 px, which are coded as 4096, more than the limit of 700")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # which alone would refuse it
    assert run("encode", "in/a.png", "--weights", weights_path).exit_code == 0
    assert Image.MAX_IMAGE_PIXELS == 100


def test_fit_shrinks_and_suffix_says_the_format(folder, weights_path, codec):
    Path("x.yoto").write_bytes(codec.encode(picture(30, 60)))
    for fit, size in ((20, (20, 10)), (60, (60, 30))):
        options = ("--fit", fit, "--suffix", "bmp", "-f", "--weights", weights_path)
        assert run("decode", "x.yoto", "thumbnail.tmp", *options).exit_code == 0
        with Image.open("thumbnail.tmp") as image:
            assert (image.format, image.size) == ("BMP", size)


@pytest.mark.parametrize("given", ["0.3", "30%", "30.0%"])
def test_quality_is_a_number_or_a_percentage(folder, weights_path, codec, given):
    assert run("encode", "in/a.png", "out.yoto", "--quality", given, "--weights", weights_path).exit_code == 0
    assert (folder / "out.yoto").read_bytes() == codec.encode(Image.open("in/a.png"), 0.3)


@pytest.mark.parametrize("effort", [0, 2])
def test_effort_is_passed_on(folder, weights_path, codec, effort):
    assert run("encode", "in/a.png", "out.yoto", "--effort", effort, "--weights", weights_path).exit_code == 0
    assert (folder / "out.yoto").read_bytes() == codec.encode(Image.open("in/a.png"), effort=effort)


@pytest.fixture
def large(folder: Path) -> Path:
    Image.fromarray(picture(128, 192)).save("large.png")
    return Path("large.png")


@pytest.mark.parametrize(
    ("option", "target", "field", "tolerance"),
    [("--target-bytes", 700, "bytes", 7), ("--target-bpp", 0.2, "bpp", 0.002), ("--target-psnr", 29, "psnr_db", 0.05)],
)
def test_target_is_met_and_the_quality_said(large, weights_path, codec, option, target, field, tolerance):
    options = (option, target, "--metrics", "--json", "--weights", weights_path)
    result = run("encode", large, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    report = json.loads(result.stdout)
    assert report[field] == pytest.approx(target, abs=tolerance)
    assert large.with_suffix(".yoto").read_bytes() == codec.encode(Image.open(large), report["quality"])


def test_target_out_of_reach_warns_in_one_line(large, weights_path, codec):
    result = run("encode", large, "--target-psnr", 90, "--weights", weights_path)
    assert result.exit_code == 0
    assert result.stderr.startswith("Warning: 90 dB is out of reach; the nearest is ")
    assert result.stderr.count("\n") == 1
    assert "quality 1," in result.stdout
    assert large.with_suffix(".yoto").read_bytes() == codec.encode(Image.open(large), 1.0)
    assert run("encode", large, "-f", "--target-psnr", 90, "--quiet", "--weights", weights_path).output == ""


def test_frames_that_are_not_coded_warn(folder, weights_path):
    Image.open("in/a.png").save("x.gif", save_all=True, append_images=[Image.open("in/b.jpg")])
    result = run("encode", "x.gif", "--weights", weights_path)
    assert result.exit_code == 0
    assert result.stderr == "Warning: the image has several frames, of which the first is coded\n"


def test_deep_image_is_refused_until_levels_are_given(folder, weights_path, codec):
    deep("I;16", [0, 1000, 4000]).save("deep.png")
    assert_fails(run("encode", "deep.png", "--weights", weights_path), "from 0 to 4000", "--levels")
    assert_fails(run("encode", "deep.png", "--levels", "0:255", "--weights", weights_path), "outside the levels")
    assert run("encode", "deep.png", "--levels", "0:4000", "--weights", weights_path).exit_code == 0
    assert codec.decode(Path("deep.yoto").read_bytes()).mode == "L"


def test_alpha_and_jpeg_do_not_go_together(folder, weights_path, codec):
    Path("x.yoto").write_bytes(codec.encode(np.zeros((4, 4, 4), np.uint8)))
    assert_fails(run("decode", "x.yoto", "x.jpg", "--weights", weights_path), "RGBA", "JPEG", "use .png")
    assert not Path("x.jpg").exists()


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_existing_output_of_one_file_is_skipped_if_told_so(folder, weights_path, command):
    Path("out.png").write_bytes(b"old")
    result = run(command, "in/a.png", "-o", "out.png", "--skip-existing", "--weights", weights_path)
    assert (result.exit_code, result.stdout) == (0, "out.png: exists, skipped\n")
    assert Path("out.png").read_bytes() == b"old"


def test_verbose_and_quiet(folder, weights_path):
    def both(*options: str) -> tuple[str, str]:
        coded = run("encode", "in/a.png", "x.yoto", "--force", *options, "--weights", weights_path)
        back = run("decode", "x.yoto", "x.png", "--force", *options, "--weights", weights_path)
        assert coded.exit_code == back.exit_code == 0
        return coded.stdout + back.stdout, coded.stderr + back.stderr

    assert both("--quiet") == ("", "")
    stdout, stderr = both("--verbose")
    assert stdout.count("\n") == stderr.count("\n") == 2
    assert "qualities tried: 1" in stderr
    assert stderr.count(unpack(Path("x.yoto").read_bytes()).model_id.hex()) == 2


# Comparison.


def test_compare_says_how_far_pictures_are_apart(folder, weights_path, codec):
    data = codec.encode(picture(24, 30))
    Path("a.yoto").write_bytes(data)
    result = run("compare", "in/a.png", "a.yoto", "--json", "--weights", weights_path)
    report = json.loads(result.stdout)
    assert report.pop("psnr_db") > 15
    assert 0 < report.pop("ssim") < 1
    sizes = [Path("in/a.png").stat().st_size, len(data)]
    bpp = [round(size / 90, 5) for size in sizes]
    assert report == {"width": 30, "height": 24, "ms_ssim": None, "alpha_equal": None, "bytes": sizes, "bpp": bpp}
    text = run("compare", "in/a.png", "a.yoto", "--weights", weights_path).stdout
    assert "MS-SSIM: needs 161 px a side\n" in text
    assert text.endswith(f"B: {len(data)} bytes, {bpp[1]:.4f} bpp\n")


def test_compare_fails_in_one_line(folder, weights_path):
    Image.fromarray(picture(4, 4)).save("small.png")
    assert_fails(run("compare", "in/a.png", "small.png"), "sizes must be equal")
    assert_fails(run("compare", "in/a.png", "missing.png"), "missing.png")
    assert_fails(run("compare", "in/notes.txt", "in/a.png"), "not an image")


@pytest.mark.parametrize(("words", "found"), [("enc", "plain,encode"), ("encode pho", "file,pho")])
def test_completion_is_clicks_own(words, found):
    program = "import sys; sys.argv[0] = 'yoto-codec'; from cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "_YOTO_CODEC_COMPLETE": "bash_complete"}
    environment |= {"COMP_WORDS": f"yoto-codec {words}", "COMP_CWORD": f"{len(words.split())}"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout == f"{found}\n"
