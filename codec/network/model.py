"""The network: FiLM-conditioned analysis and synthesis, mean-scale hyperprior, four context passes.

Loss-conditional training: Dosovitskiy & Djolonga, "You Only Train Once", ICLR 2020.
Hyperprior: Minnen, Ballé & Toderici 2018, arXiv:1809.02736. Context passes over spatial phases and channel
groups: Li, Li & Lu 2023 (DCVC-DC), arXiv:2302.14402.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from codec.network.config import ModelConfig
from codec.network.layers import round_ste
from codec.network.prior import Prior
from codec.network.transforms import Transforms


class ModelOutput(NamedTuple):
    """Reconstruction (B, 3, H, W) and bits per sample (B,) of the two latents."""

    x_hat: Tensor
    y_bits: Tensor
    z_bits: Tensor


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
