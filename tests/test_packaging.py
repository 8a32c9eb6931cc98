"""What is shipped."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CODEC = ROOT / "codec"


def test_wheel_holds_every_file_of_the_library():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["codec"]
    shipped = {path for pattern in patterns for path in CODEC.glob(pattern)}
    data = {path for path in CODEC.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path for path in data if path.suffix != ".py"} <= shipped
    packages = {ROOT.joinpath(*name.split(".")) for name in PROJECT["tool"]["setuptools"]["packages"]}
    assert {path.parent for path in data if path.suffix == ".py"} <= packages
