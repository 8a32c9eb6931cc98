"""The entropy model in integers, so that every machine decodes the same symbols.

After training, `training/export.py` freezes the float `Prior` of `prior.py` to integer weights and tables. Here they
run as integers, times a power of two, carried in float32: every partial sum is below 2^24 of its units (see
`bounds.py`), so each sum is exact in any order, and threads, instruction set and BLAS cannot matter. Dense layers are
plain matrix products, depthwise ones shifted multiply-adds, all in NumPy: no convolution library (Winograd, FFT), no
accelerator, and no state of torch can touch them. The idea: Ballé, Johnston & Minnen, "Integer Networks for Data
Compression", ICLR 2019.

Arrays are (H, W, C). Units are those of `layout.py`. The rate point is the header's integer quality, 0 … QUALITY_MAX;
tables over it are interpolated linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from codec.format.bitstream import QUALITY_MAX
from codec.network.config import PASSES, ModelConfig
from codec.network.layout import (
    LATENT_BITS,
    LATENT_LIMIT,
    MAGNITUDE_BITS,
    NORM_BITS,
    RECIPROCAL_BITS,
    Layer,
    feature_unit,
    prior_layers,
)

IntArray = npt.NDArray[np.int32]
Array = npt.NDArray[Any]  # integers carried in float32 or float64
Integers = Mapping[str, npt.NDArray[np.signedinteger[Any]]]


class TilePrior(NamedTuple):
    """What one run over a tile's latents yields.

    y_hat: int32 (h, w, M) in steps of 2^-LATENT_BITS.
    stages: symbols and scale indexes of z and of each pass, in coding order, each int32 and flat.
    """

    y_hat: IntArray
    stages: list[tuple[IntArray, IntArray]]


def interpolate(table: npt.NDArray[Any], rate_point: int) -> npt.NDArray[np.int64]:
    """Row of an integer table (knots, n) at a rate point, int64, rounded down."""
    spacing = QUALITY_MAX // (len(table) - 1)
    knot = min(rate_point // spacing, len(table) - 2)
    fraction = rate_point - knot * spacing
    low, high = table[knot].astype(np.int64), table[knot + 1].astype(np.int64)
    return (low * (spacing - fraction) + high * fraction) // spacing


def fold(
    weight: npt.NDArray[Any], factor: npt.NDArray[np.int64], shift: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Weights (out, in) with their FiLM factors (out,): ⌊(weight·factor + half) / 2^shift⌋."""
    product = weight.astype(np.int64) * factor[:, None]
    return (product + (1 << shift >> 1)[:, None]) >> shift[:, None]


class IntegerLayer:
    """A layer at one rate point: clamp(⌊(sum of weights·inputs + bias)·2^-shift⌋).

    The power of two is part of weights and bias: it moves their exponents, and products and sums stay exact.
    """

    def __init__(self, layer: Layer, tensors: Integers, rate_point: int, dtype: type[np.floating[Any]]) -> None:
        def get(key: str) -> npt.NDArray[Any]:
            return tensors[f"{layer.name}.{key}"]

        bias = get("bias").astype(np.int64)
        if layer.kind == "dense":
            factor, bias = interpolate(get("factor"), rate_point), interpolate(get("bias"), rate_point)
            weight = fold(get("weight"), factor, get("fold").astype(np.int64)).T
        else:
            weight = get("weight").astype(np.int64)
        self.scale = np.ldexp(1.0, -get("shift").astype(np.int32))
        self.weight = np.ascontiguousarray(weight * self.scale, dtype)
        self.bias = (bias * self.scale).astype(dtype)
        self.low, self.high = layer.outputs[0].unit[1:]

    def finish(self, sums: Array) -> Array:
        """Round down and clamp, in place."""
        np.floor(sums, out=sums)
        return np.minimum(np.maximum(sums, self.low, out=sums), self.high, out=sums)


class IntegerPointwise(IntegerLayer):
    """A dense layer and its FiLM.

    Tensors `weight` int16 (out, in), `factor` and `bias` int32 (knots, out), `fold` and `shift` int32 (out,); rounding
    of the output is part of the bias.
    """

    def __call__(self, a: Array) -> Array:
        """Map (h, w, in) to (h, w, out)."""
        sums = product(a, self.weight)
        sums += self.bias
        return self.finish(sums)

    def columns(self, part: slice) -> IntegerPointwise:
        """The same layer for a slice of its outputs."""
        other = object.__new__(IntegerPointwise)
        other.weight, other.bias = np.ascontiguousarray(self.weight[:, part]), self.bias[part]
        other.low, other.high = self.low, self.high
        return other


