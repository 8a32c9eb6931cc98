"""ONNX Runtime gives what torch gives, gradient included, and serves where there is no torch."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import TINY, make_model, picture
from PIL import Image

from cli import main
from codec.api import Codec, default_codec
from codec.errors import CodecError, WeightsError
from codec.network import loaded, threads, weights
from codec.network.config import ModelConfig
from codec.network.onnx_backend import OnnxBackend, graph_path, has_graphs
from codec.network.torch_backend import TorchBackend
from tests.forge import Corpus, samples
from tests.fuzz import MAX_PIXELS
from training import graphs
from training.export import freeze

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1"
CONFIGS = {
    "second edition": dataclasses.replace(TINY, hidden_max=0.3),  # so small that it bounds many units
    "first edition": dataclasses.replace(
        TINY, extra=0, analysis_blocks=0, synthesis_blocks=0, synthesis_coarse=2, gate="relu", hidden_max=0.0
    ),
}


def saved(folder: Path, config: ModelConfig) -> weights.Weights:
    """A model on disk, its graphs beside it."""
    model = make_model(config)
    path = folder / "model.safetensors"
    weights.save(path, config, freeze(model), {})
    found = weights.load(path)
    graphs.write(path, config)
    return found


@pytest.fixture(scope="module", params=CONFIGS)
def backends(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OnnxBackend, TorchBackend]:
    model = saved(tmp_path_factory.mktemp("model"), CONFIGS[request.param])
    return OnnxBackend(model.config, model.floats, model.path), TorchBackend(model.config, model.floats, "cpu")


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("size", [(64, 64), (128, 192)])
@pytest.mark.parametrize("rate_point", [0, 2048, 4096])
def test_gives_what_torch_gives(backends, size, rate_point):
    onnx, torch_ = backends
    pixels = picture(*size).astype(np.float32) / 255.0
    y = torch_.analyse(pixels, rate_point)
    close(onnx.analyse(pixels, rate_point), y)
    close(onnx.hyper_analyse(y, rate_point), torch_.hyper_analyse(y, rate_point))
    y_hat = np.rint(y)
    close(onnx.synthesise(y_hat, rate_point), torch_.synthesise(y_hat, rate_point))
    for target in (pixels[: size[0] - 5, : size[1] - 30], pixels[: size[0] - 17, :, 1:2]):
        for gradient in (False, True):
            found, expected = (each.look(target, y_hat, rate_point, gradient=gradient) for each in backends)
            close(found.error_bits, expected.error_bits)
            if gradient:
                close(found.gradient, expected.gradient)
            assert (found.gradient is None) == (not gradient)


def test_every_installed_model_has_its_graphs():
    for model_id in weights.available():
        assert has_graphs(weights.find(model_id)), f"python -m training.graphs {model_id.hex()}"


@pytest.mark.parametrize("name", ["colour", "grey", "tiles"])
def test_golden_files_decode_alike(name):
    data = (GOLDEN / f"{name}.yoto").read_bytes()
    with Image.open(GOLDEN / f"{name}.png") as image:
        expected = np.asarray(image).astype(int)
    for backend in ("onnx", "torch"):
        codec = Codec(backend=backend)
        assert codec.backend == backend
        assert np.abs(np.asarray(codec.decode(data)) - expected).max() <= 1


def test_damaged_files_get_the_same_verdict(weights_path, tmp_path):
    """A seeded thousand, the same as the browser's in `test_web.py`: the same error, or pixels within one level."""
    path = Path(shutil.copy(weights_path, tmp_path))
    graphs.write(path, TINY)
    onnx, torch_ = Codec(path, backend="onnx"), Codec(path, backend="torch")
    corpus, decoded = Corpus(samples(torch_)), 0
    for i in range(1000):
        data = corpus.forge(np.random.default_rng([3, i]))[0]
        found, expected = verdict(onnx, data), verdict(torch_, data)
        if isinstance(expected, Image.Image) and isinstance(found, Image.Image):
            assert (found.size, found.mode) == (expected.size, expected.mode), f"input {i}"
            assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 1, f"input {i}"
            decoded += 1
        else:
            assert found == expected, f"input {i}"
    assert 20 < decoded < 500  # damage of both kinds was met


def verdict(codec: Codec, data: bytes) -> Image.Image | tuple[str, str]:
    """The picture, or which error says what."""
    try:
        return codec.decode(data, max_pixels=MAX_PIXELS)
    except CodecError as error:
        return type(error).__name__, str(error)


