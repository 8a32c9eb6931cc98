"""How fast this machine trains, and what share of its matrix rate that uses.

    python -m training.throughput --config C --data DIR

Runs some steps of a configuration and counts their matrix products and convolutions with torch's own counter. The rate
that the device can reach is not taken from a data sheet: it is that of one large matrix product in the same precision.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch.utils.flop_counter import FlopCounterMode

from training.config import TrainConfig
from training.data import CropSampler, find_images
from training.train import default_device, prepare_process, settled
from training.trainer import Trainer

WARM_UP_STEPS = 3  # compilation, memory pools
MATRIX_SIDE = {"cpu": 1024, "cuda": 8192}


def seconds_per_call(call: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Mean time of a call, until the device has finished."""

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    finish()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    finish()
    return (time.perf_counter() - start) / repeats


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a large matrix product."""
    side = MATRIX_SIDE[device.type]
    a = torch.randn(side, side, device=device, dtype=dtype)
    a @ a
    return 2.0 * side**3 / seconds_per_call(lambda: a @ a, 5, device)


@click.command()
@click.option("--config", "config_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of training images.")
@click.option("--images", type=click.IntRange(1), default=64, show_default=True, help="How many of them to load.")
@click.option("--steps", type=click.IntRange(1), default=10, show_default=True, help="Timed steps.")
@click.option("--device", default=default_device(), show_default=True)
def main(config_path: Path, data: Path, images: int, steps: int, device: str) -> None:
    """Print patches per second and FLOP/s of training."""
    prepare_process(device)
    try:
        config = settled(TrainConfig.load(config_path), device)
        sampler = CropSampler(find_images(data)[:images], torch.device(device))
        trainer = Trainer(config, sampler, torch.device(device))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    for _ in range(WARM_UP_STEPS):
        trainer.train_step()
    with FlopCounterMode(display=False) as counter:
        trainer.train_step()
    seconds = seconds_per_call(trainer.train_step, steps, trainer.device)
    rate = counter.get_total_flops() / seconds
    peak = matrix_rate(trainer.device, torch.bfloat16 if config.bfloat16 else torch.float32)
    click.echo(
        f"{1.0 / seconds:.2f} steps/s, {config.batch / seconds:.1f} patches of {config.patch}×{config.patch} px/s;"
        f" {rate / 1e12:.3f} TFLOP/s, {100.0 * rate / peak:.0f} % of the {peak / 1e12:.3f} of a matrix product"
    )


if __name__ == "__main__":
    main()
