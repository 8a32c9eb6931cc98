"""Our likelihoods and tables against CompressAI's, and the weights as one of its models that its own tools evaluate.

In the environment that CompressAI needs, which `make test-all` makes.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from conftest import page, picture
from PIL import Image

from benchmarks.crosscheck import ask
from codec.api import default_codec
from codec.format.bitstream import QUALITY_MAX, unpack
from codec.format.entropy import FREQUENCY_BITS
from codec.metrics import psnr_db
from codec.network.config import ModelConfig
from codec.network.layers import gaussian_bits
from training.export import frequency_tables

ROOT = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("YOTO_COMPRESSAI_PYTHON") or ROOT / ".venv-compressai/bin/python")
CONFIG = ModelConfig()
SCALES = [CONFIG.scales_min * math.exp(CONFIG.scales_step * row) for row in range(CONFIG.scales_levels)]
# The package index's torchvision is built for CUDA: beside a CPU build of torch it misses what its C++ part declares.
PRELUDE = """
import torch
try:
    import torchvision
except RuntimeError:
    import sys
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
"""
# What a user of CompressAI may do with a model; prints what a test holds against the codec.
CALLS = """
import json, sys
import numpy as np
from PIL import Image
from codec.api import Codec
from codec.compressai import YotoModel

weights, *paths = sys.argv[1:]
x = torch.stack([torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1) for path in paths]).float() / 255
model = YotoModel(weights).eval()
model.load_state_dict(model.state_dict())
said = {"updated": model.update(), "parameters": sum(p.numel() for p in model.parameters()), "points": []}
for quality in (0.2, 0.7):
    model.quality = quality
    net, coded = model(x), model.compress(x)
    x_hat = model.decompress(coded["strings"], coded["shape"])["x_hat"]
    assert x_hat.dtype == torch.float32
    assert torch.equal(net["x_hat"], x_hat), "what forward returns is not what the files hold"
    (files,) = coded["strings"]
    codec = Codec(weights, backend="torch")
    said["points"].append({
        "quality": model.quality,
        "shape": list(coded["shape"]),
        "files": [data.hex() for data in files],
        "same": [data == codec.encode(picture, quality) for data, picture in zip(files, x)],
        "levels": (x_hat * 255).round().to(torch.uint8).permute(0, 2, 3, 1).tolist(),
        "sizes": {name: list(map.shape) for name, map in net["likelihoods"].items()},
        "ranges": [[map.min().item(), map.max().item()] for map in net["likelihoods"].values()],
        "bits": sum(-map.double().log2().sum(dim=(1, 2, 3)) for map in net["likelihoods"].values()).tolist(),
    })
errors = []
for wrong in (
    lambda: model(x[:, :1]),
    lambda: model.decompress(coded["strings"], (9, 9)),
    lambda: YotoModel(quality=2),
):
    try:
        wrong()
    except ValueError as error:
        errors.append(str(error))
