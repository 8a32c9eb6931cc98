"""Muon: momentum whose matrices are orthogonalised before the step, with decoupled weight decay.

Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; step sizes matched to AdamW's as in Liu et al. 2025,
arXiv:2502.16982. Matrices of one shape go through the iteration together; processes share the matrices among them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
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


def orthogonalised(matrices: list[Tensor]) -> list[Tensor]:
    """Matrices (rows, columns) of any shapes, each alone; those of one shape, or its transpose, go together."""
    by_shape: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, matrix in enumerate(matrices):
        by_shape[min(matrix.shape), max(matrix.shape)].append(i)
    out = list(matrices)
    for (rows, _), members in by_shape.items():
        stack = torch.stack([matrices[i] if matrices[i].shape[0] == rows else matrices[i].T for i in members])
        for i, result in zip(members, orthogonalise(stack), strict=True):
            out[i] = result if matrices[i].shape[0] == rows else result.T
    return out


def orthogonalised_together(matrices: list[Tensor]) -> list[Tensor]:
    """`orthogonalised` of matrices that all processes hold: each works on its share, then they exchange."""
    world, rank = dist.get_world_size(), dist.get_rank()
    shares: list[list[int]] = [[] for _ in range(world)]
    work = [0] * world
    cost = [m.numel() * min(m.shape) for m in matrices]
    for i in sorted(range(len(matrices)), key=cost.__getitem__, reverse=True):
        least = work.index(min(work))
        shares[least].append(i)
        work[least] += cost[i]
    mine = orthogonalised([matrices[i] for i in shares[rank]])
    out = list(matrices)
    for source, members in enumerate(shares):
        sizes = [matrices[i].numel() for i in members]
        if source == rank:
            flat = torch.cat([m.flatten() for m in mine]) if mine else matrices[0].new_empty(0)
        else:
            flat = matrices[0].new_empty(sum(sizes))
        dist.broadcast(flat.view(torch.uint8), src=source)  # as bytes, for gloo knows no bfloat16
        for i, part in zip(members, flat.split(sizes), strict=True):
            out[i] = part.view(matrices[i].shape)
    return out


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum for parameters that are matrices.

    Args:
        lr: size of a step's entries, as AdamW's.
        decay: share of a parameter, times lr, that every step takes away.
        dtype: of the iteration; bfloat16 takes a third of the time where it is multiplied fast.
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "decay": decay})
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update all parameters that have a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            wanted = [self._momentum(p).to(self.dtype) for p in parameters]
            several = dist.is_initialized() and dist.get_world_size() > 1
            for parameter, update in zip(
                parameters, (orthogonalised_together if several else orthogonalised)(wanted), strict=True
            ):
                parameter.mul_(1.0 - group["lr"] * group["decay"])
                parameter.add_(update, alpha=-0.2 * group["lr"] * max(parameter.shape) ** 0.5)

    def _momentum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        momentum = state["momentum_buffer"].lerp_(parameter.grad, 1.0 - MOMENTUM)
        return parameter.grad.lerp(momentum, MOMENTUM)
