"""Images ↔ `.yoto` bytes: what a program calls. `encoder.py` and `decoder.py` say how it is done."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, lru_cache
from typing import Literal, NamedTuple, cast, overload

from PIL import Image

from codec.decoder import Damage, decode_planes
from codec.encoder import DEFAULT_EFFORT, TILE_PX, encode_lossless, encode_planes
from codec.errors import CodecError, LossWarning, explain
from codec.format.bitstream import DEFAULT_MAX_PIXELS, MAX_TILE_PX, QUALITY_MAX, Metadata, Region, unpack
from codec.grid import Progress
from codec.network.loaded import LoadedModel
from codec.network.weights import Weights
from codec.picture.image import ImageLike, Planes, open_image, to_pil, to_planes
from codec.picture.source import Source, is_source, local_file, read_bytes
from codec.picture.transparent import without_hidden_colours

DEFAULT_QUALITY = 0.5


class PartialImage(NamedTuple):
    """What `Codec.decode_partial` made of a file: the picture, and what is missing in it."""

    image: Image.Image
    damage: list[Damage]


class Codec:
    """A loaded model. Safe to share between threads; load once, use often.

    There is no call for a batch, since it would save nothing: the work goes with the number of pixels, however they are
    dealt out. Many pictures are coded in less time several at once, each on few threads, as `yoto-codec encode --jobs`
    does; a program does so with a pool of threads that share one `Codec`, or of processes that have one each.

    Args:
        weights: path of a weights file; None for the one that is shipped.
        device: where the transforms run, "cpu" or "cuda". The entropy model always runs on the CPU, in integers, so
            files do not depend on it.
        backend: what runs the transforms, "onnx" (ONNX Runtime) or "torch"; "auto" for the faster of those that are
            installed. Their pictures differ by one level at most.

    Raises:
        WeightsError: the weights cannot be used.
        CodecError: the device or the back end cannot be used.
        ValueError: there is no such back end.
    """

    def __init__(
        self, weights: str | os.PathLike[str] | None = None, device: str = "cpu", backend: str = "auto"
    ) -> None:
        self._made_of = weights, device, backend
        self.model = LoadedModel(weights, device, backend)
        survive_fork()

    def __reduce__(self) -> tuple[type[Codec], tuple[str | os.PathLike[str] | None, str, str]]:
        """Pickle what it was made of: another process loads the weights again."""
        return type(self), self._made_of

    @property
    def backend(self) -> str:
        """What runs the transforms, "onnx" or "torch"."""
        return self.model.backend.name

    @property
    def weights(self) -> Weights:
        """What was loaded."""
        return self.model.weights

    def encode(
        self,
        image: ImageLike | Source,
        quality: float = DEFAULT_QUALITY,
        *,
        effort: int = DEFAULT_EFFORT,
        keep_metadata: bool = True,
        lossless: bool = False,
        levels: tuple[float, float] | None = None,
        tile_px: int = TILE_PX,
        max_pixels: int | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Compress an image to the bytes of a `.yoto` file.

        Args:
            image: a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a torch tensor (1, 3 or 4, H, W);
                arrays and tensors are uint8, or floating point in [0, 1]. Or a picture's file: its path, a URL that
                fsspec knows, its bytes, or a file that is open.
            quality: 0 (fewest bits) to 1, continuous.
            effort: 0 (fastest) to 8; how often the symbols are chosen anew after a look at the picture that they make.
                It saves 2 to 4 % of the bits at equal error; decoding does not change.
            keep_metadata: keep the ICC profile, Exif and XMP of a PIL image.
            lossless: keep every pixel as it is, whatever the quality; a file of this kind needs no weights.
            levels: the values that become black and white in an image of more than 8 bits a channel, such as
                (0, 65535); None refuses those.
            tile_px: side of the independent tiles, a multiple of 64 px up to 2048.
            max_pixels: refuse larger files of pictures, counted as they are padded for coding.
            progress: called after each tile with the number of those done and of all.

        Warns:
            LossWarning: something of the image's file is not kept.

        Raises:
            ImageError: the image cannot be coded.
            TypeError, ValueError: an argument has the wrong type or is out of range.
        """
        rate_point = integer_quality(quality)
        planes = planes_of(image, levels, keep_metadata, max_pixels)
        if lossless:
            return encode_lossless(planes, effort, tile_px, progress)
        planes = without_hidden_colours(planes)
        return self.encode_planes(planes, rate_point, effort, tile_px, progress)

    def encode_planes(
        self,
        planes: Planes,
        rate_point: int,
        effort: int = DEFAULT_EFFORT,
        tile_px: int = TILE_PX,
        progress: Progress | None = None,
    ) -> bytes:
        """Compress an image that `to_planes` took apart, at an integer rate point; see `encode`."""
        with memory_errors():
            return encode_planes(self.model, planes, rate_point, effort, tile_px, progress)

    def decode(
        self,
        data: Source,
        *,
        region: Region | None = None,
        realism: float = 0.0,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_tile_px: int = MAX_TILE_PX,
        progress: Progress | None = None,
    ) -> Image.Image:
        """Decompress the bytes of a `.yoto` file.

        Args:
            data: the file: its bytes, its path, a URL that fsspec knows, or a file that is open.
            region: x, y, width and height of what to decode, px; None for the whole image. Only the tiles that it
                touches are read, and their neighbours where it comes near a border. Pixels differ from those of
                the whole image by one level at most.
            realism: 0 for the least squared error, up to 1 for the structure that MS-SSIM sees: more contrast in
                what the bits leave open. The same file serves for all; weights may have learned 0 alone.
            max_pixels: refuse files of larger images, counted as they are padded for coding, whatever the region.
            max_tile_px: refuse files whose tiles have a larger area than such a square; memory goes with it.
            progress: called after each tile with the number of those done and of all.

        Returns:
            A PIL image, L, LA, RGB or RGBA, its metadata in `info`.

        Raises:
            BitstreamError: the data is no `.yoto` file, or damaged.
            ModelMismatchError: it was encoded with other weights.
            TooLargeError: it has more than `max_pixels`, or larger tiles than `max_tile_px`.
            WeightsError: the weights have not learned realism.
            ValueError: the region is empty or does not lie within the image; the realism is out of range.
        """
        check_realism(realism)
        data = read_bytes(data)
        header = unpack(data, max_pixels)
        with memory_errors():
            decoded = decode_planes(
                self.model, header, data, region, realism=realism, max_tile_px=max_tile_px, progress=progress
            )
            return to_pil(decoded.planes)

    def decode_partial(
        self,
        data: Source,
        *,
        region: Region | None = None,
        realism: float = 0.0,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        max_tile_px: int = MAX_TILE_PX,
        progress: Progress | None = None,
    ) -> PartialImage:
        """Decompress what is left of a damaged file, whose header must be sound; arguments as for `decode`.

        Damaged tiles are grey, a damaged alpha channel is opaque, damaged metadata is left out.

        Raises:
            As `decode`, but for damage behind the header.
        """
        check_realism(realism)
        data = read_bytes(data)
        header = unpack(data, max_pixels, whole=False)
        damage = []
        if header.size_bytes != len(data):
            damage.append(Damage(f"the file should have {header.size_bytes} bytes and has {len(data)}"))
        with memory_errors():
            decoded = decode_planes(
                self.model,
                header,
                data,
                region,
                realism=realism,
                whole=False,
                max_tile_px=max_tile_px,
                progress=progress,
            )
        return PartialImage(to_pil(decoded.planes), sorted(damage + decoded.damage, key=file_order))


