"""Weights from a stranger: is the frozen entropy model one whose arithmetic is exact?

The weights that a release ships are known by their SHA-256, and `training/export.py` makes no others. A file that was
altered may hold numbers for which sums leave the 24 bits of float32, and then files would decode differently on
other machines, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from codec import fixed
from codec.bitstream import QUALITY_MAX
from codec.model import PASSES, ModelConfig

ACCUMULATOR_LIMIT = 2**24  # integers up to here are exact in float32, in sums of any order
SHIFT_LIMIT = 60  # far beyond any use, and no power of two up to it leaves float32


def check_exact(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Check types, shifts and sums of the tensors of `FixedPrior`, whose shapes are right; ValueError if one is off.

    Knots suffice: weights and biases at the qualities between lie between those of the knots.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.int16, torch.int32):
            raise ValueError(f"{name} holds {tensor.dtype}")
        low = 0 if name.endswith(".fold") else -SHIFT_LIMIT
        if name.endswith((".fold", ".shift")) and not low <= tensor.min() <= tensor.max() <= SHIFT_LIMIT:
            raise ValueError(f"{name} is out of range")
    activations = {name: fixed.ACTIVATION_LIMIT for name in ("h_s.up2", "h_s.out")}
    activations |= {
        f"passes.{k}.{name}": fixed.ACTIVATION_LIMIT for k in range(PASSES) for name in ("mix", "hidden", "head")
    }
    for name, limit in ({"h_s.up1": fixed.Z_LIMIT} | activations).items():
        inputs = tensors[f"{name}.weight"].shape[1]
        _check_dense(tensors, name, torch.full((inputs,), limit))
    limits = torch.tensor([fixed.FEATURE_LIMIT, fixed.MAGNITUDE_LIMIT]).repeat_interleave(config.M)
    biases = torch.stack([tensors[f"passes.{k}.context_bias"] for k in range(PASSES)])
    _check_dense(tensors, "embed", limits, biases.double().abs().amax(0))
    for name in ("h_s.spatial1", "h_s.spatial2", *(f"passes.{k}.spatial" for k in range(PASSES))):
        taps, bias = tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double()
        _check_sums(name, taps.abs().sum(0) * fixed.ACTIVATION_LIMIT + bias.abs())


def _check_dense(tensors: Mapping[str, Tensor], name: str, limits: Tensor, reserve: Tensor | float = 0.0) -> None:
    """Check the sums of a dense layer, and `reserve` on top, for inputs up to `limits`."""
    # As if factors and biases were largest at one knot: takes one evaluation, and is hardly ever too strict.
    largest = {
        f"{name}.{key}": tensors[f"{name}.{key}"].long().abs().amax(0).expand(fixed.KNOTS, -1)
        for key in ("factor", "bias")
    }
    together = {**tensors, **largest, f"{name}.weight": tensors[f"{name}.weight"].long().abs()}
    if (_sums(together, name, 0, limits) + reserve).max() < ACCUMULATOR_LIMIT:
        return
    for quality in range(0, QUALITY_MAX + 1, fixed.KNOT_SPACING):
        _check_sums(name, _sums(tensors, name, quality, limits) + reserve)


def _sums(tensors: Mapping[str, Tensor], name: str, quality: int, limits: Tensor) -> Tensor:
    """Per output channel, what no sum of the layer exceeds."""
    layer = fixed.FixedPointwise(tensors, name, quality, torch.float64)
    return limits.double() @ layer.weight.abs() + layer.bias.abs()


def _check_sums(name: str, sums: Tensor) -> None:
    if sums.max() >= ACCUMULATOR_LIMIT:
        raise ValueError(f"{name} sums up to {sums.max():.0f}; float32 would not be exact")
