"""How like its original a picture looks, by measures that take longer than PSNR."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from codec.metrics import MS_SSIM_MIN_PX, SSIMULACRA2_MIN_PX, Uint8Array, ms_ssim, ssimulacra2
from codec.picture.image import open_image

MAX_PIXELS = 2_000_000  # beyond, SSIMULACRA2 would take half a minute


class Similarity(NamedTuple):
    """MS-SSIM and SSIMULACRA2 (100: no difference to be seen; 50: medium quality), None where there is none."""

    ms_ssim: float | None
    ssimulacra2: float | None


def similarity(original_png: bytes, decoded_png: bytes) -> Similarity:
    """Measure two pictures, in RGB, without their alpha."""
    a, b = rgb(original_png), rgb(decoded_png)
    height, width = a.shape[:2]
    least_px = min(height, width) if height * width <= MAX_PIXELS else 0
    structural = ms_ssim(a, b) if least_px >= MS_SSIM_MIN_PX else None
    visible = ssimulacra2(a, b) if least_px >= SSIMULACRA2_MIN_PX else None
    return Similarity(structural, visible)


def rgb(png: bytes) -> Uint8Array:
    """The colours of a PNG file, uint8 (H, W, 3)."""
    return np.asarray(open_image(io.BytesIO(png)).convert("RGB"))
