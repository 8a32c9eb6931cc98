"""A short campaign of `tests/fuzz.py`, and every input that once got through or crashed, by name."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result
from conftest import make_model

from codec.api import Codec
from codec.errors import WeightsError
from codec.network import weights
from codec.network.bounds import check_exact, largest_sum
from codec.network.layout import prior_layers
from tests import fuzz
from training.export import freeze

COUNTS = {"files": 1500, "weights": 150}
PLANTED = 12  # inputs, of which about three die


def run_campaign(*options: object) -> Result:
    """The command, whose workers are processes of their own."""
    return CliRunner().invoke(fuzz.main, [str(option) for option in options])


@pytest.fixture(scope="module", params=COUNTS)
def outcomes(request: pytest.FixtureRequest, weights_path: Path, tmp_path_factory) -> tuple[str, dict[str, int]]:
    """Target, and how many inputs got how far."""
    target = request.param
    options = ["--target", target, "--count", COUNTS[target], "--weights", weights_path]
    done = run_campaign(*options, "--crashes", tmp_path_factory.mktemp("crashes"))
    assert done.exit_code == 0, done.stderr
    return target, json.loads(done.stdout)


def test_only_codec_errors_escape(outcomes):
    target, counts = outcomes
    assert counts["inputs"] == COUNTS[target]
    assert "crashes" not in counts


def test_inputs_get_past_every_check(outcomes):
    """Else the test above would try the header alone."""
    target, counts = outcomes
    if target == "weights":
        assert counts["WeightsError"] > COUNTS[target] // 2
        assert counts["encoded and decoded"] > 0
        return
    for outcome in (
        "read",
        "CorruptError",
        "TruncatedError",
        "TooLargeError",
        "UnsupportedVersionError",
        "NotYotoError",
    ):
        assert counts[f"sections: {outcome}"] > 0
    for outcome in ("whole: decoded", "region: decoded", "partial: damage found", "whole: ModelMismatchError"):
        assert counts[outcome] > 0
    assert counts["checksums right"] > 9 * COUNTS[target] // 10
    for stage in ("header read", "entropy decoder fed", "symbols decoded", "all symbols of a tile decoded"):
        assert counts[stage] > COUNTS[target] // 4
    for stage in (
        "escape met",
        "plain decoder fed",
        "plain tile decoded",
        "alpha read",
        "metadata read",
        "pixels made",
    ):
        assert counts[stage] > COUNTS[target] // 50


def test_a_campaign_goes_on_where_it_was(weights_path, tmp_path):
    """And counts what it would have counted in one go; another campaign's figures are not added to."""

    def figures(count: int, output: str, seed: int = 3) -> Result:
        options = ["--count", count, "--seed", seed, "--weights", weights_path]
        return run_campaign(*options, "--output", tmp_path / output)

    for output, counts in (("once", [30]), ("twice", [12, 30])):
        for count in counts:
            done = figures(count, output)
        assert json.loads(done.stdout)["inputs"] == 30
    once, twice = (json.loads((tmp_path / output).read_text()) for output in ("once", "twice"))
    assert once == twice
    assert "of another campaign" in figures(40, "once", seed=4).stderr


def test_a_crash_is_kept_and_the_campaign_goes_on(weights_path, tmp_path, monkeypatch):
    """One that is planted: a decoder that dies of files of 64×64 px."""
    program = """
import os, signal, sys
from tests import fuzz
honest = fuzz.FileTarget.attempt
def attempt(self, rng, data):
    if data[8:16] == bytes([64, 0, 0, 0, 64, 0, 0, 0]):
        os.kill(os.getpid(), signal.SIGSEGV)
    return honest(self, rng, data)
fuzz.FileTarget.attempt = attempt
fuzz.main()
"""
    run = subprocess.run
    monkeypatch.setattr(
        subprocess, "run", lambda command, **options: run([command[0], "-c", program, *command[3:]], **options)
    )
    done = run_campaign("--count", PLANTED, "--weights", weights_path, "--crashes", tmp_path / "crashes")
    kept = list((tmp_path / "crashes").iterdir())
    assert done.exit_code == 1
    assert json.loads(done.stdout)["inputs"] == PLANTED
    assert json.loads(done.stdout)["crashes"] == len(kept) == len(done.stderr.splitlines()) > 0
    assert all(path.read_bytes()[8] == 64 for path in kept)


