"""A picture to the bytes of a `.yoto` file: planes → latents → symbols → bytes, tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from codec.blocks import choose_plain, filled, survey
from codec.format.bitstream import (
    MAX_TILE_PX,
    NO_MODEL,
    PLAIN_UNIT_PX,
    QUALITY_MAX,
    TILE_UNIT_PX,
    Header,
    pack,
)
from codec.format.entropy import encode_symbols, integers_crc
from codec.grid import Box, Grid, Progress
from codec.network.backend import FloatArray, Look, from_steps
from codec.network.config import LATENT_STRIDE
from codec.network.integer import IntArray, TilePrior
from codec.network.loaded import LoadedModel
from codec.picture.image import Planes, Uint8Array
from codec.picture.plain import SLOW, USUAL, BoolArray, PlainTile, mask_shape, on_pixels, pack_plain
from codec.quantise import (
    RDO_BITS,
    Choice,
    block_costs,
    codable,
    newton_step,
    quantised_hyper,
    quantiser,
    rounding_thresholds,
    without_losses,
)

TILE_PX = 1024
DEFAULT_EFFORT = 1
MAX_EFFORT = 8
SLOW_EFFORT = 4  # from which on plain blocks take ten times as long for half a percent
NO_PICTURE_BITS = 1e9  # of a block that the network makes no numbers of
NOTHING = (b"", 0)  # a section that a tile does not have
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
    check_arguments(effort, tile_px)
    height, width = planes.colour.shape[:2]
    grid = Grid(height, width, tile_px, model.margin_px)
    plan = plan_tiles(model, planes.colour, grid, rate_point, effort)
    tiles, plain = [], []
    for number, box in enumerate(grid.tiles()):
        outer = grid.with_margin(box)
        if number in plan.drafts and not plan.plain_in(outer).any():
            tiles.append(plan.drafts[number])
        elif plan.plain_in(outer).all():
            tiles.append(NOTHING)
        else:
            found = search(model, plan.colour, grid, box, rate_point)
            tiles.append(pack_symbols(model, found, found.best(effort)))
        plain.append(plan.section(planes.colour, number, box, masked=tiles[-1] != NOTHING, effort=effort))
        if progress:
            progress(number + 1, grid.rows * grid.columns)
    return pack_planes(planes, rate_point, tile_px, model.id, tiles, plain, exact=not plan.drawn)


def encode_lossless(
    planes: Planes, effort: int = DEFAULT_EFFORT, tile_px: int = TILE_PX, progress: Progress | None = None
) -> bytes:
    """Compress a picture so that every pixel comes back; arguments as for `Codec.encode`. Needs no model."""
    check_arguments(effort, tile_px)
    height, width = planes.colour.shape[:2]
    grid = Grid(height, width, tile_px, margin_px=0)
    plan = Plan(np.ones(mask_shape(height, width), bool), planes.colour, {}, {})
    plain = []
    for number, box in enumerate(grid.tiles()):
        plain.append(plan.section(planes.colour, number, box, masked=False, effort=effort))
        if progress:
            progress(len(plain), grid.rows * grid.columns)
    return pack_planes(planes, QUALITY_MAX, tile_px, NO_MODEL, [NOTHING] * len(plain), plain, exact=True)


def pack_planes(
    planes: Planes,
    rate_point: int,
    tile_px: int,
    model_id: bytes,
    tiles: list[tuple[bytes, int]],
    plain: list[tuple[bytes, int]],
    *,
    exact: bool,
) -> bytes:
    """The file of a picture, from what was made of its tiles; whether plain blocks are exact."""
    height, width, channels = planes.colour.shape
    learned = any(tile != NOTHING for tile in tiles)
    header = Header(
        width,
        height,
        rate_point,
        model_id if learned else NO_MODEL,
        channels == 3,
        planes.alpha is not None,
        tile_px,
        lossless=exact and not learned,
    )
    drawn = any(section != NOTHING for section in plain)
    return pack(header, tiles, planes.packed_alpha, planes.metadata, plain if drawn else ())


def check_arguments(effort: int, tile_px: int) -> None:
    """ValueError if one is out of range."""
    if tile_px % TILE_UNIT_PX or not TILE_UNIT_PX <= tile_px <= MAX_TILE_PX:
        raise ValueError(f"tile_px is {tile_px}; expected a multiple of {TILE_UNIT_PX} up to {MAX_TILE_PX}")
    if not 0 <= effort <= MAX_EFFORT:
        raise ValueError(f"effort is {effort}; it must lie in 0 … {MAX_EFFORT}")


class Plan(NamedTuple):
    """Which blocks of a picture are plain, and what was found on the way to that.

    Attributes:
        plain: (⌈H / 32⌉, ⌈W / 32⌉).
        colour: the picture as the network shall see it, plain blocks filled smoothly.
        drawn: pixels of tiles, by number, whose plain blocks are not exact.
        drafts: symbols of tiles, by number, as they are coded if nothing near them is plain.
    """

    plain: BoolArray
    colour: Uint8Array
    drawn: dict[int, Uint8Array]
    drafts: dict[int, tuple[bytes, int]]

    def plain_in(self, box: Box) -> BoolArray:
        """The blocks of a rectangle, as far as the picture goes."""
        return self.plain[blocks(box)]

    def section(self, colour: Uint8Array, number: int, box: Box, *, masked: bool, effort: int) -> tuple[bytes, int]:
        """The plain section of a tile, and the CRC-32 of its pixels; nothing if it has no plain block."""
        mask = self.plain_in(box)
        if not mask.any():
            return NOTHING
        inside = self.drawn.get(number, colour[box.top : box.bottom, box.left : box.right])
        return pack_plain(PlainTile(inside, mask if masked else None), SLOW if effort >= SLOW_EFFORT else USUAL)


def plan_tiles(model: LoadedModel, colour: Uint8Array, grid: Grid, rate_point: int, effort: int) -> Plan:
    """Decide which blocks of each tile are plain."""
    plan = Plan(np.zeros(mask_shape(grid.height, grid.width), bool), colour, {}, {})
    lmbda = model.weights.config.lmbda(rate_point / QUALITY_MAX)
    for number, box in enumerate(grid.tiles()):
        inside = colour[box.top : box.bottom, box.left : box.right]
        look = survey(inside, lmbda)
        if look.asked.any():
            found = search(model, colour, grid, box, rate_point)
            chosen = found.best(effort)
            plan.drafts[number] = pack_symbols(model, found, chosen)
            rows, columns = look.asked.shape
            costs = found.costs(chosen)[:rows, :columns]
            z_bits = float(model.weights.tables.bits(*chosen.tile.stages[0]).sum())
            plan.plain[blocks(box)], pixels = choose_plain(inside, look, costs, z_bits, lmbda)
            if pixels is not inside:
                plan.drawn[number] = pixels
    return plan._replace(colour=fill(colour, plan.plain, grid))


def fill(colour: Uint8Array, plain: BoolArray, grid: Grid) -> Uint8Array:
    """The picture with its plain blocks filled smoothly, tile by tile; itself if there are none."""
    out = colour.copy() if plain.any() else colour
    for box in grid.tiles():
        if plain[blocks(box)].any():
            outer = grid.with_margin(box).common(grid.picture)
            hole = on_pixels(plain[blocks(outer)], outer.height, outer.width)
            inside = box.common(grid.picture)
            around = filled(colour[outer.top : outer.bottom, outer.left : outer.right], hole)
            out[inside.top : inside.bottom, inside.left : inside.right] = around[inside.slices(outer)]
    return out


def blocks(box: Box) -> tuple[slice, slice]:
    """Rows and columns of the plain blocks of a rectangle that lies on them, or ends with the picture."""
    unit = PLAIN_UNIT_PX
    return slice(box.top // unit, -(-box.bottom // unit)), slice(box.left // unit, -(-box.right // unit))


def pack_symbols(model: LoadedModel, found: Search, chosen: Chosen) -> tuple[bytes, int]:
    """Symbol stream of a tile and the CRC-32 of its integers."""
    return encode_symbols(chosen.tile.stages, model.weights.tables), integers_crc(found.z, chosen.tile.y_hat)


def search(model: LoadedModel, colour: Uint8Array, grid: Grid, box: Box, rate_point: int) -> Search:
    """Analyse a tile."""
    outer = grid.with_margin(box)
    y = codable(model.backend.analyse(read_pixels(colour, outer), rate_point))
    own = np.ascontiguousarray(y[box.slices(outer, LATENT_STRIDE)])
    z = quantised_hyper(model.backend.hyper_analyse(own, rate_point), model.prior(rate_point).z_index)
    return Search(model, colour, outer, box, y, z, rate_point)


class Chosen(NamedTuple):
    """The symbols of a tile, and λ·255² times the error of each latent's pixels, (h, w), if they were looked at."""

    tile: TilePrior
    error_bits: FloatArray | None = None


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

    def best(self, effort: int) -> Chosen:
        """Quantise the tile's latents; then, `effort` times, anew after a look at their picture, if the cost falls."""
        y = np.ascontiguousarray(self.around[self.box.slices(self.outer, LATENT_STRIDE)])
        if effort == 0:
            return Chosen(self.quantised(y))
        best = self.choice(y, gradient=True)
        for left in reversed(range(effort)):
            new = self.choice(newton_step(best), gradient=left > 0)
            mixed = without_losses(best, new)
            if mixed is not None:
                new = min(new, self.choice(mixed, gradient=left > 0), key=lambda choice: choice.cost)
            if not new.cost < best.cost:
                break
            best = new
        return Chosen(best.tile, best.error_bits)

    def quantised(self, y: FloatArray) -> TilePrior:
        """The symbols of the tile's latents."""
        thresholds = rounding_thresholds(self.model.weights.tables, RDO_BITS)
        return self.model.prior(self.rate_point).run(self.z, quantiser(y, thresholds))

    def choice(self, y: FloatArray, *, gradient: bool) -> Choice:
        """Quantise the tile's latents and see what that costs."""
        tile = self.quantised(y)
        look = self.look(tile.y_hat, gradient=gradient)
        costs = block_costs(tile, look.error_bits, self.model.weights.tables)
        return Choice(y, tile, costs, look.gradient, look.error_bits)

    def costs(self, chosen: Chosen) -> FloatArray:
        """Bits and error of each block of PLAIN_UNIT_PX, z's bits left out."""
        tile, error_bits = chosen
        if error_bits is None:
            error_bits = self.look(tile.y_hat, gradient=False).error_bits
        costs = block_costs(tile, error_bits, self.model.weights.tables, PLAIN_UNIT_PX // LATENT_STRIDE)
        return np.nan_to_num(costs, nan=NO_PICTURE_BITS, posinf=NO_PICTURE_BITS)

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
