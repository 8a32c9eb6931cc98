"""Images ↔ `.yoto` bytes. Read this file first: it strings the others together."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from codec import weights as weights_file
from codec.bitstream import (
    DEFAULT_MAX_PIXELS,
    QUALITY_MAX,
    TILE_UNIT_PX,
    Header,
    Metadata,
    Section,
    pack,
    read_alpha,
    read_metadata,
    unpack,
)
from codec.entropy import SymbolDecoder, encode_symbols
from codec.errors import CodecError, CorruptError, ModelMismatchError
from codec.fixed import LATENT_BITS, Z_LIMIT, FixedPrior, IntArray, exact_dtype, quantiser, rounding_thresholds
from codec.image import ImageLike, Planes, Uint8Array, to_pil, to_planes
from codec.model import HYPER_STRIDE, LATENT_STRIDE

DEFAULT_QUALITY = 0.5
TILE_PX = 1024
# Context of the transforms around a tile: wider than their receptive fields, so that tiles leave no seam.
MARGIN_PX = 64
_BLOCK_REACH_PX = 8  # one 3×3 layer at 1/8 resolution

Latents = npt.NDArray[np.int16]


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
        self._thresholds = rounding_thresholds(self.weights.tables)
        self._prior = lru_cache(maxsize=16)(self._build_prior)

    def _build_prior(self, quality: int, dtype: torch.dtype) -> FixedPrior:
        return FixedPrior(self.weights.integers, quality, dtype)

    def encode(
        self,
        image: ImageLike,
        quality: float = DEFAULT_QUALITY,
        *,
        keep_metadata: bool = True,
        tile_px: int = TILE_PX,
    ) -> bytes:
        """Compress an image to the bytes of a `.yoto` file.

        Args:
            image: a PIL image, a uint8 array (H, W, 3), (H, W, 4) or (H, W), or a torch tensor (3, H, W), uint8 or
                floating point in [0, 1].
            quality: 0 (fewest bits) to 1, continuous.
            keep_metadata: keep the ICC profile, Exif and XMP of a PIL image.
            tile_px: side of the independent tiles, a multiple of 64 px up to 16320.

        Raises:
            ImageError: the image cannot be coded.
            ValueError: an argument is out of range.
        """
        rate_point = integer_quality(quality)
        planes = to_planes(image)
        return self.encode_planes(
            planes if keep_metadata else replace(planes, metadata=Metadata()), rate_point, tile_px
        )

    def encode_planes(self, planes: Planes, rate_point: int, tile_px: int = TILE_PX) -> bytes:
        """Compress an image that `to_planes` took apart, at an integer rate point; see `encode`."""
        if tile_px % TILE_UNIT_PX or not 1 <= tile_px // TILE_UNIT_PX <= 255:
            raise ValueError(f"tile_px is {tile_px}; expected a multiple of {TILE_UNIT_PX} up to {255 * TILE_UNIT_PX}")
        height, width, channels = planes.colour.shape
        header = Header(
            width, height, rate_point, self.weights.model_id, channels == 3, planes.alpha is not None, tile_px
        )
        tiles = [self._encode_tile(planes.colour, box, rate_point) for box in tile_boxes(header)]
        return pack(header, tiles, planes.packed_alpha, planes.metadata)

    def decode(self, data: bytes, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
        """Decompress the bytes of a `.yoto` file.

        Returns:
            A PIL image, L, LA, RGB or RGBA, its metadata in `info`.

        Raises:
            BitstreamError: the data is no `.yoto` file, or damaged.
            ModelMismatchError: it was encoded with other weights.
            ImageError: it has more than `max_pixels`.
        """
        header = unpack(data, max_pixels)
        self._check_model(header)
        metadata = read_metadata(header, data)
        alpha = None
        if header.alpha:
            plane = np.frombuffer(read_alpha(header, data), np.uint8)
            alpha = plane.reshape(header.height, header.width)
        colour = np.empty((header.height, header.width, 3 if header.colour else 1), np.uint8)
        for top, left, pixels in self._decode_tiles(header, data):
            colour[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
        return to_pil(Planes(colour, alpha, metadata))

    def _check_model(self, header: Header) -> None:
        if header.model_id != self.weights.model_id:
            raise ModelMismatchError(
                f"the file needs the weights {header.model_id.hex()}, loaded are {self.weights.model_id.hex()}"
            )

    def _condition(self, quality: int) -> torch.Tensor:
        return torch.full((1, 1), 2.0 * quality / QUALITY_MAX - 1.0, device=self.device)

    def _encode_tile(self, colour: Uint8Array, box: Box, quality: int) -> tuple[bytes, int]:
        """Symbol stream of a tile and the CRC-32 of its integers."""
        prior = self._prior(quality, exact_dtype())
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            y, z = self._analyse(colour, box, self._condition(quality))
        tile = prior.run(z, quantiser(y, self._thresholds))
        return encode_symbols(tile.stages, self.weights.tables), integers_crc(z, tile.y_hat)

    def _analyse(
        self, colour: Uint8Array, box: Box, condition: torch.Tensor
    ) -> tuple[npt.NDArray[np.float32], IntArray]:
        """Latents y, float32 (h, w, M), and z, rounded, of a tile."""
        outer = box.grown(MARGIN_PX, padded_size(colour.shape[0]), padded_size(colour.shape[1]))
        y = self.transforms.analyse(read_region(colour, outer).to(self.device), condition)
        top, left = (box.top - outer.top) // LATENT_STRIDE, (box.left - outer.left) // LATENT_STRIDE
        h, w = box.height // LATENT_STRIDE, box.width // LATENT_STRIDE
        y = y[:, :, top : top + h, left : left + w].contiguous(memory_format=torch.channels_last)
        z = self.transforms.hyper_analyse(y, condition)
        z = torch.nan_to_num(z).round().clamp(-Z_LIMIT, Z_LIMIT).int()
        return y[0].permute(1, 2, 0).cpu().numpy(), z[0].permute(1, 2, 0).contiguous().cpu().numpy()

    def _decode_latents(self, header: Header, data: bytes, number: int, box: Box) -> Latents:
        """y_hat of a tile, int16 (h, w, M), checked against its CRC."""
        section: Section = header.tiles[number]
        prior = self._prior(header.quality, exact_dtype())
        decoder = SymbolDecoder(section.read(data, f"tile {number}"), self.weights.tables)
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

    def _decode_tiles(self, header: Header, data: bytes) -> Iterator[tuple[int, int, Uint8Array]]:
        """Yield top, left and pixels of every tile, holding the latents of three rows of tiles at most."""
        boxes = list(tile_boxes(header))
        rows, columns = header.grid
        latents: dict[int, Latents] = {}
        for row in range(rows):
            for number in range(row * columns, min(row + 2, rows) * columns):
                if number not in latents:
                    latents[number] = self._decode_latents(header, data, number, boxes[number])
            for number in range(row * columns, (row + 1) * columns):
                box = boxes[number]
                pixels = self._synthesise(header, boxes, latents, box)
                yield box.top, box.left, pixels[: header.height - box.top, : header.width - box.left]
            for number in range((row - 1) * columns, row * columns):
                latents.pop(number, None)

    def _synthesise(self, header: Header, boxes: list[Box], latents: dict[int, Latents], box: Box) -> Uint8Array:
        """Pixels of a tile, uint8 (H, W, 3 or 1), from its latents and the margins of its neighbours'."""
        outer = box.grown(MARGIN_PX, padded_size(header.height), padded_size(header.width))
        y_hat = np.empty(
            (outer.height // LATENT_STRIDE, outer.width // LATENT_STRIDE, self.weights.config.M), np.float32
        )
        for number, part in latents.items():
            copy_overlap(part, boxes[number], y_hat, outer)
        y_hat *= 2.0**-LATENT_BITS
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            planes = torch.from_numpy(y_hat).to(self.device).permute(2, 0, 1)[None]
            x_hat = self.transforms.synthesise(planes, self._condition(header.quality))[0]
            top, left = box.top - outer.top, box.left - outer.left
            x_hat = x_hat[:, top : top + box.height, left : left + box.width]
            if not header.colour:
                x_hat = x_hat.mean(dim=0, keepdim=True)
            levels = torch.nan_to_num(x_hat).mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
            return levels.permute(1, 2, 0).contiguous().cpu().numpy()


class Box:
    """A rectangle of the padded image, px."""

    def __init__(self, top: int, left: int, height: int, width: int) -> None:
        self.top, self.left, self.height, self.width = top, left, height, width

    def grown(self, margin: int, image_height: int, image_width: int) -> Box:
        """The rectangle with a margin, as far as the image goes."""
        top, left = max(0, self.top - margin), max(0, self.left - margin)
        bottom = min(image_height, self.top + self.height + margin)
        right = min(image_width, self.left + self.width + margin)
        return Box(top, left, bottom - top, right - left)


def integer_quality(quality: float) -> int:
    """The header's rate point of a quality in [0, 1]; ValueError outside."""
    if not 0.0 <= quality <= 1.0:
        raise ValueError(f"quality is {quality}; it must lie between 0 and 1")
    return round(quality * QUALITY_MAX)


def padded_size(side: int) -> int:
    """Side of the padded image: the next multiple of 64 px."""
    return -(-side // HYPER_STRIDE) * HYPER_STRIDE


def tile_boxes(header: Header) -> Iterator[Box]:
    """The tiles of the padded image, row by row."""
    height, width = padded_size(header.height), padded_size(header.width)
    for top in range(0, header.height, header.tile_px):
        for left in range(0, header.width, header.tile_px):
            yield Box(top, left, min(header.tile_px, height - top), min(header.tile_px, width - left))


def read_region(colour: Uint8Array, box: Box) -> torch.Tensor:
    """A rectangle of the padded image as float32 (1, 3, H, W) in [0, 1]; padding repeats the edge."""
    height, width, channels = colour.shape
    inside = colour[box.top : min(box.top + box.height, height), box.left : min(box.left + box.width, width)]
    missing = (box.height - inside.shape[0], box.width - inside.shape[1])
    padded = np.pad(inside, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].float().div_(255.0)
    return x.expand(-1, 3, -1, -1) if channels == 1 else x


def copy_overlap(part: Latents, source: Box, target: npt.NDArray[np.float32], outer: Box) -> None:
    """Copy what a tile's latents share with the rectangle `outer` into the latents of the latter."""
    top, left = max(source.top, outer.top), max(source.left, outer.left)
    bottom = min(source.top + source.height, outer.top + outer.height)
    right = min(source.left + source.width, outer.left + outer.width)
    if top >= bottom or left >= right:
        return

    def window(box: Box) -> tuple[slice, slice]:
        rows = slice((top - box.top) // LATENT_STRIDE, (bottom - box.top) // LATENT_STRIDE)
        return rows, slice((left - box.left) // LATENT_STRIDE, (right - box.left) // LATENT_STRIDE)

    target[window(outer)] = part[window(source)]


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