class IntegerDepthwise(IntegerLayer):
    """3×3 depthwise convolution with zero padding: `weight` int16 (9, C), `bias` and `shift` int32 (C,)."""

    def __call__(self, a: Array) -> Array:
        """Map (h, w, C) to the same shape."""
        h, w, _ = a.shape
        padded = np.zeros((h + 2, w + 2, a.shape[2]), a.dtype)
        padded[1:-1, 1:-1] = a
        sums = np.empty_like(a)
        term = np.empty_like(a[0])
        for row, total in enumerate(sums):  # each row stays in the cache for all nine taps
            total[:] = self.bias
            for i, tap in enumerate(self.weight):
                y, x = divmod(i, 3)
                np.multiply(padded[row + y, x : x + w], tap, out=term)
                total += term
        return self.finish(sums)


def product(a: Array, weight: Array) -> Array:
    """(h, w, in) times (in, out), as one product of matrices."""
    h, w, channels = a.shape
    return (a.reshape(-1, channels) @ weight).reshape(h, w, -1)


def pixel_shuffle(a: Array) -> Array:
    """(h, w, 4C) → (2h, 2w, C), channels ordered as torch's pixel_shuffle orders them."""
    h, w, c = a.shape
    return a.reshape(h, w, c // 4, 2, 2).transpose(0, 3, 1, 4, 2).reshape(2 * h, 2 * w, c // 4)


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def one_thread() -> AbstractContextManager[object]:
    """Keep NumPy's matrix products on one thread: they are small, and OpenBLAS's threads spin while they wait."""
    return _blas().limit(limits=1, user_api="blas")


@lru_cache(maxsize=1)
def magnitude_table() -> npt.NDArray[np.float32]:
    """log2(1 + |y|) in steps of 2^-MAGNITUDE_BITS for |y| = 0 … LATENT_LIMIT, rounded; integers.

    From exact integer powers: bit_length counts ⌊32·log2(16 + i)⌋, so no logarithm is evaluated.
    """
    start = 2 * LATENT_BITS * (1 << MAGNITUDE_BITS) + 1
    steps = [((16 + i) ** 32).bit_length() - start + 1 >> 1 for i in range(LATENT_LIMIT + 1)]
    return np.array(steps, np.float32)


class IntegerPrior:
    """The frozen entropy model at one rate point.

    Args:
        config: of the network.
        tensors: the integer tensors of the weights file, by name.
        rate_point: as in the header, 0 … QUALITY_MAX.
        dtype: what carries the integers; float64 is the oracle of tests.
    """

    def __init__(
        self, config: ModelConfig, tensors: Integers, rate_point: int, dtype: type[np.floating[Any]] = np.float32
    ) -> None:
        if not 0 <= rate_point <= QUALITY_MAX:
            raise ValueError(f"the rate point is {rate_point}; it must lie in 0 … {QUALITY_MAX}")
        self.dtype, self.M, self.group = dtype, config.M, config.M // PASSES
        self.feature_limit = feature_unit(config).high
        self.z_index = interpolate(tensors["z_index"], rate_point).astype(np.int32)
        self.norm = interpolate(tensors["norm"], rate_point).astype(np.float64)
        self.reciprocal = interpolate(tensors["reciprocal"], rate_point).astype(np.float64)
        table = prior_layers(config)
        self.dense: dict[str, IntegerPointwise] = {}
        self.depthwise: dict[str, IntegerDepthwise] = {}
        for name, layer in table.items():
            if layer.kind == "depthwise":
                self.depthwise[name] = IntegerDepthwise(layer, tensors, rate_point, dtype)
            else:
                self.dense[name] = IntegerPointwise(layer, tensors, rate_point, dtype)
        embed = self.dense["embed"]
        self.context_bias = [(tensors[name] * embed.scale).astype(dtype) for name in table["embed"].reserve]
        # Per pass and channel group: the head's columns for the means, then for the scale indexes.
        self.heads = []
        for k in range(PASSES):
            head = self.dense.pop(f"passes.{k}.head")
            means = [head.columns(self._slice(g)) for g in range(PASSES)]
            indexes = [head.columns(self._slice(g, self.M)) for g in range(PASSES)]
            for part in indexes:
                part.low, part.high = table[f"passes.{k}.head"].outputs[1].unit[1:]
            self.heads.append((means, indexes))

    def _slice(self, group: int, offset: int = 0) -> slice:
        return slice(offset + group * self.group, offset + (group + 1) * self.group)

    def run(self, z: IntArray, coder: Callable[[int, IntArray, IntArray], IntArray]) -> TilePrior:
        """Walk through the passes of one tile.

        Args:
            z: int32 (h/4, w/4, Z).
            coder: called for each pass with its number, the means (in steps of 2^-LATENT_BITS) and the indexes into the
                scale table, both int32 (4, h/2, w/2, M/4); returns the symbols, same shape. Phase p of the first
                axis stands for positions (p // 2, p % 2) of each 2×2 cell.
        """
        with one_thread():
            return self._run(z, coder)

    def _run(self, z: IntArray, coder: Callable[[int, IntArray, IntArray], IntArray]) -> TilePrior:
        stages = [(z.reshape(-1), np.broadcast_to(self.z_index, z.shape).reshape(-1))]
        hyper = self._hyper(z.astype(self.dtype))
        h, w, _ = hyper.shape
        y_hat = np.zeros((h, w, self.M), np.int32)
        embedded = np.empty_like(hyper)
        embedded[:] = self.dense["embed"].bias
        for k in range(PASSES):
            features = self._pass_features(k, embedded, hyper)
            means, indexes = self._parameters(k, features)
            symbols = coder(k, means, indexes)
            decoded = np.clip((symbols << LATENT_BITS) + means, -LATENT_LIMIT, LATENT_LIMIT)
            stages.append((symbols.reshape(-1), indexes.reshape(-1)))
            self._scatter(k, decoded, y_hat, embedded)
        return TilePrior(y_hat, stages)

    def _hyper(self, z: Array) -> Array:
        a = self.depthwise["h_s.spatial1"](pixel_shuffle(self.dense["h_s.up1"](z)))
        a = self.depthwise["h_s.spatial2"](pixel_shuffle(self.dense["h_s.up2"](a)))
        return self.dense["h_s.out"](a)

    def _pass_features(self, k: int, embedded: Array, hyper: Array) -> Array:
        context = self.dense["embed"].finish(embedded + self.context_bias[k])
        context = self.depthwise[f"passes.{k}.spatial"](context)
        h = self.dense[f"passes.{k}.mix"](np.concatenate([context, hyper], axis=2))
        return self.dense[f"passes.{k}.hidden"](h)

    def _parameters(self, k: int, features: Array) -> tuple[IntArray, IntArray]:
        """Means and scale indexes of pass k, int32 (4, h/2, w/2, M/4)."""
        h, w, _ = features.shape
        means, indexes = np.empty((2, 4, h // 2, w // 2, self.group), np.int32)
        for phase in range(4):
            group = (k + phase) % PASSES
            part = np.ascontiguousarray(features[phase // 2 :: 2, phase % 2 :: 2])
            mean_head, index_head = (heads[group] for heads in self.heads[k])
            mean = mean_head(part) * self.norm[self._slice(group)]
            mean = np.floor((mean + (1 << NORM_BITS >> 1)) * 2.0**-NORM_BITS)
            means[phase] = np.clip(mean, -LATENT_LIMIT, LATENT_LIMIT)
            indexes[phase] = index_head(part)
        return means, indexes

    def _scatter(self, k: int, decoded: IntArray, y_hat: IntArray, embedded: Array) -> None:
        """Write the decoded latents of pass k and add them to the embedded context, both in place."""
        weight = self.dense["embed"].weight
        for phase in range(4):
            group = (k + phase) % PASSES
            channels = self._slice(group)
            y_hat[phase // 2 :: 2, phase % 2 :: 2, channels] = decoded[phase]
            if k + 1 < PASSES:
                rows = np.concatenate([weight[channels], weight[self.M :][channels]])
                embedded[phase // 2 :: 2, phase % 2 :: 2] += product(self._features(decoded[phase], channels), rows)

    def _features(self, y_hat: IntArray, channels: slice) -> Array:
        """Context features (…, M/2) of decoded latents (…, M/4)."""
        scaled = np.floor(y_hat * self.reciprocal[channels] * 2.0**-RECIPROCAL_BITS + 0.5)
        scaled = np.clip(scaled, -self.feature_limit, self.feature_limit)
        return np.concatenate([scaled, magnitude_table()[np.abs(y_hat)]], axis=2, dtype=self.dtype)
