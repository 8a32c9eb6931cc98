"""Pictures in and out: PIL, NumPy and torch ↔ uint8 planes. Needs torch only where it is given a tensor."""

from __future__ import annotations

import io
import math
import os
import sys
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from codec.errors import ImageError, TooLargeError
from codec.format.bitstream import SIDE_MAX, Metadata, pack_alpha, padded_pixels
from codec.picture import formats, metadata

if TYPE_CHECKING:
    from torch import Tensor

Uint8Array = npt.NDArray[np.uint8]
ImageLike: TypeAlias = "Image.Image | npt.NDArray[Any] | Tensor | Planes"

# What an image of each mode is coded as, besides alpha; all have 8 bits a channel or fewer.
_GREY_MODES = ("1", "L", "LA", "La")
_COLOUR_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "CMYK", "YCbCr", "LAB", "HSV")
_EIGHT_BITS = _GREY_MODES + _COLOUR_MODES
_OTHER_COLOUR_MODELS = ("CMYK", "YCbCr", "LAB", "HSV")
# What makes an image upright that was stored in an orientation of Exif.
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
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


@dataclass(frozen=True)
class Planes:
    """An image as the codec sees it.

    Attributes:
        colour: uint8 (H, W, 3), or (H, W, 1) if grey.
        alpha: uint8 (H, W), or None.
        metadata: blocks to keep.
        notes: what of the image is not kept, a line each.
        packed_alpha: alpha as the file holds it, compressed once; empty without alpha.
    """

    colour: Uint8Array
    alpha: Uint8Array | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()

    @cached_property
    def packed_alpha(self) -> bytes:
        """Alpha as the file holds it, compressed once; empty without alpha."""
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
        max_pixels: refuse more, counted as they are padded for coding; Pillow's own limit holds besides.

    Raises:
        ImageError: it is of no format that is read, is damaged, or has more depth than `levels` says how to scale.
        TooLargeError: it has more than `max_pixels`, or more than Pillow's own limit; found before they are decoded.
        OSError: the file cannot be opened.
    """
    name = os.fspath(source) if isinstance(source, str | os.PathLike) else _name(source)
    readers = formats.readers()
    with formats.picture_errors(name), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # what matters is an error
        try:
            image = Image.open(Path(source) if isinstance(source, str) else source, formats=readers)
        except UnidentifiedImageError as error:
            raise ImageError(f"{name} is not an image that can be read{_hint(source)}") from error
        with image:
            _check_pixels(name, image.width, image.height, max_pixels)
            _check_depth(name, image, levels)
            metadata.remember(image)
            image.load()
            # A reader may have announced another size than it found.
            _check_pixels(name, image.width, image.height, max_pixels)
    if levels and image.mode not in _EIGHT_BITS:
        return scale_levels(image, *levels)
    return image


def _name(file: BinaryIO) -> str:
    """Of an open file, for errors; what has none, or a number, is the input."""
    name = getattr(file, "name", None)
    return name if isinstance(name, str) else "the input"


def _hint(source: str | os.PathLike[str] | BinaryIO) -> str:
    """What to install for a picture that cannot be read, if that would help."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            missing = formats.missing_plugin(Path(source).suffix, file.read(16))
    else:
        source.seek(0)
        missing = formats.missing_plugin("", source.read(16))
    return f"; {missing}" if missing else ""


def _check_pixels(name: str, width: int, height: int, max_pixels: int | None) -> None:
    coded = padded_pixels(width, height)
    if max_pixels is not None and coded > max_pixels:
        raise TooLargeError(
            f"{name} has {width}×{height} px, which are coded as {coded}, more than the limit of {max_pixels}"
        )


def _check_depth(name: str, image: Image.Image, levels: tuple[float, float] | None) -> None:
    """Refuse 16-bit colour that Pillow is about to read as 8 bits, as it does in PNG, TIFF and PPM, if nobody said so.

    Once Pillow has read the pixels, nothing tells.
    """
    tiles = getattr(image, "tile", ())
    reduced = any(";16" in str(tile[3]) or (tile[0] == "ppm" and tile[3][-1] > 255) for tile in tiles)
    if reduced and image.mode in _EIGHT_BITS and levels != SIXTEEN_BITS:
        raise ImageError(
            f"{name} has 16 bits a channel in colour, of which Pillow reads the upper 8; --levels 0:65535, in Python"
            " levels=(0, 65535), codes those"
        )


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
    _check_levels((low, high))
    if image.mode in _EIGHT_BITS:
        raise ImageError(f"the image has mode {image.mode}; levels are for those of more than 8 bits a channel")
    return to_pil(_from_pil(image, (low, high)))


def _check_levels(levels: tuple[float, float]) -> None:
    low, high = levels
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"levels go from {low:g} to {high:g}; the first must be below the second, both finite")


def _scaled(values: npt.NDArray[Any], levels: tuple[float, float]) -> Uint8Array:
    """Levels become 0 and 255; ImageError for values beyond, since they would be clipped."""
    low, high = levels
    if not (values.min() >= low and values.max() <= high):  # NaN fails too
        raise ImageError(f"the image holds values {_value_range(values)}, outside the levels {low:g}:{high:g}")
    return np.round((values.astype(np.float64) - low) * (255.0 / (high - low))).astype(np.uint8)


def _value_range(values: npt.NDArray[Any]) -> str:
    return f"from {values.min():g} to {values.max():g}"


