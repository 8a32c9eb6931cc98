"""How files are written: whole or not at all, once, where links lead, and with nothing left over."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import picture
from PIL import Image
from test_cli import ROOT, assert_fails, run

from codec.app.files import check_output, write_output

COMMAND = [sys.executable, "-m", "cli"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
# Writes a file and stops for ever once it is complete but for its name; says so before.
STUCK = """
import os, sys, time
from codec.app import files
def link(*_):
    print("written", flush=True)
    time.sleep(100)
os.link = link
with files.removed_when_stopped():
    files.write_output(files.Path(sys.argv[1]), b"data", new=True)
"""
# Waits until it is told to start, then writes.
RACER = """
import sys
from codec.app.files import Path, write_output
sys.stdin.readline()
write_output(Path(sys.argv[1]), sys.argv[2].encode() * 100_000, new=True)
"""


def test_write_that_fails_half_way_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "new").mkdir()
    path = tmp_path / "new" / "x.yoto"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_output(path, "text, which cannot be written")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_files_written_in_threads_have_the_permissions_of_new_ones(tmp_path):
    umask = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write_output(tmp_path / f"{number}.yoto", b"x"), range(200)))
        assert {(tmp_path / f"{number}.yoto").stat().st_mode & 0o777 for number in range(200)} == {0o640}
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)


def test_forced_write_keeps_mode_owner_and_links(tmp_path):
    """Permissions, a link to the file, and its other names; what a link leads to is written, the link stays."""
    real, link, dangling = tmp_path / "real", tmp_path / "sub" / "link", tmp_path / "dangling"
    link.parent.mkdir()
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to("../real")
    write_output(link, b"new")
    assert (real.read_bytes(), stat.S_IMODE(real.stat().st_mode), link.is_symlink()) == (b"new", 0o640, True)
    os.link(real, tmp_path / "other")
    for data in (b"longer than before", b"short"):
        write_output(link, data, mtime_ns=1_000_000_000)
        assert (tmp_path / "other").read_bytes() == data
        assert real.stat().st_mtime == 1
    dangling.symlink_to(tmp_path / "made")
    write_output(dangling, b"x")
    assert (dangling.is_symlink(), (tmp_path / "made").read_bytes()) == (True, b"x")
    assert len(list(tmp_path.iterdir())) == 5


def test_link_to_nothing_is_not_replaced_unless_forced(tmp_path):
    source, link = tmp_path / "a.png", tmp_path / "a.yoto"
    Image.fromarray(picture(8, 8)).save(source)
    link.symlink_to("nowhere")
    assert_fails(run("encode", source), str(link), "--force")
    with pytest.raises(FileExistsError, match="give --force"):
        write_output(link, b"x", new=True)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a.yoto"]
    link.unlink()
    link.symlink_to(link)
    assert_fails(run("encode", source, "--force"), str(link), "Too many levels")


@pytest.mark.parametrize("hard_links", [True, False])
def test_of_several_writers_one_makes_the_file(tmp_path, hard_links):
    """Eight processes, started before they race; a folder without hard links is simulated."""
    target = tmp_path / "out.yoto"
    forbid = "" if hard_links else "import os\ndef link(*_): raise OSError(1, 'no')\nos.link = link\n"
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", forbid + RACER, str(target), str(number)],
            env=ENVIRONMENT,
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    said = [racer.communicate(timeout=600)[1] for racer in racers]
    winners = [number for number, racer in enumerate(racers) if racer.returncode == 0]
    assert len(winners) == 1
    assert sum("FileExistsError" in error and str(target) in error for error in said) == 7
    assert target.read_bytes() == str(winners[0]).encode() * 100_000
    assert os.listdir(tmp_path) == ["out.yoto"]


def test_three_encoders_make_one_file_and_two_errors(tmp_path):
    Image.fromarray(picture(64, 64)).save(tmp_path / "a.png")
    command = [*COMMAND, "encode", "a.png", "--threads", "1"]
    encoders = [
        subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = sorted(encoder.communicate(timeout=600)[1] for encoder in encoders)
    assert said == ["", *["Error: a.yoto: exists; give --force to overwrite it\n"] * 2]
    assert sorted(os.listdir(tmp_path)) == ["a.png", "a.yoto"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_no_temporary_file(tmp_path, number):
    with subprocess.Popen(
        [sys.executable, "-c", STUCK, str(tmp_path / "out")],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # `nohup make test` would pass on that it is ignored
    ) as process:
        process.stdout.readline()
        assert len(os.listdir(tmp_path)) == 1
        process.send_signal(number)
    assert process.returncode == -number
    assert os.listdir(tmp_path) == []


def test_command_that_is_terminated_while_it_writes_leaves_nothing(tmp_path):
    """The folder's other threads are at work, too."""
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.fromarray(picture(64, 64, number)).save(tmp_path / "in" / f"{number}.png")
    program = STUCK.partition("with files")[0] + "import cli\ncli.main(sys.argv[1:])"
    arguments = ["encode", "in", "-o", "out", "--jobs", "2"]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments], cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        process.terminate()
    assert process.returncode == -signal.SIGTERM
    assert os.listdir(tmp_path / "out") == []


