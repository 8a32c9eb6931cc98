"""Train one model for every rate, in stages: `python -m training.train --config C --data DIR --out DIR`.

A stage resumes from OUT/checkpoint.pt if that is there, under the settings it began with. The next stage, be it a
cool-down, a decoder's stage, or a plateau with more blocks, begins `--from` any checkpoint, in a folder of its own; or
from released weights, see `training.thaw`.
Under `torchrun` each process takes its share of the batch; on a CPU, one process of one thread (OMP_NUM_THREADS=1) per
core, and GLIBC_TUNABLES=glibc.malloc.hugetlb=1, which saves a twelfth of the blocks' time.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import math
import os
import time
from pathlib import Path

import click
import torch
import torch.distributed as dist
from torch import Tensor

from training import checkpoint, health
from training.config import TrainConfig
from training.data import HELD_OUT, CropSampler, find_images, validation_crops
from training.trainer import Trainer, TrainingError

LOG_EVERY = 50
KEPT_OUTLIERS = 20  # batches that are kept to be looked at
# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD: no page is given back, for a step would fault in 26,000 again.
KEEP_PAGES = ((-4, 0), (-1, 2**31 - 1), (-2, 2**26))


def bfloat16_pays() -> bool:
    """Whether this CPU multiplies faster in bfloat16 (AMD's Zen 4 and 5 do, some Intel Xeons do not)."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, w = torch.randn(8192, 192).to(dtype), torch.randn(192, 384).to(dtype)
        x @ w
        start = time.perf_counter()
        for _ in range(20):
            x @ w
        seconds[dtype] = time.perf_counter() - start
    return seconds[torch.bfloat16] < seconds[torch.float32]


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
    """Train until the stage's time or steps are used up; log, validate and save on the way."""
    config = trainer.config
    path = out / "checkpoint.pt"
    log = ScalarLog(out) if trainer.rank == 0 else None
    losses: list[Tensor] = []
    saves = 0
    mark = saved = time.monotonic()
    while trainer.progress < 1.0:
        value = trainer.train_step()
        now = time.monotonic()
        trainer.advance_clock(now - mark)
        mark = now
        keep_outlier(trainer, out)
        if value is not None:
            losses.append(value.loss.detach())
        if log and trainer.step % LOG_EVERY == 0:
            report(trainer, log, losses)
            losses.clear()
        if log and now - saved > 60.0 * config.checkpoint_minutes:
            checkpoint.save_atomically(trainer.state(), path)
            saves += 1
            if saves % config.validate_every == 0:
                validate(trainer, log, crops)
            mark = saved = time.monotonic()  # neither counts as training time
    if log:
        checkpoint.save_atomically(trainer.state(), path)
        validate(trainer, log, crops)
        log.close()


def keep_outlier(trainer: Trainer, out: Path) -> None:
    """Write the batch of a skipped step to OUT/outliers."""
    outlier, trainer.outlier = trainer.outlier, None
    folder = out / "outliers"
    if outlier and len(list(folder.glob("*.pt"))) < KEPT_OUTLIERS:
        folder.mkdir(exist_ok=True)
        torch.save(dataclasses.asdict(outlier), folder / f"step-{outlier.step}-process-{trainer.rank}.pt")


def validate(trainer: Trainer, log: ScalarLog, crops: Tensor) -> None:
    """Measure the averaged weights and show it."""
    scalars = trainer.validate(crops)
    log.write(trainer.step, scalars)
    figures = {k: v for k, v in scalars.items() if not k.startswith(("worth/", "open/"))}
    click.echo(" ".join(f"{k}={v:.4f}" for k, v in figures.items()) + "\n" + health.summary(scalars), err=True)


def report(trainer: Trainer, log: ScalarLog, losses: list[Tensor]) -> None:
    """Log the mean loss since the last report and show how far the stage is."""
    mean = torch.stack(losses).mean().item() if losses else math.nan
    seconds = trainer.seconds - trainer.stage_seconds
    rate = (trainer.step - trainer.stage_step) / max(seconds, 1e-9)
    left = seconds * (1.0 - trainer.progress) / max(trainer.progress, 1e-9)
    log.write(trainer.step, {"loss": mean, "steps_per_second": rate, "skipped": trainer.skipped})
    click.echo(
        f"step {trainer.step} loss {mean:.4f} {rate:.2f} steps/s"
        f" {100 * trainer.progress:.1f} % {left / 60:.0f} min left",
        err=True,
    )


def default_device() -> str:
    """The accelerator if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def settled(config: TrainConfig, device: str) -> TrainConfig:
    """The settings, in float32 where bfloat16 is the slower one."""
    if config.bfloat16 and device == "cpu" and not bfloat16_pays():
        return dataclasses.replace(config, bfloat16=False)
    return config


def prepare_process(device: str) -> None:
    """Denormals, memory, and the process group of `torchrun`."""
    # Momenta of dead units decay to denormals, which made Muon ten times as slow; threads started later inherit this.
    torch.set_flush_denormal(True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for option, value in KEEP_PAGES if mallopt and device == "cpu" else ():
        mallopt(option, value)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


@click.command()
@click.option("--config", "config_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder of training images.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the stage.")
@click.option(
    "--from",
    "start",
    type=click.Path(exists=True, path_type=Path),
    help="Checkpoint to begin this stage from, under new settings; of no effect once OUT has one of its own.",
)
@click.option("--device", default=default_device(), show_default=True)
def main(config_path: Path, data: Path, out: Path, start: Path | None, device: str) -> None:
    """Train a loss-conditional codec model."""
    prepare_process(device)
    try:
        config = settled(TrainConfig.load(config_path), device)
        paths = find_images(data)
        out.mkdir(parents=True, exist_ok=True)
        held_out = paths[::HELD_OUT][: config.validation_images]
        sampler = CropSampler([p for i, p in enumerate(paths) if i % HELD_OUT], torch.device(device))
        own = out / "checkpoint.pt"
        state = checkpoint.load(own if own.exists() else start) if own.exists() or start else None
        trainer = Trainer(config, sampler, torch.device(device), start=None if own.exists() else state)
        if own.exists() and state is not None:
            trainer.restore(state)
        run(trainer, out, validation_crops(held_out, config.final_patch))
    except (ValueError, OSError, TrainingError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
