"""The trainer: the objective, reproducibility, resuming, several processes, several coefficients."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_model
from PIL import Image
from torch import Tensor

from codec.network import weights
from codec.network.config import ModelConfig
from codec.network.layout import prior_layers
from codec.network.model import ModelOutput
from training import checkpoint, export, thaw, throughput
from training.config import TrainConfig
from training.data import CropSampler, find_images
from training.loss import codec_objective
from training.muon import Muon
from training.train import main
from training.trainer import Trainer, schedule

ROOT = Path(__file__).parent.parent
TINY = ModelConfig(N=32, M=32, Z=8, D=16, analysis_blocks=1, synthesis_blocks=1, cond_width=8)
CONFIG = TrainConfig(steps=6, batch=4, patch=64, final_patch=64, warmup=2, lr=1e-3, model=TINY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five smooth noisy images, one too small to crop."""
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for i, size in enumerate([(96, 128), (80, 80), (64, 200), (130, 70), (40, 90)]):
        coarse = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        noise = random.integers(-10, 11, (*size, 3))
        pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC)) + noise
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def sampler(folder: Path) -> CropSampler:
    return CropSampler(find_images(folder), torch.device("cpu"), workers=1)


def parameters(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_crops_come_from_the_images(sampler: CropSampler) -> None:
    crops = sampler.sample(64, 64, torch.Generator().manual_seed(1))
    assert crops.shape == (64, 3, 64, 64)
    known = [
        sampler.pixels[s : s + 3 * h * w].reshape(3, h, w)
        for s, (h, w) in zip(sampler.starts, sampler.sizes, strict=True)
    ]
    crop = (crops[0] * 255).round().to(torch.uint8)
    views = [crop, crop.flip(1), crop.flip(2), crop.flip(1, 2)]
    found = any(
        torch.equal(window, view)
        for image in known
        if min(image.shape[1:]) >= 64
        for window in image.unfold(1, 64, 1).unfold(2, 64, 1).flatten(1, 2).transpose(0, 1)
        for view in views
    )
    assert found


def test_a_share_of_the_crops_is_that_of_the_whole_draw(sampler: CropSampler) -> None:
    whole = sampler.sample(6, 64, torch.Generator().manual_seed(1))
    assert torch.equal(sampler.sample(6, 64, torch.Generator().manual_seed(1), slice(1, 6, 2)), whole[1::2])


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        find_images(tmp_path)


def test_command_without_images_fails_with_one_line(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("steps = 1\n")
    result = CliRunner().invoke(main, ["--config", str(config), "--data", str(tmp_path), "--out", str(tmp_path / "o")])
    assert result.exit_code == 1
    assert "no images" in result.output


@pytest.mark.parametrize("text", ["stepz = 1\n", "steps = 'x'\n", "[model]\nN = 1.5\n"])
def test_a_wrong_setting_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"c\.toml"):
        TrainConfig.load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "training" / "configs").glob("*.toml")), ids=lambda p: p.name)
def test_shipped_configs_load(path: Path) -> None:
    assert TrainConfig.load(path).model.M % 4 == 0


def test_the_loss_is_the_weighted_lagrangian() -> None:
    x, x_hat = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.1)
    output = ModelOutput(x_hat, torch.tensor([64.0, 32.0]), torch.tensor([0.0, 32.0]))
    units = torch.tensor([[0.0], [1.0]])
    value = codec_objective(ModelConfig(), balance=-0.5)(output, x, units)
    lagrangian = torch.tensor(
        [1.0 + ModelConfig.lmbda_min * 255**2 * 0.01, 1.0 + ModelConfig.lmbda_max * 255**2 * 0.01]
    )
    middle = (ModelConfig.lmbda_min * ModelConfig.lmbda_max) ** 0.5
    weight = torch.tensor([(ModelConfig.lmbda_min / middle) ** -0.5, (ModelConfig.lmbda_max / middle) ** -0.5])
    torch.testing.assert_close(value.loss, (weight * lagrangian).mean())


