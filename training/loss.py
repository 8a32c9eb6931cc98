"""The loss-conditional objective: a vector of coefficients, drawn per sample and shown to the network.

    L = bpp + Σ_i λ_i · 255² · distortion_i(x_hat, x),   pixels in [0, 1]   (CompressAI's convention of λ)

The first coefficient is the rate–distortion weight, its distortion the mean squared error. Others may follow.
Dosovitskiy & Djolonga, "You Only Train Once: Loss-Conditional Training of Deep Networks", ICLR 2020.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from codec.model import LMBDA_MAX, LMBDA_MIN, ModelOutput

WEIGHT_REFERENCE = math.sqrt(LMBDA_MIN * LMBDA_MAX)


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Mean squared error per sample, (B, 3, H, W) → (B,)."""
    return (x_hat - x).square().mean(dim=(1, 2, 3))


@dataclass(frozen=True)
class LossTerm:
    """A distortion (x_hat, x) → (B,) and the log-uniform range of its coefficient."""

    distortion: Callable[[Tensor, Tensor], Tensor]
    low: float
    high: float

    def coefficient(self, unit: Tensor) -> Tensor:
        """Coefficient of a position in [0, 1] of the range."""
        return self.low * torch.exp(unit * math.log(self.high / self.low))


MEAN_SQUARED_ERROR = LossTerm(squared_error, LMBDA_MIN, LMBDA_MAX)


class LossValue(NamedTuple):
    """The scalar to minimise; bpp and every distortion per sample, (B,) and (B, K)."""

    loss: Tensor
    bpp: Tensor
    distortions: Tensor


class ConditionalLoss:
    """Samples coefficients and evaluates the objective.

    Args:
        terms: the distortions; the first is weighted by the rate–distortion λ.
        balance: each sample's loss is scaled by (λ_0 / reference)^balance, so that all rates weigh alike.
    """

    def __init__(self, terms: Sequence[LossTerm] = (MEAN_SQUARED_ERROR,), balance: float = -0.5) -> None:
        self.terms = tuple(terms)
        self.balance = balance

    def sample_units(self, batch: int, generator: torch.Generator) -> Tensor:
        """Positions (batch, K) in [0, 1): per coefficient uniform and stratified over the batch, in random order."""
        columns = []
        for _ in self.terms:
            start = torch.rand(1, generator=generator)
            strata = torch.arange(batch) / batch
            columns.append(((start + strata) % 1.0)[torch.randperm(batch, generator=generator)])
        return torch.stack(columns, dim=1)

    def __call__(self, output: ModelOutput, x: Tensor, units: Tensor) -> LossValue:
        """Evaluate a batch that was run with the condition 2·units - 1."""
        bpp = (output.y_bits + output.z_bits) / (x.shape[2] * x.shape[3])
        distortions = torch.stack([term.distortion(output.x_hat, x) for term in self.terms], dim=1)
        coefficients = torch.stack(
            [term.coefficient(units[:, i]) for i, term in enumerate(self.terms)], dim=1
        )
        lagrangian = bpp + 255.0**2 * (coefficients * distortions).sum(dim=1)
        weight = (coefficients[:, 0] / WEIGHT_REFERENCE) ** self.balance
        return LossValue((weight * lagrangian).mean(), bpp, distortions)
