"""The command line: what it writes, what it says, how it exits."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import picture, reseal
from PIL import Image

from cli import main
from codec.api import default_codec
from codec.format.bitstream import read_metadata, unpack

ROOT = Path(__file__).parent.parent
# Nothing that these do needs torch, which takes seconds to import; "PICTURE" is an image, "FILE" a .yoto file.
WITHOUT_TORCH = [
    "",
    "--help",
    "encode --help",
    "decode --help",
    "info FILE",
    "info --json FILE",
    "info PICTURE",
    "info missing",
    "encode missing.png",
    "encode PICTURE --quality 2",
    "encode PICTURE FILE",
    "encode PICTURE a --output b.yoto",
    "encode PICTURE --target-bpp 1 --quality 1",
    "encode PICTURE --shard 1/2",
    "decode PICTURE",
    "decode missing",
    "decode FILE PICTURE",
    "decode FILE out.png --max-pixels 1",
]


def run(*arguments: object, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception  # no traceback
    return result


def assert_fails(result: Result, *words: str) -> None:
    """Exit code 1, one line on stderr, nothing on stdout."""
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout_bytes == b""
    assert all(word in result.stderr for word in words)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """The only file of its folder."""
    path = tmp_path / "image.png"
    Image.fromarray(picture(40, 70)).save(path, exif=described())
    return path


@pytest.fixture
def file(tmp_path: Path, codec) -> Path:
    path = tmp_path / "file.yoto"
    path.write_bytes(codec.encode(picture(40, 70), 0.5))
    return path


def described() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010E] = "kept"
    return exif


# What they do.


def test_encode_infers_the_output_and_equals_the_api(image, weights_path, codec):
    result = run("encode", image, "--quality", 0.7, "--weights", weights_path)
    assert (result.exit_code, result.stderr) == (0, "")
    output = image.with_suffix(".yoto")
    assert str(output) in result.stdout
    assert output.read_bytes() == codec.encode(Image.open(image), 0.7)
    assert {path.name for path in image.parent.iterdir()} == {"image.png", "image.yoto"}


def test_decode_infers_the_output_and_equals_the_api(file, weights_path, codec):
    result = run("decode", file, "--weights", weights_path)
    assert (result.exit_code, result.stderr) == (0, "")
    with Image.open(file.with_suffix(".png")) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(codec.decode(file.read_bytes())))


@pytest.mark.parametrize("given", ["argument", "-o", "--output"])
def test_output_may_be_named(file, weights_path, tmp_path, given):
    target = tmp_path / "named.webp"
    run("decode", file, *([target] if given == "argument" else [given, target]), "--weights", weights_path)
    with Image.open(target) as decoded:
        assert (decoded.format, decoded.size) == ("WEBP", (70, 40))


def test_encode_reports_as_json(image, weights_path):
    report = json.loads(run("encode", image, "--json", "--metrics", "-q", 0.5, "--weights", weights_path).stdout)
    data = image.with_suffix(".yoto").read_bytes()
    assert report.pop("seconds") >= 0
    assert 20 < report.pop("psnr_db") < 50
    assert report.pop("bpp") == pytest.approx(8 * len(data) / 2800, abs=1e-5)
    output = str(image.with_suffix(".yoto"))
    expected = {"output": output, "bytes": len(data), "width": 70, "height": 40, "kind": "learned", "quality": 0.5}
    assert report == expected


def test_decode_reports_as_json(file, weights_path):
    report = json.loads(run("decode", file, "--json", "--weights", weights_path).stdout)
    assert report.pop("seconds") >= 0
    assert report == {"output": str(file.with_suffix(".png")), "width": 70, "height": 40, "mode": "RGB"}


def test_info_tells_the_header(file):
    report = json.loads(run("info", "--json", file).stdout)
    data = file.read_bytes()
    assert report.pop("bpp") == pytest.approx(8 * len(data) / 2800, abs=1e-5)
    assert report == {
        "width": 70,
        "height": 40,
        "mode": "RGB",
        "version": 1,
        "kind": "learned",
        "quality": 0.5,
        "model": unpack(data).model_id.hex(),
        "tile_px": 1024,
        "tiles": 1,
        "metadata_bytes": 0,
        "alpha_bytes": 0,
        "bytes": len(data),
    }
    assert "width: 70\nheight: 40\nmode: RGB\n" in run("info", file).stdout


def test_info_reads_a_pipe(file):
    assert run("info", "-", stdin=file.read_bytes()).stdout == run("info", file).stdout


def test_strip_leaves_out_the_metadata(image, weights_path):
    for option, kept in ((), True), (("--strip",), False):
        run("encode", image, "--force", "--weights", weights_path, *option)
        data = image.with_suffix(".yoto").read_bytes()
        assert bool(read_metadata(unpack(data), data)) == kept


def test_dashes_stream(image, file, weights_path):
    encoded = run("encode", "-", "--quality", 0.5, "--strip", "--weights", weights_path, stdin=image.read_bytes())
    assert encoded.stdout_bytes == file.read_bytes()
    assert encoded.stderr.count("\n") == 1  # the report
    decoded = run("decode", file, "-", "--json", "--weights", weights_path)
    assert json.loads(decoded.stderr)["output"] == "-"
    with Image.open(io.BytesIO(decoded.stdout_bytes)) as picture_:
        assert (picture_.format, picture_.size) == ("PNG", (70, 40))


def test_make_demo_ends_by_saying_how_to_call_the_command(tmp_path):
    """It is not on the PATH; what it really does is run by hand, and by `test_readme.py`."""
    command = tmp_path / "yoto-codec"
    command.write_text('#!/bin/sh\necho "ran $@"\n')
    command.chmod(0o755)
    make = ["make", "demo", f"BIN={tmp_path}", "-o", ".venv/.installed"]  # what is installed is taken for granted
    done = subprocess.run(make, cwd=ROOT, capture_output=True, text=True, timeout=600)
    first, *rest = [line for line in done.stdout.splitlines() if not line.startswith(("make", str(tmp_path)))]
    assert (done.returncode, first) == (0, "ran demo")
    assert f"{command} encode" in rest[0]
    assert f"{tmp_path}/activate" in rest[1]


def test_real_pipe_of_two_processes(image, tmp_path):
    command = shlex.join([sys.executable, "-W", "error", str(ROOT / "cli.py")])
    pipe = f"{command} encode - < image.png | {command} decode - > out.png"
    done = subprocess.run(pipe, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "out.png") as decoded, Image.open(image) as original:
        codec = default_codec()
        np.testing.assert_array_equal(np.asarray(decoded), np.asarray(codec.decode(codec.encode(original))))


def test_help_info_and_argument_errors_do_not_import_torch(image, file, tmp_path):
    program = """