def test_the_schedule_warms_up_and_decays_to_zero() -> None:
    config = dataclasses.replace(CONFIG, warmup=10, constant_share=0.5)
    assert schedule(0.0, 0, config) == pytest.approx(0.1)
    assert schedule(0.3, 100, config) == 1.0
    assert schedule(1.0, 1000, config) == 0.0


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_training_lowers_the_validation_loss(sampler: CropSampler, optimiser: str) -> None:
    config = dataclasses.replace(CONFIG, steps=40, optimiser=optimiser, lr=3e-3, z_warmup=1)
    trainer = Trainer(config, sampler, torch.device("cpu"))
    crops = sampler.sample(8, 64, torch.Generator().manual_seed(2))
    before = trainer.validate(crops)["log_lagrangian"]
    for _ in range(40):
        trainer.train_step()
    assert trainer.validate(crops)["log_lagrangian"] < before - 0.02


def test_muon_steps_like_the_one_of_torch() -> None:
    torch.manual_seed(0)
    shapes = [(48, 24), (24, 24), (24, 48), (24, 24)]
    ours = [torch.randn(shape, requires_grad=True) for shape in shapes]
    theirs = [p.detach().clone().requires_grad_() for p in ours]
    start = [p.detach().clone() for p in ours]
    optimisers = [
        Muon(ours, lr=0.01),
        torch.optim.Muon(theirs, lr=0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
    ]
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        assert (mine - other).norm() < 0.02 * (mine - before).norm()  # torch's iterates in bfloat16


def test_a_resumed_run_equals_an_uninterrupted_one(sampler: CropSampler, tmp_path: Path) -> None:
    whole = Trainer(CONFIG, sampler, torch.device("cpu"))
    for _ in range(6):
        whole.train_step()
    first = Trainer(CONFIG, sampler, torch.device("cpu"))
    for _ in range(3):
        first.train_step()
    checkpoint.save_atomically(first.state(), tmp_path / "checkpoint.pt")
    second = Trainer(CONFIG, sampler, torch.device("cpu"))
    second.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    for _ in range(3):
        second.train_step()
    assert torch.equal(parameters(whole), parameters(second))
    assert all(torch.equal(whole.ema[k], second.ema[k]) for k in whole.ema)


def test_a_step_with_a_non_finite_gradient_changes_nothing(sampler: CropSampler) -> None:
    trainer = Trainer(CONFIG, sampler, torch.device("cpu"))
    trainer.train_step()
    before = parameters(trainer)
    sample = sampler.sample

    def poisoned(*args: object) -> Tensor:
        return sample(*args) * torch.nan

    trainer.sampler = type("Poisoned", (), {"sample": staticmethod(poisoned)})()
    assert trainer.train_step() is None
    assert trainer.skipped == 1
    assert torch.equal(before, parameters(trainer))


def test_the_command_trains_logs_and_saves(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text(
        "steps = 50\nbatch = 2\npatch = 64\nfinal_patch = 64\n"
        "[model]\nN = 32\nM = 32\nZ = 8\nD = 16\nanalysis_blocks = 1\nsynthesis_blocks = 1\n"
    )
    out = tmp_path / "run"
    result = CliRunner().invoke(main, ["--config", str(config), "--data", str(folder), "--out", str(out)])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert {"loss", "steps_per_second", "skipped"} < set(lines[0])
    assert {"bpp/0.1", "psnr/0.5", "log_lagrangian"} < set(lines[-1])
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == 50
    assert list(out.glob("events.out.tfevents.*"))

    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.open(folder / "0.png").resize((256, 256)).save(pictures / "large.png")
    exported = tmp_path / "weights.safetensors"
    options = ["--run", str(out), "--images", str(pictures), "--output", str(exported), "--kodak", str(pictures)]
    result = CliRunner().invoke(export.main, [*options, "--data", "noise"])
    assert result.exit_code == 0, result.output
    card = weights.load(exported).card
    assert (card["data"], card["steps"]) == ("noise", 50)
    rates = [point["bpp"] for point in card["kodak"]]
    assert rates == sorted(rates)


def test_training_goes_on_from_released_weights_with_more_blocks(sampler: CropSampler, tmp_path: Path) -> None:
    trained = make_model(TINY)
    released, start = tmp_path / "weights.safetensors", tmp_path / "start.pt"
    weights.save(released, TINY, export.freeze(trained), {})
    result = CliRunner().invoke(thaw.main, ["--weights", str(released), "--output", str(start)])
    assert result.exit_code == 0, result.output
    grown = dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, synthesis_blocks=2))
    trainer = Trainer(grown, sampler, torch.device("cpu"), start=checkpoint.load(start))
    images, condition = sampler.sample(4, 64, torch.Generator().manual_seed(2)), torch.tensor([[0.3]]).expand(4, 1)
    for model in (trainer.model, export.trained_model({"config": {"model": vars(grown.model)}, "ema": trainer.ema})):
        with torch.no_grad():
            mine, theirs = model(images, condition, noise=False), trained(images, condition, noise=False)
        torch.testing.assert_close(mine.x_hat, theirs.x_hat, atol=0.01, rtol=0.0)
        torch.testing.assert_close(mine.y_bits, theirs.y_bits, atol=0.0, rtol=0.01)
    assert trainer.train_step() is not None
    assert (trainer.step, trainer.stage_step) == (1, 0)


