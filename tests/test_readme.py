"""Every example of the README is run, with the shipped weights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
SHELL = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray(skimage.data.astronaut()[:130, :200]).save(tmp_path / "in.png")
    return tmp_path


def run(command: list[str], folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_shell_examples_run(folder: Path) -> None:
    commands = [line.split(maxsplit=1)[1].split() for line in SHELL if line.startswith("yoto-codec ")]
    assert len(commands) >= 3
    for arguments in commands:
        run([sys.executable, "-m", "cli", *arguments], folder)
    assert (folder / "out.yoto").stat().st_size > 0
    with Image.open(folder / "back.png") as image:
        assert image.size == (200, 130)


@pytest.mark.parametrize("example", PYTHON)
def test_python_example_runs(example: str, folder: Path) -> None:
    run([sys.executable, "-W", "error", "-c", example], folder)


def test_there_are_python_examples() -> None:
    assert PYTHON
