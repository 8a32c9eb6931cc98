"""The `.yoto` file, versions 1 and 2. Version 2 adds plain blocks, and is written where there are any.

All numbers are little-endian and unsigned. A file is: fixed part, section table, header CRC, sections.

    fixed part (23 bytes)
    offset size name      legal values
    0      4    magic     D9 59 54 4F ("Ù" "YTO"; the first byte exposes 7-bit and text-mode transfers)
    4      1    version   1 or 2
    5      1    flags     bit 0: alpha; bit 1: colour (else grey); bit 2: metadata; bit 3, in version 2 alone: lossless,
                          the picture is the original's, pixel by pixel; the others zero
    6      2    quality   0 … 4096; quality / 4096 in [0, 1]
    8      4    width     1 … 2^24 px
    12     4    height    1 … 2^24 px
    16     6    model     start of its id, see `network/weights.py`; zeros if no tile has symbols
    22     1    tile      side of a tile in units of 64 px, 1 … 255

    section table
    metadata, if flagged:  length u32 ≥ 1, CRC-32 of the section
    alpha, if flagged:     length u32 ≥ 1, CRC-32 of the section
    each tile, row by row: length u32, CRC-32 of the symbol stream, CRC-32 of the tile's integers;
        in version 2 then:  length u32, CRC-32 of the plain section, CRC-32 of its pixels
    header CRC: CRC-32 of all bytes before it

    sections, in the order of the table, without gaps; the last one ends the file
    metadata: items of type u8 (1 ICC profile, 2 Exif, 3 XMP), length u32 ≥ 1, bytes; types strictly ascending
    alpha:    zlib stream of height × width bytes, row by row
    tile:     symbol stream, see `SPECIFICATION.md`; it holds z, then four passes of y;
              in version 2 then the plain section: mask, if the tile has symbols too, and VP8L data

The image is padded at the right and bottom to multiples of 64 px; tiles are coded independently and cut the
padded image into a grid of ⌈width / side⌉ × ⌈height / side⌉. The CRC of a tile's integers covers z, int8
(h/4, w/4, Z), then y_hat, int16 (h, w, M), for h × w positions of 16 px: it exposes a decoder whose arithmetic
differs, which the CRC of the bytes cannot.

In version 2 a tile has symbols, a plain section, or both; what is absent has length 0 and CRCs of 0. A plain section
holds the H × W px of the image that lie in the tile, without padding. Its mask has a bit for each block of 32 × 32 px,
row by row, ⌈H / 32⌉ × ⌈W / 32⌉ bits from the highest bit of the first byte on, filled up with zeros to whole bytes.
Behind it stands the lossless WebP bitstream (VP8L, RFC 9649 section 3) of an image of W × H px without alpha, less its
first five bytes, which are known (2F, then u32 (W - 1) + (H - 1)·2^14); of a grey image it is the green channel. What
lies behind the end of that bitstream is not looked at. The CRC of its pixels covers all H × W of them, row by row,
three bytes each, or one if grey. Pixels of blocks whose bit is 1, all pixels if there is no mask, are those of the
plain section, exactly; the others are decoded from symbols, as in version 1. Where a tile near by has no symbols, the
latents at the nearest edge of the tile that is decoded stand for its own.

To decode: check magic, version, flags and ranges; the size limit; that the section table is all there and its CRC
right; that the lengths sum to the end of the file; each section's CRC; the model. Only then decode the tiles, in
any order. A decoder must reject everything else; asked for what is left of a damaged file, it may go on behind a
sound header with the sections whose checks hold. Without metadata or alpha, a file of one tile has 39 bytes of
overhead. Files of both versions stay decodable with their weights by every later release.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, overload

from codec.errors import CorruptError, NotYotoError, TooLargeError, TruncatedError, UnsupportedVersionError

MAGIC = b"\xd9YTO"
VERSION = 1  # without plain blocks
PLAIN_VERSION = 2
QUALITY_MAX = 4096
SIDE_MAX = 1 << 24
MODEL_ID_BYTES = 6
TILE_UNIT_PX = 64
MAX_TILE_PX = 2048  # readers refuse larger tiles unless told otherwise, since memory goes with them
DEFAULT_MAX_PIXELS = 256_000_000
PLAIN_UNIT_PX = 32  # side of the blocks of a mask; measured best of 16, 32, 64 and 128
NO_MODEL = bytes(MODEL_ID_BYTES)
ALPHA_FLAG, COLOUR_FLAG, METADATA_FLAG, LOSSLESS_FLAG = 1, 2, 4, 8
_FLAGS = {VERSION: 7, PLAIN_VERSION: 15}  # what each version knows

_FIXED = struct.Struct("<4sBBHII6sB")
_SECTION = struct.Struct("<II")
_TILE = struct.Struct("<III")
_CRC = struct.Struct("<I")
_ITEM = struct.Struct("<BI")
_ITEM_NAMES = ("icc_profile", "exif", "xmp")  # types 1, 2, 3

Region = tuple[int, int, int, int]  # x, y, width, height, px


def padded_pixels(width: int, height: int) -> int:
    """Pixels that are coded of a picture: its sides are padded to multiples of 64."""
    return -(-height // TILE_UNIT_PX) * -(-width // TILE_UNIT_PX) * TILE_UNIT_PX**2


@dataclass(frozen=True)
class Metadata:
    """Byte blocks that travel with the picture, as Pillow keeps them in `Image.info`; empty if absent."""

    icc_profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in _ITEM_NAMES)


class Section(NamedTuple):
    """A byte range of the file and its CRC-32; of a tile also the CRC-32 of what it decodes to, integers or pixels."""

    start: int
    length: int
    crc: int
    content_crc: int = 0

    def read(self, data: bytes, name: str) -> bytes:
        """Return the section's bytes, or raise CorruptError."""
        part = data[self.start : self.start + self.length]
        if zlib.crc32(part) != self.crc:
            raise CorruptError(f"the checksum of {name} is wrong; the file is damaged")
        return part


