"""The file format, byte by byte, and everything that a decoder must reject."""

from __future__ import annotations

import dataclasses
import struct
import tracemalloc
import zlib

import pytest
from conftest import reseal
from hypothesis import given
from hypothesis import strategies as st

from codec.errors import (
    BitstreamError,
    CodecError,
    CorruptError,
    ImageError,
    NotYotoError,
    TooLargeError,
    TruncatedError,
    UnsupportedVersionError,
)
from codec.format.bitstream import (
    NO_MODEL,
    QUALITY_MAX,
    SIDE_MAX,
    Header,
    Metadata,
    pack,
    pack_alpha,
    read_alpha,
    read_metadata,
    unpack,
)

SAMPLE = bytes.fromhex(
    "d959544f 01 07 0004 2c010000 82000000 616263646566 04"  # magic, version, flags, quality, 300×130, model, tile
    "0d000000 23c602fe"  # metadata: 13 bytes
    "05000000 dafbb427"  # alpha: 5 bytes
    "03000000 f1866c7a 11111111"  # tile 0
    "04000000 7d66c190 22222222"  # tile 1
    "3547bad1"  # CRC-32 of all the above
    "02 01000000 45"  # Exif "E"
    "03 02000000 5858"  # XMP "XX"
    "414c504841 6f6e65 666f7572"  # "ALPHA", "one", "four"
)
PLAIN_SAMPLE = bytes.fromhex(
    "d959544f 02 02 0004 2c010000 82000000 616263646566 04"  # version 2, colour
    "03000000 f1866c7a 11111111 00000000 00000000 00000000"  # tile 0: symbols alone
    "04000000 7d66c190 22222222 05000000 cf622019 33333333"  # tile 1: both
    "dc1fce15"
    "6f6e65 666f7572 706c61696e"  # "one", "four", "plain"
)
SAMPLE_HEADER = Header(300, 130, 1024, b"abcdef", colour=True, alpha=True, tile_px=256)
VERSION, FLAGS, QUALITY, WIDTH, HEIGHT, TILE = 4, 5, 6, 8, 12, 22  # offsets in the fixed part
METADATA_LENGTH, ALPHA_LENGTH, TILE_LENGTH = 23, 31, 39  # offsets in the table of SAMPLE


def patched(offset: int, form: str, value: int, data: bytes = SAMPLE) -> bytes:
    """The file with one field changed and the checksums made right."""
    changed = bytearray(data)
    struct.pack_into(form, changed, offset, value)
    return reseal(bytes(changed))


def read_all(data: bytes) -> None:
    """Read the header and every section."""
    header = unpack(data)
    read_metadata(header, data)
    if header.alpha_section:
        header.alpha_section.read(data, "alpha")
    for tile in (*header.tiles, *header.plain):
        tile.read(data, "tile")


def grey_file(metadata_block: bytes = b"", alpha: bytes = b"") -> tuple[Header, bytes]:
    """A 3×2 px file with these raw sections."""
    data = pack(Header(3, 2, 0, b"abcdef", False, bool(alpha)), [(b"tile", 0)], alpha, Metadata(metadata_block))
    if metadata_block:  # pack wrote it as an ICC item: 5 bytes of item header go
        start = unpack(data).metadata_section.start
        data = patched(METADATA_LENGTH, "<I", len(metadata_block), data[:start] + data[start + 5 :])
    return unpack(data), data


def test_writes_the_bytes_of_the_specification():
    tiles = [(b"one", 0x11111111), (b"four", 0x22222222)]
    assert pack(SAMPLE_HEADER, tiles, b"ALPHA", Metadata(exif=b"E", xmp=b"XX")) == SAMPLE


def test_reads_the_bytes_of_the_specification():
    header = unpack(SAMPLE)
    assert (header.width, header.height, header.rate_point, header.model_id) == (300, 130, 1024, b"abcdef")
    assert (header.colour, header.alpha, header.mode, header.tile_px, header.tile_count) == (True, True, "RGBA", 256, 2)
    assert header.size_bytes == len(SAMPLE)
    assert header.bpp == 8 * len(SAMPLE) / (300 * 130)
    assert read_metadata(header, SAMPLE) == Metadata(exif=b"E", xmp=b"XX")
    assert header.alpha_section.read(SAMPLE, "alpha") == b"ALPHA"
    assert [(tile.read(SAMPLE, "tile"), tile.content_crc) for tile in header.tiles] == [
        (b"one", 0x11111111),
        (b"four", 0x22222222),
    ]