# Weights files that once loaded and then failed at the first picture, or failed with another error.


def refused(folder: Path, tensors: dict[str, np.ndarray], config: dict[str, object]) -> str:
    """Why a weights file is refused."""
    notes = {"format": weights.FORMAT, "config": json.dumps(config), "card": "{}"}
    path = folder / "found.safetensors"
    path.write_bytes(safetensors.numpy.save(tensors, metadata=notes))
    with pytest.raises(WeightsError) as caught:
        Codec(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def as_column(tensor: np.ndarray) -> np.ndarray:
    return tensor[:, None]


def set_first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(tensor: np.ndarray) -> np.ndarray:
        tensor = tensor.copy()
        tensor.flat[0] = value
        return tensor

    return change


# Tensor, change, and what the refusal names.
FOUND = {
    "shift beyond any power of two": ("h_s.up1.shift", set_first(-2_000_000), "h_s.up1.shift"),
    "negative fold": ("embed.fold", set_first(-1), "embed.fold"),
    "weights that make sums inexact": ("passes.0.mix.weight", lambda t: np.full_like(t, 32767), "passes.0.mix sums"),
    "bias of a depthwise layer as a column": ("passes.2.spatial.bias", as_column, "passes.2.spatial.bias"),
    "pass bias as a column": ("passes.1.context_bias", as_column, "passes.1.context_bias"),
    "pass bias beyond the accumulator": ("passes.1.context_bias", set_first(2**30), "embed sums"),
    "bias of 64 bits": ("h_s.out.bias", lambda t: t.astype(np.int64), "h_s.out.bias"),
    "depthwise weights that make sums inexact": (
        "passes.0.spatial.weight",
        lambda t: np.full_like(t, 32767),
        "passes.0.spatial sums",
    ),
    "a transform that is not a number": ("transforms.g_s.head.weight", set_first(np.nan), "g_s.head.weight"),
    "an infinite gain": ("transforms.encoder_gain.bias", set_first(np.inf), "encoder_gain.bias"),
    "a transform in double": ("transforms.channel_std", lambda t: t.astype(np.float64), "channel_std"),
    "booleans": ("h_s.up2.weight", lambda t: t.astype(bool), "h_s.up2.weight"),
}


@pytest.mark.parametrize("case", FOUND)
def test_weights_that_once_got_through(tmp_path, case):
    name, change, named = FOUND[case]
    model = make_model()
    tensors = freeze(model)
    tensors[name] = change(tensors[name])
    assert named in refused(tmp_path, tensors, dataclasses.asdict(model.config))


@pytest.mark.parametrize(
    "change", [{"expansion": float("inf")}, {"expansion": 1e308}, {"num_coefficients": 0}, {"synthesis_blocks": 10**9}]
)
def test_settings_that_once_got_through(tmp_path, change):
    model = make_model()
    refused(tmp_path, freeze(model), dataclasses.asdict(model.config) | change)


@pytest.mark.parametrize("name", ["h_s.out", "passes.2.spatial"])
def test_sums_may_reach_the_last_exact_integer_and_no_further(tmp_path, name):
    model = make_model()
    tensors = freeze(model)
    layer = prior_layers(model.config)[name]
    tensors[f"{name}.weight"] = np.zeros_like(tensors[f"{name}.weight"])
    bias = tensors[f"{name}.bias"] = np.zeros_like(tensors[f"{name}.bias"])
    bias.flat[0] = 2**24 - 1
    assert largest_sum(tensors, layer) == 2**24 - 1
    check_exact({key: value for key, value in tensors.items() if not key.startswith("transforms.")}, model.config)
    bias.flat[0] += 1
    assert f"{name} sums" in refused(tmp_path, tensors, dataclasses.asdict(model.config))
