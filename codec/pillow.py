"""`.yoto` as a format of Pillow: importing this module is enough for `Image.open` and `Image.save`.

Opening reads the header and the metadata; torch and the model are loaded when pixels are needed first.
"""

from __future__ import annotations

import sys
from typing import IO, Any

from PIL import Image, ImageFile

from codec.errors import CodecError, NotYotoError
from codec.format.bitstream import MAGIC, read_metadata, unpack

FORMAT = "YOTO"
MIME = "image/x-yoto"
_BLOCKS = ("icc_profile", "exif", "xmp")


class YotoImageFile(ImageFile.ImageFile):
    """An opened `.yoto` file. Pillow's own limit on pixels holds, `Image.MAX_IMAGE_PIXELS`."""

    format = FORMAT
    format_description = "yoto-codec"

    def _open(self) -> None:
        assert self.fp is not None
        self._data = self.fp.read()
        try:
            self._header = unpack(self._data, sys.maxsize)
            metadata = read_metadata(self._header, self._data)
        except NotYotoError as error:
            raise SyntaxError(str(error)) from error  # how a plugin leaves the file to the others
        except CodecError as error:
            raise OSError(str(error)) from error
        self._size = self._header.width, self._header.height
        self._mode = self._header.mode
        self.info.update({name: block for name in _BLOCKS if (block := getattr(metadata, name))})

    def load(self) -> Any:
        """Decode the pixels, once; OSError if the file is damaged or needs other weights."""
        if self._data:
            from codec.api import default_codec

            try:
                self.im = default_codec().decode(self._data, max_pixels=sys.maxsize).im
            except CodecError as error:
                raise OSError(str(error)) from error
            self._data = b""
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)

    def verify(self) -> None:
        """Check the CRCs of all sections, without the model; OSError if one is wrong."""
        if not self._data:
            raise RuntimeError("verify must be called directly after open")
        header = self._header
        named = {"the alpha channel": header.alpha_section}
        named |= {f"tile {number}": section for number, section in enumerate(header.tiles)}
        named |= {f"the plain section of tile {number}": section for number, section in enumerate(header.plain)}
        try:
            for name, section in named.items():
                if section is not None:
                    section.read(self._data, name)
        except CodecError as error:
            raise OSError(str(error)) from error
        super().verify()


def accept(prefix: bytes) -> bool:
    """Whether a file that starts like this is ours to open."""
    return prefix.startswith(MAGIC)


def save(image: Image.Image, fp: IO[bytes], filename: str | bytes) -> None:
    """Write an image; what `Image.save` calls.

    Options of `Image.save`: `quality`, 0 to 1, `effort` and `lossless` as for `Codec.encode`; `icc_profile`, `exif`
    and `xmp` in place of the image's own, which are kept otherwise; empty or None leaves one out. Exif orientation is
    applied.

    Raises:
        OSError: images of this mode cannot be coded.
        ValueError: an option is out of range.
    """
    from codec.api import DEFAULT_QUALITY, default_codec
    from codec.encoder import DEFAULT_EFFORT

    options = image.encoderinfo
    given = {name: options[name] for name in _BLOCKS if name in options}
    if given:
        image = with_metadata(image, given)
    try:
        quality, effort = options.get("quality", DEFAULT_QUALITY), options.get("effort", DEFAULT_EFFORT)
        lossless = options.get("lossless", False)
        fp.write(default_codec().encode(image, quality, effort=effort, lossless=lossless))
    except CodecError as error:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: {error}") from error


def with_metadata(image: Image.Image, blocks: dict[str, object]) -> Image.Image:
    """A copy of an image with other metadata; Exif may be bytes or an `Image.Exif`."""
    from codec.picture.metadata import tiff_exif

    copy = image.copy()
    if hasattr(image, "tag_v2"):
        copy.info["exif"] = tiff_exif(image.getexif()).tobytes()
    for name, block in blocks.items():
        copy.info.pop(name, None)
        if block:
            copy.info[name] = block.tobytes() if isinstance(block, Image.Exif) else block
    return copy


def register() -> None:
    """Make the format known to Pillow; a second call changes nothing."""
    Image.register_open(FORMAT, YotoImageFile, accept)
    Image.register_save(FORMAT, save)
    Image.register_extension(FORMAT, ".yoto")
    Image.register_mime(FORMAT, MIME)


register()
