"""Which blocks of a tile the encoder codes plainly; decoders do not depend on any of it.

A block is plain where that costs less: bits + λ·255²·MSE, MSE being 0. Only blocks that may be cheap plainly, or that
the network cannot hold, are looked at, so that photographs hardly pay for the question.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from codec.format.bitstream import PLAIN_UNIT_PX
from codec.picture.image import Uint8Array
from codec.picture.plain import FAST, BoolArray, compress, on_pixels

FloatArray = npt.NDArray[np.float32]
SAME_SHARE = 0.4  # of pixels equal to the one at the left or above; below it a block is taken for a photograph
HARSH = 500.0  # mean square of pixel-sized texture that photographs do not reach
HARSH_BITS = 4.0  # λ times it, per pixel, from which a plain block may pay
SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of the guessed bits, of which the guess is right up to a factor
GAIN = 0.98  # what a tile of both kinds must promise to cost, of one kind alone, since promises are a little too good
WHOLE_SHARE = 0.5  # of candidates, from which on a whole plain tile is tried


def candidates(colour: Uint8Array, lmbda: float) -> BoolArray:
    """Blocks of a tile's pixels that are worth a closer look, (rows, columns); quick.

    They have many equal neighbours, as what is drawn has, or texture as fine as pixels that would be lost: dithers,
    noise.
    The green channel stands for all, since it does in what this is about.
    """
    green = colour[:, :, colour.shape[2] // 2].astype(np.int16)
    west, north = np.zeros_like(green), np.zeros_like(green)
    np.subtract(green[:, 1:], green[:, :-1], out=west[:, 1:])
    np.subtract(green[1:], green[:-1], out=north[1:])
    twist = np.zeros(green.shape, np.float32)
    np.subtract(west[1:], west[:-1], out=twist[1:])
    harsh = block_means(np.square(twist, out=twist)) / 4.0
    return (block_means((west == 0) | (north == 0)) > SAME_SHARE) | (harsh > max(HARSH, HARSH_BITS / lmbda))


def block_sums(values: npt.NDArray[np.float32] | BoolArray) -> FloatArray:
    """Sums over the blocks of an array over pixels, (H, W) → (rows, columns)."""
    rows, columns = (np.arange(0, side, PLAIN_UNIT_PX) for side in values.shape)
    sums = np.add.reduceat(values, rows, axis=0, dtype=np.float32)
    return np.asarray(np.add.reduceat(sums, columns, axis=1), np.float32)


def block_means(values: npt.NDArray[np.float32] | BoolArray) -> FloatArray:
    return block_sums(values) / block_sums(np.ones(values.shape, bool))


def choose_plain(colour: Uint8Array, asked: BoolArray, learned_bits: FloatArray) -> BoolArray:
    """The blocks of a tile to code plainly.

    The bits of a block alone are not known, since blocks share what the lossless coder learns of them. So they are
    guessed up to a factor, the blocks where they are fewer than the learned ones' cost are tried for several such
    factors, and the best of these tiles is taken.

    Args:
        colour: pixels of the picture that lie in the tile, uint8 (H, W, 3 or 1).
        asked: the candidates, (rows, columns).
        learned_bits: what each block costs if it is learned, its error included, in bits.
    """
    nothing, everything = np.zeros_like(asked), np.ones_like(asked)
    if not asked.any():
        return nothing
    best, least = nothing, float(learned_bits.sum())
    if asked.mean() >= WHOLE_SHARE and (cost := plain_bits(colour, everything)) < least:
        best, least = everything, cost
    guess = guessed_bits(colour)
    guess *= plain_bits(colour, asked) / max(1.0, float(guess[asked].sum()))
    floor = float(learned_bits.min())  # learned bits of a block that is filled with next to nothing
    promised, tried = GAIN * least, set[bytes]()
    for scale in SCALES:
        mask = asked & (learned_bits > scale * guess)
        if mask.any() and not mask.all() and mask.tobytes() not in tried:
            tried.add(mask.tobytes())
            cost = plain_bits(colour, mask) + mask.size + floor * mask.sum() + float(learned_bits[~mask].sum())
            if cost < promised:
                best, promised = mask, cost
    return best


def plain_bits(colour: Uint8Array, mask: BoolArray) -> float:
    """What the plain section of a tile takes, in bits."""
    return 8.0 * len(compress(colour * on_pixels(mask, *colour.shape[:2])[:, :, None], FAST))


def guessed_bits(colour: Uint8Array) -> FloatArray:
    """A guess at the bits of each block, right up to a factor: residuals of a prediction, runs next to free."""
    wide = colour.astype(np.int16)
    west, north = np.roll(wide, 1, axis=1), np.roll(wide, 1, axis=0)
    west[:, 0], north[0] = wide[:, 0], wide[0]
    corner = np.roll(north, 1, axis=1)
    predicted = np.where(np.abs(north - corner) < np.abs(west - corner), west, north)
    residual = wide - predicted
    if colour.shape[2] == 3:
        residual[:, :, ::2] -= residual[:, :, 1:2]
    bits = 3.0 + 1.5 * np.log2(1.0 + np.abs(residual).astype(np.float32)).sum(axis=2)
    bits[(wide == west).all(axis=2) | (wide == north).all(axis=2)] = 0.02
    return block_sums(bits)


def filled(colour: Uint8Array, hole: BoolArray) -> Uint8Array:
    """Pixels whose holes continue what is around them smoothly, so that the network has next to nothing to code there.

    Averages of 2 × 2 pixels, again and again, leave out the holes; on the way back, where nothing finer is known, the
    coarser average stands (push and pull, Gortler et al. 1996, doi:10.1145/237170.237200).

    Args:
        colour: uint8 (H, W, 3 or 1).
        hole: (H, W).
    """
    if hole.all():
        return np.full_like(colour, 128)
    weight = (~hole)[:, :, None].astype(np.float32)
    levels = [(colour * weight, weight)]
    while max(levels[-1][1].shape[:2]) > 1:
        value, weight = (halved(part) for part in levels[-1])
        known = np.maximum(weight, np.float32(1e-9))
        weight = np.minimum(4.0 * weight, np.float32(1.0))
        levels.append((value / known * weight, weight))
    value = levels[-1][0]
    for known, weight in reversed(levels[:-1]):
        value = known + (1.0 - weight) * smoothed(doubled(value, weight.shape[:2]))
    out = np.clip(np.rint(value), 0.0, 255.0).astype(np.uint8)
    out[~hole] = colour[~hole]
    return out


def halved(a: FloatArray) -> FloatArray:
    """Means of 2 × 2 elements; zeros stand beyond the edge."""
    a = np.pad(a, ((0, a.shape[0] % 2), (0, a.shape[1] % 2), (0, 0)))
    return (a[::2, ::2] + a[1::2, ::2] + a[::2, 1::2] + a[1::2, 1::2]) / np.float32(4.0)


def doubled(a: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    return a.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def smoothed(a: FloatArray) -> FloatArray:
    """Each element half itself, half its neighbours."""
    p = np.pad(a, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
    return np.float32(0.5) * a + np.float32(0.125) * around
