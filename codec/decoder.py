"""The bytes of a `.yoto` file to a picture: bytes → symbols → latents → planes, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from codec.errors import CorruptError, TooLargeError
from codec.format.bitstream import MAX_TILE_PX, Header, Metadata, Region, read_alpha, read_metadata
from codec.format.entropy import SymbolDecoder, integers_crc
from codec.grid import Box, Grid, Progress
from codec.network.backend import Backend, from_steps
from codec.network.config import HYPER_STRIDE, LATENT_STRIDE
from codec.network.layout import Z_LIMIT
from codec.network.loaded import LoadedModel
from codec.picture.image import Planes, Uint8Array
from codec.picture.plain import PlainTile, pixels_crc, unpack_plain

GREY_LEVEL = 128  # of tiles that are damaged
OPAQUE_LEVEL = 255
SYNTHESIS_PX = 1024  # side of what is synthesised at a time: memory goes with its area, not with the tile's

Latents = npt.NDArray[np.int16]  # (h, w, M), y_hat of a rectangle in steps of the entropy model
T = TypeVar("T")


class Damage(NamedTuple):
    """A part of a file that could not be decoded.

    Attributes:
        reason: one line that names the part.
        tile: its number, if it is a tile.
        region: x, y, width and height of the pixels that it should have held, if it is a tile.
    """

    reason: str
    tile: int | None = None
    region: Region | None = None


class Decoded(NamedTuple):
    """The planes of a file, and what is missing in them, in the order of the file."""

    planes: Planes
    damage: list[Damage]


def decode_planes(
    model: LoadedModel,
    header: Header,
    data: bytes,
    region: Region | None = None,
    *,
    realism: float = 0.0,
    whole: bool = True,
    max_tile_px: int = MAX_TILE_PX,
    progress: Progress | None = None,
) -> Decoded:
    """Decompress a file, or a region of it; arguments as for `Codec.decode`.

    Args:
        whole: raise CorruptError at the first damage; else go on, and leave damaged tiles grey, damaged alpha opaque,
            damaged metadata out.
    """
    decoder = Decoder.of(model, header, data, whole, max_tile_px, realism)
    window = decoder.window(region)
    metadata = decoder.unless_damaged(partial(read_metadata, header, data), Metadata())
    alpha = decoder.alpha(window) if header.alpha else None
    colour = np.empty((window.height, window.width, header.channels), np.uint8)
    parts = decoder.grid.touching(window)
    for done, (box, pixels) in enumerate(decoder.tiles(window.on_latents()), start=1):
        copy_overlap(pixels, box, colour, window)
        if progress:
            progress(done, len(parts))
    return Decoded(Planes(colour, alpha, metadata), decoder.damage)


class Decoder(NamedTuple):
    """The stages of one file's decoding, and the damage found on the way."""

    model: LoadedModel
    header: Header
    data: bytes
    grid: Grid
    synthesiser: Backend
    whole: bool
    damage: list[Damage]

    @classmethod
    def of(
        cls,
        model: LoadedModel,
        header: Header,
        data: bytes,
        whole: bool = True,
        max_tile_px: int = MAX_TILE_PX,
        realism: float = 0.0,
    ) -> Decoder:
        """ModelMismatchError, WeightsError, TooLargeError: this model, or one who minds memory, cannot decode so."""
        synthesiser = model.backend
        if header.kind not in ("plain", "lossless"):
            model = model.of(header.model_id)
            synthesiser = model.synthesiser(realism)
        grid = Grid(header.height, header.width, header.tile_px, model.margin_px)
        largest = grid.tile(0)
        if largest.height * largest.width > max_tile_px**2:
            raise TooLargeError(
                f"the file has tiles of {largest.width}×{largest.height} px, more than the limit of {max_tile_px}²;"
                " raise max_tile_px if you trust the file"
            )
        return cls(model, header, data, grid, synthesiser, whole, [])

    def unless_damaged(self, read: Callable[[], T], instead: T, tile: int | None = None) -> T:
        """What `read` returns; if its data is damaged, a note of that and `instead`, or CorruptError."""
        try:
            return read()
        except CorruptError as error:
            if self.whole:
                raise
            self.damage.append(Damage(str(error), tile, None if tile is None else self.grid.region(tile)))
            return instead

    def window(self, region: Region | None) -> Box:
        """The rectangle to decode; ValueError if it does not lie within the picture."""
        if region is None:
            return self.grid.picture
        self.header.check_region(region)
        x, y, width, height = region
        return Box(y, x, height, width)

    def alpha(self, window: Box) -> Uint8Array:
        """The alpha channel of a rectangle, uint8 (H, W)."""
        plane = self.unless_damaged(partial(read_alpha, self.header, self.data), b"")
        if not plane:
            return np.full((window.height, window.width), OPAQUE_LEVEL, np.uint8)
        whole = np.frombuffer(plane, np.uint8).reshape(self.header.height, self.header.width)
        return whole[window.slices(self.grid.picture)]

    def tiles(self, window: Box) -> Iterator[tuple[Box, Uint8Array]]:
        """Yield the share of every tile in a rectangle of whole latents, and its pixels.

        Reads only the tiles that the rectangle and its margin touch; holds the latents of three rows at most.
        """
        held: dict[int, Latents | None] = {}
        first = 0
        for number in self.grid.touching(window):
            part = self.grid.tile(number).common(window)
            around = self.grid.touching(self.grid.with_margin(part))
            if around[0] // self.grid.columns != first:  # another row of tiles is no longer needed
                first = around[0] // self.grid.columns
                held = {tile: latents for tile, latents in held.items() if tile // self.grid.columns >= first}
            for tile in around:
                if tile not in held:
                    held[tile] = self.unless_damaged(partial(self.latents, tile), None, tile)
            pixels = self.pixels(held, number, part)
            self.paste_plain(pixels, number, part)
            yield part, pixels

    def paste_plain(self, pixels: Uint8Array, number: int, part: Box) -> None:
        """Put a tile's plain pixels, if it has any, into those of a part of it."""
        plain = self.unless_damaged(partial(self.plain, number), None, number)
        if plain is not None:
            tile = self.grid.tile(number).common(self.grid.picture)
            shared = tile.common(part)
            inside = shared.slices(tile)
            target = pixels[shared.slices(part)]
            np.copyto(target, plain.colour[inside], where=plain.pixels[inside][:, :, None])

    def plain(self, number: int) -> PlainTile | None:
        """The plain section of a tile, checked against the CRC of its pixels; CorruptError if it does not decode."""
        if not self.header.plain or not self.header.plain[number].length:
            return None
        section, (_, _, width, height) = self.header.plain[number], self.grid.region(number)
        data = section.read(self.data, f"the plain section of tile {number}")
        tile = unpack_plain(data, height, width, self.header.channels, masked=bool(self.header.tiles[number].length))
        if pixels_crc(tile.colour) != section.content_crc:
            raise CorruptError(
                f"the plain section of tile {number} decoded to other pixels than were encoded; the file is damaged"
            )
        return tile

    def latents(self, number: int) -> Latents | None:
        """Symbols of a tile, then its latents, checked against their CRC; CorruptError if they do not decode."""
        section = self.header.tiles[number]
        if self.header.plain and not section.length:
            return None
        prior = self.model.prior(self.header.rate_point)
        decoder = SymbolDecoder(section.read(self.data, f"tile {number}"), self.model.weights.tables)
        box = self.grid.tile(number)
        shape = (box.height // HYPER_STRIDE, box.width // HYPER_STRIDE, len(prior.z_index))
        z = decoder.read(np.broadcast_to(prior.z_index, shape).reshape(-1)).reshape(shape)
        if np.abs(z).max() > Z_LIMIT:
            raise CorruptError(f"tile {number} holds a symbol out of range; the file is damaged")
        tile = prior.run(z, lambda _, __, indexes: decoder.read(indexes.reshape(-1)).reshape(indexes.shape))
        decoder.finish()
        if integers_crc(z, tile.y_hat) != section.content_crc:
            raise CorruptError(
                f"tile {number} decoded to other integers than were encoded; the file is damaged, or this machine's"
                " arithmetic differs: please report it"
            )
        return tile.y_hat.astype(np.int16)

    def pixels(self, held: Mapping[int, Latents | None], number: int, part: Box) -> Uint8Array:
        """Pixels of a part of a tile, uint8 (H, W, 3 or 1), from the latents of it and its margin; grey without."""
        own = held[number]
        levels = np.full((part.height, part.width, self.header.channels), GREY_LEVEL, np.uint8)
        if own is not None:
            for piece in part.pieces(SYNTHESIS_PX):
                levels[piece.slices(part)] = self.synthesised(own, held, number, piece)
        return levels

    def synthesised(self, own: Latents, held: Mapping[int, Latents | None], number: int, part: Box) -> Uint8Array:
        """Pixels of a part of a tile whose latents are `own`."""
        outer = self.grid.with_margin(part)
        y_hat = extended(own, self.grid.tile(number), outer)
        for tile in self.grid.touching(outer):
            neighbour = held[tile]
            if neighbour is not None:
                copy_overlap(neighbour, self.grid.tile(tile), y_hat, outer, LATENT_STRIDE)
        x_hat = self.synthesiser.synthesise(from_steps(y_hat), self.header.rate_point)[part.slices(outer)]
        if not self.header.colour:
            x_hat = x_hat.mean(axis=2, keepdims=True)
        levels = np.rint(np.clip(np.nan_to_num(x_hat), 0.0, 1.0) * np.float32(255.0))
        return levels.astype(np.uint8)


def copy_overlap(
    part: npt.NDArray[np.generic], source: Box, target: npt.NDArray[np.generic], outer: Box, stride: int = 1
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
