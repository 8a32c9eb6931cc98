"""Loss-conditional training of any network: one training, every mixture of losses.

A network F(x, c; θ) is shown what it is scored by (Dosovitskiy & Djolonga, "You Only Train Once: Loss-Conditional
Training of Deep Networks", ICLR 2020, section 3). Instead of

    min_θ E_x L(F(x; θ), x)                 for one loss  L = Σ_i λ_i L_i,

which has to be repeated for every vector λ, minimise over a distribution P of such vectors

    min_θ E_λ~P E_x Σ_i λ_i L_i(F(x, c(λ); θ), x).

Here each coefficient is fixed or drawn, the drawn ones independently of one another, uniformly between `low` and `high`
or uniformly in their logarithm. `Objective.sample` draws λ for a batch, as positions in its ranges; `condition` makes
of these the vector c in [-1, 1] that the network's FiLM layers read; calling the objective scores the outcome;
`evaluate` walks a grid of coefficients with the trained network. A network that ignores c learns the mean of the losses
and nothing else; one that is large enough learns, for each λ, what a network trained for it alone would (their
proposition 1).

    objective = Objective([Term("fit", fit, 1.0), Term("smooth", smoothness, 0.01, 10.0)])
    units = objective.sample(len(x), generator)
    output = network(x, objective.condition(units))
    objective(output, x, units).loss.backward()
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

# What a network makes of a batch is its own affair: a tensor, or a tuple of several.
Output = Any


@dataclass(frozen=True)
class Term:
    """One loss L_i and what its coefficient λ_i may be.

    Attributes:
        name: what it is called in logs.
        function: maps the network's output and its input x to the loss of every sample, (B,).
        low: the coefficient, or the least one.
        high: the greatest one; None if the coefficient is fixed.
        log: whether it is the logarithm that is drawn uniformly.

    Raises:
        ValueError: the range is empty, or reaches 0 on a logarithmic scale.
    """

    name: str
    function: Callable[[Output, Tensor], Tensor]
    low: float
    high: float | None = None
    log: bool = True

    def __post_init__(self) -> None:
        if self.high is not None and not self.low < self.high:
            raise ValueError(f"{self.name}: coefficients from {self.low} to {self.high} are no range")
        if self.drawn and self.log and self.low <= 0.0:
            raise ValueError(f"{self.name}: a logarithmic range must lie above 0, and begins at {self.low}")

    @property
    def drawn(self) -> bool:
        """Whether the coefficient varies, and the network sees it."""
        return self.high is not None

    def coefficient(self, unit: Tensor) -> Tensor:
        """λ_i at positions in [0, 1] of its range."""
        if self.high is None:
            return torch.full_like(unit, self.low)
        if self.log:
            return self.low * torch.exp(unit * math.log(self.high / self.low))
        return self.low + unit * (self.high - self.low)


class Score(NamedTuple):
    """The scalar to minimise, and every term of every sample, (B, terms), not weighted."""

    loss: Tensor
    terms: Tensor


class GridPoint(NamedTuple):
    """Means over the samples at one vector of coefficients: Σ λ_i L_i, and each L_i."""

    coefficients: dict[str, float]
    objective: float
    terms: dict[str, float]


class Objective:
    """Σ_i λ_i L_i with coefficients that differ from sample to sample.

    Args:
        terms: at least one of them; the network's condition has an entry for each drawn one, in this order.
        weigh: weight of a sample by its coefficients, (B, terms) → (B,), so that no part of the ranges drowns the
            others; a factor of a whole sample changes no optimum of a network that is large enough.
    """

    def __init__(self, terms: Sequence[Term], weigh: Callable[[Tensor], Tensor] | None = None) -> None:
        self.terms = tuple(terms)
        self.weigh = weigh

    @property
    def drawn(self) -> tuple[Term, ...]:
        """The terms whose coefficients vary."""
        return tuple(term for term in self.terms if term.drawn)

    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw positions in the ranges, (batch, drawn terms) in [0, 1).

        Stratified: a batch has one sample in each of `batch` equal parts of every range, in an order of its own. So a
        single batch covers all ranges evenly, and pairs of coefficients are independent.
        """
        columns = []
        for _ in self.drawn:
            start = torch.rand(1, generator=generator)
            strata = torch.arange(batch) / batch
            columns.append(((start + strata) % 1.0)[torch.randperm(batch, generator=generator)])
        return torch.stack(columns, dim=1) if columns else torch.empty(batch, 0)

    def condition(self, units: Tensor) -> Tensor:
        """What the network reads, in [-1, 1], of positions in the ranges."""
        return 2.0 * units - 1.0

    def coefficients(self, units: Tensor) -> Tensor:
        """λ, (B, terms), at positions (B, drawn terms)."""
        columns = iter(units.unbind(dim=1))
        nowhere = units.new_zeros(len(units))
        return torch.stack([t.coefficient(next(columns) if t.drawn else nowhere) for t in self.terms], dim=1)

    def __call__(self, output: Output, x: Tensor, units: Tensor, limits: Tensor | None = None) -> Score:
        """Score what the network made of x under `condition(units)`.

        Args:
            limits: (B,), of the samples' losses; one beyond its limit keeps the direction of its gradient, scaled down.
        """
        values = torch.stack([term.function(output, x) for term in self.terms], dim=1)
        coefficients = self.coefficients(units)
        objective = (coefficients * values).sum(dim=1)
        if self.weigh is not None:
            objective = objective * self.weigh(coefficients)
        if limits is not None:
            objective = objective * (limits / objective.detach()).clamp_max(1.0)
        return Score(objective.mean(), values)

    @torch.no_grad()
    def evaluate(
        self, network: Callable[[Tensor, Tensor], Output], x: Tensor, positions: Sequence[Sequence[float]]
    ) -> list[GridPoint]:
        """Run the network over x at every combination of the positions.

        Args:
            positions: for each drawn term, where in [0, 1] of its range to look.
        """
        points = []
        for position in itertools.product(*positions):
            units = x.new_tensor(position).expand(len(x), -1)
            output = network(x, self.condition(units))
            values = torch.stack([term.function(output, x) for term in self.terms], dim=1).mean(dim=0)
            coefficients = self.coefficients(units)[0]
            names = [term.name for term in self.terms]
            points.append(
                GridPoint(
                    dict(zip(names, coefficients.tolist(), strict=True)),
                    float(coefficients @ values),
                    dict(zip(names, values.tolist(), strict=True)),
                )
            )
        return points
