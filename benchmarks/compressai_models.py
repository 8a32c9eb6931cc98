"""Speed and complexity of CompressAI's models, in a process and with the interpreter of their own.

CompressAI pins numpy < 2 and its torchvision fails beside a CPU build of torch, so it gets an environment of its own
(`make .venv-compressai`), and this module runs there: `PYTHON -m benchmarks.compressai_models`. At its top it imports
the standard library alone, so that both sides can import it.

The weights are random: the released ones need a download. Sizes, operations and numbers of symbols are those of the
released models, the streams are shorter. Encoding is `compress()`, decoding `decompress()`: network, entropy model and
entropy coder.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
ENOUGH_S = 20.0  # of a model, in either direction: the serial ones take seconds a call
FEWEST = 3  # calls, however slow


class Model(NamedTuple):
    """A model of a certain size."""

    name: str
    module: str
    kind: str
    sizes: tuple[int, ...]  # as in compressai.zoo
    options: dict[str, Any]
    anchor: str  # its published curve


HYPERPRIOR, MEAN, CHENG = (
    f"CompressAI {name} (mse)" for name in ("bmshj2018-hyperprior", "mbt2018-mean", "cheng2020-anchor")
)
VARIABLE = {"vr_entbttlnck": True}
MODELS = (
    Model("bmshj2018-hyperprior 1–5", "google", "ScaleHyperprior", (128, 192), {}, HYPERPRIOR),
    Model("bmshj2018-hyperprior 6–8", "google", "ScaleHyperprior", (192, 320), {}, HYPERPRIOR),
    Model("mbt2018-mean 1–4", "google", "MeanScaleHyperprior", (128, 192), {}, MEAN),
    Model("mbt2018-mean 5–8", "google", "MeanScaleHyperprior", (192, 320), {}, MEAN),
    Model("cheng2020-anchor 1–3", "waseda", "Cheng2020Anchor", (128,), {}, CHENG),
    Model("cheng2020-anchor 4–6", "waseda", "Cheng2020Anchor", (192,), {}, CHENG),
    Model(
        "bmshj2018-hyperprior-vbr",
        "vbr",
        "ScaleHyperpriorVbr",
        (192, 320),
        VARIABLE,
        "CompressAI bmshj2018-hyperprior-vbr",
    ),
    Model("mbt2018-mean-vbr", "vbr", "MeanScaleHyperpriorVbr", (192, 320), VARIABLE, "CompressAI mbt2018-mean-vbr"),
    Model("mbt2018-vbr", "vbr", "JointAutoregressiveHierarchicalPriorsVbr", (192, 320), {}, "CompressAI mbt2018-vbr"),
)
NAMES = tuple(model.name for model in MODELS)


class CompressaiError(Exception):
    """The other interpreter cannot run CompressAI."""


def measure_elsewhere(python: Path, picture: Path, *options: str) -> dict[str, Any]:
    """Run this module with another interpreter.

    Args:
        python: interpreter of an environment that has CompressAI.
        picture: what to encode.
        options: of `main`.

    Returns:
        What `main` prints.

    Raises:
        CompressaiError: it failed; the message is its last line.
    """
    arguments = [str(python.absolute()), "-m", "benchmarks.compressai_models", str(picture.resolve()), *options]
    try:
        done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise CompressaiError(f"cannot run {python}: {error.strerror}") from error
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise CompressaiError(f"CompressAI in {python} failed: {reason[0]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def import_models() -> None:
    """Make `compressai.models.*` importable beside a CPU build of torch.

    The packages around them import torchvision and torch_geometric for transforms and point clouds, which no image
    model needs: empty modules stand for these, and for the package files that import everything.
    """
    spec = importlib.util.find_spec("compressai")
    if spec is None or not spec.submodule_search_locations:
        raise CompressaiError(f"{sys.executable} has no compressai")
    folder = Path(spec.submodule_search_locations[0])
    package = stand_in("compressai", folder)
    package.__dict__.update(available_entropy_coders=lambda: ["ans"], get_entropy_coder=lambda: "ans")
    stand_in("compressai.models", folder / "models")
    for name in ("torchvision", "torch_geometric"):
        stand_in(name).__dict__["transforms"] = stand_in(f"{name}.transforms")


def stand_in(name: str, folder: Path | None = None) -> ModuleType:
    """An empty module in the place of one; if a folder is given, its submodules are found there."""
    module = ModuleType(name)
    module.__path__ = [str(folder)] if folder else []
    sys.modules[name] = module
    return module


def build(model: Model) -> Any:
    """The network with random weights, its tables ready."""
    import torch

    torch.manual_seed(0)
    kind = getattr(importlib.import_module(f"compressai.models.{model.module}"), model.kind)
    network = kind(*model.sizes, **model.options).eval().requires_grad_(False)
    network.update(force=True)
    return network


def load_picture(path: Path) -> Any:
    """A picture as float32 (1, 3, H, W) in [0, 1], H and W multiples of 64."""
    import numpy as np
    import torch
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    height, width = (side // 64 * 64 for side in pixels.shape[:2])
    return torch.from_numpy(pixels[:height, :width]).permute(2, 0, 1)[None].float() / 255.0


def seconds(call: Callable[[], object], repeats: int) -> float:
    """Median of several calls after one to warm up."""
    call()
    times: list[float] = []
    while len(times) < repeats and (len(times) < min(FEWEST, repeats) or sum(times) < ENOUGH_S):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def time_model(network: Any, x: Any, repeats: int) -> dict[str, float]:
    """Seconds to encode and to decode."""
    data = network.compress(x)
    return {
        "encode_s": seconds(lambda: network.compress(x), repeats),
        "decode_s": seconds(lambda: network.decompress(data["strings"], data["shape"]), repeats),
    }


def count_model(network: Any, x: Any) -> dict[str, float]:
    """kMAC per pixel of encoding and of decoding, counted by torch's profiler."""
    data = network.compress(x)
    return {
        "encode_kmac": count(lambda: network.compress(x), x),
        "decode_kmac": count(lambda: network.decompress(data["strings"], data["shape"]), x),
    }


def count(call: Callable[[], object], x: Any) -> float:
    """kMAC per pixel of one call."""
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return counter.get_total_flops() / 2.0 / (x.shape[2] * x.shape[3]) / 1e3


def main() -> None:
    """Print a JSON object: versions, and one entry for each model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--models", default=",".join(NAMES), help="comma-separated names")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--count", action="store_true", help="count kMAC per pixel instead of taking the time")
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"no model {', '.join(unknown)}; there are {', '.join(NAMES)}")

    import_models()
    import torch

    torch.set_num_threads(options.threads)
    x = load_picture(options.picture)
    entries = []
    with torch.inference_mode():
        for model in MODELS:
            if model.name in names:
                network = build(model)
                figures = count_model(network, x) if options.count else time_model(network, x, options.repeats)
                entries.append({"model": model.name, "sizes": model.sizes, "anchor": model.anchor} | figures)
    versions = {name: importlib.metadata.version(name) for name in ("compressai", "torch", "numpy")}
    print(json.dumps({"versions": versions, "models": entries}))


if __name__ == "__main__":
    main()
