"""Multiply-accumulates per pixel, counted by torch's profiler while a picture is encoded and decoded.

    python -m benchmarks.complexity --compressai-python .venv-compressai/bin/python --output complexity.json

Counted are matrix products and convolutions, of the integer entropy model too, and its depthwise layers (addcmul).
Not counted, as everywhere in the literature: elementwise work such as activations, FiLM, table look-ups, coding.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.compressai_models import CompressaiError, measure_elsewhere
from benchmarks.files import write_json
from benchmarks.machine import OUR_PACKAGES, command, model, versions
from benchmarks.memory import synthetic_picture
from codec.api import Codec
from codec.errors import CodecError
from codec.network.config import LATENT_STRIDE
from codec.network.integer import IntegerPrior
from codec.network.layout import prior_layers
from codec.network.torch_backend import TorchBackend
from codec.network.transforms import Transforms

HEIGHT, WIDTH = 512, 768  # a Kodak image
ENTROPY = "entropy model"
OTHER = "conditioning"  # the embedding of the quality, the gains


def entropy_kmacs(codec: Codec) -> float:
    """kMAC per pixel of the entropy model, from the table of its layers; those of z run on fewer positions."""
    strides = {"h_s.up1": 64, "h_s.spatial1": 32, "h_s.up2": 32}
    macs = 0.0
    for layer in prior_layers(codec.weights.config).values():
        outputs = layer.out_channels // (4 if layer.name.endswith(".head") else 1)  # each position has one group
        weights = outputs * (9 if layer.kind == "depthwise" else layer.in_channels)
        if layer.name == "embed":  # the last pass is seen by none
            weights = weights * 3 // 4
        macs += weights / strides.get(layer.name, LATENT_STRIDE) ** 2
    return macs / 1e3


def transforms_of(codec: Codec) -> Transforms:
    """The modules that torch runs."""
    backend = codec.model.backend
    assert isinstance(backend, TorchBackend)
    return backend.transforms


def count_kmacs(codec: Codec, call: Callable[[], object], pixels: int) -> dict[str, float]:
    """kMAC per pixel of each part of the codec that `call` runs."""
    counter, runs = FlopCounterMode(display=False), 0
    run = IntegerPrior.run

    @wraps(run)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal runs
        runs += 1
        return run(*args, **kwargs)

    with patch.object(IntegerPrior, "run", counted), counter:
        call()
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    transforms = transforms_of(codec)
    flops = {
        name: by_module.get(type(module).__name__, 0)
        for name, module in (("g_a", transforms.g_a), ("h_a", transforms.h_a), ("g_s", transforms.g_s))
    }
    flops[OTHER] = counter.get_total_flops() - sum(flops.values())
    kmacs = {name: count / 2.0 / pixels / 1e3 for name, count in flops.items()}
    return kmacs | {ENTROPY: runs * entropy_kmacs(codec)}


def complexity(codec: Codec, height: int = HEIGHT, width: int = WIDTH) -> dict[str, dict[str, float]]:
    """kMAC per pixel by part, for encoding with the default effort and with none, and for decoding."""
    picture = synthetic_picture(height, width)
    data = codec.encode(picture)  # also builds what is kept per quality
    return {
        "encode": count_kmacs(codec, lambda: codec.encode(picture), height * width),
        "encode_fast": count_kmacs(codec, lambda: codec.encode(picture, effort=0), height * width),
        "decode": count_kmacs(codec, lambda: codec.decode(data), height * width),
    }


@click.command()
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--compressai-python", type=click.Path(path_type=Path), help="Interpreter that has CompressAI.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures to this JSON file.")
def main(weights: Path | None, compressai_python: Path | None, output: Path | None) -> None:
    """Print kMAC per pixel of each part of the codec, and of CompressAI's models."""
    try:
        codec = Codec(weights, backend="torch")
        report: dict[str, Any] = {"command": command("benchmarks.complexity"), "versions": versions(OUR_PACKAGES)}
        report |= {"model": model(codec.weights), "width": WIDTH, "height": HEIGHT}
        report |= {"kmac_per_px": complexity(codec), "parameters": parameters(codec)}
        if compressai_python:
            report["compressai"] = count_compressai(compressai_python)
    except (CodecError, CompressaiError) as error:
        raise click.ClickException(str(error)) from error
    print_report(report)
    if output:
        write_json(output, report)


def parameters(codec: Codec) -> dict[str, int]:
    """Number of parameters of the transforms and of their parts."""
    modules = {"transforms": transforms_of(codec), **dict(transforms_of(codec).named_children())}
    return {name: sum(p.numel() for p in module.parameters()) for name, module in modules.items()}


def count_compressai(python: Path) -> dict[str, Any]:
    """kMAC per pixel of CompressAI's models at the same size."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "picture.png")
        Image.fromarray(synthetic_picture(HEIGHT, WIDTH)).save(picture)
        return measure_elsewhere(python, picture, "--count")


def print_report(report: dict[str, Any]) -> None:
    """The same for people."""
    click.echo(f"kMAC per pixel of a {WIDTH}×{HEIGHT} picture; model {report['model']['id']}")
    for step, parts in report["kmac_per_px"].items():
        shown = ", ".join(f"{name} {count:.2f}" for name, count in parts.items() if count >= 0.005)
        click.echo(f"{step}: {sum(parts.values()):.2f} = {shown}")
    for name, number in report["parameters"].items():
        click.echo(f"parameters of {name}: {number}")
    for entry in report.get("compressai", {}).get("models", ()):
        click.echo(f"CompressAI {entry['model']}: encode {entry['encode_kmac']:.1f}, decode {entry['decode_kmac']:.1f}")


if __name__ == "__main__":
    main()
