"""Parts of images: regions, and what is left of damaged files."""

from __future__ import annotations

import dataclasses
import json
import weakref
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import picture, reseal
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from cli import main
from codec.api import Codec
from codec.decoder import GREY_LEVEL, Decoder, Latents, copy_overlap
from codec.encoder import Search, read_pixels
from codec.errors import CodecError, CorruptError, ModelMismatchError, TooLargeError, TruncatedError
from codec.format.bitstream import unpack
from codec.grid import Box, Grid
from codec.network.backend import Look, from_steps
from codec.network.config import LATENT_STRIDE, ModelConfig
from codec.network.layout import LATENT_BITS
from codec.quantise import CURVATURE

HEIGHT, WIDTH, TILE_PX = 330, 400, 128  # 3×4 tiles
COLUMNS = 4
GRID = Grid(HEIGHT, WIDTH, TILE_PX, ModelConfig.margin_px)
REGIONS = [
    (0, 0, WIDTH, HEIGHT),
    (0, 0, 1, 1),
    (WIDTH - 1, HEIGHT - 1, 1, 1),
    (130, 140, 50, 60),  # within a tile
    (127, 127, 2, 2),  # four tiles meet
    (200, 60, 170, 150),
    (0, 250, WIDTH, 13),
    (395, 0, 5, HEIGHT),
    (100, 70, 30, 200),
]


@pytest.fixture(scope="module")
def image() -> Image.Image:
    rgba = np.dstack([picture(HEIGHT, WIDTH), picture(HEIGHT, WIDTH, 1)[:, :, 0]])
    image = Image.fromarray(rgba)
    image.info["icc_profile"] = b"a profile"
    return image


@pytest.fixture(scope="module")
def data(codec: Codec, image: Image.Image) -> bytes:
    return codec.encode(image, 0.7, tile_px=TILE_PX)


@pytest.fixture(scope="module")
def whole(codec: Codec, data: bytes) -> np.ndarray:
    return np.asarray(codec.decode(data)).astype(int)


