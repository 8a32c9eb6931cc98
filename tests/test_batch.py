"""Many files through one model: results, failures, threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image
from test_image import deep

from codec.app.batch import Summary, run
from codec.app.places import Task
from codec.app.work import Decoding, Encoding, Made
from codec.errors import CodecError, explain


class Doing:
    """Work that is a function of the source, and returns these bytes."""

    def __init__(self, function: Callable[[Path], object], data: bytes = b"x") -> None:
        self.function, self.data = function, data

    def read(self, source: Path) -> Path:
        return source

    def least_bytes(self, _: Path) -> int:
        return 1

    def code(self, given: Path, _: object = None) -> Made:
        self.function(given)
        return Made(self.data, {}, "", "")


@pytest.fixture
def tasks(tmp_path) -> list[Task]:
    (tmp_path / "in").mkdir()
    for number in range(5):
        Image.fromarray(picture(20, 30 + number, number)).save(tmp_path / "in" / f"{number}.png")
    folders = [tmp_path / "out" / f"sub{n % 2}" for n in range(5)]
    return [Task(tmp_path / "in" / f"{n}.png", folder / f"{n}.yoto", folder) for n, folder in enumerate(folders)]


@pytest.mark.parametrize("jobs", [None, 1, 3])
def test_files_equal_those_made_one_by_one(tasks, codec, jobs):
    outcomes = list(run(tasks, Encoding(lambda: codec, 0.7), jobs=jobs))
    assert sorted(outcome.task for outcome in outcomes) == tasks
    for outcome in outcomes:
        data = outcome.task.output.read_bytes()
        assert data == codec.encode(Image.open(outcome.task.source), 0.7)
        assert (outcome.size_bytes, outcome.error, outcome.notes) == (len(data), None, [])


def test_decoded_files_equal_those_made_one_by_one(tmp_path, codec):
    data = codec.encode(picture(20, 30))
    (tmp_path / "a.yoto").write_bytes(data)
    task = Task(tmp_path / "a.yoto", tmp_path / "a.bmp")
    assert [outcome.error for outcome in run([task], Decoding(lambda: codec, ".bmp"))] == [None]
    np.testing.assert_array_equal(np.asarray(Image.open(task.output)), np.asarray(codec.decode(data)))
    (outcome,) = run([task], Decoding(lambda: codec, ".bmp", max_pixels=599), force=True)
    assert "more than the limit" in outcome.error


def test_bad_files_do_not_stop_the_rest(tasks, codec):
    tasks[1].source.write_bytes(b"no image")
    tasks[3].source.unlink()
    bad = tasks[1].source  # a file where a folder should be
    tasks[4] = Task(tasks[4].source, bad / "4.yoto", bad)
    outcomes = {outcome.task: outcome for outcome in run(tasks, Encoding(lambda: codec, 0.5), jobs=2)}
    assert "not an image" in outcomes[tasks[1]].error
    assert "No such file" in outcomes[tasks[3]].error
    assert "exists" in outcomes[tasks[4]].error
    assert all(tasks[number].output.is_file() for number in (0, 2))
    summary = Summary()
    for outcome in outcomes.values():
        summary.add(outcome)
    assert (summary.written, summary.skipped, summary.failed) == (2, 0, 3)


def test_fault_of_the_program_is_reported_and_does_not_stop_the_rest(tasks):
    def work(source: Path) -> None:
        if source == tasks[0].source:
            raise ZeroDivisionError("a fault")

    outcomes = {outcome.task: outcome.error for outcome in run(tasks, Doing(work))}
    assert outcomes.pop(tasks[0]) == "unexpected ZeroDivisionError: a fault"
    assert set(outcomes.values()) == {None}


def test_existing_outputs_are_skipped_refused_or_replaced(tasks):
    tasks = tasks[:1]
    tasks[0].output.parent.mkdir(parents=True)
    tasks[0].output.write_bytes(b"old")
    calls: list[Path] = []
    work = Doing(calls.append, b"new")
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

    def work(_: Path) -> None:
        together.append(meeting.wait())
        threads.append(torch.get_num_threads())

    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        outcomes = list(run(tasks[:4], Doing(work), jobs=2))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert {outcome.error for outcome in outcomes} == {None}
    assert sorted(together) == [0, 0, 1, 1]
    assert threads == [2, 2, 2, 2]


def test_who_stops_early_leaves_the_rest_undone(tasks):
    calls = []
    outcomes = run(tasks, Doing(calls.append), jobs=1)
    next(outcomes)
    outcomes.close()
    assert len(calls) <= len(tasks)
    assert len(list(tasks[0].output.parent.parent.rglob("*.yoto"))) == len(calls)


def test_who_stops_does_not_wait_for_large_pictures(tasks):
    """Ctrl+C, that is; 30 s of tiles remain to be done."""
    done = []

    class Long(Doing):
        def code(self, given: Path, progress: Callable[[int, int], None] | None = None) -> Made:
            for tile in range(3000 if given == tasks[1].source else 0):
                progress(tile, 3000)
                time.sleep(0.01)
            done.append(given)
            return Made(b"x", {}, "", "")

    outcomes = run(tasks[:2], Long(print), jobs=2)
    assert next(outcomes).task == tasks[0]
    outcomes.close()
    assert done == [tasks[0].source]


def test_however_many_files_few_wait_in_memory(tmp_path):
    pulled = finished = 0

    def tasks() -> Iterator[Task]:
        nonlocal pulled
        for number in range(10_000):
            pulled += 1
            yield Task(tmp_path / "source", tmp_path / f"{number}", trouble="not worth the work")

    for _ in run(tasks(), Doing(print), jobs=2):
        finished += 1
        assert pulled - finished <= 10
    assert finished == 10_000


# One image.


def test_frames_that_are_not_coded_are_noted(tmp_path, codec):
    Image.fromarray(picture(20, 30)).save(tmp_path / "x.gif", save_all=True, append_images=[Image.new("RGB", (30, 20))])
    encoded = Encoding(lambda: codec, 0.5).code(tmp_path / "x.gif")
    assert encoded.notes == ["the image has several frames, of which the first is coded"]


def test_levels_are_applied(tmp_path, codec):
    deep("I;16", [0, 4095] * 8).save(tmp_path / "x.png")
    with pytest.raises(CodecError, match="--levels"):
        Encoding(lambda: codec, 0.5).code(tmp_path / "x.png")
    made = Encoding(lambda: codec, 0.5, levels=(0, 4095)).code(tmp_path / "x.png")
    assert codec.decode(made.data).mode == "L"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (CodecError("bad data"), "bad data"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "x.png: No such file or directory"),
        (OSError("broken"), "broken"),
        (MemoryError(), "not enough memory for this image"),
        (RuntimeError("can't allocate memory"), "not enough memory for this image"),
        (RuntimeError("could not create a primitive"), "not enough memory for this image"),
        (RuntimeError("a fault"), None),
        (ValueError("a fault"), None),
    ],
)
def test_errors_of_data_are_explained_and_faults_are_not(error, line):
    assert explain(error) == line