def test_names_of_255_bytes(tmp_path, weights_path):
    source = tmp_path / "a.png"
    Image.fromarray(picture(8, 8)).save(source)
    longest = tmp_path / ("é" * 125 + ".yoto")
    assert len(os.fsencode(longest.name)) == 255
    for force in ([], ["--force"]):
        assert run("encode", source, longest, *force, "--weights", weights_path).exit_code == 0
    assert_fails(run("encode", source, tmp_path / ("x" + longest.name)), f"x{longest.name}: File name too long")


def test_name_that_is_no_text(tmp_path, weights_path):
    source = tmp_path / os.fsdecode(b"bad\xff.png")
    Image.fromarray(picture(8, 8)).save(source)
    result = run("encode", source, "--weights", weights_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert r"bad\udcff.yoto: " in result.stdout
    assert_fails(run("encode", source, "--weights", weights_path), r"bad\udcff.yoto: exists")


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch):
    """No weights are there, so that any work would fail in another way."""
    source, weights = tmp_path / "a.png", ["--weights", tmp_path / "none"]
    Image.fromarray(picture(8, 8)).save(source)
    missing = tmp_path / "no" / "a.yoto"
    assert_fails(run("encode", source, missing, *weights), f"Error: {missing}: No such file or directory")
    assert_fails(run("encode", source, source / "a", *weights), f"Error: {source / 'a'}: Not a directory")
    assert_fails(run("encode", source, "/proc/a.yoto", *weights), "Error: /proc/a.yoto: ")
    assert_fails(run("encode", source, tmp_path, "-f", *weights), "folder")
    disk = os.statvfs(tmp_path)
    full = os.statvfs_result((*disk[:3], 0, 0, *disk[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert_fails(run("encode", source, *weights), str(source.with_suffix(".yoto")), "No space left", "free 0 B")
    assert os.listdir(tmp_path) == ["a.png"]


def test_pipes_that_nobody_serves_do_not_hang(tmp_path, weights_path):
    pipe, source = tmp_path / "pipe", tmp_path / "a.png"
    os.mkfifo(pipe)
    Image.fromarray(picture(8, 8)).save(source)
    for command in ("encode", "decode", "info"):
        assert_fails(run(command, pipe), f"{pipe}: is a named pipe")
    assert_fails(run("compare", pipe, source), f"{pipe}: is a named pipe")
    assert_fails(run("info", "/dev/zero"), "/dev/zero: is no regular file")
    assert_fails(run("encode", source, pipe, "--weights", weights_path), f"{pipe}: ")


def test_pipe_that_is_read_is_written_to(tmp_path):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    while True:  # until the reader has opened it
        try:
            write_output(pipe, b"x" * 1_000_000)
            break
        except OSError:
            time.sleep(0.01)
    reader.join()
    assert read == [b"x" * 1_000_000]
    check_output(pipe, 1 << 60)