def damaged(data: bytes, *tiles: int, sealed: bool = False) -> bytes:
    """The file with a byte of some tiles changed; `sealed`: under right checksums of the bytes."""
    header, out = unpack(data), bytearray(data)
    for tile in tiles:
        out[header.tiles[tile].start + header.tiles[tile].length // 2] ^= 0x55
    return reseal(bytes(out)) if sealed else bytes(out)


def crop(whole: np.ndarray, region: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = region
    return whole[y : y + height, x : x + width]


# Geometry.


def test_tiles_cover_the_padded_image_once(subtests):
    for tile_px in [64, 128, 1024]:
        for width, height in [(1, 1), (64, 65), (400, 330), (1025, 130)]:
            with subtests.test(tile_px=tile_px, width=width, height=height):
                grid = Grid(height, width, tile_px, ModelConfig.margin_px)
                covered = np.zeros((-(-height // 64) * 64, -(-width // 64) * 64), int)
                for box in grid.tiles():
                    assert box.height % 64 == box.width % 64 == 0
                    covered[box.slices(Box(0, 0, *covered.shape))] += 1
                assert (covered == 1).all()


def test_tiles_touching_are_those_that_share_pixels():
    rng = np.random.default_rng(0)
    for _ in range(200):
        top, left = rng.integers(HEIGHT), rng.integers(WIDTH)
        box = Box(top, left, rng.integers(1, HEIGHT - top + 1), rng.integers(1, WIDTH - left + 1))
        shared = [n for n, tile in enumerate(GRID.tiles()) if tile.common(box).height * tile.common(box).width]
        assert GRID.touching(box) == shared


# Padding.


def test_sides_are_padded_to_multiples_of_64(subtests):
    for side, padded in [(1, 64), (63, 64), (64, 64), (65, 128), (300, 320)]:
        with subtests.test(side=side, padded=padded):
            assert Grid(side, 1, 64, ModelConfig.margin_px).padded == (0, 0, padded, 64)


def test_padding_repeats_the_edge_and_crops_back(subtests):
    for channels in [1, 3]:
        with subtests.test(channels=channels):
            colour = picture(5, 70)[:, :, :channels]
            x = read_pixels(colour, Box(0, 0, 64, 128))
            assert x.shape == (64, 128, 3)
            levels = np.rint(x * 255.0)
            expected = np.broadcast_to(colour, (5, 70, 3))
            np.testing.assert_array_equal(levels[:5, :70], expected)
            np.testing.assert_array_equal(levels[5:, :70], np.broadcast_to(expected[-1:], (59, 70, 3)))
            np.testing.assert_array_equal(levels[:, 70:], np.broadcast_to(levels[:, 69:70], (64, 58, 3)))


def test_region_inside_the_image_is_not_padded():
    colour = picture(192, 192)
    x = read_pixels(colour, Box(64, 128, 64, 64))
    np.testing.assert_array_equal(np.rint(x * 255.0), colour[64:128, 128:])


# Regions.


def test_region_is_the_crop_of_the_whole(subtests, codec, data, whole):
    for region in REGIONS:
        with subtests.test(region=region):
            part = codec.decode(data, region=region)
            assert part.mode == "RGBA"
            assert part.info["icc_profile"] == b"a profile"
            pixels = np.asarray(part).astype(int)
            expected = crop(whole, region)
            assert pixels.shape == expected.shape
            assert np.abs(pixels - expected).max() <= 1
            np.testing.assert_array_equal(pixels[:, :, 3], expected[:, :, 3])


@pytest.mark.parametrize("tile_px", [64, 192, 1024])
def test_random_regions_of_a_grey_image(codec, tile_px):
    data = codec.encode(picture(250, 300)[:, :, 0], 0.9, tile_px=tile_px)
    whole = np.asarray(codec.decode(data)).astype(int)
    rng = np.random.default_rng(0)
    for _ in range(15):
        x, y = int(rng.integers(300)), int(rng.integers(250))
        region = (x, y, int(rng.integers(1, 301 - x)), int(rng.integers(1, 251 - y)))
        pixels = np.asarray(codec.decode(data, region=region)).astype(int)
        assert pixels.shape == crop(whole, region).shape
        assert np.abs(pixels - crop(whole, region)).max() <= 1


def test_region_reads_only_the_tiles_that_it_and_its_margin_touch(subtests, codec, data, whole):
    """All others are damaged; with one of its own damaged it fails."""
    for region in REGIONS:
        with subtests.test(region=region):
            x, y, width, height = region
            near = GRID.touching(GRID.with_margin(Box(y, x, height, width)))
            far = [number for number in range(len(unpack(data).tiles)) if number not in near]
            pixels = np.asarray(codec.decode(damaged(data, *far), region=region)).astype(int)
            assert np.abs(pixels - crop(whole, region)).max() <= 1
            with pytest.raises(CorruptError):
                codec.decode(damaged(data, GRID.touching(Box(y, x, height, width))[-1]), region=region)


def test_each_tile_is_decoded_once(codec, data, monkeypatch):
    decode, numbers = Decoder.latents, []

    def counting(self: Decoder, number: int) -> Latents:
        numbers.append(number)
        return decode(self, number)

    monkeypatch.setattr(Decoder, "latents", counting)
    for region in [None, *REGIONS]:
        numbers.clear()
        codec.decode(data, region=region)
        assert len(numbers) == len(set(numbers))


def test_latents_of_three_rows_of_tiles_are_held(codec, monkeypatch):
    """Memory does not grow with the height of a picture."""
    decode, alive, most = Decoder.latents, weakref.WeakSet(), 0

    class Held(np.ndarray):
        """An array that can be referred to weakly, as those of NumPy cannot be hashed."""

        __hash__ = object.__hash__

    def counting(self: Decoder, number: int) -> Latents:
        nonlocal most
        latents = decode(self, number).view(Held)
        alive.add(latents)
        most = max(most, len(alive))
        return latents

    monkeypatch.setattr(Decoder, "latents", counting)
    codec.decode(codec.encode(picture(128 * 7, 200), 0.1, tile_px=128))
    assert most == 3 * 2


def test_large_tiles_are_synthesised_in_pieces(codec, monkeypatch):
    """Memory does not grow with the tile that a header claims; no piece shows, and the last ones are narrow."""
    data = codec.encode(picture(250, 300), 0.6, tile_px=2048)
    whole, synthesise, seen = np.asarray(codec.decode(data)).astype(int), codec.model.backend.synthesise, []

    def watched(y_hat, rate_point):
        seen.append(max(y_hat.shape[:2]))
        return synthesise(y_hat, rate_point)

    monkeypatch.setattr(codec.model.backend, "synthesise", watched)
    monkeypatch.setattr("codec.decoder.SYNTHESIS_PX", 64)
    pieces = np.asarray(codec.decode(data)).astype(int)
    assert len(seen) == 4 * 5
    assert max(seen) <= (64 + 2 * codec.model.margin_px) // LATENT_STRIDE
    assert np.abs(pieces - whole).max() <= 1


def test_region_within_a_tile_needs_no_synthesis_of_the_rest(codec, monkeypatch):
    data = codec.encode(picture(512, 512), 0.5)
    backend = codec.model.backend
    synthesise, shapes = backend.synthesise, []
    monkeypatch.setattr(
        backend, "synthesise", lambda y, rate_point: shapes.append(y.shape[:2]) or synthesise(y, rate_point)
    )
    codec.decode(data, region=(200, 200, 20, 20))
    reach = ModelConfig.margin_px // 16
    assert shapes == [(2 * reach + 2, 2 * reach + 2)]


OUTSIDE = [
    (0, 0, WIDTH + 1, 1),
    (0, 0, 1, HEIGHT + 1),
    (-1, 0, 5, 5),
    (0, -1, 5, 5),
    (WIDTH, 0, 1, 1),
    (0, 0, 0, 5),
    (5, 5, -2, 5),
    (0, 0, 2**70, 1),
]


def test_region_outside_the_image_is_the_callers_mistake(subtests, codec, data):
    for region in OUTSIDE:
        with subtests.test(region=region):
            for decode in (codec.decode, codec.decode_partial):
                with pytest.raises(ValueError, match="region"):
                    decode(data, region=region)


def test_limit_of_pixels_counts_the_padded_image_not_the_region(codec, data):
    padded = GRID.padded.height * GRID.padded.width
    assert codec.decode(data, region=(0, 0, 1, 1), max_pixels=padded).size == (1, 1)
    with pytest.raises(TooLargeError, match="max_pixels"):
        codec.decode(data, region=(0, 0, 1, 1), max_pixels=padded - 1)


def test_tiles_that_are_larger_than_a_reader_accepts_are_refused(codec, data):
    """Whatever the header says, memory goes with the area of a tile that is really there."""
    small = codec.encode(picture(64, 64), 0.1, tile_px=2048)
    assert codec.decode(small, max_tile_px=64).size == (64, 64)
    with pytest.raises(TooLargeError, match="max_tile_px"):
        codec.decode(data, region=(0, 0, 1, 1), max_tile_px=TILE_PX - 1)
    with pytest.raises(ValueError, match="tile_px"):
        codec.encode(picture(64, 64), 0.1, tile_px=2112)


def test_progress_counts_the_tiles(codec, data):
    counted = []
    codec.decode(data, progress=lambda *counts: counted.append(counts))
    codec.encode(picture(65, 64), tile_px=64, progress=lambda *counts: counted.append(counts))
    assert counted == [(number, 12) for number in range(1, 13)] + [(1, 2), (2, 2)]


@pytest.mark.parametrize("channels", [1, 3])
def test_refining_in_bands_is_refining_the_whole(codec, monkeypatch, channels):
    """Memory is bounded by it; a latent does not see where the others were cut."""
    colour = picture(700, 300)[:, :, :channels]
    (box,) = Grid(700, 300, 1024, ModelConfig.margin_px).tiles()
    y = codec.model.backend.analyse(read_pixels(colour, box), 3000)
    search = Search(codec.model, colour, box, box, y, np.zeros((1, 1, 1), np.int32), 3000)
    symbols = np.rint(16.0 * y).astype(np.int32) // 16 * 16
    whole = search.look(symbols, gradient=True)
    assert np.abs(whole.gradient).max() > 0.05 * CURVATURE
    monkeypatch.setattr("codec.encoder.BAND_LATENTS", 10)
    seen, look = [], codec.model.backend.look

    def watched(pixels, latents, *rest, **options):
        seen.append(len(latents))
        return look(pixels, latents, *rest, **options)

    monkeypatch.setattr(codec.model.backend, "look", watched)
    parts = search.look(symbols, gradient=True)
    assert max(seen) <= 10 + 2 * (2 * codec.model.margin_px // LATENT_STRIDE) < len(whole.gradient)
    np.testing.assert_allclose(parts.gradient, whole.gradient, atol=1e-3 * CURVATURE)
    np.testing.assert_allclose(parts.error_bits, whole.error_bits, rtol=1e-3)
    alone = search.look(symbols, gradient=False)
    assert alone.gradient is None
    np.testing.assert_allclose(alone.error_bits, whole.error_bits, rtol=1e-3)


def spread(values: np.ndarray, reach: int) -> np.ndarray:
    """Sums over squares of 2 · reach + 1, (h, w)."""
    around = np.pad(values, reach)
    return sliding_window_view(around, (2 * reach + 1, 2 * reach + 1)).sum(axis=(2, 3))


@pytest.mark.parametrize("gradient", [False, True])
def test_bands_see_all_that_the_widest_transforms_see(codec, monkeypatch, gradient):
    """Transforms under which all within the margin acts, as those of larger weights may: symbols on pixels and back."""
    reach = codec.model.margin_px // LATENT_STRIDE

    def look(pixels, latents, rate_point, *, gradient):
        error = spread(latents[:, :, 0], reach)
        return Look(error, spread(error, reach)[:, :, None] if gradient else None)

    monkeypatch.setattr(codec.model.backend, "look", look)
    colour, symbols = picture(700, 300), np.random.default_rng(0).integers(0, 2, (44, 20, 1)) << LATENT_BITS
    (box,) = Grid(700, 300, 1024, ModelConfig.margin_px).tiles()
    search = Search(codec.model, colour, box, box, from_steps(symbols), np.zeros((1, 1, 1), np.int32), 3000)
    whole = search.look(symbols, gradient=gradient)
    monkeypatch.setattr("codec.encoder.BAND_LATENTS", 7)
    parts = search.look(symbols, gradient=gradient)
    np.testing.assert_array_equal(parts.error_bits, whole.error_bits)
    np.testing.assert_array_equal(parts.gradient, whole.gradient)


# Partial decoding.


def test_sound_file_has_no_damage(codec, data, whole):
    image, damage = codec.decode_partial(data)
    assert damage == []
    np.testing.assert_array_equal(np.asarray(image), whole)
    assert image.info["icc_profile"] == b"a profile"


@pytest.mark.parametrize("sealed", [False, True], ids=["bytes", "symbols"])
@pytest.mark.parametrize("tiles", [(0,), (5,), (11,), (1, 4, 6), tuple(range(1, 12)), tuple(range(12))], ids=str)
def test_damaged_tiles_are_grey_and_listed(codec, data, whole, tiles, sealed):
    """The others differ at most where the context of the damaged ones is missing."""
    broken = damaged(data, *tiles, sealed=sealed)
    image, damage = codec.decode_partial(broken)
    assert [(part.tile, part.region) for part in damage] == [(tile, GRID.region(tile)) for tile in tiles]
    assert all("damaged" in part.reason and "\n" not in part.reason for part in damage)
    pixels = np.asarray(image).astype(int)
    np.testing.assert_array_equal(pixels[:, :, 3], whole[:, :, 3])
    affected = np.zeros((HEIGHT, WIDTH), bool)
    for tile in tiles:
        x, y, width, height = GRID.region(tile)
        assert (pixels[y : y + height, x : x + width, :3] == GREY_LEVEL).all()
        affected[GRID.with_margin(GRID.tile(tile)).slices(Box(0, 0, 0, 0))] = True
    assert np.abs(pixels - whole)[~affected].max(initial=0) <= 1


def test_damage_is_grey():
    assert GREY_LEVEL == 128


def test_partial_decoding_forgives_damage_alone(codec, data, monkeypatch):
    """A fault of the program is no damage of the file."""

    def faulty(self: Decoder, number: int) -> Latents:
        raise KeyError(number)

    monkeypatch.setattr(Decoder, "latents", faulty)
    with pytest.raises(KeyError):
        codec.decode_partial(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_transforms_that_overflow_make_a_file_that_decodes(codec, monkeypatch, value):
    """Also to pixels that are the same everywhere."""
    backend = codec.model.backend
    for name in ("analyse", "hyper_analyse", "synthesise"):
        honest = getattr(backend, name)

        def broken(planes: np.ndarray, rate_point: int, honest=honest) -> np.ndarray:
            out = honest(planes, rate_point).copy()
            out[::2] = value
            return out

        with monkeypatch.context() as patch:
            patch.setattr(backend, name, broken)
            for effort in (0, 2):
                pixels = np.asarray(codec.decode(codec.encode(picture(64, 64), 0.7, effort=effort)))
            if name == "synthesise":
                assert (pixels[::2] == (255 if value == np.inf else 0)).all()


def test_missing_context_repeats_the_edge_of_the_tile(codec, data, whole, monkeypatch):
    """The pixels beside a damaged tile are then nearer to the truth than if it were zero, that is grey."""

    def zero(part: Latents, source: Box, outer: Box) -> Latents:
        latents = np.zeros((outer.height // 16, outer.width // 16, part.shape[2]), np.int16)
        copy_overlap(part, source, latents, outer, 16)
        return latents

    def error() -> float:
        pixels = np.asarray(codec.decode_partial(damaged(data, 5)).image).astype(int)
        beside = (slice(TILE_PX, 2 * TILE_PX), slice(2 * TILE_PX, 2 * TILE_PX + 8))
        return np.abs(pixels - whole)[beside].mean()

    repeated = error()
    monkeypatch.setattr("codec.decoder.extended", zero)
    assert 0.0 < repeated < 0.8 * error()


def test_metadata_and_alpha_may_be_damaged(codec, data, whole):
    header = unpack(data)
    broken = bytearray(data)
    for section in (header.metadata_section, header.alpha_section):
        broken[section.start + section.length // 2] ^= 1
    image, damage = codec.decode_partial(bytes(broken))
    assert [("metadata" in part.reason, "alpha" in part.reason) for part in damage] == [(True, False), (False, True)]
    assert all(part.tile is part.region is None for part in damage)
    assert image.info == {}
    pixels = np.asarray(image)
    assert (pixels[:, :, 3] == 255).all()
    np.testing.assert_array_equal(pixels[:, :, :3], whole[:, :, :3])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_file_that_is_cut_short_gives_the_tiles_that_are_there(codec, data, whole, share):
    header = unpack(data)
    cut = data[: int(header.tiles[0].start + share * (len(data) - header.tiles[0].start))]
    lost = [n for n, section in enumerate(header.tiles) if section.start + section.length > len(cut)]
    with pytest.raises(TruncatedError):
        codec.decode(cut)
    image, damage = codec.decode_partial(cut)
    assert str(len(cut)) in damage[0].reason
    assert [part.tile for part in damage] == [None, *lost]
    assert 0 < len(lost) < len(header.tiles)
    np.testing.assert_array_equal(np.asarray(image)[:64, :128], whole[:64, :128])


def test_bytes_behind_the_end_are_damage(codec, data, whole):
    image, damage = codec.decode_partial(data + b"?")
    assert len(damage) == 1
    np.testing.assert_array_equal(np.asarray(image), whole)


def test_region_of_a_damaged_file_is_the_crop_of_what_is_left(codec, data):
    broken = damaged(data, 5)
    left = np.asarray(codec.decode_partial(broken).image).astype(int)
    for region in REGIONS:
        part, damage = codec.decode_partial(broken, region=region)
        x, y, width, height = region
        near = GRID.touching(GRID.with_margin(Box(y, x, height, width)))
        assert [found.tile for found in damage] == [5] * (5 in near)
        assert np.abs(np.asarray(part) - crop(left, region)).max() <= 1


def test_damaged_header_stays_an_error(codec, data):
    for bit in range(8 * unpack(data).metadata_section.start):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CodecError):
            codec.decode_partial(bytes(broken))


def test_file_of_another_model_stays_an_error(codec, data):
    header = unpack(data)
    other = bytearray(data)
    other[16] ^= 1
    assert dataclasses.replace(unpack(reseal(bytes(other))), model_id=header.model_id) == header
    with pytest.raises(ModelMismatchError):
        codec.decode_partial(reseal(bytes(other)))


# The command line.


def run(*arguments: object):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def file(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file.yoto"
    path.write_bytes(data)
    return path


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def test_command_decodes_a_region(file, codec, data, weights_path):
    result = run("decode", file, "--region", "30,40,50,60", "--json", "--weights", weights_path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (json.loads(result.stdout)["width"], json.loads(result.stdout)["height"]) == (50, 60)
    expected = codec.decode(data, region=(30, 40, 50, 60))
    np.testing.assert_array_equal(pixels_of(file.with_suffix(".png")), np.asarray(expected))


def test_command_refuses_a_region(subtests, file):
    for region in ["1,2,3", "1,2,3,4,5", "a,b,c,d", "", "1.5,0,3,3", *(",".join(map(str, r)) for r in OUTSIDE)]:
        with subtests.test(region=region):
            result = run("decode", file, f"--region={region}")
            assert result.exit_code == 2
            assert result.stdout == ""
            assert result.stderr.splitlines()[-1].startswith("Error: ")
            assert "region" in result.stderr.splitlines()[-1]
            assert list(file.parent.iterdir()) == [file]


def test_command_writes_what_is_left_of_a_damaged_file(file, codec, data, weights_path):
    broken = damaged(data, 2, 7)
    file.write_bytes(broken)
    result = run("decode", file, "--partial", "--weights", weights_path)
    assert result.exit_code == 1
    lines = result.stderr.splitlines()
    assert len(lines) == 2
    assert "tile 2" in lines[0]
    assert "x 256, y 0, 128×128 px" in lines[0]
    assert "tile 7" in lines[1]
    expected = np.asarray(codec.decode_partial(broken).image)
    np.testing.assert_array_equal(pixels_of(file.with_suffix(".png")), expected)


def test_command_is_content_with_a_sound_file(file, weights_path):
    result = run("decode", file, "--partial", "--weights", weights_path)
    assert (result.exit_code, result.stderr) == (0, "")


def test_command_cannot_read_a_damaged_header(file, data, weights_path):
    file.write_bytes(data[:30])
    result = run("decode", file, "--partial", "--weights", weights_path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cut short" in result.stderr
    assert list(file.parent.iterdir()) == [file]
