"""The benchmark of seams: where it looks, and that it sees a seam if there is one."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
from click.testing import CliRunner
from PIL import Image

from benchmarks.seams import LIMIT_DB, border_mask, main, measure
from codec.api import default_codec
from codec.network.loaded import LoadedModel


@pytest.mark.parametrize(("height", "width", "tile_px", "share"), [(256, 256, 256, 0.0), (256, 512, 256, 1 / 16)])
def test_borders_are_those_between_tiles(height, width, tile_px, share):
    mask = border_mask(height, width, tile_px)
    assert mask.mean() == share
    if share:
        assert np.flatnonzero(mask[0]).tolist() == list(range(240, 272))


def test_borders_cross():
    mask = border_mask(300, 200, 128)
    assert mask.sum() == 300 * 200 - (300 - 64) * (200 - 32)


def test_shipped_weights_leave_no_seam():
    photographs = [skimage.data.astronaut()[:320, :320], skimage.data.chelsea()[:300, 64:384]]
    assert measure(default_codec(), photographs, 0.5, 128).excess_db < LIMIT_DB


def test_a_seam_is_seen(monkeypatch, tmp_path):
    """Without the margin of the transforms, every tile is coded as if nothing lay beside it."""
    Image.fromarray(skimage.data.astronaut()[:256, :256]).save(tmp_path / "in.png")
    arguments = ["--dataset", str(tmp_path), "--tile-px", "64", "--quality", "0.1"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    monkeypatch.setattr(LoadedModel, "margin_px", 0)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "the borders lose" in result.stderr