class Sections(Sequence[Section]):
    """Every `step`-th entry of the section table's tiles; entries are read when they are asked for.

    A file may claim a million tiles: held as objects they would take twelve times its size.
    """

    def __init__(self, table: bytes, starts: Sequence[int], first: int, step: int) -> None:
        self._table, self._starts, self._numbers = table, starts, range(first, len(starts), step)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, number: int) -> Section: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[Section, ...]: ...
    def __getitem__(self, number: int | slice) -> Section | tuple[Section, ...]:
        if isinstance(number, slice):
            return tuple(self)[number]
        entry = self._numbers[number]
        length, crc, content_crc = _TILE.unpack_from(self._table, entry * _TILE.size)
        return Section(self._starts[entry], length, crc, content_crc)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))


@dataclass(frozen=True)
class Header:
    """What a `.yoto` file says of itself.

    Attributes:
        width, height: px.
        rate_point: 0 (fewest bits) … 4096; as `quality` it lies in [0, 1].
        model_id: first six bytes of the model's id.
        colour: three channels, else one.
        alpha: an alpha channel is present.
        tile_px: side of the tiles, a multiple of 64 px.
        tiles: their symbols, row by row; in version 2 some may be of length 0, which are absent.
        plain: their plain sections, row by row, absent ones of length 0; none at all in version 1.
        lossless: the picture is the original's, pixel by pixel.
        metadata_section, alpha_section: None if absent.
        size_bytes: of the whole file, as the lengths say.
    """

    width: int
    height: int
    rate_point: int
    model_id: bytes
    colour: bool = True
    alpha: bool = False
    tile_px: int = 1024
    tiles: Sequence[Section] = field(default=(), repr=False)
    plain: Sequence[Section] = field(default=(), repr=False)
    lossless: bool = False
    metadata_section: Section | None = field(default=None, repr=False)
    alpha_section: Section | None = field(default=None, repr=False)
    size_bytes: int = 0

    @property
    def tile_count(self) -> int:
        """Tiles of the picture."""
        return -(-self.height // self.tile_px) * -(-self.width // self.tile_px)

    @property
    def quality(self) -> float:
        """What the file was encoded with, 0 (fewest bits) to 1."""
        return self.rate_point / QUALITY_MAX

    @property
    def padded_pixels(self) -> int:
        """Pixels that are coded: sides are padded to multiples of 64."""
        return padded_pixels(self.width, self.height)

    @property
    def version(self) -> int:
        """Of the format."""
        return PLAIN_VERSION if self.plain else VERSION

    @property
    def kind(self) -> str:
        """What its tiles hold: learned, mixed, plain or lossless."""
        if self.lossless or not self.plain:
            return "lossless" if self.lossless else "learned"
        return "plain" if self.model_id == NO_MODEL else "mixed"

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


def pack(
    header: Header,
    tiles: Sequence[tuple[bytes, int]],
    alpha: bytes = b"",
    metadata: Metadata = Metadata(),
    plain: Sequence[tuple[bytes, int]] = (),
) -> bytes:
    """Build a file from the header's plain fields and the sections.

    Args:
        header: of which sections and size are not looked at.
        tiles: the symbols of each tile and the CRC of its integers; no bytes and 0 where it has none.
        alpha, metadata: empty if absent.
        plain: the plain section of each tile and the CRC of its pixels; none at all makes a file of version 1.

    Raises:
        ValueError: the header says otherwise than the sections, so that the file could not be read.
    """
    if header.alpha != bool(alpha) or len(tiles) != header.tile_count or len(plain) not in (0, header.tile_count):
        raise ValueError(f"a header with alpha {header.alpha} and {header.tile_count} tiles does not fit the sections")
    meta = b"".join(
        _ITEM.pack(kind, len(block)) + block
        for kind, block in enumerate((getattr(metadata, name) for name in _ITEM_NAMES), start=1)
        if block
    )
    flags = ALPHA_FLAG * header.alpha | COLOUR_FLAG * header.colour | METADATA_FLAG * bool(meta)
    table = _FIXED.pack(
        MAGIC,
        PLAIN_VERSION if plain else VERSION,
        flags | LOSSLESS_FLAG * header.lossless,
        header.rate_point,
        header.width,
        header.height,
        header.model_id,
        header.tile_px // TILE_UNIT_PX,
    )
    for section in (meta, alpha):
        if section:
            table += _SECTION.pack(len(section), zlib.crc32(section))
    parts = list(tiles)
    if plain:
        parts = [part for pair in zip(tiles, plain, strict=True) for part in pair]
    table += b"".join(_TILE.pack(len(part), zlib.crc32(part), content_crc) for part, content_crc in parts)
    return b"".join([table, _CRC.pack(zlib.crc32(table)), meta, alpha, *(part for part, _ in parts)])


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
    entries = header.tile_count * (2 if data[4] == PLAIN_VERSION else 1)
    table_end = end + len(extra) * _SECTION.size + entries * _TILE.size
    if len(data) < table_end + _CRC.size:
        raise TruncatedError(
            f"the header needs {table_end + _CRC.size} bytes, the file has {len(data)}; it is cut short"
        )
    if zlib.crc32(memoryview(data)[:table_end]) != _CRC.unpack_from(data, table_end)[0]:
        raise CorruptError("the checksum of the header is wrong; the file is damaged")
    start = table_end + _CRC.size
    named = {}
    for name in extra:
        length, crc = _SECTION.unpack_from(data, end)
        if length == 0:
            raise CorruptError(f"the {name} section is empty; the file is damaged")
        named[name] = Section(start, length, crc)
        start, end = start + length, end + _SECTION.size
    tiles = data[end:table_end]
    starts = array("Q")
    for length, _, _ in _TILE.iter_unpack(tiles):
        starts.append(start)
        start += length
    if whole and len(data) < start:
        raise TruncatedError(f"the file should have {start} bytes and has {len(data)}; it is cut short")
    if whole and len(data) > start:
        raise CorruptError(f"the file should have {start} bytes and has {len(data)}; there is something behind its end")
    step = entries // header.tile_count
    header = replace(
        header,
        tiles=Sections(tiles, starts, 0, step),
        plain=Sections(tiles, starts, 1, step) if step == 2 else (),
        metadata_section=named.get("metadata"),
        alpha_section=named.get("alpha"),
        size_bytes=start,
    )
    if header.plain:
        _check_absent(header)
    return header


def _check_absent(header: Header) -> None:
    """Every tile of version 2 has something, and what is absent leaves no trace."""
    for number, pair in enumerate(zip(header.tiles, header.plain, strict=True)):
        if not any(section.length for section in pair):
            raise CorruptError(f"tile {number} has neither symbols nor a plain section; the file is damaged")
        if any(section.length == 0 and (section.crc or section.content_crc) for section in pair):
            raise CorruptError(f"tile {number} has a checksum of what it does not have; the file is damaged")
    symbols = any(tile.length for tile in header.tiles)
    if symbols == (header.model_id == NO_MODEL) or (symbols and header.lossless):
        raise CorruptError(
            "a file with symbols names a model and is not lossless, others name none; the file is damaged"
        )


def _unpack_fixed(data: bytes) -> tuple[Header, int]:
    """Check and read the fixed part; return it and its end."""
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise NotYotoError("this is not a .yoto file: it does not start with its magic bytes")
    if len(data) > 4 and data[4] not in _FLAGS:
        raise UnsupportedVersionError(
            f"the file has format version {data[4]}, this decoder knows versions {VERSION} and {PLAIN_VERSION};"
            " update yoto-codec"
        )
    if len(data) < _FIXED.size:
        raise TruncatedError(f"the header needs {_FIXED.size} bytes, the file has {len(data)}; it is cut short")
    _, version, flags, quality, width, height, model_id, tile = _FIXED.unpack_from(data)
    if flags & ~_FLAGS[version]:
        raise CorruptError(f"the flags are {flags:#04x}; version {version} knows those of {_FLAGS[version]:#04x} alone")
    if quality > QUALITY_MAX:
        raise CorruptError(f"quality is {quality}; it must lie in 0 … {QUALITY_MAX}")
    for name, side in (("width", width), ("height", height)):
        if not 1 <= side <= SIDE_MAX:
            raise CorruptError(f"{name} is {side}; a .yoto image has 1 to {SIDE_MAX} px")
    if tile == 0:
        raise CorruptError("the tile size is 0; it must be at least 1")
    colour, alpha = bool(flags & COLOUR_FLAG), bool(flags & ALPHA_FLAG)
    lossless = bool(flags & LOSSLESS_FLAG)
    header = Header(width, height, quality, model_id, colour, alpha, tile * TILE_UNIT_PX, lossless=lossless)
    return header, _FIXED.size


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
