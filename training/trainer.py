"""State and step of a training run; `train.py` is the loop around it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codec.network.layers import ResidualBlock
from codec.network.model import YotoModel
from training import checkpoint, health, synthetic
from training.checkpoint import State
from training.conditional import Score
from training.config import TrainConfig, differences
from training.data import CropSampler
from training.fused import accelerate
from training.init import init_from_images
from training.loss import ERROR, RATE, codec_objective, realism_objective
from training.muon import Muon
from training.realism import RealismModel
from training.sent import SentModel, freeze_encoder

VALIDATION_QUALITIES = (0.1, 0.5, 0.9)
REVIVED_ON = 64  # crops on which units are told to be idle
EXAMINED = 6  # held-out crops on which the blocks' worth is measured
MAX_NON_FINITE = 10  # such steps in a row: the weights are lost, and no further step will mend them
OUTLIER = 20.0  # times the running mean of the loss: one such batch undoes what hundreds taught
LOSS_MEMORY = 0.99  # of the running mean


class TrainingError(RuntimeError):
    """Training cannot go on."""


@dataclasses.dataclass
class Outlier:
    """A batch whose step was skipped for its loss, of this process."""

    step: int
    loss: float
    x: Tensor
    units: Tensor


def schedule(progress: float, step: int, config: TrainConfig) -> float:
    """Factor of the learning rate: warm-up, constant, linear decay to zero at progress 1."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup))
    return warmup * min(1.0, (1.0 - progress) / max(1e-9, 1.0 - config.constant_share))


