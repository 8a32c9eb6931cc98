"""Pictures in and out: PIL, NumPy and torch ↔ uint8 planes. The only file that imports PIL."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from codec.errors import ImageError, TooLargeError
from codec.format.bitstream import SIDE_MAX, Metadata, pack_alpha
from codec.picture import formats

Uint8Array = npt.NDArray[np.uint8]
ImageLike = Image.Image | Uint8Array | torch.Tensor

# What an image of each mode is coded as, besides alpha; all have 8 bits a channel or fewer.
_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_OTHER_COLOUR_MODELS = ("CMYK", "YCbCr", "LAB", "HSV")
SIXTEEN_BITS = (0.0, 65535.0)

_WITHOUT_ALPHA = ("BMP", "DIB", "PPM")  # where Pillow would drop it and not say so
_LOSSY = {
    "JPEG": 95,
    "WEBP": 95,
    "AVIF": 95,
    "HEIF": 95,
    "JXL": 95,
}  # Pillow's own 75 would cost more than a good .yoto file did
_TIFF_XMP_TAG = 700
# Description, maker, model, resolution with its unit, software, date, artist, computer, copyright.
_TIFF_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)


@dataclass(frozen=True)
class Planes:
    """An image as the codec sees it.

    Attributes:
        colour: uint8 (H, W, 3), or (H, W, 1) if grey.
        alpha: uint8 (H, W), or None.
        metadata: blocks to keep.
        packed_alpha: alpha as the file holds it, compressed once; empty without alpha.
    """

    colour: Uint8Array
    alpha: Uint8Array | None = None
    metadata: Metadata = field(default_factory=Metadata)

    @cached_property
    def packed_alpha(self) -> bytes:
        return b"" if self.alpha is None else pack_alpha(self.alpha.tobytes())


def open_image(
    source: str | os.PathLike[str] | BinaryIO,
    *,
    levels: tuple[float, float] | None = None,
    max_pixels: int | None = None,
) -> Image.Image:
    """Read an image file completely; of several frames the first.

    Args:
        source: path or file.
        levels: what becomes black and white in an image of more than 8 bits a channel, see `scale_levels`; None
            refuses 16-bit colour, and leaves other deep images as they are.
        max_pixels: refuse more; Pillow's own limit holds besides.

    Raises:
        ImageError: it is no image that Pillow reads, is damaged, or has more depth than `levels` says how to scale.
        TooLargeError: it has more than `max_pixels`, or more than Pillow's own limit; found before they are decoded.
        OSError: the file cannot be opened.
    """
    formats.plugins()
    name = source if isinstance(source, str | os.PathLike) else "the input"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(Path(source) if isinstance(source, str) else source) as image:
                if max_pixels is not None and image.width * image.height > max_pixels:
                    raise TooLargeError(
                        f"{name} has {image.width}×{image.height} px, more than the limit of {max_pixels}"
                    )
                reduced = _loses_depth(image)
                frames(image)  # which Pillow remembers; it cannot be counted once the file is closed
                image.load()
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that can be read{_hint(source)}") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name} is too large: {error}") from error
    except (SyntaxError, ValueError, EOFError) as error:
        raise ImageError(f"{name} is a damaged image: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise ImageError(f"{name} is a damaged image: {error}") from error
    if reduced and levels != SIXTEEN_BITS:
        raise ImageError(
            f"{name} has 16 bits a channel in colour, of which Pillow reads the upper 8; --levels 0:65535 codes those"
        )
    if levels and image.mode not in _GREY_MODES + _COLOUR_MODES:
        return scale_levels(image, *levels)
    return image


def _hint(source: str | os.PathLike[str] | BinaryIO) -> str:
    """What to install for a picture that cannot be read, if that would help."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            missing = formats.missing_plugin(Path(source).suffix, file.read(16))
    else:
        source.seek(0)
        missing = formats.missing_plugin("", source.read(16))
    return f"; {missing}" if missing else ""


def _loses_depth(image: Image.Image) -> bool:
    """Whether Pillow is about to read 16 bits a channel as 8, as it does for colour in PNG, TIFF and PPM."""
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        return False
    return any(";16" in str(tile[3]) or (tile[0] == "ppm" and tile[3][-1] > 255) for tile in getattr(image, "tile", ()))


def frames(image: Image.Image) -> int:
    """How many frames or pages a file has. The second picture of a camera's MPO file is a preview and not counted."""
    return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)


