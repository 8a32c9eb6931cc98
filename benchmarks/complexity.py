"""Multiply-accumulates per pixel, counted by torch's profiler while a picture is encoded and decoded.

    python -m benchmarks.complexity --weights FILE

Counted are matrix products and convolutions, of the integer entropy model too, and its depthwise layers (addcmul).
Not counted, as everywhere in the literature: elementwise work such as activations, FiLM, table look-ups, coding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from math import prod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import synthetic_picture
from codec.api import Codec
from codec.errors import CodecError
from codec.fixed import FixedPrior

HEIGHT, WIDTH = 512, 768  # a Kodak image
ENTROPY = "entropy model"
OTHER = "conditioning"  # the embedding of the quality, the gains


def addcmul_flops(*shapes: Any, out_shape: Any = None, **options: Any) -> int:
    """Two operations for each element."""
    return 2 * prod(out_shape)


def count_kmacs(codec: Codec, call: Callable[[], object], pixels: int) -> dict[str, float]:
    """kMAC per pixel of each part of the codec that `call` runs."""
    # torch counts in-place addcmul as nothing.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addcmul_: addcmul_flops})
    entropy_flops = 0
    run = FixedPrior.run

    @wraps(run)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal entropy_flops
        before = counter.get_total_flops()
        try:
            return run(*args, **kwargs)
        finally:
            entropy_flops += counter.get_total_flops() - before

    with patch.object(FixedPrior, "run", counted), counter:
        call()
    by_module = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    transforms = codec.transforms
    flops = {
        name: by_module.get(type(module).__name__, 0)
        for name, module in (("g_a", transforms.g_a), ("h_a", transforms.h_a), ("g_s", transforms.g_s))
    }
    flops[ENTROPY] = entropy_flops
    flops[OTHER] = counter.get_total_flops() - sum(flops.values())
    return {name: count / 2.0 / pixels / 1e3 for name, count in flops.items()}


def complexity(codec: Codec, height: int = HEIGHT, width: int = WIDTH) -> dict[str, dict[str, float]]:
    """kMAC per pixel by part, for encoding and decoding."""
    picture = synthetic_picture(height, width)
    data = codec.encode(picture)  # also builds what is kept per quality
    return {
        "encode": count_kmacs(codec, lambda: codec.encode(picture), height * width),
        "decode": count_kmacs(codec, lambda: codec.decode(data), height * width),
    }


@click.command()
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
def main(weights: Path | None) -> None:
    """Print kMAC per pixel of each part of the codec."""
    try:
        codec = Codec(weights)
    except CodecError as error:
        raise click.ClickException(str(error)) from error
    counts = complexity(codec)
    click.echo(f"kMAC per pixel of a {WIDTH}×{HEIGHT} picture; model {codec.weights.model_id.hex()}")
    for step, parts in counts.items():
        shown = ", ".join(f"{name} {count:.2f}" for name, count in parts.items() if count >= 0.005)
        click.echo(f"{step}: {sum(parts.values()):.2f} = {shown}")
    for name, module in (("transforms", codec.transforms), *codec.transforms.named_children()):
        click.echo(f"parameters of {name}: {sum(p.numel() for p in module.parameters())}")


if __name__ == "__main__":
    main()
