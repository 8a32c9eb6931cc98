"""The trainer's stages, guards and speed-ups: what happens when runs change, grow, break or go through C."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor

from codec import quantise
from codec.network.config import ModelConfig
from codec.network.layers import ResidualBlock
from codec.network.model import YotoModel
from tests.conftest import batch, make_model
from training import checkpoint, fused, health, sent, synthetic
from training.config import TrainConfig
from training.init import init_from_images
from training.loss import codec_objective
from training.train import main
from training.trainer import MAX_NON_FINITE, Trainer, TrainingError, schedule

CPU = torch.device("cpu")
TINY = ModelConfig(
    N=32, M=32, Z=8, D=16, cond_width=8, extra=16,
    analysis_blocks=1, synthesis_blocks=1, analysis_coarse=1, synthesis_coarse=0,
)  # fmt: skip
CONFIG = TrainConfig(
    steps=6, batch=4, patch=64, final_patch=64, warmup=2, lr=1e-3, outer_lr=0.1, weight_decay=0.05,
    bfloat16=False, model=TINY,
)  # fmt: skip


class Pictures:
    """A sampler of the same few crops, whose n-th batch may be spoilt."""

    def __init__(self) -> None:
        self.spoil: dict[int, float] = {}
        self.count = 0

    def sample(self, count: int, size: int, generator: torch.Generator, share: slice = slice(None)) -> Tensor:
        torch.rand(1, generator=generator)
        self.count += 1
        return batch(count, size)[share] * self.spoil.get(self.count, 1.0)


def trainer(config: TrainConfig = CONFIG, start: checkpoint.State | None = None) -> Trainer:
    return Trainer(config, Pictures(), CPU, start)  # type: ignore[arg-type]


def parameters(of: Trainer | YotoModel) -> Tensor:
    model = of.model if isinstance(of, Trainer) else of
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def plateau() -> checkpoint.State:
    """The state after three steps."""
    run = trainer(dataclasses.replace(CONFIG, constant_share=1.0))
    for _ in range(3):
        run.train_step()
    return run.state()


def test_a_cool_down_begins_at_the_plateau_and_ends_at_zero(plateau: checkpoint.State):
    config = dataclasses.replace(CONFIG, steps=2, constant_share=0.0)
    run = trainer(config, plateau)
    assert (run.step, run.progress) == (3, 0.0)
    assert torch.equal(
        parameters(run), torch.cat([plateau["model"][n].flatten() for n, _ in run.model.named_parameters()])
    )
    momentum = run.optimisers[1].state[run.model.transforms.g_a.coarse[0].expand.weight]["momentum_buffer"]
    assert momentum.any()  # kept, not begun anew
    rates = []
    while run.progress < 1.0:
        run.train_step()
        rates.append([group["lr"] for o in run.optimisers for group in o.param_groups])
    assert run.step == 5
    assert schedule(run.progress, run.step, config) == 0.0
    scales = [group["scale"] for o in run.optimisers for group in o.param_groups]
    assert sorted(scales) == [0.1, 0.1, 1.0, 1.0]
    assert rates[0] == [1e-3 * scale for scale in scales]
    assert rates[1] == [0.5e-3 * scale for scale in scales]


def test_resuming_under_other_settings_is_refused_and_names_them(plateau: checkpoint.State):
    other = dataclasses.replace(CONFIG, lr=2e-3, constant_share=1.0, model=dataclasses.replace(TINY, hidden_max=4.0))
    with pytest.raises(ValueError, match=r"lr = 0\.001, not 0\.002; hidden_max = 8\.0, not 4\.0.*--from"):
        trainer(other).restore(plateau)


def test_a_run_grows_by_blocks_that_are_the_identity(plateau: checkpoint.State):
    larger = dataclasses.replace(TINY, analysis_blocks=2, synthesis_blocks=3, synthesis_coarse=1)
    run = trainer(dataclasses.replace(CONFIG, model=larger), plateau)
    small = YotoModel(TINY)
    small.load_state_dict(plateau["model"])
    x, condition = batch(2, 64), torch.tensor([[-0.5], [0.5]])
    with torch.no_grad():
        torch.testing.assert_close(run.model(x, condition, noise=False).x_hat, small(x, condition, noise=False).x_hat)
    known = run.optimisers[1].state[run.model.transforms.g_s.tail.weight]["momentum_buffer"]
    assert known.any()
    before = run.model.transforms.g_s.blocks[2].project.weight.clone()
    run.train_step()
    assert not torch.equal(before, run.model.transforms.g_s.blocks[2].project.weight)
    with pytest.raises(ValueError, match="another shape"):
        trainer(dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, M=64)), plateau)
    with pytest.raises(ValueError, match="other layers"):
        trainer(dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, analysis_blocks=0)), plateau)


def test_ten_steps_in_a_row_that_are_not_finite_end_the_run():
    run = trainer()
    run.sampler.spoil = {n: math.nan for n in range(3, 40) if n != 8}
    run.train_step()  # batch 2; the first made the start
    before = parameters(run)
    for _ in range(5):
        assert run.train_step() is None
    assert torch.equal(before, parameters(run))
    assert run.train_step() is not None  # batch 8
    for _ in range(MAX_NON_FINITE - 1):
        assert run.train_step() is None
    with pytest.raises(TrainingError, match=f"{MAX_NON_FINITE} steps in a row"):
        run.train_step()
    assert run.skipped == 5 + MAX_NON_FINITE


def test_an_outlier_is_skipped_counted_and_kept():
    run = trainer()
    run.sampler.spoil = {3: 300.0}
    run.train_step()
    before, mean = parameters(run), run.running_loss
    assert run.train_step() is None
    assert torch.equal(before, parameters(run))
    assert (run.skipped, run.running_loss) == (1, mean)
    assert run.outlier is not None
    assert run.outlier.loss > 20.0 * mean
    assert torch.equal(run.outlier.x, batch(4, 64) * 300.0)


def test_the_command_resumes_begins_stages_and_keeps_outliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for i in range(40):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (80, 80, 3), dtype=np.uint8)).save(
            tmp_path / f"{i}.png"
        )
    text = (
        "batch = 2\npatch = 64\nfinal_patch = 64\nbfloat16 = false\nconstant_share = 1.0\n"
        "[model]\nN = 32\nM = 32\nZ = 8\nD = 16\nanalysis_blocks = 1\nsynthesis_blocks = 0\nsynthesis_coarse = 0\n"
    )
    config = tmp_path / "c.toml"

    def command(steps: int, out: str, *more: str) -> tuple[int, str]:
        config.write_text(f"steps = {steps}\n{text}")
        options = ["--config", str(config), "--data", str(tmp_path), "--out", str(tmp_path / out), *more]
        done = CliRunner().invoke(main, options)
        return done.exit_code, done.output

    assert command(2, "plateau")[0] == 0
    own = tmp_path / "plateau" / "checkpoint.pt"
    code, output = command(3, "plateau")
    assert (code, "steps = 2, not 3" in output) == (1, True)
    code, output = command(3, "next", "--from", str(own))
    assert code == 0, output
    assert "% of its units open" in output
    assert torch.load(tmp_path / "next" / "checkpoint.pt", weights_only=True)["step"] == 5
    assert torch.load(own, weights_only=True)["step"] == 2
    code, output = command(3, "bad", "--from", str(config))
    assert (code, "is no checkpoint" in output) == (1, True)

    monkeypatch.setattr("training.trainer.OUTLIER", 1e-6)  # all but the first are outliers now
    assert command(3, "outliers")[0] == 0
    [kept] = sorted((tmp_path / "outliers" / "outliers").glob("*.pt"))[:1]
    assert torch.load(kept, weights_only=True)["x"].shape == (2, 3, 64, 64)


def test_health_finds_a_dead_block_and_what_a_live_one_is_worth():
    torch.manual_seed(0)
    model = YotoModel(dataclasses.replace(TINY, synthesis_blocks=2))
    init_from_images(model, batch(8, 128))
    dead, live = model.transforms.g_s.blocks
    with torch.no_grad():
        dead.expand.bias[dead.project.in_features :] = -100.0
        dead.project.weight.normal_(std=0.1)
        live.expand.bias[live.project.in_features :] = torch.linspace(-100.0, 98.0, live.project.in_features)
        live.project.weight.normal_(std=0.1)
    scalars = health.examine(model, codec_objective(model.config), batch(3, 64), torch.tensor([[0.1], [0.5], [0.9]]))
    assert scalars["open/g_s.blocks.0"] == 0.0
    assert abs(scalars["worth/g_s.blocks.0"]) < 1e-4
    assert scalars["open/g_s.blocks.1"] == pytest.approx(0.5, abs=0.1)
    assert scalars["worth/g_s.blocks.1"] < -0.01  # skipping this noise helps
    assert set(health.blocks_of(model)) == {"g_a.blocks.0", "g_a.coarse.0", "g_s.blocks.0", "g_s.blocks.1"}


def test_units_that_do_nothing_start_again_and_the_network_says_what_it_said():
    first = trainer()
    block = first.model.transforms.g_s.blocks[0]
    units = block.project.in_features
    with torch.no_grad():
        block.project.weight.normal_(std=0.1)
        block.expand.bias[units : units + 5] = -100.0
    first.ema = {name: value.clone() for name, value in first.model.state_dict().items()}
    x, condition = batch(3, 64), torch.tensor([[-0.8], [0.0], [0.8]])
    expected = first.model(x, condition, noise=False).x_hat
    again = trainer(dataclasses.replace(CONFIG, revive=True), first.state())
    torch.testing.assert_close(again.model(x, condition, noise=False).x_hat, expected)
    for weights in (again.model.state_dict(), again.ema):
        assert weights["transforms.g_s.blocks.0.expand.bias"][units : units + 5].min() > -50.0
        assert not weights["transforms.g_s.blocks.0.project.weight"][:, :5].any()
    before = again.model.transforms.g_s.blocks[0].project.weight.detach().clone()
    again.train_step()
    moved = (again.model.transforms.g_s.blocks[0].project.weight - before).abs().amax(dim=0)
    assert moved[:5].min() > 0.0


@pytest.mark.skipif(fused.kernels() is None, reason="needs a C compiler")
@pytest.mark.parametrize(("channels", "height", "width"), [(48, 8, 12), (33, 5, 1)])
def test_blocks_in_c_have_the_gradients_of_torch(channels: int, height: int, width: int):
    """As near to float64 as torch's own bfloat16, for every input and parameter; 3 samples, so that a chunk is odd."""
    torch.manual_seed(0)
    block = ResidualBlock(TINY, channels)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, cond = torch.randn(3, channels, height, width), torch.randn(3, TINY.cond_width)
    inputs = [x.requires_grad_(), cond.requires_grad_(), *block.parameters()]
    weight = torch.randn_like(x)

    def gradients(forward, dtype: torch.dtype | None) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is None):
            out = forward(block, x, cond)
        return [out - x, *torch.autograd.grad(out, inputs, weight)]

    exact = gradients(ResidualBlock.forward, torch.float32)
    torchs = gradients(ResidualBlock.forward, None)
    ours = gradients(fused.block_forward, None)
    for ideal, other, mine in zip(exact, torchs, ours, strict=True):
        assert mine.shape == ideal.shape
        assert (mine - ideal).norm() <= 1.5 * (other - ideal).norm() + 0.01 * ideal.norm()