print(json.dumps(said | {"errors": errors}))
"""
# `python -m codec.compressai`, whose process first gets what PRELUDE defines.
TOOL = """
import runpy, sys
runpy.run_module("codec.compressai", run_name="__main__", alter_sys=True)
"""
RESIDUALS = [-40, -7, -3, -1, 0, 1, 2, 5, 12]


def masses_of(deviation: float, radius: int) -> np.ndarray:
    """Of -radius … radius, then of all else: the order that CompressAI takes."""
    normal = NormalDist(0.0, deviation)
    inside = [normal.cdf(k + 0.5) - normal.cdf(k - 0.5) for k in range(-radius, 1)]  # the lower half loses no digits
    return np.array([*inside, *inside[-2::-1], 2.0 * normal.cdf(-radius - 0.5)])


@pytest.fixture(scope="module")
def tables() -> list[np.ndarray]:
    """Ours: escape, -radius … radius."""
    stored = frequency_tables(CONFIG)
    lengths = 2 * np.asarray(stored["tables.radii"]) + 2
    return np.split(np.asarray(stored["tables.frequencies"]).astype(np.int64), np.cumsum(lengths)[:-1])


@pytest.fixture(scope="module")
def masses(tables) -> list[np.ndarray]:
    return [masses_of(deviation, len(row) // 2 - 1) for deviation, row in zip(SCALES, tables, strict=True)]


@pytest.fixture(scope="module")
def theirs(masses) -> dict[str, list]:
    return ask(PYTHON, {"scales": SCALES, "residuals": RESIDUALS, "masses": [row.tolist() for row in masses]})


def test_likelihoods_are_those_of_gaussian_conditional(theirs):
    likelihoods = np.array(theirs["likelihoods"])
    ours = gaussian_bits(torch.tensor(RESIDUALS, dtype=torch.float32)[None, :], torch.tensor(SCALES)[:, None]).numpy()
    near = np.abs(RESIDUALS)[None, :] <= 4.0 * np.array(SCALES)[:, None] + 0.5  # beyond stands the escape
    assert near.sum() > 200
    assert np.abs(ours + np.log2(likelihoods))[near].max() < 0.01


def test_tables_cost_no_more_than_those_of_pmf_to_quantized_cdf(theirs, tables, masses):
    for row, cdf, mass in zip(tables, theirs["cdfs"], masses, strict=True):
        frequencies = np.diff(cdf)
        assert frequencies.sum() == row.sum() == 1 << FREQUENCY_BITS
        ours = np.append(row[1:], row[0])
        assert np.abs(ours - frequencies).max() <= len(row)  # either gives each symbol its one at others' expense
        excess = float((mass * (np.log2(frequencies) - np.log2(ours))).sum())
        assert excess < 1e-5  # bits a symbol


def run_beside_compressai(program: str, *arguments: object) -> Any:
    """JSON that a program prints where CompressAI is."""
    done = subprocess.run(
        [PYTHON, "-c", PRELUDE + program, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_weights_are_one_of_its_models(weights_path, codec, tmp_path):
    pictures = [picture(100, 140, 0), page(100, 140, 1)]  # of which codec.encode stores a part of the second exactly
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for path, pixels in zip(paths, pictures, strict=True):
        Image.fromarray(pixels).save(path)
    said = run_beside_compressai(CALLS, weights_path, *paths)
    assert not said["updated"]  # its tables are shipped, and nothing makes others
    assert said["parameters"] == sum(array.size for name, array in codec.weights.floats.items() if "_std" not in name)
    low, high = said["points"]
    for point, quality in ((low, 0.2), (high, 0.7)):
        assert point["quality"] == pytest.approx(quality, abs=1 / 4096)
        assert point["shape"] == [2, 3]
        assert point["sizes"] == {"y": [2, 32, 8, 12], "z": [2, 8, 2, 3]}
        assert all(0 < smallest < 1 and largest <= 1 for smallest, largest in point["ranges"])
        assert point["same"] == [True, False]
        for text, levels, bits in zip(point["files"], point["levels"], point["bits"], strict=True):
            data = bytes.fromhex(text)
            assert unpack(data).rate_point == round(quality * QUALITY_MAX)
            assert np.abs(np.asarray(codec.decode(data)).astype(int) - levels).max() <= 1
            (stream,) = unpack(data).tiles
            assert bits / 8 - 1 < stream.length < 1.001 * bits / 8 + 16  # as test_entropy bounds a stream
    assert all(len(small) < len(large) for small, large in zip(low["files"], high["files"], strict=True))
    channels, shape, range_ = said["errors"]
    assert "1 channels; expected 3" in channels
    assert "not of shape (9, 9)" in shape
    assert "must lie between 0 and 1" in range_


@pytest.mark.parametrize("estimated", [False, True])
def test_its_own_evaluation_runs_unchanged(tmp_path, estimated):
    paths = [tmp_path / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        Image.fromarray(picture(192, 256, number)).save(path)  # multiples of 64: padding is the tool's
    options = ["--entropy-estimation"] if estimated else []
    said = run_beside_compressai(TOOL, "pretrained", tmp_path, "-a", "yoto", "-q", "20,70", *options)
    assert said["name"] == "yoto-mse"
    ours = [[measured(path, quality) for path in paths] for quality in (0.2, 0.7)]
    bits, stream_bits, psnr = np.mean(ours, axis=1).T
    bpp = np.array(said["results"]["bpp"])
    assert said["results"]["psnr-rgb"] == pytest.approx(psnr, abs=1e-3)
    if estimated:
        assert 192 * 256 * bpp == pytest.approx(stream_bits, abs=128)
    else:
        assert 192 * 256 * bpp == pytest.approx(bits, rel=2e-3)  # back ends differ by a symbol or two


def measured(path: Path, quality: float) -> tuple[float, float, float]:
    """Bits of the codec's file and of its symbols, and PSNR."""
    original = np.asarray(Image.open(path))
    data = default_codec().encode(original, quality)
    (stream,) = unpack(data).tiles
    return 8 * len(data), 8 * stream.length, psnr_db(original, np.asarray(default_codec().decode(data)))
