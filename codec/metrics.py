"""How far two 8-bit pictures are apart: PSNR, SSIM and MS-SSIM, uint8 (H, W, C) against uint8 (H, W, C).

In double precision, since the variances of flat areas cancel most digits of float32. Tests hold them against
scikit-image and pytorch-msssim. SSIMULACRA2 comes from the package of that name.
"""

from __future__ import annotations

import io
import math

import numpy as np
import numpy.typing as npt

Uint8Array = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float64]

# Window and constants: Wang, Bovik, Sheikh & Simoncelli 2004. Weights, fine to coarse: Wang, Simoncelli & Bovik 2003.
WINDOW_PX, WINDOW_SIGMA_PX = 11, 1.5
C1, C2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SSIM_MIN_PX = WINDOW_PX
MS_SSIM_MIN_PX = (WINDOW_PX - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
SSIMULACRA2_MIN_PX = 8

RADIUS = WINDOW_PX // 2
WINDOW = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / WINDOW_SIGMA_PX) ** 2)
WINDOW /= WINDOW.sum()


def psnr_db(a: Uint8Array, b: Uint8Array) -> float:
    """Peak signal-to-noise ratio of two arrays of one shape; infinite if they are equal."""
    squared = 0.0
    for rows_a, rows_b in zip(
        np.array_split(a, max(1, len(a) // 256)), np.array_split(b, max(1, len(b) // 256)), strict=True
    ):
        squared += float(np.square(rows_a.astype(np.float64) - rows_b).sum())
    return math.inf if squared == 0.0 else 10.0 * math.log10(255.0**2 * a.size / squared)


def ssim(a: Uint8Array, b: Uint8Array) -> float:
    """Structural similarity, mean over the channels (Wang et al. 2004, Gaussian window).

    Raises:
        ValueError: a side is shorter than SSIM_MIN_PX.
    """
    _check_sides(a, SSIM_MIN_PX, "SSIM")
    return float(np.mean([_similarity(x, y)[0] for x, y in _channels(a, b)]))


def ms_ssim(a: Uint8Array, b: Uint8Array) -> float:
    """Multi-scale SSIM, mean over the channels (Wang, Simoncelli & Bovik 2003).

    That of pytorch_msssim, which most papers use, but for a few 1e-6: the other's window is float32 and does not add
    up to one.

    Raises:
        ValueError: a side is shorter than MS_SSIM_MIN_PX.
    """
    _check_sides(a, MS_SSIM_MIN_PX, "MS-SSIM")
    values = []
    for x, y in _channels(a, b):
        value = 1.0
        for scale, weight in enumerate(SCALE_WEIGHTS):
            if scale:
                x, y = _halve(x), _halve(y)
            similarity, contrast = _similarity(x, y)
            term = similarity if scale == len(SCALE_WEIGHTS) - 1 else contrast
            value *= max(term, 0.0) ** weight  # a negative one has no power
        values.append(value)
    return float(np.mean(values))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM as -10·log10(1 - value), infinite for 1."""
    return math.inf if value >= 1.0 else -10.0 * math.log10(1.0 - value)


def ssimulacra2(a: Uint8Array, b: Uint8Array) -> float:
    """SSIMULACRA2 of uint8 (H, W, 3): 90 looks like the original, 70 high quality, 50 medium, 30 low; may be negative.

    Not symmetric: `a` is the original. Needs the package ssimulacra2, of the extras `bench` and `demo`.

    Raises:
        ModuleNotFoundError: it is not installed.
        ValueError: a side is shorter than SSIMULACRA2_MIN_PX.
    """
    from ssimulacra2 import compute_ssimulacra2

    _check_sides(a, SSIMULACRA2_MIN_PX, "SSIMULACRA2")
    files = [io.BytesIO(b"P6 %d %d 255\n" % (x.shape[1], x.shape[0]) + x.tobytes()) for x in (a, b)]
    return float(compute_ssimulacra2(*files))


def _check_sides(picture: Uint8Array, least_px: int, metric: str) -> None:
    height, width = picture.shape[:2]
    if min(height, width) < least_px:
        raise ValueError(f"the picture is {width}×{height} px; {metric} needs {least_px} px a side")


def _channels(a: Uint8Array, b: Uint8Array) -> list[tuple[Plane, Plane]]:
    return [(a[:, :, c].astype(np.float64), b[:, :, c].astype(np.float64)) for c in range(a.shape[2])]


def _similarity(x: Plane, y: Plane) -> tuple[float, float]:
    """SSIM and its contrast-structure factor, means over the places where the window fits."""
    mean_x, mean_y = _blur(x), _blur(y)
    products, squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    variances, covariance = _blur(x * x + y * y) - squares, _blur(x * y) - products
    contrast = (2.0 * covariance + C2) / (variances + C2)
    luminance = (2.0 * products + C1) / (squares + C1)
    return float((luminance * contrast).mean()), float(contrast.mean())


def _blur(plane: Plane) -> Plane:
    """The Gaussian window where it lies inside, (H, W) → (H - 10, W - 10)."""
    return _blur_rows(_blur_rows(plane).T).T


def _blur_rows(plane: Plane) -> Plane:
    """Along the first axis; the window is symmetric, so that rows at equal distance share a product."""
    height = plane.shape[0] - 2 * RADIUS
    blurred = WINDOW[RADIUS] * plane[RADIUS : RADIUS + height]
    pair = np.empty_like(blurred)
    for distance in range(1, RADIUS + 1):
        above, below = (plane[RADIUS + step : RADIUS + step + height] for step in (-distance, distance))
        np.add(above, below, out=pair)
        pair *= WINDOW[RADIUS + distance]
        blurred += pair
    return blurred


def _halve(plane: Plane) -> Plane:
    """Mean of 2×2 px; at an odd side the edge counts with zeros beyond it, as in pytorch_msssim."""
    height, width = plane.shape
    padded = np.pad(plane, ((height % 2, height % 2), (width % 2, width % 2)))
    even = padded[: padded.shape[0] // 2 * 2, : padded.shape[1] // 2 * 2]
    return (even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]) / 4.0
