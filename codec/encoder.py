"""A picture to the bytes of a `.yoto` file: planes → latents → symbols → bytes, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from codec.format.bitstream import MAX_TILE_PX, TILE_UNIT_PX, Header, pack
from codec.format.entropy import encode_symbols, integers_crc
from codec.grid import Box, Grid, Progress
from codec.network.backend import FloatArray, Look, from_steps
from codec.network.config import LATENT_STRIDE
from codec.network.integer import IntArray, TilePrior
from codec.network.loaded import LoadedModel
from codec.picture.image import Planes, Uint8Array
from codec.quantise import (
    RDO_BITS,
    RDO_BITS_REFINED,
    Choice,
    block_costs,
    newton_step,
    quantised_hyper,
    quantiser,
    rounding_thresholds,
    without_losses,
)

TILE_PX = 1024
DEFAULT_EFFORT = 1
MAX_EFFORT = 8
BAND_LATENTS = 48  # cuts a tile of the usual size and its margin in two, and leaves pictures up to 768 px whole


def encode_planes(
    model: LoadedModel,
    planes: Planes,
    rate_point: int,
    effort: int = DEFAULT_EFFORT,
    tile_px: int = TILE_PX,
    progress: Progress | None = None,
) -> bytes:
    """Compress a picture; arguments as for `Codec.encode`, `rate_point` being the header's integer quality.

    Raises:
        ValueError: an argument is out of range.
    """
    if tile_px % TILE_UNIT_PX or not TILE_UNIT_PX <= tile_px <= MAX_TILE_PX:
        raise ValueError(f"tile_px is {tile_px}; expected a multiple of {TILE_UNIT_PX} up to {MAX_TILE_PX}")
    if not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort is {effort}; it must lie in 0 … {MAX_EFFORT}")
    height, width, channels = planes.colour.shape
    grid = Grid(height, width, tile_px, model.margin_px)
    tiles = []
    for number, box in enumerate(grid.tiles()):
        tiles.append(encode_tile(model, planes.colour, grid, box, rate_point, effort))
        if progress:
            progress(number + 1, grid.rows * grid.columns)
    header = Header(width, height, rate_point, model.id, channels == 3, planes.alpha is not None, tile_px)
    return pack(header, tiles, planes.packed_alpha, planes.metadata)


def encode_tile(
    model: LoadedModel, colour: Uint8Array, grid: Grid, box: Box, rate_point: int, effort: int
) -> tuple[bytes, int]:
    """Symbol stream of a tile and the CRC-32 of its integers."""
    outer = grid.with_margin(box)
    y = model.backend.analyse(read_pixels(colour, outer), rate_point)
    own = np.ascontiguousarray(y[box.slices(outer, LATENT_STRIDE)])
    z = quantised_hyper(model.backend.hyper_analyse(own, rate_point), model.prior(rate_point).z_index)
    tile = Search(model, colour, outer, box, y, z, rate_point).best(own, effort)
    return encode_symbols(tile.stages, model.weights.tables), integers_crc(z, tile.y_hat)


class Search(NamedTuple):
    """The choice of one tile's symbols.

    Attributes:
        colour: the picture.
        outer: the tile and its margin.
        box: the tile.
        around: latents y of `outer`: beyond the tile they stand for its neighbours' symbols, which are not known.
        z: hyper-latents of the tile.
    """

    model: LoadedModel
    colour: Uint8Array
    outer: Box
    box: Box
    around: FloatArray
    z: IntArray
    rate_point: int

    def best(self, y: FloatArray, effort: int) -> TilePrior:
        """Quantise the tile's latents; then, `effort` times, anew after a look at their picture, if the cost falls."""
        if effort == 0:
            return self.quantised(y, RDO_BITS)
        best = self.choice(y, gradient=True)
        for left in reversed(range(effort)):
            new = self.choice(newton_step(best), gradient=left > 0)
            mixed = without_losses(best, new)
            if mixed is not None:
                new = min(new, self.choice(mixed, gradient=left > 0), key=lambda choice: choice.cost)
            if new.cost >= best.cost:
                break
            best = new
        return best.tile

    def quantised(self, y: FloatArray, rdo_bits: float) -> TilePrior:
        thresholds = rounding_thresholds(self.model.weights.tables, rdo_bits)
        return self.model.prior(self.rate_point).run(self.z, quantiser(y, thresholds))

    def choice(self, y: FloatArray, *, gradient: bool) -> Choice:
        """Quantise the tile's latents and see what that costs."""
        tile = self.quantised(y, RDO_BITS_REFINED)
        look = self.look(tile.y_hat, gradient=gradient)
        costs = block_costs(tile, look.error_bits, self.model.weights.tables)
        return Choice(y, tile, costs, look.gradient)

    def look(self, y_hat: IntArray, *, gradient: bool) -> Look:
        """Look at the picture of the tile's symbols; in parts, so that memory is bounded by less than a tile's."""
        inner = self.box.slices(self.outer, LATENT_STRIDE)
        latents = self.around.copy()
        latents[inner] = from_steps(y_hat)
        pixels = read_inside(self.colour, self.outer)
        error_bits = np.empty(latents.shape[:2], np.float32)
        slopes = np.empty_like(latents) if gradient else None
        reach = 2 * self.model.margin_px // LATENT_STRIDE  # from latents to pixels and back
        for rows, columns in product(*(bands(side, reach) for side in latents.shape[:2])):
            part = self.model.backend.look(
                pixels[rows.pixels, columns.pixels],
                latents[rows.around, columns.around],
                self.rate_point,
                gradient=gradient,
            )
            error_bits[rows.core, columns.core] = part.error_bits[rows.inner, columns.inner]
            if slopes is not None and part.gradient is not None:
                slopes[rows.core, columns.core] = part.gradient[rows.inner, columns.inner]
        return Look(error_bits[inner], None if slopes is None else slopes[inner])


class Band(NamedTuple):
    """Latents of a rectangle along one side that are looked at together.

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


def bands(count: int, reach: int) -> Iterator[Band]:
    """Cut `count` latents along one side, each of which acts on others up to `reach` away."""
    parts = -(-count // BAND_LATENTS)
    for part in range(parts):
        start, stop = part * count // parts, (part + 1) * count // parts
        around = slice(max(0, start - reach), min(count, stop + reach))
        yield Band(slice(start, stop), around, slice(start - around.start, stop - around.start))


def read_inside(colour: Uint8Array, box: Box) -> FloatArray:
    """What of a rectangle lies in the picture, as float32 (H, W, 3 or 1) in [0, 1]."""
    return colour[box.top : box.bottom, box.left : box.right].astype(np.float32) / np.float32(255.0)


def read_pixels(colour: Uint8Array, box: Box) -> FloatArray:
    """A rectangle of the padded picture as float32 (H, W, 3) in [0, 1]; padding repeats the edge."""
    inside = read_inside(colour, box)
    missing = ((0, box.height - inside.shape[0]), (0, box.width - inside.shape[1]), (0, 0))
    return np.broadcast_to(np.pad(inside, missing, mode="edge"), (box.height, box.width, 3))
