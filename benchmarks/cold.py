"""Seconds of the command in a fresh process, by the interpreter of each installation.

    python -m benchmarks.cold --image kodim05.png --python /tmp/venv-core/bin/python --python /tmp/venv-torch/bin/python

An installation with torch is timed with both back ends. Medians; the first run of each only fills the file cache.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import click


def seconds(command: list[str], repeats: int) -> float:
    """Median of several runs."""
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        taken.append(time.perf_counter() - start)
        if done.returncode:
            raise click.ClickException(f"{' '.join(command)}: {done.stderr.strip()}")
    return median(taken[1:])


@click.command()
@click.option("--image", type=click.Path(exists=True), required=True)
@click.option("--python", "pythons", multiple=True, required=True, help="Interpreter of an installation.")
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
def main(image: str, pythons: tuple[str, ...], repeats: int) -> None:
    """Time encode at efforts 0 and 1, and decode."""
    with tempfile.TemporaryDirectory() as folder:
        file, png = str(Path(folder, "a.yoto")), str(Path(folder, "a.png"))
        for python in pythons:
            has_torch = not subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode
            for backend in ("onnx", "torch") if has_torch else ("onnx",):
                yoto = [python, "-c", "import cli; cli.main()"]
                options = ["--force", "--backend", backend]
                for effort in ("0", "1"):
                    taken = seconds([*yoto, "encode", image, file, "--effort", effort, *options], repeats)
                    click.echo(f"{python} {backend} encode, effort {effort}: {taken:.3f} s")
                click.echo(
                    f"{python} {backend} decode: {seconds([*yoto, 'decode', file, png, *options], repeats):.3f} s"
                )


if __name__ == "__main__":
    main()
