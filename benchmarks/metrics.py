"""Distortion of 8-bit pictures, uint8 (H, W, 3) against uint8 (H, W, 3)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from codec.picture.image import Uint8Array, psnr_db

__all__ = ["MS_SSIM_MIN_PX", "MsSsim", "ms_ssim", "ms_ssim_db", "psnr_db", "ssim"]

MS_SSIM_MIN_PX = 161  # five scales with a window of 11 px
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # from fine to coarse, Wang, Simoncelli & Bovik 2003
C1, C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5

Planes = npt.NDArray[np.float64]


class MsSsim(NamedTuple):
    """MS-SSIM and -10·log10(1 - MS-SSIM), which is infinite for equal pictures."""

    value: float
    db: float


def ms_ssim(a: Uint8Array, b: Uint8Array) -> MsSsim:
    """Multi-scale SSIM on RGB, mean over the channels (Wang, Simoncelli & Bovik 2003).

    That of pytorch_msssim, which most papers use, in a third of the time, and it takes most of a benchmark's. The two
    differ by a few 1e-6: the other's window is float32 and does not add up to one.

    Raises:
        ValueError: a side is shorter than MS_SSIM_MIN_PX.
    """
    if min(a.shape[:2]) < MS_SSIM_MIN_PX:
        raise ValueError(f"the picture is {a.shape[1]}×{a.shape[0]} px; MS-SSIM needs {MS_SSIM_MIN_PX} px a side")
    # In double: the variances cancel most digits of float32 in flat areas.
    x, y = (picture.transpose(2, 0, 1).astype(np.float64, order="C") for picture in (a, b))
    product: Planes = np.ones(3)
    for scale, weight in enumerate(SCALE_WEIGHTS):
        if scale:
            x, y = halve(x), halve(y)
        luminance, contrast = similarity(x, y)
        if scale == len(SCALE_WEIGHTS) - 1:
            contrast *= luminance
        product *= np.maximum(contrast.mean(axis=(1, 2)), 0.0) ** weight
    value = float(product.mean())
    return MsSsim(value, ms_ssim_db(value))


def similarity(x: Planes, y: Planes) -> tuple[Planes, Planes]:
    """The luminance term of SSIM, and the product of the two others, at each pixel; arrays (3, H - 10, W - 10)."""
    mean_x, mean_y, xx, yy, xy = (blur(plane) for plane in (x, y, x * x, y * y, x * y))
    products = mean_x * mean_y
    squares = mean_x * mean_x + mean_y * mean_y
    return (2.0 * products + C1) / (squares + C1), (2.0 * (xy - products) + C2) / (xx + yy - squares + C2)


def blur(planes: Planes) -> Planes:
    """Gaussian window of SSIM, where it lies inside the picture."""
    radius = WINDOW_PX // 2
    window = np.exp(-0.5 * (np.arange(-radius, radius + 1) / WINDOW_SIGMA_PX) ** 2)
    window /= window.sum()
    rows = correlate1d(planes, window, axis=2)[:, :, radius:-radius]
    return correlate1d(rows, window, axis=1)[:, radius:-radius]


def halve(planes: Planes) -> Planes:
    """Mean of 2×2 px; at an odd side the edge counts with zeros beyond it, as in pytorch_msssim."""
    _, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (height % 2, height % 2), (width % 2, width % 2)))
    even = padded[:, : padded.shape[1] // 2 * 2, : padded.shape[2] // 2 * 2]
    return (even[:, ::2, ::2] + even[:, 1::2, ::2] + even[:, ::2, 1::2] + even[:, 1::2, 1::2]) / 4.0


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
