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

from codec.errors import WeightsError
from codec.format.bitstream import MODEL_ID_BYTES
from codec.format.entropy import SymbolTables
from codec.network.bounds import check_config, check_exact, check_shapes
from codec.network.config import ModelConfig
from codec.network.transforms import Transforms

FORMAT = "yoto-codec weights 1"
DEFAULT_PATH = Path(__file__).parent.parent / "data" / "default.safetensors"
# The file that this release ships; anything else in its place is refused.
DEFAULT_SHA256 = "c1c17610be31aff6e65be9cfe0e4277f57d346299d52a0c8789b03f493608cdb"
# What reading a file that is not a weights file, or a damaged one, may raise.
UNUSABLE = (
    safetensors.SafetensorError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


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
        if path is not None:  # what is shipped is known by its hash
            check_exact(integers, config)
        card = json.loads(notes.get("card", "{}"))
    except UNUSABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{chosen} is not a usable weights file: {reason}") from error
    model_id = digest.digest()[:MODEL_ID_BYTES]
    return Weights(model_id, digest.hexdigest(), config, transforms, tables, integers, card)


def _build(config: ModelConfig, tensors: dict[str, Tensor]) -> tuple[Transforms, dict[str, Tensor]]:
    """Fill the transforms and check that the frozen entropy model fits them."""
    check_config(config)
    prefix = "transforms."
    with torch.device("meta"):  # no random initialisation that is overwritten at once
        transforms = Transforms(config)
    floats = {k.removeprefix(prefix): v.float() for k, v in tensors.items() if k.startswith(prefix)}
    transforms.load_state_dict(floats, assign=True)
    transforms.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    integers = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    check_shapes(integers, config)
    return transforms, integers


def save(path: Path, config: ModelConfig, tensors: dict[str, Tensor], card: dict[str, object]) -> str:
    """Write a weights file; return its SHA-256."""
    notes = {"format": FORMAT, "config": json.dumps(vars(config)), "card": json.dumps(card)}
    data = safetensors.torch.save(tensors, metadata=notes)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
