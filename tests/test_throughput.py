"""The benchmark of folders against separate commands runs and counts as it says."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from conftest import picture
from PIL import Image

from benchmarks import throughput
from benchmarks.throughput import Throughput


def test_throughput_is_per_core():
    assert Throughput("folder", 24, 2, 6.0).per_core == 2.0


def test_both_ways_are_timed(tmp_path, monkeypatch):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(20, 30, number)).save(path)
    monkeypatch.setattr(throughput, "find_kodak", lambda _: paths)
    options = ["--cores", "2", "--repeats", "1", "--output", str(tmp_path / "x.json")]
    result = CliRunner().invoke(throughput.main, options)
    assert result.exit_code == 0, result.output
    separate, folder = json.loads((tmp_path / "x.json").read_text())["timings"]
    assert (separate["name"], separate["cores"], folder["name"], folder["cores"]) == ("separate", 1, "folder", 2)
    assert folder["per_core"] == pytest.approx(2 / folder["seconds"] / 2)
    ratio = folder["per_core"] / separate["per_core"]
    assert result.output.splitlines()[-1].endswith(f" {ratio:.2f}×")
