"""`.yoto` as a format of Pillow: importing this module is enough for `Image.open` and `Image.save`.

Opening reads the header and the metadata; torch and the model are loaded when pixels are needed first.
"""

from __future__ import annotations

import sys
from typing import IO, Any

from PIL import Image, ImageFile

from codec.errors import CodecError, CorruptError, ImageError, NotYotoError
from codec.format.bitstream import MAGIC, Metadata, Region, read_metadata, unpack

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
        self._cropped_px = 0
        try:
            self._header = unpack(self._data, sys.maxsize, whole=not ImageFile.LOAD_TRUNCATED_IMAGES)
            metadata = self._read_metadata()
        except NotYotoError as error:
            raise SyntaxError(str(error)) from error  # how a plugin leaves the file to the others
        except CodecError as error:
            raise OSError(str(error)) from error
        self._size = self._header.width, self._header.height
        self._mode = self._header.mode
        self.info.update({name: block for name in _BLOCKS if (block := getattr(metadata, name))})

    def _read_metadata(self) -> Metadata:
        try:
            return read_metadata(self._header, self._data)
        except CorruptError:
            if not ImageFile.LOAD_TRUNCATED_IMAGES:
                raise
            return Metadata()

    def load(self) -> Any:
        """Decode the pixels, once; OSError if the file needs other weights or is damaged.

        What can be decoded of a damaged one is loaded if `ImageFile.LOAD_TRUNCATED_IMAGES` says so.
        """
        if self._data:
            self.im = self._decode().im
            self._data = b""
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = None
        return Image.Image.load(self)

    def crop(self, box: tuple[float, float, float, float] | None = None) -> Image.Image:
        """A rectangle of the image; as long as no pixels are loaded, only the tiles that it touches are decoded.

        Pixels differ by one level at most from those of the loaded image, which is loaded once all crops together
        have more pixels than it.
        """
        if box is None or not self._data or len(self._header.tiles) == 1:
            return super().crop(box)
        left, top, right, bottom = (round(side) for side in box)
        self._cropped_px += max(0, right - left) * max(0, bottom - top)
        inside = 0 <= left < right <= self.width and 0 <= top < bottom <= self.height
        if not inside or self._cropped_px > self.width * self.height:
            return super().crop(box)
        return self._new(self._decode((left, top, right - left, bottom - top)).im)

    def _decode(self, region: Region | None = None) -> Image.Image:
        from codec.api import default_codec

        codec = default_codec()
        try:
            if ImageFile.LOAD_TRUNCATED_IMAGES:
                return codec.decode_partial(self._data, region=region, max_pixels=sys.maxsize).image
            return codec.decode(self._data, region=region, max_pixels=sys.maxsize)
        except CodecError as error:
            raise OSError(str(error)) from error

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

    Options of `Image.save`: `quality`, 0 to 1, or a percentage if it is an integer above 1; in its place
    `target_bytes`, the size that the file may have at most; `effort`, `lossless` and `levels` as for `Codec.encode`;
    `icc_profile`, `exif` and `xmp` in place of the image's own, which are kept otherwise; empty or None leaves one out.
    Exif orientation is applied.

    Raises:
        OSError: images of this mode cannot be coded.
        ValueError: an option is out of range.
    """
    from codec.api import DEFAULT_QUALITY, as_fraction, default_codec
    from codec.encoder import DEFAULT_EFFORT
    from codec.target import encode_to_target

    options = image.encoderinfo
    given = {name: options[name] for name in _BLOCKS if name in options}
    if given:
        image = with_metadata(image, given)
    effort, levels = options.get("effort", DEFAULT_EFFORT), options.get("levels")
    target = options.get("target_bytes")
    if target is not None and ("quality" in options or options.get("lossless")):
        raise ValueError("give one of quality, target_bytes and lossless")
    try:
        if target is None:
            quality, lossless = options.get("quality", DEFAULT_QUALITY), options.get("lossless", False)
            quality = as_fraction(quality)
            data = default_codec().encode(image, quality, effort=effort, lossless=lossless, levels=levels)
        else:
            found = encode_to_target(image, size_bytes=target, codec=default_codec(), effort=effort, levels=levels)
            if len(found.data) > target:
                raise ImageError(f"no quality makes a file of {target} bytes; the least is {len(found.data)}")
            data = found.data
    except CodecError as error:
        raise OSError(f"cannot write mode {image.mode} as {FORMAT}: {error}") from error
    fp.write(data)


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
