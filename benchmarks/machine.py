"""What a result depends on besides the code: the machine, the versions of libraries, the model."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from PIL import features

from codec.network.weights import Weights

METRICS = ("numpy", "ssimulacra2")
OUR_PACKAGES = ("yoto-codec", "torch", "constriction", "pillow", *METRICS)
PEER_PACKAGES = ("pillow", "pillow-jxl-plugin", "pillow-heif", *METRICS)
PILLOW_FEATURES = ("libjpeg_turbo", "webp", "avif", "jpg_2000")


def machine(threads: int | None) -> dict[str, object]:
    """CPU model, cores that this process may use, and threads that it was told to use, None where that is left open."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu_model(), "cores": cores, "threads": threads, "system": platform.platform()}


def cpu_model() -> str:
    """The processor's name, as Linux gives it, else as Python does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """Versions of Python, of packages, and of the codecs inside Pillow; None for one that is absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    found |= {name: package_version(name) for name in packages}
    if "pillow-heif" in packages and found["pillow-heif"]:
        import pillow_heif

        found["x265"] = pillow_heif.libheif_info()["HEIF"]
    return found | {f"pillow {name}": features.version(name) for name in PILLOW_FEATURES}


def package_version(name: str) -> str | None:
    """The version of an installed package; ours need not be installed to be measured."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def model(weights: Weights) -> dict[str, object]:
    """Identity and sizes of a model."""
    return {"id": weights.model_id.hex(), "sha256": weights.sha256, "config": vars(weights.config)}


def command(module: str) -> str:
    """The command line of this process, to be remembered: of absolute paths the last part alone."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return shlex.join(["python", "-m", module, *words])
