"""The `.yoto` file, version 1.

All numbers are little-endian and unsigned. A file is: fixed part, section table, header CRC, sections.

    fixed part (23 bytes)
    offset size name      legal values
    0      4    magic     D9 59 54 4F ("Ù" "YTO"; the first byte exposes 7-bit and text-mode transfers)
    4      1    version   1
    5      1    flags     bit 0: alpha; bit 1: colour (else grey); bit 2: metadata; bits 3–7 zero
    6      2    quality   0 … 4096; quality / 4096 in [0, 1]
    8      4    width     1 … 2^24 px
    12     4    height    1 … 2^24 px
    16     6    model     first bytes of the SHA-256 of the weights file
    22     1    tile      side of a tile in units of 64 px, 1 … 255

    section table
    metadata, if flagged:  length u32 ≥ 1, CRC-32 of the section
    alpha, if flagged:     length u32 ≥ 1, CRC-32 of the section
    each tile, row by row: length u32, CRC-32 of the section, CRC-32 of the tile's integers
    header CRC: CRC-32 of all bytes before it

    sections, in the order of the table, without gaps; the last one ends the file
    metadata: items of type u8 (1 ICC profile, 2 Exif, 3 XMP), length u32 ≥ 1, bytes; types strictly ascending
    alpha:    zlib stream of height × width bytes, row by row
    tile:     symbol stream, see `SPECIFICATION.md`; it holds z, then four passes of y

The image is padded at the right and bottom to multiples of 64 px; tiles are coded independently and cut the
padded image into a grid of ⌈width / side⌉ × ⌈height / side⌉. The CRC of a tile's integers covers z, int8
(h/4, w/4, Z), then y_hat, int16 (h, w, M), for h × w positions of 16 px: it exposes a decoder whose arithmetic
differs, which the CRC of the bytes cannot.

To decode: check magic, version, flags and ranges; the size limit; that the section table is all there and its CRC
right; that the lengths sum to the end of the file; each section's CRC; the model. Only then decode the tiles, in
any order. A decoder must reject everything else; asked for what is left of a damaged file, it may go on behind a
sound header with the sections whose checks hold. Without metadata or alpha, a file of one tile has 39 bytes of
overhead. Files of version 1 stay decodable with their weights by every later release.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import NamedTuple

from codec.errors import CorruptError, NotYotoError, TooLargeError, TruncatedError, UnsupportedVersionError

MAGIC = b"\xd9YTO"
VERSION = 1
QUALITY_MAX = 4096
SIDE_MAX = 1 << 24
MODEL_ID_BYTES = 6
TILE_UNIT_PX = 64
MAX_TILE_PX = 2048  # readers refuse larger tiles unless told otherwise, since memory goes with them
DEFAULT_MAX_PIXELS = 256_000_000
ALPHA_FLAG, COLOUR_FLAG, METADATA_FLAG = 1, 2, 4

_FIXED = struct.Struct("<4sBBHII6sB")
_SECTION = struct.Struct("<II")
_TILE = struct.Struct("<III")
_CRC = struct.Struct("<I")
_ITEM = struct.Struct("<BI")
_ITEM_NAMES = ("icc_profile", "exif", "xmp")  # types 1, 2, 3

Region = tuple[int, int, int, int]  # x, y, width, height, px


@dataclass(frozen=True)
class Metadata:
    """Byte blocks that travel with the picture, as Pillow keeps them in `Image.info`; empty if absent."""

    icc_profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _ITEM_NAMES)


class Section(NamedTuple):
    """A byte range of the file and its CRC-32; for a tile also the CRC-32 of its integers."""

    start: int
    length: int
    crc: int
    symbols_crc: int = 0

    def read(self, data: bytes, name: str) -> bytes:
        """Return the section's bytes, or raise CorruptError."""
        part = data[self.start : self.start + self.length]
        if zlib.crc32(part) != self.crc:
            raise CorruptError(f"the checksum of {name} is wrong; the file is damaged")
        return part


