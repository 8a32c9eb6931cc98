"""Undo freezing: the trainable network of a released weights file, so that training can go on from it.

    python -m training.thaw --output start.pt

writes a checkpoint that a configuration names as `init_from`; the trainer itself needs no entropy coder. Exact but for
rounding: weights to 15 bits, FiLM by a least-squares fit of its tables over quality.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor, nn

from codec.errors import CodecError
from codec.network import integer, weights
from codec.network.config import Z_INDEX_START
from codec.network.layers import Depthwise, FiLMPointwise
from codec.network.model import YotoModel
from training.export import constant, context_steps, head_units, knot_conditions

# Directions of the embedding weaker than this, relative to the strongest, would fit the rounding of the tables.
RCOND = 1e-4


def fit_affine(layer: nn.Linear, cond: Tensor, values: Tensor) -> None:
    """Set `layer` so that it maps embeddings (KNOTS, width) to `values` (KNOTS, out), by least squares."""
    inputs = torch.cat([cond.double(), torch.ones(len(cond), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(inputs, values.double(), rcond=RCOND, driver="gelsd").solution
    layer.weight.copy_(solution[:-1].T)
    layer.bias.copy_(solution[-1])


def half_step(shift: Tensor) -> Tensor:
    """What freezing added to biases so that the floor rounds."""
    return torch.where(shift > 0, torch.exp2(shift.double() - 1), 0.0)


class Thawer:
    """Fills a model, layer by layer, from the tensors of a weights file; see `training.export.Freezer`."""

    def __init__(self, released: weights.Weights) -> None:
        self.tensors = released.integers
        self.model = YotoModel(released.config)
        self.model.transforms.load_state_dict(released.transforms.state_dict())
        self.cond = self.model.transforms.condition_net(knot_conditions())
        self.norm = self.model.transforms.normaliser(knot_conditions())[:, :, 0, 0].double()

    def dense(
        self,
        name: str,
        layer: FiLMPointwise,
        steps: Tensor | None = None,
        out_bits: Tensor | None = None,
        extra: Tensor | float = 0.0,
    ) -> None:
        """The arguments are those of `Freezer.dense`."""
        steps = constant(layer.in_features, 2.0**-integer.ACTIVATION_BITS) if steps is None else steps
        out_bits = constant(layer.out_features, integer.ACTIVATION_BITS) if out_bits is None else out_bits
        weight, factor, bias, fold, shift = (
            self.tensors[f"{name}.{key}"].double() for key in ("weight", "factor", "bias", "fold", "shift")
        )
        scale = shift + out_bits
        exponent = fold - integer.FACTOR_BITS + scale
        layer.weight.copy_(weight * torch.exp2(-exponent)[:, None] / steps)
        layer.bias.zero_()
        gamma = factor * 2.0**-integer.FACTOR_BITS - 1.0
        beta = (bias - half_step(shift)) * torch.exp2(-scale) - extra
        fit_affine(layer.film.affine, self.cond, torch.cat([gamma, beta], dim=1))

    def depthwise(self, name: str, layer: Depthwise) -> None:
        weight, bias, shift = (self.tensors[f"{name}.{key}"].double() for key in ("weight", "bias", "shift"))
        layer.weight.copy_((weight * torch.exp2(-shift)).T.reshape(layer.weight.shape))
        layer.bias.copy_((bias - half_step(shift)) * torch.exp2(-shift) * 2.0**-integer.ACTIVATION_BITS)  # type: ignore[union-attr]

    def fill(self) -> YotoModel:
        prior = self.model.prior
        h_s = prior.h_s
        self.dense("h_s.up1", h_s.up1, steps=constant(self.model.config.Z, 1.0))
        self.dense("h_s.up2", h_s.up2)
        self.dense("h_s.out", h_s.out)
        self.depthwise("h_s.spatial1", h_s.spatial1)
        self.depthwise("h_s.spatial2", h_s.spatial2)
        fit_affine(prior.z_index, self.cond, self.tensors["z_index"] - Z_INDEX_START)
        self.dense("embed", prior.embed, steps=context_steps(self.model.config.M))
        unit = torch.exp2((self.tensors["embed.shift"] + integer.ACTIVATION_BITS).double())
        out_bits, extra = head_units(self.norm)
        for k, net in enumerate(prior.passes):
            net.context_bias.copy_(self.tensors[f"passes.{k}.context_bias"] / unit)
            self.depthwise(f"passes.{k}.spatial", net.spatial)
            self.dense(f"passes.{k}.mix", net.mix)
            self.dense(f"passes.{k}.hidden", net.hidden)
            self.dense(f"passes.{k}.head", net.head, out_bits=out_bits, extra=extra)
        return self.model


@torch.no_grad()
def thaw(path: Path | None = None) -> YotoModel:
    """The trainable form of a weights file, by default the released one; WeightsError if it cannot be used."""
    return Thawer(weights.load(path)).fill()


@click.command()
@click.option("--weights", "path", type=click.Path(path_type=Path), help="Weights file; the released one if not given.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Checkpoint to write.")
def main(path: Path | None, output: Path) -> None:
    """Make a starting point of training from a weights file."""
    try:
        torch.save({"ema": thaw(path).state_dict()}, output)
    except CodecError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
