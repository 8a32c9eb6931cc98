"""The style transfer example: its network, its losses, its command and its page, and what its weights have learned."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from click.testing import CliRunner
from conftest import batch, picture
from fastapi.testclient import TestClient
from PIL import Image
from safetensors.torch import load_file

from examples.style_transfer.__main__ import main
from examples.style_transfer.losses import VGG, Judge, Seen, make_objective
from examples.style_transfer.network import COEFFICIENTS, StyleNetwork, load, save, stylise
from examples.style_transfer.page import create_app
from examples.style_transfer.train import PAINTINGS, load_style


@pytest.fixture(scope="module")
def network() -> StyleNetwork:
    """Random weights, FiLM's too: it starts blind to the condition."""
    torch.manual_seed(0)
    network = StyleNetwork()
    for name, parameter in network.named_parameters():
        if "film" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return network


@pytest.fixture
def weights(network: StyleNetwork, tmp_path: Path) -> Path:
    save(network, tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    styles = [torch.rand(1, 3, 48, 40), torch.rand(1, 3, 40, 48).round()]
    return Judge(VGG(((4, 4), (4, 4), (8, 8), (8, 8))), styles, batch(4, 32))


@pytest.mark.parametrize("index", range(len(COEFFICIENTS)), ids=COEFFICIENTS)
def test_every_coefficient_moves_the_output(network: StyleNetwork, index: int):
    x = torch.from_numpy(picture(30, 41))
    low, high = torch.full((2, 6), 0.5).unbind()
    low[index], high[index] = 0.0, 1.0
    first, second = stylise(network, x, low), stylise(network, x, high)
    assert first.shape == x.shape
    assert first.dtype == torch.uint8
    assert (first.int() - second.int()).abs().float().mean() > 1.0


def test_training_starts_blind_and_the_condition_gets_gradients():
    torch.manual_seed(0)
    network, x = StyleNetwork(blocks=1), batch(2, 32)
    condition = torch.zeros(2, 6)
    assert torch.equal(network(x, condition), network(x, condition + 1.0))
    network(x, condition).square().mean().backward()
    assert all(layer.norm.film.weight.grad.any() for layer in network.down)


def test_every_term_has_a_gradient(judge: Judge):
    x = batch(2, 32)
    objective = make_objective()
    output = (1.4 * x - 0.1 * torch.rand_like(x)).requires_grad_()
    seen = judge(output, x, torch.tensor([0.2, 0.7]))
    for term in objective.terms:
        if term.name != "blend":  # which changes the others, and is no loss
            (gradient,) = torch.autograd.grad(
                term.function(seen, x).sum(), output, retain_graph=True, materialize_grads=True
            )
            assert torch.isfinite(gradient).all()
            assert all(g.any() for g in gradient), term.name


def test_losses_vanish_where_nothing_differs(judge: Judge):
    torch.manual_seed(0)
    first = torch.rand(1, 3, 48, 40)
    seen = judge(first, first, torch.zeros(1))
    assert seen.content == 0
    assert all(loss < 0.01 for loss in seen.styles)
    assert all(loss > 0.1 for loss in judge(first, first, torch.ones(1)).styles)


def test_sample_weights_do_not_depend_on_the_size_of_coefficients():
    objective = make_objective()
    coefficients = objective.coefficients(torch.tensor([[0.0] * 5 + [0.5], [1.0] * 5 + [0.5]]))
    weighed = (coefficients * objective.weigh(coefficients)[:, None])[:, :5]
    torch.testing.assert_close(weighed.sum(dim=1), torch.ones(2))
    assert (weighed > 0.0).all()


def test_weights_are_kept(network: StyleNetwork, weights: Path):
    x = torch.from_numpy(picture(16, 16))
    first, second = (stylise(n, x, torch.full((6,), 0.5)).int() for n in (network.eval(), load(weights)))
    assert (first - second).abs().max() <= 3


def test_command_writes_a_picture_of_the_same_size(weights: Path, tmp_path: Path):
    Image.fromarray(picture(21, 34)).save(tmp_path / "in.png")
    arguments = [
        tmp_path / "in.png",
        "--content",
        "0.1",
        "--blend",
        "1",
        "--weights",
        weights,
        "-o",
        tmp_path / "o.png",
    ]
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "o.png") as image:
        assert image.size == (34, 21)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["missing.png", "-o", "o.png"], 1, "missing.png"),
        (["text.png", "-o", "o.png"], 1, "cannot identify"),
        (["tiny.png", "-o", "o.png"], 1, "must be 8 to 4096 px"),
        (["good.png", "-o", "o.unknown"], 1, "unknown"),
        (["good.png", "-o", "o.png", "--weights", "text.png"], 1, "no weights of this network"),
        (["good.png", "-o", "o.png", "--weights", "none"], 1, "no weights at none"),
        (["good.png", "-o", "o.png", "--content", "1.5"], 2, "content"),
        (["good.png"], 2, "give INPUT and --output"),
        ([], 2, "give INPUT and --output"),
    ],
)
def test_command_refuses(arguments, code, message, weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("no picture")
    Image.fromarray(picture(4, 30)).save("tiny.png")
    Image.fromarray(picture(16, 16)).save("good.png")
    chosen = [] if "--weights" in arguments else ["--weights", str(weights)]
    done = CliRunner().invoke(main, [*arguments, *chosen])
    assert done.exit_code == code, done.output
    assert message in done.output
    assert not list(tmp_path.glob("o.*"))


def png(height: int, width: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(height, width)).save(buffer, "PNG")
    return buffer.getvalue()


def test_page_answers(network: StyleNetwork):
    client = TestClient(create_app(network), base_url="http://127.0.0.1:8010")
    assert "page.js" in client.get("/").text
    assert all(f"{name}:" in client.get("/static/page.js").text for name in COEFFICIENTS)
    frames = []
    for content in (0, 1):
        response = client.post("/stylise", params={"content": content}, content=png(32, 48))
        assert response.status_code == 200
        frames.append(np.asarray(Image.open(io.BytesIO(response.content))))
    assert frames[0].shape == (32, 48, 3)
    assert not np.array_equal(*frames)
    assert client.post("/stylise", content=b"no picture").status_code == 400
    assert client.post("/stylise", content=png(8, 257)).status_code == 413
    assert client.post("/stylise", content=bytes(2 << 20)).status_code == 413
    assert client.post("/stylise", params={"blend": 2}, content=png(8, 8)).status_code == 422
    assert client.get("/", headers={"host": "elsewhere.example"}).status_code == 403


@pytest.fixture(scope="module")
def shipped() -> Callable[..., Seen]:
    """The losses of what the shipped weights make of a photograph, by places; the others are in the middle.

    The lower two blocks are those of the training's VGG, the upper two random: all four would be 15 MB here.
    """
    torch.manual_seed(0)
    x = torch.from_numpy(skimage.data.astronaut()[::2, ::2].copy()).permute(2, 0, 1)[None].float() / 255.0
    vgg = VGG(((64, 64), (128, 128), (64, 64, 64), (64, 64, 64)))
    vgg.load_state_dict(load_file(Path(__file__).parent / "vgg16-lower.safetensors"), strict=False)
    judge = Judge(vgg, [load_style(path) for path in PAINTINGS], x)
    network = load()

    @torch.no_grad()
    def seen(share: float | None = None, **places: float) -> Seen:
        condition = torch.tensor([[2.0 * places.get(name, 0.5) - 1.0 for name in COEFFICIENTS]])
        blend = places.get("blend", 0.5) if share is None else share
        return judge(network(x, condition), x, torch.tensor([blend]))

    return seen


def test_shipped_weights_follow_the_content(shipped: Callable[..., Seen]):
    contents = [shipped(content=place).content.item() for place in (0.0, 0.5, 1.0)]
    assert contents[0] > 1.2 * contents[1] > 1.44 * contents[2]


@pytest.mark.parametrize("layer", [0, 1])
def test_shipped_weights_follow_the_lower_layers(shipped: Callable[..., Seen], layer: int):
    low, high = (shipped(**{f"style{1 + layer}": place}).styles[layer].item() for place in (0.0, 1.0))
    assert high < 0.9 * low


def test_shipped_weights_follow_the_blend(shipped: Callable[..., Seen]):
    for painting in (0.0, 1.0):
        there, away = (
            sum(shipped(share=painting, blend=place).styles[:2]).item() for place in (painting, 1.0 - painting)
        )
        assert there < 0.95 * away
