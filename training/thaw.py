"""Undo freezing: the trainable network of released weights, so that training goes on where no checkpoint is left.

    python -m training.thaw --output start.pt
    python -m training.train --from start.pt …

Exact but for rounding: weights to 15 bits, FiLM by a least-squares fit of its tables over quality. Momenta and the
count of steps are not in released weights, so a stage that begins here warms up anew.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor, nn

from codec.errors import CodecError
from codec.network import weights
from codec.network.layers import Depthwise, FiLMPointwise
from codec.network.layout import FACTOR_BITS, Layer, prior_layers
from codec.network.model import YotoModel
from training.export import head_extra, knot_conditions

# Directions of the embedding weaker than this, relative to the strongest, would fit the rounding of the tables.
RCOND = 1e-4


@torch.no_grad()
def thaw(released: weights.Weights) -> YotoModel:
    """The trainable form of released weights."""
    config = released.config
    integers = {name: torch.from_numpy(np.asarray(value, np.float64)) for name, value in released.integers.items()}
    model = YotoModel(config).eval()
    prior, transforms = model.prior, model.transforms
    transforms.load_state_dict({name: torch.from_numpy(value) for name, value in released.floats.items()})
    cond = transforms.condition_net(knot_conditions(config))
    fit_affine(prior.z_index, cond, integers["z_index"] - config.z_index_start)
    extra = head_extra(model)
    for layer in prior_layers(config).values():
        module: nn.Module = prior.get_submodule(layer.name)
        tensors = {key: integers[f"{layer.name}.{key}"] for key in module_keys(module)}
        if isinstance(module, Depthwise):
            thaw_depthwise(module, layer, tensors)
        else:
            assert isinstance(module, FiLMPointwise)
            thaw_dense(module, layer, tensors, cond, extra if layer.name.endswith(".head") else 0.0)
            unit = torch.exp2(tensors["shift"] + torch.from_numpy(layer.out_bits))
            for name in layer.reserve:
                prior.get_parameter(name).copy_(integers[name] / unit)
    return model


def module_keys(module: nn.Module) -> tuple[str, ...]:
    """Names of a frozen layer's tensors."""
    return (
        ("weight", "bias", "shift") if isinstance(module, Depthwise) else ("weight", "factor", "bias", "fold", "shift")
    )


def thaw_dense(
    module: FiLMPointwise, layer: Layer, tensors: dict[str, Tensor], cond: Tensor, extra: Tensor | float
) -> None:
    """Undo `training.export.freeze_dense`; the bias goes into FiLM's offset."""
    scale = tensors["shift"] + torch.from_numpy(layer.out_bits)
    exponent = tensors["fold"] - FACTOR_BITS + scale
    module.weight.copy_(tensors["weight"] * torch.exp2(-exponent)[:, None] / torch.from_numpy(layer.in_steps))
    module.bias.zero_()
    gamma = tensors["factor"] * 2.0**-FACTOR_BITS - 1.0
    beta = (tensors["bias"] - half_step(tensors["shift"])) * torch.exp2(-scale) - extra
    fit_affine(module.film.affine, cond, torch.cat([gamma, beta], dim=1))


def thaw_depthwise(module: Depthwise, layer: Layer, tensors: dict[str, Tensor]) -> None:
    """Undo `training.export.freeze_depthwise`."""
    scale = torch.exp2(-tensors["shift"])
    module.weight.copy_((tensors["weight"] * scale).T.reshape(module.weight.shape))
    bias = (tensors["bias"] - half_step(tensors["shift"])) * scale * torch.exp2(-torch.from_numpy(layer.out_bits))
    assert module.bias is not None
    module.bias.copy_(bias)


def half_step(shift: Tensor) -> Tensor:
    """What freezing added to biases so that the floor rounds."""
    return torch.where(shift > 0, torch.exp2(shift - 1), 0.0)


def fit_affine(layer: nn.Linear, cond: Tensor, values: Tensor) -> None:
    """Let `layer` map embeddings (knots, width) to `values` (knots, out), by least squares."""
    inputs = torch.cat([cond.double(), torch.ones(len(cond), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(inputs, values, rcond=RCOND, driver="gelsd").solution
    layer.weight.copy_(solution[:-1].T)
    layer.bias.copy_(solution[-1])


@click.command()
@click.option("--weights", "path", type=click.Path(path_type=Path), help="Weights file; the released one if not given.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Start to write, for `--from`.")
def main(path: Path | None, output: Path) -> None:
    """Make a start of training from a weights file."""
    try:
        torch.save({"ema": thaw(weights.load(path)).state_dict()}, output)
    except (CodecError, OSError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