def to_planes(image: ImageLike, levels: tuple[float, float] | None = None) -> Planes:
    """Take an image apart.

    Args:
        image: a PIL image (its Exif orientation is applied), an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a
            torch tensor (1, 3 or 4, H, W). Arrays and tensors are uint8, or floating point in [0, 1]. `Planes` are
            returned as they are.
        levels: what becomes black and white in images, arrays and tensors of other values, such as 16-bit ones; None
            refuses those.

    Raises:
        ImageError: the image is damaged, empty or too large, or has values that `levels` does not cover.
        TypeError, ValueError: the array has another type or shape, or values outside [0, 1].
    """
    if levels:
        _check_levels(levels)
    if isinstance(image, Planes):
        return image
    if isinstance(image, Image.Image):
        return _from_pil(image, levels)
    torch = sys.modules.get("torch")  # who has a tensor has imported it
    if torch is not None and isinstance(image, torch.Tensor):
        image = _tensor_rows(image)
    if not isinstance(image, np.ndarray):
        raise TypeError(f"expected a PIL image, a NumPy array or a torch tensor, not {type(image).__name__}")
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise ValueError(f"the array has shape {image.shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_size(image.shape[1], image.shape[0])
    image = _eight_bits(image, levels)
    if image.shape[2] == 4:
        return Planes(image[:, :, :3], image[:, :, 3])
    return Planes(image)


def _check_size(width: int, height: int) -> None:
    if not (1 <= width <= SIDE_MAX and 1 <= height <= SIDE_MAX):
        raise ImageError(f"the image is {width}×{height} px; sides from 1 to {SIDE_MAX} px can be coded")


def _tensor_rows(tensor: Tensor) -> npt.NDArray[Any]:
    """(C, H, W) → (H, W, C)."""
    if tensor.ndim != 3:
        raise ValueError(f"the tensor has shape {tuple(tensor.shape)}; expected (1, 3 or 4, H, W)")
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:  # NumPy has no bfloat16
        tensor = tensor.float()
    rows: npt.NDArray[Any] = tensor.permute(1, 2, 0).numpy()
    return rows


def _eight_bits(values: npt.NDArray[Any], levels: tuple[float, float] | None) -> Uint8Array:
    """Values of an array or tensor as uint8."""
    if values.dtype == np.uint8:
        return values
    if levels and values.dtype.kind in "uif":
        return _scaled(values, levels)
    if values.dtype.kind != "f":
        hint = "; levels=(LOW, HIGH) says which values are black and white" if values.dtype.kind in "ui" else ""
        raise TypeError(f"the array holds {values.dtype}; expected uint8, or floating point in [0, 1]{hint}")
    if not (values.min() >= 0.0 and values.max() <= 1.0):  # NaN fails too
        raise ValueError(f"the array holds values {_value_range(values)}; expected [0, 1]: clip it, or give levels")
    return np.round(values * values.dtype.type(255.0)).astype(np.uint8)


def _from_pil(image: Image.Image, levels: tuple[float, float] | None) -> Planes:
    _check_size(*image.size)
    name = getattr(image, "filename", "") or "the image"
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    with formats.picture_errors(name):
        _check_depth(name, image, levels)
        notes = metadata.left_out(image)
        image.load()
        exif = metadata.stored_exif(image, notes)
        blocks = metadata.upright_blocks(exif, metadata.stored_xmp(image))
        icc_profile = image.info.get("icc_profile") or b""
        if blocks.orientation in _TRANSPOSED:
            image = image.transpose(_TRANSPOSED[blocks.orientation])
        if image.mode not in _EIGHT_BITS:
            values = np.asarray(image)
            if levels is None:
                raise ImageError(
                    f"the image has mode {image.mode}, values {_value_range(values)}, and 8 bits a channel can be"
                    " coded; scale it with --levels LOW:HIGH, in Python with levels=(LOW, HIGH) or codec.scale_levels"
                )
            return Planes(_scaled(values, levels)[:, :, None], None, Metadata(icc_profile, blocks.exif, blocks.xmp))
        image, icc_profile = _in_coded_mode(image, icc_profile, notes)
        array = np.asarray(image)
    kept = Metadata(icc_profile, blocks.exif, blocks.xmp)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] in (2, 4):
        return Planes(array[:, :, :-1], array[:, :, -1], kept, tuple(notes))
    return Planes(array, None, kept, tuple(notes))


def _in_coded_mode(image: Image.Image, icc_profile: bytes, notes: list[str]) -> tuple[Image.Image, bytes]:
    """The image as L, LA, RGB or RGBA, and the profile of these colours, empty for sRGB; notes what is lost."""
    target = ("L" if image.mode in _GREY_MODES else "RGB") + ("A" if image.has_transparency_data else "")
    if image.mode in _OTHER_COLOUR_MODELS and icc_profile[16:20] != b"RGB ":  # such a profile is for after conversion
        if icc_profile:
            converted = _through_profile(image, icc_profile)
            if converted is not None:
                return converted, b""
            notes.append(f"its colour profile cannot be used for {image.mode} and is left out; colours are approximate")
        elif image.mode == "CMYK":
            notes.append("it is CMYK without a colour profile; colours are approximate")
        icc_profile = b""
    return image if image.mode == target else image.convert(target), icc_profile


def _through_profile(image: Image.Image, icc_profile: bytes) -> Image.Image | None:
    """The image in sRGB, None if its profile is damaged or of other colours."""
    try:
        return ImageCms.profileToProfile(
            image, io.BytesIO(icc_profile), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


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
        with formats.picture_errors("the picture's Exif"):
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
    except Exception as error:  # each writer has its own way to say so, most of all of damaged Exif
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"a {image.mode} image cannot be written as {form}: {reason}; use .png") from error
    return buffer.getvalue()
