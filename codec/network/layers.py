"""Building blocks: FiLM, residual blocks, rounding, the Gaussian rate.

Feature maps are float32 (or bfloat16 under autocast), shape (B, C, H, W). The condition is a float32
vector (B, K) in [-1, 1], one entry per loss coefficient; see `training/loss.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.config import LAPPED_SPAN, ModelConfig
from codec.network.layout import ACTIVATION_MAX


class ConditionNet(nn.Module):
    """Embed the condition once per sample; every FiLM layer reads this embedding."""

    def __init__(self, num_coefficients: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(num_coefficients, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, condition: Tensor) -> Tensor:
        """Map (B, K) in [-1, 1] to the embedding (B, width)."""
        return self.net(2.0 * condition)


class FiLM(nn.Module):
    """Feature-wise linear modulation x·(1+γ)+β (Perez et al. 2018, arXiv:1709.07871), identity at the start."""

    def __init__(self, cond_width: int, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(cond_width, 2 * channels)
        nn.init.zeros_(self.affine.weight)
        nn.init.zeros_(self.affine.bias)

    def coefficients(self, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factor 1+γ and the offset β, each (B, channels)."""
        gamma, beta = self.affine(cond).chunk(2, dim=1)
        return 1.0 + gamma, beta

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Modulate x (B, channels, h, w) by the embedded condition (B, width)."""
        factor, offset = self.coefficients(cond)
        return x * factor[:, :, None, None].to(x.dtype) + offset[:, :, None, None].to(x.dtype)


class Pointwise(nn.Linear):
    """1×1 convolution whose weight is a matrix (out, in), as Muon and the fixed-point freezing want it."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, h, w) to (B, out, h, w)."""
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


class FiLMPointwise(Pointwise):
    """1×1 convolution followed by FiLM: the one dense layer of the prior nets."""

    def __init__(self, cond_width: int, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)
        self.film = FiLM(cond_width, out_channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:  # type: ignore[override]
        """Map (B, in, h, w) and the embedded condition (B, width) to (B, out, h, w)."""
        return self.film(super().forward(x), cond)


class Depthwise(nn.Conv2d):
    """3×3 depthwise convolution with zero padding."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)


class ResidualBlock(nn.Module):
    """x + project(hidden(x)), the identity at the start; hidden units are value·gate(…), bounded."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        units = int(channels * config.expansion)
        self.gate = F.silu if config.gate == "silu" else F.relu
        self.hidden_max = config.hidden_max
        self.depthwise = Depthwise(channels)
        self.film = FiLM(config.cond_width, channels)
        self.expand = Pointwise(channels, 2 * units)
        self.project = Pointwise(units, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def hidden(self, x: Tensor, cond: Tensor) -> Tensor:
        """Hidden units (B, expansion·C, H, W) of x (B, C, H, W)."""
        value, gate = self.expand(self.film(self.depthwise(x), cond)).chunk(2, dim=1)
        hidden = value * self.gate(gate)
        return hidden.clamp(-self.hidden_max, self.hidden_max) if self.hidden_max else hidden

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map x (B, C, H, W) and the embedded condition (B, width) to (B, C, H, W)."""
        return x + self.project(self.hidden(x, cond))


class Lapped(nn.Module):
    """Linear filter across the borders of 16 px blocks, rows then columns; the 8 px at the image's edge stay.

    Before a block transform it makes a lapped transform of it, which sees no blocks; transposed, it undoes that
    behind the inverse transform. Tran, Liang & Tu 2003, doi:10.1109/TSP.2003.811222.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.eye(LAPPED_SPAN, device="cpu"))
        self.columns = nn.Parameter(torch.eye(LAPPED_SPAN, device="cpu"))

    def forward(self, x: Tensor) -> Tensor:
        """Filter (B, C, H, W), sides multiples of 16 px."""
        x = self._filter(x, self.rows).transpose(2, 3)
        return self._filter(x, self.columns).transpose(2, 3)

    def _filter(self, x: Tensor, matrix: Tensor) -> Tensor:
        half = LAPPED_SPAN // 2
        first, inner, last = x[..., :half], x[..., half:-half], x[..., -half:]
        windows = inner.reshape(*inner.shape[:-1], -1, LAPPED_SPAN) @ matrix.T
        return torch.cat([first, windows.flatten(-2), last], dim=-1)


def clipped_relu(x: Tensor) -> Tensor:
    """Clip to [0, ACTIVATION_MAX]."""
    return x.clamp(0.0, ACTIVATION_MAX)


def clipped(x: Tensor) -> Tensor:
    """Clip to [-ACTIVATION_MAX, ACTIVATION_MAX]."""
    return x.clamp(-ACTIVATION_MAX, ACTIVATION_MAX)


def round_ste(x: Tensor) -> Tensor:
    """Round to the nearest integer, with the gradient of the identity."""
    return x + (torch.round(x) - x).detach()


def gaussian_bits(residual: Tensor, scales: Tensor) -> Tensor:
    """Bits of the unit-wide bin around `residual` under a zero-mean Gaussian, elementwise.

    Ballé et al. 2018, arXiv:1802.01436. An upper bound of the real cost if `residual` carries uniform
    noise, the table's ideal code length if it is integer-valued.
    """
    r = residual.abs()
    inv = 1.0 / (scales * math.sqrt(2.0))
    mass = 0.5 * (torch.erfc((r - 0.5) * inv) - torch.erfc((r + 0.5) * inv))
    # Beyond six deviations the mass underflows; the linear term stands for the escape code and keeps a gradient.
    return -torch.log2(mass.clamp_min(1e-9)) + 0.1 * F.relu(r - 6.0 * scales - 1.0)