import json, sys
from click.testing import CliRunner
from cli import main
for arguments in json.loads(sys.argv[1]):
    CliRunner().invoke(main, arguments)
    if arguments[:1] != ["encode"]:
        assert "PIL" not in sys.modules, arguments
    assert not {"torch", "numpy"} & set(sys.modules), arguments
"""
    names = {"PICTURE": str(image), "FILE": str(file)}
    lines = [[names.get(word, word) for word in line.split()] for line in WITHOUT_TORCH]
    lines.sort(key=lambda words: words[:1] == ["encode"])
    run_here = [sys.executable, "-c", program, json.dumps(lines)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(run_here, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


# How they fail.


@pytest.mark.parametrize("command", ["encode", "decode"])
def test_does_not_overwrite_unless_forced(image, file, weights_path, tmp_path, command):
    source = {"encode": image, "decode": file}[command]
    target = tmp_path / {"encode": "target.yoto", "decode": "target.png"}[command]
    target.write_bytes(b"precious")
    assert_fails(run(command, source, target, "--weights", weights_path), str(target), "--force")
    assert target.read_bytes() == b"precious"
    assert run(command, source, target, "--force", "--weights", weights_path).exit_code == 0
    assert target.read_bytes() != b"precious"


def test_does_not_overwrite_its_input(file, weights_path):
    data = file.read_bytes()
    assert_fails(run("encode", file, "--weights", weights_path), "--force")
    assert file.read_bytes() == data


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["compress"],
        ["encode"],
        ["encode", "a.png", "b.yoto", "c.yoto"],
        ["encode", "a.png", "--quality", "1.1"],
        ["encode", "a.png", "--quality", "-0.1"],
        ["encode", "a.png", "--quality", "high"],
        ["encode", "a.png", "--losslessly"],
        ["encode", "a.png", "--lossless", "--target-bpp", "1"],
        ["encode", "a.png", "b.yoto", "--output", "c.yoto"],
        ["decode", "a.yoto", "--max-pixels", "0"],
        ["decode", "a.yoto", "b.png", "-o", "c.png"],
        ["info"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_missing_input(tmp_path, command):
    assert_fails(run(command, tmp_path / "missing.webp"), "missing.webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["encode", "decode", "info"])
def test_folder_as_input(tmp_path, command):
    assert_fails(run(command, tmp_path), str(tmp_path))


def test_input_that_is_no_image(tmp_path, weights_path):
    path = tmp_path / "text.png"
    path.write_text("no image")
    assert_fails(run("encode", path, "--weights", weights_path), "text.png", "not an image")
    assert list(tmp_path.iterdir()) == [path]


def test_image_of_another_depth(tmp_path, weights_path):
    path = tmp_path / "deep.png"
    Image.new("I;16", (4, 4)).save(path)
    assert_fails(run("encode", path, "--weights", weights_path), "mode I;16")


@pytest.mark.parametrize("command", ["decode", "info"])
def test_input_that_is_no_yoto_file(image, command):
    assert_fails(run(command, image, *(["out.png"] if command == "decode" else [])), "not a .yoto file")


@pytest.mark.parametrize("command", ["decode", "info"])
def test_truncated_file(file, command):
    file.write_bytes(file.read_bytes()[:-1])
    assert_fails(run(command, file), "cut short")


def test_damaged_tile_leaves_no_output(file, weights_path, tmp_path):
    data = bytearray(file.read_bytes())
    data[-6] ^= 1
    file.write_bytes(reseal(bytes(data)))
    assert_fails(run("decode", file, "--weights", weights_path), "damaged")
    assert list(tmp_path.iterdir()) == [file]


def test_more_pixels_than_allowed(file, weights_path, tmp_path):
    assert_fails(run("decode", file, "--max-pixels", 64 * 128 - 1, "--weights", weights_path), "more than the limit")
    assert run("decode", file, "--max-pixels", 64 * 128, "--weights", weights_path).exit_code == 0


def test_unusable_weights(image, tmp_path):
    assert_fails(run("encode", image, "--weights", tmp_path / "missing"), "missing")
    assert_fails(run("encode", image, "--weights", image), "not a usable weights file")
    assert list(tmp_path.iterdir()) == [image]


def test_unknown_device_is_refused_in_one_line(image, weights_path):
    result = run("encode", image, "--device", "abacus", "--weights", weights_path)
    assert result.exit_code in (1, 2)
    assert "abacus" in result.stderr


def test_format_that_cannot_be_written(file, weights_path, tmp_path):
    assert_fails(run("decode", file, tmp_path / "out.xyz", "--weights", weights_path), ".xyz")
    assert list(tmp_path.iterdir()) == [file]


def test_folder_of_the_output_is_missing(image, weights_path, tmp_path):
    assert_fails(run("encode", image, tmp_path / "no" / "out.yoto", "--weights", weights_path), "No such file")


def test_failed_write_leaves_the_old_output_and_no_other(image, file, weights_path, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    old = file.read_bytes()
    monkeypatch.setattr("codec.app.files.os.replace", fail)
    assert_fails(run("encode", image, file, "--force", "--weights", weights_path), "No space left")
    assert file.read_bytes() == old
    assert {path.name for path in tmp_path.iterdir()} == {"image.png", "file.yoto"}


def test_output_has_the_permissions_of_a_new_file(image, weights_path, tmp_path):
    (tmp_path / "new").touch()
    run("encode", image, "--weights", weights_path)
    assert image.with_suffix(".yoto").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_device_as_output_is_written_not_replaced(image, weights_path):
    for force in ([], ["--force"]):
        assert run("encode", image, "/dev/null", *force, "--weights", weights_path).exit_code == 0
    assert Path("/dev/null").is_char_device()


def test_help_says_what_each_command_does_in_whole_sentences():
    lines = run("--help").stdout.partition("Commands:")[2].splitlines()
    assert len(lines) > len(main.commands)
    assert [line for line in lines if line.endswith("...")] == []


@pytest.mark.parametrize("command", ["", *main.commands])
def test_help_is_had_by_either_name(command):
    words = command.split()
    short, long = run(*words, "-h"), run(*words, "--help")
    assert (short.exit_code, short.stdout) == (0, long.stdout)
    assert short.stdout.startswith("Usage: ")
