"""How many cores the transforms use, whichever back end runs them; torch has such a setting of its own."""

from __future__ import annotations

import os
import sys

_chosen = 0


def get() -> int:
    """Cores in use."""
    torch = sys.modules.get("torch")
    cores = torch.get_num_threads() if torch else _chosen or usual()
    return int(cores)


def usual() -> int:
    """What OMP_NUM_THREADS says, as for torch, else the cores that this process may use."""
    told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose(count: int) -> None:
    """Use so many; ONNX Runtime does so for graphs that it loads from now on."""
    global _chosen
    _chosen = count
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)
