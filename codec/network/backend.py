"""The floating-point half of a model as the codec uses it: NumPy arrays in and out, channels last.

Pixels are float32 (H, W, 3) in [0, 1], H and W multiples of 16. Latents y are float32 (h, w, M) in quantiser steps,
h = H / 16 and w = W / 16; hyper-latents z int32 (h / 4, w / 4, Z). The rate point is the header's integer quality.
Nothing that comes from here needs to be the same on two machines: decoders see integers only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.errors import CodecError
from codec.format.bitstream import QUALITY_MAX
from codec.network.config import LATENT_STRIDE
from codec.network.integer import LATENT_BITS
from codec.network.transforms import Transforms, condition_lmbda

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


class Look(NamedTuple):
    """What the picture of some symbols costs.

    error_bits: λ·255² times the squared error, mean over the channels, summed over the pixels of each latent, (h, w).
    gradient: derivative of its sum by y_hat, (h, w, M), or None if it was not asked for.
    """

    error_bits: FloatArray
    gradient: FloatArray | None


class Backend(Protocol):
    """What runs the transforms of one model."""

    name: str

    def analyse(self, pixels: FloatArray, rate_point: int) -> FloatArray:
        """Latents y of pixels."""
        ...

    def hyper_analyse(self, y: FloatArray, rate_point: int) -> FloatArray:
        """Hyper-latents z of y, not yet rounded; h and w multiples of 4."""
        ...

    def look(self, pixels: FloatArray, y_hat: FloatArray, rate_point: int, *, gradient: bool) -> Look:
        """Compare the picture of y_hat with pixels (H', W', 3 or 1), H' ≤ H, W' ≤ W: what lies beyond does not count.

        With one channel of pixels, the mean of the picture's channels is compared.
        """
        ...

    def synthesise(self, y_hat: FloatArray, rate_point: int) -> FloatArray:
        """Pixels of latents, about [0, 1], not clipped."""
        ...


class TorchBackend:
    """Runs the transforms with torch, on a CPU or an accelerator; see `Backend`."""

    name = "torch"

    def __init__(self, transforms: Transforms, device: str) -> None:
        """CodecError if the device cannot be used."""
        try:
            self.device = torch.device(device)
            self.transforms = transforms.to(self.device)
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise CodecError(f"the device {device} cannot be used: {str(error).splitlines()[0]}") from error

    def analyse(self, pixels: FloatArray, rate_point: int) -> FloatArray:
        with self._own_settings():
            return to_array(self.transforms.analyse(self._planes(pixels), self._condition(rate_point)))

    def hyper_analyse(self, y: FloatArray, rate_point: int) -> FloatArray:
        with self._own_settings():
            return to_array(self.transforms.hyper_analyse(self._planes(y), self._condition(rate_point)))

    def look(self, pixels: FloatArray, y_hat: FloatArray, rate_point: int, *, gradient: bool) -> Look:
        x, latents, condition = self._planes(pixels), self._planes(y_hat), self._condition(rate_point)
        with self._own_settings(), torch.set_grad_enabled(gradient):
            latents.requires_grad_(gradient)
            x_hat = self.transforms.synthesise(latents, condition)[:, :, : x.shape[2], : x.shape[3]]
            if x.shape[1] == 1:
                x_hat = x_hat.mean(dim=1, keepdim=True)
            squared = (x_hat - x).square().mean(dim=1, keepdim=True) * (255.0**2 * condition_lmbda(condition).item())
            missing = (0, 16 * y_hat.shape[1] - x.shape[3], 0, 16 * y_hat.shape[0] - x.shape[2])
            cells = F.avg_pool2d(F.pad(squared.detach(), missing), LATENT_STRIDE) * LATENT_STRIDE**2
            slope = torch.autograd.grad(squared.sum(), latents)[0] if gradient else None
        return Look(to_array(cells)[:, :, 0], None if slope is None else to_array(slope))

    def synthesise(self, y_hat: FloatArray, rate_point: int) -> FloatArray:
        with self._own_settings():
            return to_array(self.transforms.synthesise(self._planes(y_hat), self._condition(rate_point)))

    @contextmanager
    def _own_settings(self) -> Iterator[None]:
        """Whatever mode the host has put torch into."""
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            yield

    def _condition(self, rate_point: int) -> Tensor:
        return torch.full((1, 1), 2.0 * rate_point / QUALITY_MAX - 1.0, dtype=torch.float32, device=self.device)

    def _planes(self, rows: FloatArray) -> Tensor:
        """(H, W, C) → (1, C, H, W), whose memory is channels last."""
        with torch.inference_mode(False):
            return torch.from_numpy(np.require(rows, requirements="W")).to(self.device).permute(2, 0, 1)[None]


def to_array(planes: Tensor) -> FloatArray:
    """(1, C, H, W) → (H, W, C)."""
    rows: FloatArray = planes[0].permute(1, 2, 0).contiguous().cpu().numpy()
    return rows


def from_steps(y_hat: npt.NDArray[np.integer]) -> FloatArray:
    """Latents in the integer steps of the entropy model as `Backend` takes them."""
    return y_hat.astype(np.float32) * np.float32(2.0**-LATENT_BITS)
