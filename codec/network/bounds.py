"""Do the frozen tensors form an entropy model whose arithmetic is exact?

A file from a stranger may hold numbers for which sums leave the 24 bits of float32, and then files would decode
differently on other machines, or not at all. `training/export.py` asks the same of what it makes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codec.network.config import ModelConfig
from codec.network.integer import Integers, fold
from codec.network.layout import Layer, frozen_shapes, prior_layers

ACCUMULATOR_LIMIT = 2**24  # integers up to here are exact in float32, in sums of any order
SHIFT_LIMIT = 60  # far beyond any use, and no power of two up to it leaves float32


def check_shapes(tensors: Integers, config: ModelConfig) -> None:
    """Raise ValueError if the frozen tensors are not those of `config`, of integers."""
    shapes = frozen_shapes(config)
    if tensors.keys() - {"tables.frequencies"} != shapes.keys():
        names = sorted(tensors.keys() - {"tables.frequencies"} ^ shapes.keys())
        raise ValueError(f"tensors are missing or unknown: {', '.join(names)}")
    for name, tensor in tensors.items():
        if tensor.dtype not in (np.int16, np.int32):
            raise ValueError(f"{name} holds {tensor.dtype}, expected integers of 16 or 32 bits")
        expected = shapes.get(name, (tensor.size,))
        if tensor.shape != expected:
            raise ValueError(f"{name} has shape {tensor.shape}, expected {expected}")
    if not 0 <= tensors["z_index"].min() <= tensors["z_index"].max() < config.scales_levels:
        raise ValueError(f"z_index leaves the {config.scales_levels} rows of the tables")


def check_exact(tensors: Integers, config: ModelConfig) -> None:
    """Check shifts and sums of tensors whose shapes are right; ValueError if one is out of range."""
    for name, tensor in tensors.items():
        low = 0 if name.endswith(".fold") else -SHIFT_LIMIT
        if name.endswith((".fold", ".shift")) and not low <= tensor.min() <= tensor.max() <= SHIFT_LIMIT:
            raise ValueError(f"{name} is out of range")
    for layer in prior_layers(config).values():
        worst = largest_sum(tensors, layer)
        if worst >= ACCUMULATOR_LIMIT:
            raise ValueError(f"{layer.name} sums up to {worst:.0f}; float32 would not be exact")


def largest_sum(tensors: Integers, layer: Layer) -> float:
    """What no sum of a layer exceeds, at any quality.

    Knots suffice: weights and biases at the qualities between lie between those of the knots.
    """
    weight, bias = (tensors[f"{layer.name}.{key}"].astype(np.int64) for key in ("weight", "bias"))
    if layer.kind == "depthwise":
        return float((np.abs(weight).sum(0) * layer.in_limits + np.abs(bias)).max())
    reserve = np.max([np.abs(tensors[name].astype(np.int64)) for name in layer.reserve], axis=0, initial=0)
    factors, shift = tensors[f"{layer.name}.factor"].astype(np.int64), tensors[f"{layer.name}.fold"].astype(np.int64)

    def largest(weight: npt.NDArray[np.int64], factor: npt.NDArray[np.int64], bias: npt.NDArray[np.int64]) -> float:
        return float((np.abs(fold(weight, factor, shift)) @ layer.in_limits + np.abs(bias) + reserve).max())

    # As if factors and biases were largest at one knot: takes one evaluation, and is hardly ever too strict.
    bound = largest(np.abs(weight), np.abs(factors).max(0), np.abs(bias).max(0))
    if bound < ACCUMULATOR_LIMIT:
        return bound
    return max(largest(weight, *at) for at in zip(factors, bias, strict=True))