def test_plain_file_of_one_tile_has_39_bytes_of_overhead():
    assert len(pack(Header(1, 1, 0, b"abcdef"), [(b"", 0)])) == 39


@given(
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.integers(0, QUALITY_MAX),
    st.binary(min_size=6, max_size=6),
    st.booleans(),
    st.binary(max_size=9),
    st.builds(Metadata, st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9)),
    st.integers(1, 255),
)
def test_unpack_inverts_pack(width, height, quality, model_id, colour, alpha, metadata, tile):
    plain = Header(width, height, quality, model_id, colour, bool(alpha), 64 * tile)
    tiles = [(b"x" * (i % 5), i) for i in range(plain.tile_count)]
    data = pack(plain, tiles, alpha, metadata)
    header = unpack(data)
    assert (header.width, header.height, header.rate_point, header.model_id) == (width, height, quality, model_id)
    assert (header.colour, header.alpha, header.tile_px) == (colour, bool(alpha), 64 * tile)
    assert [(t.read(data, "tile"), t.content_crc) for t in header.tiles] == tiles
    assert read_metadata(header, data) == metadata
    assert not alpha or header.alpha_section.read(data, "alpha") == alpha


def plain_file(
    tiles: list[tuple[bytes, int]], plain: list[tuple[bytes, int]], model: bytes = b"abcdef", **fields: bool
) -> bytes:
    return pack(Header(300, 130, 1024, model, colour=True, tile_px=256, **fields), tiles, plain=plain)


NOTHING = (b"", 0)
ONE, FOUR, PLAIN = (b"one", 0x11111111), (b"four", 0x22222222), (b"plain", 0x33333333)


def test_writes_and_reads_the_bytes_of_version_2():
    assert plain_file([ONE, FOUR], [NOTHING, PLAIN]) == PLAIN_SAMPLE
    header = unpack(PLAIN_SAMPLE)
    assert (header.version, header.kind, header.lossless, header.size_bytes) == (2, "mixed", False, len(PLAIN_SAMPLE))
    sections = [(part.read(PLAIN_SAMPLE, "part"), part.content_crc) for part in (*header.tiles, *header.plain)]
    assert sections == [ONE, FOUR, NOTHING, PLAIN]


def test_files_without_symbols_say_what_they_are(subtests):
    for lossless, kind in [(True, "lossless"), (False, "plain")]:
        with subtests.test(lossless=lossless, kind=kind):
            header = unpack(plain_file([NOTHING, NOTHING], [PLAIN, PLAIN], NO_MODEL, lossless=lossless))
            assert (header.kind, header.lossless) == (kind, lossless)


def test_rejects_contradictions_in_version_2(subtests):
    for data, match in [
        (plain_file([ONE, NOTHING], [PLAIN, NOTHING]), "neither"),
        (plain_file([ONE, (b"", 5)], [PLAIN, PLAIN]), "checksum of what it does not have"),
        (plain_file([ONE, ONE], [PLAIN, (b"", 5)]), "checksum of what it does not have"),
        (plain_file([ONE, ONE], [PLAIN, PLAIN], NO_MODEL), "names a model"),
        (plain_file([NOTHING, NOTHING], [PLAIN, PLAIN]), "names a model"),
        (plain_file([ONE, ONE], [PLAIN, PLAIN], lossless=True), "names a model"),
        (patched(FLAGS, "<B", 2 | 16, PLAIN_SAMPLE), "flags"),
        (patched(FLAGS, "<B", 2 | 128, PLAIN_SAMPLE), "flags"),
        (PLAIN_SAMPLE + b"?", "behind its end"),
    ]:
        with subtests.test(data=data, match=match), pytest.raises(CorruptError, match=match):
            unpack(data)


