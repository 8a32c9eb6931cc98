"""The decoder's realism: nothing at 0, learned beside everything that is final, refused where it was not learned."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from click.testing import CliRunner
from conftest import TINY, batch, make_model, picture
from PIL import Image
from torch import Tensor

import codec as package
from cli import main
from codec.api import Codec
from codec.errors import WeightsError
from codec.format.bitstream import unpack
from codec.network import weights
from training import add_realism, checkpoint, graphs
from training.config import TrainConfig
from training.export import freeze
from training.loss import STRUCTURE_WORTH, ModelOutput, realism_objective
from training.realism import RealismModel
from training.sent import SentModel
from training.trainer import Trainer

CPU = torch.device("cpu")
CONFIG = TrainConfig(
    steps=6, batch=4, patch=192, final_share=0.0, lr=3e-3, bfloat16=False, realism=True, validation_images=2, model=TINY
)


class Pictures:
    """A sampler of the same few crops."""

    def sample(self, count: int, size: int, generator: torch.Generator, share: slice = slice(None)) -> Tensor:
        torch.rand(1, generator=generator)
        return batch(count, size)[share]


def trainer(start: checkpoint.State | None, **settings: object) -> Trainer:
    return Trainer(dataclasses.replace(CONFIG, **settings), Pictures(), CPU, start)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def final() -> checkpoint.State:
    """The checkpoint of a training that is over; its averaged weights are what ships."""
    plain = TrainConfig(steps=1, batch=2, patch=64, bfloat16=False, model=TINY)
    run = Trainer(plain, Pictures(), CPU)  # type: ignore[arg-type]
    run.train_step()
    run.ema = make_model().state_dict()
    return run.state()


def drawn(seed: int) -> RealismModel:
    """A realism at random, on the tests' model."""
    model = RealismModel(TINY)
    model.load_state_dict(make_model().state_dict(), strict=False)
    torch.manual_seed(seed)
    for delta in model.realism.values():
        torch.nn.init.normal_(delta, std=0.01)
    return model


@pytest.fixture(scope="module")
def realistic_path(weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' model, with a realism at random and graphs."""
    path = tmp_path_factory.mktemp("realistic") / "tiny.safetensors"
    path.write_bytes(weights_path.read_bytes())
    add_realism.add_to(path, drawn(1), {"by": "chance"})
    graphs.write(path, TINY)
    return path


@pytest.fixture(scope="module", params=["onnx", "torch"])
def realistic(realistic_path: Path, request: pytest.FixtureRequest) -> Codec:
    return Codec(realistic_path, backend=request.param)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_files_do_not_depend_on_it(codec, realistic_path):
    """Same model id, same bytes, and at 0 the same picture."""
    other = Codec(realistic_path, backend="torch")
    assert other.weights.model_id == codec.weights.model_id
    assert other.weights.card == {"origin": "tests", "realism": {"by": "chance"}}
    data = codec.encode(picture(100, 140), 0.6)
    assert other.encode(picture(100, 140), 0.6) == data
    assert np.array_equal(other.decode(data), codec.decode(data))
    assert np.array_equal(other.decode(data, realism=0.0), codec.decode(data))


def test_it_moves_the_picture_the_further_the_more(realistic):
    data = realistic.encode(picture(100, 140), 0.6)
    faithful = pixels(realistic.decode(data))
    moved = [np.square(pixels(realistic.decode(data, realism=a)) - faithful).mean() for a in (0.0, 0.25, 0.5, 1.0)]
    assert moved[0] == 0.0
    assert moved == sorted(moved)
    assert moved[3] > 2.0 * moved[2] > 4.0 * moved[1] > 0.0
    assert np.array_equal(pixels(realistic.decode(data)), faithful)  # and nothing of it stays


def test_it_is_the_synthesis_of_the_moved_tensors(codec, realistic):
    """Both back ends make what the trainer's model makes, but for a level."""
    data = realistic.encode(picture(128, 128), 0.75)
    y_hat = []
    synthesise = codec.model.backend.synthesise
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec.model.backend, "synthesise", lambda y, q: y_hat.append(y) or synthesise(y, q))
        codec.decode(data)
    model, a = drawn(1), 0.7
    with torch.no_grad():
        for name, delta in model.added().items():
            weight = model.transforms.get_parameter(name)
            weight.copy_(weight.half().float() + a * delta.half().float())
        for name, tensor in model.transforms.state_dict().items():
            if not name.startswith("g_s."):
                tensor.copy_(tensor.half().float())
        x_hat = model.transforms.synthesise(torch.from_numpy(y_hat[0]).permute(2, 0, 1)[None], torch.tensor([[0.5]]))
    expected = (255.0 * x_hat[0].clamp(0, 1)).round().permute(1, 2, 0).numpy()
    assert np.abs(pixels(realistic.decode(data, realism=a)) - expected).max() <= 1