@dataclass(frozen=True)
class Header:
    """What a `.yoto` file says of itself.

    Attributes:
        width, height: px.
        quality: integer rate point, 0 … 4096.
        model_id: first six bytes of the SHA-256 of the weights.
        colour: three channels, else one.
        alpha: an alpha channel is present.
        tile_px: side of the tiles, a multiple of 64 px.
        tiles: their sections, row by row.
        metadata_section, alpha_section: None if absent.
        size_bytes: of the whole file, as the lengths say.
    """

    width: int
    height: int
    quality: int
    model_id: bytes
    colour: bool = True
    alpha: bool = False
    tile_px: int = 1024
    tiles: tuple[Section, ...] = field(default=(), repr=False)
    metadata_section: Section | None = field(default=None, repr=False)
    alpha_section: Section | None = field(default=None, repr=False)
    size_bytes: int = 0

    @property
    def tile_count(self) -> int:
        return -(-self.height // self.tile_px) * -(-self.width // self.tile_px)

    @property
    def padded_pixels(self) -> int:
        """Pixels that are coded: sides are padded to multiples of 64."""
        return -(-self.height // TILE_UNIT_PX) * -(-self.width // TILE_UNIT_PX) * TILE_UNIT_PX**2

    @property
    def bpp(self) -> float:
        """Bits of the file per pixel."""
        return 8.0 * self.size_bytes / (self.width * self.height)

    @property
    def channels(self) -> int:
        """Of the decoded colour: 3, or 1 if grey."""
        return 3 if self.colour else 1

    @property
    def mode(self) -> str:
        """Pillow's name of the channel layout: L, LA, RGB or RGBA."""
        return ("RGB" if self.colour else "L") + ("A" if self.alpha else "")

    def check_region(self, region: Region) -> None:
        """Raise ValueError if a region is empty or does not lie within the image."""
        x, y, width, height = region
        if not (0 <= x < x + width <= self.width and 0 <= y < y + height <= self.height):
            raise ValueError(
                f"the region x {x}, y {y}, {width}×{height} px does not lie within the image of"
                f" {self.width}×{self.height} px"
            )


def pack(header: Header, tiles: list[tuple[bytes, int]], alpha: bytes = b"", metadata: Metadata = Metadata()) -> bytes:
    """Build a file from the header's plain fields, tiles with the CRC of their integers, and the other sections."""
    meta = b"".join(
        _ITEM.pack(kind, len(block)) + block
        for kind, block in enumerate((getattr(metadata, name) for name in _ITEM_NAMES), start=1)
        if block
    )
    flags = ALPHA_FLAG * header.alpha | COLOUR_FLAG * header.colour | METADATA_FLAG * bool(meta)
    table = _FIXED.pack(
        MAGIC,
        VERSION,
        flags,
        header.quality,
        header.width,
        header.height,
        header.model_id,
        header.tile_px // TILE_UNIT_PX,
    )
    for section in (meta, alpha):
        if section:
            table += _SECTION.pack(len(section), zlib.crc32(section))
    for tile, symbols_crc in tiles:
        table += _TILE.pack(len(tile), zlib.crc32(tile), symbols_crc)
    return b"".join([table, _CRC.pack(zlib.crc32(table)), meta, alpha, *(tile for tile, _ in tiles)])


def unpack(data: bytes, max_pixels: int = DEFAULT_MAX_PIXELS, *, whole: bool = True) -> Header:
    """Check and read the header; the sections' own CRCs are checked when they are read.

    Args:
        data: the file.
        max_pixels: refuse larger images.
        whole: refuse a file that does not end where its header says; else the caller compares `size_bytes`.

    Raises:
        NotYotoError, UnsupportedVersionError, TruncatedError, CorruptError: see the top of this file.
        TooLargeError: more than `max_pixels`, padding included.
    """
    header, end = _unpack_fixed(data)
    if header.padded_pixels > max_pixels:
        raise TooLargeError(
            f"the image has {header.width}×{header.height} px, which are coded as {header.padded_pixels}, more than the"
            f" limit of {max_pixels}; raise max_pixels if you trust the file"
        )
    extra = [name for name, flag in (("metadata", METADATA_FLAG), ("alpha", ALPHA_FLAG)) if data[5] & flag]
    table_end = end + len(extra) * _SECTION.size + header.tile_count * _TILE.size
    if len(data) < table_end + _CRC.size:
        raise TruncatedError(
            f"the header needs {table_end + _CRC.size} bytes, the file has {len(data)}; it is cut short"
        )
    if zlib.crc32(data[:table_end]) != _CRC.unpack_from(data, table_end)[0]:
        raise CorruptError("the checksum of the header is wrong; the file is damaged")
    start = table_end + _CRC.size
    named = {}
    for name in extra:
        length, crc = _SECTION.unpack_from(data, end)
        if length == 0:
            raise CorruptError(f"the {name} section is empty; the file is damaged")
        named[name] = Section(start, length, crc)
        start, end = start + length, end + _SECTION.size
    tiles = []
    for length, crc, symbols_crc in _TILE.iter_unpack(data[end:table_end]):
        tiles.append(Section(start, length, crc, symbols_crc))
        start += length
    if whole and len(data) < start:
        raise TruncatedError(f"the file should have {start} bytes and has {len(data)}; it is cut short")
    if whole and len(data) > start:
        raise CorruptError(f"the file should have {start} bytes and has {len(data)}; there is something behind its end")
    return Header(
        header.width,
        header.height,
        header.quality,
        header.model_id,
        header.colour,
        header.alpha,
        header.tile_px,
        tuple(tiles),
        named.get("metadata"),
        named.get("alpha"),
        start,
    )


def _unpack_fixed(data: bytes) -> tuple[Header, int]:
    """Check and read the fixed part; return it and its end."""
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise NotYotoError("this is not a .yoto file: it does not start with its magic bytes")
    if len(data) > 4 and data[4] != VERSION:
        raise UnsupportedVersionError(
            f"the file has format version {data[4]}, this decoder knows version {VERSION}; update yoto-codec"
        )
    if len(data) < _FIXED.size:
        raise TruncatedError(f"the header needs {_FIXED.size} bytes, the file has {len(data)}; it is cut short")
    _, _, flags, quality, width, height, model_id, tile = _FIXED.unpack_from(data)
    if flags & ~(ALPHA_FLAG | COLOUR_FLAG | METADATA_FLAG):
        raise CorruptError(f"the flags are {flags:#04x}; bits 3 to 7 must be zero")
    if quality > QUALITY_MAX:
        raise CorruptError(f"quality is {quality}; it must lie in 0 … {QUALITY_MAX}")
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= SIDE_MAX:
            raise CorruptError(f"{name} is {side}; a .yoto image has 1 to {SIDE_MAX} px")
    if tile == 0:
        raise CorruptError("the tile size is 0; it must be at least 1")
    colour, alpha = bool(flags & COLOUR_FLAG), bool(flags & ALPHA_FLAG)
    return Header(width, height, quality, model_id, colour, alpha, tile * TILE_UNIT_PX), _FIXED.size


def read_metadata(header: Header, data: bytes) -> Metadata:
    """The metadata of a file whose header is `header`; CorruptError if the section is damaged."""
    if header.metadata_section is None:
        return Metadata()
    block = header.metadata_section.read(data, "the metadata")
    items: dict[str, bytes] = {}
    last, position = 0, 0
    while position < len(block):
        if position + _ITEM.size > len(block):
            raise CorruptError("a metadata item is cut short; the file is damaged")
        kind, length = _ITEM.unpack_from(block, position)
        position += _ITEM.size
        if not last < kind <= len(_ITEM_NAMES) or not 1 <= length <= len(block) - position:
            raise CorruptError(f"a metadata item has type {kind} and {length} bytes; the file is damaged")
        items[_ITEM_NAMES[kind - 1]] = block[position : position + length]
        last, position = kind, position + length
    return Metadata(**items)


def pack_alpha(alpha: bytes) -> bytes:
    """Compress the alpha plane, height × width bytes."""
    return zlib.compress(alpha, 9)


def read_alpha(header: Header, data: bytes) -> bytes:
    """The alpha plane, height × width bytes; CorruptError if the section is damaged."""
    if header.alpha_section is None:
        raise ValueError("the image has no alpha channel")
    expected = header.width * header.height
    inflater = zlib.decompressobj()
    try:
        plane = inflater.decompress(header.alpha_section.read(data, "the alpha channel"), expected + 1)
    except zlib.error as error:
        raise CorruptError(f"the alpha channel does not decompress: {error}") from error
    if len(plane) != expected or not inflater.eof or inflater.unused_data:
        raise CorruptError("the alpha channel has the wrong size; the file is damaged")
    return plane
