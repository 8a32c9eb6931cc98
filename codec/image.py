"""Pictures in and out: PIL, NumPy and torch ↔ uint8 planes. The only file that imports PIL."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from codec.bitstream import SIDE_MAX, Metadata
from codec.errors import ImageError, TooLargeError

Uint8Array = npt.NDArray[np.uint8]
ImageLike = Image.Image | Uint8Array | torch.Tensor

_CODED_MODES = ("L", "LA", "RGB", "RGBA")
# Modes that convert to a coded one without losing depth.
_CONVERTIBLE_MODES = {"1": "L", "P": "RGB", "PA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "RGBX": "RGB"}


@dataclass(frozen=True)
class Planes:
    """An image as the codec sees it.

    Attributes:
        colour: uint8 (H, W, 3), or (H, W, 1) if grey.
        alpha: uint8 (H, W), or None.
        metadata: blocks to keep.
    """

    colour: Uint8Array
    alpha: Uint8Array | None = None
    metadata: Metadata = field(default_factory=Metadata)


def open_image(source: str | os.PathLike[str] | BinaryIO, max_pixels: int | None = None) -> Image.Image:
    """Read an image file completely.

    Raises:
        ImageError: it is no image that Pillow reads, or is damaged.
        TooLargeError: it has more than `max_pixels`, or more than Pillow's own limit; found before they are decoded.
        OSError: the file cannot be opened.
    """
    name = source if isinstance(source, str | os.PathLike) else "the input"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(Path(source) if isinstance(source, str) else source)
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise TooLargeError(f"{name} has {image.width}×{image.height} px, more than the limit of {max_pixels}")
            image.load()
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name} is too large: {error}") from error
    except (SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name} is a damaged image: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(f"{name} is a damaged image: {error}") from error
    return image


def to_planes(image: ImageLike) -> Planes:
    """Take an image apart.

    Args:
        image: a PIL image (8 bits a channel; its Exif orientation is applied), a uint8 array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4), or a torch tensor (1, 3 or 4, H, W), uint8 or floating point in [0, 1].

    Raises:
        ImageError: the mode cannot be coded without loss of depth, or the image is empty or too large.
        TypeError, ValueError: the array has another type or shape.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, torch.Tensor):
        image = _from_tensor(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"expected a PIL image, a NumPy array or a torch tensor, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(f"the array holds {image.dtype}; expected uint8")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError(f"the array has shape {image.shape}; expected (H, W), (H, W, 3) or (H, W, 4)")
    _check_size(image.shape[1], image.shape[0])
    if image.shape[2] == 4:
        return Planes(image[:, :, :3], image[:, :, 3])
    return Planes(image)


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= SIDE_MAX and 1 <= height <= SIDE_MAX):
        raise ImageError(f"the image is {width}×{height} px; sides from 1 to {SIDE_MAX} px can be coded")


def _from_tensor(tensor: torch.Tensor) -> Uint8Array:
    if tensor.ndim != 3:
        raise ValueError(f"the tensor has shape {tuple(tensor.shape)}; expected (3, H, W)")
    if tensor.is_floating_point():
        tensor = (tensor.detach().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
    elif tensor.dtype != torch.uint8:
        raise TypeError(f"the tensor holds {tensor.dtype}; expected uint8 or floating point in [0, 1]")
    array: Uint8Array = tensor.permute(1, 2, 0).cpu().numpy()
    return array


def _from_pil(image: Image.Image) -> Planes:
    _check_size(*image.size)
    image = ImageOps.exif_transpose(image)
    metadata = _metadata(image)
    mode = image.mode
    if mode not in _CODED_MODES:
        if mode not in _CONVERTIBLE_MODES:
            raise ImageError(
                f"images of mode {mode} have no 8-bit form without loss; convert to one of {', '.join(_CODED_MODES)}"
            )
        target = _CONVERTIBLE_MODES[mode]
        # A profile describes the original channels, so it does not survive a change of colour model.
        if mode in ("CMYK", "YCbCr"):
            metadata = Metadata(exif=metadata.exif, xmp=metadata.xmp)
        image = image.convert("RGBA" if mode == "P" and "transparency" in image.info else target)
    elif "transparency" in image.info and image.mode in ("L", "RGB"):
        image = image.convert("LA" if image.mode == "L" else "RGBA")
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] in (2, 4):
        return Planes(array[:, :, :-1], array[:, :, -1], metadata)
    return Planes(array, None, metadata)


def _metadata(image: Image.Image) -> Metadata:
    """What to keep of the image's metadata; the orientation tag goes, since it has been applied."""
    exif = image.getexif()
    exif_bytes = b""
    if exif:
        oriented = exif.pop(0x0112, None)
        original = image.info.get("exif", b"")
        exif_bytes = exif.tobytes() if oriented or not original else original
    xmp = image.info.get("xmp", b"")
    return Metadata(
        icc_profile=image.info.get("icc_profile") or b"",
        exif=exif_bytes if exif else b"",
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
    )


def to_pil(planes: Planes) -> Image.Image:
    """Put an image together, L, LA, RGB or RGBA, with its metadata in `info`."""
    colour = planes.colour[:, :, 0] if planes.colour.shape[2] == 1 else planes.colour
    image = Image.fromarray(colour)
    if planes.alpha is not None:
        image.putalpha(Image.fromarray(planes.alpha))
    for name in ("icc_profile", "exif", "xmp"):
        block = getattr(planes.metadata, name)
        if block:
            image.info[name] = block
    return image


def save_image(image: Image.Image, suffix: str) -> bytes:
    """Write an image, with its metadata, in the format that a file suffix stands for.

    Raises:
        ImageError: Pillow writes no such format, or not images of this mode.
    """
    extensions = Image.registered_extensions()
    form = extensions.get(suffix.lower())
    if form not in Image.SAVE:
        raise ImageError(f"files with the suffix '{suffix}' cannot be written; use .png")
    blocks: dict[str, Any] = {name: image.info[name] for name in ("icc_profile", "exif", "xmp") if name in image.info}
    if form == "PNG" and "xmp" in blocks:  # Pillow reads XMP from PNG, but writes it only as a text chunk
        blocks["pnginfo"] = PngImagePlugin.PngInfo()
        blocks["pnginfo"].add_itxt("XML:com.adobe.xmp", blocks.pop("xmp").decode("utf-8", "replace"))
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, **blocks)
    except (OSError, ValueError) as error:
        raise ImageError(f"a {image.mode} image cannot be written as {form}: {error}") from error
    return buffer.getvalue()


def psnr_db(a: Uint8Array, b: Uint8Array) -> float:
    """Peak signal-to-noise ratio of two uint8 arrays of one shape; infinite if they are equal."""
    squared = 0.0
    for rows_a, rows_b in zip(
        np.array_split(a, max(1, len(a) // 256)), np.array_split(b, max(1, len(b) // 256)), strict=True
    ):
        squared += float(np.square(rows_a.astype(np.float64) - rows_b).sum())
    return float("inf") if squared == 0.0 else 10.0 * np.log10(255.0**2 * a.size / squared)