def test_the_faster_is_chosen_and_the_graphs_need_to_be_there(weights_path):
    assert default_codec().backend == "onnx"
    assert Codec(weights_path).backend == "torch"
    with pytest.raises(WeightsError, match=r"analyse\.onnx cannot be read"):
        Codec(weights_path, backend="onnx").encode(picture(8, 8))
    with pytest.raises(CodecError, match="CPU"):
        Codec(device="cuda", backend="onnx")
    with pytest.raises(ValueError, match="backend"):
        Codec(backend="caffe")


def test_graphs_of_another_model_are_refused(tmp_path):
    model = saved(tmp_path, TINY)
    graph_path(model.path, "synthesise").write_bytes(
        graphs.make(dataclasses.replace(TINY, N=16, synthesis_blocks=2), "synthesise")
    )
    codec = Codec(model.path)
    data = codec.encode(picture(64, 64), effort=0)
    with pytest.raises(WeightsError, match=r"synthesise\.onnx is not a usable graph") as caught:
        codec.decode(data)
    assert "\n" not in str(caught.value)


def test_without_any_back_end_there_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(loaded, "find_spec", lambda name: None)
    for options in ([], ["--backend", "torch"], ["--backend", "onnx"]):
        arguments = ["decode", str(GOLDEN / "odd.yoto"), "-o", str(tmp_path / "a.png"), *options]
        result = CliRunner().invoke(main, arguments)
        assert result.exit_code == 1
        assert result.stderr.count("\n") == 1
        assert "not installed" in result.stderr


WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(["torch", "skimage", "onnx", "scipy"])
import io, numpy as np, codec, cli
from PIL import Image
data = open(sys.argv[1], "rb").read()
codec.decode(data).save(sys.argv[2])
noise = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
sizes = [len(codec.Codec().encode(noise, 0.5, effort=effort)) for effort in (0, 1)]
assert codec.decode(codec.encode(noise)).size == (90, 70) and min(sizes) > 100, sizes
cli.main(["selftest"])
"""


def test_serves_without_torch(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(GOLDEN / "colour.yoto"), str(tmp_path / "colour.png")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")}
    for name in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"):
        environment.pop(name, None)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "ok   integers" in done.stdout
    assert "ok   files: onnx" in done.stdout
    assert not (tmp_path / "home").exists()  # ONNX Runtime keeps no identifier of the machine for its telemetry
    with Image.open(tmp_path / "colour.png") as image, Image.open(GOLDEN / "colour.png") as expected:
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).max() <= 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_back_end_that_was_used_serves_forked_processes():
    codec = default_codec()
    data = codec.encode(picture(64, 64))
    here = np.asarray(codec.decode(data))
    with multiprocessing.get_context("fork").Pool(1) as pool:
        found = pool.starmap_async(_decode_default, [(data,)]).get(timeout=600)
    np.testing.assert_array_equal(found[0], here)


def _decode_default(data: bytes) -> np.ndarray:
    return np.asarray(default_codec().decode(data))


def test_cores_are_those_that_the_environment_allows(monkeypatch):
    """As torch does, which is asked where it is loaded."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(threads, "_chosen", 0)
    for told, cores in (
        ("3", 3),
        ("2,1", 2),
        ("many", len(os.sched_getaffinity(0))),
        ("0", len(os.sched_getaffinity(0))),
    ):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert threads.get() == cores


def test_the_back_end_pickles(backends):
    onnx = backends[0]
    y = np.zeros((4, 4, TINY.M), np.float32)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(onnx)).synthesise(y, 7), onnx.synthesise(y, 7))


def test_gradients_are_those_of_finite_differences(backends):
    """Not only those of the same formula elsewhere."""
    onnx = backends[0]
    pixels = picture(64, 64).astype(np.float32) / 255.0
    y_hat = np.rint(onnx.analyse(pixels, 2048))
    look = onnx.look(pixels, y_hat, 2048, gradient=True)
    step = 0.05 * look.gradient / np.abs(look.gradient).max()
    ahead, behind = (
        onnx.look(pixels, y_hat + sign * step, 2048, gradient=False).error_bits.sum(dtype=float) for sign in (1, -1)
    )
    assert (ahead - behind) / 2.0 == pytest.approx((look.gradient * step).sum(dtype=float), rel=0.02)
