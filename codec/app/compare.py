"""How far two pictures are apart: PSNR, SSIM and MS-SSIM of 8-bit pictures, the colours that are visible."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from codec.app.files import read_input
from codec.errors import ImageError
from codec.format.bitstream import MAGIC
from codec.metrics import MS_SSIM_MIN_PX, SSIM_MIN_PX, ms_ssim, psnr_db, ssim
from codec.picture.image import Planes, open_image, to_planes
from codec.picture.source import NamedBytes
from codec.picture.transparent import without_hidden_colours
from codec.picture.url import Url

if TYPE_CHECKING:
    from codec.api import Codec


class Comparison(NamedTuple):
    """Two pictures of one size, px; SSIM and MS-SSIM are None for pictures smaller than their windows.

    `alpha_equal` is None if neither has transparency.
    """

    width: int
    height: int
    size_bytes: tuple[int, int]
    psnr_db: float
    ssim: float | None
    ms_ssim: float | None
    alpha_equal: bool | None

    @property
    def fields(self) -> dict[str, object]:
        """The report of the command; an infinite PSNR is None."""
        return {
            "width": self.width,
            "height": self.height,
            "psnr_db": round(self.psnr_db, 3) if math.isfinite(self.psnr_db) else None,
            "ssim": None if self.ssim is None else round(self.ssim, 6),
            "ms_ssim": None if self.ms_ssim is None else round(self.ms_ssim, 6),
            "alpha_equal": self.alpha_equal,
            "bytes": list(self.size_bytes),
            "bpp": [round(8.0 * size / (self.width * self.height), 5) for size in self.size_bytes],
        }

    def __str__(self) -> str:
        lines = [f"size: {self.width}×{self.height} px", f"PSNR: {self.psnr_db:.2f} dB"]
        for name, value, side in (("SSIM", self.ssim, SSIM_MIN_PX), ("MS-SSIM", self.ms_ssim, MS_SSIM_MIN_PX)):
            lines.append(f"{name}: needs {side} px a side" if value is None else f"{name}: {value:.6f}")
        if self.alpha_equal is not None:
            lines.append(f"alpha: {'equal' if self.alpha_equal else 'different'}")
        for name, size in zip("AB", self.size_bytes, strict=True):
            lines.append(f"{name}: {size} bytes, {8.0 * size / (self.width * self.height):.4f} bpp")
        return "\n".join(lines)


def compare_files(first: Path | Url, second: Path | Url, load: Callable[[], Codec]) -> Comparison:
    """Compare two image files of any format; `load` is called if one is a .yoto file.

    Raises:
        ImageError: one cannot be read, or they differ in size.
        CodecError, OSError: as for decoding and reading.
    """
    files = [NamedBytes(read_input(place), str(place)) for place in (first, second)]
    sizes = len(files[0].getbuffer()), len(files[1].getbuffer())
    a, b = (_planes(file, load) for file in files)
    (height, width), other = a.colour.shape[:2], b.colour.shape[:2]
    if (height, width) != other:
        raise ImageError(f"{first} has {width}×{height} px, {second} {other[1]}×{other[0]}; sizes must be equal")
    channels = max(a.colour.shape[2], b.colour.shape[2])  # grey against colour is compared in colour
    x, y = (np.broadcast_to(planes.colour, (height, width, channels)) for planes in (a, b))
    similarity = ssim(x, y) if min(height, width) >= SSIM_MIN_PX else None
    multiscale = ms_ssim(x, y) if min(height, width) >= MS_SSIM_MIN_PX else None
    return Comparison(width, height, sizes, psnr_db(x, y), similarity, multiscale, _alpha_equal(a, b))


def _planes(file: NamedBytes, load: Callable[[], Codec]) -> Planes:
    """A picture, its colours under an alpha of 0 made such that they do not count."""
    data = file.getvalue()
    image = load().decode(data) if data.startswith(MAGIC) else open_image(file)
    return without_hidden_colours(to_planes(image))


def _alpha_equal(a: Planes, b: Planes) -> bool | None:
    """An image without alpha is opaque."""
    if a.alpha is None and b.alpha is None:
        return None
    first, second = (255 if planes.alpha is None else planes.alpha for planes in (a, b))
    return bool(np.all(np.equal(first, second)))