def test_rejects_every_flipped_bit_of_version_2(subtests):
    for bit in range(0, 8 * len(PLAIN_SAMPLE), 3):
        with subtests.test(bit=bit):
            damaged = bytearray(PLAIN_SAMPLE)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CodecError):
                read_all(bytes(damaged))


def test_rejects_empty_data():
    with pytest.raises(NotYotoError):
        unpack(b"")


def test_rejects_another_magic(subtests):
    for data in [b"\x89PNG\r\n\x1a\n", b"YYTO" + SAMPLE[4:], b"\x00", b"\xd9YT0"]:
        with subtests.test(data=data), pytest.raises(NotYotoError):
            unpack(data)


def test_rejects_another_version(subtests):
    for version in [0, 3, 255]:
        with subtests.test(version=version), pytest.raises(UnsupportedVersionError, match=f"version {version}"):
            unpack(patched(VERSION, "<B", version))


def test_rejects_reserved_flag(subtests):
    for bit in range(3, 8):
        with subtests.test(bit=bit), pytest.raises(CorruptError, match="flags"):
            unpack(patched(FLAGS, "<B", SAMPLE[FLAGS] | 1 << bit))


def test_rejects_quality_out_of_range(subtests):
    for quality in [QUALITY_MAX + 1, 0xFFFF]:
        with subtests.test(quality=quality), pytest.raises(CorruptError, match="quality"):
            unpack(patched(QUALITY, "<H", quality))


def test_rejects_side_out_of_range(subtests):
    for side in [0, SIDE_MAX + 1, 0xFFFFFFFF]:
        for name, offset in [("width", WIDTH), ("height", HEIGHT)]:
            with subtests.test(side=side, name=name, offset=offset), pytest.raises(CorruptError, match=name):
                unpack(patched(offset, "<I", side))


def test_rejects_tile_size_zero():
    with pytest.raises(CorruptError, match="tile size"):
        unpack(patched(TILE, "<B", 0))


def test_rejects_more_pixels_than_the_limit():
    assert unpack(SAMPLE, max_pixels=320 * 192).width == 300
    with pytest.raises(TooLargeError, match="max_pixels"):
        unpack(SAMPLE, max_pixels=320 * 192 - 1)


def test_rejects_huge_claims_before_allocating(subtests):
    for max_pixels, error in [(256_000_000, ImageError), (1 << 60, TruncatedError)]:
        with subtests.test(max_pixels=max_pixels, error=error):
            huge = patched(TILE, "<B", 1, patched(HEIGHT, "<I", SIDE_MAX, patched(WIDTH, "<I", SIDE_MAX)))
            tracemalloc.start()
            try:
                with pytest.raises(error):
                    unpack(huge, max_pixels)
                assert tracemalloc.get_traced_memory()[1] < 100_000
            finally:
                tracemalloc.stop()


def test_rejects_section_longer_than_the_file(subtests):
    for offset in [METADATA_LENGTH, ALPHA_LENGTH, TILE_LENGTH]:
        with subtests.test(offset=offset), pytest.raises(TruncatedError):
            unpack(patched(offset, "<I", 0xFFFFFFFF))


def test_rejects_truncation_at_every_offset(subtests):
    for length in range(1, len(SAMPLE)):
        with subtests.test(length=length), pytest.raises(TruncatedError):
            unpack(SAMPLE[:length])


def test_rejects_truncation_that_the_checksums_follow():
    with pytest.raises(TruncatedError):
        unpack(reseal(SAMPLE[:-1]))


def test_rejects_trailing_bytes(subtests):
    for extra in [b"\0", SAMPLE]:
        with subtests.test(extra=extra), pytest.raises(CorruptError, match="behind its end"):
            unpack(SAMPLE + extra)


def test_rejects_shorter_length_of_the_last_tile():
    with pytest.raises(CorruptError, match="behind its end"):
        unpack(patched(TILE_LENGTH + 12, "<I", 3))


def test_rejects_empty_section(subtests):
    for offset, name in [(METADATA_LENGTH, "metadata"), (ALPHA_LENGTH, "alpha")]:
        with subtests.test(offset=offset, name=name), pytest.raises(CorruptError, match=f"{name} section is empty"):
            unpack(patched(offset, "<I", 0))


