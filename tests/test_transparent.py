"""Colours under an alpha of 0 cost few bits, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from codec.app.compare import compare_files
from codec.picture.image import Planes, to_planes
from codec.picture.transparent import without_hidden_colours


def cut_out(height: int, width: int, hidden: int | None) -> Planes:
    """A disc of a picture; around it `hidden`, noise for None, transparent."""
    y, x = np.mgrid[:height, :width]
    alpha = np.where((y - height / 2) ** 2 + (x - width / 2) ** 2 < (width / 3) ** 2, 255, 0).astype(np.uint8)
    around = np.random.default_rng(0).integers(0, 256, (height, width, 3)) if hidden is None else hidden
    return Planes(np.where(alpha[:, :, None] > 0, picture(height, width), around).astype(np.uint8), alpha)


@pytest.mark.parametrize("hidden", [None, 0, 255])
def test_hidden_colours_cost_fewer_bytes_and_the_rest_is_as_it_was(codec, hidden):
    planes = cut_out(150, 201, hidden)
    filled = without_hidden_colours(planes)
    assert filled.alpha is planes.alpha
    visible = planes.alpha > 0
    np.testing.assert_array_equal(filled.colour[visible], planes.colour[visible])
    assert len(codec.encode_planes(filled, 3000)) < len(codec.encode_planes(planes, 3000))
    rgba = Image.fromarray(np.dstack([planes.colour, planes.alpha]))
    data = codec.encode(rgba, 3000 / 4096)
    assert data == codec.encode_planes(filled, 3000)
    np.testing.assert_array_equal(to_planes(codec.decode(data)).alpha, planes.alpha)
    kept = to_planes(codec.decode(codec.encode(rgba, lossless=True)))
    np.testing.assert_array_equal(kept.colour, planes.colour)


def test_hidden_colours_do_not_count_when_pictures_are_compared(tmp_path, codec):
    for name, hidden in (("a", None), ("b", 0)):
        planes = cut_out(60, 70, hidden)
        Image.fromarray(np.dstack([planes.colour, planes.alpha])).save(tmp_path / f"{name}.png")
    found = compare_files(tmp_path / "a.png", tmp_path / "b.png", lambda: codec)
    assert (found.psnr_db, found.alpha_equal) == (np.inf, True)


def test_filling_depends_on_what_is_visible_alone():
    results = [without_hidden_colours(cut_out(600, 530, hidden)).colour for hidden in (None, 0, 99)]
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    again = without_hidden_colours(Planes(results[0], cut_out(600, 530, 0).alpha))
    np.testing.assert_array_equal(again.colour, results[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (7, 1), (513, 2)])
def test_wholly_transparent_and_opaque_pictures(shape):
    colour = picture(*shape)
    opaque = Planes(colour, np.full(shape, 1, np.uint8))
    assert without_hidden_colours(opaque) is opaque
    assert (without_hidden_colours(Planes(colour, np.zeros(shape, np.uint8))).colour == 128).all()
