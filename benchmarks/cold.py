"""What an installation takes: its size, and the time and memory of the command in a fresh process and of a warm codec.

    python -m benchmarks.cold --image kodim05.png --python /tmp/venv-core/bin/python --python /tmp/venv-torch/bin/python

Each interpreter is that of a virtual environment with the codec installed; one with torch is measured with both back
ends. Medians of several runs, which take turns, after one that only fills the caches.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import click

STEPS = ("encode --effort 0", "encode --effort 1", "decode")
WARM = """
import json, sys, time
from codec.api import Codec
from codec.network import threads
from PIL import Image

threads.choose(int(sys.argv[3]))
codec, image = Codec(backend=sys.argv[2]), Image.open(sys.argv[1])
image.load()
data = codec.encode(image)
calls = {
    "encode --effort 0": lambda: codec.encode(image, effort=0),
    "encode --effort 1": lambda: codec.encode(image),
    "decode": lambda: codec.decode(data),
}
taken = {}
for name, call in calls.items():
    call()
    start = time.perf_counter()
    call()
    taken[name] = time.perf_counter() - start
print(json.dumps(taken))
"""


# Not what the system says of a child that has ended, into which Linux counts the parent's size at the fork.
COMMAND = """
import cli
try:
    cli.main()
finally:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Setup(NamedTuple):
    """An interpreter and what runs the transforms in it."""

    python: str
    backend: str

    def run(self, program: str, *arguments: str) -> str:
        """The last line that a program prints, isolated from where this is called."""
        command = [self.python, "-I", "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise click.ClickException(f"{self.python} {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.splitlines()[-1]

    def command(self, step: str, source: str, target: str, threads: int) -> tuple[float, float]:
        """Seconds of the command from start to end of its process, and peak MiB."""
        options = ["--force", "--backend", self.backend, "--threads", str(threads)]
        start = time.perf_counter()
        peak_kib = self.run(COMMAND, *step.split(), source, target, *options)
        return time.perf_counter() - start, int(peak_kib) / 1024


def setups(python: str) -> list[Setup]:
    """One for each back end that an interpreter has."""
    has_torch = not subprocess.run([python, "-I", "-c", "import torch"], capture_output=True, check=False).returncode
    return [Setup(python, backend) for backend in ("onnx", "torch") if backend == "onnx" or has_torch]


def size_mib(setup: Setup) -> float:
    """Of all files of the environment."""
    prefix = Path(setup.run("import sys; print(sys.prefix)"))
    return sum(path.lstat().st_blocks for path in prefix.rglob("*")) * 512 / (1 << 20)


def measure(chosen: list[Setup], image: str, repeats: int, threads: int) -> list[dict[str, Any]]:
    """For each setup and step the runs' seconds and peak MiB of a fresh process, and seconds when warm."""
    rows: list[dict[str, Any]] = [{step: [] for step in STEPS} for _ in chosen]
    with tempfile.TemporaryDirectory() as folder:
        file, picture = str(Path(folder, "a.yoto")), str(Path(folder, "a.png"))
        for run in range(repeats + 1):
            for setup, row in zip(chosen, rows, strict=True):
                warm = json.loads(setup.run(WARM, image, setup.backend, str(threads)))
                for step in STEPS:
                    source, target = (file, picture) if step == "decode" else (image, file)
                    seconds, peak = setup.command(step, source, target, threads)
                    if run:
                        row[step].append((seconds, peak, warm[step]))
    return rows


@click.command()
@click.option("--image", type=click.Path(exists=True), required=True)
@click.option("--python", "pythons", multiple=True, required=True, help="Interpreter of an installation.")
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
def main(image: str, pythons: tuple[str, ...], repeats: int, threads: int) -> None:
    """Measure encode at efforts 0 and 1, and decode."""
    chosen = [setup for python in pythons for setup in setups(python)]
    for setup, row in zip(chosen, measure(chosen, image, repeats, threads), strict=True):
        click.echo(f"{setup.python}, {size_mib(setup):.0f} MiB, {setup.backend}, {threads} threads")
        for step, runs in row.items():
            cold, peak, warm = (median(figures) for figures in zip(*runs, strict=True))
            click.echo(f"  {step:<18} cold {cold:6.3f} s   warm {warm:6.3f} s   peak {peak:5.0f} MiB")


if __name__ == "__main__":
    main()