def make_optimisers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon on the dense matrices, AdamW on the rest; the outer linear layers take `outer_lr` of the rate."""
    named = dict(model.named_parameters())
    dtype = torch.bfloat16 if config.bfloat16 else torch.float32
    adamw, muon = (
        [
            {"params": [named[n] for n in names], "scale": config.outer_lr if is_outer(names[0]) else 1.0}
            for names in groups
        ]
        for groups in checkpoint.parameter_groups(model, config.optimiser == "muon")
    )
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(adamw, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    ]
    if muon:
        optimisers.append(Muon(muon, lr=config.lr, decay=config.weight_decay, dtype=dtype))
    return optimisers


def network(realism: bool) -> type[YotoModel]:
    """What is trained."""
    return RealismModel if realism else YotoModel


def is_outer(name: str) -> bool:
    return any(part in name for part in checkpoint.OUTER)


class Trainer:
    """State of a run: model, averaged weights, optimisers, random numbers, clock.

    Args:
        start: what to begin this stage from, a checkpoint under other settings; None for a first stage.
    """

    def __init__(
        self, config: TrainConfig, sampler: CropSampler, device: torch.device, start: State | None = None
    ) -> None:
        self.config, self.sampler, self.device = config, sampler, device
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        config.model.validate()
        self.objective = (realism_objective if config.realism else codec_objective)(config.model, config.balance)
        self.model = network(config.realism)(config.model)
        if start is None:
            init_from_images(self.model, sampler.sample(256, config.patch, self.generator).cpu())
        self.model.to(device, memory_format=torch.channels_last)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimisers = make_optimisers(self.model, config)
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        self.stage_step, self.stage_seconds = 0, 0.0
        self.non_finite, self.running_loss = 0, math.nan
        self.outlier: Outlier | None = None
        if start is not None:
            self.begin_stage(start)
        self.runner = self._runner()

    def _runner(self) -> nn.Module:
        """What a step calls: the model, sped up, behind the encoder's choices, in several processes, as it is set."""
        config, model = self.config, self.model
        if not (config.bfloat16 and self.device.type == "cpu" and accelerate(model)) and config.compile:
            for module in model.modules():
                if isinstance(module, ResidualBlock):
                    module.compile()
        runner: nn.Module = model
        if config.decoder_only:
            freeze_encoder(model)
            runner = SentModel(model)
        return DistributedDataParallel(runner, gradient_as_bucket_view=True) if self.world > 1 else runner

    @property
    def progress(self) -> float:
        """Share of the stage that is done, from steps if they are bounded, else from time."""
        if self.config.steps:
            return (self.step - self.stage_step) / self.config.steps
        return (self.seconds - self.stage_seconds) / (60.0 * self.config.minutes)

    def batch(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """This process's share of the next batch: crops, positions of the coefficients, limits of the samples' losses.

        Every process draws the whole batch from the same generator, so that the draw does not depend on how many
        processes share it.
        """
        config = self.config
        final = self.progress >= 1.0 - config.final_share
        patch = config.final_patch if final else config.patch
        count = max(self.world, config.batch * config.patch**2 // patch**2)
        share = slice(self.rank, count, self.world)
        x = self.sampler.sample(count, patch, self.generator, share)
        units = self.objective.sample(count, self.generator)[share].to(self.device)
        limits = None
        if config.synthetic_share:
            seeds = synthetic.choose(count, config.synthetic_share, self.generator)[share]
            synthetic.mix_in(x, seeds)
            limits = torch.where(seeds >= 0, config.synthetic_limit, math.inf).to(self.device)
        return x.to(memory_format=torch.channels_last), units, limits

    def train_step(self) -> Score | None:
        """One step; None if it was skipped, its gradient not finite or its loss an outlier, and nothing was changed.

        Raises:
            TrainingError: the tenth step in a row is not finite.
        """
        x, units, limits = self.batch()
        factor = schedule(self.progress, self.step, self.config)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = self.config.lr * factor * group["scale"]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            output = self.runner(x, self.objective.condition(units))
        z_price = min(1.0, (self.step + 1) / max(1, self.config.z_warmup))
        value = self.objective(output._replace(z_bits=z_price * output.z_bits), x, units, limits)
        value.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, foreach=True)
        self.step += 1
        if not self.accepts(self.mean_loss(value.loss), bool(torch.isfinite(norm)), x, units):
            return None
        for optimiser in self.optimisers:
            optimiser.step()
        self.update_ema()
        return value

    def mean_loss(self, loss: Tensor) -> float:
        """Over all processes, so that they decide alike."""
        loss = loss.detach().clone()
        if self.world > 1:
            dist.all_reduce(loss)
        return loss.item() / self.world

    def accepts(self, loss: float, finite: bool, x: Tensor, units: Tensor) -> bool:
        """Whether to take the step; counts, and keeps the batch, if not."""
        finite = finite and math.isfinite(loss)
        self.non_finite = 0 if finite else self.non_finite + 1
        outlier = finite and loss > OUTLIER * self.running_loss  # false while there is no mean
        if not finite or outlier:
            self.skipped += 1
            self.outlier = Outlier(self.step, loss, x.cpu(), units.cpu())
            if self.non_finite >= MAX_NON_FINITE:
                raise TrainingError(f"step {self.step}: {MAX_NON_FINITE} steps in a row were not finite")
            return False
        known = not math.isnan(self.running_loss)
        self.running_loss = LOSS_MEMORY * self.running_loss + (1 - LOSS_MEMORY) * loss if known else loss
        return True

    @torch.no_grad()
    def update_ema(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        current = self.model.state_dict()
        torch._foreach_lerp_([self.ema[name] for name in current], list(current.values()), 1.0 - decay)

    def advance_clock(self, seconds: float) -> None:
        """Count training time; all processes go by the first one's clock, so that they agree on the schedule."""
        self.seconds += seconds
        if self.world > 1:
            clock = torch.tensor(self.seconds, dtype=torch.float64, device=self.device)
            dist.broadcast(clock, src=0)
            self.seconds = clock.item()

    def state(self) -> State:
        """All that a later process needs to go on as if there had been no interruption."""
        return {
            "config": dataclasses.asdict(self.config),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "stage_step": self.stage_step,
            "stage_seconds": self.stage_seconds,
            "running_loss": self.running_loss,
        }

    def restore(self, state: State) -> None:
        """Continue from `state()` of an earlier process under the same settings.

        Raises:
            ValueError: they were others.
        """
        if changed := differences(state["config"], self.config):
            raise ValueError(
                f"the checkpoint was trained with {'; '.join(changed)}."
                " To go on under new settings, begin a stage: --from the checkpoint, into a new --out"
            )
        self._take(state)
        self.stage_step, self.stage_seconds = state["stage_step"], state["stage_seconds"]

    def begin_stage(self, state: State) -> None:
        """Take over a run under these settings; blocks that its network lacks start as the identity.

        Averaged weights alone, as `training.thaw` writes them, begin at step 0. A stage that keeps the encoder starts
        from the averaged weights, which are what ships.
        """
        if self.config.decoder_only or self.config.realism:
            state = {**state, "model": state["ema"]}
        if "optimisers" in state:
            self._take(state)
        else:
            self._take_weights(state["ema"], state["ema"])
        self.stage_step, self.stage_seconds = self.step, self.seconds
        if self.config.revive:
            self._revive()

    def _revive(self) -> None:
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        crops = self.sampler.sample(REVIVED_ON, self.config.patch, torch.Generator().manual_seed(self.config.seed))
        units = self.units(0.5, REVIVED_ON)
        units[:, 0] = torch.linspace(0.0, 1.0, REVIVED_ON)
        health.revive(self.model, self.objective.condition(units), crops.to(self.device))
        for name, value in self.model.state_dict().items():
            self.ema[name] = torch.where(value != before[name], value, self.ema[name])

    def _take(self, state: State) -> None:
        self.step, self.seconds, self.skipped = state["step"], state["seconds"], state["skipped"]
        self.running_loss = state.get("running_loss", math.nan)
        self._take_weights(state["model"], state["ema"])
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        remembered = checkpoint.momenta(state, network(state["config"].get("realism", False)))
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                for parameter in group["params"]:
                    known = remembered.get(names[parameter], {})
                    if known.keys() == {"momentum_buffer"} or "exp_avg" in known:
                        optimiser.state[parameter] = {
                            key: value.to(self.device, torch.float32) for key, value in known.items()
                        }
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda" and state.get("cuda_rng") is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)

    def _take_weights(self, weights: State, averaged: State) -> None:
        checkpoint.load_weights(self.model, weights, "the checkpoint")
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        for name, average in averaged.items():
            self.ema[name].copy_(average)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the model for a while."""
        current = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        try:
            yield
        finally:
            self.model.load_state_dict(current)

    def units(self, quality: float, count: int) -> Tensor:
        """Positions (count, K) of a quality, other coefficients in the middle."""
        units = torch.full((count, len(self.objective.drawn)), 0.5, device=self.device)
        units[:, 0] = quality
        return units

    @torch.no_grad()
    def validate(self, crops: Tensor) -> dict[str, float]:
        """Of the averaged weights, with rounded symbols: rate, PSNR, mean log Lagrangian, and the blocks' health."""
        scalars: dict[str, float] = {}
        logs = []
        names = [term.name for term in self.objective.terms]
        crops = crops.to(self.device)
        with self.averaged():
            for quality in VALIDATION_QUALITIES:
                terms = []
                for x in crops.split(8):
                    units = self.units(quality, len(x))
                    output = self.model(x, self.objective.condition(units), noise=False)
                    terms.append(self.objective(output, x, units).terms)
                means = dict(zip(names, torch.cat(terms).mean(dim=0).tolist(), strict=True))
                scalars[f"bpp/{quality}"] = means[RATE]
                scalars[f"psnr/{quality}"] = -10.0 * math.log10(means[ERROR] / 255.0**2)
                logs.append(math.log(means[RATE] + self.config.model.lmbda(quality) * means[ERROR]))
            some = crops[:EXAMINED]
            qualities = torch.tensor(VALIDATION_QUALITIES, device=self.device)
            units = self.units(0.5, len(some))
            units[:, 0] = qualities.repeat(EXAMINED)[: len(some)]
            scalars["log_lagrangian"] = sum(logs) / len(logs)
            return {**scalars, **health.examine(self.model, self.objective, some, units)}
