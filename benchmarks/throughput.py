"""Pictures per second and core: one command on a folder against one command for each picture.

    python -m benchmarks.throughput --dataset KODAK

Both are timed from the start of the process to its end, import of torch and loading of the model included. The
folder may use all of the cores that are given, and is charged for all of them; the separate commands run one after
the other, and are charged for one core if told to use one thread.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import click

from benchmarks.dataset import DatasetError, find_kodak
from benchmarks.files import write_json
from benchmarks.machine import OUR_PACKAGES, machine, versions

ROOT = Path(__file__).parent.parent


class Throughput(NamedTuple):
    """Seconds for all pictures, on so many cores."""

    name: str
    pictures: int
    cores: int
    seconds: float

    @property
    def per_core(self) -> float:
        """Pictures per second and core."""
        return self.pictures / self.seconds / self.cores


def run_command(arguments: list[str], cores: int) -> None:
    """`yoto-codec` in a process of its own, with so many threads."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(cores), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-m", "cli", *arguments, "--quiet"], check=True, env=environment)


def time_folder(paths: list[Path], cores: int, options: list[str]) -> float:
    """Seconds of one command on all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run_command(["encode", *map(str, paths), "-o", folder, "--jobs", str(cores), *options], cores)
        return time.perf_counter() - start


def time_separate(paths: list[Path], options: list[str]) -> float:
    """Seconds of one command for each picture, on one core."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        for path in paths:
            run_command(["encode", str(path), str(Path(folder, path.stem + ".yoto")), *options], 1)
        return time.perf_counter() - start


@click.command()
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the 24 Kodak images.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.option("--cores", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="The medians count.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures to this JSON file.")
def main(
    dataset: Path | None,
    weights: Path | None,
    quality: float,
    cores: tuple[int, ...],
    repeats: int,
    output: Path | None,
) -> None:
    """Time encoding of the Kodak images, as a folder and one by one."""
    try:
        paths = find_kodak(dataset)
    except DatasetError as error:
        raise click.ClickException(str(error)) from error
    options = ["--quality", str(quality), *(["--weights", str(weights)] if weights else [])]
    separate = Throughput("separate", len(paths), 1, median(time_separate(paths, options) for _ in range(repeats)))
    rows = [separate]
    for count in cores:
        seconds = median(time_folder(paths, count, options) for _ in range(repeats))
        rows.append(Throughput("folder", len(paths), count, seconds))
    click.echo(f"{'command':<10} {'cores':>5} {'seconds':>8} {'pictures/s/core':>16} {'against separate':>17}")
    for row in rows:
        ratio = row.per_core / separate.per_core
        click.echo(f"{row.name:<10} {row.cores:>5} {row.seconds:>8.2f} {row.per_core:>16.2f} {ratio:>16.2f}×")
    if output:
        figures = [{**row._asdict(), "per_core": row.per_core} for row in rows]
        report = {
            "machine": machine(max(cores)),
            "versions": versions(OUR_PACKAGES),
            "quality": quality,
            "timings": figures,
        }
        write_json(output, report)


if __name__ == "__main__":
    main()
