"""Images ↔ `.yoto` bytes. Read this file first: it strings the others together."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from codec.damage import Damage, unless_damaged
from codec.errors import CodecError, CorruptError, ModelMismatchError
from codec.format.bitstream import (
    DEFAULT_MAX_PIXELS,
    QUALITY_MAX,
    TILE_UNIT_PX,
    Header,
    Metadata,
    Region,
    Section,
    pack,
    read_alpha,
    read_metadata,
    unpack,
)
from codec.format.entropy import SymbolDecoder, encode_symbols
from codec.grid import (
    Box,
    Latents,
    bands,
    copy_overlap,
    extended,
    on_latents,
    read_inside,
    read_region,
    region_box,
    tile_box,
    tile_boxes,
    tile_region,
    tiles_touching,
    with_margin,
)
from codec.network import weights as weights_file
from codec.network.config import HYPER_STRIDE, LATENT_STRIDE
from codec.network.integer import LATENT_BITS, Z_LIMIT, IntArray, IntegerPrior, exact_dtype
from codec.picture.image import ImageLike, Planes, Uint8Array, to_pil, to_planes
from codec.quantise import RDO_BITS, RDO_BITS_REFINED, quantiser, refined, rounding_thresholds

DEFAULT_QUALITY = 0.5
TILE_PX = 1024
DEFAULT_EFFORT = 1
MAX_EFFORT = 8
GREY_LEVEL = 128  # of tiles that are damaged
OPAQUE_LEVEL = 255


class PartialImage(NamedTuple):
    """What `Codec.decode_partial` made of a file: the picture, and what is missing in it."""

    image: Image.Image
    damage: list[Damage]


class Codec:
    """A loaded model. Safe to share between threads; load once, use often.

    Args:
        weights: path of a weights file; None for the one that is shipped.
        device: where the transforms run, "cpu" or "cuda". The entropy model always runs on the CPU, in integers, so
            files do not depend on it.

    Raises:
        WeightsError: the weights cannot be used.
    """

    def __init__(self, weights: str | os.PathLike[str] | None = None, device: str = "cpu") -> None:
        self.weights = weights_file.load(weights)
        try:
            self.device = torch.device(device)
            self.transforms = self.weights.transforms.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise CodecError(f"the device {device} cannot be used: {str(error).splitlines()[0]}") from error
        self._thresholds = [rounding_thresholds(self.weights.tables, bits) for bits in (RDO_BITS, RDO_BITS_REFINED)]
        self._prior = lru_cache(maxsize=16)(self._build_prior)

    def _build_prior(self, quality: int, dtype: torch.dtype) -> IntegerPrior:
        return IntegerPrior(self.weights.integers, quality, dtype)

    def encode(
        self,
        image: ImageLike,
        quality: float = DEFAULT_QUALITY,
        *,
        effort: int = DEFAULT_EFFORT,
        keep_metadata: bool = True,
        tile_px: int = TILE_PX,
    ) -> bytes:
        """Compress an image to the bytes of a `.yoto` file.

        Args:
            image: a PIL image, a uint8 array (H, W, 3), (H, W, 4) or (H, W), or a torch tensor (3, H, W), uint8 or
                floating point in [0, 1].
            quality: 0 (fewest bits) to 1, continuous.
            effort: 0 (fastest) to 8; how often the symbols are chosen anew after a look at the picture that they make.
                It saves 2 to 4 % of the bits at equal error; decoding does not change.
            keep_metadata: keep the ICC profile, Exif and XMP of a PIL image.
            tile_px: side of the independent tiles, a multiple of 64 px up to 16320.

        Raises:
            ImageError: the image cannot be coded.
            ValueError: an argument is out of range.
        """
        rate_point = integer_quality(quality)
        planes = to_planes(image)
        if not keep_metadata:
            planes = replace(planes, metadata=Metadata())
        return self.encode_planes(planes, rate_point, effort, tile_px)

    def encode_planes(
        self, planes: Planes, rate_point: int, effort: int = DEFAULT_EFFORT, tile_px: int = TILE_PX
    ) -> bytes:
        """Compress an image that `to_planes` took apart, at an integer rate point; see `encode`."""
        if tile_px % TILE_UNIT_PX or not 1 <= tile_px // TILE_UNIT_PX <= 255:
            raise ValueError(f"tile_px is {tile_px}; expected a multiple of {TILE_UNIT_PX} up to {255 * TILE_UNIT_PX}")
        if not 0 <= effort <= MAX_EFFORT:
            raise ValueError(f"effort is {effort}; it must lie in 0 … {MAX_EFFORT}")
        height, width, channels = planes.colour.shape
        header = Header(
            width, height, rate_point, self.weights.model_id, channels == 3, planes.alpha is not None, tile_px
        )
        tiles = [self._encode_tile(planes.colour, box, rate_point, effort) for box in tile_boxes(header)]
        return pack(header, tiles, planes.packed_alpha, planes.metadata)

    def decode(self, data: bytes, *, region: Region | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
        """Decompress the bytes of a `.yoto` file.

        Args:
            data: the file.
            region: x, y, width and height of what to decode, px; None for the whole image. Only the tiles that it
                touches are read, and their neighbours where it comes near a border. Pixels differ from those of
                the whole image by one level at most.
            max_pixels: refuse files of larger images, whatever the region.

        Returns:
            A PIL image, L, LA, RGB or RGBA, its metadata in `info`.

        Raises:
            BitstreamError: the data is no `.yoto` file, or damaged.
            ModelMismatchError: it was encoded with other weights.
            TooLargeError: it has more than `max_pixels`.
            ValueError: the region is empty or does not lie within the image.
        """
        header = unpack(data, max_pixels)
        return self._decode(header, data, region_box(header, region), None)

    def decode_partial(
        self, data: bytes, *, region: Region | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> PartialImage:
        """Decompress what is left of a damaged file, whose header must be sound; arguments as for `decode`.

        Damaged tiles are grey, a damaged alpha channel is opaque, damaged metadata is left out.

        Raises:
            As `decode`, but for damage behind the header.
        """
        header = unpack(data, max_pixels, whole=False)
        damage = []
        if header.size_bytes != len(data):
            damage.append(Damage(f"the file should have {header.size_bytes} bytes and has {len(data)}"))
        image = self._decode(header, data, region_box(header, region), damage)
        return PartialImage(image, sorted(damage, key=lambda d: -1 if d.tile is None else d.tile))

    def _decode(self, header: Header, data: bytes, region: Box, damage: list[Damage] | None) -> Image.Image:
        """The picture of a rectangle; damage is noted in the list if there is one, else raised."""
        self._check_model(header)
        metadata = unless_damaged(partial(read_metadata, header, data), damage) or Metadata()
        alpha = decode_alpha(header, data, region, damage) if header.alpha else None
        colour = np.empty((region.height, region.width, 3 if header.colour else 1), np.uint8)
        for part, pixels in self._decode_tiles(header, data, on_latents(region), damage):
            copy_overlap(pixels, part, colour, region, stride=1)
        return to_pil(Planes(colour, alpha, metadata))

    def _check_model(self, header: Header) -> None:
        if header.model_id != self.weights.model_id:
            raise ModelMismatchError(
                f"the file needs the weights {header.model_id.hex()}, loaded are {self.weights.model_id.hex()}"
            )

    def _condition(self, quality: int) -> torch.Tensor:
        return torch.full((1, 1), 2.0 * quality / QUALITY_MAX - 1.0, device=self.device)

    def _encode_tile(self, colour: Uint8Array, box: Box, quality: int, effort: int) -> tuple[bytes, int]:
        """Symbol stream of a tile and the CRC-32 of its integers."""
        prior, condition = self._prior(quality, exact_dtype()), self._condition(quality)
        outer = with_margin(box, *colour.shape[:2])
        inner = (..., *box.slices(outer, LATENT_STRIDE))
        thresholds = self._thresholds[min(effort, 1)]
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            y = self._analyse(colour, outer, condition)
            z = self._hyper_analyse(y[inner], condition)
        tile = prior.run(z, quantiser(to_rows(y[inner]), thresholds))
        for _ in range(effort):
            y = self._refine(colour, outer, y, inner, tile.y_hat, condition)
            tile = prior.run(z, quantiser(to_rows(y[inner]), thresholds))
        return encode_symbols(tile.stages, self.weights.tables), integers_crc(z, tile.y_hat)

    def _analyse(self, colour: Uint8Array, box: Box, condition: torch.Tensor) -> torch.Tensor:
        """Latents y of a rectangle, (1, M, h, w)."""
        return self.transforms.analyse(read_region(colour, box).to(self.device), condition)

    def _hyper_analyse(self, y: torch.Tensor, condition: torch.Tensor) -> IntArray:
        """Hyper-latents z, rounded, int32 (h/4, w/4, Z)."""
        z = self.transforms.hyper_analyse(y.contiguous(memory_format=torch.channels_last), condition)
        return to_rows(torch.nan_to_num(z).round().clamp(-Z_LIMIT, Z_LIMIT).int())

    def _refine(
        self,
        colour: Uint8Array,
        outer: Box,
        y: torch.Tensor,
        inner: tuple[EllipsisType, slice, slice],
        symbols: IntArray,
        condition: torch.Tensor,
    ) -> torch.Tensor:
        """See `refined`; around the tile, where its neighbours' symbols are not known, y itself stands for them."""
        y_hat = y.clone(memory_format=torch.channels_last)  # in which the synthesis is faster
        y_hat[inner] = torch.from_numpy(symbols).to(y).mul_(2.0**-LATENT_BITS).permute(2, 0, 1)
        x = read_inside(colour, outer).to(self.device)
        out = torch.empty_like(y)
        for rows, columns in product(bands(y.shape[2]), bands(y.shape[3])):
            around = (..., rows.around, columns.around)
            with torch.autocast(self.device.type, enabled=False):
                part = refined(
                    self.transforms, x[..., rows.pixels, columns.pixels], y[around], y_hat[around], condition
                )
            out[..., rows.core, columns.core] = part[..., rows.inner, columns.inner]
        return out

    def _decode_latents(self, header: Header, data: bytes, number: int) -> Latents:
        """y_hat of a tile, int16 (h, w, M), checked against its CRC."""
        section: Section = header.tiles[number]
        prior = self._prior(header.quality, exact_dtype())
        decoder = SymbolDecoder(section.read(data, f"tile {number}"), self.weights.tables)
        box = tile_box(header, number)
        shape = (box.height // HYPER_STRIDE, box.width // HYPER_STRIDE, len(prior.z_index))
        z = decoder.read(np.broadcast_to(prior.z_index, shape).reshape(-1)).reshape(shape)
        if np.abs(z).max() > Z_LIMIT:
            raise CorruptError(f"tile {number} holds a symbol out of range; the file is damaged")
        tile = prior.run(z, lambda _, __, rows: decoder.read(rows.reshape(-1)).reshape(rows.shape))
        decoder.finish()
        if integers_crc(z, tile.y_hat) != section.symbols_crc:
            raise CorruptError(
                f"tile {number} decoded to other integers than were encoded; the file is damaged, or this machine's"
                " arithmetic differs: please report it"
            )
        return tile.y_hat.astype(np.int16)

    def _decode_tiles(
        self, header: Header, data: bytes, window: Box, damage: list[Damage] | None
    ) -> Iterator[tuple[Box, Uint8Array]]:
        """Yield the share of every tile in a rectangle, and its pixels.

        Reads only the tiles that the rectangle and its margin touch; holds the latents of three rows at most.
        """
        columns = header.grid[1]
        latents: dict[int, Latents | None] = {}
        for number in tiles_touching(header, window):
            part = tile_box(header, number).common(window)
            around = tiles_touching(header, with_margin(part, header.height, header.width))
            for tile in around:
                if tile not in latents:
                    decode = partial(self._decode_latents, header, data, tile)
                    latents[tile] = unless_damaged(decode, damage, tile, tile_region(header, tile))
            yield part, self._synthesise(header, latents, number, part)
            for tile in [tile for tile in latents if tile // columns < around[0] // columns]:
                del latents[tile]

    def _synthesise(self, header: Header, latents: Mapping[int, Latents | None], number: int, part: Box) -> Uint8Array:
        """Pixels of a part of a tile, uint8 (H, W, 3 or 1), from the latents of it and its margin; grey if damaged."""
        own = latents[number]
        if own is None:
            return np.full((part.height, part.width, 3 if header.colour else 1), GREY_LEVEL, np.uint8)
        outer = with_margin(part, header.height, header.width)
        y_hat = extended(own, tile_box(header, number), outer)
        for tile in tiles_touching(header, outer):
            neighbour = latents[tile]
            if neighbour is not None:
                copy_overlap(neighbour, tile_box(header, tile), y_hat, outer)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            planes = torch.from_numpy(y_hat).to(self.device).permute(2, 0, 1)[None]
            planes = planes.float().mul_(2.0**-LATENT_BITS)
            x_hat = self.transforms.synthesise(planes, self._condition(header.quality))[0]
            rows, columns = part.slices(outer)
            x_hat = x_hat[:, rows, columns]
            if not header.colour:
                x_hat = x_hat.mean(dim=0, keepdim=True)
            levels = torch.nan_to_num(x_hat).mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
            return levels.permute(1, 2, 0).contiguous().cpu().numpy()


def decode_alpha(header: Header, data: bytes, region: Box, damage: list[Damage] | None) -> Uint8Array:
    """The alpha channel of a rectangle, uint8 (H, W)."""
    plane = unless_damaged(partial(read_alpha, header, data), damage)
    if plane is None:
        return np.full((region.height, region.width), OPAQUE_LEVEL, np.uint8)
    rows, columns = region.slices(region_box(header, None))
    return np.frombuffer(plane, np.uint8).reshape(header.height, header.width)[rows, columns]


def integer_quality(quality: float) -> int:
    """The header's rate point of a quality in [0, 1]; ValueError outside."""
    if not 0.0 <= quality <= 1.0:
        raise ValueError(f"quality is {quality}; it must lie between 0 and 1")
    return round(quality * QUALITY_MAX)


def to_rows(latents: torch.Tensor) -> npt.NDArray[Any]:
    """(1, C, h, w) → an array (h, w, C)."""
    rows: npt.NDArray[Any] = latents[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return rows


def integers_crc(z: IntArray, y_hat: IntArray) -> int:
    """CRC-32 of a tile's integers, as the format defines it."""
    return zlib.crc32(y_hat.astype("<i2").tobytes(), zlib.crc32(z.astype("<i1").tobytes()))


@lru_cache(maxsize=1)
def default_codec() -> Codec:
    """The shipped weights on the CPU, loaded at the first call."""
    return Codec()


def encode(image: ImageLike, quality: float = DEFAULT_QUALITY) -> bytes:
    """Compress an image with the shipped weights; see `Codec.encode`."""
    return default_codec().encode(image, quality)


def decode(data: bytes) -> Image.Image:
    """Decompress a `.yoto` file of the shipped weights; see `Codec.decode`."""
    return default_codec().decode(data)