@pytest.mark.skipif(fused.kernels() is None, reason="needs a C compiler")
def test_the_accelerated_network_is_the_same_network():
    """The loss and its gradient under autocast, and bit for bit what runs without."""
    model, fast = make_model(TINY), make_model(TINY)
    assert fused.accelerate(fast)
    objective = codec_objective(TINY)
    x, units = batch(4, 64), torch.tensor([[0.1], [0.4], [0.6], [0.9]])

    def step(net: YotoModel, autocast: bool) -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            output = net(x, objective.condition(units))
        loss = objective(output, x, units).loss
        loss.backward()
        return loss.detach(), torch.cat([p.grad.flatten() for p in net.parameters()])

    exact, (loss, gradient), (fast_loss, fast_gradient) = step(model, False), step(model, True), step(fast, True)
    assert fast_loss == pytest.approx(loss.item(), rel=5e-3)
    error = (gradient - exact[1]).norm()
    assert (fast_gradient - exact[1]).norm() < 1.5 * error
    torch.testing.assert_close(step(fast, False)[0], exact[0])


def test_two_coefficients_train():
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, num_coefficients=2))
    run = trainer(config)
    for _ in range(3):  # FiLM begins as the identity, and lets no gradient through to the condition
        value = run.train_step()
    assert value is not None
    assert value.terms.shape == (4, 3)
    assert run.model.transforms.condition_net.net[0].weight.grad.any(dim=0).tolist() == [True, True]
    assert {"log_lagrangian", "worth/g_a.blocks.0"} < set(run.validate(batch(2, 64)))
    with pytest.raises(ValueError, match="num_coefficients is 3"):
        trainer(dataclasses.replace(CONFIG, model=dataclasses.replace(TINY, num_coefficients=3)))


