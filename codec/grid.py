"""Where things lie: tiles and rectangles of the image, which is padded to multiples of 64 px for coding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from codec.format.bitstream import Header, Region
from codec.network.config import HYPER_STRIDE, LATENT_STRIDE, MARGIN_PX
from codec.picture.image import Uint8Array

# Cuts a tile of the usual size and its margin in two, and leaves pictures up to 768 px whole.
BAND_LATENTS = 48

Latents = npt.NDArray[np.int16]


class Box(NamedTuple):
    """A rectangle of the padded image, px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        return self.top + self.height

    @property
    def right(self) -> int:
        return self.left + self.width

    def common(self, other: Box) -> Box:
        """What two rectangles share; without height or width if that is nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Box(top, left, max(0, bottom - top), max(0, right - left))

    def slices(self, origin: Box, stride: int = 1) -> tuple[slice, slice]:
        """Its rows and columns in an array that covers `origin` with one element per `stride` px."""
        top, left = (self.top - origin.top) // stride, (self.left - origin.left) // stride
        return slice(top, top + self.height // stride), slice(left, left + self.width // stride)


def padded_size(side: int) -> int:
    """Side of the padded image: the next multiple of 64 px."""
    return -(-side // HYPER_STRIDE) * HYPER_STRIDE


def region_box(header: Header, region: Region | None) -> Box:
    """The rectangle of a region, of the whole image if None; ValueError if it does not lie within the image."""
    if region is None:
        return Box(0, 0, header.height, header.width)
    header.check_region(region)
    x, y, width, height = region
    return Box(y, x, height, width)


def on_latents(box: Box) -> Box:
    """The smallest rectangle of whole latents around `box`."""
    top, left = (start // LATENT_STRIDE * LATENT_STRIDE for start in (box.top, box.left))
    bottom, right = (-(-end // LATENT_STRIDE) * LATENT_STRIDE for end in (box.bottom, box.right))
    return Box(top, left, bottom - top, right - left)


def with_margin(box: Box, height: int, width: int) -> Box:
    """`box` and the context of the transforms around it, as far as the padded image of height × width px goes."""
    grown = Box(box.top - MARGIN_PX, box.left - MARGIN_PX, box.height + 2 * MARGIN_PX, box.width + 2 * MARGIN_PX)
    return grown.common(Box(0, 0, padded_size(height), padded_size(width)))


def tile_box(header: Header, number: int) -> Box:
    """The rectangle of one tile."""
    row, column = divmod(number, header.grid[1])
    whole = Box(0, 0, padded_size(header.height), padded_size(header.width))
    return whole.common(Box(row * header.tile_px, column * header.tile_px, header.tile_px, header.tile_px))


def tile_boxes(header: Header) -> Iterator[Box]:
    """The tiles of the padded image, row by row."""
    rows, columns = header.grid
    return (tile_box(header, number) for number in range(rows * columns))


def tiles_touching(header: Header, box: Box) -> list[int]:
    """Numbers of the tiles that share pixels with a rectangle of the padded image, in order."""
    columns, px = header.grid[1], header.tile_px
    return [
        row * columns + column
        for row in range(box.top // px, -(-box.bottom // px))
        for column in range(box.left // px, -(-box.right // px))
    ]


def tile_region(header: Header, number: int) -> Region:
    """The pixels of the image that a tile holds."""
    top, left, height, width = tile_box(header, number).common(region_box(header, None))
    return left, top, width, height


def read_inside(colour: Uint8Array, box: Box) -> torch.Tensor:
    """What of a rectangle lies in the image, as float32 (1, 3 or 1, H, W) in [0, 1]."""
    inside = colour[box.top : box.bottom, box.left : box.right]
    return torch.from_numpy(inside.copy()).permute(2, 0, 1)[None].float().div_(255.0)


class Band(NamedTuple):
    """Latents of a rectangle along one side that the encoder refines together.

    core: their places in the rectangle; around: with what acts on them through the pixels; inner: places of the core
    in `around`.
    """

    core: slice
    around: slice
    inner: slice

    @property
    def pixels(self) -> slice:
        """`around` in pixels."""
        return slice(self.around.start * LATENT_STRIDE, self.around.stop * LATENT_STRIDE)


def bands(count: int) -> Iterator[Band]:
    """Cut `count` latents along one side, so that memory is bounded by less than a tile needs at once."""
    parts = -(-count // BAND_LATENTS)
    reach = 2 * MARGIN_PX // LATENT_STRIDE  # from latents to pixels and back
    for part in range(parts):
        start, stop = part * count // parts, (part + 1) * count // parts
        around = slice(max(0, start - reach), min(count, stop + reach))
        yield Band(slice(start, stop), around, slice(start - around.start, stop - around.start))


def read_region(colour: Uint8Array, box: Box) -> torch.Tensor:
    """A rectangle of the padded image as float32 (1, 3, H, W) in [0, 1]; padding repeats the edge."""
    x = read_inside(colour, box)
    missing = (0, box.width - x.shape[3], 0, box.height - x.shape[2])
    return F.pad(x, missing, mode="replicate").expand(-1, 3, -1, -1)


def copy_overlap(
    part: npt.NDArray[Any], source: Box, target: npt.NDArray[Any], outer: Box, stride: int = LATENT_STRIDE
) -> None:
    """Copy what two arrays share: `part` covers the rectangle `source`, `target` the rectangle `outer`."""
    shared = source.common(outer)
    target[shared.slices(outer, stride)] = part[shared.slices(source, stride)]


def extended(part: Latents, source: Box, outer: Box) -> Latents:
    """The latents of `outer`, those beyond the rectangle `source` of `part` a repetition of its edge."""
    shared = source.common(outer)
    missing = (
        (shared.top - outer.top, outer.bottom - shared.bottom),
        (shared.left - outer.left, outer.right - shared.right),
    )
    widths = [(before // LATENT_STRIDE, after // LATENT_STRIDE) for before, after in missing]
    return np.pad(part[shared.slices(source, LATENT_STRIDE)], (*widths, (0, 0)), mode="edge")
