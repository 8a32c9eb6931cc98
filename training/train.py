"""Train one model for every rate: `python -m training.train --config C --data DIR --out DIR`.

Resumes from OUT/checkpoint.pt if it is there. Under `torchrun` each process takes its share of the batch.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from codec.network.model import YotoModel
from training.config import TrainConfig
from training.data import CropSampler, find_images, validation_crops
from training.init import init_from_images
from training.loss import ConditionalLoss, LossValue
from training.muon import Muon

VALIDATION_QUALITIES = (0.1, 0.5, 0.9)
HELD_OUT = 32  # every 32nd image is for validation
LOG_EVERY = 50


def schedule(progress: float, step: int, config: TrainConfig) -> float:
    """Factor of the learning rate: warm-up, constant, linear decay to zero at progress 1."""
    warmup = min(1.0, (step + 1) / config.warmup)
    return warmup * min(1.0, (1.0 - progress) / (1.0 - config.constant_share))


def make_optimisers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon on the dense matrices of the network, AdamW on everything else."""
    small = ("film", "condition_net", "_gain", "z_index")
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and not any(s in n for s in small)]
    if config.optimiser == "adamw":
        matrices = []
    elif config.optimiser != "muon":
        raise ValueError(f"optimiser is '{config.optimiser}'; expected muon or adamw")
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(rest, lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
    ]
    if matrices:
        optimisers.append(Muon(matrices, lr=config.lr))
    return optimisers


def start_from(model: YotoModel, path: Path) -> None:
    """Take the averaged weights of a checkpoint; blocks that it lacks stay the identity.

    Raises:
        ValueError: it is of another shape otherwise.
    """
    start = torch.load(path, map_location="cpu", weights_only=True)["ema"]
    try:
        missing, unexpected = model.load_state_dict(start, strict=False)
    except RuntimeError as error:
        raise ValueError(f"{path} is of another shape: {error}") from error
    if unexpected or any("blocks." not in name for name in missing):
        raise ValueError(f"{path} has other layers: {', '.join([*missing, *unexpected])}")