@pytest.mark.parametrize("bfloat16", [False, True])
def test_the_decoders_stage_keeps_every_symbol(plateau: checkpoint.State, bfloat16: bool):
    """Analysis, hyper-analysis and gains stay the averaged weights; synthesis and prior move."""
    config = dataclasses.replace(CONFIG, decoder_only=True, z_warmup=0, lr=1e-2, bfloat16=bfloat16)
    run = trainer(config, plateau)
    for _ in range(2):
        assert run.train_step() is not None
    moved = {name for name, p in run.model.named_parameters() if not torch.equal(p, plateau["ema"][name])}
    assert not [name for name in moved if name.startswith(sent.ENCODER)]
    rest = {n for n, p in run.model.named_parameters() if not n.startswith((*sent.ENCODER, "prior.h_s", "prior.z"))}
    assert {n for n in rest if n.endswith((".expand.weight", ".mix.weight", "embed.weight", "head.weight"))} <= moved


def test_symbols_of_the_decoders_stage_are_the_encoders():
    assert sent.RDO_BITS == quantise.RDO_BITS
    assert sent.NEWTON_SHARE == quantise.NEWTON_SHARE
    assert pytest.approx(quantise.CURVATURE) == sent.CURVATURE
    generator = torch.Generator().manual_seed(0)
    residual = 4.0 * torch.randn(1000, generator=generator)
    sigma = torch.full((1000,), 0.8)
    symbols = sent.rounded_for_rate(residual, sigma)
    assert torch.equal(symbols, symbols.round())
    assert (symbols.abs() <= residual.round().abs()).all()
    assert 0 < (symbols != residual.round()).sum() < 300
    # 1 is worth its bits from 1/2 + (bits of 1 - bits of 0) / 50 on.
    bits = [-math.log2(0.5 * (math.erf((k + 0.5) / 0.8 / 2**0.5) - math.erf((k - 0.5) / 0.8 / 2**0.5))) for k in (0, 1)]
    edge = 0.5 + (bits[1] - bits[0]) / (2.0 * sent.RDO_BITS)
    near = sent.rounded_for_rate(torch.tensor([edge - 1e-3, edge + 1e-3, -edge + 1e-3]), sigma[:3])
    assert near.tolist() == [0.0, 1.0, 0.0]


