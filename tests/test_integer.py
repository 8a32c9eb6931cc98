"""The frozen entropy model gives the same integers whatever runs it, and nearly the bits of the float one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isqrt
from typing import NamedTuple

import numpy as np
import pytest
import torch
from conftest import picture

from codec.api import Codec
from codec.app.selftest import threads
from codec.format.bitstream import QUALITY_MAX
from codec.format.entropy import LAST_SILENT_ROW
from codec.network import integer, layout
from codec.network.integer import IntegerPrior
from codec.network.layout import ACTIVATION_MAX
from codec.network.model import YotoModel
from codec.network.prior import of_pass, to_phases
from codec.quantise import RDO_BITS, quantised_hyper, quantiser, rounding_thresholds

Arrays = dict[str, np.ndarray]
Choose = Callable[[int, np.ndarray], np.ndarray]
QUALITIES = [0, 1, 127, 128, 1000, 2049, 4000, 4095, 4096]
ACCUMULATOR_LIMIT = 2**24

# The reference: NumPy and int64 alone, written from the specification in `integer.py`.


class Result(NamedTuple):
    means: list[np.ndarray]
    indexes: list[np.ndarray]
    y_hat: np.ndarray


def at_quality(table: np.ndarray, quality: int) -> np.ndarray:
    """Rows of (33, n) lie 128 apart; between them linear, rounded down."""
    knot = min(quality >> 7, 31)
    fraction = quality - (knot << 7)
    return (table[knot] * (128 - fraction) + table[knot + 1] * fraction) >> 7


def shift_down(values: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """⌊values · 2^-shift⌋, shifts of either sign."""
    return np.where(shift >= 0, values >> np.maximum(shift, 0), values << np.maximum(-shift, 0))


def matrix(t: Arrays, name: str, quality: int) -> np.ndarray:
    """Weights (out, in) of a dense layer with the FiLM factor folded in."""
    fold = t[f"{name}.fold"][:, None]
    product = t[f"{name}.weight"] * at_quality(t[f"{name}.factor"], quality)[:, None]
    return (product + np.where(fold > 0, 1 << np.maximum(fold - 1, 0), 0)) >> fold


def dense(t: Arrays, name: str, quality: int, a: np.ndarray, low: int, high: int) -> np.ndarray:
    total = np.einsum("hwi,oi->hwo", a, matrix(t, name, quality)) + at_quality(t[f"{name}.bias"], quality)
    return np.clip(shift_down(total, t[f"{name}.shift"]), low, high)


def depthwise(t: Arrays, name: str, a: np.ndarray) -> np.ndarray:
    h, w, _ = a.shape
    total = np.zeros_like(a) + t[f"{name}.bias"]
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            to = np.s_[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
            source = np.s_[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
            total[to] += a[source] * t[f"{name}.weight"][3 * (dy + 1) + dx + 1]
    return np.clip(shift_down(total, t[f"{name}.shift"]), -1023, 1023)


def shuffle(a: np.ndarray) -> np.ndarray:
    h, w, c = a.shape
    out = np.empty((2 * h, 2 * w, c // 4), a.dtype)
    for i in range(4):
        out[i // 2 :: 2, i % 2 :: 2] = a[:, :, i::4]
    return out


def magnitude(y: np.ndarray) -> np.ndarray:
    """16 · log2(1 + |y|/16), rounded: it is m or more where (16 + |y|)^32 exceeds 2^(2m - 1 + 128)."""

    def root32(value: int) -> int:
        for _ in range(5):
            value = isqrt(value)
        return value

    return np.searchsorted([root32(2 ** (2 * m + 127)) + 1 for m in range(1, 200)], 16 + np.abs(y), side="right")


def reference(t: Arrays, quality: int, z: np.ndarray, choose: Choose) -> Result:
    """All means, indexes and decoded latents of a tile, for the symbols that `choose` picks in each pass."""
    m = t["norm"].shape[1]
    norm, reciprocal = at_quality(t["norm"], quality), at_quality(t["reciprocal"], quality)
    group_of = np.arange(m) // (m // 4)

    a = depthwise(t, "h_s.spatial1", shuffle(dense(t, "h_s.up1", quality, z.astype(np.int64), 0, 1023)))
    a = depthwise(t, "h_s.spatial2", shuffle(dense(t, "h_s.up2", quality, a, 0, 1023)))
    hyper = dense(t, "h_s.out", quality, a, 0, 1023)

    h, w, _ = hyper.shape
    y, x = np.mgrid[:h, :w]
    phase = (2 * (y % 2) + x % 2)[..., None]
    y_hat, known = np.zeros((h, w, m), np.int64), np.zeros((h, w, m), bool)
    embedding, embedding_bias = matrix(t, "embed", quality), at_quality(t["embed.bias"], quality)
    means, indexes = [], []
    for k in range(4):
        scaled = np.clip((y_hat * reciprocal + 2048) >> 12, -256, 256)
        features = np.concatenate([scaled, magnitude(y_hat)], axis=2) * np.concatenate([known, known], axis=2)
        total = np.einsum("hwi,oi->hwo", features, embedding) + embedding_bias + t[f"passes.{k}.context_bias"]
        context = depthwise(t, f"passes.{k}.spatial", np.clip(shift_down(total, t["embed.shift"]), 0, 1023))
        a = dense(t, f"passes.{k}.mix", quality, np.concatenate([context, hyper], axis=2), 0, 1023)
        head = dense(t, f"passes.{k}.head", quality, dense(t, f"passes.{k}.hidden", quality, a, 0, 1023), -8192, 8192)
        mean = np.clip((head[:, :, :m] * norm + 8192) >> 14, -16384, 16384)
        index = np.clip(head[:, :, m:], 0, 63)
        now = group_of == (k + phase) % 4  # coded in this pass
        means.append(by_phase(mean[now], h, w, m))
        indexes.append(by_phase(index[now], h, w, m))
        symbols = from_phases(choose(k, indexes[-1]).astype(np.int64), h, w, m)
        y_hat[now] = np.clip(16 * symbols + mean[now], -16384, 16384)
        known |= now
    return Result(means, indexes, y_hat)


def by_phase(coded: np.ndarray, h: int, w: int, m: int) -> np.ndarray:
    """(h·w·m/4) in raster order → (phase, h/2, w/2, m/4)."""
    return coded.reshape(h // 2, 2, w // 2, 2, m // 4).transpose(1, 3, 0, 2, 4).reshape(4, h // 2, w // 2, m // 4)


def from_phases(coded: np.ndarray, h: int, w: int, m: int) -> np.ndarray:
    return coded.reshape(2, 2, h // 2, w // 2, m // 4).transpose(2, 0, 3, 1, 4).reshape(-1)


# The same symbols for the reference and for the code under test.


def random_symbols(seed: int) -> Choose:
    """Mostly small symbols, one in ten up to the limit of y."""

    def choose(k: int, indexes: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([seed, k])
        small, large = rng.integers(-2, 3, indexes.shape), rng.integers(-1023, 1024, indexes.shape)
        return np.where(rng.random(indexes.shape) < 0.1, large, small).astype(np.int32)

    return choose


def random_z(shape: tuple[int, int], channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    wide = rng.integers(-layout.Z_LIMIT, layout.Z_LIMIT + 1, (*shape, channels))
    return np.where(rng.random((*shape, channels)) < 0.3, wide, rng.integers(-3, 4, wide.shape)).astype(np.int32)


def run(prior: IntegerPrior, z: np.ndarray, choose: Choose) -> Result:
    result = Result([], [], None)

    def coder(k: int, means: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        assert means.dtype == indexes.dtype == np.int32
        result.means.append(means)
        result.indexes.append(indexes)
        return choose(k, indexes)

    tile = prior.run(z, coder)
    assert tile.y_hat.dtype == np.int32
    return result._replace(y_hat=tile.y_hat)


def assert_same(a: Result, b: Result) -> None:
    np.testing.assert_array_equal(a.y_hat, b.y_hat)
    np.testing.assert_array_equal(a.means, b.means)
    np.testing.assert_array_equal(a.indexes, b.indexes)


@pytest.fixture(scope="module")
def integers(codec: Codec) -> Arrays:
    return codec.weights.integers


@pytest.fixture(scope="module")
def arrays(integers: Arrays) -> Arrays:
    return {key: tensor.astype(np.int64) for key, tensor in integers.items()}


@pytest.fixture(scope="module")
def z(codec: Codec) -> np.ndarray:
    """Of a tile that is large enough for several threads."""
    return random_z((9, 13), codec.weights.config.Z)


@pytest.fixture(scope="module")
def expected(arrays: Arrays, z: np.ndarray) -> Result:
    return reference(arrays, 3000, z, random_symbols(1))


def test_agrees_with_the_integer_reference_at_every_quality(subtests, integers, arrays, codec):
    for dtype in [np.float32, np.float64]:
        for quality in QUALITIES:
            with subtests.test(dtype=dtype, quality=quality):
                z = random_z((2, 3), codec.weights.config.Z, quality)
                choose = random_symbols(quality)
                assert_same(
                    run(IntegerPrior(codec.weights.config, integers, quality, dtype), z, choose),
                    reference(arrays, quality, z, choose),
                )


def test_agrees_with_the_integer_reference_at_every_shape(subtests, integers, arrays, codec):
    for shape in [(1, 1), (1, 5), (7, 1), (3, 4)]:
        with subtests.test(shape=shape):
            z = random_z(shape, codec.weights.config.Z)
            assert_same(
                run(IntegerPrior(codec.weights.config, integers, 777), z, random_symbols(2)),
                reference(arrays, 777, z, random_symbols(2)),
            )


def test_inputs_of_the_tests_exercise_the_model(expected):
    """Else the equalities here would hold of constants."""
    assert all(len(np.unique(means)) > 50 for means in expected.means)
    assert len(np.unique(expected.indexes)) > 10
    assert np.abs(expected.y_hat).max() > 10_000


def test_quality_conditions_the_prior(arrays, codec):
    z = random_z((2, 2), codec.weights.config.Z)
    low, high = (reference(arrays, quality, z, random_symbols(3)) for quality in (0, QUALITY_MAX))
    assert np.mean(np.array(low.means) != high.means) > 0.5
    assert np.mean(np.array(low.indexes) != high.indexes) > 0.5


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


SURROUNDINGS = {
    "one thread": lambda: threads(1),
    "two threads": lambda: threads(2),
    "no oneDNN": lambda: torch.backends.mkldnn.flags(enabled=False),
    "medium precision": lambda: matmul_precision("medium"),
    "high precision": lambda: matmul_precision("high"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "with gradients": torch.enable_grad,
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")
def test_surroundings_do_not_matter(subtests, codec, integers, z, expected):
    for surrounding in SURROUNDINGS:
        with subtests.test(surrounding=surrounding), SURROUNDINGS[surrounding]():
            assert_same(run(IntegerPrior(codec.weights.config, integers, 3000), z, random_symbols(1)), expected)


def test_memory_layout_does_not_matter(codec, integers, z, expected):
    def strided(k: int, indexes: np.ndarray) -> np.ndarray:
        return np.asfortranarray(random_symbols(1)(k, indexes))

    layouts = [np.asfortranarray(z), np.repeat(z, 2, axis=2)[:, :, ::2], z.transpose(1, 0, 2).copy().transpose(1, 0, 2)]
    for strided_z in layouts:
        assert not strided_z.flags.c_contiguous
        assert_same(run(IntegerPrior(codec.weights.config, integers, 3000), strided_z, strided), expected)


def test_frozen_tensors_are_integers(integers):
    assert all(tensor.dtype.kind == "i" for tensor in integers.values())


def test_rejects_rate_points_out_of_range(subtests, codec, integers):
    for rate_point in [-1, QUALITY_MAX + 1]:
        with subtests.test(rate_point=rate_point), pytest.raises(ValueError, match="rate point"):
            IntegerPrior(codec.weights.config, integers, rate_point)


def test_stages_are_z_then_the_passes(integers, codec):
    z = random_z((2, 3), codec.weights.config.Z)
    choose = random_symbols(4)
    walked = run(IntegerPrior(codec.weights.config, integers, 500), z, choose)
    stages = IntegerPrior(codec.weights.config, integers, 500).run(z, lambda k, _, indexes: choose(k, indexes)).stages
    np.testing.assert_array_equal(stages[0][0], z.reshape(-1))
    np.testing.assert_array_equal(
        stages[0][1].reshape(z.shape)[0, 0], IntegerPrior(codec.weights.config, integers, 500).z_index
    )
    for k, (symbols, indexes) in enumerate(stages[1:]):
        np.testing.assert_array_equal(symbols, choose(k, walked.indexes[k]).reshape(-1))
        np.testing.assert_array_equal(indexes, walked.indexes[k].reshape(-1))


# No sum can leave the 24 bits that float32 carries.


def input_limits(name: str, inputs: int) -> np.ndarray:
    if name == "embed":
        return np.repeat([256, layout.MAGNITUDE_LIMIT], inputs // 2)
    return np.full(inputs, layout.Z_LIMIT if name == "h_s.up1" else layout.ACTIVATION_LIMIT)


DENSE = [
    "h_s.up1",
    "h_s.up2",
    "h_s.out",
    "embed",
    *(f"passes.{k}.{x}" for k in range(4) for x in ("mix", "hidden", "head")),
]


def test_sums_of_dense_layers_stay_exact_at_all_qualities(subtests, arrays):
    for name in DENSE:
        with subtests.test(name=name):
            limits = input_limits(name, arrays[f"{name}.weight"].shape[1])
            passes = range(4) if name == "embed" else []  # their biases are added to the same sum
            reserve = np.max([np.abs(arrays[f"passes.{k}.context_bias"]) for k in passes], axis=0, initial=0)
            worst = max(
                (
                    np.abs(matrix(arrays, name, q)) @ limits + np.abs(at_quality(arrays[f"{name}.bias"], q)) + reserve
                ).max()
                for q in range(QUALITY_MAX + 1)
            )
            assert ACCUMULATOR_LIMIT // 8 < worst < ACCUMULATOR_LIMIT  # exact, and no bits given away


def test_sums_of_depthwise_layers_stay_exact(subtests, arrays):
    for name in ["h_s.spatial1", "h_s.spatial2", *(f"passes.{k}.spatial" for k in range(4))]:
        with subtests.test(name=name):
            sums = np.abs(arrays[f"{name}.weight"]).sum(axis=0) * layout.ACTIVATION_LIMIT + np.abs(
                arrays[f"{name}.bias"]
            )
            assert sums.max() < ACCUMULATOR_LIMIT


def test_magnitudes_are_logarithms(arrays):
    steps = np.arange(layout.LATENT_LIMIT + 1)
    table = integer.magnitude_table()
    np.testing.assert_array_equal(table, magnitude(steps))
    assert np.abs(table - 16 * np.log2(1 + steps / 16)).max() <= 0.5
    assert table.max() <= layout.MAGNITUDE_LIMIT


# Freezing.


@pytest.mark.parametrize("quality", [0, 1024, 3000, 4096])
@torch.no_grad()
def test_freezing_keeps_symbols_and_bits(model: YotoModel, codec: Codec, quality: int):
    condition = torch.tensor([[2.0 * quality / QUALITY_MAX - 1.0]])
    x = torch.from_numpy(picture(256, 192)).permute(2, 0, 1)[None] / 255.0
    y = model.transforms.analyse(x, condition)
    z = model.transforms.hyper_analyse(y, condition).round()
    cond, norm = model.transforms.condition_net(condition), model.transforms.normaliser(condition)

    outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
    hooks = [net.register_forward_hook(lambda *call: outputs.append(call[2])) for net in model.prior.passes]
    _, y_bits = model.prior(y, z, norm, cond, noise=False)
    float_bits = (y_bits + model.prior.z_bits(z, cond, noise=False)).item()
    for hook in hooks:
        hook.remove()

    equal = []

    def coder(k: int, means: np.ndarray, indexes: np.ndarray) -> np.ndarray:
        latents, scale = to_phases(y), of_pass(norm.flatten(1), k)[:, :, None]
        wanted = torch.stack([of_pass(latents[p], k)[p] for p in range(4)])
        float_symbols = (wanted - outputs[k][0].clamp(-ACTIVATION_MAX, ACTIVATION_MAX) * scale).round()
        symbols = np.rint(wanted.numpy().reshape(means.shape) - means / 16.0)
        equal.append(symbols == float_symbols.numpy().reshape(means.shape))
        return symbols.astype(np.int32)

    frozen = IntegerPrior(codec.weights.config, codec.weights.integers, quality).run(
        z[0].permute(1, 2, 0).int().numpy(), coder
    )
    bits = sum(codec.weights.tables.bits(*stage).sum(dtype=float) for stage in frozen.stages)
    assert np.mean(equal) > 0.95
    assert bits == pytest.approx(float_bits, rel=0.03)


def test_quantiser_rounds_or_goes_one_towards_zero(codec: Codec):
    rng = np.random.default_rng(0)
    y = (rng.normal(size=(8, 6, 32)) * 20.0).astype(np.float32)
    means, indexes = rng.integers(-99, 99, (4, 4, 3, 8)), rng.integers(0, 64, (4, 4, 3, 8))
    symbols = quantiser(y, rounding_thresholds(codec.weights.tables, RDO_BITS))(0, means, indexes)
    now = np.arange(32) // 8 == (2 * (np.arange(8)[:, None] % 2) + np.arange(6) % 2)[..., None]
    rounded = np.rint(by_phase(y[now], 8, 6, 32) - means / 16.0)
    coded = indexes > LAST_SILENT_ROW
    assert not symbols[~coded].any()
    saved = np.abs(rounded[coded]) - np.abs(symbols[coded])
    assert set(saved) == {0, 1}
    assert np.mean(saved) < 0.2


def test_hyper_latents_are_those_that_a_decoder_will_see():
    """Silent rows are not written, but condition all that follows; no number of the network's is beyond the rest."""
    z = np.array([[[3.4, 3.4, np.nan, -1e30]]], np.float32)
    rows = np.array([LAST_SILENT_ROW, LAST_SILENT_ROW + 1, 40, 40])
    np.testing.assert_array_equal(quantised_hyper(z, rows), [[[0, 3, 0, -layout.Z_LIMIT]]])


def test_quantiser_survives_any_float(subtests: pytest.Subtests, codec: Codec):
    for value in [np.nan, np.inf, -np.inf, 1e30]:
        with subtests.test(value=value):
            y = np.full((2, 2, 32), value, np.float32)
            means, indexes = np.zeros((4, 1, 1, 8), np.int32), np.full((4, 1, 1, 8), 40)
            symbols = quantiser(y, rounding_thresholds(codec.weights.tables, RDO_BITS))(0, means, indexes)
            assert symbols.dtype == np.int32
            assert np.abs(symbols).max() < layout.LATENT_LIMIT >> layout.LATENT_BITS
