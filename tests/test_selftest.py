"""The self-test passes here, would notice a deviation, and its digests are those of the NumPy reference."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from test_integer import reference

from cli import main
from codec.api import Codec, default_codec
from codec.app import selftest
from codec.app.selftest import CASES, SYMBOL_LIMIT, Setting, case_name, exchanged, golden_symbols, random_integers
from codec.errors import CodecError, WeightsError
from codec.network.integer import IntegerPrior


def test_this_machine_passes():
    result = CliRunner().invoke(main, ["selftest"])
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(lines) >= 13
    assert all(line.startswith("ok   ") for line in lines)


def test_a_deviation_of_one_is_noticed(monkeypatch):
    honest = IntegerPrior._parameters

    def off_by_one(self: IntegerPrior, k: int, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        means, indexes = honest(self, k, features)
        if k == 3:
            means[-1, -1, -1, -1] += 1
        return means, indexes

    digests = selftest.expected_digests(default_codec())
    small = {case_name(case): digests[case_name(case)] for case in CASES[:2]}
    monkeypatch.setattr(selftest, "CASES", CASES[:2])
    monkeypatch.setattr(selftest, "expected_digests", lambda codec: small)
    monkeypatch.setattr(selftest, "settings", lambda: [Setting("as is", selftest.nullcontext)])
    monkeypatch.setattr(selftest, "check_files", lambda codec: [])
    assert CliRunner().invoke(main, ["selftest"]).exit_code == 0
    monkeypatch.setattr(IntegerPrior, "_parameters", off_by_one)
    result = CliRunner().invoke(main, ["selftest"])
    assert result.exit_code == 1
    assert all(line.startswith("FAIL integers") for line in result.stdout.splitlines())
    assert result.stderr.startswith("Error: 5 checks failed")


def test_receiver_with_other_arithmetic_is_noticed(codec, weights_path, monkeypatch):
    here, receiver = Setting("as is", selftest.nullcontext), Codec(weights_path)
    assert exchanged(codec, receiver, here, here)
    honest = receiver.model._build_prior

    def deviating(quality: int) -> IntegerPrior:
        prior = honest(quality)
        prior.context_bias[0] += 1 << 6
        return prior

    monkeypatch.setattr(receiver.model, "prior", deviating)
    assert not exchanged(codec, receiver, here, here)


@pytest.mark.parametrize("case", [case for case in CASES if case[0] * case[1] <= 12], ids=case_name)
def test_digests_are_those_of_the_numpy_reference(case):
    """Means, indexes and y_hat; the stream of symbols is held against constriction alone."""
    codec, (height, width, quality) = default_codec(), case
    arrays = {key: tensor.astype(np.int64) for key, tensor in codec.weights.integers.items()}
    z_index = IntegerPrior(codec.weights.config, codec.weights.integers, quality).z_index
    z = golden_symbols(0, np.broadcast_to(z_index, (height, width, len(z_index))), 127)
    result = reference(arrays, quality, z, lambda k, indexes: golden_symbols(k + 1, indexes, SYMBOL_LIMIT).reshape(-1))
    seen = [array for pair in zip(result.means, result.indexes, strict=True) for array in pair]
    stages = [(z.reshape(-1), np.broadcast_to(z_index, z.shape).reshape(-1))]
    stages += [
        (golden_symbols(k + 1, indexes, SYMBOL_LIMIT).reshape(-1), indexes.reshape(-1))
        for k, indexes in enumerate(result.indexes)
    ]
    stream = selftest.encode_symbols(
        [(s.astype(np.int32), r.astype(np.int32)) for s, r in stages], codec.weights.tables
    )
    expected = selftest.expected_digests(codec)
    assert selftest.digest([*seen, result.y_hat, np.frombuffer(stream, np.uint8)]) == expected[case_name(case)]
    assert len(np.unique(result.means)) > 20  # else the digests would be of constants
    assert len(np.unique(result.indexes)) > 5


def test_digests_of_other_weights_are_refused(codec):
    with pytest.raises(WeightsError, match="other weights"):
        selftest.expected_digests(codec)


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}"])
def test_missing_or_damaged_digests_are_refused(tmp_path, monkeypatch, content):
    path = tmp_path / "selftest.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(selftest, "EXPECTED_PATH", path)
    with pytest.raises(CodecError, match=r"selftest\.json"):
        selftest.expected_digests(default_codec())


def test_shipped_digests_are_as_rewritten(tmp_path, monkeypatch):
    shipped = json.loads(selftest.EXPECTED_PATH.read_text())
    monkeypatch.setattr(selftest, "EXPECTED_PATH", tmp_path / "selftest.json")
    selftest.rewrite()
    assert json.loads((tmp_path / "selftest.json").read_text()) == shipped


def test_generator_of_golden_inputs_is_splitmix64():
    """Written again in Python's own integers."""

    def splitmix64(counter: int) -> int:
        x = counter * 0x9E3779B97F4A7C15 % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    numbers = [splitmix64(i + 1) for i in range(1000)]
    assert numbers[0] == 0xE220A8397B1DCDAF  # the first output of the published generator for seed 0
    spans = [100 if x % 8 == 0 else 3 for x in numbers]
    expected = [x // 8 % (2 * span + 1) - span for x, span in zip(numbers, spans, strict=True)]
    integers = random_integers(0, 1000, 100)
    assert integers.tolist() == expected
    assert random_integers(1, 1000, 100).tolist() != expected
