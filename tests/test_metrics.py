"""Distances between pictures, held against scikit-image and pytorch-msssim."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import picture
from pytorch_msssim import ms_ssim as reference_ms_ssim
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from codec.metrics import C1, MS_SSIM_MIN_PX, ms_ssim, ms_ssim_db, psnr_db, ssim


def noisy(a: np.ndarray, deviation: float) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0.0, deviation, a.shape)
    return np.clip(a + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(176, 192), (161, 213)])
@pytest.mark.parametrize("deviation", [2.0, 40.0])
def test_metrics_are_those_of_others(size, deviation):
    a = picture(*size)
    b = noisy(a, deviation)
    assert psnr_db(a, b) == pytest.approx(peak_signal_noise_ratio(a, b))
    expected = structural_similarity(
        a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b) == pytest.approx(expected, abs=1e-9)
    planes = [torch.tensor(x).permute(2, 0, 1)[None].double() for x in (a, b)]
    assert ms_ssim(a, b) == pytest.approx(float(reference_ms_ssim(*planes, data_range=255.0)), abs=5e-6)


def test_grey_pictures_have_one_channel():
    a = picture(176, 192)[:, :, :1]
    b = noisy(a, 5.0)
    assert ssim(a, b) == pytest.approx(ssim(np.repeat(a, 3, axis=2), np.repeat(b, 3, axis=2)))


def test_equal_pictures_and_negatives_are_the_ends_of_the_scale():
    a = picture(176, 192)
    assert (psnr_db(a, a), ms_ssim(a, a), ms_ssim_db(1.0)) == (math.inf, 1.0, math.inf)
    assert ssim(a, a) == pytest.approx(1.0)
    assert ms_ssim(a, 255 - a) == 0.0


def test_flat_pictures_differ_in_luminance_alone():
    a, b = np.full((192, 176, 3), 100, np.uint8), np.full((192, 176, 3), 120, np.uint8)
    luminance = (2.0 * 100.0 * 120.0 + C1) / (100.0**2 + 120.0**2 + C1)
    assert psnr_db(a, b) == pytest.approx(20.0 * math.log10(255.0 / 20.0))
    assert ssim(a, b) == pytest.approx(luminance, abs=1e-6)
    assert ms_ssim(a, b) == pytest.approx(luminance**0.1333, abs=1e-5)  # at the coarsest scale alone


def test_pictures_smaller_than_the_windows_are_refused():
    with pytest.raises(ValueError, match="160×200 px; MS-SSIM needs 161"):
        ms_ssim(picture(200, 160), picture(200, 160))
    with pytest.raises(ValueError, match="10×20 px; SSIM needs 11"):
        ssim(picture(20, 10), picture(20, 10))
    assert MS_SSIM_MIN_PX == 161
