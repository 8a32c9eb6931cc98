"""The entropy model in the form that is trained; `integer.py` runs its frozen integer form."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.config import PASSES, ModelConfig
from codec.network.layers import (
    Depthwise,
    FiLMPointwise,
    clipped,
    clipped_relu,
    gaussian_bits,
    round_ste,
)
from codec.network.layout import prior_layers
from codec.network.transforms import context_features

Quantiser = Callable[[Tensor, Tensor], Tensor]


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


def dense(config: ModelConfig, name: str) -> FiLMPointwise:
    """A dense layer of the table."""
    layer = prior_layers(config)[name]
    return FiLMPointwise(config.cond_width, layer.in_channels, layer.out_channels)


def depthwise(config: ModelConfig, name: str) -> Depthwise:
    """A depthwise layer of the table."""
    return Depthwise(prior_layers(config)[name].out_channels)


class HyperSynthesis(nn.Module):
    """h_s: z_hat (B, Z, h/4, w/4) → hyper-features (B, D, h, w) in [0, ACTIVATION_MAX]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up1 = dense(config, "h_s.up1")
        self.spatial1 = depthwise(config, "h_s.spatial1")
        self.up2 = dense(config, "h_s.up2")
        self.spatial2 = depthwise(config, "h_s.spatial2")
        self.out = dense(config, "h_s.out")

    def forward(self, z_hat: Tensor, cond: Tensor) -> Tensor:
        """Map z_hat (B, Z, h/4, w/4) and the embedded condition (B, width) to the features (B, D, h, w)."""
        h = F.pixel_shuffle(clipped_relu(self.up1(z_hat, cond)), 2)
        h = clipped(self.spatial1(h))
        h = F.pixel_shuffle(clipped_relu(self.up2(h, cond)), 2)
        h = clipped(self.spatial2(h))
        return clipped_relu(self.out(h, cond))


class ContextPass(nn.Module):
    """One pass: embedded context and hyper-features → normalised mean and scale index of what it codes."""

    def __init__(self, config: ModelConfig, number: int) -> None:
        super().__init__()
        self.number = number
        self.context_bias = nn.Parameter(torch.zeros(config.D))
        self.spatial = depthwise(config, f"passes.{number}.spatial")
        self.mix = dense(config, f"passes.{number}.mix")
        self.hidden = dense(config, f"passes.{number}.hidden")
        self.head = dense(config, f"passes.{number}.head")

    def forward(self, embedded: Tensor, hyper: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        """Map what is known, embedded and hyper-features, each (B, D, h, w), and the embedded condition (B, width).

        Returns:
            Means and indexes, each (4, B, h·w/4, M/4), laid out as `of_pass` does.
        """
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
    """The entropy model in the form that is trained; `integer.py` runs its frozen integer form.

    z is zero-mean Gaussian per channel. y is Gaussian, its mean and scale from h_s and four context passes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.h_s = HyperSynthesis(config)
        self.embed = dense(config, "embed")
        self.passes = nn.ModuleList(ContextPass(config, number) for number in range(PASSES))
        self.z_index = nn.Linear(config.cond_width, config.Z)  # added to z_index_start
        nn.init.zeros_(self.z_index.weight)
        nn.init.zeros_(self.z_index.bias)

    def scale_of(self, index: Tensor) -> Tensor:
        """σ of a real-valued row of the scale table."""
        config = self.config
        return config.scales_min * torch.exp(config.scales_step * index.clamp(0.0, config.scales_levels - 1.0))

    def z_bits(self, z: Tensor, cond: Tensor, noise: bool) -> Tensor:
        """Bits of z per sample, (B,)."""
        scales = self.scale_of(self.config.z_index_start + self.z_index(cond))[:, :, None, None]
        return gaussian_bits(perturb(z, noise), scales).sum(dim=(1, 2, 3))

    def forward(
        self, y: Tensor, z_hat: Tensor, norm: Tensor, cond: Tensor, noise: bool, quantise: Quantiser | None = None
    ) -> tuple[Tensor, Tensor]:
        """Quantise y pass by pass, each seeing what the earlier ones decoded.

        Args:
            y: (B, M, h, w), h and w multiples of 4.
            z_hat: (B, Z, h/4, w/4).
            norm: (B, M, 1, 1), the deviation of each channel of y.
            cond: the embedded condition, (B, width).
            noise: price with additive uniform noise instead of the rounded symbols.
            quantise: makes symbols of residuals and their deviations, (4, B, h·w/4, M/4), instead of rounding them;
                then `noise` has no effect.

        Returns:
            y_hat (B, M, h, w) and bits (B,).
        """
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
            sigma = self.scale_of(index + torch.log(scale / self.config.scales_min) / self.config.scales_step)
            symbols = quantise(residual, sigma) if quantise else round_ste(residual)
            priced = symbols if quantise else perturb(residual, noise)
            bits = bits + gaussian_bits(priced, sigma).sum(dim=(0, 2, 3))
            decoded.append(symbols + mean)
            if k + 1 < PASSES:
                features = context_features(self.config, decoded[k], scale, -1).flatten(1, 2)
                seen = (features @ of_pass(self.embed.weight, k, 2).mT).reshape(*residual.shape[:3], -1)
                embedded = embedded + from_phases(seen, height, width) * factor
        # Group g of a phase was coded in pass (g - phase) mod 4.
        phases = [torch.cat([decoded[(g - p) % PASSES][p] for g in range(PASSES)], dim=-1) for p in range(4)]
        return from_phases(torch.stack(phases), height, width), bits


def perturb(value: Tensor, noise: bool) -> Tensor:
    """The argument of the rate: `value` with uniform noise in training, else rounded to its symbol."""
    return value + torch.rand_like(value) - 0.5 if noise else torch.round(value)
