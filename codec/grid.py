"""Where things lie: a picture is padded to multiples of 64 px and cut into tiles that are coded apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from codec.format.bitstream import Region
from codec.network.config import HYPER_STRIDE, LATENT_STRIDE

Progress = Callable[[int, int], None]  # tiles done, tiles in all


class Box(NamedTuple):
    """A rectangle of the padded picture, px."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column to the right of it."""
        return self.left + self.width

    @property
    def latents(self) -> tuple[int, int]:
        """Rows and columns of latents, of a rectangle that lies on them."""
        return self.height // LATENT_STRIDE, self.width // LATENT_STRIDE

    def common(self, other: Box) -> Box:
        """What two rectangles share; without height or width if that is nothing."""
        top, left = max(self.top, other.top), max(self.left, other.left)
        bottom, right = min(self.bottom, other.bottom), min(self.right, other.right)
        return Box(top, left, max(0, bottom - top), max(0, right - left))

    def slices(self, origin: Box, stride: int = 1) -> tuple[slice, slice]:
        """Its rows and columns in an array that covers `origin` with one element per `stride` px."""
        top, left = (self.top - origin.top) // stride, (self.left - origin.left) // stride
        return slice(top, top + self.height // stride), slice(left, left + self.width // stride)

    def pieces(self, side_px: int) -> Iterator[Box]:
        """It in pieces of no more than `side_px` a side, row by row."""
        for top in range(self.top, self.bottom, side_px):
            for left in range(self.left, self.right, side_px):
                yield self.common(Box(top, left, side_px, side_px))

    def on_latents(self) -> Box:
        """The smallest rectangle of whole latents around it."""
        top, left = (start // LATENT_STRIDE * LATENT_STRIDE for start in (self.top, self.left))
        bottom, right = (-(-end // LATENT_STRIDE) * LATENT_STRIDE for end in (self.bottom, self.right))
        return Box(top, left, bottom - top, right - left)


class Grid(NamedTuple):
    """The tiles of a picture, numbered row by row.

    Attributes:
        height, width: of the picture, px.
        tile_px: side of a tile, a multiple of 64 px; those at the right and bottom may be smaller.
        margin_px: context that the transforms need around a rectangle, so that tiles leave no seam.
    """

    height: int
    width: int
    tile_px: int
    margin_px: int

    @property
    def picture(self) -> Box:
        """The picture itself."""
        return Box(0, 0, self.height, self.width)

    @property
    def padded(self) -> Box:
        """The picture, padded to multiples of 64 px at the right and bottom."""
        return Box(0, 0, *(-(-side // HYPER_STRIDE) * HYPER_STRIDE for side in (self.height, self.width)))

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.tile_px)

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return -(-self.width // self.tile_px)

    def tile(self, number: int) -> Box:
        """The rectangle of one tile."""
        row, column = divmod(number, self.columns)
        return self.padded.common(Box(row * self.tile_px, column * self.tile_px, self.tile_px, self.tile_px))

    def tiles(self) -> Iterator[Box]:
        """All tiles, in order."""
        return (self.tile(number) for number in range(self.rows * self.columns))

    def region(self, number: int) -> Region:
        """x, y, width and height of the pixels of the picture that a tile holds."""
        top, left, height, width = self.tile(number).common(self.picture)
        return left, top, width, height

    def touching(self, box: Box) -> list[int]:
        """Numbers of the tiles that share pixels with a rectangle of the padded picture, in order."""
        return [
            row * self.columns + column
            for row in range(box.top // self.tile_px, -(-box.bottom // self.tile_px))
            for column in range(box.left // self.tile_px, -(-box.right // self.tile_px))
        ]

    def with_margin(self, box: Box) -> Box:
        """A rectangle and the context around it, as far as the padded picture goes."""
        margin = self.margin_px
        grown = Box(box.top - margin, box.left - margin, box.height + 2 * margin, box.width + 2 * margin)
        return grown.common(self.padded)
