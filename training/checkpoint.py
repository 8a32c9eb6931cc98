"""Checkpoints: written atomically, resumed under the same settings, and the start of a next stage under others."""

from __future__ import annotations

import dataclasses
import itertools
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from codec.network.config import ModelConfig
from codec.network.model import YotoModel

OUTER = ("g_a.lapped", "g_a.head", "g_a.tail", "g_s.head", "g_s.tail", "g_s.lapped")
OPTIONAL = (".blocks.", ".coarse.", "realism.")  # what a stage may add, doing nothing at first
SMALL = ("film", "condition_net", "_gain", "z_index", "lapped")  # matrices that are too small for Muon
State = dict[str, Any]


def save_atomically(state: State, path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def load(path: Path) -> State:
    """Read a checkpoint to the CPU, which is where random states must lie on any device.

    Raises:
        ValueError: it is none.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model = state["model"] if "model" in state else state["ema"]
        assert isinstance(model, dict)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{path} is no checkpoint: {error}") from error
    return state


def parameter_groups(model: nn.Module, muon: bool) -> tuple[list[list[str]], list[list[str]]]:
    """Names of AdamW's and Muon's parameters, in the groups of one learning rate, inner or outer layers.

    Checkpoints number the parameters in this order.
    """
    groups: dict[tuple[bool, bool], list[str]] = {}
    for name, parameter in model.named_parameters():
        dense = muon and parameter.ndim == 2 and not any(part in name for part in SMALL)
        groups.setdefault((dense, any(part in name for part in OUTER)), []).append(name)
    return tuple([names for (dense, _), names in groups.items() if dense is chosen] for chosen in (False, True))  # type: ignore[return-value]


def load_weights(model: nn.Module, weights: State, where: str) -> None:
    """Fill a network that may have more blocks than the file, or a realism; those do nothing yet.

    Raises:
        ValueError: it is of another shape otherwise.
    """
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{where} is of another shape: {error}") from error
    if unexpected or not all(any(part in name for part in OPTIONAL) for name in missing):
        raise ValueError(f"{where} has other layers: {', '.join([*missing, *unexpected])}")


def momenta(state: State, network: type[YotoModel] = YotoModel) -> dict[str, State]:
    """What the optimisers of a checkpoint remember, by the parameter's name.

    Args:
        network: of which it is.
    """
    config = state["config"]
    known = {f.name for f in dataclasses.fields(ModelConfig)}
    with torch.device("meta"):
        model = network(ModelConfig(**{k: v for k, v in config["model"].items() if k in known}))
    remembered: dict[str, State] = {}
    groups = parameter_groups(model, config.get("optimiser", "muon") == "muon")
    for names, saved in zip(groups, state["optimisers"], strict=False):
        for i, name in enumerate(itertools.chain.from_iterable(names)):
            if i in saved["state"]:
                remembered[name] = saved["state"][i]
    return remembered
