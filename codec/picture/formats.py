"""Which formats pictures come in and go to, and what their readers raise. Needs neither NumPy nor torch."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from codec.errors import CodecError, ImageError, TooLargeError
from codec.picture.url import Url

# Formats that people keep pictures in and that are decoded in this process: never EPS, for which Pillow starts
# Ghostscript, nor the rare ones, whose readers nobody attacks, and so nobody mends.
_READ = {
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG"),
    *("PPM", "PSD", "QOI", "SGI", "TGA", "TIFF", "WEBP", "XBM", "XPM"),
}
_ALTERED_BY_PILLOW = {"ICO", "ICNS", "SPIDER"}  # written in other sizes or as floating point
_HEIF, _JXL = "pillow-heif", "pillow-jxl-plugin"
_PLUGINS = {".heic": _HEIF, ".heif": _HEIF, ".hif": _HEIF, ".jxl": _JXL}
_MAGIC = {b"ftyphe": _HEIF, b"ftypmif1": _HEIF, b"\xff\x0a": _JXL, b"\x00\x00\x00\x0cJXL ": _JXL}


@cache
def plugins() -> frozenset[str]:
    """Load those of the extra `formats` that are installed; their names as packages."""
    loaded = set()
    try:
        import_module("pillow_heif").register_heif_opener()
        loaded.add(_HEIF)
    except ImportError:
        pass
    try:
        import_module("pillow_jxl")
        loaded.add(_JXL)
    except ImportError:
        pass
    return frozenset(loaded)


def missing_plugin(suffix: str, head: bytes = b"") -> str | None:
    """What to install for files of a suffix, or of these first bytes, if they could be read then."""
    named = {_PLUGINS.get(suffix.lower())}
    named |= {package for magic, package in _MAGIC.items() if head.startswith(magic) or head[4:].startswith(magic)}
    missing = sorted(package for package in named if package and package not in plugins())
    return f"needs {missing[0]}: pip install 'yoto-codec[formats]'" if missing else None


def readers() -> list[str]:
    """The formats that are opened, as `Image.open` takes them, in Pillow's order."""
    plugins()
    Image.init()
    return [form for form in Image.ID if form in _READ]


def readable_suffixes() -> set[str]:
    """Suffixes, lower case, of the files that can be read as pictures, but for .yoto."""
    known = readers()
    return {suffix for suffix, form in Image.registered_extensions().items() if form in known}


@contextmanager
def picture_errors(name: object) -> Iterator[None]:
    """Turn whatever a reader or writer of pictures raises into an ImageError that names the picture.

    What is no picture's fault passes: CodecError, and OSError of the file system.
    """
    try:
        yield
    except CodecError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image that can be read") from error
    except Image.DecompressionBombError as error:
        raise TooLargeError(f"{name} is too large: {error}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory for this image") from error
    except Exception as error:
        # Readers seek and read where a damaged file sends them: EINVAL. Pillow's own OSErrors have no number.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(f"{name} is a damaged image: {reason}") from error


def format_to_write(suffix: str) -> str:
    """Pillow's name of the format that a file suffix stands for; ImageError if none can be written."""
    plugins()
    form = Image.registered_extensions().get(suffix.lower())
    if form not in Image.SAVE or form in _ALTERED_BY_PILLOW or form == "YOTO":
        hint = missing_plugin(suffix) or "cannot be written"
        raise ImageError(f"files with the suffix '{suffix}' {hint}; use .png")
    return str(form)


def losses(image: Image.Image, suffix: str) -> list[str]:
    """What the format of a suffix cannot hold of a picture (L, LA, RGB or RGBA), a line each; only GIF has limits."""
    if Image.registered_extensions().get(suffix.lower()) != "GIF":
        return []
    found = []
    if image.mode.startswith("RGB") and image.convert("RGB").getcolors(256) is None:
        found.append("GIF holds 256 colours, and the picture has more; .png keeps them")
    if "A" in image.getbands() and any(image.getchannel("A").histogram()[1:255]):
        found.append("GIF holds no half transparent pixels, and the picture has some; .png keeps them")
    return found


def has_pictures_suffix(path: Path | Url) -> bool:
    """Whether files of a path's suffix are pictures, be it of formats that only other programs read or write."""
    plugins()
    suffix = path.suffix.lower()
    return suffix != ".yoto" and suffix in Image.registered_extensions().keys() | _PLUGINS.keys()


@contextmanager
def pillows_limit_lifted() -> Iterator[None]:
    """Let whoever has a limit of his own open pictures of any size: Pillow's holds for the whole process."""
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = before
