"""The entropy model in integers, so that every machine decodes the same symbols.

After training, `training/export.py` freezes the float `Prior` of `model.py` to integer weights and tables. Here
they run as integers carried in float32: every partial sum is below 2^24 (asserted at export), so each sum is exact
in any order, and threads, layout, instruction set and BLAS cannot matter. Dense layers are plain matrix products,
depthwise ones shifted multiply-adds; no convolution library (Winograd, FFT) and no accelerator is used. The idea:
Ballé, Johnston & Minnen, "Integer Networks for Data Compression", ICLR 2019.

Layout is (H, W, C). Units: activations in steps of 2^-ACTIVATION_BITS; y, its mean and y_hat in steps of
2^-LATENT_BITS; quality is an integer 0 … QUALITY_MAX. Tables over quality have KNOTS rows, interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.format.bitstream import QUALITY_MAX
from codec.network.config import PASSES

KNOTS = 33
KNOT_SPACING = QUALITY_MAX // (KNOTS - 1)
FACTOR_BITS = 12  # FiLM factors
ACTIVATION_BITS = 7
ACTIVATION_LIMIT = (8 << ACTIVATION_BITS) - 1
LATENT_BITS = 4
LATENT_LIMIT = 1 << 14  # |y_hat| in its steps: ±1024 quantiser steps
FEATURE_BITS = 6  # y_hat in units of its deviation
FEATURE_LIMIT = 4 << FEATURE_BITS
MAGNITUDE_BITS = 4  # log2(1 + |y_hat|)
MAGNITUDE_LIMIT = 161  # of |y_hat| = LATENT_LIMIT
MEAN_BITS = 10  # means in units of the deviation
MEAN_LIMIT = 8 << MEAN_BITS
Z_LIMIT = 127
NORM_BITS = 14  # of the tables `norm` and `reciprocal`, which turn deviations into steps and back
RECIPROCAL_BITS = 12

IntArray = npt.NDArray[np.int32]


class TilePrior(NamedTuple):
    """What one run over a tile's latents yields.

    y_hat: int32 (h, w, M) in steps of 2^-LATENT_BITS.
    stages: symbols and table rows of z and of each pass, in coding order, each int32 and flat.
    """

    y_hat: IntArray
    stages: list[tuple[IntArray, IntArray]]


def exact_dtype() -> torch.dtype:
    """What carries the integers: float32, unless the process allows products in bfloat16, which double never is."""
    return torch.float32 if torch.get_float32_matmul_precision() == "highest" else torch.float64


def interpolate(table: Tensor, quality: int) -> Tensor:
    """Row of an integer table (KNOTS, n) at `quality`, int64, rounded down."""
    knot = min(quality // KNOT_SPACING, KNOTS - 2)
    fraction = quality - knot * KNOT_SPACING
    low, high = table[knot].long(), table[knot + 1].long()
    return (low * (KNOT_SPACING - fraction) + high * fraction) // KNOT_SPACING


def power_of_two(shift: Tensor, dtype: torch.dtype) -> Tensor:
    """Exactly 2^-shift; vectorised exp2 may be off by an ulp."""
    return torch.tensor([2.0**-s for s in shift.tolist()], dtype=dtype)


class IntegerPointwise:
    """A dense layer and its FiLM at one quality: clamp(⌊(a·Wᵀ + b)·2^-shift⌋).

    Read from tensors `weight` int16 (out, in), `factor` and `bias` int32 (KNOTS, out), `fold` and `shift`
    int32 (out,): W = ⌊(weight·factor + half) / 2^fold⌋; rounding of the output is part of the bias.
    """

    def __init__(self, tensors: Mapping[str, Tensor], name: str, quality: int, dtype: torch.dtype) -> None:
        def get(key: str) -> Tensor:
            return tensors[f"{name}.{key}"]

        fold = get("fold").long()[:, None]
        product = get("weight").long() * interpolate(get("factor"), quality)[:, None]
        self.weight = ((product + (1 << fold >> 1)) >> fold).T.to(dtype).contiguous()
        self.bias = interpolate(get("bias"), quality).to(dtype)
        self.scale = power_of_two(get("shift"), dtype)

    def accumulate(self, a: Tensor) -> Tensor:
        """Sums (…, out) before bias and shift."""
        return torch.mm(a.reshape(-1, a.shape[-1]), self.weight).reshape(*a.shape[:-1], -1)

    def __call__(self, a: Tensor, low: int, high: int) -> Tensor:
        return self.requantise(self.accumulate(a).add_(self.bias), low, high)

    def requantise(self, biased: Tensor, low: int, high: int) -> Tensor:
        """Shift down, round down, clamp; works in place."""
        return biased.mul_(self.scale).floor_().clamp_(low, high)

    def columns(self, part: slice) -> IntegerPointwise:
        """The same layer for a slice of its outputs."""
        other = object.__new__(IntegerPointwise)
        other.weight = self.weight[:, part].contiguous()
        other.bias, other.scale = self.bias[part], self.scale[part]
        return other


class IntegerDepthwise:
    """3×3 depthwise convolution with zero padding: `weight` int16 (9, C), `bias` and `shift` int32 (C,)."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype) -> None:
        self.taps = tensors[f"{name}.weight"].to(dtype)
        self.bias = tensors[f"{name}.bias"].to(dtype)
        self.scale = power_of_two(tensors[f"{name}.shift"], dtype)

    def __call__(self, a: Tensor) -> Tensor:
        h, w, _ = a.shape
        padded = F.pad(a, (0, 0, 1, 1, 1, 1))
        total = self.bias.expand_as(a).clone()
        for i, tap in enumerate(self.taps):
            y, x = divmod(i, 3)
            total.addcmul_(padded[y : y + h, x : x + w], tap)
        return total.mul_(self.scale).floor_().clamp_(-ACTIVATION_LIMIT, ACTIVATION_LIMIT)


