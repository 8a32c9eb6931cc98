"""Put what a run of the realism stage has learned into the weights file of its model, whose id stays.

    python -m training.add_realism --run RUN --data IMAGES WEIGHTS

prints what the realism does to held-out pictures: rate, PSNR and MS-SSIM.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import safetensors.numpy
from torch import Tensor

from codec.metrics import ms_ssim_db
from codec.network import weights
from codec.network.config import ModelConfig
from training import checkpoint
from training.data import HELD_OUT, find_images, validation_crops
from training.loss import ERROR, RATE, STRUCTURE, realism_objective
from training.realism import RealismModel, in_g_s

GRID = ((0.1, 0.5, 0.9), (0.0, 0.5, 1.0))  # quality and a


def add_to(path: Path, model: RealismModel, card: dict[str, Any]) -> None:
    """Put ΔW into a weights file, as float16.

    Raises:
        ValueError: its synthesis is not that which ΔW was trained on.
    """
    known = weights.load(path)
    for name, tensor in model.transforms.state_dict().items():
        if in_g_s(name) and not np.array_equal(tensor.half().float().numpy(), known.floats[name]):
            raise ValueError(f"{path} is not the model that the run began with: its {name} differs")
    data = path.read_bytes()
    tensors = safetensors.numpy.load(data)
    notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    notes["card"] = json.dumps(known.card | {"realism": card})
    tensors |= {f"{weights.REALISM}{name}": delta.detach().half().numpy() for name, delta in model.added().items()}
    path.write_bytes(safetensors.numpy.save(tensors, metadata=notes))
    assert weights.load(path).model_id == known.model_id


def figures(model: RealismModel, crops: Tensor) -> list[dict[str, float]]:
    """Rate, PSNR and MS-SSIM of the pictures, means over them before the logarithm, on the grid."""
    points = realism_objective(model.config).evaluate(model, crops, GRID)
    return [
        {
            "quality": quality,
            "realism": a,
            "bpp": round(point.terms[RATE], 4),
            "psnr_db": round(-10.0 * math.log10(point.terms[ERROR] / 255.0**2), 3),
            "ms_ssim_db": round(ms_ssim_db(1.0 - point.terms[STRUCTURE]), 3),
        }
        for point, (quality, a) in zip(points, ((q, a) for q in GRID[0] for a in GRID[1]), strict=True)
    ]


@click.command()
@click.option("--run", "run_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of training images.")
@click.argument("path", metavar="WEIGHTS", type=click.Path(exists=True, path_type=Path))
def main(run_path: Path, data: Path, path: Path) -> None:
    """Add a run's realism to a weights file, whose id stays."""
    state = checkpoint.load(run_path / "checkpoint.pt")
    model = RealismModel(ModelConfig(**state["config"]["model"]))
    model.load_state_dict(state["ema"])
    held_out = find_images(data)[::HELD_OUT][: state["config"]["validation_images"]]
    points = figures(model, validation_crops(held_out, 256))
    try:
        add_to(path, model, {"training": state["config"], "figures": points})
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    for point in points:
        click.echo(" ".join(f"{name} {value}" for name, value in point.items()))
    click.echo(f"{path}: {path.stat().st_size} bytes, model {weights.load(path).model_id.hex()}")


if __name__ == "__main__":
    main()