def test_choosing_as_the_encoder_never_costs_more():
    """The sum of bits and error over a batch, against plain rounding for rate."""
    model = make_model(TINY)
    x, condition = batch(4, 64), torch.tensor([[-0.6], [-0.2], [0.2], [0.6]])
    encoder, transforms = sent.SentModel(model), model.transforms
    with torch.no_grad():
        y = transforms.analyse(x, condition)
        z_hat = transforms.hyper_analyse(y, condition).round()
        cond = transforms.condition_net(condition)

        def cost(latents: Tensor) -> Tensor:
            y_hat, bits = encoder.coded(latents, z_hat, condition, cond)
            error = (transforms.synthesise(y_hat, condition) - x).square().sum(dim=(1, 2, 3))
            return bits + transforms.lmbda(condition)[:, 0] * 255.0**2 / 3.0 * error

        draft = cost(y)
    chosen = encoder.choose(x, y, z_hat, condition)
    with torch.no_grad():
        assert (cost(chosen) <= draft * 1.0001).all()
        assert not torch.equal(chosen, y)  # it did look


def test_drawn_crops_are_of_every_kind_and_cost_no_more_than_is_set():
    generator = torch.Generator().manual_seed(0)
    colours = ((250, 240, 230), (10, 20, 30))
    for kind in synthetic.KINDS:
        pixels = np.asarray(kind(64, np.random.default_rng(1), colours))
        assert pixels.shape == (64, 64, 3), kind.__name__
        assert (kind is synthetic.flat) == (np.ptp(pixels, axis=(0, 1)).max() == 0)
    x = torch.full((256, 3, 64, 64), 2.0)
    seeds = synthetic.choose(256, 1 / 16, generator)
    synthetic.mix_in(x, seeds)
    drawn = seeds >= 0
    assert 6 <= drawn.sum() <= 28
    assert torch.equal((x != 2.0).any(dim=(1, 2, 3)), drawn)
    assert ((x[drawn] * 255 - (x[drawn] * 255).round()).abs() < 1e-3).all()

    run = trainer(dataclasses.replace(CONFIG, batch=64, synthetic_share=0.5, synthetic_limit=0.125))
    crops, _, limits = run.batch()
    photographs = (crops == batch(64, 64)).all(dim=3).all(dim=2).all(dim=1)
    assert torch.equal(limits, torch.where(photographs, math.inf, 0.125))
    assert 16 < photographs.sum() < 48
    assert trainer().batch()[2] is None


def test_the_pilots_checkpoint_is_a_start(plateau: checkpoint.State):
    """Settings and constants that it does not know are the defaults; averages in float16, momenta in bfloat16."""
    old = {**plateau, "config": {**plateau["config"], "model": {k: getattr(TINY, k) for k in ("N", "M", "Z", "D")}}}
    sizes = ("cond_width", "extra", "analysis_blocks", "synthesis_blocks", "analysis_coarse", "synthesis_coarse")
    old["config"]["model"] |= {k: getattr(TINY, k) for k in sizes}
    for new in ("cuda_rng", "stage_step", "stage_seconds", "running_loss"):
        del old[new]
    old["ema"] = {k: v.half() for k, v in old["ema"].items()}
    run = trainer(CONFIG, old)
    assert run.step == 3
    assert run.train_step() is not None
    assert all(v.dtype == torch.float32 for v in run.ema.values())
