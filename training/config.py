"""Settings of one training run, read from a TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from codec.network.config import ModelConfig


@dataclass(frozen=True)
class TrainConfig:
    """One run. Times rather than steps bound it, so that the schedule decays to the end of whatever time there is.

    Attributes:
        minutes: training time, over all resumptions.
        steps: stop after this many steps, however much time is left; 0 for no bound. With a bound, the schedule
            follows the steps, and the run is reproducible.
        batch: samples per step over all processes.
        patch: side of the crops in px, a multiple of 64.
        final_patch: side of the crops in the last `final_share` of the run; the batch shrinks to keep the pixels.
        lr: peak learning rate; Muon takes it for the dense matrices, AdamW for the rest.
        warmup: steps of linear warm-up.
        z_warmup: steps over which the price of z's bits rises to its full height.
        constant_share: share of the run at the peak, before the linear decay to 0.
        bfloat16: run the blocks in bfloat16; on CPUs without fast bfloat16 products float32 is the faster one.
        ema: decay of the averaged weights, ramped up from 0.
        init_from: checkpoint to start from, of an earlier run; the network may have more blocks.
    """

    minutes: float = 60.0
    steps: int = 0
    batch: int = 16
    patch: int = 128
    final_patch: int = 256
    final_share: float = 0.1
    lr: float = 2e-3
    optimiser: str = "muon"
    warmup: int = 100
    z_warmup: int = 2000
    constant_share: float = 0.4
    clip: float = 1.0
    ema: float = 0.998
    balance: float = -0.5
    seed: int = 0
    bfloat16: bool = True
    compile: bool = False
    checkpoint_minutes: float = 5.0
    validation_images: int = 32
    init_from: str = ""
    model: ModelConfig = field(default_factory=ModelConfig)

    @classmethod
    def load(cls, path: Path) -> TrainConfig:
        """Read a TOML file; an unknown key or a wrong type raises ValueError."""
        values = tomllib.loads(path.read_text())
        model = _checked(ModelConfig, values.pop("model", {}), f"{path}: [model]")
        return cls(**_checked(cls, values, str(path)), model=ModelConfig(**model))


def _checked(cls: type, values: dict[str, object], where: str) -> dict[str, object]:
    fields = {f.name: type(f.default) for f in dataclasses.fields(cls)}
    for name, value in values.items():
        if name not in fields:
            raise ValueError(f"{where} has an unknown setting '{name}'; known: {', '.join(fields)}")
        if fields[name] is float and isinstance(value, int) and not isinstance(value, bool):
            values[name] = float(value)
        elif not isinstance(value, fields[name]):
            raise ValueError(f"{where}: {name} is {value!r}; expected {fields[name].__name__}")
    return values
