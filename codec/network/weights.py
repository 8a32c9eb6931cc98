"""Weights on disk: one safetensors file a model, named by what its decoder needs; never a pickle. Needs no torch.

A model's id is the start of the SHA-256 of its config and of its decoder's tensors. An encoder that is trained on, a
realism that is added, or another model card, leaves it as it is. Every model that was ever shipped stays in
`data/models`, so that its files decode for ever. Files of format 1, the first edition's, are named by the SHA-256 of
the whole file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from codec.errors import ModelMismatchError, WeightsError
from codec.format.bitstream import MODEL_ID_BYTES
from codec.format.entropy import SymbolTables
from codec.network.bounds import check_exact, check_shapes
from codec.network.config import ModelConfig

FORMAT, FIRST_FORMAT = "yoto-codec weights 2", "yoto-codec weights 1"
FOLDER = Path(__file__).parent.parent / "data" / "models"
SUFFIX = ".safetensors"
DEFAULT_ID = bytes.fromhex("c1c17610be31")
FLOATS = "transforms."  # prefix of the floating-point half
ENCODER = tuple(FLOATS + part for part in ("g_a.", "h_a.", "encoder_gain."))  # what a decoder does not need
REALISM = "realism."  # prefix of what a decoder may add to its synthesis; files do not depend on it
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

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Attributes:
        model_id: as in the header of a `.yoto` file.
        sha256: of config and decoder's tensors, hexadecimal.
        config: sizes and constants of the network.
        floats: tensors of the floating-point half, by their names in `Transforms`, float32.
        tables: for the entropy coder.
        integers: the frozen entropy model.
        card: how the weights came to be: data, steps, time, figures.
        path: of the file.
        realism: what realism 1 adds to the tensors of the synthesis, by their names in `Transforms`; empty if the model
            has not learned it.
    """

    model_id: bytes
    sha256: str
    config: ModelConfig
    floats: dict[str, npt.NDArray[np.float32]]
    tables: SymbolTables
    integers: Arrays
    card: dict[str, object]
    path: Path
    realism: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def with_realism(self, share: float) -> Weights:
        """The weights of a synthesis on the way, `share` of it, from faithful to realistic.

        Raises:
            WeightsError: the model has not learned it.
        """
        if not self.realism:
            raise WeightsError(f"the weights {self.model_id.hex()} have no realism; decode with realism 0")
        moved = {name: self.floats[name] + np.float32(share) * added for name, added in self.realism.items()}
        return replace(self, floats=self.floats | moved)


def available() -> list[bytes]:
    """Ids of the models that are installed."""
    return sorted(bytes.fromhex(path.name.removesuffix(SUFFIX)) for path in FOLDER.glob(f"*{SUFFIX}"))


def find(model_id: bytes) -> Path:
    """The file of an installed model; ModelMismatchError names those that there are."""
    if model_id not in (known := available()):
        there = ", ".join(each.hex() for each in known) or "none"
        raise ModelMismatchError(f"the file needs the weights {model_id.hex()}; installed are {there}")
    return FOLDER / f"{model_id.hex()}{SUFFIX}"


def load(path: str | os.PathLike[str] | None = None, model_id: bytes = DEFAULT_ID) -> Weights:
    """Load a weights file, if no path is given that of an installed model.

    Raises:
        WeightsError: it is missing, damaged, of another format or shape, or not the model that its name says.
        ModelMismatchError: no such model is installed.
    """
    chosen = find(model_id) if path is None else Path(path)
    try:
        data = chosen.read_bytes()
    except OSError as error:
        raise WeightsError(f"the weights {chosen} cannot be read: {error.strerror}") from error
    try:
        weights = parse(data, chosen)
        if path is not None:  # what is installed is known by its hash
            check_exact(weights.integers, weights.config)
    except UNUSABLE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise WeightsError(f"{chosen} is not a usable weights file: {reason}") from error
    if path is None and weights.model_id != model_id:
        raise WeightsError(f"{chosen} is not the model that was released; reinstall yoto-codec")
    return weights


