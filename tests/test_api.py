"""Whole images to whole files and back, with the tiny model."""

from __future__ import annotations

import dataclasses
import io
import json
import pickle
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import numpy as np
import pytest
import safetensors.numpy
import torch
from conftest import make_model, picture, reseal
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image

import codec as package
from codec.api import Codec, integer_quality
from codec.decoder import Decoder
from codec.encoder import read_pixels
from codec.errors import (
    BitstreamError,
    CodecError,
    CorruptError,
    ImageError,
    LossWarning,
    ModelMismatchError,
    TooLargeError,
    WeightsError,
    explain,
)
from codec.format.bitstream import Header, pack, read_metadata, unpack
from codec.format.entropy import encode_symbols, integers_crc
from codec.grid import Grid
from codec.metrics import psnr_db
from codec.network import weights
from codec.network.config import LATENT_STRIDE, ModelConfig
from codec.network.layout import LATENT_BITS, Z_LIMIT
from training.export import freeze

SIZES = [(1, 1), (1, 257), (257, 1), (64, 64), (65, 63), (130, 300)]  # height, width
TILE_ENTRY = 23  # offset of the first tile's entry in a file without metadata and alpha


def rgba(height: int, width: int) -> np.ndarray:
    return np.dstack([picture(height, width), picture(height, width, 1)[:, :, 0]])


# Round trips.


