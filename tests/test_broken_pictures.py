"""Whatever is wrong with a picture, readers say so in one kind of error, everywhere."""

from __future__ import annotations

import io
import itertools
import struct
import warnings
from contextlib import suppress

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import picture
from PIL import ExifTags, Image

from cli import main
from codec.demo.studio import Studio
from codec.errors import ImageError
from codec.picture.formats import readable_suffixes, readers
from codec.picture.image import open_image, save_image, to_planes

MUTANTS = 60  # of each picture


def described() -> bytes:
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "a description", 6
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.0
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return exif.tobytes()


def written() -> dict[str, bytes]:
    """Small pictures of every format that Pillow both writes and reads here, some with pages and Exif."""
    rgb, exif = Image.fromarray(picture(24, 33)), described()
    found = {}
    for form in (form for form in readers() if form in Image.SAVE and form != "ICNS"):  # whose least size is large
        options = {"exif": exif} if form in ("AVIF", "HEIF", "JPEG", "JXL", "MPO", "PNG", "TIFF", "WEBP") else {}
        if form in ("GIF", "MPO", "PNG", "TIFF", "WEBP"):  # AVIF's frames with Exif crash Pillow 13's writer
            options |= {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
        buffer = io.BytesIO()
        (rgb.convert("1") if form in ("XBM",) else rgb).save(buffer, form, **options)
        found[form] = buffer.getvalue()
    for compression in ("tiff_lzw", "jpeg", "packbits", "tiff_deflate", "group4"):
        buffer = io.BytesIO()
        (rgb.convert("1") if compression == "group4" else rgb).save(buffer, "TIFF", compression=compression)
        found[f"TIFF {compression}"] = buffer.getvalue()
    return found


WRITTEN = written()


def mutants(data: bytes, seed: int) -> list[bytes]:
    """Cut short, bytes changed, numbers made extreme, parts doubled and dropped; mostly near the start."""
    rng = np.random.default_rng(seed)
    found = []
    for kind in itertools.islice(itertools.cycle(range(5)), MUTANTS):
        broken = bytearray(data)
        at = int(rng.integers(4, len(data)) if rng.random() < 0.4 else rng.integers(4, min(len(data), 400)))
        if kind == 0:
            del broken[at:]
        elif kind == 1:
            for place in rng.integers(4, len(data), 4):
                broken[place] = rng.integers(256)
        elif kind == 2:
            extreme = (0, 1, 0x7FFF, 0xFFFF, 0xFFFFFF00)[rng.integers(5)]
            broken[at : at + 4] = struct.pack(("<I", ">I")[rng.integers(2)], extreme)
        elif kind == 3:
            broken[at:at] = broken[at : at + int(rng.integers(1, 40))]
        else:
            del broken[at : at + int(rng.integers(1, 40))]
        found.append(bytes(broken))
    return found


def opened(data: bytes) -> Image.Image | None:
    """A picture that its owner opened, and of which nothing has been read yet; None if that fails."""
    with suppress(Exception):
        return Image.open(io.BytesIO(data), formats=readers())
    return None


def test_many_formats_are_mutated():
    assert {"AVIF", "BMP", "DDS", "GIF", "JPEG", "JPEG2000", "PNG", "TIFF", "WEBP"} <= WRITTEN.keys()


@pytest.mark.parametrize("form", WRITTEN)
def test_nothing_but_image_errors_escapes_from_broken_pictures(form):
    messages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own, over what it reads all the same
        for data in mutants(WRITTEN[form], seed=len(form)):
            try:
                image = open_image(io.BytesIO(data), max_pixels=1 << 20)
                save_image(Image.fromarray(to_planes(image).colour.squeeze()), ".png")
            except ImageError as error:
                messages.append(str(error))
            lazy = opened(data)
            if lazy is not None and lazy.width * lazy.height < 1 << 20:
                with suppress(ImageError):
                    to_planes(lazy)
    assert messages
    assert not any("\n" in message for message in messages)


def test_every_entrance_names_the_broken_file(tmp_path, codec):
    path = tmp_path / "broken.jpg"
    path.write_bytes(WRITTEN["JPEG"][:-100])
    with pytest.raises(ImageError, match=r"broken\.jpg is a damaged image"):
        open_image(path)
    with pytest.raises(ImageError):
        Studio(codec, 1 << 20).add(io.BytesIO(path.read_bytes()))
    for command in (["encode", str(path), str(tmp_path / "out.yoto")], ["compare", str(path), str(path)]):
        result = CliRunner().invoke(main, command)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
        assert "broken.jpg" in result.stderr
    with Image.open(path) as lazy, pytest.raises(ImageError, match=r"broken\.jpg"):
        codec.encode(lazy)
    assert list(tmp_path.iterdir()) == [path]


def test_gif_cut_in_its_second_frame_is_coded():
    data = WRITTEN["GIF"]
    for length in range(data.index(b"\x21\xf9", data.index(b"\x21\xf9") + 1), len(data)):
        assert to_planes(open_image(io.BytesIO(data[:length]))).colour.shape == (24, 33, 3)


def test_postscript_is_never_opened(tmp_path, monkeypatch):
    """Pillow would start Ghostscript with it."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a process was started"))
    buffer = io.BytesIO()
    Image.fromarray(picture(8, 8)).save(buffer, "EPS")
    with pytest.raises(ImageError, match="not an image that can be read"):
        open_image(io.BytesIO(buffer.getvalue()))
    assert ".eps" not in readable_suffixes()


def test_pages_are_not_read_to_count_them(monkeypatch):
    """Counting takes Pillow time that grows with their square: minutes for a file of 64,000."""
    pages = 64_000
    entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1)]
    size = 2 + 12 * len(entries) + 4
    directories = [
        struct.pack("<H", len(entries))
        + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
        + struct.pack("<I", 10 + size * (page + 1) if page + 1 < pages else 0)
        for page in range(pages)
    ]
    file = io.BytesIO(b"II*\0" + struct.pack("<I", 10) + b"\x80\0" + b"".join(directories))
    loaded = []
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    load = ImageFileDirectory_v2.load
    monkeypatch.setattr(ImageFileDirectory_v2, "load", lambda self, fp: loaded.append(0) or load(self, fp))
    planes = to_planes(open_image(file))
    assert planes.notes == ("the image has several frames, of which the first is coded",)
    assert len(loaded) < 10


def test_file_as_thin_as_a_thread_is_as_large_as_it_is_padded():
    buffer = io.BytesIO()
    Image.new("L", (1, 100_000)).save(buffer, "PNG")
    with pytest.raises(ImageError, match="coded as 6402048"):
        open_image(buffer, max_pixels=6_000_000)