def test_rejects_wrong_header_checksum():
    with pytest.raises(CorruptError, match="checksum of the header"):
        unpack(SAMPLE[:17] + b"?" + SAMPLE[18:])


def test_rejects_wrong_section_checksum(subtests):
    for position in range(len(SAMPLE) - 25, len(SAMPLE)):
        with subtests.test(position=position):
            damaged = SAMPLE[:position] + bytes([SAMPLE[position] ^ 0xFF]) + SAMPLE[position + 1 :]
            assert unpack(damaged) == unpack(SAMPLE)
            with pytest.raises(CorruptError, match="checksum"):
                read_all(damaged)


def test_rejects_every_flipped_bit(subtests):
    for bit in range(8 * len(SAMPLE)):
        with subtests.test(bit=bit):
            damaged = bytearray(SAMPLE)
            damaged[bit // 8] ^= 1 << bit % 8
            with pytest.raises(CodecError):
                read_all(bytes(damaged))


def test_reads_metadata_items(subtests):
    for block, items in [
        (b"\1\1\0\0\0i", Metadata(icc_profile=b"i")),
        (b"\2\2\0\0\0ex\3\1\0\0\0x", Metadata(exif=b"ex", xmp=b"x")),
        (b"\1\1\0\0\0i\2\1\0\0\0e\3\1\0\0\0x", Metadata(b"i", b"e", b"x")),
    ]:
        with subtests.test(block=block, items=items):
            assert read_metadata(*grey_file(block)) == items


def test_file_without_metadata_reads_as_empty():
    metadata = read_metadata(*grey_file())
    assert metadata == Metadata()
    assert not metadata


def test_rejects_metadata_item(subtests):
    for block in [
        b"\0\1\0\0\0?",  # type 0
        b"\4\1\0\0\0?",  # type 4
        b"\1\0\0\0\0",  # no bytes
        b"\2\1\0\0\0e\1\1\0\0\0i",  # descending
        b"\2\1\0\0\0e\2\1\0\0\0e",  # twice
        b"\1\2\0\0\0?",  # longer than the section
        b"\1\xff\xff\xff\xff?",
        b"\1\1\0\0\0i\2",  # item header cut short
        b"\1\1\0\0",
    ]:
        with subtests.test(block=block):
            header, data = grey_file(block)
            with pytest.raises(CorruptError, match="metadata item"):
                read_metadata(header, data)


def test_alpha_is_lossless():
    plane = bytes(range(6))
    assert read_alpha(*grey_file(alpha=pack_alpha(plane))) == plane


def test_rejects_alpha(subtests):
    for section in [
        pack_alpha(bytes(5)),
        pack_alpha(bytes(7)),
        pack_alpha(bytes(10_000_000)),
        pack_alpha(bytes(6)) + b"\0",
        pack_alpha(bytes(6))[:-1],
        pack_alpha(bytes(6))[:-4] + b"\0\0\0\0",
        zlib.compress(bytes(6), wbits=-15),
        b"\0",
    ]:
        with subtests.test(section=section):
            header, data = grey_file(alpha=section)
            tracemalloc.start()
            try:
                with pytest.raises(CorruptError, match="alpha"):
                    read_alpha(header, data)
                assert tracemalloc.get_traced_memory()[1] < 200_000  # the bomb has not gone off
            finally:
                tracemalloc.stop()


def test_reading_alpha_that_is_not_there_is_the_callers_mistake():
    with pytest.raises(ValueError, match="no alpha"):
        read_alpha(*grey_file())


def test_bitstream_errors_are_codec_errors():
    errors = (NotYotoError, UnsupportedVersionError, TruncatedError, CorruptError)
    assert all(issubclass(e, BitstreamError) and issubclass(e, CodecError) for e in errors)


def test_refuses_to_write_what_could_not_be_read():
    tiles = [(b"one", 1), (b"four", 2)]
    for header, alpha, some in (
        (SAMPLE_HEADER, b"", tiles),
        (dataclasses.replace(SAMPLE_HEADER, alpha=False), b"ALPHA", tiles),
        (SAMPLE_HEADER, b"ALPHA", tiles[:1]),
    ):
        with pytest.raises(ValueError, match="does not fit"):
            pack(header, some, alpha)
