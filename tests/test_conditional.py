"""Loss-conditional training in general: the draw, the gradients, and that one network serves all coefficients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from training.conditional import Objective, Term

X = 2.0 * torch.ones(1, 1)  # all that the toys see
GAP = 0.05  # of the objective; what conditional training may lose to training for one vector of coefficients


def near(target: float):
    return lambda output, x: (output - target * x).square().mean(dim=1)


# The best output for weights a, b and 1 is 2·(a - b)/(a + b + 1).
TOY = Objective(
    [Term("up", near(1.0), 0.1, 10.0), Term("down", near(-1.0), 0.0, 4.0, log=False), Term("small", near(0.0), 1.0)]
)


class Toy(nn.Module):
    """One number for every sample, made of the condition."""

    def __init__(self, coefficients: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(coefficients, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return x * self.net(condition)


def trained(objective: Objective, steps: int) -> Toy:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    toy = Toy(max(1, len(objective.drawn)))
    optimiser = torch.optim.Adam(toy.parameters(), 1e-2)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1.0 - step / steps)
        units = objective.sample(64, generator)
        x = X.expand(64, 1)
        condition = objective.condition(units) if objective.drawn else x.new_zeros(64, 1)
        optimiser.zero_grad()
        objective(toy(x, condition), x, units).loss.backward()
        optimiser.step()
    return toy


@pytest.fixture(scope="module")
def toy() -> Toy:
    return trained(TOY, 600)


def test_draws_are_even_in_every_batch_and_independent():
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([TOY.sample(32, generator) for _ in range(200)])
    assert draws.shape == (200, 32, 2)
    assert ((draws >= 0.0) & (draws < 1.0)).all()
    assert (draws.sort(dim=1).values.diff(dim=1) - 1 / 32).abs().max() < 1e-5  # one sample in each part of the range
    pairs = (draws.flatten(0, 1) * 4.0).long()
    counts = (4 * pairs[:, 0] + pairs[:, 1]).bincount(minlength=16)  # 400 ± 20 in each of 4 × 4 cells, were they free
    assert (counts - 400).abs().max() < 80
    assert abs(draws[:, 0].mean() - 0.5) < 0.05  # and no place of the batch is special


def test_coefficients_follow_their_ranges():
    coefficients = TOY.coefficients(torch.tensor([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))
    torch.testing.assert_close(coefficients, torch.tensor([[0.1, 0.0, 1.0], [1.0, 2.0, 1.0], [10.0, 4.0, 1.0]]))
    assert torch.equal(TOY.condition(torch.tensor([0.0, 0.5, 1.0])), torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize(("low", "high", "log"), [(1.0, 1.0, True), (2.0, 1.0, False), (0.0, 1.0, True)])
def test_an_impossible_range_is_refused(low: float, high: float, log: bool):
    with pytest.raises(ValueError, match="edge"):
        Term("edge", near(1.0), low, high, log)


def test_every_term_has_its_gradient():
    """Of the output: the sum of the terms' own, each times its coefficient."""
    x = X.expand(3, 1)
    units = torch.tensor([[0.2, 0.9], [0.5, 0.1], [1.0, 0.6]])
    weigh = Objective(TOY.terms, lambda coefficients: coefficients[:, 0])
    output = torch.tensor([[0.3], [-0.7], [1.1]], requires_grad=True)
    weigh(output, x, units).loss.backward()
    expected = torch.zeros(3, 1)
    for i, term in enumerate(TOY.terms):
        (alone,) = torch.autograd.grad(term.function(output, x).sum(), output)
        assert alone.all()
        coefficients = TOY.coefficients(units)
        expected += alone * (coefficients[:, i] * coefficients[:, 0])[:, None] / 3
    torch.testing.assert_close(output.grad, expected)


def test_a_limit_scales_a_samples_gradient_down_and_leaves_the_others():
    units = torch.full((2, 2), 0.5)
    output = torch.tensor([[5.0], [5.0]], requires_grad=True)
    free = TOY(output, X.expand(2, 1), units).loss
    (gradient,) = torch.autograd.grad(free, output)
    limited = TOY(output, X.expand(2, 1), units, torch.tensor([math.inf, 0.25])).loss
    (bounded,) = torch.autograd.grad(limited, output)
    torch.testing.assert_close(limited, (free + 0.25) / 2)  # the loss of either sample, then of the first, is `free`
    torch.testing.assert_close(bounded[0], gradient[0])
    torch.testing.assert_close(bounded[1], gradient[1] * 0.25 / free)


def test_each_coefficient_moves_the_output_its_way(toy: Toy):
    def output(up: float, down: float) -> float:
        return toy(X, TOY.condition(torch.tensor([[up, down]]))).item()

    for other in (0.1, 0.5, 0.9):
        ups = [output(unit, other) for unit in (0.0, 0.33, 0.67, 1.0)]
        downs = [output(other, unit) for unit in (0.0, 0.33, 0.67, 1.0)]
        assert ups == sorted(ups)
        assert downs == sorted(downs, reverse=True)
        assert ups[-1] > ups[0] + 0.5
        assert downs[-1] < downs[0] - 0.2


@pytest.mark.parametrize("units", [(0.1, 0.8), (0.5, 0.5), (0.9, 0.2)])
def test_conditional_training_equals_training_for_one_loss(toy: Toy, units: tuple[float, float]):
    """The method's claim, at three points: within GAP of a toy that was trained for these coefficients alone."""
    coefficients = TOY.coefficients(torch.tensor([units]))[0].tolist()
    fixed = Objective([Term(t.name, t.function, c) for t, c in zip(TOY.terms, coefficients, strict=True)])
    single = trained(fixed, 300)
    [ours] = TOY.evaluate(toy, X, [[units[0]], [units[1]]])
    [theirs] = fixed.evaluate(lambda x, _: single(x, torch.zeros(1, 1)), X, [])
    assert ours.coefficients == theirs.coefficients
    assert theirs.objective <= ours.objective + 1e-4
    assert ours.objective <= (1.0 + GAP) * theirs.objective


def test_evaluation_walks_the_grid():
    points = TOY.evaluate(lambda x, condition: x * condition[:, :1], X, [[0.0, 1.0], [0.25, 0.5, 0.75]])
    assert [(round(p.coefficients["up"], 4), p.coefficients["down"]) for p in points] == [
        (up, down) for up in (0.1, 10.0) for down in (1.0, 2.0, 3.0)
    ]
    for point in points:
        assert math.isclose(
            point.objective, sum(point.coefficients[name] * value for name, value in point.terms.items()), rel_tol=1e-6
        )
    assert points[-1].terms == {"up": 0.0, "down": 16.0, "small": 4.0}
