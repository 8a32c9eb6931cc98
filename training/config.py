"""Settings of one stage of training, read from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codec.network.config import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """One stage: a plateau at a constant rate, a cool-down from any checkpoint of it, or both in one.

    Attributes:
        minutes: training time of the stage, over all resumptions; so the schedule decays to the end of whatever time
            there is.
        steps: stop after this many steps, however much time is left; 0 for no bound. With a bound, the schedule
            follows the steps, and the stage is reproducible.
        batch: samples per step over all processes.
        patch: side of the crops in px, a multiple of 64.
        final_patch: side of the crops in the last `final_share` of the stage; the batch shrinks to keep the pixels.
        lr: peak learning rate; Muon takes it for the dense matrices, AdamW for the rest.
        outer_lr: share of lr for the outer linear layers, which hold the lapped transform and are precise already.
        optimiser: "muon", or "adamw" for all parameters.
        weight_decay: decoupled, of Muon's matrices.
        warmup: steps of linear warm-up, counted from the first stage's start.
        z_warmup: steps over which the price of z's bits rises to its full height; a z at full price before h_s can
            use it collapses for good.
        constant_share: share of the stage at the peak, before the linear decay to 0; 1 is a plateau, 0 a cool-down.
        clip: greatest norm of the gradient.
        ema: decay of the averaged weights, ramped up from 0.
        balance: each sample's loss is scaled by λ to this power.
        decoder_only: freeze everything before the bits, and train synthesis and prior on what the encoder sends.
        realism: freeze everything, and train what the realism adds to the synthesis, see `training/realism.py`.
        revive: begin by giving hidden units that do nothing another start, see `training.health.revive`.
        synthetic_share: share of the crops that are drawn (text, charts, dithers …) rather than photographed.
        synthetic_limit: greatest loss of a drawn crop, some of which would cost a hundred times a photograph's 1 or 2.
        bfloat16: run the blocks in bfloat16; on CPUs without fast bfloat16 products float32 is the faster one.
        compile: have torch compile the blocks, where C kernels do not run them already.
    """

    minutes: float = 60.0
    steps: int = 0
    batch: int = 16
    patch: int = 128
    final_patch: int = 256
    final_share: float = 0.1
    lr: float = 2e-3
    outer_lr: float = 1.0
    optimiser: str = "muon"
    weight_decay: float = 0.0
    warmup: int = 100
    z_warmup: int = 2000
    constant_share: float = 0.4
    clip: float = 1.0
    ema: float = 0.998
    balance: float = -0.5
    decoder_only: bool = False
    realism: bool = False
    revive: bool = False
    synthetic_share: float = 0.0
    synthetic_limit: float = 1.0
    seed: int = 0
    bfloat16: bool = True
    compile: bool = False
    checkpoint_minutes: float = 5.0
    validate_every: int = 1
    validation_images: int = 32
    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        if self.optimiser not in ("muon", "adamw"):
            raise ValueError(f"optimiser is '{self.optimiser}'; expected muon or adamw")
        if min(self.batch, self.patch, self.final_patch, self.validate_every) < 1:
            raise ValueError("batch, patch, final_patch and validate_every must be at least 1")
        if self.patch % 64 or self.final_patch % 64:
            raise ValueError(f"patches of {self.patch} and {self.final_patch} px; sides must be multiples of 64")
        if self.decoder_only and self.realism:
            raise ValueError("decoder_only and realism are two stages, one after the other")
        if self.steps < 0 or (not self.steps and self.minutes <= 0.0):
            raise ValueError(f"{self.steps} steps in {self.minutes} minutes are no training")

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a TOML file; an unknown key, a wrong type or an impossible value raises ValueError."""
        try:
            values = tomllib.loads(path.read_text())
            model = _checked(ModelConfig, values.pop("model", {}), f"{path}: [model]")
            return cls(**_checked(cls, values, str(path)), model=ModelConfig(**model))
        except ValueError as error:  # also of tomllib
            raise error if str(path) in str(error) else ValueError(f"{path}: {error}") from error


def differences(saved: dict[str, Any], config: TrainConfig) -> list[str]:
    """What differs between a checkpoint's settings and these, as "lr = 0.001, not 0.002"; empty if nothing does."""
    now = dataclasses.asdict(config)
    flat_saved = {**saved, **saved.get("model", {})}
    flat_now = {**now, **now["model"]}
    return [
        f"{name} = {flat_saved[name]}, not {value}"
        for name, value in flat_now.items()
        if name != "model" and name in flat_saved and flat_saved[name] != value
    ]


def _checked(cls: type, values: dict[str, Any], where: str) -> dict[str, Any]:
    fields = {f.name: type(f.default) for f in dataclasses.fields(cls)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"{where} has an unknown setting '{name}'; known: {', '.join(fields)}")
        if fields[name] is float and isinstance(value, int) and not isinstance(value, bool):
            values[name] = float(value)
        elif type(value) is not fields[name]:
            raise ValueError(f"{where}: {name} is {value!r}; expected {fields[name].__name__}")
    return values
