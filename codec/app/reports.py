"""Carry out what a command was told, and say so: results on stdout, warnings and progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import click

from codec.app.arguments import How
from codec.app.files import STREAM, is_taken
from codec.app.places import Plan, Task, describe
from codec.app.work import Work, carry_out

if TYPE_CHECKING:
    from click._termui_impl import ProgressBar

    from codec.grid import Progress

Given = TypeVar("Given")


def report(fields: dict[str, object], text: str, as_json: bool, to_stderr: bool) -> None:
    """Print a result; on stderr if the data itself goes to stdout."""
    click.echo(json.dumps(fields) if as_json else text, err=to_stderr)


def run_one(task: Task, work: Work[Given], how: How) -> None:
    """Work on one file; exit with 1 if it was damaged."""
    path = task.output
    if how.shard:
        raise click.UsageError("--shard is for many inputs")
    if how.skip_existing and is_taken(path):
        if not how.quiet:
            report({"output": str(path), "skipped": True}, f"{path}: exists, skipped", how.as_json, False)
        return
    with tile_bar(how.with_bar) as progress:
        made = carry_out(task, work, force=how.force, keep_time=how.keep_time, progress=progress)
    for note in [] if how.quiet else made.notes:
        click.echo(f"Warning: {note}", err=True)
    if how.verbose:
        click.echo(made.details, err=True)
    if not how.quiet:
        report({"output": str(path), **made.fields}, f"{path}: {made.text}", how.as_json, path == STREAM)
    for part in made.damage:
        click.echo(f"Damaged: {part}", err=True)
    if made.damage:
        sys.exit(1)


@contextmanager
def tile_bar(drawn: bool) -> Iterator[Progress | None]:
    """Yield what draws a bar, once it is told that a picture has several tiles; None if none is wanted."""
    with ExitStack() as stack:
        bars: list[ProgressBar[int]] = []

        def advance(done: int, total: int) -> None:
            if total > 1 and not bars:
                bars.append(stack.enter_context(click.progressbar(length=total, file=sys.stderr)))
            for bar in bars:
                bar.update(done - bar.pos)

        yield advance if drawn else None


def run_many(plan: Plan, work: Work[Given], how: How) -> None:
    """Work on many files behind a progress bar; say what became of them, and exit with 1 if one failed."""
    from codec.app.batch import Summary, run

    first, count = how.shard or (1, 1)
    total = len(range(first - 1, plan.survey(), count))
    start = time.perf_counter()
    work.codec  # noqa: B018 (loaded once, before there are threads, so that its errors come first)
    outcomes = run(
        islice(plan, first - 1, None, count),
        work,
        jobs=how.jobs,
        force=how.force,
        skip_existing=how.skip_existing,
        keep_time=how.keep_time,
    )
    summary = Summary()
    with click.progressbar(outcomes, total, file=sys.stderr) if how.with_bar else nullcontext(outcomes) as shown:
        for outcome in shown:
            summary.add(outcome)
            for note in [] if how.quiet else outcome.notes:
                say(f"Warning: {outcome.task.source}: {note}", how)
            if how.verbose and not outcome.error:
                say(str(outcome), how)
            if outcome.error:
                source = str(outcome.task.source)
                say(f"Error: {'' if source in outcome.error else f'{source}: '}{outcome.error}", how)
    seconds = round(time.perf_counter() - start, 3)
    if not how.quiet:
        left_out = f"\nleft out: {describe(plan.ignored)}" if plan.ignored else ""
        fields = {**asdict(summary), "seconds": seconds, "left_out": dict(plan.ignored)}
        report(fields, f"{summary}, {seconds:.1f} s{left_out}", how.as_json, False)
    if summary.failed:
        sys.exit(1)


def say(line: str, how: How) -> None:
    """A line on stderr, in place of the progress bar, which is drawn anew below."""
    click.echo(f"\r\x1b[2K{line}" if how.with_bar else line, err=True)
