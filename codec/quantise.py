"""What the encoder alone does: choose the symbols. Decoders do not depend on any of it.

Rate–distortion optimised quantisation rounds towards zero where that saves more bits than it costs error. It takes the
latents for coordinates of an orthonormal transform, one at a time. A second look corrects that by what the synthesis
really makes of the symbols: a Newton step on the latents, after which they are quantised anew, kept where the cost
falls. Campos et al. 2019, arXiv:1905.12410, optimise latents in many gradient steps; here a step is scaled by the known
curvature, and few do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from codec.format.entropy import LAST_SILENT_ROW, SymbolTables
from codec.network.backend import FloatArray, from_steps
from codec.network.config import PASSES
from codec.network.integer import IntArray, TilePrior
from codec.network.layout import LATENT_BITS, LATENT_LIMIT, Z_LIMIT

RDO_LEVELS = 15
# Second derivative of λ·255²·MSE, in bits, over a latent in quantiser steps, as `latent_gain` makes it.
CURVATURE = 12.0 / math.log(2.0)
# Bits that a unit of squared error, in quantiser steps, is worth. CURVATURE / 2 is the slope of a fine quantiser, but
# training has made the network shrink what is not worth its bits. Measured best, see training/EXPERIMENTS.md.
RDO_BITS = 25.0
NEWTON_SHARE = 0.35  # of the step, since the latents are not independent
BLOCK = 4  # latents along the side of a block that keeps or drops a step by itself, as wide as a hyper-latent
MIX_SHARE = 0.01  # of the cost, that dropping the step in some blocks must promise to save


class Choice(NamedTuple):
    """Symbols that a tile could be coded as.

    y: the latents that were quantised, float32 (h, w, M).
    tile: what the entropy model made of them.
    costs: bits and error of each block, in bits, (h / 4, w / 4).
    gradient: of the error by y_hat, (h, w, M), if it was asked for.
    error_bits: the error of each latent's pixels, in bits, (h, w).
    """

    y: FloatArray
    tile: TilePrior
    costs: FloatArray
    gradient: FloatArray | None
    error_bits: FloatArray

    @property
    def cost(self) -> float:
        """Bits and error in all."""
        return float(self.costs.sum(dtype=np.float64))


def rounding_thresholds(tables: SymbolTables, rdo_bits: float) -> npt.NDArray[np.float32]:
    """By how much a magnitude must exceed k - 1/2 to be worth the symbol ±k, (rows, RDO_LEVELS + 1).

    k costs more bits than k - 1, which pays if it saves squared error worth as many, at `rdo_bits` a unit. Magnitudes
    beyond RDO_LEVELS are treated like RDO_LEVELS.
    """
    thresholds = np.zeros((len(tables.rows), RDO_LEVELS + 1), np.float32)
    for row, (radius, frequencies) in enumerate(zip(tables.radii, tables.rows, strict=True)):
        bits = -np.log2(frequencies[radius + 1 : radius + 2 + RDO_LEVELS])
        levels = len(bits) - 1
        thresholds[row, 1 : levels + 1] = np.clip(np.diff(bits) / (2.0 * rdo_bits), 0.0, 1.0)
        thresholds[row, levels + 1 :] = thresholds[row, levels]
    return thresholds


def codable(y: FloatArray) -> FloatArray:
    """Latents within what symbols can hold, finite whatever a network made of a picture."""
    limit = np.float32(LATENT_LIMIT >> LATENT_BITS)
    return np.clip(np.nan_to_num(y), -limit, limit)


def quantised_hyper(z: FloatArray, z_index: IntArray) -> IntArray:
    """Symbols of the hyper-latents (h, w, Z), rounded; zero in silent rows, as they are decoded."""
    symbols = np.clip(np.rint(np.nan_to_num(z)), -Z_LIMIT, Z_LIMIT).astype(np.int32)
    symbols[..., z_index <= LAST_SILENT_ROW] = 0
    return symbols


def quantiser(y: FloatArray, thresholds: npt.NDArray[np.float32]) -> Callable[[int, IntArray, IntArray], IntArray]:
    """The encoder's coder for `IntegerPrior.run`: quantises y (h, w, M), in quantiser steps, around the means."""
    h, w, m = y.shape
    cells = codable(y).reshape(h // 2, 2, w // 2, 2, PASSES, m // PASSES).transpose(1, 3, 4, 0, 2, 5)
    limit = (LATENT_LIMIT >> LATENT_BITS) - 1

    def quantise(k: int, means: IntArray, indexes: IntArray) -> IntArray:
        wanted = np.stack([cells[p // 2, p % 2, (k + p) % PASSES] for p in range(4)])
        residual = wanted - means * np.float32(2.0**-LATENT_BITS)
        magnitude = np.abs(residual)
        levels = np.minimum(np.rint(magnitude), limit).astype(np.int32)
        least = levels - np.float32(0.5) + thresholds[indexes, np.minimum(levels, RDO_LEVELS)]
        levels -= magnitude < least
        levels[indexes <= LAST_SILENT_ROW] = 0
        return np.where(residual < 0, -levels, levels)

    return quantise


def block_costs(tile: TilePrior, error_bits: FloatArray, tables: SymbolTables, block: int = BLOCK) -> FloatArray:
    """Bits of y and error of each block of block × block latents, an even number; `error_bits` is (h, w)."""
    h, w, m = tile.y_hat.shape
    costs = error_bits.reshape(h // block, block, w // block, block).sum(axis=(1, 3))
    half = block // 2
    for symbols, indexes in tile.stages[1:]:  # (4 phases, h / 2, w / 2, M / 4); z stays as it is
        bits = tables.bits(symbols, indexes).reshape(4, h // block, half, w // block, half, m // PASSES)
        costs = costs + bits.sum(axis=(0, 2, 4, 5))
    return costs


def newton_step(choice: Choice) -> FloatArray:
    """Latents whose quantisation makes up for the error of the choice's picture, as far as that can be foreseen."""
    assert choice.gradient is not None
    wanted = from_steps(choice.tile.y_hat) - codable(choice.gradient / np.float32(CURVATURE))
    return codable(choice.y + np.float32(NEWTON_SHARE) * (wanted - choice.y))


def without_losses(old: Choice, new: Choice) -> FloatArray | None:
    """The latents of `new`, in blocks where they cost more those of `old`; None if that promises nothing."""
    losses = np.maximum(new.costs - old.costs, 0.0)
    if losses.sum() <= MIX_SHARE * old.cost or losses.all():
        return None
    return np.where(np.kron(losses > 0.0, np.ones((BLOCK, BLOCK), bool))[:, :, None], old.y, new.y)
