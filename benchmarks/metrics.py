"""Distortion of 8-bit pictures, uint8 (H, W, 3) against uint8 (H, W, 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from pytorch_msssim import ms_ssim as _ms_ssim
from skimage.metrics import structural_similarity

from codec.image import Uint8Array, psnr_db

__all__ = ["MS_SSIM_MIN_PX", "MsSsim", "ms_ssim", "ms_ssim_db", "psnr_db", "ssim"]

MS_SSIM_MIN_PX = 161  # five scales with a window of 11 px


class MsSsim(NamedTuple):
    """MS-SSIM and -10·log10(1 - MS-SSIM), which is infinite for equal pictures."""

    value: float
    db: float


def ms_ssim(a: Uint8Array, b: Uint8Array) -> MsSsim:
    """Multi-scale SSIM on RGB, mean over the channels (Wang, Simoncelli & Bovik 2003).

    Raises:
        ValueError: a side is shorter than MS_SSIM_MIN_PX.
    """
    if min(a.shape[:2]) < MS_SSIM_MIN_PX:
        raise ValueError(f"the picture is {a.shape[1]}×{a.shape[0]} px; MS-SSIM needs {MS_SSIM_MIN_PX} px a side")
    with torch.inference_mode():
        # In double: the variances cancel most digits of float32 in flat areas.
        x, y = (torch.tensor(picture).permute(2, 0, 1)[None].double() for picture in (a, b))
        value = float(_ms_ssim(x, y, data_range=255.0))
    return MsSsim(value, ms_ssim_db(value))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM as -10·log10(1 - value), infinite for 1."""
    return math.inf if value >= 1.0 else -10.0 * math.log10(1.0 - value)


def ssim(a: Uint8Array, b: Uint8Array) -> float:
    """SSIM on RGB, mean over the channels, with the Gaussian window of Wang et al. 2004."""
    return float(
        structural_similarity(
            a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )
