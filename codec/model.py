"""The network: FiLM-conditioned analysis and synthesis, mean-scale hyperprior, four context passes.

Loss-conditional training: Dosovitskiy & Djolonga, "You Only Train Once", ICLR 2020.
Hyperprior: Minnen, Ballé & Toderici 2018, arXiv:1809.02736. Context passes over spatial phases and channel
groups: Li, Li & Lu 2023 (DCVC-DC), arXiv:2302.14402.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers import (
    ConditionNet,
    Depthwise,
    FiLMPointwise,
    Lapped,
    Pointwise,
    ResidualBlock,
    clipped,
    clipped_relu,
    gaussian_bits,
    round_ste,
)

LATENT_STRIDE = 16  # pixels per latent y
HYPER_STRIDE = 64  # pixels per hyper-latent z
# Context of the transforms around a tile, so that tiles leave no seam; weights that reach further are refused.
MARGIN_PX = 64
PASSES = 4

SCALES_MIN = 0.11  # CompressAI and TensorFlow Compression: below it the zero bin holds all the mass
SCALES_MAX = 256.0
SCALES_LEVELS = 64
SCALES_STEP = math.log(SCALES_MAX / SCALES_MIN) / (SCALES_LEVELS - 1)

# CompressAI's convention: L = bpp + lmbda · 255² · MSE, pixels in [0, 1].
LMBDA_MIN = 0.0008
LMBDA_MAX = 0.2

Z_INDEX_START = 24.0  # deviation 2.1: z's prior before training
FEATURE_MAX = 4.0  # bounds of the context features, see `context_features`
MAGNITUDE_MAX = 15.0


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Attributes:
        N: channels of the transforms at 1/8 resolution, at most 192.
        M: channels of the latent y at 1/16, a multiple of 4.
        Z: channels of the hyper-latent z at 1/64.
        D: channels of the prior nets.
        analysis_blocks: residual blocks of g_a.
        synthesis_blocks: residual blocks of g_s.
        latent_blocks: residual blocks at 1/16 resolution, behind those of g_a and before those of g_s.
        expansion: hidden channels of a block, as a multiple of its channels.
        num_coefficients: entries of the loss-coefficient vector that condition the network.
    """

    N: int = 192
    M: int = 320
    Z: int = 96
    D: int = 256
    analysis_blocks: int = 4
    synthesis_blocks: int = 6
    expansion: float = 1.0
    cond_width: int = 64
    num_coefficients: int = 1
    latent_blocks: int = 0

    @property
    def reach_px(self) -> int:
        """How far a pixel or latent acts, px: 3×3 layers at either resolution, and the lapped transform's half span."""
        blocks = max(self.analysis_blocks, self.synthesis_blocks)
        return Lapped.SPAN // 2 + 8 * blocks + LATENT_STRIDE * self.latent_blocks


class ModelOutput(NamedTuple):
    """Reconstruction (B, 3, H, W) and bits per sample (B,) of the two latents."""

    x_hat: Tensor
    y_bits: Tensor
    z_bits: Tensor


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


def to_phases(x: Tensor) -> Tensor:
    """The four positions of every 2×2 cell apart, channels last: (B, C, h, w) → (4, B, h·w/4, C)."""
    b, c, h, w = x.shape
    return x.reshape(b, c, h // 2, 2, w // 2, 2).permute(3, 5, 0, 2, 4, 1).reshape(4, b, -1, c)


def from_phases(x: Tensor, height: int, width: int) -> Tensor:
    """Undo `to_phases`."""
    _, b, _, c = x.shape
    cells = x.reshape(2, 2, b, height // 2, width // 2, c)
    return cells.permute(2, 5, 3, 0, 4, 1).reshape(b, c, height, width)


def of_pass(x: Tensor, k: int, blocks: int = 1) -> Tensor:
    """What pass k takes of a last axis of `blocks`·M channels at each phase: (…, blocks·M) → (4, …, blocks·M/4).

    Pass k codes channel group (k + phase) mod 4.
    """
    groups = x.reshape(*x.shape[:-1], blocks, PASSES, -1)
    return torch.stack([groups[..., (k + phase) % PASSES, :].flatten(-2) for phase in range(4)])


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


class HyperSynthesis(nn.Module):
    """h_s: z_hat (B, Z, h/4, w/4) → hyper-features (B, D, h, w) in [0, ACTIVATION_MAX]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d, width = config.D, config.cond_width
        self.up1 = FiLMPointwise(width, config.Z, 4 * d)
        self.spatial1 = Depthwise(d)
        self.up2 = FiLMPointwise(width, d, 4 * d)
        self.spatial2 = Depthwise(d)
        self.out = FiLMPointwise(width, d, d)

    def forward(self, z_hat: Tensor, cond: Tensor) -> Tensor:
        h = F.pixel_shuffle(clipped_relu(self.up1(z_hat, cond)), 2)
        h = clipped(self.spatial1(h))
        h = F.pixel_shuffle(clipped_relu(self.up2(h, cond)), 2)
        h = clipped(self.spatial2(h))
        return clipped_relu(self.out(h, cond))


class ContextPass(nn.Module):
    """One pass: embedded context and hyper-features → normalised mean and scale index of what it codes."""

    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        d, width = config.D, config.cond_width
        self.number = number
        self.context_bias = nn.Parameter(torch.zeros(d))
        self.spatial = Depthwise(d)
        self.mix = FiLMPointwise(width, 2 * d, d)
        self.hidden = FiLMPointwise(width, d, d)
        self.head = FiLMPointwise(width, d, 2 * config.M)

    def forward(self, embedded: Tensor, hyper: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Means and indexes, each (4, B, h·w/4, M/4), laid out as `of_pass` does."""
        context = clipped_relu(embedded + self.context_bias[:, None, None])
        context = clipped(self.spatial(context))
        h = clipped_relu(self.mix(torch.cat([context, hyper], dim=1), cond))
        h = to_phases(clipped_relu(self.hidden(h, cond)))
        head, k = self.head, self.number
        out = h.flatten(1, 2) @ of_pass(head.weight.T, k, 2) + of_pass(head.bias, k, 2)[:, None]
        factor, offset = (of_pass(c, k, 2)[:, :, None] for c in head.film.coefficients(cond))
        mean, index = (out.float().reshape(*h.shape[:3], -1) * factor + offset).chunk(2, dim=-1)
        return mean, index


class Prior(nn.Module):
    """The entropy model in the form that is trained; `fixed.py` runs its frozen integer form.

    z is zero-mean Gaussian per channel. y is Gaussian, its mean and scale from h_s and four context passes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.h_s = HyperSynthesis(config)
        self.embed = FiLMPointwise(config.cond_width, 2 * config.M, config.D)
        self.passes = nn.ModuleList(ContextPass(config, number) for number in range(PASSES))
        self.z_index = nn.Linear(config.cond_width, config.Z)  # added to Z_INDEX_START
        nn.init.zeros_(self.z_index.weight)
        nn.init.zeros_(self.z_index.bias)

    def z_bits(self, z: Tensor, cond: Tensor, noise: bool) -> Tensor:
        """Bits of z per sample, (B,)."""
        scales = index_to_scale(Z_INDEX_START + self.z_index(cond))[:, :, None, None]
        return gaussian_bits(perturb(z, noise), scales).sum(dim=(1, 2, 3))

    def forward(self, y: Tensor, z_hat: Tensor, norm: Tensor, cond: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """Quantise y pass by pass, each seeing what the earlier ones decoded; return y_hat and bits (B,)."""
        hyper = self.h_s(z_hat, cond)
        height, width = y.shape[2:]
        latents = to_phases(y).reshape(4, len(y), -1, PASSES, y.shape[1] // PASSES)  # (4, B, h·w/4, PASSES, M/4)
        norm = norm.flatten(1)
        factor, offset = (c[:, :, None, None] for c in self.embed.film.coefficients(cond))
        embedded = (self.embed.bias[:, None, None] * factor + offset).expand_as(hyper)
        decoded: list[Tensor] = []
        bits = torch.zeros(len(y), device=y.device)
        for k, net in enumerate(self.passes):
            mean, index = net(embedded, hyper, cond)
            scale = of_pass(norm, k)[:, :, None]
            mean = clipped(mean) * scale
            residual = torch.stack([latents[phase, :, :, (k + phase) % PASSES] for phase in range(4)]) - mean
            sigma = index_to_scale(index + torch.log(scale / SCALES_MIN) / SCALES_STEP)
            bits = bits + gaussian_bits(perturb(residual, noise), sigma).sum(dim=(0, 2, 3))
            decoded.append(round_ste(residual) + mean)
            if k + 1 < PASSES:
                features = context_features(decoded[k], scale, -1).flatten(1, 2)
                seen = (features @ of_pass(self.embed.weight, k, 2).mT).reshape(*residual.shape[:3], -1)
                embedded = embedded + from_phases(seen, height, width) * factor
        # Group g of a phase was coded in pass (g - phase) mod 4.
        phases = [torch.cat([decoded[(g - p) % PASSES][p] for g in range(PASSES)], dim=-1) for p in range(4)]
        return from_phases(torch.stack(phases), height, width), bits


class YotoModel(nn.Module):
    """The whole network, in the form that is trained.

    x ─ g_a ─ y·gain ─┬─ round(y-μ)+μ ─ y_hat ─ 1/gain ─ g_s ─ x_hat
                      │        ▲ μ, σ         │
                      │  context pass 0…3 ◄───┘ what is decoded so far
                      │        ▲
                     h_a ─ z ─ h_s
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.transforms = Transforms(config)
        self.prior = Prior(config)

    def forward(self, x: Tensor, condition: Tensor, noise: bool = True) -> ModelOutput:
        """Reconstruct and price a batch.

        Args:
            x: float32 (B, 3, H, W) in [0, 1], H and W multiples of 64.
            condition: float32 (B, K) in [-1, 1]; the first entry is 2·quality - 1.
            noise: price with additive uniform noise (training) instead of the rounded symbols.
        """
        transforms = self.transforms
        cond = transforms.condition_net(condition)
        y = transforms.analyse(x, condition)
        z = transforms.hyper_analyse(y, condition)
        y_hat, y_bits = self.prior(y, round_ste(z), transforms.normaliser(condition), cond, noise)
        z_bits = self.prior.z_bits(z, cond, noise)
        return ModelOutput(transforms.synthesise(y_hat, condition), y_bits, z_bits)


def context_features(y: Tensor, norm: Tensor, dim: int = 1) -> Tensor:
    """Inputs of h_a and the context, twice as many channels: y in units of its deviation, and log2(1 + |y|)."""
    magnitude = torch.log2(1.0 + y.abs()).clamp_max(MAGNITUDE_MAX)
    return torch.cat([(y / norm).clamp(-FEATURE_MAX, FEATURE_MAX), magnitude], dim=dim)


def index_to_scale(index: Tensor) -> Tensor:
    """σ of a real-valued row of the scale table."""
    return SCALES_MIN * torch.exp(SCALES_STEP * index.clamp(0.0, SCALES_LEVELS - 1.0))


def perturb(value: Tensor, noise: bool) -> Tensor:
    """The argument of the rate: `value` with uniform noise in training, else rounded to its symbol."""
    return value + torch.rand_like(value) - 0.5 if noise else torch.round(value)
