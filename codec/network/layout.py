"""The entropy model as a table of its layers; float form, freezing, bounds and integer form all follow it.

Fixed-point units: activations in steps of 2^-ACTIVATION_BITS; y, its mean and y_hat in steps of 2^-LATENT_BITS.
Needs no torch.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from codec.network.config import PASSES, ModelConfig

FACTOR_BITS = 12  # FiLM factors
ACTIVATION_BITS = 7
# Activations of the prior nets are clipped here in training, so that freezing to integers clips nothing new.
ACTIVATION_MAX = 8.0
ACTIVATION_LIMIT = (8 << ACTIVATION_BITS) - 1
LATENT_BITS = 4
LATENT_LIMIT = 1 << 14  # |y_hat| in its steps: ±1024 quantiser steps
FEATURE_BITS = 6  # y_hat in units of its deviation
MAGNITUDE_BITS = 4  # log2(1 + |y_hat|)
MAGNITUDE_LIMIT = 161  # of |y_hat| = LATENT_LIMIT
MEAN_BITS = 10  # means in units of the deviation
MEAN_LIMIT = 8 << MEAN_BITS
Z_LIMIT = 127
NORM_BITS = 14  # of the tables `norm` and `reciprocal`, which turn deviations into steps and back
RECIPROCAL_BITS = 12


class Unit(NamedTuple):
    """What integers stand for: multiples of 2^-bits, of which there are low … high."""

    bits: int
    low: int
    high: int


POSITIVE = Unit(ACTIVATION_BITS, 0, ACTIVATION_LIMIT)
SIGNED = Unit(ACTIVATION_BITS, -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
MAGNITUDE = Unit(MAGNITUDE_BITS, 0, MAGNITUDE_LIMIT)
MEAN = Unit(MEAN_BITS, -MEAN_LIMIT, MEAN_LIMIT)
HYPER_LATENT = Unit(0, -Z_LIMIT, Z_LIMIT)


class Channels(NamedTuple):
    """Neighbouring channels of one unit."""

    number: int
    unit: Unit


class Layer(NamedTuple):
    """One layer of the entropy model.

    Attributes:
        name: of its tensors in a weights file and of its module in `Prior`.
        kind: "dense", a 1×1 convolution with FiLM, or "depthwise", a 3×3 one without.
        inputs, outputs: channels and their units.
        reserve: names of biases that are added to the layer's sums before the shift.
    """

    name: str
    kind: Literal["dense", "depthwise"]
    inputs: tuple[Channels, ...]
    outputs: tuple[Channels, ...]
    reserve: tuple[str, ...] = ()

    @property
    def in_channels(self) -> int:
        """Inputs in all."""
        return sum(part.number for part in self.inputs)

    @property
    def out_channels(self) -> int:
        """Outputs in all."""
        return sum(part.number for part in self.outputs)

    @property
    def in_limits(self) -> npt.NDArray[np.float64]:
        """Largest magnitude of each input, in its units, (in,)."""
        return per_channel([(part.number, max(-part.unit.low, part.unit.high)) for part in self.inputs])

    @property
    def in_steps(self) -> npt.NDArray[np.float64]:
        """Real value of one unit of each input, (in,)."""
        return per_channel([(part.number, 2.0**-part.unit.bits) for part in self.inputs])

    @property
    def out_bits(self) -> npt.NDArray[np.float64]:
        """Outputs are in units of 2^-out_bits, (out,)."""
        return per_channel([(part.number, part.unit.bits) for part in self.outputs])


def per_channel(parts: list[tuple[int, Any]]) -> npt.NDArray[np.float64]:
    """Each value as often as its count says."""
    return np.concatenate([np.full(count, value, np.float64) for count, value in parts])


def feature_unit(config: ModelConfig) -> Unit:
    """Unit of decoded latents as the context sees them, in their deviations."""
    limit = int(config.feature_max * 2**FEATURE_BITS)
    return Unit(FEATURE_BITS, -limit, limit)


def index_unit(config: ModelConfig) -> Unit:
    """Unit of rows of the scale table."""
    return Unit(0, 0, config.scales_levels - 1)


def prior_layers(config: ModelConfig) -> dict[str, Layer]:
    """The table, by name, in the order in which the layers run."""
    m, d, z = config.M, config.D, config.Z
    layers: list[Layer] = []

    def dense(name: str, inputs: tuple[Channels, ...], outputs: tuple[Channels, ...], *reserve: str) -> None:
        layers.append(Layer(name, "dense", inputs, outputs, reserve))

    def depthwise(name: str) -> None:
        layers.append(Layer(name, "depthwise", (Channels(d, SIGNED),), (Channels(d, SIGNED),)))

    features = (Channels(d, POSITIVE),)
    filtered = Channels(d, SIGNED)
    dense("h_s.up1", (Channels(z, HYPER_LATENT),), (Channels(4 * d, POSITIVE),))
    depthwise("h_s.spatial1")
    dense("h_s.up2", (filtered,), (Channels(4 * d, POSITIVE),))
    depthwise("h_s.spatial2")
    dense("h_s.out", (filtered,), features)
    context = (Channels(m, feature_unit(config)), Channels(m, MAGNITUDE))
    dense("embed", context, features, *(f"passes.{k}.context_bias" for k in range(PASSES)))
    for k in range(PASSES):
        depthwise(f"passes.{k}.spatial")
        dense(f"passes.{k}.mix", (filtered, *features), features)
        dense(f"passes.{k}.hidden", features, features)
        dense(f"passes.{k}.head", features, (Channels(m, MEAN), Channels(m, index_unit(config))))
    return {layer.name: layer for layer in layers}


def frozen_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of the frozen entropy model, but for `tables.frequencies`, which the radii give."""
    knots = config.knots
    shapes: dict[str, tuple[int, ...]] = {"z_index": (knots, config.Z), "tables.radii": (config.scales_levels,)}
    shapes |= dict.fromkeys(("norm", "reciprocal"), (knots, config.M))
    for layer in prior_layers(config).values():
        name, out = layer.name, layer.out_channels
        shapes |= dict.fromkeys(layer.reserve, (out,))
        if layer.kind == "dense":
            shapes[f"{name}.weight"] = (out, layer.in_channels)
            shapes |= dict.fromkeys((f"{name}.factor", f"{name}.bias"), (knots, out))
            shapes |= dict.fromkeys((f"{name}.fold", f"{name}.shift"), (out,))
        else:
            shapes |= {f"{name}.weight": (9, out), f"{name}.bias": (out,), f"{name}.shift": (out,)}
    return shapes
