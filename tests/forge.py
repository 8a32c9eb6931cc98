"""Forged and damaged `.yoto` files, made of sound ones; `fuzz.py` tries them.

A forger who makes the checksums right again gets past the header, and his bytes into the entropy decoder, the plain
blocks, the alpha and the metadata. Most of what is made here keeps to the layout of the file for that reason, and
breaks one rule of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from conftest import page, picture, reseal
from PIL import Image

from codec.api import Codec
from codec.format.bitstream import ALPHA_FLAG, METADATA_FLAG, NO_MODEL, Header, Section, pack_alpha, unpack
from codec.picture.plain import compress, mask_shape

# The fixed part's fields, and the first words of the section table: offset and bytes.
FIELDS = [(4, 1), (5, 1), (6, 2), (8, 4), (12, 4), (16, 6), (22, 1), *((offset, 4) for offset in range(23, 71, 4))]
TABLE = 23  # where the section table starts
UNREPAIRED = 20  # one input in so many keeps its wrong checksums
Rng = np.random.Generator
T = TypeVar("T")


def pick(rng: Rng, choices: Sequence[T]) -> T:
    return choices[int(rng.integers(len(choices)))]


def samples(codec: Codec) -> list[bytes]:
    """Small files of every kind."""
    tagged = Image.fromarray(picture(40, 50))
    tagged.info.update(icc_profile=b"a profile", exif=b"Exif\0\0some", xmp=b"<xmp/>")
    rgba = np.dstack([picture(60, 70), picture(60, 70, 1)[:, :, 0]])
    both = Image.fromarray(rgba[:50, :40])
    both.info.update(icc_profile=b"a profile")
    return [
        codec.encode(picture(64, 64), 0.5),
        codec.encode(picture(64, 64)[:, :, 0], 1.0),
        codec.encode(picture(64, 64), 1.0),
        codec.encode(picture(1, 1), 0.0),
        codec.encode(picture(66, 70), 0.8, tile_px=64),
        codec.encode(tagged, 0.2),
        codec.encode(rgba, 0.3),
        codec.encode(both, 0.3),
        codec.encode(page(96, 128), 0.4, tile_px=64),
        codec.encode(page(70, 90)[:, :, 0], 0.4),
        codec.encode(rgba, lossless=True),
    ]


class Corpus:
    """Sound files, and what they are made of.

    streams, plains: sections of tiles, each with the CRC of what it decodes to.
    """

    def __init__(self, files: Sequence[bytes]) -> None:
        self.files = files
        headers = [unpack(data) for data in files]
        self.models = sorted({header.model_id for header in headers})
        found = list(zip(files, headers, strict=True))
        self.streams = [part(data, section) for data, header in found for section in header.tiles if section.length]
        self.plains = [part(data, section) for data, header in found for section in header.plain if section.length]
        self.alphas, self.metadata = (
            [part(data, section)[0] for data, header in found if (section := getattr(header, name))]
            for name in ("alpha_section", "metadata_section")
        )
        self.mixed = [data for data, header in found if header.plain]
        self.with_alpha = [data for data, header in found if header.alpha]
        self.with_metadata = [data for data, header in found if header.metadata_section]

    def forge(self, rng: Rng) -> tuple[bytes, str]:
        """Damage one file; all but a few are given right checksums again. The file, and what was done to it."""
        data = bytearray(pick(rng, self.files))
        shares = np.cumsum([share for share, _ in MUTATIONS])
        _, mutation = MUTATIONS[np.searchsorted(shares, rng.integers(100), side="right")]
        mutation(rng, data, self)
        return reseal(bytes(data)) if rng.integers(UNREPAIRED) else bytes(data), mutation.__name__


def part(data: bytes, section: Section) -> tuple[bytes, int]:
    """The bytes of a section, and the CRC of what they decode to."""
    return data[section.start : section.start + section.length], section.content_crc


def table(header: Header) -> list[tuple[int, Section]]:
    """Every section, in the order of the table, and the offset of its entry there."""
    extra = [section for section in (header.metadata_section, header.alpha_section) if section]
    pairs = zip(header.tiles, header.plain, strict=True) if header.plain else zip(header.tiles, strict=True)
    tiles = [section for pair in pairs for section in pair]
    first = TABLE + 8 * len(extra)
    return [(TABLE + 8 * i, s) for i, s in enumerate(extra)] + [(first + 12 * i, s) for i, s in enumerate(tiles)]


def replace_section(data: bytearray, entry: int, section: Section, body: bytes) -> None:
    """Another body for a section, under a right length."""
    data[section.start : section.start + section.length] = body
    struct.pack_into("<I", data, entry, len(body))


def tile_entries(data: bytearray, *, plain: bool) -> list[tuple[int, Section]]:
    """Entries of the symbols or the plain sections that the tiles of a sound file have."""
    header = unpack(bytes(data))
    wanted = {section for section in (header.plain if plain else header.tiles) if section.length}
    return [(entry, section) for entry, section in table(header) if section in wanted]


def varint(value: int, length: int = 0) -> bytes:
    """A LEB128 number, drawn out to so many bytes."""
    out = []
    while value >= 128 or len(out) + 1 < length:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


# Without regard for the layout.


def damage_bits(rng: Rng, data: bytearray, corpus: Corpus | None = None) -> None:
    for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
        data[bit // 8] ^= 1 << bit % 8


def cut_short(rng: Rng, data: bytearray, corpus: Corpus | None = None) -> None:
    del data[rng.integers(len(data)) :]


def splice(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """A piece of another file, in place of as much or as little."""
    other = pick(rng, corpus.files)
    start, length = rng.integers(len(other)), rng.integers(1, 40)
    place = rng.integers(len(data))
    data[place : place + rng.integers(40)] = other[start : start + length]


# The header and the table.


def set_field(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """A field of the header or the section table: extremes, powers of two, small numbers, one more or less."""
    offset, size = pick(rng, FIELDS)
    held = int.from_bytes(data[offset : offset + size], "little")
    full = 2 ** (8 * size)
    value = int(pick(rng, [0, 1, 255, full - 1, 1 << rng.integers(8 * size), rng.integers(1, 600), held + 1, held - 1]))
    data[offset : offset + size] = (value % full).to_bytes(size, "little")


def other_grid(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """Another size of image and tiles, the section table as long as it was or as it should be."""
    header = unpack(bytes(data))
    width, height, tile = (int(rng.integers(1, limit)) for limit in (400, 400, 5))
    struct.pack_into("<II", data, 8, width, height)
    data[22] = tile
    if rng.integers(2):
        end = header.tiles[0].start - 4
        entry = 24 if header.plain else 12
        needed = entry * -(-width // (64 * tile)) * -(-height // (64 * tile))
        data[end - entry * len(header.tiles) : end] = rng.bytes(needed) if rng.integers(2) else bytes(needed)


def move_borders(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """Bytes of one section are counted to another: the sum of the lengths stays right."""
    entries = table(unpack(bytes(data)))
    for _ in range(rng.integers(1, 4)):
        source, target = pick(rng, entries)[0], pick(rng, entries)[0]
        (there,), (here,) = struct.unpack_from("<I", data, target), struct.unpack_from("<I", data, source)
        moved = pick(rng, [here, here // 2, min(here, int(rng.integers(5)))])
        if source != target:
            struct.pack_into("<I", data, source, here - moved)
            struct.pack_into("<I", data, target, there + moved)


def assemble(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """A file with a right table, of sections from all the others: each is sound, but not where it stands."""
    version, unit = int(rng.integers(1, 3)), int(rng.integers(1, 3))
    columns, rows = (int(rng.integers(1, 3)) for _ in range(2))
    width, height = (64 * unit * count - int(rng.integers(64 * unit)) for count in (columns, rows))
    flags = int(rng.integers(16 if version == 2 else 8))
    sections: list[tuple[bytes, int | None]] = []
    if flags & METADATA_FLAG:
        sections.append((pick(rng, corpus.metadata), None))
    if flags & ALPHA_FLAG:
        sections.append((pick(rng, [pack_alpha(rng.bytes(8) * (width * height // 8 + 1)), *corpus.alphas]), None))
        if rng.integers(2):
            sections[-1] = pack_alpha(bytes(width * height)), None
    for _ in range(columns * rows):
        sections.append(pick(rng, corpus.streams) if rng.integers(8) else (b"", 0))
        if version == 2:
            sections.append(pick(rng, corpus.plains) if rng.integers(3) else (b"", 0))
    quality = pick(rng, [0, 1000, 2048, 4096, int(rng.integers(4097))])
    model = pick(rng, [*corpus.models, NO_MODEL])
    data[:] = struct.pack("<4sBBHII6sB", b"\xd9YTO", version, flags, quality, width, height, model, unit)
    for body, crc in sections:
        data += struct.pack("<II", len(body), 0) + (b"" if crc is None else struct.pack("<I", crc))
    data += bytes(4) + b"".join(body for body, _ in sections)


# The sections.


def other_metadata(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """Metadata items of any type and length."""
    data[:] = pick(rng, corpus.with_metadata)
    items = b""
    for _ in range(rng.integers(1, 5)):
        length = int(pick(rng, [0, 1, 5, 2**31, 2**32 - 1, rng.integers(300)]))
        items += struct.pack("<BI", rng.integers(6), length) + rng.bytes(min(length, rng.integers(300)))
    replace_section(data, *table(unpack(bytes(data)))[0], items[: rng.integers(1, len(items) + 1)])


def other_alpha(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """Alpha of another size, bombs among them, damaged streams, things behind the end."""
    data[:] = pick(rng, corpus.with_alpha)
    header = unpack(bytes(data))
    pixels = header.width * header.height
    size = pick(rng, [0, 1, pixels - 1, pixels, pixels + 1, 1 << 20])
    stream = bytearray(pack_alpha(bytes(size)))
    match rng.integers(5):
        case 0:
            stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        case 1:
            del stream[rng.integers(1, len(stream)) :]
        case 2:
            stream += rng.bytes(rng.integers(1, 20))
        case 3:
            stream[:] = zlib.compress(rng.bytes(pixels), wbits=pick(rng, [-15, 31, 15]))
    replace_section(data, *table(header)[bool(header.metadata_section)], bytes(stream))


def other_tile(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """Symbols or plain pixels with a flipped bit, another end, in place of others, or noise."""
    header = unpack(bytes(data))
    entry, section = pick(rng, [found for found in table(header) if found[1] in (*header.tiles, *header.plain)])
    body = part(bytes(data), section)[0] or bytes(2)
    flipped = bytearray(body)
    flipped[rng.integers(1, len(flipped))] ^= 1 << rng.integers(8)
    other, _ = pick(rng, corpus.streams + corpus.plains)
    bodies = [bytes(flipped), body[: len(body) - 4 * rng.integers(5)], other, rng.bytes(rng.integers(90))]
    replace_section(data, entry, section, pick(rng, bodies))


def other_stream(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """Symbols whose escapes, words or length are others: numbers drawn out or too large, words that ask for escapes."""
    while not tile_entries(data, plain=False):
        data[:] = pick(rng, corpus.files)
    entry, section = pick(rng, tile_entries(data, plain=False))
    body, _ = part(bytes(data), section)
    size = body[0] // 2 if body[0] < 128 else 0  # of the escapes; such as have more are taken to have none
    escapes, words = body[1 : 1 + size], body[1 + size :]
    drawn_out = pick(rng, [0, 0, 0, 5, 6, 10])
    if rng.integers(2):
        values = [0, 1, 255, 2**15, 2**15 + 1, 2**16, 2**31, 2**34, 2**35 - 1, 2**63]
        escapes = b"".join(varint(pick(rng, values), drawn_out) for _ in range(rng.integers(40)))
        escapes = escapes[: len(escapes) - int(rng.integers(2))]
    match rng.integers(6):
        case 0:  # the state stays small and asks for an escape again and again
            words = bytes(4 * rng.integers(300)) + b"\1\0\0\0"
        case 1:
            words = rng.bytes(4 * rng.integers(60))
        case 2:
            words += pick(rng, [bytes(4), b"\xff" * 4, b"\1", rng.bytes(4)])
        case 3 if words:
            start = 4 * int(rng.integers(len(words) // 4))
            value = pick(rng, [bytes(4), b"\xff" * 4, b"", words[:4], rng.bytes(4)])
            words = words[:start] + value + words[start + 4 :]
    number = 2 * len(escapes)
    if not rng.integers(4):
        number = pick(rng, [0, number + 1, number + 2, 2 * len(words), 2**31, 2**35 - 2, 2**63])
    replace_section(data, entry, section, varint(number, drawn_out if rng.integers(2) else 0) + escapes + words)


def other_plain(rng: Rng, data: bytearray, corpus: Corpus) -> None:
    """A plain section with another mask, the pixels of another size, damage where its codes are told, or noise."""
    data[:] = pick(rng, corpus.mixed)
    header = unpack(bytes(data))
    entry, section = pick(rng, tile_entries(data, plain=True))
    symbols, number = header.tiles[header.plain.index(section)], header.plain.index(section)
    unit = header.tile_px
    columns = -(-header.width // unit)
    top, left = unit * (number // columns), unit * (number % columns)
    blocks = np.prod(mask_shape(min(unit, header.height - top), min(unit, header.width - left)))
    size = -(-int(blocks) // 8) if symbols.length else 0
    body, _ = part(bytes(data), section)
    mask, pixels = body[:size], bytearray(body[size:])
    match rng.integers(4):
        case 0:
            mask = rng.bytes(rng.integers(size + 2))
        case 1:
            pixels[:] = compress(page(*map(int, rng.integers(1, 80, 2)), int(rng.integers(4))), (0, 10))
        case 2:
            for bit in rng.integers(8 * min(20, len(pixels)), size=rng.integers(1, 4)):
                pixels[bit // 8] ^= 1 << bit % 8
        case _:
            pixels[rng.integers(min(30, len(pixels))) :] = rng.bytes(rng.integers(200))
    replace_section(data, entry, section, mask + bytes(pixels))


# Each with the share of inputs that it makes, in percent.
MUTATIONS: list[tuple[int, Callable[[Rng, bytearray, Corpus], None]]] = [
    (8, damage_bits),
    (6, cut_short),
    (8, splice),
    (16, set_field),
    (8, other_grid),
    (7, move_borders),
    (9, assemble),
    (5, other_metadata),
    (6, other_alpha),
    (9, other_tile),
    (12, other_stream),
    (6, other_plain),
]