def pixel_shuffle(a: Tensor) -> Tensor:
    """(h, w, 4C) → (2h, 2w, C), channels ordered as torch's pixel_shuffle orders them."""
    h, w, c = a.shape
    return a.reshape(h, w, c // 4, 2, 2).permute(0, 3, 1, 4, 2).reshape(2 * h, 2 * w, c // 4)


@lru_cache(maxsize=1)
def magnitude_table() -> Tensor:
    """log2(1 + |y|) in steps of 2^-MAGNITUDE_BITS for |y| = 0 … LATENT_LIMIT, rounded; float32 integers.

    From exact integer powers: bit_length counts ⌊32·log2(16 + i)⌋, so no logarithm is evaluated.
    """
    start = 32 * LATENT_BITS + 1
    return torch.tensor([((16 + i) ** 32).bit_length() - start + 1 >> 1 for i in range(LATENT_LIMIT + 1)]).float()


class IntegerPrior:
    """The frozen entropy model at one quality.

    Args:
        tensors: the integer tensors of the weights file, by name.
        quality: integer rate point as in the header, 0 … QUALITY_MAX.
        dtype: what carries the integers, see `exact_dtype`; also the oracle of tests.
    """

    def __init__(self, tensors: Mapping[str, Tensor], quality: int, dtype: torch.dtype = torch.float32) -> None:
        if not 0 <= quality <= QUALITY_MAX:
            raise ValueError(f"quality is {quality}; it must lie in 0 … {QUALITY_MAX}")
        self.dtype = dtype

        def dense(name: str) -> IntegerPointwise:
            return IntegerPointwise(tensors, name, quality, dtype)

        def depthwise(name: str) -> IntegerDepthwise:
            return IntegerDepthwise(tensors, name, dtype)

        self.z_index = interpolate(tensors["z_index"], quality).to(torch.int32).numpy()
        self.up1, self.spatial1 = dense("h_s.up1"), depthwise("h_s.spatial1")
        self.up2, self.spatial2 = dense("h_s.up2"), depthwise("h_s.spatial2")
        self.hyper_out = dense("h_s.out")
        self.embed = dense("embed")
        self.context_bias = [tensors[f"passes.{k}.context_bias"].to(dtype) for k in range(PASSES)]
        self.spatial = [depthwise(f"passes.{k}.spatial") for k in range(PASSES)]
        self.mix = [dense(f"passes.{k}.mix") for k in range(PASSES)]
        self.hidden = [dense(f"passes.{k}.hidden") for k in range(PASSES)]
        heads = [dense(f"passes.{k}.head") for k in range(PASSES)]
        self.norm = interpolate(tensors["norm"], quality).double()
        self.reciprocal = interpolate(tensors["reciprocal"], quality).double()
        self.M = len(self.norm)
        self.group = self.M // PASSES
        # Per pass and channel group: the head's rows for the means, then for the scale indexes.
        self.mean_heads = [[head.columns(self._slice(g)) for g in range(PASSES)] for head in heads]
        self.index_heads = [[head.columns(self._slice(g, self.M)) for g in range(PASSES)] for head in heads]

    def _slice(self, group: int, offset: int = 0) -> slice:
        return slice(offset + group * self.group, offset + (group + 1) * self.group)

    def run(self, z: IntArray, coder: Callable[[int, IntArray, IntArray], IntArray]) -> TilePrior:
        """Walk through the passes of one tile.

        Args:
            z: int32 (h/4, w/4, Z).
            coder: called for each pass with its number, the means (in steps of 2^-LATENT_BITS) and the table
                rows, both int32 (4, h/2, w/2, M/4); returns the symbols, same shape. Phase p of the first axis
                stands for positions (p // 2, p % 2) of each 2×2 cell.
        """
        with torch.inference_mode(), torch.autocast("cpu", enabled=False):
            stages = [(z.reshape(-1), np.broadcast_to(self.z_index, z.shape).reshape(-1))]
            hyper = self._hyper(torch.from_numpy(z).to(self.dtype))
            h, w, _ = hyper.shape
            y_hat = np.zeros((h, w, self.M), np.int32)
            embedded = self.embed.bias.expand_as(hyper).clone()
            for k in range(PASSES):
                features = self._pass_features(k, embedded, hyper)
                means, rows = self._parameters(k, features)
                symbols = coder(k, means, rows)
                decoded = np.clip((symbols << LATENT_BITS) + means, -LATENT_LIMIT, LATENT_LIMIT)
                stages.append((symbols.reshape(-1), rows.reshape(-1)))
                self._scatter(k, decoded, y_hat, embedded)
            return TilePrior(y_hat, stages)

    def _hyper(self, z: Tensor) -> Tensor:
        a = pixel_shuffle(self.up1(z, 0, ACTIVATION_LIMIT))
        a = self.spatial1(a)
        a = pixel_shuffle(self.up2(a, 0, ACTIVATION_LIMIT))
        a = self.spatial2(a)
        return self.hyper_out(a, 0, ACTIVATION_LIMIT)

    def _pass_features(self, k: int, embedded: Tensor, hyper: Tensor) -> Tensor:
        context = self.embed.requantise(embedded + self.context_bias[k], 0, ACTIVATION_LIMIT)
        context = self.spatial[k](context)
        h = self.mix[k](torch.cat([context, hyper], dim=2), 0, ACTIVATION_LIMIT)
        return self.hidden[k](h, 0, ACTIVATION_LIMIT)

    def _parameters(self, k: int, features: Tensor) -> tuple[IntArray, IntArray]:
        """Means and table rows of pass k, int32 (4, h/2, w/2, M/4)."""
        means, rows = [], []
        for phase in range(4):
            group = (k + phase) % PASSES
            part = features[phase // 2 :: 2, phase % 2 :: 2].contiguous()
            mean = self.mean_heads[k][group](part, -MEAN_LIMIT, MEAN_LIMIT).double()
            half = 1 << NORM_BITS >> 1
            mean.mul_(self.norm[self._slice(group)]).add_(half).mul_(2.0**-NORM_BITS).floor_()
            means.append(mean.clamp_(-LATENT_LIMIT, LATENT_LIMIT))
            rows.append(self.index_heads[k][group](part, 0, 63))
        return torch.stack(means).int().numpy(), torch.stack(rows).int().numpy()

    def _scatter(self, k: int, decoded: IntArray, y_hat: IntArray, embedded: Tensor) -> None:
        """Write the decoded latents of pass k and add them to the embedded context, both in place."""
        for phase in range(4):
            group = (k + phase) % PASSES
            channels = self._slice(group)
            y_hat[phase // 2 :: 2, phase % 2 :: 2, channels] = decoded[phase]
            if k + 1 < PASSES:
                features = self._features(torch.from_numpy(decoded[phase]), channels)
                rows = torch.cat([self.embed.weight[channels], self.embed.weight[self.M :][channels]])
                embedded[phase // 2 :: 2, phase % 2 :: 2] += (features.flatten(0, 1) @ rows).reshape(
                    *features.shape[:2], -1
                )

    def _features(self, y_hat: Tensor, channels: slice) -> Tensor:
        half = 1 << RECIPROCAL_BITS >> 1
        scaled = y_hat.double().mul_(self.reciprocal[channels]).add_(half).mul_(2.0**-RECIPROCAL_BITS)
        scaled = scaled.floor_().clamp_(-FEATURE_LIMIT, FEATURE_LIMIT)
        magnitude = magnitude_table()[y_hat.abs().long()]
        return torch.cat([scaled.to(self.dtype), magnitude.to(self.dtype)], dim=2)