def planes_of(
    image: ImageLike | Source,
    levels: tuple[float, float] | None,
    keep_metadata: bool,
    max_pixels: int | None = None,
) -> Planes:
    """Take an image or its file apart, for one who called a function that called this; warn of what is not kept."""
    if is_source(image):
        planes = to_planes(open_image(local_file(image), levels=levels, max_pixels=max_pixels), levels)
    else:
        planes = to_planes(cast(ImageLike, image), levels)
    if planes is not image:
        for note in planes.notes:
            warnings.warn(note, LossWarning, stacklevel=3)
    return planes if keep_metadata else replace(planes, metadata=Metadata())


def file_order(damage: Damage) -> int:
    """Tiles by their number, behind what is no tile."""
    return -1 if damage.tile is None else damage.tile


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what NumPy and torch raise for want of memory into a CodecError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = explain(error)
        if message is None:
            raise
        raise CodecError(message) from error


def integer_quality(quality: float) -> int:
    """The header's rate point of a quality in [0, 1]; ValueError outside."""
    if not 0.0 <= quality <= 1.0:
        raise ValueError(f"quality is {quality}; it must lie between 0 and 1")
    return round(quality * QUALITY_MAX)


def check_realism(realism: float) -> None:
    """ValueError outside of [0, 1]."""
    if not 0.0 <= realism <= 1.0:
        raise ValueError(f"realism is {realism}; it must lie between 0 and 1")


