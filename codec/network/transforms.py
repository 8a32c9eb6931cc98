"""The floating-point half: everything between pixels and latents, g_a, g_s, h_a and the gains."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.config import FEATURE_MAX, LMBDA_MAX, LMBDA_MIN, MAGNITUDE_MAX, ModelConfig
from codec.network.layers import ConditionNet, Depthwise, FiLMPointwise, Lapped, Pointwise, ResidualBlock


def quality_to_lmbda(quality: Tensor | float) -> Tensor:
    """λ of a quality in [0, 1], log-uniform between LMBDA_MIN and LMBDA_MAX."""
    quality = torch.as_tensor(quality, dtype=torch.float32)
    return LMBDA_MIN * torch.exp(quality * math.log(LMBDA_MAX / LMBDA_MIN))


def condition_lmbda(condition: Tensor) -> Tensor:
    """λ of conditions (B, K), whose first entry is 2·quality - 1, as (B, 1)."""
    return quality_to_lmbda((condition[:, :1] + 1.0) / 2.0)


def latent_gain(condition: Tensor) -> Tensor:
    """Inverse of the uniform step that is optimal at high rate, (B, K) → (B, 1, 1, 1).

    D = Δ²/12 and dR/dD = -3/(2·ln 2·D) for three channels give Δ = sqrt(12·D), D = 3/(2·ln 2·λ·255²) in the
    sum over a pixel's channels.
    """
    distortion = 3.0 / (2.0 * math.log(2.0) * condition_lmbda(condition) * 255.0**2)
    return torch.rsqrt(12.0 * distortion)[:, :, None, None]


def full_precision(x: Tensor) -> torch.autocast:
    """Keep pixels, latents and the residual stream out of bfloat16: its 8 bits would show at high rates."""
    return torch.autocast(x.device.type, enabled=False)


def latent_blocks(config: ModelConfig) -> nn.ModuleList:
    """Blocks that work on latents in units of their deviation, which differs a hundredfold between channels."""
    return nn.ModuleList(
        ResidualBlock(config.cond_width, config.M, config.expansion) for _ in range(config.latent_blocks)
    )


class Analysis(nn.Module):
    """g_a: x (B, 3, H, W) → y (B, M, H/16, W/16), before the gain; `std` (M, 1, 1) is y's deviation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n, width = config.N, config.cond_width
        self.lapped = Lapped()
        self.head = Pointwise(192, n)
        self.blocks = nn.ModuleList(ResidualBlock(width, n, config.expansion) for _ in range(config.analysis_blocks))
        self.tail = Pointwise(4 * n, config.M)
        self.latent_blocks = latent_blocks(config)

    def forward(self, x: Tensor, std: Tensor, cond: Tensor) -> Tensor:
        with full_precision(x):
            h = self.head(F.pixel_unshuffle(self.lapped(x - 0.5), 8))
        for block in self.blocks:
            h = block(h, cond)
        with full_precision(x):
            y = self.tail(F.pixel_unshuffle(h, 2)) / std
        for block in self.latent_blocks:
            y = block(y, cond)
        return y * std


class Synthesis(nn.Module):
    """g_s: y_hat (B, M, H/16, W/16), divided by the gain → x_hat (B, 3, H, W), about [0, 1]; `std` as in g_a."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        n, width = config.N, config.cond_width
        self.latent_blocks = latent_blocks(config)
        self.head = Pointwise(config.M, 4 * n)
        self.blocks = nn.ModuleList(ResidualBlock(width, n, config.expansion) for _ in range(config.synthesis_blocks))
        self.tail = Pointwise(n, 192)
        self.lapped = Lapped()

    def forward(self, y_hat: Tensor, std: Tensor, cond: Tensor) -> Tensor:
        y_hat = y_hat / std
        for block in self.latent_blocks:
            y_hat = block(y_hat, cond)
        with full_precision(y_hat):
            h = F.pixel_shuffle(self.head(y_hat * std), 2)
        for block in self.blocks:
            h = block(h, cond)
        with full_precision(y_hat):
            return self.lapped(F.pixel_shuffle(self.tail(h), 8)) + 0.5


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

    def normaliser(self, condition: Tensor) -> Tensor:
        """Expected deviation of each channel of y at this condition, (B, M, 1, 1)."""
        return latent_gain(condition) * self.channel_std[None, :, None, None]

    def analyse(self, x: Tensor, condition: Tensor) -> Tensor:
        """Map x (B, 3, H, W) in [0, 1], sides multiples of 16, to y in quantiser steps, (B, M, H/16, W/16)."""
        cond = self.condition_net(condition)
        gain = latent_gain(condition) * torch.exp(self.encoder_gain(cond))[:, :, None, None]
        return self.g_a(x, self.channel_std[:, None, None], cond) * gain

    def hyper_analyse(self, y: Tensor, condition: Tensor) -> Tensor:
        """Map y (B, M, h, w), h and w multiples of 4, to z, not yet rounded, (B, Z, h/4, w/4)."""
        features = context_features(y, self.normaliser(condition))
        return self.h_a(features, self.condition_net(condition)).float()

    def synthesise(self, y_hat: Tensor, condition: Tensor) -> Tensor:
        """Map y_hat (B, M, h, w) to x_hat (B, 3, 16h, 16w), about [0, 1], not clipped."""
        cond = self.condition_net(condition)
        gain = torch.exp(self.decoder_gain(cond))[:, :, None, None] / latent_gain(condition)
        return self.g_s(y_hat * gain, self.channel_std[:, None, None], cond)


def context_features(y: Tensor, norm: Tensor, dim: int = 1) -> Tensor:
    """Inputs of h_a and the context, twice as many channels: y in units of its deviation, and log2(1 + |y|)."""
    magnitude = torch.log2(1.0 + y.abs()).clamp_max(MAGNITUDE_MAX)
    return torch.cat([(y / norm).clamp(-FEATURE_MAX, FEATURE_MAX), magnitude], dim=dim)
