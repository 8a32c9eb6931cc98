"""Pillow opens and saves `.yoto` files as it does any other format."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, reseal
from PIL import Image, ImageFile, UnidentifiedImageError
from test_image import DESCRIPTION, ORIENTATION, XMP, deep, exif, pil

import codec as package

ROOT = Path(__file__).parent.parent
REGISTRIES = (Image.OPEN, Image.SAVE, Image.EXTENSION, Image.MIME)


@pytest.fixture(autouse=True)
def plugin(codec, monkeypatch):
    """The format registered with the tiny model, and forgotten afterwards."""
    Image.init()
    before, ids = [dict(registry) for registry in REGISTRIES], list(Image.ID)
    package.register_pillow()
    monkeypatch.setattr("codec.api.default_codec", lambda *_: codec)
    yield
    for registry, old in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(old)
    Image.ID[:] = ids


def saved(image: Image.Image, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "YOTO", **options)
    return Image.open(io.BytesIO(buffer.getvalue()))


def test_file_is_saved_and_opened_by_its_suffix(tmp_path, codec):
    image = Image.fromarray(picture(40, 70))
    image.save(tmp_path / "x.yoto", quality=0.3)
    data = (tmp_path / "x.yoto").read_bytes()
    assert data == codec.encode(image, 0.3)
    with Image.open(tmp_path / "x.yoto") as opened:
        assert (opened.format, opened.size, opened.mode) == ("YOTO", (70, 40), "RGB")
        assert opened.get_format_mimetype() == "image/x-yoto"
        np.testing.assert_array_equal(np.asarray(opened), np.asarray(codec.decode(data)))


def test_quality_has_the_default_of_encode(codec):
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "YOTO")
    assert buffer.getvalue() == codec.encode(pil("RGB"))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_mode_is_known_before_pixels_are_decoded(mode):
    opened = saved(pil(mode))
    assert opened.mode == mode
    opened.load()
    assert opened.mode == opened.im.mode == mode
    if mode.endswith("A"):
        np.testing.assert_array_equal(np.asarray(opened)[:, :, -1], np.asarray(pil(mode))[:, :, -1])


def test_file_outlives_the_stream(tmp_path):
    pil("RGB").save(tmp_path / "x.yoto")
    opened = Image.open(tmp_path / "x.yoto")
    opened.load()
    (tmp_path / "x.yoto").unlink()
    assert opened.resize((3, 3)).size == (3, 3)
    opened.close()


def test_usual_methods_work():
    opened = saved(pil("RGB"))
    assert opened.tell() == 0
    with pytest.raises(EOFError):
        opened.seek(1)
    opened.thumbnail((4, 4))
    assert opened.size == (4, 3)
    assert opened.copy().convert("L").mode == "L"


def test_neither_import_nor_header_needs_torch(tmp_path):
    pil("RGBA").save(tmp_path / "x.yoto", exif=exif(description="kept"))
    program = """
import sys
from PIL import Image
import codec.pillow
with Image.open("x.yoto") as image:
    assert (image.size, image.mode, image.getexif()[0x010E]) == ((7, 5), "RGBA", "kept")
    assert not {"torch", "numpy"} & set(sys.modules)
    image.verify()
