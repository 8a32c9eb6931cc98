"""Many files through one model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event
from typing import NamedTuple, TypeVar

from codec.app.places import Task
from codec.app.work import Work, carry_out
from codec.errors import explain
from codec.network import threads

Given = TypeVar("Given")
QUEUED = 4  # tasks that wait for each that is worked on; however many files there are, no more are kept in memory


class Outcome(NamedTuple):
    """What became of a task: bytes written, 0 if it was skipped or failed; an error in one line, or None."""

    task: Task
    size_bytes: int
    notes: list[str]
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.task.output}: {f'{self.size_bytes} bytes' if self.size_bytes else self.error or 'skipped'}"


@dataclass
class Summary:
    """Counts over many files, as the command reports them."""

    written: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count what became of a task."""
        self.written += outcome.size_bytes > 0
        self.failed += outcome.error is not None
        self.skipped += outcome.size_bytes == 0 and outcome.error is None
        self.bytes += outcome.size_bytes

    def __str__(self) -> str:
        return f"{self.written} written, {self.skipped} skipped, {self.failed} failed; {self.bytes} bytes"


class StoppedError(Exception):
    """Nobody waits for the result."""


def run(
    tasks: Iterable[Task],
    work: Work[Given],
    *,
    jobs: int | None = None,
    force: bool = False,
    skip_existing: bool = False,
    keep_time: bool = False,
) -> Iterator[Outcome]:
    """Work on many files; yield the outcome of each as it is done.

    Threads, since most of the time goes to the transforms, which let others run, and since they share one model. The
    cores are split among them: many pictures at once, each on few threads, take less time than one after the other on
    all.

    Args:
        tasks: what to read and write; folders are made as needed.
        work: what to do with each; may raise, which ends this task alone.
        jobs: files at a time, each in memory; None for one for each thread that the transforms would use.
        force: overwrite outputs that exist; else they are errors.
        skip_existing: leave outputs that exist, and do not work on their inputs.
        keep_time: give outputs the times of their inputs.
    """
    stopped = Event()

    def go_on(_: int, __: int) -> None:
        if stopped.is_set():
            raise StoppedError

    def attempt(task: Task) -> Outcome:
        if task.trouble:
            return Outcome(task, 0, [], task.trouble)
        try:
            if skip_existing and task.output.exists():
                return Outcome(task, 0, [])
            made = carry_out(task, work, force=force, keep_time=keep_time, progress=go_on)
        except Exception as error:
            # A fault of the program with one file is no reason to give up the others; it is reported as such.
            return Outcome(task, 0, [], explain(error) or f"unexpected {type(error).__name__}: {error}")
        return Outcome(task, len(made.data), list(made.notes))

    cores = threads.get()
    jobs = jobs or cores
    threads.choose(max(1, cores // jobs))
    pool = ThreadPoolExecutor(jobs)
    pending: set[Future[Outcome]] = set()
    try:
        with warnings.catch_warnings():  # `open_image` sets filters, and in several threads may not restore them
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for task in tasks:
                pending.add(pool.submit(attempt, task))
                if len(pending) >= (1 + QUEUED) * jobs:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        threads.choose(cores)
