"""Weights on disk: one safetensors file, identified by its SHA-256; never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from codec.bitstream import MODEL_ID_BYTES, QUALITY_MAX
from codec.entropy import SymbolTables
from codec.errors import WeightsError
from codec.fixed import FixedPrior
from codec.model import MARGIN_PX, SCALES_LEVELS, ModelConfig, Transforms

FORMAT = "yoto-codec weights 1"
DEFAULT_PATH = Path(__file__).parent / "data" / "default.safetensors"
# The file that this release ships; anything else in its place is refused.
DEFAULT_SHA256 = "c1c17610be31aff6e65be9cfe0e4277f57d346299d52a0c8789b03f493608cdb"


@dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Attributes:
        model_id: first bytes of the SHA-256 of the file, as in the header of a `.yoto` file.
        sha256: hexadecimal.
        config: sizes of the network.
        transforms: the floating-point half, in evaluation mode, float32.
        tables: for the entropy coder.
        integers: the frozen entropy model.
        card: how the weights came to be: data, steps, time, figures.
    """

    model_id: bytes
    sha256: str
    config: ModelConfig
    transforms: Transforms
    tables: SymbolTables
    integers: dict[str, Tensor]
    card: dict[str, object]


def load(path: str | os.PathLike[str] | None = None) -> Weights:
    """Load a weights file, by default the one shipped with this release.

    Raises:
        WeightsError: it is missing, damaged, of another format or shape, or not the one that this release ships.
    """
    chosen = DEFAULT_PATH if path is None else Path(path)
    try:
        data = chosen.read_bytes()
    except OSError as error:
        raise WeightsError(f"the weights {chosen} cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data)
    if path is None and digest.hexdigest() != DEFAULT_SHA256:
        raise WeightsError(f"{chosen} is not the file that was released (its SHA-256 differs); reinstall yoto-codec")
    try:
        tensors = safetensors.torch.load(data)
        notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        if notes.get("format") != FORMAT:
            raise ValueError(f"its format is {notes.get('format')!r}, expected {FORMAT!r}")
        config = ModelConfig(**json.loads(notes["config"]))
        transforms, integers = _build(config, tensors)
        tables = SymbolTables(integers["tables.radii"].numpy(), integers["tables.frequencies"].numpy())
        z_index = integers["z_index"]
        if len(tables.rows) != SCALES_LEVELS or not 0 <= z_index.min() <= z_index.max() < SCALES_LEVELS:
            raise ValueError(f"the entropy model does not fit tables of {SCALES_LEVELS} rows")
        card = json.loads(notes.get("card", "{}"))
    except (safetensors.SafetensorError, ValueError, LookupError, TypeError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{chosen} is not a usable weights file: {reason}") from error
    model_id = digest.digest()[:MODEL_ID_BYTES]
    return Weights(model_id, digest.hexdigest(), config, transforms, tables, integers, card)


def _build(config: ModelConfig, tensors: dict[str, Tensor]) -> tuple[Transforms, dict[str, Tensor]]:
    """Fill the transforms and check that the frozen entropy model fits them."""
    if config.reach_px > MARGIN_PX:
        raise ValueError(f"its transforms reach {config.reach_px} px, tiles have a margin of {MARGIN_PX}")
    prefix = "transforms."
    with torch.device("meta"):  # no random initialisation that is overwritten at once
        transforms = Transforms(config)
    floats = {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    transforms.load_state_dict(floats, assign=True)
    transforms.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    integers = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    if any(v.is_floating_point() for v in integers.values()):
        raise ValueError("the entropy model holds floating-point tensors")
    for quality in (0, QUALITY_MAX):
        FixedPrior(integers, quality).check(config)
    return transforms, integers


def save(path: Path, config: ModelConfig, tensors: dict[str, Tensor], card: dict[str, object]) -> str:
    """Write a weights file; return its SHA-256."""
    notes = {"format": FORMAT, "config": json.dumps(vars(config)), "card": json.dumps(card)}
    data = safetensors.torch.save(tensors, metadata=notes)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
