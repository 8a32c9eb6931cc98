"""What the encoder alone does: choose the symbols of y. Decoders do not depend on any of it.

Rate–distortion optimised quantisation rounds towards zero where that saves more bits than it costs error. It takes the
latents for coordinates of an orthonormal transform, one at a time. `refined` corrects that by what the synthesis
really makes of the symbols: a Newton step on the latents, after which they are quantised anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from codec.format.entropy import LAST_SILENT_ROW, SymbolTables
from codec.network.config import PASSES
from codec.network.integer import LATENT_BITS, LATENT_LIMIT, IntArray
from codec.network.transforms import Transforms, condition_lmbda

RDO_LEVELS = 15
# Second derivative of λ·255²·MSE, in bits, over a latent in quantiser steps, as `latent_gain` makes it.
CURVATURE = 12.0 / math.log(2.0)
# Bits that a unit of squared error, in quantiser steps, is worth. CURVATURE / 2 is the slope of a fine quantiser, but
# training has made the network shrink what is not worth its bits. Both measured best, see training/EXPERIMENTS.md.
RDO_BITS = 25.0
RDO_BITS_REFINED = 15.0
NEWTON_SHARE = 0.7  # of the step, since the latents are not independent


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


def quantiser(
    y: npt.NDArray[np.float32], thresholds: npt.NDArray[np.float32]
) -> Callable[[int, IntArray, IntArray], IntArray]:
    """The encoder's coder for `IntegerPrior.run`: quantises y (h, w, M), in quantiser steps, around the means."""
    h, w, m = y.shape
    cells = y.reshape(h // 2, 2, w // 2, 2, PASSES, m // PASSES).transpose(1, 3, 4, 0, 2, 5)
    limit = (LATENT_LIMIT >> LATENT_BITS) - 1

    def quantise(k: int, means: IntArray, rows: IntArray) -> IntArray:
        wanted = np.stack([cells[p // 2, p % 2, (k + p) % PASSES] for p in range(4)])
        residual = np.nan_to_num(wanted - means * np.float32(2.0**-LATENT_BITS))
        magnitude = np.abs(residual)
        levels = np.minimum(np.rint(magnitude), limit).astype(np.int32)
        least = levels - np.float32(0.5) + thresholds[rows, np.minimum(levels, RDO_LEVELS)]
        levels -= magnitude < least
        levels[rows <= LAST_SILENT_ROW] = 0
        return np.where(residual < 0, -levels, levels)

    return quantise


def refined(transforms: Transforms, x: Tensor, y: Tensor, y_hat: Tensor, condition: Tensor) -> Tensor:
    """Latents whose quantisation makes up for the error of y_hat's picture, as far as that can be foreseen.

    Campos et al. 2019, arXiv:1905.12410, optimise latents in many gradient steps; here a step is scaled by the known
    curvature, and few do.

    Args:
        transforms: whose synthesis is looked at; on a grey picture it gives the mean of its channels.
        x: float32 (1, 3 or 1, H, W) in [0, 1]; what of the synthesis lies beyond it, at the right and bottom, is
            padding and does not count.
        y: what was quantised, (1, M, h, w), in quantiser steps.
        y_hat: what it was quantised to.
        condition: (1, 1), see `YotoModel.forward`.
    """
    with torch.enable_grad():
        y_hat = y_hat.detach().requires_grad_()
        x_hat = transforms.synthesise(y_hat, condition)[:, :, : x.shape[2], : x.shape[3]]
        if x.shape[1] == 1:
            x_hat = x_hat.mean(dim=1, keepdim=True)
        squared = (x_hat - x).square().mean(dim=1).sum()
        bits = condition_lmbda(condition).item() * 255.0**2 * squared
        (gradient,) = torch.autograd.grad(bits, y_hat)
    wanted = y_hat.detach() - gradient / CURVATURE
    return torch.lerp(y, wanted, NEWTON_SHARE)