def test_a_region_is_of_the_same_realism(realistic):
    data = realistic.encode(picture(200, 200), 0.5, tile_px=64)
    whole = pixels(realistic.decode(data, realism=0.8))
    part = pixels(realistic.decode(data, realism=0.8, region=(70, 50, 60, 90)))
    assert np.abs(part - whole[50:140, 70:130]).max() <= 1
    assert np.array_equal(pixels(realistic.decode_partial(data, realism=0.8).image), whole)


@pytest.mark.parametrize("a", [-0.01, 1.01, float("nan")])
def test_out_of_range_is_the_callers_mistake(codec, a):
    data = codec.encode(picture(32, 32))
    for decode in (codec.decode, codec.decode_partial, package.decode):
        with pytest.raises(ValueError, match=r"realism is .*; it must lie between 0 and 1"):
            decode(data, realism=a)


def test_weights_that_have_not_learned_it_say_so(codec):
    data = codec.encode(picture(32, 32))
    for decode in (codec.decode, codec.decode_partial):
        with pytest.raises(
            WeightsError, match=f"{codec.weights.model_id.hex()} have no realism; decode with realism 0"
        ):
            decode(data, realism=0.5)
    kept = codec.encode(picture(32, 32), lossless=True)  # needs no weights, and there is nothing to choose
    assert np.array_equal(codec.decode(kept, realism=0.5), picture(32, 32))


def test_the_command_takes_it(weights_path, realistic_path, realistic, tmp_path):
    data = realistic.encode(picture(64, 80), 0.5)
    path, out = tmp_path / "a.yoto", tmp_path / "a.png"
    path.write_bytes(data)

    def run(model: Path, *more: str):
        options = ["--weights", str(model), "--backend", realistic.backend, "-o", str(out), "--force", *more]
        return CliRunner().invoke(main, ["decode", str(path), *options])

    assert run(realistic_path, "--realism", "70%").exit_code == 0
    assert np.array_equal(Image.open(out), realistic.decode(data, realism=0.7))
    out.unlink()
    for wrong in ("1.5", "nan", "much"):
        result = run(realistic_path, "--realism", wrong)
        assert result.exit_code == 2
        assert "--realism" in result.stderr
    (tmp_path / "graphs").mkdir()
    lacking = tmp_path / "graphs" / "tiny.safetensors"
    lacking.write_bytes(weights_path.read_bytes())
    graphs.write(lacking, TINY)
    result = run(lacking, "--realism", "1")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "have no realism" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape", "infinite"])
def test_a_realism_that_does_not_fit_is_refused(realistic_path, tmp_path, fault):
    tensors = safetensors.numpy.load_file(realistic_path)
    name = "realism.g_s.head.bias"
    if fault == "missing":
        del tensors[name]
    elif fault == "unknown":
        tensors["realism.g_a.head.bias"] = tensors[name]
    else:
        tensors[name] = tensors[name][1:] if fault == "shape" else np.full_like(tensors[name], np.inf)
    path = tmp_path / "w.safetensors"
    card = weights.load(realistic_path)
    weights.save(path, card.config, tensors, {})
    with pytest.raises(WeightsError, match="not finite" if fault == "infinite" else "does not fit"):
        weights.load(path)