def parse(data: bytes, path: Path) -> Weights:
    """Read the bytes of a weights file and check that they form a model; one of `UNUSABLE` if not."""
    tensors = safetensors.numpy.load(data)
    notes = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    if notes.get("format") not in (FORMAT, FIRST_FORMAT):
        raise ValueError(f"its format is {notes.get('format')!r}, expected {FORMAT!r}")
    first = notes["format"] == FIRST_FORMAT
    settings = json.loads(notes["config"])
    config = ModelConfig(**(first_edition_settings(settings) if first else settings))
    config.validate()
    if config.num_coefficients != 1:
        raise ValueError("a codec is conditioned on quality alone")
    integers = {name: tensor for name, tensor in tensors.items() if not name.startswith((FLOATS, REALISM))}
    check_shapes(integers, config)
    floats, realism = (
        {name.removeprefix(prefix): _finite(name, value) for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in (FLOATS, REALISM)
    )
    check_realism(realism, floats)
    tables = SymbolTables(integers["tables.radii"], integers["tables.frequencies"])
    if first:
        floats = dict(first_edition_tensor(*item) for item in floats.items())
        sha256 = hashlib.sha256(data).hexdigest()
    else:
        sha256 = digest(notes["config"], {k: v for k, v in tensors.items() if not k.startswith((*ENCODER, REALISM))})
    model_id = bytes.fromhex(sha256)[:MODEL_ID_BYTES]
    card = json.loads(notes.get("card", "{}"))
    return Weights(model_id, sha256, config, floats, tables, integers, card, path, realism)


def check_realism(realism: Arrays, floats: Arrays) -> None:
    """ValueError unless it is nothing, or fits the synthesis tensor by tensor."""
    shapes = {name: value.shape for name, value in floats.items() if name.startswith("g_s.")}
    if realism and {name: value.shape for name, value in realism.items()} != shapes:
        raise ValueError("its realism does not fit its synthesis")


def first_edition_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """A configuration of format 1 in today's terms: all blocks at 1/8, ReLU gates, hidden units without bound."""
    coarse = {f"{side}_coarse": settings.pop(f"{side}_blocks") for side in ("analysis", "synthesis")}
    if settings.pop("latent_blocks", 0):
        raise ValueError("it has blocks at 1/16 resolution, which no release had")
    fine = {"analysis_blocks": 0, "synthesis_blocks": 0, "extra": 0}
    return settings | coarse | fine | {"gate": "relu", "hidden_max": 0.0, "margin_px": 64}


def first_edition_tensor(name: str, tensor: npt.NDArray[Any]) -> tuple[str, npt.NDArray[Any]]:
    """A tensor of format 1 under today's name, pixels of 8×8 blocks in the order of 4×4 cells in 2×2."""
    order = np.arange(192).reshape(3, 2, 4, 2, 4).transpose(0, 2, 4, 1, 3).reshape(-1)
    if name == "g_a.head.weight":
        return name, tensor[:, order]
    if name in ("g_s.tail.weight", "g_s.tail.bias"):
        return name, tensor[order]
    return name.replace(".blocks.", ".coarse."), tensor


def _finite(name: str, tensor: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if tensor.dtype not in (np.float16, np.float32):
        raise ValueError(f"{name} holds {tensor.dtype}, expected floating-point numbers of 16 or 32 bits")
    if not np.isfinite(tensor).all():
        raise ValueError(f"{name} holds numbers that are not finite")
    return tensor.astype(np.float32)


def digest(config: str, tensors: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256, hexadecimal, of a config as JSON and of tensors.

    Sorted by name: what they are called, type and shape as NumPy writes them, then the numbers, little-endian.
    """
    state = hashlib.sha256(json.dumps(json.loads(config), sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        state.update(f"\n{name} {tensor.dtype.name} {list(tensor.shape)}\n".encode())
        state.update(little.data if little.size else b"")
    return state.hexdigest()


def save(path: Path, config: ModelConfig, tensors: Mapping[str, npt.NDArray[Any]], card: dict[str, object]) -> None:
    """Write a weights file: float16 or float32 tensors "transforms.…", and the frozen entropy model."""
    described = json.dumps(vars(config), sort_keys=True)
    notes = {
        "format": FORMAT,
        "config": described,
        "card": json.dumps(card),
    }
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    path.write_bytes(safetensors.numpy.save(contiguous, metadata=notes))
