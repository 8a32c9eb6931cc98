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
SHELL = "".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


COMMAND = f"""#!{sys.executable}
import sys
sys.argv[0] = "yoto-codec"
from cli import main
main()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the examples work on: a picture and a tree of pictures, and the command itself."""
    picture = Image.fromarray(skimage.data.astronaut()[:130, :200])
    picture.save(tmp_path / "in.png")
    for name in ("photos/a.jpg", "photos/trip/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/yoto-codec").write_text(COMMAND)
    (tmp_path / "bin/yoto-codec").chmod(0o755)
    return tmp_path


def run(command: list[str], folder: Path) -> None:
    path = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_shell_examples_run(folder: Path) -> None:
    assert SHELL.count("yoto-codec ") >= 7
    run(["bash", "-eu", "-o", "pipefail", "-c", SHELL], folder)
    assert (folder / "small.yoto").stat().st_size == pytest.approx(3000, rel=0.01)
    for name in ("back.png", "decoded/a.webp", "decoded/trip/b.webp"):
        with Image.open(folder / name) as image:
            assert image.size == (200, 130)


@pytest.mark.parametrize("example", PYTHON)
def test_python_example_runs(example: str, folder: Path) -> None:
    run([sys.executable, "-W", "error", "-c", example], folder)


def test_there_are_python_examples() -> None:
    assert PYTHON
