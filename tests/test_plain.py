"""Plain blocks and lossless files: exact, beside learned ones without a seam, safe in any bytes."""

from __future__ import annotations

import json
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import page, picture, reseal
from PIL import Image
from zoo import LEAST_DB, lines, zoo

import codec.pillow
from cli import main
from codec.api import Codec, default_codec
from codec.blocks import Survey, choose_plain, filled, survey
from codec.decoder import Decoder
from codec.errors import CodecError, CorruptError, ModelMismatchError
from codec.format.bitstream import NO_MODEL, Header, pack, unpack
from codec.metrics import psnr_db
from codec.picture.plain import PlainTile, compress, in_few_colours, pack_plain, unpack_plain

GOLDEN = Path(__file__).parent / "golden" / "v2"


def decoded(model: Codec, data: bytes) -> np.ndarray:
    return np.asarray(model.decode(data))


def plain_pixels(model: Codec, data: bytes) -> np.ndarray:
    """Where a file of one tile is plain, (H, W)."""
    tile = Decoder.of(model.model, unpack(data), data).plain(0)
    return tile.pixels


# Pixels ↔ bytes.


def test_unpack_inverts_pack(subtests):
    for channels in [1, 3]:
        for size in [(1, 1), (33, 31), (64, 129)]:
            with subtests.test(channels=channels, size=size):
                colour = page(*size)[:, :, :channels]
                rng = np.random.default_rng(0)
                for mask in (None, rng.random((-(-size[0] // 32), -(-size[1] // 32))) < 0.5):
                    data, crc = pack_plain(PlainTile(colour, mask))
                    tile = unpack_plain(data, *size, channels, masked=mask is not None)
                    assert np.array_equal(tile.colour[tile.pixels], colour[tile.pixels])
                    assert not tile.colour[~tile.pixels].any()  # black is what costs least there
                    assert zlib.crc32(tile.colour.tobytes()) == crc
                    assert mask is None or np.array_equal(tile.mask, mask)


def test_fewer_colours_are_near_and_keep_what_is_frequent():
    image = np.full((64, 64, 3), (255, 255, 254), np.uint8)
    image[16:48, 16:48] = picture(32, 32)
    for colour in (image, image[:, :, :1]):
        for count, reduced in zip((32, 8), in_few_colours(colour, (32, 8)), strict=True):
            assert reduced.shape == colour.shape
            assert len(np.unique(reduced.reshape(-1, colour.shape[2]), axis=0)) <= count
            assert np.array_equal(reduced[:16], colour[:16])
            assert psnr_db(colour, reduced) > (30 if count == 32 else 22)
    assert not list(in_few_colours(image[:16], (32, 1)))


def test_palettes_lose_less_than_pillows():
    """Of the methods that need no other library; noise of all colours, which has no structure, nearly so."""
    inks = np.hstack([lines(30, 9.0) // 3 * (1, 2, 3), 255 - lines(67, 11.0) * (0.2, 0.6, 0.9)]).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    for image, counts, slack_db in ((inks, (64, 16, 8), 0.0), (picture(64, 96), (64, 16), 0.0), (noise, (64,), 0.3)):
        for count, reduced in zip(counts, in_few_colours(image, counts), strict=True):
            methods = (Image.Quantize.FASTOCTREE, Image.Quantize.MEDIANCUT, Image.Quantize.MAXCOVERAGE)
            theirs = [Image.fromarray(image).quantize(count, method).convert("RGB") for method in methods]
            assert psnr_db(image, reduced) > max(psnr_db(image, np.asarray(other)) for other in theirs) - slack_db


def test_what_learned_blocks_share_counts_against_a_tile_of_both_kinds():
    image = page(64, 128)
    image[:, :64] = picture(64, 64)
    everything, left = np.ones((2, 4), bool), np.array([[True, True, False, False]] * 2)
    costs = np.where(left, 300.0, 9000.0).astype(np.float32)
    found = Survey(everything, np.full((2, 4), 2000.0, np.float32))
    mixed, _ = choose_plain(image, found, costs, 0.0, 0.01)
    assert np.array_equal(mixed, ~left)
    whole, _ = choose_plain(image, found, costs, 1e6, 0.01)
    assert whole.all()


def test_anti_aliased_lines_are_drawn_in_few_colours():
    """More at higher quality. Then the file is not lossless, and says so."""
    coloured = (lines(67, 11.0) // 2 + 60) * (1.0, 0.8, 0.5)
    image = np.hstack([lines(30, 9.0), coloured.astype(np.uint8)])
    low, high = (default_codec().encode(image, quality) for quality in (0.3, 1.0))
    exact = default_codec().encode(image, lossless=True)
    assert [unpack(data).kind for data in (low, high, exact)] == ["plain", "plain", "lossless"]
    assert len(low) < 0.8 * len(high) < 0.8 * 0.6 * len(exact)
    assert psnr_db(image, decoded(default_codec(), low)) > 35
    assert psnr_db(image, decoded(default_codec(), high)) > 48
    assert np.array_equal(decoded(default_codec(), exact), image)


def test_every_tile_has_the_few_colours_of_its_own():
    """Silent if it went wrong: no checksum knows the original."""
    left, right = (lines(angle, 9.0)[:64, :64] for angle in (30, 60))
    image = np.hstack([left * (1.0, 0.8, 0.5), right * (0.5, 0.9, 1.0)]).astype(np.uint8)
    data = default_codec().encode(image, 0.3, tile_px=64)
    assert unpack(data).kind == "plain"  # and not lossless
    result = decoded(default_codec(), data)
    for tile in (slice(0, 64), slice(64, 128)):
        assert not np.array_equal(result[:, tile], image[:, tile])
        assert psnr_db(image[:, tile], result[:, tile]) > 35


def test_refuses_what_is_no_plain_section(subtests):
    for data, masked in [
        (b"", False),
        (b"\0", True),  # a mask and nothing behind it
        (b"", True),
        (b"\x01" + compress(page(40, 40)), True),  # the fifth bit of four
        (b"\xff" * 40, False),
        (compress(page(40, 40))[:30], False),
        (compress(page(400, 400))[:300], False),
    ]:
        with subtests.test(data=data, masked=masked), pytest.raises(CorruptError, match="plain tile"):
            unpack_plain(data, 40, 40, 3, masked=masked)


# Files of both kinds.


@pytest.mark.parametrize("effort", [0, 1])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_blocks_of_both_kinds_meet_in_one_picture(channels, effort):
    codec = default_codec()  # whose learned blocks are worth their bits
    image = np.dstack([page(150, 330), picture(150, 330)[:, :, :1]])[:, :, : max(channels, 1)]
    data = codec.encode(image, 0.4, effort=effort)
    header = unpack(data)
    assert (header.version, header.kind, header.lossless) == (2, "mixed", False)
    plain = plain_pixels(codec, data)
    assert plain[:, 200:].all()
    assert not plain[:, :128].any()
    result = decoded(codec, data).reshape(image.shape)
    assert np.array_equal(result[:, 192:], image[:, 192:])
    if channels == 4:
        assert np.array_equal(result[:, :, 3], image[:, :, 3])


def test_photographs_are_files_of_version_1(codec):
    data = codec.encode(picture(150, 330), 0.9)
    assert data[4] == 1
    assert unpack(data).kind == "learned"


def test_no_seam_shows_beside_plain_blocks():
    """The error of learned pixels next to them is what it is without them, with the shipped weights."""
    image, model = page(256, 320), default_codec()
    data = model.encode(image, 0.5)
    plain = plain_pixels(model, data)
    edge = np.flatnonzero(plain.all(axis=0))[0]
    assert 96 < edge < 200
    strips = slice(edge - 12, edge)
    errors = np.square(decoded(model, data).astype(float) - image)[:, :edge].mean(axis=(0, 2))
    assert errors[strips].mean() < 1.5 * errors[:-16].mean()


def test_tiles_near_no_learned_block_have_no_symbols(codec):
    image = np.full((64, 640, 3), 200, np.uint8)
    image[:, :128] = picture(64, 128)
    image[10:50:3, 150:] = 0
    data = codec.encode(image, 0.5, tile_px=64)
    header = unpack(data)
    symbols = [tile.length > 0 for tile in header.tiles]
    assert symbols == sorted(symbols, reverse=True)
    assert 2 < sum(symbols) < 6  # those of the picture, and those that its pixels need beside it
    whole = decoded(codec, data).astype(int)
    assert np.array_equal(whole[:, 192:], image[:, 192:])
    for x, width in ((100, 60), (0, 64), (130, 500), (639, 1)):
        part = np.asarray(codec.decode(data, region=(x, 3, width, 40))).astype(int)
        assert np.abs(part - whole[3:43, x : x + width]).max() <= 1


def test_damage_of_one_kind_leaves_the_other(codec):
    image = page(96, 192)
    data = codec.encode(image, 0.4)
    header, plain = unpack(data), plain_pixels(codec, data)
    sound = decoded(codec, data)
    for section, kept in ((header.plain[0], ~plain), (header.tiles[0], plain)):
        broken = bytearray(data)
        broken[section.start + section.length // 2] ^= 0x55
        with pytest.raises(CorruptError, match="tile 0"):
            codec.decode(bytes(broken))
        found = codec.decode_partial(bytes(broken))
        assert [(part.tile, part.region) for part in found.damage] == [(0, (0, 0, 192, 96))]
        assert np.array_equal(np.asarray(found.image)[kept], sound[kept])
        assert not np.array_equal(np.asarray(found.image), sound)


def test_quick_look_spares_photographs():
    assert not survey(picture(200, 300), 0.01).asked.any()
    assert survey(page(200, 320), 0.01).asked[:, 6:].all()
    y, x = np.mgrid[:96, :96]
    noise = np.random.default_rng(0).integers(0, 256, (96, 96))
    for harsh in (noise, 255 * (noise > 127), 255 * ((y + x) % 2), 255 * (y % 2), 255 * ((y // 2 + x // 2) % 2)):
        assert survey(harsh[:, :, None].astype(np.uint8), 0.0008).asked.all()


def test_holes_are_filled_smoothly():
    ramp = np.add.outer(np.arange(100), np.arange(150))[:, :, None].astype(np.uint8)
    hole = np.zeros((100, 150), bool)
    hole[30:70, 40:100] = True
    spoilt = ramp.copy()
    spoilt[hole] = np.random.default_rng(0).integers(0, 256, (hole.sum(), 1))
    result = filled(spoilt, hole).astype(int)
    assert np.array_equal(result[~hole], ramp[~hole])
    assert np.abs(np.diff(result, axis=1)).max() < 30
    assert np.abs(result - ramp).max() < 40
    assert (filled(spoilt, np.ones_like(hole)) == 128).all()


def test_synthetic_pictures_come_back_at_the_highest_quality(subtests):
    """`python -m tests.zoo` tries the qualities between."""
    for name in zoo():
        with subtests.test(name=name):
            image, model = zoo()[name], default_codec()
            low, high = (psnr_db(image, decoded(model, model.encode(image, quality))) for quality in (0.25, 1.0))
            assert low <= high
            assert high >= LEAST_DB


def test_golden_files_of_version_2_decode_for_ever(subtests):
    """Three tiles, of symbols alone, both, plain alone; an exact picture with alpha. They are never rewritten."""
    for name, kind in [("mixed", "mixed"), ("lossless", "lossless")]:
        with subtests.test(name=name, kind=kind):
            data = (GOLDEN / f"{name}.yoto").read_bytes()
            assert (data[4], unpack(data).kind) == (2, kind)
            with Image.open(GOLDEN / f"{name}.png") as image:
                expected = np.asarray(image).astype(int)
            assert np.abs(decoded(default_codec(), data).astype(int) - expected).max() <= (kind == "mixed")


# Lossless files.


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize(("height", "width", "tile_px"), [(1, 1, 1024), (1, 257, 64), (65, 63, 64), (70, 150, 1024)])
def test_lossless_is_exact(codec, mode, height, width, tile_px):
    image = Image.fromarray(picture(height, width)).convert(mode)
    if mode[-1] == "A":
        image.putalpha(Image.fromarray(picture(height, width, 1)[:, :, 0]))
    data = codec.encode(image, lossless=True, tile_px=tile_px)
    header = unpack(data)
    assert (header.kind, header.lossless, header.mode, header.model_id) == ("lossless", True, mode, NO_MODEL)
    back = codec.decode(data)
    assert back.mode == mode
    assert np.array_equal(np.asarray(back), np.asarray(image))
    region = (width // 3, height // 3, width - width // 3, height - height // 3)
    assert np.array_equal(np.asarray(codec.decode(data, region=region)), np.asarray(image)[height // 3 :, width // 3 :])
    assert not codec.decode_partial(data).damage


def test_lossless_file_needs_no_certain_weights(codec):
    data = default_codec().encode(picture(40, 50), lossless=True)
    assert np.array_equal(decoded(codec, data), picture(40, 50))


def test_command_and_pillow_keep_every_pixel(tmp_path, weights_path):
    """Also those that nobody sees, under an alpha of 0."""
    source, target, back = tmp_path / "in.png", tmp_path / "out.yoto", tmp_path / "back.png"
    pixels = np.dstack([picture(50, 60), picture(50, 60, 1)[:, :, :1]])
    pixels[:20, :, 3] = 0
    Image.fromarray(pixels).save(source)
    run = CliRunner().invoke
    weights = ["--weights", str(weights_path)]
    done = run(main, ["encode", str(source), str(target), "--lossless", "--json", *weights])
    assert (done.exit_code, json.loads(done.stdout)["kind"]) == (0, "lossless")
    told = json.loads(run(main, ["info", str(target), "--json"]).stdout)
    assert (told["kind"], told["version"], told["quality"]) == ("lossless", 2, None)
    assert run(main, ["decode", str(target), str(back), *weights]).exit_code == 0
    assert np.array_equal(np.asarray(Image.open(back)), pixels)
    refused = run(main, ["encode", str(source), str(target), "--lossless", "-q", "0.3", *weights])
    assert (refused.exit_code, "give one of" in refused.stderr) == (2, True)
    codec.pillow.register()
    Image.open(source).save(tmp_path / "p.yoto", lossless=True)
    with Image.open(tmp_path / "p.yoto") as opened:
        opened.verify()
    with Image.open(tmp_path / "p.yoto") as opened:
        assert np.array_equal(np.asarray(opened), pixels)


# Hostile files.


def test_every_truncation_and_flipped_bit_is_refused(codec):
    data = codec.encode(page(40, 48), lossless=True)
    for length in range(len(data)):
        with pytest.raises(CodecError):
            codec.decode(data[:length])
    number = int.from_bytes(data, "little")
    for bit in range(8 * len(data)):
        with pytest.raises(CodecError):
            codec.decode((number ^ 1 << bit).to_bytes(len(data), "little"))


def test_pixels_other_than_were_encoded_are_refused(codec):
    """Whatever a WebP decoder makes of damaged data whose checksum is right: never a wrong picture."""
    data = codec.encode(page(40, 48), lossless=True)
    section = unpack(data).plain[0]
    refused = 0
    for bit in range(0, 8 * section.length, 5):
        broken = bytearray(data)
        broken[section.start + bit // 8] ^= 1 << bit % 8
        try:
            assert np.array_equal(decoded(codec, reseal(bytes(broken))), page(40, 48))
        except CorruptError:
            refused += 1
    assert refused > section.length


def test_small_section_for_a_large_tile_takes_no_memory_beyond_the_tile(codec):
    """A megapixel of one colour in a few bytes is what such files are for; other data in its place is refused."""
    section = compress(np.zeros((1024, 1024, 3), np.uint8))
    assert len(section) < 100
    header = Header(1024, 1024, 0, NO_MODEL, lossless=True)
    tracemalloc.start()
    try:
        for body in (section, section[:3], b"\xff" * 50):
            with pytest.raises(CorruptError):
                codec.decode(pack(header, [(b"", 0)], plain=[(body, 1)]))
        assert tracemalloc.get_traced_memory()[1] < 16_000_000
    finally:
        tracemalloc.stop()


def test_version_1_always_needs_its_model(codec):
    """Found by comparing verdicts with the browser's decoder."""
    data = codec.encode(picture(64, 64), 0.5)
    with pytest.raises(ModelMismatchError, match="000000000000"):
        codec.decode(reseal(data[:16] + bytes(6) + data[22:]))
