"""What the commands say: results on stdout, warnings and progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import click

from codec.app.arguments import Many
from codec.app.files import Task


def report(fields: dict[str, object], text: str, as_json: bool, to_stderr: bool) -> None:
    """Print a result; on stderr if the data itself goes to stdout."""
    click.echo(json.dumps(fields) if as_json else text, err=to_stderr)


def report_skipped(path: Path, as_json: bool, quiet: bool) -> None:
    """Say that an output exists and was left alone."""
    if not quiet:
        report({"output": str(path), "skipped": True}, f"{path}: exists, skipped", as_json, False)


def warn(notes: list[str], quiet: bool) -> None:
    """What the user should know, one line each on stderr."""
    for note in [] if quiet else notes:
        click.echo(f"Warning: {note}", err=True)


def run_many(
    tasks: list[Task],
    work: Callable[[Path], tuple[bytes, list[str]]],
    many: Many,
    *,
    force: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Work on many files behind a progress bar; say what became of them, and exit with 1 if one failed."""
    from codec.app.batch import Outcome, run, summarise

    first, count = many.shard or (1, 1)
    tasks = tasks[first - 1 :: count]
    start = time.perf_counter()
    outcomes = run(tasks, work, jobs=many.jobs, force=force, skip_existing=many.skip_existing)
    with_bar = sys.stderr.isatty() and not quiet and not verbose
    done: list[Outcome] = []
    with click.progressbar(outcomes, len(tasks), file=sys.stderr) if with_bar else nullcontext(outcomes) as bar:
        for outcome in bar:
            done.append(outcome)
            if verbose:
                click.echo(str(outcome), err=True)
    for task, _, notes, error in sorted(done):
        warn([f"{task.source}: {note}" for note in notes], quiet)
        if error:
            click.echo(f"Error: {'' if str(task.source) in error else f'{task.source}: '}{error}", err=True)
    summary, seconds = summarise(done), round(time.perf_counter() - start, 3)
    if not quiet:
        report({**summary._asdict(), "seconds": seconds}, f"{summary}, {seconds:.1f} s", as_json, False)
    if summary.failed:
        sys.exit(1)
