"""The transforms in torch, on a CPU or an accelerator."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.errors import CodecError
from codec.format.bitstream import QUALITY_MAX
from codec.network.backend import FloatArray, Look
from codec.network.config import LATENT_STRIDE, ModelConfig
from codec.network.transforms import Transforms


class FullPrecision:
    """Products and convolutions of a CPU in float32, where the host allows bfloat16 (CPUs with AMX then use it).

    The setting is the process's: the first thread in sets it, the last one out puts the host's back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: list[str] = []

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = [kind.fp32_precision for kind in self._kinds()]
                for kind in self._kinds():
                    kind.fp32_precision = "ieee"
            self._users += 1

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                for kind, precision in zip(self._kinds(), self._before, strict=True):
                    kind.fp32_precision = precision

    @staticmethod
    def _kinds() -> tuple[Any, ...]:
        mkldnn: Any = torch.backends.mkldnn
        return mkldnn.matmul, mkldnn.conv


_full_precision = FullPrecision()


class TorchBackend:
    """Runs the transforms with torch, on a CPU or an accelerator; see `Backend`."""

    name = "torch"

    def __init__(self, config: ModelConfig, floats: Mapping[str, FloatArray], device: str) -> None:
        """CodecError if the device cannot be used, ValueError if the tensors are not those of `config`."""
        transforms = build(config, floats)
        try:
            self.transforms = transforms.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device that is not there
            raise CodecError(f"the device {device} cannot be used: {str(error).splitlines()[0]}") from error

    @property
    def device(self) -> torch.device:
        """Where the transforms are."""
        return self.transforms.channel_std.device

    def analyse(self, pixels: FloatArray, rate_point: int) -> FloatArray:
        """Latents y of pixels; see `Backend`."""
        with self._own_settings():
            return to_array(self.transforms.analyse(self._planes(pixels), self._condition(rate_point)))

    def hyper_analyse(self, y: FloatArray, rate_point: int) -> FloatArray:
        """Hyper-latents z of y, not yet rounded; see `Backend`."""
        with self._own_settings():
            return to_array(self.transforms.hyper_analyse(self._planes(y), self._condition(rate_point)))

    def look(self, pixels: FloatArray, y_hat: FloatArray, rate_point: int, *, gradient: bool) -> Look:
        """Compare the picture of y_hat with pixels; see `Backend`."""
        x, latents, condition = self._planes(pixels), self._planes(y_hat), self._condition(rate_point)
        with self._own_settings(), torch.set_grad_enabled(gradient):
            latents.requires_grad_(gradient)
            x_hat = self.transforms.synthesise(latents, condition)[:, :, : x.shape[2], : x.shape[3]]
            if x.shape[1] == 1:
                x_hat = x_hat.mean(dim=1, keepdim=True)
            squared = (x_hat - x).square().mean(dim=1, keepdim=True) * (
                255.0**2 * self.transforms.lmbda(condition).item()
            )
            missing = (0, 16 * y_hat.shape[1] - x.shape[3], 0, 16 * y_hat.shape[0] - x.shape[2])
            cells = F.avg_pool2d(F.pad(squared.detach(), missing), LATENT_STRIDE) * LATENT_STRIDE**2
            slope = torch.autograd.grad(squared.sum(), latents)[0] if gradient else None
        return Look(to_array(cells)[:, :, 0], None if slope is None else to_array(slope))

    def synthesise(self, y_hat: FloatArray, rate_point: int) -> FloatArray:
        """Pixels of latents; see `Backend`."""
        with self._own_settings():
            return to_array(self.transforms.synthesise(self._planes(y_hat), self._condition(rate_point)))

    @contextmanager
    def _own_settings(self) -> Iterator[None]:
        """Whatever mode the host has put torch into, and whatever its default device is."""
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(self.device.type, enabled=False),
            self.device,
            _full_precision,
        ):
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


def build(config: ModelConfig, floats: Mapping[str, FloatArray]) -> Transforms:
    """The transforms in evaluation mode, float32; ValueError if the tensors are not those of `config`.

    They share the arrays' memory, and are usable in any mode of torch, whatever mode they are built in.
    """
    with torch.inference_mode(False):
        with torch.device("meta"):  # no random initialisation that is overwritten at once
            transforms = Transforms(config)
        tensors = {name: torch.from_numpy(np.require(array, requirements="W")) for name, array in floats.items()}
        try:
            transforms.load_state_dict(tensors, assign=True)
        except RuntimeError as error:  # names that are missing or unknown, or shapes
            raise ValueError(str(error)) from error
        transforms.eval().requires_grad_(False)
        return transforms.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
