"""Which blocks of a tile the encoder codes plainly; decoders do not depend on any of it.

A block is plain where that costs less: bits + λ·255²·MSE. Its pixels are exact, or of few colours if that is worth the
bits. Only blocks that may be cheap plainly, or that the network cannot hold, are looked at, so that photographs hardly
pay for the question.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from codec.format.bitstream import PLAIN_UNIT_PX
from codec.picture.image import Uint8Array
from codec.picture.plain import FAST, BoolArray, compress, in_few_colours, on_pixels

FloatArray = npt.NDArray[np.float32]
# Bits of a pixel that repeats one near by; of another, and for each doubling of its step in each channel.
RUN_BITS, LITERAL_BITS, LEVEL_BITS = 0.03, 3.0, 1.5
WEIGHT = 6  # of all channels together, 2, 3 and 1
# Squared levels; the error of a channel for which learned bits are guessed, as at quality 0.6. It serves at every
# quality, since what is drawn stands apart from photographs.
GUESSED_ERROR = 100.0
HARSH = 500.0  # mean square of texture as fine as pixels, which photographs do not reach and the network does not hold
HARSH_BITS = 0.022  # per pixel, for each squared level of that; more at higher quality
FLAT_TILE_BITS = 0.05  # a pixel; so cheap a tile is asked about whatever the network may do
FLAT_BITS = 0.5  # a pixel; so cheap a block is asked about if others are
DOUBT = 3.0  # times the learned bits, up to which a block is asked about if others are
ASKED_SHARE = 0.01  # of blocks in a tile; fewer are not worth the question
SCALES = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)  # of the guessed bits, of which the guess is right up to a factor
HOPELESS = 0.1  # of the guessed bits: blocks that cost less are better learned whatever the factor is
GAIN = 0.98  # what a tile of both kinds must promise to cost, of one kind alone, since promises are a little too good
PALETTES = (256, 128, 64, 32, 24, 16, 12, 8, 6, 4)  # numbers of colours that plain blocks may be reduced to
LOSS_BITS = 2.0  # a pixel; few colours whose error costs more are none, so that quality 1 has 38 dB whatever is saved
TRIFLE_BITS = 512.0  # of a tile; whatever takes so little plainly is kept exactly
WHOLE_SHARE = 0.5  # of candidates, from which on a whole plain tile is tried


class Survey(NamedTuple):
    """What a quick look at a tile's blocks says, (rows, columns).

    asked: whether a block is worth a closer look; photographs have next to none.
    guess: bits of each as a plain block, right up to a factor that is about the same for all.
    """

    asked: BoolArray
    guess: FloatArray


def survey(colour: Uint8Array, lmbda: float) -> Survey:
    """Tell what is drawn from photographs, by guesses at the bits of either kind.

    A plain pixel is cheap if it repeats one near by, whatever the steps between others are. Learned bits grow with the
    steps alone. A weighted mean of the channels stands for all.

    Args:
        colour: pixels of the picture that lie in the tile, uint8 (H, W, 3 or 1).
        lmbda: weight of the squared error, see `training/loss.py`.
    """
    mixed, channels = weighted(colour)
    west, north, twist = (np.zeros_like(mixed) for _ in range(3))
    np.subtract(mixed[:, 1:], mixed[:, :-1], out=west[:, 1:])
    np.subtract(mixed[1:], mixed[:-1], out=north[1:])
    np.subtract(west[1:], west[:-1], out=twist[1:])
    same = (west == 0) | (north == 0)
    same[:, 2:] |= mixed[:, 2:] == mixed[:, :-2]  # dithers and checkerboards
    same[1:, 1:] |= mixed[1:, 1:] == mixed[:-1, :-1]
    bits = _literal_bits(channels)[np.minimum(np.abs(west), np.abs(north))]
    bits[same] = RUN_BITS
    size = block_sums(np.ones(same.shape, bool))
    plain = block_sums(bits) / size
    steps = (block_sums(squared(west)) + block_sums(squared(north))) / (4.0 * size)
    harsh = np.maximum(block_sums(squared(twist)) / (4.0 * size) - HARSH, 0.0)
    learned = 1.5 * np.log2(1.0 + steps / GUESSED_ERROR) + max(lmbda, HARSH_BITS) * harsh
    asked = plain < learned
    if asked.mean() >= ASKED_SHARE or plain.mean() < FLAT_TILE_BITS:
        asked = plain < np.maximum(FLAT_BITS, DOUBT * learned)
    else:
        asked[:] = False
    return Survey(asked, plain * size)


def weighted(colour: Uint8Array) -> tuple[npt.NDArray[np.int16], int]:
    """A weighted sum of the channels, of WEIGHT in all, (H, W), and how many differ."""
    if colour.shape[2] == 1:
        return np.int16(WEIGHT) * colour[:, :, 0].astype(np.int16), 1
    red, green, blue = (colour[:, :, i] for i in range(3))
    grey = np.array_equal(red, green) and np.array_equal(green, blue)
    mixed = 3 * green.astype(np.int16)
    mixed += red
    mixed += red
    mixed += blue
    return mixed, 1 if grey else 3


@lru_cache(maxsize=2)
def _literal_bits(channels: int) -> FloatArray:
    """Bits of a pixel by its step, in units of 1 / WEIGHT levels."""
    steps = np.log2(1.0 + np.arange(255 * WEIGHT + 1) / WEIGHT)
    return (LITERAL_BITS + channels * LEVEL_BITS * steps).astype(np.float32)


def squared(steps: npt.NDArray[np.int16]) -> FloatArray:
    """Squares of differences, float32."""
    return np.square(steps * np.float32(1.0 / WEIGHT))


def block_sums(values: FloatArray | BoolArray) -> FloatArray:
    """Sums over the blocks of an array over pixels, (H, W) → (rows, columns)."""
    rows, columns = (np.arange(0, side, PLAIN_UNIT_PX) for side in values.shape)
    sums = np.add.reduceat(values, rows, axis=0, dtype=np.float32)
    return np.asarray(np.add.reduceat(sums, columns, axis=1), np.float32)


class Drawing(NamedTuple):
    """What a tile's plain blocks show.

    Attributes:
        pixels: uint8 (H, W, 3 or 1).
        bits: of its plain section.
        errors: λ·255² times the squared error of each block, (rows, columns).
    """

    pixels: Uint8Array
    bits: float
    errors: FloatArray


def draw(colour: Uint8Array, mask: BoolArray, lmbda: float) -> Drawing:
    """The plain blocks of a tile, exact or in few colours, whichever costs less, its error included.

    Anti-aliased lines and letters have many colours that hardly differ, and cost twice what a palette of them does.
    """
    best = Drawing(colour, plain_bits(colour, mask), np.zeros(mask.shape, np.float32))
    places = on_pixels(mask, *colour.shape[:2])
    shown = colour * places[:, :, None]
    least = best.bits
    for pixels in in_few_colours(shown, PALETTES if best.bits > TRIFLE_BITS else ()):
        errors = np.float32(lmbda) * block_sums(np.square(pixels.astype(np.float32) - colour).mean(axis=2))
        if (lost := float(errors[mask].sum())) >= min(least, LOSS_BITS * places.sum()):
            break  # fewer colours lose more
        drawing = Drawing(pixels, plain_bits(pixels, mask), errors)
        if drawing.bits + lost < least:
            best, least = drawing, drawing.bits + lost
    return best


def choose_plain(
    colour: Uint8Array, found: Survey, learned_bits: FloatArray, shared_bits: float, lmbda: float
) -> tuple[BoolArray, Uint8Array]:
    """The blocks of a tile to code plainly, and the pixels that they show.

    The bits of a block alone are not known, since blocks share what the lossless coder learns of them. So they are
    guessed up to a factor, the blocks where they are fewer than the learned ones' cost are tried for several such
    factors, and the best of these tiles is taken. Then once more, with a palette for those blocks alone.

    Args:
        colour: pixels of the picture that lie in the tile, uint8 (H, W, 3 or 1).
        found: what `survey` says of it.
        learned_bits: what each block costs if it is learned, its error included, in bits.
        shared_bits: what learned blocks cost beyond that if there are any.
        lmbda: weight of the squared error.
    """
    asked = found.asked & (learned_bits > HOPELESS * found.guess)
    asked |= float(found.guess.sum()) < TRIFLE_BITS
    best, least = (np.zeros_like(asked), colour), float(learned_bits.sum()) + shared_bits
    if not asked.any():
        return best
    everything = np.ones_like(asked)
    if asked.mean() >= WHOLE_SHARE:
        drawing = draw(colour, everything, lmbda)
        cost = drawing.bits + float(drawing.errors.sum())
        if cost < max(least, TRIFLE_BITS):
            best, least = (everything, drawing.pixels), cost
        if drawing.bits < TRIFLE_BITS:
            return best
    if not asked.all():
        drawing = draw(colour, asked, lmbda)
    promised = GAIN * least
    mask, cost = cheapest_mask(drawing, asked, learned_bits)
    if mask.any() and not mask.all():
        narrow = draw(colour, mask, lmbda)
        again, better = cheapest_mask(narrow, mask, learned_bits)
        if better < cost:
            drawing, mask, cost = narrow, again, better
        if cost + shared_bits < promised:
            best = mask, drawing.pixels
    return best


def cheapest_mask(drawing: Drawing, among: BoolArray, learned_bits: FloatArray) -> tuple[BoolArray, float]:
    """Which of the drawing's blocks to show, not all of a tile, and what the tile then costs; infinity if none."""
    guess = guessed_bits(drawing.pixels)
    guess *= drawing.bits / float(guess[among].sum())
    floor = float(learned_bits.min())  # learned bits of a block that is filled with next to nothing
    best, least = np.zeros_like(among), np.inf
    tried = set[bytes]()
    for scale in SCALES:
        mask = among & (learned_bits > scale * guess + drawing.errors)
        if mask.any() and not mask.all() and mask.tobytes() not in tried:
            tried.add(mask.tobytes())
            cost = plain_bits(drawing.pixels, mask) + mask.size + floor * mask.sum()
            cost += float(drawing.errors[mask].sum() + learned_bits[~mask].sum())
            if cost < least:
                best, least = mask, cost
    return best, least


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
    """Every value twice along both sides, cut to a shape."""
    return a.repeat(2, axis=0).repeat(2, axis=1)[: shape[0], : shape[1]]


def smoothed(a: FloatArray) -> FloatArray:
    """Each element half itself, half its neighbours."""
    p = np.pad(a, ((1, 1), (1, 1), (0, 0)), mode="edge")
    around = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:]
    return np.float32(0.5) * a + np.float32(0.125) * around