assert not {"torch", "numpy"} & set(sys.modules)
"""
    command, environment = [sys.executable, "-W", "error", "-c", program], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def test_registering_twice_changes_nothing():
    before = [dict(registry) for registry in REGISTRIES], list(Image.ID)
    package.register_pillow()
    assert ([dict(registry) for registry in REGISTRIES], list(Image.ID)) == before
    assert Image.ID.count("YOTO") == 1


def test_effort_is_passed_on(codec):
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "YOTO", quality=0.7, effort=0)
    assert buffer.getvalue() == codec.encode(pil("RGB"), 0.7, effort=0)


# Metadata.


def described(orientation: int = 1) -> Image.Image:
    image = pil("RGB")
    image.info.update(icc_profile=b"profile", exif=exif(orientation=orientation, description="own").tobytes())
    image.info["xmp"] = XMP % orientation
    return image


def test_metadata_makes_the_round_trip():
    opened = saved(described())
    assert (opened.info["icc_profile"], opened.info["xmp"]) == (b"profile", XMP % 1)
    assert opened.getexif()[DESCRIPTION] == "own"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_of_other_formats_is_kept(form):
    buffer = io.BytesIO()
    pil("RGB").save(buffer, form, exif=exif(description="own"))
    assert saved(Image.open(buffer)).getexif()[DESCRIPTION] == "own"
    assert saved(Image.open(buffer), xmp=XMP % 1).getexif()[DESCRIPTION] == "own"


@pytest.mark.parametrize("as_bytes", [False, True])
def test_options_replace_the_images_own_metadata(as_bytes):
    given = exif(description="given")
    opened = saved(described(), icc_profile=b"other", exif=given.tobytes() if as_bytes else given, xmp=XMP % 1)
    assert opened.info["icc_profile"] == b"other"
    assert opened.getexif()[DESCRIPTION] == "given"


@pytest.mark.parametrize("nothing", [None, b""])
def test_metadata_can_be_left_out(nothing):
    image = described()
    assert not {"icc_profile", "exif", "xmp"} & set(saved(image, icc_profile=nothing, exif=nothing, xmp=nothing).info)
    assert image.info["icc_profile"] == b"profile"


def test_orientation_is_applied_once():
    for opened in (saved(described(6)), saved(pil("RGB"), exif=exif(orientation=6))):
        assert opened.size == (5, 7)
        assert opened.getexif().get(ORIENTATION, 1) == 1


# Errors.


def test_other_plugins_get_their_chance():
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "PNG")
    assert Image.open(buffer).format == "PNG"
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(b"no image"))
    with pytest.raises(UnidentifiedImageError):
        Image.open(buffer, formats=["YOTO"])


def file() -> bytes:
    buffer = io.BytesIO()
    pil("RGBA").save(buffer, "YOTO")
    return buffer.getvalue()


@pytest.mark.parametrize("length", [4, 10, 30, -1])
def test_file_cut_short_is_an_os_error(length):
    with pytest.raises(OSError, match="cut short"):
        Image.open(io.BytesIO(file()[:length]))


@pytest.mark.parametrize("method", ["load", "verify"])
def test_damaged_file_is_an_os_error_where_its_pixels_are_needed(method):
    data = bytearray(file())
    data[-1] ^= 1
    opened = Image.open(io.BytesIO(bytes(data)))
    with pytest.raises(OSError, match="checksum of tile 0"):
        getattr(opened, method)()


def test_file_of_a_later_version_is_an_os_error():
    data = bytearray(file())
    data[4] = 3
    with pytest.raises(OSError, match="format version 3"):
        Image.open(io.BytesIO(bytes(data)))


def test_file_of_other_weights_is_an_os_error():
    data = bytearray(file())
    data[16] ^= 1
    opened = Image.open(io.BytesIO(reseal(bytes(data))))
    with pytest.raises(OSError, match="needs the weights"):
        opened.load()


def test_verify_passes_and_must_come_first():
    Image.open(io.BytesIO(file())).verify()
    opened = Image.open(io.BytesIO(file()))
    opened.load()
    with pytest.raises(RuntimeError, match="directly after open"):
        opened.verify()


def test_pillows_limit_on_pixels_holds(monkeypatch):
    data = file()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(data))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 17)
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))


def test_mode_that_cannot_be_coded_is_an_os_error_and_leaves_no_file(tmp_path):
    with pytest.raises(OSError, match=r"cannot write mode I;16 as YOTO: .*scale_levels"):
        deep("I;16", [1, 2]).save(tmp_path / "x.yoto")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quality", [-0.1, 75.0, 101, -1, float("nan")])
def test_quality_out_of_range_is_the_callers_mistake(quality):
    with pytest.raises(ValueError, match="between 0 and 1"):
        saved(pil("RGB"), quality=quality)


@pytest.mark.parametrize(("quality", "meant"), [(75, 0.75), (2, 0.02), (1, 1.0), (0, 0.0), (0.4, 0.4)])
def test_integers_are_percentages_as_in_other_formats(codec, quality, meant):
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "YOTO", quality=quality)
    assert buffer.getvalue() == codec.encode(pil("RGB"), meant)


def test_size_can_be_given_and_is_kept(codec, tmp_path):
    image = Image.fromarray(picture(128, 192))
    least = len(codec.encode(image, 0))
    image.save(tmp_path / "x.yoto", target_bytes=3 * least // 2)
    assert (tmp_path / "x.yoto").stat().st_size <= 3 * least // 2
    with pytest.raises(OSError, match="no quality makes a file of"):
        image.save(tmp_path / "y.yoto", target_bytes=40)
    with pytest.raises(ValueError, match="give one of"):
        image.save(tmp_path / "y.yoto", target_bytes=4000, quality=0.5)
    assert not (tmp_path / "y.yoto").exists()


def test_deep_images_are_scaled_by_levels(codec):
    image = deep("I;16", [0, 1000, 4000])
    buffer = io.BytesIO()
    image.save(buffer, "YOTO", levels=(0, 4000))
    assert buffer.getvalue() == codec.encode(package.scale_levels(image, 0, 4000))


def test_crop_decodes_only_what_it_shows(codec, monkeypatch):
    data = codec.encode(picture(200, 300), tile_px=64)
    whole = np.asarray(codec.decode(data)).astype(int)
    regions = []
    decode = type(codec).decode

    def watched(self, data, *, region=None, **options):
        regions.append(region)
        return decode(self, data, region=region, **options)

    monkeypatch.setattr(type(codec), "decode", watched)
    opened = Image.open(io.BytesIO(data))
    part = opened.crop((10, 20, 110, 90))
    assert (part.size, regions) == ((100, 70), [(10, 20, 100, 70)])
    assert np.abs(np.asarray(part) - whole[20:90, 10:110]).max() <= 1
    beyond = opened.crop((250, 150, 310, 210))  # which Pillow fills with black
    np.testing.assert_array_equal(np.asarray(beyond)[:50, :50], whole[150:, 250:])
    assert (beyond.size, regions[1:]) == ((60, 60), [None])
    regions.clear()
    opened = Image.open(io.BytesIO(data))
    for _ in range(12):
        opened.crop((0, 0, 100, 100))
    assert regions == [(0, 0, 100, 100)] * 6 + [None]


def test_damaged_file_is_loaded_if_pillow_is_told_to(codec, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = codec.encode(picture(100, 128), tile_px=64)
    whole = np.asarray(codec.decode(data))
    pixels = np.asarray(Image.open(io.BytesIO(data[:-10])))
    assert (pixels[64:, 64:] == 128).all()
    np.testing.assert_array_equal(pixels[:32, :32], whole[:32, :32])
