"""Weights from a stranger: do the frozen tensors form an entropy model whose arithmetic is exact?

The weights that a release ships are known by their SHA-256, and `training/export.py` makes no others. A file that was
altered may hold numbers for which sums leave the 24 bits of float32, and then files would decode differently on
other machines, or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from codec.format.bitstream import QUALITY_MAX
from codec.network import integer
from codec.network.config import MARGIN_PX, PASSES, SCALES_LEVELS, ModelConfig

ACCUMULATOR_LIMIT = 2**24  # integers up to here are exact in float32, in sums of any order
SHIFT_LIMIT = 60  # far beyond any use, and no power of two up to it leaves float32
DEPTHWISE = ("h_s.spatial1", "h_s.spatial2", *(f"passes.{k}.spatial" for k in range(PASSES)))


def dense_layers(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the dense layers."""
    m, d, z = config.M, config.D, config.Z
    layers = {"h_s.up1": (4 * d, z), "h_s.up2": (4 * d, d), "h_s.out": (d, d), "embed": (d, 2 * m)}
    for k in range(PASSES):
        layers |= {f"passes.{k}.mix": (d, 2 * d), f"passes.{k}.hidden": (d, d), f"passes.{k}.head": (2 * m, d)}
    return layers


def frozen_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the frozen entropy model, but for `tables.frequencies`, which the radii give."""
    d, knots = config.D, integer.KNOTS
    shapes: dict[str, tuple[int, ...]] = {"z_index": (knots, config.Z), "tables.radii": (SCALES_LEVELS,)}
    shapes |= dict.fromkeys(("norm", "reciprocal"), (knots, config.M))
    shapes |= {f"passes.{k}.context_bias": (d,) for k in range(PASSES)}
    for name, (outputs, inputs) in dense_layers(config).items():
        shapes[f"{name}.weight"] = (outputs, inputs)
        shapes |= dict.fromkeys((f"{name}.factor", f"{name}.bias"), (knots, outputs))
        shapes |= dict.fromkeys((f"{name}.fold", f"{name}.shift"), (outputs,))
    for name in DEPTHWISE:
        shapes |= {f"{name}.weight": (9, d), f"{name}.bias": (d,), f"{name}.shift": (d,)}
    return shapes


def check_config(config: ModelConfig) -> None:
    """Raise ValueError if no codec has these sizes."""
    sizes = (config.N, config.M, config.Z, config.D, config.cond_width)
    if any(type(size) is not int or size < 1 for size in sizes) or config.M % PASSES or config.num_coefficients != 1:
        raise ValueError(f"no codec has the sizes {config}")
    if config.reach_px > MARGIN_PX:
        raise ValueError(f"its transforms reach {config.reach_px} px, tiles have a margin of {MARGIN_PX}")


def check_shapes(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Raise ValueError if the frozen tensors are not those of `config`, of integers."""
    shapes = frozen_shapes(config)
    if tensors.keys() - {"tables.frequencies"} != shapes.keys():
        names = sorted(tensors.keys() - {"tables.frequencies"} ^ shapes.keys())
        raise ValueError(f"tensors are missing or unknown: {', '.join(names)}")
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.int16, torch.int32):
            raise ValueError(f"{name} holds {tensor.dtype}, expected integers of 16 or 32 bits")
        expected = shapes.get(name, (tensor.numel(),))
        if tensor.shape != expected:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
    if not 0 <= tensors["z_index"].min() <= tensors["z_index"].max() < SCALES_LEVELS:
        raise ValueError(f"z_index leaves the {SCALES_LEVELS} rows of the tables")


def check_exact(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Check shifts and sums of tensors whose shapes are right; ValueError if one is out of range.

    Knots suffice: weights and biases at the qualities between lie between those of the knots.
    """
    for name, tensor in tensors.items():
        low = 0 if name.endswith(".fold") else -SHIFT_LIMIT
        if name.endswith((".fold", ".shift")) and not low <= tensor.min() <= tensor.max() <= SHIFT_LIMIT:
            raise ValueError(f"{name} is out of range")
    for name, (_, inputs) in dense_layers(config).items():
        limit = integer.Z_LIMIT if name == "h_s.up1" else integer.ACTIVATION_LIMIT
        limits, reserve = torch.full((inputs,), limit), torch.zeros(())
        if name == "embed":  # the biases of the passes are added to the same sum
            limits = torch.tensor([integer.FEATURE_LIMIT, integer.MAGNITUDE_LIMIT]).repeat_interleave(config.M)
            biases = torch.stack([tensors[f"passes.{k}.context_bias"] for k in range(PASSES)])
            reserve = biases.double().abs().amax(0)
        _check_dense(tensors, name, limits, reserve)
    for name in DEPTHWISE:
        taps, bias = tensors[f"{name}.weight"].double(), tensors[f"{name}.bias"].double()
        _check_sums(name, taps.abs().sum(0) * integer.ACTIVATION_LIMIT + bias.abs())


def _check_dense(tensors: Mapping[str, Tensor], name: str, limits: Tensor, reserve: Tensor) -> None:
    """Check the sums of a dense layer, and `reserve` on top, for inputs up to `limits`."""
    # As if factors and biases were largest at one knot: takes one evaluation, and is hardly ever too strict.
    largest = {
        f"{name}.{key}": tensors[f"{name}.{key}"].long().abs().amax(0).expand(integer.KNOTS, -1)
        for key in ("factor", "bias")
    }
    together = {**tensors, **largest, f"{name}.weight": tensors[f"{name}.weight"].long().abs()}
    if (_sums(together, name, 0, limits) + reserve).max() < ACCUMULATOR_LIMIT:
        return
    for quality in range(0, QUALITY_MAX + 1, integer.KNOT_SPACING):
        _check_sums(name, _sums(tensors, name, quality, limits) + reserve)


def _sums(tensors: Mapping[str, Tensor], name: str, quality: int, limits: Tensor) -> Tensor:
    """Per output channel, what no sum of the layer exceeds."""
    layer = integer.IntegerPointwise(tensors, name, quality, torch.float64)
    return limits.double() @ layer.weight.abs() + layer.bias.abs()


def _check_sums(name: str, sums: Tensor) -> None:
    if sums.max() >= ACCUMULATOR_LIMIT:
        raise ValueError(f"{name} sums up to {sums.max():.0f}; float32 would not be exact")