def test_any_size_decodes_to_the_picture(subtests, codec):
    for tile_px in [64, 128, 1024]:
        for height, width in SIZES:
            with subtests.test(tile_px=tile_px, height=height, width=width):
                image = picture(height, width)
                data = codec.encode(image, 0.8, tile_px=tile_px)
                header = unpack(data)
                assert (header.width, header.height, header.tile_px) == (width, height, tile_px)
                assert len(header.tiles) == -(-height // tile_px) * -(-width // tile_px)
                decoded = codec.decode(data)
                assert (decoded.size, decoded.mode) == ((width, height), "RGB")
                assert (
                    psnr_db(np.asarray(decoded), image) > 24.0
                )  # measured: 26 to 30; the tiny model has a sixth of the bands


def test_extreme_levels_do_not_wrap_around(subtests, codec):
    for image in [np.zeros((70, 70, 3), np.uint8), np.full((70, 70, 3), 255, np.uint8)]:
        with subtests.test(image=image):
            decoded = np.asarray(codec.decode(codec.encode(image, 1.0))).astype(int)
            assert np.abs(decoded - image).max() < 40


def test_noise_that_no_table_expects_is_coded(codec):
    noise = np.random.default_rng(0).integers(0, 2, (64, 64, 3), dtype=np.uint8) * 255
    assert codec.decode(codec.encode(noise, 1.0)).size == (64, 64)


def test_same_input_gives_same_bytes(codec, weights_path):
    image = picture(130, 70)
    data = codec.encode(image, 0.6)
    assert codec.encode(image, 0.6) == data
    assert Codec(weights_path).encode(image, 0.6) == data


def test_forms_of_one_image_give_the_same_bytes(codec):
    image = picture(65, 66)
    data = codec.encode(image, 0.3)
    assert codec.encode(Image.fromarray(image), 0.3) == data
    assert codec.encode(torch.from_numpy(image).permute(2, 0, 1), 0.3) == data
    assert codec.encode(torch.from_numpy(image).permute(2, 0, 1) / 255.0, 0.3) == data
    assert codec.encode(np.asfortranarray(image), 0.3) == data
    assert codec.encode(image[::-1].copy()[::-1], 0.3) == data


def test_surrounding_autocast_does_not_matter(codec):
    image = picture(65, 66)
    data = codec.encode(image, 0.3)
    pixels = np.asarray(codec.decode(data))
    with torch.autocast("cpu", torch.bfloat16):
        assert codec.encode(image, 0.3) == data
        np.testing.assert_array_equal(np.asarray(codec.decode(data)), pixels)


def test_eight_threads_share_a_codec(weights_path):
    codec = Codec(weights_path)
    jobs = [(picture(70, 90, i), i % 8 / 8) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        files = list(pool.map(lambda job: codec.encode(*job), jobs))
        images = list(pool.map(lambda data: np.asarray(codec.decode(data)), files))
    serial = Codec(weights_path)
    assert files == [serial.encode(*job) for job in jobs]
    np.testing.assert_array_equal(images, [np.asarray(serial.decode(data)) for data in files])


# Tiles.


def test_analysis_of_a_tile_does_not_see_its_borders(codec):
    image = picture(300, 330)
    grid = Grid(300, 330, 64, ModelConfig.margin_px)
    whole = codec.model.backend.analyse(read_pixels(image, grid.padded), 2048)
    for box in grid.tiles():
        outer = grid.with_margin(box)
        part = codec.model.backend.analyse(read_pixels(image, outer), 2048)[box.slices(outer, LATENT_STRIDE)]
        np.testing.assert_allclose(part, whole[box.slices(grid.padded, LATENT_STRIDE)], atol=1e-3, rtol=0.0)


@pytest.mark.parametrize("quality", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("channels", [1, 3])
def test_effort_lowers_the_lagrangian(codec, quality, channels):
    """Bits and error, weighed as in training: a second look pays, and a third does not lose it again."""
    image = picture(200, 280)[:, :, :channels]

    def lagrangian(effort: int) -> float:
        data = codec.encode(image, quality, effort=effort)
        error = np.asarray(codec.decode(data), float).reshape(image.shape) - image
        return 8 * len(data) + codec.weights.config.lmbda(quality) * np.square(error).mean() * 200 * 280

    costs = [lagrangian(effort) for effort in range(3)]
    assert costs[1] < costs[0]
    assert costs[2] < costs[0]


def test_rejects_effort_out_of_range(subtests, codec):
    for effort in [-1, 9]:
        with subtests.test(effort=effort), pytest.raises(ValueError, match="effort"):
            codec.encode(picture(8, 8), effort=effort)


@pytest.mark.parametrize("tile_px", [64, 128, 192])
def test_synthesis_leaves_no_seam_between_tiles(codec, tile_px):
    """Cut the latents of one tile into many: the pixels stay, but for the last bits of float sums."""
    rng = np.random.default_rng(0)
    latents = np.rint(rng.normal(size=(20, 24, codec.weights.config.M)) * 3).astype(np.int16) << LATENT_BITS
    one, many = (
        Decoder.of(codec.model, Header(380, 310, 2000, codec.model.id, tile_px=px), b"") for px in (1024, tile_px)
    )
    whole = one.pixels({0: latents}, 0, one.grid.padded)
    assert whole.std() > 20
    boxes = list(many.grid.tiles())
    parts = {
        i: latents[b.top // 16 : (b.top + b.height) // 16, b.left // 16 : (b.left + b.width) // 16]
        for i, b in enumerate(boxes)
    }
    for number, box in enumerate(boxes):
        pixels = many.pixels(parts, number, box).astype(int)
        expected = whole[box.top : box.top + box.height, box.left : box.left + box.width]
        assert np.abs(pixels - expected).max() <= 1
        assert np.mean(pixels != expected) < 0.001


def test_rows_of_tiles_are_decoded_with_both_neighbours(codec):
    """The files of 64 px tiles and of one tile show the same picture, though their symbols differ a little."""
    image = picture(320, 256)
    many, one = (np.asarray(codec.decode(codec.encode(image, 1.0, tile_px=px))).astype(int) for px in (64, 1024))
    assert psnr_db(many.astype(np.uint8), one.astype(np.uint8)) > psnr_db(image, one.astype(np.uint8)) + 6.0
    steps = np.abs(np.diff(many - one, axis=0)).mean(axis=(1, 2))  # between neighbouring rows
    assert steps[63::64].mean() < 1.5 * steps.mean()


# Rate.


def test_more_quality_gives_more_bytes_and_a_better_picture(codec):
    """The picture within what the tiny model's bands can show, to 0.4 of quality."""
    image = picture(192, 256)
    files = [codec.encode(image, quality) for quality in (0.0, 0.1, 0.25, 0.4, 0.6, 0.8, 1.0)]
    sizes = [len(data) for data in files]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] > 4 * sizes[0]
    psnr = [psnr_db(np.asarray(codec.decode(data)), image) for data in files[:4]]
    assert psnr == sorted(psnr)


def test_header_holds_the_quality(subtests, codec):
    for quality, integer in [(0, 0), (0.0, 0), (0.25, 1024), (0.5, 2048), (1.0, 4096), (1, 4096)]:
        with subtests.test(quality=quality, integer=integer):
            assert integer_quality(quality) == integer
            header = unpack(codec.encode(picture(8, 8), quality))
            assert (header.rate_point, header.quality) == (integer, integer / 4096)


# Channels and metadata.


def test_grey_stays_grey(codec):
    image = Image.fromarray(picture(70, 90)[:, :, 0])
    data = codec.encode(image, 0.9)
    decoded = codec.decode(data)
    assert unpack(data).mode == decoded.mode == "L"
    assert decoded.size == image.size
    assert psnr_db(np.asarray(decoded), np.asarray(image)) > 24.0


def test_alpha_is_lossless(subtests, codec):
    for mode in ["LA", "RGBA"]:
        for quality in [0.0, 1.0]:
            with subtests.test(mode=mode, quality=quality):
                image = Image.fromarray(rgba(65, 70)).convert(mode)
                data = codec.encode(image, quality)
                decoded = codec.decode(data)
                assert unpack(data).mode == decoded.mode == mode
                np.testing.assert_array_equal(np.asarray(decoded.getchannel("A")), np.asarray(image.getchannel("A")))


def test_alpha_does_not_change_the_colours(codec):
    image = rgba(65, 70)
    with_alpha, without = (codec.decode(codec.encode(a, 0.5)) for a in (image, image[:, :, :3]))
    np.testing.assert_array_equal(np.asarray(with_alpha)[:, :, :3], np.asarray(without))


def with_metadata() -> Image.Image:
    image = Image.fromarray(picture(40, 50))
    exif = Image.Exif()
    exif[0x010E] = "kept"
    image.info.update(icc_profile=b"a profile", exif=exif.tobytes(), xmp=b"<xmp/>")
    return image


def test_metadata_is_kept(codec):
    image = with_metadata()
    info = codec.decode(codec.encode(image)).info
    assert {name: info[name] for name in ("icc_profile", "exif", "xmp")} == image.info


def test_metadata_is_stripped_on_request(codec):
    data = codec.encode(with_metadata(), keep_metadata=False)
    assert not read_metadata(unpack(data), data)
    assert codec.decode(data).info == {}
    assert data == codec.encode(picture(40, 50))


# Refusals.


def test_file_of_another_model_is_a_mismatch(codec, tmp_path):
    model = make_model()
    path = tmp_path / "other.safetensors"
    weights.save(path, dataclasses.replace(model.config, lmbda_max=0.3), freeze(model), {})
    other = Codec(path)
    with pytest.raises(ModelMismatchError, match=other.weights.model_id.hex()):
        codec.decode(other.encode(picture(64, 64)))


def test_model_id_begins_the_hash_of_the_weights(codec):
    assert codec.weights.sha256.startswith(unpack(codec.encode(picture(8, 8))).model_id.hex())


def test_wrong_symbols_checksum_is_corrupt(codec):
    data = bytearray(codec.encode(picture(64, 64)))
    data[TILE_ENTRY + 8] ^= 1
    with pytest.raises(CorruptError, match="other integers"):
        codec.decode(reseal(bytes(data)))


def test_other_payload_under_right_checksums_is_corrupt(codec):
    """The checksum of the integers sees what that of the bytes cannot."""
    first, second = codec.encode(picture(64, 64)), codec.encode(picture(64, 64, 1))
    payload = second[TILE_ENTRY + 16 :]
    forged = bytearray(first[: TILE_ENTRY + 16] + payload)
    struct.pack_into("<I", forged, TILE_ENTRY, len(payload))
    with pytest.raises(CorruptError, match=r"other integers|left over"):
        codec.decode(reseal(bytes(forged)))


def test_number_that_no_symbol_asks_for_is_corrupt(codec):
    """The integers are right, and so are all checksums, but no encoder writes such a stream."""
    data = codec.encode(picture(64, 64))
    payload = data[TILE_ENTRY + 16 :]
    end = 1 + payload[0] // 2  # of the numbers of escapes, whose bytes are counted twice
    longer = bytes([payload[0] + 2]) + payload[1:end] + b"\0" + payload[end:]
    forged = bytearray(data[: TILE_ENTRY + 16] + longer)
    struct.pack_into("<I", forged, TILE_ENTRY, len(longer))
    with pytest.raises(CorruptError, match="left over"):
        codec.decode(reseal(bytes(forged)))


def test_hyper_latent_out_of_range_is_corrupt(codec):
    """Beyond it the sums of the entropy model might not be exact."""
    prior = codec.model.prior(2048)
    for value in (Z_LIMIT, Z_LIMIT + 1, -Z_LIMIT - 1):
        z = np.full((1, 1, codec.weights.config.Z), value, np.int32)
        tile = prior.run(z, lambda _, __, rows: np.zeros_like(rows))
        payload = encode_symbols(tile.stages, codec.weights.tables)
        header = Header(64, 64, 2048, codec.weights.model_id)
        data = pack(header, [(payload, integers_crc(z, tile.y_hat))])
        if abs(value) <= Z_LIMIT:
            assert codec.decode(data).size == (64, 64)
        else:
            with pytest.raises(CorruptError, match="out of range"):
                codec.decode(data)


def test_file_at_another_quality_is_corrupt(codec):
    data = bytearray(codec.encode(picture(64, 64), 0.5))
    data[6] ^= 64
    with pytest.raises(CorruptError):
        codec.decode(reseal(bytes(data)))


def test_every_flipped_bit_is_a_codec_error(codec):
    data = codec.encode(rgba(5, 5), 0.0)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises((BitstreamError, ImageError)):
            codec.decode(bytes(damaged))


def test_more_pixels_than_the_limit_are_refused(codec):
    data = codec.encode(picture(10, 10))
    assert codec.decode(data, max_pixels=64 * 64).size == (10, 10)
    with pytest.raises(ImageError, match="max_pixels"):
        codec.decode(data, max_pixels=64 * 64 - 1)


def test_quality_out_of_range_is_the_callers_mistake(subtests, codec):
    for quality in [-0.01, 1.01, float("nan"), float("inf")]:
        with subtests.test(quality=quality), pytest.raises(ValueError, match="quality"):
            codec.encode(picture(8, 8), quality)


def test_quality_of_another_type_is_the_callers_mistake(subtests, codec):
    for quality in ["0.5", None, [0.5]]:
        with subtests.test(quality=quality), pytest.raises(TypeError):
            codec.encode(picture(8, 8), quality)


def test_tile_size_out_of_range_is_the_callers_mistake(subtests, codec):
    for tile_px in [0, -64, 1, 65, 64 * 256]:
        with subtests.test(tile_px=tile_px), pytest.raises(ValueError, match="tile_px"):
            codec.encode(picture(8, 8), tile_px=tile_px)


def test_image_of_another_type_is_the_callers_mistake(subtests, codec):
    for image in [None, 3, np.zeros((4, 4, 3), int)]:
        with subtests.test(image=image), pytest.raises(TypeError):
            codec.encode(image)


# Weights.


def test_weights_come_back_as_saved(model, weights_path):
    loaded = weights.load(weights_path)
    assert loaded.config == model.config
    assert loaded.card == {"origin": "tests"}
    assert loaded.model_id == bytes.fromhex(loaded.sha256)[:6]
    frozen = freeze(model)
    assert set(loaded.integers) == {name for name in frozen if not name.startswith("transforms.")}
    assert all(np.array_equal(tensor, frozen[name]) for name, tensor in loaded.integers.items())
    assert set(loaded.floats) == set(model.transforms.state_dict())
    for name, tensor in loaded.floats.items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, frozen[f"transforms.{name}"])


def test_missing_weights(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read"):
        Codec(tmp_path / "missing.safetensors")


@pytest.mark.parametrize("kept", [0, 7, 8, 100, 0.5, -1])
def test_truncated_weights(weights_path, tmp_path, kept):
    data = weights_path.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(WeightsError, match="not a usable weights file"):
        Codec(path)


@pytest.mark.parametrize("dump", [torch.save, lambda model, path: path.write_bytes(pickle.dumps(model))])
def test_pickled_weights_are_refused(model, tmp_path, dump):
    path = tmp_path / "pickle.safetensors"
    dump(model.state_dict(), path)
    with pytest.raises(WeightsError, match="not a usable weights file"):
        Codec(path)


def test_anything_but_the_released_model_is_refused_in_its_place(weights_path, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    (tmp_path / f"{weights.DEFAULT_ID.hex()}.safetensors").write_bytes(weights_path.read_bytes())
    with pytest.raises(WeightsError, match="not the model that was released"):
        weights.load()


def first_cut(tensor: np.ndarray) -> np.ndarray:
    return tensor[1:]


TAMPERED = {
    "transform missing": ("transforms.g_a.head.weight", None),
    "transform of another shape": ("transforms.g_a.head.weight", first_cut),
    "layer missing": ("h_s.up1.weight", None),
    "dense layer of another shape": ("h_s.up1.weight", first_cut),
    "bias of another shape": ("passes.0.mix.bias", lambda t: t[:, 1:]),
    "too few knots": ("passes.0.mix.bias", lambda t: t[:1]),
    "depthwise layer of another shape": ("passes.1.spatial.weight", first_cut),
    "head of another shape": ("passes.3.head.weight", first_cut),
    "norm of another shape": ("norm", lambda t: t[:, 4:]),
    "z_index of another shape": ("z_index", lambda t: t[:, 1:]),
    "floating-point layer": ("h_s.up1.weight", lambda t: t.astype(np.float32)),
    "frequencies missing": ("tables.frequencies", None),
    "frequencies of another sum": ("tables.frequencies", lambda t: t + 1),
    "radii of another length": ("tables.radii", first_cut),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_weights(model, tmp_path, case):
    name, change = TAMPERED[case]
    tensors = freeze(model)
    tensor = tensors.pop(name)
    if change:
        tensors[name] = change(tensor)
    path = tmp_path / "tampered.safetensors"
    weights.save(path, model.config, tensors, {})
    with pytest.raises(WeightsError, match="not a usable weights file") as caught:
        Codec(path)
    assert "\n" not in str(caught.value)


def test_tables_with_too_few_rows_are_refused(model, tmp_path):
    tensors = freeze(model)
    radii = tensors["tables.radii"]
    tensors["tables.radii"] = radii[:-1]
    tensors["tables.frequencies"] = tensors["tables.frequencies"][: -(2 * int(radii[-1]) + 2)]
    path = tmp_path / "rows.safetensors"
    weights.save(path, model.config, tensors, {})
    with pytest.raises(WeightsError, match="not a usable weights file"):
        Codec(path)


def test_row_of_z_beyond_the_tables_is_refused(model, tmp_path):
    path = tmp_path / "index.safetensors"
    weights.save(path, model.config, freeze(model) | {"z_index": np.full((33, model.config.Z), 64, np.int32)}, {})
    with pytest.raises(WeightsError, match="not a usable weights file"):
        Codec(path)


def test_unknown_tensor_of_the_transforms_is_refused(model, tmp_path):
    path = tmp_path / "more.safetensors"
    weights.save(path, model.config, freeze(model) | {"transforms.more": np.zeros(1, np.float32)}, {})
    with pytest.raises(WeightsError, match="more"):
        Codec(path)


NOTES = {
    "no notes": None,
    "another format": {"format": "yoto-codec weights 1"},
    "no configuration": {"config": None},
    "configuration that is no JSON": {"config": "{"},
    "configuration that is no table": {"config": "[1]"},
    "unknown setting": {"config": json.dumps({"depth": 3})},
    "setting of another type": {"config": json.dumps({"N": "32"})},
    "another size": {"config": json.dumps({"N": 64})},
    "negative size": {"config": json.dumps({"N": -1})},
    "negative count": {"config": json.dumps({"synthesis_blocks": -40})},
    "too many blocks": {"config": json.dumps({"analysis_coarse": 40_000})},
    "number that is none": {"config": json.dumps({"fine_scale": float("nan")})},
    "unknown gate": {"config": json.dumps({"gate": "tanh"})},
    "blocks that reach beyond the margin": {"config": json.dumps({"synthesis_blocks": 24})},
    "knots that divide no quality": {"config": json.dumps({"knots": 34})},
    "card that is no JSON": {"card": "?"},
}


@pytest.mark.parametrize("case", NOTES)
def test_weights_with_other_notes(model, tmp_path, case):
    notes = {"format": weights.FORMAT, "config": json.dumps(dataclasses.asdict(model.config)), "card": "{}"}
    changes = NOTES[case]
    merged = {} if changes is None else {key: value for key, value in (notes | changes).items() if value is not None}
    path = tmp_path / "notes.safetensors"
    path.write_bytes(safetensors.numpy.save(freeze(model), metadata=merged))
    with pytest.raises(WeightsError, match="not a usable weights file"):
        Codec(path)


def test_the_model_id_is_that_of_what_a_decoder_needs(model, weights_path, tmp_path):
    def saved(tensors: dict[str, np.ndarray], config: ModelConfig = model.config) -> bytes:
        path = tmp_path / "changed.safetensors"
        weights.save(path, config, tensors, {"origin": "another card"})
        return weights.load(path).model_id

    own, tensors = weights.load(weights_path).model_id, freeze(model)
    assert saved(tensors) == own
    for name in ("g_a.head.weight", "h_a.tail.bias", "encoder_gain.bias"):
        assert saved(tensors | {f"transforms.{name}": tensors[f"transforms.{name}"] * np.float16(0.5) + 1}) == own
    for name in ("transforms.g_s.head.weight", "transforms.channel_std", "embed.bias", "z_index", "norm"):
        assert saved(tensors | {name: tensors[name] * 0 + 1}) != own
    assert saved(tensors, dataclasses.replace(model.config, lmbda_min=0.0009)) != own


def test_a_file_of_another_installed_model_decodes(codec, weights_path, tmp_path, monkeypatch):
    own = Codec()
    data = codec.encode(picture(64, 64))
    with pytest.raises(ModelMismatchError) as caught:
        own.decode(data)
    for there in (codec.weights.model_id, *weights.available()):
        assert there.hex() in str(caught.value)
    (tmp_path / f"{codec.weights.model_id.hex()}.safetensors").write_bytes(weights_path.read_bytes())
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    np.testing.assert_array_equal(own.decode(data), codec.decode(data))


# Whatever stands for a file.


@pytest.mark.parametrize(
    "give", [str, Path, lambda p: p.read_bytes(), lambda p: io.BytesIO(p.read_bytes()), lambda p: f"file://{p}"]
)
def test_files_are_taken_by_path_url_bytes_or_open(codec, tmp_path, monkeypatch, give):
    monkeypatch.setattr("codec.api.default_codec", lambda _: codec)
    image = Image.fromarray(picture(40, 70))
    image.save(tmp_path / "in.png")
    data = package.encode(give(tmp_path / "in.png"), 0.3, effort=0)
    assert data == codec.encode(image, 0.3, effort=0)
    (tmp_path / "x.yoto").write_bytes(data)
    decoded = package.decode(give(tmp_path / "x.yoto"), region=(1, 2, 30, 20))
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(codec.decode(data, region=(1, 2, 30, 20))))
    damaged = tmp_path / "damaged.yoto"
    damaged.write_bytes(data[:-3])
    assert package.decode(give(damaged), partial=True).damage
    with pytest.raises(TooLargeError):
        package.decode(give(tmp_path / "x.yoto"), max_pixels=4096)
    with pytest.raises(TooLargeError):
        package.encode(give(tmp_path / "in.png"), max_pixels=4096)


class Refusing(MemoryFileSystem):
    """A server that lets nobody in, in words of its client's own."""

    protocol = "refusing"

    def cat_file(self, path, *_, **__):
        raise RuntimeError(f"403,\nForbidden: {path}")


def test_urls_are_read_and_what_their_servers_say_is_one_line(codec):
    buffer = io.BytesIO()
    Image.fromarray(picture(40, 70)).save(buffer, "PNG")
    fsspec.filesystem("memory").pipe_file("/in.png", buffer.getvalue())
    fsspec.register_implementation("refusing", Refusing, clobber=True)
    assert codec.encode("memory://in.png", 0.3) == codec.encode(picture(40, 70), 0.3)
    with pytest.raises(FileNotFoundError) as missing:
        codec.encode("memory://none.png")
    assert explain(missing.value) == "memory://none.png: No such file or directory"
    with pytest.raises(CodecError, match=r"^refusing://x\.yoto cannot be read: 403, Forbidden: [^\n]*$"):
        codec.decode("refusing://x.yoto")


def test_what_a_file_loses_is_warned_of_where_it_is_encoded(codec):
    buffer = io.BytesIO()
    Image.fromarray(picture(8, 8)).save(buffer, "JPEG", comment=b"mine")
    with pytest.warns(LossWarning, match="left out: comment") as caught:
        codec.encode(buffer.getvalue())
    assert caught[0].filename == __file__
