"""What `yoto-codec compare` says of two files."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from codec.app.compare import compare_files
from codec.errors import ImageError
from codec.metrics import MS_SSIM_MIN_PX, ms_ssim, psnr_db


@pytest.fixture
def a() -> np.ndarray:
    return picture(MS_SSIM_MIN_PX, 187)


def no_model() -> None:
    raise AssertionError("no .yoto file, and yet the model is loaded")


def save(path, pixels: np.ndarray, **options) -> None:
    Image.fromarray(pixels).save(path, **options)


def test_files_of_any_format(tmp_path, codec, a):
    save(tmp_path / "a.png", a)
    (tmp_path / "b.yoto").write_bytes(codec.encode(a, 0.4))
    found = compare_files(tmp_path / "a.png", tmp_path / "b.yoto", lambda: codec)
    decoded = np.asarray(codec.decode(codec.encode(a, 0.4)))
    assert (found.width, found.height) == (187, MS_SSIM_MIN_PX)
    assert found.size_bytes == tuple((tmp_path / name).stat().st_size for name in ("a.png", "b.yoto"))
    assert found.psnr_db == psnr_db(a, decoded)
    assert found.ms_ssim == ms_ssim(a, decoded)
    assert found.alpha_equal is None
    assert found.fields["bpp"] == [round(8 * size / a[:, :, 0].size, 5) for size in found.size_bytes]


def test_equal_pictures(tmp_path, a):
    save(tmp_path / "a.png", a)
    save(tmp_path / "b.webp", a, lossless=True)
    found = compare_files(tmp_path / "a.png", tmp_path / "b.webp", no_model)
    assert (found.psnr_db, found.ssim, found.ms_ssim) == (float("inf"), 1.0, 1.0)
    assert found.fields["psnr_db"] is None


@pytest.mark.parametrize(("side", "has_ssim"), [(10, False), (11, True), (160, True)])
def test_small_pictures_have_no_similarity(tmp_path, side, has_ssim):
    save(tmp_path / "a.png", picture(side, 200))
    found = compare_files(tmp_path / "a.png", tmp_path / "a.png", no_model)
    assert (found.ssim is not None, found.ms_ssim) == (has_ssim, None)


def test_grey_is_compared_with_colour(tmp_path):
    grey = picture(20, 20)[:, :, 0]
    save(tmp_path / "grey.png", grey)
    save(tmp_path / "colour.png", np.dstack([grey] * 3))
    assert compare_files(tmp_path / "grey.png", tmp_path / "colour.png", no_model).psnr_db == float("inf")


@pytest.mark.parametrize(("alpha", "equal"), [(255, True), (254, False)])
def test_picture_without_alpha_is_opaque(tmp_path, alpha, equal):
    a = picture(20, 20)
    save(tmp_path / "a.png", a)
    save(tmp_path / "b.png", np.dstack([a, np.full((20, 20), alpha, np.uint8)]))
    assert compare_files(tmp_path / "a.png", tmp_path / "b.png", no_model).alpha_equal is equal


def test_sizes_must_be_equal(tmp_path):
    save(tmp_path / "a.png", picture(20, 30))
    save(tmp_path / "b.png", picture(30, 20))
    with pytest.raises(ImageError, match=r"a\.png has 30×20 px, .*b\.png 20×30; sizes must be equal"):
        compare_files(tmp_path / "a.png", tmp_path / "b.png", no_model)


def test_file_that_is_no_picture_is_named(tmp_path):
    save(tmp_path / "a.png", picture(20, 20))
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"b\.png is not an image"):
        compare_files(tmp_path / "a.png", tmp_path / "b.png", no_model)