class Trainer:
    """State of a run: model, averaged weights, optimisers, random numbers, clock."""

    def __init__(self, config: TrainConfig, sampler: CropSampler, device: torch.device) -> None:
        self.config, self.sampler, self.device = config, sampler, device
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        torch.manual_seed(config.seed)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.model = YotoModel(config.model)
        if config.init_from:
            start_from(self.model, Path(config.init_from))
        else:
            init_from_images(self.model, sampler.sample(256, config.patch, self.generator).cpu())
        self.model.to(device, memory_format=torch.channels_last)
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.optimisers = make_optimisers(self.model, config)
        self.loss = ConditionalLoss(balance=config.balance)
        self.step, self.seconds, self.skipped = 0, 0.0, 0
        runner: nn.Module = self.model
        if self.world > 1:
            runner = DistributedDataParallel(runner)
        self.runner = torch.compile(runner) if config.compile else runner

    @property
    def progress(self) -> float:
        """Share of the run that is done, from steps if they are bounded, else from time."""
        if self.config.steps:
            return self.step / self.config.steps
        return self.seconds / (60.0 * self.config.minutes)

    def batch(self) -> tuple[Tensor, Tensor]:
        """This process's share of the next batch: crops and positions of the coefficients.

        Every process draws the whole batch from the same generator, so that the draw does not depend on how many
        processes share it.
        """
        config = self.config
        final = self.progress >= 1.0 - config.final_share
        patch = config.final_patch if final else config.patch
        count = max(self.world, config.batch * config.patch**2 // patch**2)
        x = self.sampler.sample(count, patch, self.generator)
        units = self.loss.sample_units(count, self.generator)
        share = slice(self.rank, count, self.world)
        return x[share].to(memory_format=torch.channels_last), units[share].to(self.device)

    def train_step(self) -> LossValue | None:
        """One step; None if its gradient was not finite, and nothing was changed."""
        x, units = self.batch()
        factor = schedule(self.progress, self.step, self.config)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
            for group in optimiser.param_groups:
                group["lr"] = self.config.lr * factor
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            output = self.runner(x, 2.0 * units - 1.0)
        z_price = min(1.0, (self.step + 1) / max(1, self.config.z_warmup))
        value = self.loss(output, x, units, z_price)
        value.loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.step += 1
        if not torch.isfinite(norm):
            self.skipped += 1
            return None
        for optimiser in self.optimisers:
            optimiser.step()
        self.update_ema()
        return value

    @torch.no_grad()
    def update_ema(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        averaged, current = list(self.ema.values()), list(self.model.state_dict().values())
        torch._foreach_lerp_(averaged, current, 1.0 - decay)

    def advance_clock(self, seconds: float) -> None:
        """Count training time; all processes go by the first one's clock, so that they agree on the schedule."""
        self.seconds += seconds
        if self.world > 1:
            clock = torch.tensor(self.seconds, dtype=torch.float64, device=self.device)
            dist.broadcast(clock, src=0)
            self.seconds = clock.item()

    def state(self) -> dict[str, object]:
        return {
            "config": dataclasses.asdict(self.config),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "generator": self.generator.get_state(),
            "torch_rng": torch.get_rng_state(),
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
        }

    def restore(self, state: dict) -> None:
        """Continue from `state()` of an earlier process."""
        self.model.load_state_dict(state["model"])
        self.ema = {k: v.to(self.device) for k, v in state["ema"].items()}
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch_rng"])
        self.step, self.seconds, self.skipped = state["step"], state["seconds"], state["skipped"]

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the model for a while."""
        current = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        try:
            yield
        finally:
            self.model.load_state_dict(current)

    @torch.no_grad()
    def validate(self, crops: Tensor) -> dict[str, float]:
        """Rate, PSNR and mean log Lagrangian of the averaged weights, with rounded symbols."""
        scalars: dict[str, float] = {}
        logs = []
        with self.averaged():
            for quality in VALIDATION_QUALITIES:
                bpp, mse = [], []
                for x in crops.to(self.device).split(8):
                    units = torch.full((len(x), 1), quality, device=self.device)
                    output = self.model(x, 2.0 * units - 1.0, noise=False)
                    value = self.loss(output, x, units)
                    bpp.append(value.bpp)
                    mse.append(value.distortions[:, 0])
                rate, distortion = torch.cat(bpp).mean().item(), torch.cat(mse).mean().item()
                scalars[f"bpp/{quality}"] = rate
                scalars[f"psnr/{quality}"] = -10.0 * math.log10(distortion)
                lmbda = self.loss.terms[0].coefficient(torch.tensor(quality)).item()
                logs.append(math.log(rate + lmbda * 255.0**2 * distortion))
        scalars["log_lagrangian"] = sum(logs) / len(logs)
        return scalars


def save_atomically(state: dict[str, object], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


class ScalarLog:
    """Scalars to a JSON-lines file, and to TensorBoard where it is installed."""

    def __init__(self, folder: Path) -> None:
        self.file = (folder / "log.jsonl").open("a")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self.board = None
        else:
            self.board = SummaryWriter(str(folder))

    def close(self) -> None:
        self.file.close()
        if self.board:
            self.board.close()

    def write(self, step: int, scalars: dict[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **scalars}) + "\n")
        self.file.flush()
        if self.board:
            for name, value in scalars.items():
                self.board.add_scalar(name, value, step)


def run(trainer: Trainer, out: Path, crops: Tensor) -> None:
    """Train until the time or the steps are used up; log, validate and save on the way."""
    config = trainer.config
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        trainer.restore(torch.load(checkpoint, map_location=trainer.device, weights_only=True))
    log = ScalarLog(out) if trainer.rank == 0 else None
    losses: list[Tensor] = []
    mark = saved = time.monotonic()
    while trainer.progress < 1.0:
        value = trainer.train_step()
        now = time.monotonic()
        trainer.advance_clock(now - mark)
        mark = now
        if value is not None:
            losses.append(value.loss.detach())
        if log and trainer.step % LOG_EVERY == 0:
            report(trainer, log, losses)
            losses.clear()
        if log and now - saved > 60.0 * config.checkpoint_minutes:
            save_and_validate(trainer, log, checkpoint, crops)
            mark = saved = time.monotonic()
    if log:
        save_and_validate(trainer, log, checkpoint, crops)
        log.close()


def save_and_validate(trainer: Trainer, log: ScalarLog, checkpoint: Path, crops: Tensor) -> None:
    """Write the checkpoint, then measure the averaged weights; validation does not count as training time."""
    save_atomically(trainer.state(), checkpoint)
    scalars = trainer.validate(crops)
    log.write(trainer.step, scalars)
    click.echo(" ".join(f"{k}={v:.4f}" for k, v in scalars.items()), err=True)


def report(trainer: Trainer, log: ScalarLog, losses: list[Tensor]) -> None:
    """Log the mean loss since the last report and show how far the run is."""
    mean = torch.stack(losses).mean().item() if losses else math.nan
    rate = trainer.step / max(trainer.seconds, 1e-9)
    left = trainer.seconds * (1.0 - trainer.progress) / max(trainer.progress, 1e-9)
    log.write(trainer.step, {"loss": mean, "steps_per_second": rate, "skipped": trainer.skipped})
    click.echo(
        f"step {trainer.step} loss {mean:.4f} {rate:.2f} steps/s"
        f" {100 * trainer.progress:.1f} % {left / 60:.0f} min left",
        err=True,
    )


def default_device() -> str:
    """The accelerator if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


@click.command()
@click.option("--config", "config_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of training images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--device", default=default_device(), show_default=True)
def main(config_path: Path, data: Path, out: Path, device: str) -> None:
    """Train a loss-conditional codec model."""
    # Momenta of dead units decay to denormals, which made Muon ten times as slow; threads started later inherit this.
    torch.set_flush_denormal(True)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    try:
        config = TrainConfig.load(config_path)
        paths = find_images(data)
        out.mkdir(parents=True, exist_ok=True)
        held_out = paths[::HELD_OUT][: config.validation_images]
        sampler = CropSampler([p for i, p in enumerate(paths) if i % HELD_OUT], torch.device(device))
        trainer = Trainer(config, sampler, torch.device(device))
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    run(trainer, out, validation_crops(held_out, config.final_patch))
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
