"""A tiny model with seeded weights, synthetic pictures, and a way to forge files whose checksums are right."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from codec.api import Codec
from codec.network import weights
from codec.network.config import ModelConfig
from codec.network.model import YotoModel
from training.export import freeze
from training.init import init_from_images

TINY = ModelConfig(
    N=32, M=32, Z=8, D=16, cond_width=8, extra=16, analysis_blocks=1, synthesis_blocks=1, synthesis_coarse=1
)
CONDITIONED = ("film", "gain", "z_index", "project", "context_bias")  # what starts at zero

settings.register_profile("reproducible", derandomize=True, database=None, deadline=None)
settings.load_profile("reproducible")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A synthetic image, uint8 (height, width, 3): waves, an edge, and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / 64.0
    phase, speed = rng.uniform(0, 6, 3), rng.uniform(0.5, 3, (2, 3))
    waves = np.sin(speed[0] * x + phase) + np.cos(speed[1] * y - phase) + 0.7 * (x + y > 1.3)
    return np.clip(128 + 45 * waves + rng.normal(0, 6, waves.shape), 0, 255).astype(np.uint8)


def page(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A synthetic page, uint8 (height, width, 3): the picture at the left, strokes on a flat ground at the right."""
    rng = np.random.default_rng(seed)
    out = picture(height, width, seed)
    out[:, width // 2 :] = (250, 250, 240)
    strokes = rng.random((-(-height // 2), -(-width // 4))) < 0.2
    drawn = strokes.repeat(2, axis=0)[:height].repeat(4, axis=1)[:, :width]
    drawn[:, : width // 2] = False
    drawn[::12] = drawn[1::12] = False
    out[drawn] = (20, 30, 60)
    return out


def batch(count: int, side: int) -> torch.Tensor:
    """Pictures as float32 (count, 3, side, side) in [0, 1]."""
    pictures = np.stack([picture(side, side, seed) for seed in range(count)])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255.0


def make_model(config: ModelConfig = TINY) -> YotoModel:
    """A model as training starts it, but quality conditions every part."""
    torch.manual_seed(0)
    model = YotoModel(config).eval()
    init_from_images(model, batch(8, 128))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in CONDITIONED):
                parameter.add_(0.05 * torch.randn_like(parameter))
        for context_pass in model.prior.passes:
            context_pass.head.weight.mul_(20.0)  # training starts with nearly constant means and scales
        model.transforms.h_a.tail.weight.mul_(20.0)  # and with z = 0
    return model


def reseal(data: bytes) -> bytes:
    """The file with the checksums of its header and sections made right, if its section table is all there."""
    if len(data) < 23 or data[22] == 0:
        return data
    flags, (width, height), tile_px = data[5], struct.unpack_from("<II", data, 8), 64 * data[22]
    tiles = -(-width // tile_px) * -(-height // tile_px)
    extra = bool(flags & 4) + bool(flags & 1)
    first_tile, end = 23 + 8 * extra, 23 + 8 * extra + (24 if data[4] == 2 else 12) * tiles
    if len(data) < end + 4:
        return data
    out, start = bytearray(data), end + 4
    for entry in [*range(23, first_tile, 8), *range(first_tile, end, 12)]:
        (length,) = struct.unpack_from("<I", data, entry)
        struct.pack_into("<I", out, entry + 4, zlib.crc32(data[start : start + length]))
        start += length
    struct.pack_into("<I", out, end, zlib.crc32(out[:end]))
    return bytes(out)


@pytest.fixture(scope="session")
def model() -> YotoModel:
    return make_model()


@pytest.fixture(scope="session")
def weights_path(model: YotoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    weights.save(path, model.config, freeze(model), {"origin": "tests"})
    return path


@pytest.fixture(scope="session")
def codec(weights_path: Path) -> Codec:
    return Codec(weights_path)