def test_the_objective_goes_from_error_to_structure():
    objective = realism_objective(TINY, balance=-0.5)
    units = torch.tensor([[0.5, 0.0], [0.5, 0.25], [0.5, 1.0]])
    middle = (TINY.lmbda_min * TINY.lmbda_max) ** 0.5
    expected = middle * torch.tensor([[1 / middle, 1, 0], [1 / middle, 0.75, 0.25 * 1300], [1 / middle, 0, 1300]])
    torch.testing.assert_close(objective.coefficients(units), expected)
    x = batch(3, 192)
    x_hat = (x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    score = objective(ModelOutput(x_hat, torch.zeros(3), torch.zeros(3)), x, units)
    torch.testing.assert_close(score.loss, (expected * score.terms).sum(dim=1).mean())  # the middle weighs 1
    assert STRUCTURE_WORTH == 1300.0
    score.loss.backward()
    gradients = x_hat.grad
    mean_error = 2.0 * 255.0**2 * middle * (x_hat[0] - x[0]).detach() / (3 * x[0].numel())
    torch.testing.assert_close(gradients[0], mean_error)  # of a = 0: that of the error alone
    assert gradients[2].abs().sum() > 0.0
    samples = objective.sample(8, torch.Generator().manual_seed(0))
    assert len(samples[:, 0].unique()) == 8
    assert len(samples[:, 1].unique()) == 1


def test_it_is_learned_beside_what_ships(final):
    """Its stage starts as the shipped decoder, moves nothing else, spends the same bits, and gains MS-SSIM at 1."""
    run = trainer(final, steps=12)
    x, quality = batch(4, 192), torch.full((4, 1), 0.2)
    one = torch.cat([quality, torch.ones(4, 1)], dim=1)
    shipped = make_model().to(memory_format=torch.channels_last)  # as the trainer holds it
    with torch.no_grad():
        sent, begun = SentModel(shipped)(x, quality), run.model(x, one)
    assert all(torch.equal(a, b) for a, b in zip(sent, begun, strict=True))
    before = add_realism.figures(run.model, x)
    while run.progress < 1.0:
        assert run.train_step() is not None
    state = run.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in shipped.state_dict().items())
    assert all(delta.any() for name, delta in run.model.realism.items() if name.endswith("weight"))
    after = add_realism.figures(run.model, x)
    assert [p["bpp"] for p in after] == [p["bpp"] for p in before]
    for old, new in zip(before, after, strict=True):
        if new["realism"] == 0.0:
            assert new == old
    assert sum(p["ms_ssim_db"] for p in after if p["realism"] == 1.0) > sum(
        p["ms_ssim_db"] for p in before if p["realism"] == 1.0
    )
    assert {"psnr/0.5", "worth/g_s.blocks.0"} < run.validate(batch(2, 192)).keys()


def test_its_stage_resumes(final, tmp_path):
    whole, first = trainer(final), trainer(final)
    for run, steps in ((whole, 4), (first, 2)):
        for _ in range(steps):
            run.train_step()
    checkpoint.save_atomically(first.state(), tmp_path / "checkpoint.pt")
    second = trainer(None)
    second.restore(checkpoint.load(tmp_path / "checkpoint.pt"))
    for _ in range(2):
        second.train_step()
    assert all(torch.equal(whole.ema[name], second.ema[name]) for name in whole.ema)
    assert any(whole.ema[name].any() for name in whole.ema if name.startswith("realism."))


def test_a_run_becomes_a_part_of_its_models_weights(final, tmp_path):
    run = trainer(final)
    run.train_step()
    checkpoint.save_atomically(run.state(), tmp_path / "checkpoint.pt")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.fromarray(picture(256, 256)).save(pictures / "0.png")
    own, foreign = tmp_path / "own.safetensors", tmp_path / "foreign.safetensors"
    shipped = make_model()
    weights.save(own, TINY, freeze(shipped), {})
    model_id = weights.load(own).model_id
    with torch.no_grad():
        shipped.transforms.g_s.head.bias.add_(1.0)
    weights.save(foreign, TINY, freeze(shipped), {})

    def add(path: Path):
        return CliRunner().invoke(
            add_realism.main, ["--run", str(tmp_path), "--data", str(pictures), str(path)], catch_exceptions=False
        )

    result = add(own)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("ms_ssim_db") == 9
    found = weights.load(own)
    assert found.model_id == model_id
    assert set(found.realism) == {name for name in found.floats if name.startswith("g_s.")}
    assert len(found.card["realism"]["figures"]) == 9
    assert unpack(Codec(own).encode(picture(20, 20))).model_id == model_id

    untouched = foreign.read_bytes()
    result = add(foreign)
    assert result.exit_code == 1
    assert "g_s.head.bias differs" in result.stderr
    assert foreign.read_bytes() == untouched
