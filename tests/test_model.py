"""The float network: shapes, gradients, its start as a lapped block transform, and the price of a symbol."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import TINY, batch, make_model
from scipy.stats import norm

from codec.network.config import LATENT_STRIDE, PASSES, ModelConfig
from codec.network.layers import gaussian_bits
from codec.network.model import YotoModel
from codec.network.prior import from_phases, of_pass, to_phases
from codec.network.transforms import Transforms
from training.init import init_from_images
from training.loss import codec_objective


@pytest.fixture(scope="module")
def fresh() -> YotoModel:
    """The network as training starts it, of full width, with as many latents as pixels."""
    torch.manual_seed(0)
    model = YotoModel(ModelConfig(N=192, M=768, Z=8, D=16, analysis_blocks=1, synthesis_blocks=1)).eval()
    init_from_images(model, batch(4, 128))
    return model


@pytest.mark.parametrize(("count", "height", "width"), [(1, 64, 64), (2, 64, 128), (1, 192, 64)])
@torch.no_grad()
def test_shapes(model, count, height, width):
    x, condition = torch.rand(count, 3, height, width), torch.zeros(count, 1)
    y = model.transforms.analyse(x, condition)
    z = model.transforms.hyper_analyse(y, condition)
    output = model(x, condition)
    assert y.shape == (count, TINY.M, height // LATENT_STRIDE, width // LATENT_STRIDE)
    assert z.shape == (count, TINY.Z, height // 64, width // 64)
    assert output.x_hat.shape == x.shape
    assert output.y_bits.shape == output.z_bits.shape == (count,)
    assert (output.y_bits > 0).all()
    assert (output.z_bits > 0).all()


def test_every_parameter_gets_a_gradient():
    model = make_model()
    x, units = batch(4, 128), torch.tensor([[0.1], [0.4], [0.7], [1.0]])
    codec_objective(model.config)(model(x, 2.0 * units - 1.0), x, units).loss.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@torch.no_grad()
def test_each_sample_follows_its_own_condition(model):
    x = batch(1, 64).expand(2, -1, -1, -1)
    together = model(x, torch.tensor([[-1.0], [1.0]]), noise=False)
    for i, condition in enumerate((-1.0, 1.0)):
        alone = model(x[:1], torch.tensor([[condition]]), noise=False)
        torch.testing.assert_close(together.x_hat[i], alone.x_hat[0], atol=1e-4, rtol=0.0)
        torch.testing.assert_close(together.y_bits[i], alone.y_bits[0], rtol=1e-3, atol=0.0)
    assert together.y_bits[1] > 1.5 * together.y_bits[0]


@torch.no_grad()
def test_fresh_synthesis_inverts_the_analysis(fresh):
    x, condition = batch(2, 128), torch.tensor([[-1.0], [1.0]])
    x_hat = fresh.transforms.synthesise(fresh.transforms.analyse(x, condition), condition)
    torch.testing.assert_close(x_hat, x, atol=1e-4, rtol=0.0)


@torch.no_grad()
def test_fresh_network_at_quality_1_has_the_distortion_that_is_optimal_at_high_rate(fresh):
    """With R = -3/2 · log2 D bits per pixel, R + λ · 255² · D is least at this D."""
    x, condition = batch(2, 128), torch.ones(2, 1)
    mse = (fresh(x, condition, noise=False).x_hat - x).square().mean().item()
    optimum = 3.0 / (2.0 * math.log(2.0) * ModelConfig.lmbda_max * 255.0**2)
    assert 10.0 * math.log10(mse / optimum) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize(("quality", "least_db"), [(0.0, 29.0), (0.25, 30.0), (0.5, 31.5), (0.75, 33.0)])
@torch.no_grad()
def test_fresh_network_is_a_working_codec(fresh, quality, least_db):
    x = batch(2, 128)
    x_hat = fresh(x, torch.full((2, 1), 2.0 * quality - 1.0), noise=False).x_hat
    assert -10.0 * torch.log10((x_hat - x).square().mean()).item() > least_db


@torch.no_grad()
def test_fresh_latents_have_the_deviation_that_the_network_assumes(fresh):
    condition = torch.zeros(4, 1)
    y = fresh.transforms.analyse(batch(4, 128), condition) / fresh.transforms.normaliser(condition)
    torch.testing.assert_close(y.square().mean(dim=(0, 2, 3)), torch.ones(768), atol=1e-3, rtol=0.0)


@torch.no_grad()
def test_first_pass_sees_no_latents(model):
    """And every later one sees those of the passes before it, but not its own."""
    y, norm_, cond = torch.randn(1, TINY.M, 4, 4) * 5, torch.ones(1, TINY.M, 1, 1), torch.randn(1, TINY.cond_width)
    z = torch.zeros(1, TINY.Z, 1, 1)

    def outputs(y: torch.Tensor) -> list[torch.Tensor]:
        seen: list[torch.Tensor] = []
        hooks = [net.register_forward_hook(lambda *call: seen.extend(call[2])) for net in model.prior.passes]
        model.prior(y, z, norm_, cond, noise=False)
        for hook in hooks:
            hook.remove()
        return seen

    before = outputs(y)
    for k in range(PASSES):
        changed = outputs(y + 50.0 * coded_in(k, TINY.M, 4, 4))
        same = [torch.equal(a, b) for a, b in zip(before, changed, strict=True)]
        assert same == [i <= k for i in range(PASSES) for _ in ("mean", "index")]


def coded_in(k: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Mask (1, channels, height, width) of the latents of pass k: channel group (k + phase) mod 4 at each phase."""
    mask = torch.zeros(1, channels, height, width)
    for phase in range(4):
        group = (k + phase) % PASSES
        channel = slice(group * channels // PASSES, (group + 1) * channels // PASSES)
        mask[:, channel, phase // 2 :: 2, phase % 2 :: 2] = 1.0
    return mask


def test_a_pass_takes_its_group_at_each_phase():
    y = torch.arange(2 * 32 * 4 * 6.0).reshape(2, 32, 4, 6)
    phases = to_phases(y)
    torch.testing.assert_close(from_phases(phases, 4, 6), y)
    for k in range(PASSES):
        taken = torch.stack([of_pass(phases[p], k)[p] for p in range(4)])
        expected = y[coded_in(k, 32, 4, 6).bool().expand_as(y)]
        assert set(taken.flatten().tolist()) == set(expected.tolist())


def test_quality_is_logarithmic_in_lmbda():
    quality = np.linspace(0.0, 1.0, 5)
    lmbda = np.array([TINY.lmbda(q) for q in quality])
    np.testing.assert_allclose(lmbda[1:] / lmbda[:-1], (0.2 / 0.0008) ** 0.25)
    assert lmbda[0] == pytest.approx(0.0008)
    condition = torch.tensor(2.0 * quality - 1.0, dtype=torch.float32)[:, None]
    torch.testing.assert_close(Transforms(TINY).lmbda(condition)[:, 0], torch.tensor(lmbda, dtype=torch.float32))


@pytest.mark.parametrize("scale", np.geomspace(0.11, 256.0, 16))
def test_gaussian_bits_are_those_of_the_normal_distribution(scale):
    residual = np.linspace(-5.0, 5.0, 101) * scale
    near, far = (np.abs(residual) - 0.5) / scale, (np.abs(residual) + 0.5) / scale
    mass = norm.sf(near) - norm.sf(far)
    bits = gaussian_bits(torch.tensor(residual, dtype=torch.float32), torch.tensor(scale, dtype=torch.float32))
    keep = mass > 1e-8
    error = np.abs(bits.numpy() + np.log2(mass))[keep].max()
    assert error < 2e-4  # float32; measured up to 1e-4, at the largest scale


def test_gaussian_bits_keep_a_gradient_far_outside():
    residual = torch.tensor([-1000.0, 1000.0], requires_grad=True)
    bits = gaussian_bits(residual, torch.full((2,), 0.11))
    bits.sum().backward()
    assert torch.isfinite(bits).all()
    assert residual.grad[0] < 0 < residual.grad[1]


def test_margin_is_no_less_than_the_transforms_reach_and_bounded():
    """Else tiles would leave seams, or a few weights from a stranger would make a decoder keep whole pictures."""
    least = -(-TINY.reach_px // LATENT_STRIDE) * LATENT_STRIDE
    dataclasses.replace(TINY, margin_px=least).validate()
    for margin_px in (least - LATENT_STRIDE, 256 + LATENT_STRIDE, TINY.margin_px + 1):
        with pytest.raises(ValueError, match="margin"):
            dataclasses.replace(TINY, margin_px=margin_px).validate()
