"""Many files through one model: results, failures, threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from test_image import deep

from codec.app.batch import EncodeOptions, FileDecoder, FileEncoder, encode_image, run, summarise
from codec.app.files import Task
from codec.errors import CodecError, explain
from codec.picture.image import open_image


@pytest.fixture
def tasks(tmp_path) -> list[Task]:
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(picture(20, 30 + number, number)).save(tmp_path / "in" / f"{number}.png")
    return [Task(tmp_path / "in" / f"{n}.png", tmp_path / "out" / f"sub{n % 2}" / f"{n}.yoto") for n in range(5)]


@pytest.mark.parametrize("jobs", [None, 1, 3])
def test_files_equal_those_made_one_by_one(tasks, codec, jobs):
    outcomes = list(run(tasks, FileEncoder(codec, EncodeOptions(quality=0.7)), jobs=jobs))
    assert sorted(outcome.task for outcome in outcomes) == tasks
    for outcome in outcomes:
        data = outcome.task.output.read_bytes()
        assert data == codec.encode(Image.open(outcome.task.source), 0.7)
        assert (outcome.size_bytes, outcome.error, outcome.notes) == (len(data), None, [])


def test_decoded_files_equal_those_made_one_by_one(tmp_path, codec):
    data = codec.encode(picture(20, 30))
    (tmp_path / "a.yoto").write_bytes(data)
    task = Task(tmp_path / "a.yoto", tmp_path / "a.bmp")
    assert [outcome.error for outcome in run([task], FileDecoder(codec, ".bmp"))] == [None]
    np.testing.assert_array_equal(np.asarray(Image.open(task.output)), np.asarray(codec.decode(data)))
    (outcome,) = run([task], FileDecoder(codec, ".bmp", max_pixels=599), force=True)
    assert "more than the limit" in outcome.error


def test_bad_files_do_not_stop_the_rest(tasks, codec):
    tasks[1].source.write_bytes(b"no image")
    tasks[3].source.unlink()
    tasks[4] = Task(tasks[4].source, tasks[1].source / "4.yoto")  # a file where a folder should be
    outcomes = {outcome.task: outcome for outcome in run(tasks, FileEncoder(codec, EncodeOptions()), jobs=2)}
    assert "not an image" in outcomes[tasks[1]].error
    assert "No such file" in outcomes[tasks[3]].error
    assert "exists" in outcomes[tasks[4]].error
    assert all(tasks[number].output.is_file() for number in (0, 2))
    summary = summarise(list(outcomes.values()))
    assert (summary.written, summary.skipped, summary.failed) == (2, 0, 3)
    assert not tasks[1].output.parent.exists()


def test_fault_of_the_program_is_reported_and_does_not_stop_the_rest(tasks):
    def work(source: Path) -> tuple[bytes, list[str]]:
        if source == tasks[0].source:
            raise ZeroDivisionError("a fault")
        return b"x", []

    outcomes = {outcome.task: outcome.error for outcome in run(tasks, work)}
    assert outcomes.pop(tasks[0]) == "unexpected ZeroDivisionError: a fault"
    assert set(outcomes.values()) == {None}


def test_existing_outputs_are_skipped_refused_or_replaced(tasks):
    tasks = tasks[:1]
    tasks[0].output.parent.mkdir(parents=True)
    tasks[0].output.write_bytes(b"old")
    calls = []

    def work(source: Path) -> tuple[bytes, list[str]]:
        calls.append(source)
        return b"new", []

    (skipped,) = run(tasks, work, skip_existing=True)
    assert str(skipped) == f"{tasks[0].output}: skipped"
    (refused,) = run(tasks, work)
    assert "--force" in refused.error
    assert (calls, tasks[0].output.read_bytes()) == ([], b"old")
    (replaced,) = run(tasks, work, force=True)
    assert str(replaced) == f"{tasks[0].output}: 3 bytes"
    assert tasks[0].output.read_bytes() == b"new"


def test_as_many_files_at_a_time_as_jobs_and_threads_are_split(tasks):
    together, meeting, threads = [], threading.Barrier(2, timeout=30), []

    def work(_: Path) -> tuple[bytes, list[str]]:
        together.append(meeting.wait())
        threads.append(torch.get_num_threads())
        return b"x", []

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        outcomes = list(run(tasks[:4], work, jobs=2))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert {outcome.error for outcome in outcomes} == {None}
    assert sorted(together) == [0, 0, 1, 1]
    assert threads == [2, 2, 2, 2]


def test_who_stops_early_leaves_the_rest_undone(tasks):
    calls = []
    outcomes = run(tasks, lambda source: calls.append(source) or (b"x", []), jobs=1)
    next(outcomes)
    outcomes.close()
    assert len(calls) <= len(tasks)
    assert len(list(tasks[0].output.parent.parent.rglob("*.yoto"))) == len(calls)


# One image.


def test_frames_that_are_not_coded_are_noted(tmp_path, codec):
    Image.fromarray(picture(20, 30)).save(tmp_path / "x.gif", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    encoded = encode_image(codec, open_image(tmp_path / "x.gif"), EncodeOptions())
    assert encoded.notes == ["the image has 2 frames, of which the first is coded"]


def test_target_that_is_met_is_not_worth_a_note(codec):
    image = Image.fromarray(picture(128, 192))
    encoded = encode_image(codec, image, EncodeOptions(target={"size_bytes": 700}, metrics=True))
    assert encoded.notes == []
    assert len(encoded.data) == pytest.approx(700, rel=0.01)
    assert encoded.encodes > 1
    assert f"quality {encoded.quality:.4g}" in str(encoded)
    assert f"PSNR {encoded.psnr_db:.2f} dB" in str(encoded)


def test_target_out_of_reach_is_noted(codec):
    encoded = encode_image(codec, Image.fromarray(picture(64, 64)), EncodeOptions(target={"bpp": 1e-3}))
    (note,) = encoded.notes
    assert note.startswith("0.001 bpp is out of reach; the nearest is ")
    assert note.endswith(" bpp, at quality 0")


def test_levels_are_applied(tmp_path, codec):
    deep("I;16", [0, 4095] * 8).save(tmp_path / "x.png")
    with pytest.raises(CodecError, match="--levels"):
        FileEncoder(codec, EncodeOptions())(tmp_path / "x.png")
    data, _ = FileEncoder(codec, EncodeOptions(levels=(0, 4095)))(tmp_path / "x.png")
    assert codec.decode(data).mode == "L"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CodecError("bad data"), "bad data"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "x.png: No such file or directory"),
        (OSError("broken"), "broken"),
        (MemoryError(), "not enough memory for this image"),
        (RuntimeError("can't allocate memory"), "not enough memory for this image"),
        (RuntimeError("a fault"), None),
        (ValueError("a fault"), None),
    ],
)
def test_errors_of_data_are_explained_and_faults_are_not(error, line):
    assert explain(error) == line
