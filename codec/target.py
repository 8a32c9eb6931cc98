"""The quality at which a file has a wanted size, or a picture a wanted PSNR, found with few encodes."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import NamedTuple

from PIL import Image

from codec.api import Codec, default_codec, planes_of
from codec.encoder import DEFAULT_EFFORT
from codec.format.bitstream import QUALITY_MAX
from codec.grid import Progress
from codec.metrics import psnr_db
from codec.picture.image import ImageLike, Planes, to_planes
from codec.picture.source import Source
from codec.picture.transparent import without_hidden_colours

RATE_TOLERANCE = 0.01  # of bytes and of bpp, below the target
PSNR_TOLERANCE_DB = 0.05
# First guesses of how ln(bytes) and PSNR rise over the whole range of quality; they cost encodes, not exactness.
_RATE_RISE = 3.0
_PSNR_RISE_DB = 14.0
# Of progress: in all, and what a file takes of those that are left.
_STEPS = 1000
_SHARE = 0.3


class Targeted(NamedTuple):
    """What `encode_to_target` found.

    data: the bytes of the file.
    quality: the one chosen, in [0, 1].
    reached: bytes, bpp or PSNR of this file, in the unit of the target.
    met: whether that is within RATE_TOLERANCE below, or PSNR_TOLERANCE_DB of, the target; else it is the largest file
        found that is no larger than the target, or the smallest of all, or the nearest PSNR.
    encodes: how many files were tried.
    """

    data: bytes
    quality: float
    reached: float
    met: bool
    encodes: int


def encode_to_target(
    image: ImageLike | Source,
    *,
    size_bytes: float | None = None,
    bpp: float | None = None,
    psnr_db: float | None = None,
    codec: Codec | None = None,
    effort: int = DEFAULT_EFFORT,
    keep_metadata: bool = True,
    levels: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> Targeted:
    """Compress an image to a wanted size or PSNR, by choosing the quality.

    Args:
        image: as for `Codec.encode`.
        size_bytes, bpp: of the whole file, metadata and alpha included; never more, and at most 1 % less, if any
            quality does it.
        psnr_db: of the decoded colour channels against the image's.
        codec: the model, None for the shipped one.
        effort: as for `Codec.encode`, at every quality that is tried.
        keep_metadata: keep the ICC profile, Exif and XMP of a PIL image.
        levels: as for `Codec.encode`.
        progress: called on the way with how much is done and with what will be, in the end with two equal numbers.

    Raises:
        ImageError: the image cannot be coded.
        ValueError: not exactly one target, or one that is not positive.
    """
    targets = [target for target in (size_bytes, bpp, psnr_db) if target is not None]
    if len(targets) != 1:
        raise ValueError(f"give one of size_bytes, bpp and psnr_db, not {len(targets)}")
    target = targets[0]
    if not 0.0 < target < math.inf:
        raise ValueError(f"the target is {target}; it must be a positive number")
    planes = without_hidden_colours(planes_of(image, levels, keep_metadata))
    model = codec or default_codec()
    encode = _counted(partial(model.encode_planes, planes, effort=effort), progress)
    if psnr_db is None:
        unit = 1.0 if bpp is None else 8.0 / (planes.colour.shape[0] * planes.colour.shape[1])
        found = _search_rate(encode, target, unit)
    else:
        found = _search_psnr(encode, partial(model.decode, max_pixels=sys.maxsize), planes, target)
    if progress:
        progress(_STEPS, _STEPS)
    return found


def _counted(encode: Callable[..., bytes], progress: Progress | None) -> Callable[[int], bytes]:
    """`encode`, of which each call takes the same share of what is left, since nobody knows how many there will be."""
    files = count()

    def counted(rate_point: int) -> bytes:
        number = next(files)

        def tell(done: int, tiles: int) -> None:
            if progress:
                progress(round(_STEPS * (1.0 - (1.0 - _SHARE) ** (number + done / tiles))), _STEPS)

        return encode(rate_point, progress=tell)

    return counted


def _search_rate(encode: Callable[[int], bytes], target: float, unit: float) -> Targeted:
    """`unit` times the bytes of the file shall be `target` at most, and RATE_TOLERANCE less at least."""
    files: dict[int, bytes] = {}

    def measure(rate_point: int) -> float:
        files[rate_point] = encode(rate_point)
        return math.log(unit * len(files[rate_point]))

    # The middle of what is allowed, and a little less to either side than there is, for the sake of rounding.
    half = RATE_TOLERANCE / 2
    search(measure, math.log(target * (1 - half)), 0.99 * half, _RATE_RISE)
    fitting = [rate_point for rate_point, data in files.items() if unit * len(data) <= target]
    if fitting:
        chosen = max(fitting, key=lambda rate_point: (len(files[rate_point]), rate_point))
    else:
        chosen = min(files, key=lambda rate_point: (len(files[rate_point]), rate_point))
    reached = unit * len(files[chosen])
    met = (1 - RATE_TOLERANCE) * target <= reached <= target
    return Targeted(files[chosen], chosen / QUALITY_MAX, reached, met, len(files))


def _search_psnr(
    encode: Callable[[int], bytes], decode: Callable[[bytes], Image.Image], planes: Planes, target: float
) -> Targeted:
    files: dict[int, bytes] = {}
    found: dict[int, float] = {}

    def measure(rate_point: int) -> float:
        files[rate_point] = encode(rate_point)
        found[rate_point] = psnr_db(planes.colour, to_planes(decode(files[rate_point])).colour)
        return found[rate_point]

    chosen = search(measure, target, PSNR_TOLERANCE_DB, _PSNR_RISE_DB)
    met = abs(found[chosen] - target) <= PSNR_TOLERANCE_DB
    return Targeted(files[chosen], chosen / QUALITY_MAX, found[chosen], met, len(files))


def search(measure: Callable[[int], float], target: float, tolerance: float, rise: float) -> int:
    """The rate point where a rising function comes within `tolerance` of `target`, else nearest to it.

    Regula falsi between the points measured on either side, bisection where that converges slowly. Every step leaves
    fewer points open, so it ends whether or not the function really rises.

    Args:
        measure: called at most once for a rate point, 0 … QUALITY_MAX.
        target, tolerance: in the function's unit.
        rise: about how much it rises over the whole range; serves until both sides have been measured.
    """
    found: dict[int, float] = {}
    low, high = -1, QUALITY_MAX + 1  # the target lies between these, exclusive
    guess, width = QUALITY_MAX // 2, high - low
    while low < guess < high:
        found[guess] = measure(guess)
        if abs(found[guess] - target) <= tolerance:
            return guess
        low, high = (guess, high) if found[guess] < target else (low, guess)
        guess = _next_guess(found, target, low, high, rise)
        if len(found) % 3 == 0:  # three steps that do not halve the interval twice are slow
            if high - low > width // 4:
                guess = (low + high) // 2
            width = high - low
        guess = min(max(guess, low + 1), high - 1)
    return min(found, key=lambda rate_point: (abs(found[rate_point] - target), rate_point))


def _next_guess(found: dict[int, float], target: float, low: int, high: int, rise: float) -> int:
    """Where a straight line through the ends of the interval meets the target; through one end with slope `rise`."""
    if low in found and high in found:
        below, above = found[low], found[high]
        if not math.isfinite(above):
            return (low + high) // 2
        return low + round((target - below) / (above - below) * (high - low))
    end = low if low in found else high
    if not math.isfinite(found[end]):
        return (low + high) // 2
    return end + round((target - found[end]) / rise * QUALITY_MAX)
