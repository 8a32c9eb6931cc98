"""A second coefficient, the decoder's realism a in [0, 1], learned after all else is final:

    L = λ · ((1 - a) · 255² · MSE + a · 1300 · (1 - MS-SSIM))

The encoder, its bits and the decoder that they are made for stay as they are. Only the synthesis sees a: its tensors
are W + a·ΔW, so that a = 0 is the decoder that ships, to the last bit, and the rest of a's range costs nothing but one
addition a picture. ΔW begins at 0 and is all that is trained. (Interpolated networks: Wang et al. 2019,
arXiv:1811.10515; there the ends are trained, here every a, as YOTO draws its coefficients.)

    python -m training.train --config training/configs/realism.toml --from FINAL/checkpoint.pt --data IMAGES --out RUN
    python -m training.realism --run RUN --data IMAGES WEIGHTS

The second puts ΔW into the weights file of FINAL, whose id stays, and prints what a does to held-out pictures.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn
from torch.func import functional_call

from codec.metrics import ms_ssim_db
from codec.network import weights
from codec.network.config import ModelConfig
from codec.network.model import ModelOutput, YotoModel
from codec.network.transforms import Transforms
from training import checkpoint
from training.data import HELD_OUT, find_images, validation_crops
from training.loss import ERROR, RATE, STRUCTURE, realism_objective
from training.sent import SentModel

GRID = ((0.1, 0.5, 0.9), (0.0, 0.5, 1.0))  # quality and a


class Synthesise(nn.Module):
    """`Transforms.synthesise` as a module, which `functional_call` wants."""

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        self.transforms = transforms

    def forward(self, y_hat: Tensor, condition: Tensor) -> Tensor:
        return self.transforms.synthesise(y_hat, condition)


class RealismModel(YotoModel):
    """`YotoModel` on what the encoder sends, under the condition (quality, a); all but ΔW is frozen."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.requires_grad_(False)
        # By the names of g_s's tensors; those of parameters must not hold dots.
        self.realism = nn.ParameterDict(
            {n.replace(".", "/"): torch.zeros_like(p) for n, p in self.transforms.named_parameters() if in_g_s(n)}
        )

    def added(self) -> dict[str, Tensor]:
        """ΔW, by the names of `Transforms`."""
        return {name.replace("/", "."): delta for name, delta in self.realism.items()}

    def forward(self, x: Tensor, condition: Tensor, noise: bool = True) -> ModelOutput:
        """As `YotoModel.forward`; the a of the first sample is that of all, and symbols are always the encoder's."""
        quality, a = condition[:, :1], (condition[0, 1] + 1.0) / 2.0
        with torch.no_grad():
            y_hat, y_bits, z_bits = SentModel(self).send(x, quality)
        own = dict(self.transforms.named_parameters())
        moved = {f"transforms.{name}": own[name] + a * delta for name, delta in self.added().items()}
        return ModelOutput(functional_call(Synthesise(self.transforms), moved, (y_hat, quality)), y_bits, z_bits)


def in_g_s(name: str) -> bool:
    return name.startswith(weights.SYNTHESIS)


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