def as_fraction(quality: float) -> float:
    """Quality in [0, 1]; integers above 1 are percentages, which are usual in Pillow and other tools."""
    return quality / 100 if isinstance(quality, int) and 1 < quality <= 100 else quality


@lru_cache(maxsize=4)
def default_codec(device: str = "cpu") -> Codec:
    """The shipped weights on a device, loaded at the first call."""
    return Codec(device=device)


@cache
def survive_fork() -> None:
    """Let a child forked from this process code, too: of torch's threads it has but the one that called fork.

    The others are waited for without end by whatever is divided among them, so that the child does without them.
    """

    def do_without_threads() -> None:
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(1)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=do_without_threads)


def encode(
    image: ImageLike | Source,
    quality: float = DEFAULT_QUALITY,
    *,
    effort: int = DEFAULT_EFFORT,
    keep_metadata: bool = True,
    lossless: bool = False,
    levels: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    device: str = "cpu",
) -> bytes:
    """Compress an image, or the file of one, with the shipped weights.

    Args:
        image: a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a torch tensor (1, 3 or 4, H, W); or
            a picture's path, URL, bytes or open file.
        quality: 0 (fewest bits) to 1, continuous.
        device: where the transforms run, "cpu" or "cuda".
        effort, keep_metadata, lossless, levels, max_pixels: see `Codec.encode`, and for what it raises and warns of.

    Returns:
        The bytes of a `.yoto` file.
    """
    return default_codec(device).encode(
        image,
        quality,
        effort=effort,
        keep_metadata=keep_metadata,
        lossless=lossless,
        levels=levels,
        max_pixels=max_pixels,
    )


@overload
def decode(
    data: Source,
    *,
    region: Region | None = ...,
    realism: float = ...,
    max_pixels: int = ...,
    partial: Literal[False] = ...,
    device: str = ...,
) -> Image.Image: ...
@overload
def decode(
    data: Source,
    *,
    region: Region | None = ...,
    realism: float = ...,
    max_pixels: int = ...,
    partial: Literal[True],
    device: str = ...,
) -> PartialImage: ...
def decode(
    data: Source,
    *,
    region: Region | None = None,
    realism: float = 0.0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    partial: bool = False,
    device: str = "cpu",
) -> Image.Image | PartialImage:
    """Decompress a `.yoto` file of the shipped weights.

    Args:
        data: the file: its bytes, path, URL, or the open file.
        region: x, y, width and height of what to decode, px; None for the whole image.
        realism: 0 for the least squared error, up to 1 for the structure that MS-SSIM sees, see `Codec.decode`.
        max_pixels: refuse files of larger images.
        partial: return what is left of a damaged file, and a list of what is missing, see `Codec.decode_partial`.
        device: where the transforms run, "cpu" or "cuda".

    Returns:
        A PIL image, L, LA, RGB or RGBA, its metadata in `info`; with `partial` a pair of it and the damage. Errors are
        those of `Codec.decode`.
    """
    codec = default_codec(device)
    if partial:
        return codec.decode_partial(data, region=region, realism=realism, max_pixels=max_pixels)
    return codec.decode(data, region=region, realism=realism, max_pixels=max_pixels)