def test_thawed_weights_freeze_to_the_same_integers(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    frozen = export.freeze(make_model(TINY))
    weights.save(path, TINY, frozen, {})
    again = export.freeze(thaw.thaw(weights.load(path)))
    for name, layer in prior_layers(TINY).items():
        np.testing.assert_array_equal(again[f"{name}.weight"], frozen[f"{name}.weight"])
        np.testing.assert_array_equal(again[f"{name}.shift"], frozen[f"{name}.shift"])
        unit = np.exp2(-frozen[f"{name}.shift"].astype(float))
        np.testing.assert_allclose(again[f"{name}.bias"] * unit, frozen[f"{name}.bias"] * unit, atol=0.05)
        if layer.kind == "dense":
            np.testing.assert_allclose(again[f"{name}.factor"], frozen[f"{name}.factor"], atol=4)


def test_throughput_is_told(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("batch = 2\npatch = 64\n[model]\nN = 32\nM = 32\nZ = 8\nD = 16\n")
    result = CliRunner().invoke(throughput.main, ["--config", str(config), "--data", str(folder), "--steps", "1"])
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"[\d.]+ steps/s, .* [\d.]+ TFLOP/s, \d+ % of the [\d.]+ of a matrix product\n", result.stdout)


DISTRIBUTED = """
import sys, dataclasses, torch, torch.distributed as dist
from pathlib import Path
sys.path.insert(0, "tests")
from test_training import CONFIG
from training.data import CropSampler, find_images
from training.trainer import Trainer
torch.set_num_threads(1)
dist.init_process_group("gloo")
trainer = Trainer(CONFIG, CropSampler(find_images(Path(sys.argv[1])), torch.device("cpu"), 1), torch.device("cpu"))
torch.manual_seed(0)
value = trainer.train_step()
loss = value.loss.detach()
dist.all_reduce(loss)
if dist.get_rank() == 0:
    trainer.train_step()
    print("LOSS", loss.item() / 2)
else:
    trainer.train_step()
dist.destroy_process_group()
"""


def test_two_processes_see_the_batch_of_one(folder: Path, sampler: CropSampler) -> None:
    """The halves' mean loss is that of the whole batch, up to the noise that prices the latents."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    base = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    command = [sys.executable, "-c", DISTRIBUTED, str(folder)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, env={**base, "RANK": str(rank)}, stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    outputs = [p.communicate(timeout=600)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0]
    together = float(outputs[0].split("LOSS")[1])
    alone = Trainer(CONFIG, sampler, torch.device("cpu")).train_step()
    assert alone is not None
    assert together == pytest.approx(alone.loss.item(), rel=0.02)
