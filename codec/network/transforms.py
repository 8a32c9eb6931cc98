"""The floating-point half: everything between pixels and latents, g_a, g_s, h_a and the gains."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.config import PIXELS, ModelConfig
from codec.network.layers import ConditionNet, Depthwise, FiLMPointwise, Lapped, Pointwise, ResidualBlock


def full_precision(x: Tensor) -> torch.autocast:
    """Keep pixels, latents and the residual stream out of bfloat16: its 8 bits would show at high rates."""
    return torch.autocast(x.device.type, enabled=False)


def residual_blocks(count: int, config: ModelConfig, channels: int) -> nn.ModuleList:
    """`count` blocks of so many channels."""
    return nn.ModuleList(ResidualBlock(config, channels) for _ in range(count))


class Analysis(nn.Module):
    """g_a: x (B, 3, H, W) → y (B, M, H/16, W/16), before the gain.

    x ─ lapped ─ 4×4 cells + free channels ─ blocks at 1/4 ─ head ─ blocks at 1/8 ─ tail ─ y
    Without its blocks it is a lapped 16×16 DCT of which the M strongest bands are kept.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        fine = PIXELS + config.extra
        self.lapped = Lapped()
        self.blocks = residual_blocks(config.analysis_blocks, config, fine)
        self.head = Pointwise(4 * fine, config.N)
        self.coarse = residual_blocks(config.analysis_coarse, config, config.N)
        self.tail = Pointwise(4 * config.N, config.M)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """Map x (B, 3, H, W), sides multiples of 16, and the embedded condition (B, width) to y (B, M, H/16, W/16)."""
        scale = self.config.fine_scale
        with full_precision(x):
            h = F.pixel_unshuffle(self.lapped(x - 0.5), 4) * scale
            h = F.pad(h, (0, 0, 0, 0, 0, self.config.extra)).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = block(h, cond)
        with full_precision(x):
            h = self.head(F.pixel_unshuffle(h, 2) / scale)
        for block in self.coarse:
            h = block(h, cond)
        with full_precision(x):
            return self.tail(F.pixel_unshuffle(h, 2))


class Synthesis(nn.Module):
    """g_s: y_hat (B, M, H/16, W/16), divided by the gain → x_hat (B, 3, H, W), about [0, 1]. g_a backwards."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        fine = PIXELS + config.extra
        self.head = Pointwise(config.M, 4 * config.N)
        self.coarse = residual_blocks(config.synthesis_coarse, config, config.N)
        self.tail = Pointwise(config.N, 4 * fine)
        self.blocks = residual_blocks(config.synthesis_blocks, config, fine)
        self.lapped = Lapped()

    def forward(self, y_hat: Tensor, cond: Tensor) -> Tensor:
        """Map y_hat (B, M, h, w) and the embedded condition (B, width) to x_hat (B, 3, 16h, 16w), not clipped."""
        scale = self.config.fine_scale
        with full_precision(y_hat):
            h = F.pixel_shuffle(self.head(y_hat), 2).contiguous(memory_format=torch.channels_last)
        for block in self.coarse:
            h = block(h, cond)
        with full_precision(y_hat):
            h = F.pixel_shuffle(self.tail(h), 2).contiguous(memory_format=torch.channels_last) * scale
        for block in self.blocks:
            h = block(h, cond)
        with full_precision(y_hat):
            return self.lapped(F.pixel_shuffle(h[:, :PIXELS] / scale, 4)) + 0.5


class HyperAnalysis(nn.Module):
    """h_a: context features of y (B, 2M, h, w) → z (B, Z, h/4, w/4)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, width = config.D, config.cond_width
        self.head = FiLMPointwise(width, 2 * config.M, d)
        self.down1 = Pointwise(4 * d, d)
        self.spatial = Depthwise(d)
        self.down2 = Pointwise(4 * d, d)
        self.tail = FiLMPointwise(width, d, config.Z)

    def forward(self, features: Tensor, cond: Tensor) -> Tensor:
        """Map features (B, 2M, h, w) and the embedded condition (B, width) to z (B, Z, h/4, w/4), not rounded."""
        h = F.relu(self.head(features, cond))
        h = F.relu(self.down1(F.pixel_unshuffle(h, 2)))
        h = F.relu(self.down2(F.pixel_unshuffle(self.spatial(h), 2)))
        return self.tail(h, cond)


class Transforms(nn.Module):
    """The floating-point half: everything between pixels and latents, g_a, g_s, h_a and the gains."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.condition_net = ConditionNet(config.num_coefficients, config.cond_width)
        self.g_a = Analysis(config)
        self.g_s = Synthesis(config)
        self.h_a = HyperAnalysis(config)
        self.encoder_gain = nn.Linear(config.cond_width, config.M)
        self.decoder_gain = nn.Linear(config.cond_width, config.M)
        for layer in (self.encoder_gain, self.decoder_gain):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        # Deviation of each channel of y before the gain, measured once when training starts.
        self.channel_std: Tensor
        self.register_buffer("channel_std", torch.ones(config.M))

    def lmbda(self, condition: Tensor) -> Tensor:
        """λ of conditions (B, K), whose first entry is 2·quality - 1, as (B, 1)."""
        low, high = self.config.lmbda_min, self.config.lmbda_max
        return low * torch.exp((condition[:, :1] + 1.0) / 2.0 * math.log(high / low))

    def latent_gain(self, condition: Tensor) -> Tensor:
        """Inverse of the uniform step that is optimal at high rate, (B, K) → (B, 1, 1, 1).

        D = Δ²/12 and dR/dD = -3/(2·ln 2·D) for three channels give Δ = sqrt(12·D), D = 3/(2·ln 2·λ·255²) in the
        sum over a pixel's channels.
        """
        distortion = 3.0 / (2.0 * math.log(2.0) * self.lmbda(condition) * 255.0**2)
        return torch.rsqrt(12.0 * distortion)[:, :, None, None]

    def normaliser(self, condition: Tensor) -> Tensor:
        """Expected deviation of each channel of y at this condition, (B, M, 1, 1)."""
        return self.latent_gain(condition) * self.channel_std[None, :, None, None]

    def analyse(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, 3, H, W) in [0, 1], sides multiples of 16, to y in quantiser steps, (B, M, H/16, W/16)."""
        cond = self.condition_net(condition)
        gain = self.latent_gain(condition) * torch.exp(self.encoder_gain(cond))[:, :, None, None]
        return self.g_a(x, cond) * gain

    def hyper_analyse(self, y: Tensor, condition: Tensor) -> Tensor:
        """Map y (B, M, h, w), h and w multiples of 4, to z, not yet rounded, (B, Z, h/4, w/4)."""
        features = context_features(self.config, y, self.normaliser(condition))
        return self.h_a(features, self.condition_net(condition)).float()

    def synthesise(self, y_hat: Tensor, condition: Tensor) -> Tensor:
        """Map y_hat (B, M, h, w) to x_hat (B, 3, 16h, 16w), about [0, 1], not clipped."""
        cond = self.condition_net(condition)
        gain = torch.exp(self.decoder_gain(cond))[:, :, None, None] / self.latent_gain(condition)
        return self.g_s(y_hat * gain, cond)


def context_features(config: ModelConfig, y: Tensor, norm: Tensor, dim: int = 1) -> Tensor:
    """Inputs of h_a and the context, twice as many channels: y in units of its deviation, and log2(1 + |y|)."""
    magnitude = torch.log2(1.0 + y.abs()).clamp_max(config.magnitude_max)
    return torch.cat([(y / norm).clamp(-config.feature_max, config.feature_max), magnitude], dim=dim)