def scale_levels(image: Image.Image, low: float, high: float) -> Image.Image:
    """Scale a 16-bit, 32-bit or floating-point image (modes I;16, I, F) to 8 bits a channel.

    Args:
        image: a grey PIL image.
        low, high: the values that become black and white; 0 and 65535 for the whole range of 16 bits.

    Returns:
        The image as mode L, upright, with its metadata in `info`.

    Raises:
        ImageError: a value lies outside, since it would be clipped, or the mode is another.
        ValueError: low is not below high.
    """
    if not low < high:
        raise ValueError(f"levels go from {low:g} to {high:g}; the first must be below the second")
    if image.mode in _GREY_MODES + _COLOUR_MODES:
        raise ImageError(f"the image has mode {image.mode}; levels are for those of more than 8 bits a channel")
    upright = ImageOps.exif_transpose(image)
    values = np.asarray(upright).astype(np.float64)
    if not (values.min() >= low and values.max() <= high):  # NaN fails too
        raise ImageError(f"the image holds values {_value_range(image)}, outside the levels {low:g}:{high:g}")
    scaled = np.round((values - low) * (255.0 / (high - low))).astype(np.uint8)
    return to_pil(Planes(scaled[:, :, None], None, _metadata(image, upright)))


def _value_range(image: Image.Image) -> str:
    values = np.asarray(image)
    return f"from {values.min():g} to {values.max():g}"


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
    original, image = image, ImageOps.exif_transpose(image)
    metadata = _metadata(original, image)
    if image.mode not in _GREY_MODES + _COLOUR_MODES:
        raise ImageError(
            f"the image has mode {image.mode}, values {_value_range(image)}, and 8 bits a channel can be coded;"
            " scale it with --levels LOW:HIGH, in Python with codec.scale_levels"
        )
    if image.mode in _OTHER_COLOUR_MODELS:  # the profile describes channels that are given up
        metadata = Metadata(exif=metadata.exif, xmp=metadata.xmp)
    target = ("L" if image.mode in _GREY_MODES else "RGB") + ("A" if image.has_transparency_data else "")
    if image.mode != target:
        image = image.convert(target)
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] in (2, 4):
        return Planes(array[:, :, :-1], array[:, :, -1], metadata)
    return Planes(array, None, metadata)


def _metadata(original: Image.Image, image: Image.Image) -> Metadata:
    """What to keep of the original's metadata in the upright image: all but the orientation, which has been applied."""
    # TIFF keeps Exif among its own tags, which stay with the original.
    exif = tiff_exif(original.getexif()) if hasattr(original, "tag_v2") else image.getexif()
    exif_bytes = b""
    if exif:
        oriented = exif.pop(0x0112, None)
        block = image.info.get("exif", b"")
        exif_bytes = exif.tobytes() if oriented or not block else block
    xmp = image.info.get("xmp", b"")
    return Metadata(
        icc_profile=image.info.get("icc_profile") or b"",
        exif=exif_bytes if exif else b"",
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
    )


def tiff_exif(tags: Image.Exif) -> Image.Exif:
    """Exif as other formats have it, from the tags of a TIFF file, without those of its layout."""
    exif = Image.Exif()
    exif.update({tag: tags[tag] for tag in _TIFF_EXIF_TAGS if tag in tags})
    for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        exif.get_ifd(ifd).update(tags.get_ifd(ifd))
    return exif


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
    form = formats.format_to_write(suffix)
    if form in _WITHOUT_ALPHA and image.has_transparency_data:
        raise ImageError(f"a {image.mode} image cannot be written as {form}: it has no alpha channel; use .png")
    blocks: dict[str, Any] = {name: image.info[name] for name in ("icc_profile", "exif", "xmp") if name in image.info}
    if form == "TIFF" and "xmp" in blocks:  # a tag like those of Exif, for which Pillow has no option
        tags = Image.Exif()
        tags.load(blocks.get("exif", b""))
        tags[_TIFF_XMP_TAG] = blocks.pop("xmp")
        blocks["exif"] = tags
    if form in _LOSSY:
        blocks["quality"] = _LOSSY[form]
    if form == "PNG" and "xmp" in blocks:  # Pillow reads XMP from PNG, but writes it only as a text chunk
        blocks["pnginfo"] = PngImagePlugin.PngInfo()
        blocks["pnginfo"].add_itxt("XML:com.adobe.xmp", blocks.pop("xmp").decode("utf-8", "replace"))
    buffer = io.BytesIO()
    try:
        image.save(buffer, form, **blocks)
    except (OSError, ValueError) as error:
        raise ImageError(f"a {image.mode} image cannot be written as {form}: {error}; use .png") from error
    return buffer.getvalue()
