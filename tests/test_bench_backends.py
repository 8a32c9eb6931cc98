"""The benchmarks of back ends and of installations measure what they say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import picture
from PIL import Image

from benchmarks import agreement, cold
from codec.api import Codec


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.fromarray(picture(64, 64)).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def test_back_ends_that_disagree_are_noticed(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agreement, "find_kodak", lambda _: [image])
    done = CliRunner().invoke(agreement.main)
    assert done.exit_code == 0, done.output
    assert re.findall(r"quality (\S+): at most [01] level", done.output) == ["0", "0.25", "0.5", "0.75", "1"]

    honest = Codec.decode

    def two_levels_off(self: Codec, data: bytes) -> Image.Image:
        off = 2 if self.backend == "torch" else 0
        return Image.fromarray((np.asarray(honest(self, data)) // 2 + off).astype(np.uint8))

    monkeypatch.setattr(Codec, "decode", two_levels_off)
    done = CliRunner().invoke(agreement.main)
    assert done.exit_code == 1
    assert "quality 0.5: at most 2 level" in done.output or "quality 0.5: at most 3 level" in done.output


def test_an_installation_is_measured(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "STEPS", ("encode --effort 0", "decode"))
    monkeypatch.setattr(cold, "setups", lambda python: [cold.Setup(python, "onnx")])
    monkeypatch.setattr(cold, "size_mib", lambda setup: 1.0)
    done = CliRunner().invoke(cold.main, ["--image", str(image), "--python", sys.executable, "--repeats", "1"])
    assert done.exit_code == 0, done.output
    rows = re.findall(r"^  (.*?) +cold +([\d.]+) s +warm +([\d.]+) s +peak +(\d+) MiB", done.output, re.MULTILINE)
    assert [row[0] for row in rows] == ["encode --effort 0", "decode"]
    for _, whole, warm, peak in rows:
        assert float(whole) > float(warm) > 0.0
        assert 60 < int(peak) < 200  # ONNX Runtime, but not torch


def test_a_program_that_fails_is_named(tmp_path: Path) -> None:
    with pytest.raises(cold.click.ClickException, match="of no weight"):
        cold.Setup(sys.executable, "onnx").run("raise SystemExit('of no weight')")
