"""Whether the blocks of a network work: what each is worth, and how many of its hidden units ever open.

The first edition shipped ten dead blocks of eleven, and no figure of its training showed it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from codec.network.layers import ResidualBlock
from codec.network.model import YotoModel
from training.conditional import Objective
from training.loss import ERROR, RATE


def log_lagrangians(model: YotoModel, objective: Objective, x: Tensor, units: Tensor) -> Tensor:
    """ln(bpp + λ·255²·MSE) of each sample with rounded symbols, (B,)."""
    value = objective(model(x, objective.condition(units), noise=False), x, units)
    names = [term.name for term in objective.terms]
    rate, error = names.index(RATE), names.index(ERROR)
    return torch.log(value.terms[:, rate] + objective.coefficients(units)[:, error] * value.terms[:, error])


def blocks_of(model: YotoModel) -> dict[str, ResidualBlock]:
    """The residual blocks by name, as "g_s.blocks.0"."""
    return {n.removeprefix("transforms."): m for n, m in model.named_modules() if isinstance(m, ResidualBlock)}


@torch.no_grad()
def examine(model: YotoModel, objective: Objective, x: Tensor, units: Tensor) -> dict[str, float]:
    """Per block, "worth/…": the rise of ln L, mean over the samples, when the block is skipped; and "open/…": the
    share of its hidden units whose gate is positive anywhere in any sample.

    Args:
        x: crops (B, 3, H, W).
        units: positions of their coefficients (B, K).
    """
    opened: dict[str, Tensor] = {}
    hooks = []
    for name, block in blocks_of(model).items():

        def note(_: Any, __: Any, expanded: Tensor, name: str = name) -> None:
            opened[name] = expanded.chunk(2, dim=1)[1].amax(dim=(0, 2, 3)) > 0.0

        hooks.append(block.expand.register_forward_hook(note))
    whole = log_lagrangians(model, objective, x, units).mean()
    for hook in hooks:
        hook.remove()
    scalars = {f"open/{name}": units_open.float().mean().item() for name, units_open in opened.items()}
    for name, block in blocks_of(model).items():
        skipped = block.register_forward_hook(lambda _, inputs, __: inputs[0])
        without = log_lagrangians(model, objective, x, units).mean()
        skipped.remove()
        scalars[f"worth/{name}"] = (without - whole).item()
    return scalars


@torch.no_grad()
def revive(model: YotoModel, conditions: Tensor, x: Tensor) -> int:
    """Give hidden units that do nothing another start; return how many there were.

    A unit does nothing if what it adds to the stream varies a thousandth as much as a unit of its block does on
    average: no gradient will open its gate again. It becomes another like one that works, whose output is not used yet,
    so that the network's own output stays as it was. A block that is still the identity has none.

    Args:
        conditions: of the crops (B, K).
        x: crops (B, 3, H, W), enough of them that a rare unit has its use.
    """
    varies: dict[ResidualBlock, Tensor] = {}
    hooks = []
    for block in blocks_of(model).values():

        def note(project: Any, inputs: tuple[Tensor], _: Any, block: ResidualBlock = block) -> None:
            varies[block] = inputs[0].std(dim=(0, 2, 3)) * project.weight.norm(dim=0)

        hooks.append(block.project.register_forward_hook(note))
    model(x, conditions, noise=False)
    for hook in hooks:
        hook.remove()
    revived = 0
    for block, share in varies.items():
        idle = torch.nonzero(share < 1e-3 * share.mean())[:, 0]
        busy = share.argsort(descending=True)[: len(idle)]
        units = len(share)
        for start in (0, units):  # values, then gates
            rows = block.expand.weight[busy + start]
            block.expand.weight[idle + start] = rows * (1.0 + 0.5 * torch.randn_like(rows))
            block.expand.bias[idle + start] = block.expand.bias[busy + start]
        block.project.weight[:, idle] = 0.0
        revived += len(idle)
    return revived


def summary(scalars: dict[str, float]) -> str:
    """The figures of `examine` in a line a block."""
    names = [name.removeprefix("worth/") for name in scalars if name.startswith("worth/")]
    return "\n".join(
        f"  {name}: worth {scalars[f'worth/{name}']:+.4f} of ln L,"
        f" {100 * scalars[f'open/{name}']:.0f} % of its units open"
        for name in names
    )
