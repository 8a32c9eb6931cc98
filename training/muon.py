"""Muon: momentum whose matrices are orthogonalised before the step.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; step sizes matched to AdamW's as in Liu et al. 2025,
arXiv:2502.16982. The same updates as `torch.optim.Muon`, but matrices of one shape go through the iteration together,
and in float32 on a CPU, where bfloat16 products can be the slower ones: about half the time, see EXPERIMENTS.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

MOMENTUM = 0.95
# Quintic Newton–Schulz iteration of Jordan et al.: steepest at zero, so that five steps bring singular values near 1.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Bring the singular values of a stack (n, rows, columns), rows ≤ columns, to about 1."""
    a, b, c = COEFFICIENTS
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + torch.baddbmm(b * gram, gram, gram, alpha=c) @ x
    return x


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for parameters that are matrices."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape[min(parameter.shape), max(parameter.shape)].append(parameter)
            for (_, longer), parameters in by_shape.items():
                self._step(parameters, 0.2 * group["lr"] * longer**0.5)

    def _step(self, parameters: list[Tensor], lr: float) -> None:
        wide = []
        for parameter in parameters:
            state = self.state[parameter]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            momentum = state["momentum_buffer"].lerp_(parameter.grad, 1.0 - MOMENTUM)
            update = parameter.grad.lerp(momentum, MOMENTUM)
            wide.append(update if parameter.shape[0] <= parameter.shape[1] else update.T)
        stack = torch.stack(wide)
        for parameter, update in zip(
            parameters, orthogonalise(stack.bfloat16() if stack.is_cuda else stack), strict=True
        ):
            parameter.add_(update if parameter.shape[0] <= parameter.shape[1] else update.T, alpha=-lr)
