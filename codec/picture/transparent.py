"""Colours that nobody sees, under an alpha of 0, made such that they cost few bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from codec.picture.image import Planes

BLOCK_PX = 512  # filled at a time, which bounds memory
UNKNOWN_LEVEL = 128  # where a whole block is transparent

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]


def without_hidden_colours(planes: Planes) -> Planes:
    """Continue the visible colours smoothly under an alpha of 0; alpha and what is visible stay as they are.

    What comes out depends on the visible pixels alone, so that doing it twice changes nothing.
    """
    if planes.alpha is None or planes.alpha.all():
        return planes
    colour = planes.colour.copy()
    height, width = planes.alpha.shape
    for top in range(0, height, BLOCK_PX):
        for left in range(0, width, BLOCK_PX):
            block = slice(top, top + BLOCK_PX), slice(left, left + BLOCK_PX)
            visible = planes.alpha[block] > 0
            if not visible.all():
                colour[block] = np.round(_filled(colour[block].astype(np.float32), visible))
    return replace(planes, colour=colour)


def _filled(values: FloatArray, known: BoolArray) -> FloatArray:
    """Fill (h, w, C) where `known` (h, w) is false, from means over squares that grow until they hold something known.

    The pull-push method of Gortler, Grzeszczuk, Szeliski & Cohen, "The Lumigraph", SIGGRAPH 1996.
    """
    if known.all():
        return values
    if not known.any():
        return np.full_like(values, UNKNOWN_LEVEL)
    height, width = known.shape
    odd = (0, height % 2), (0, width % 2)
    weights = np.pad(known, odd).astype(np.float32)[:, :, None]
    sums, counts = _quarter(np.pad(values, (*odd, (0, 0))) * weights), _quarter(weights)
    means = (sums / np.maximum(counts, 1.0)).astype(np.float32)
    coarse = _filled(means, counts[:, :, 0] > 0)
    fine = _smooth(coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width])
    return np.where(known[:, :, None], values, fine)


def _quarter(values: FloatArray) -> FloatArray:
    """Sums over squares of 2×2."""
    height, width, channels = values.shape
    total: FloatArray = values.reshape(height // 2, 2, width // 2, 2, channels).sum(axis=(1, 3))
    return total


def _smooth(values: FloatArray) -> FloatArray:
    """Means over 3×3, so that the squares do not show."""
    for axis in (0, 1):
        edge = [(1, 1) if side == axis else (0, 0) for side in range(3)]
        padded, n = np.pad(values, edge, mode="edge"), values.shape[axis]
        before, here, after = (padded.take(range(start, start + n), axis=axis) for start in range(3))
        values = (before + here + after) / np.float32(3.0)
    return values
