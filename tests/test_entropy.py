"""Symbols to bytes and back, at the price that the tables promise."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import TINY
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from codec.errors import CorruptError
from codec.format.entropy import (
    FREQUENCY_BITS,
    LAST_SILENT_ROW,
    MAX_SYMBOL,
    SymbolDecoder,
    SymbolTables,
    encode_symbols,
)
from training.export import frequency_tables

FROZEN = {key: tensor.numpy() for key, tensor in frequency_tables(TINY).items()}
TABLES = SymbolTables(FROZEN["tables.radii"], FROZEN["tables.frequencies"])
DEVIATIONS = np.geomspace(0.11, 256.0, 64)  # CompressAI's scale table
ROWS = range(64)
CODED_ROWS = range(LAST_SILENT_ROW + 1, 64)


def gaussian_stage(size: int, seed: int = 0, rows: range = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Symbols that follow their rows, none of them outside its table."""
    rng = np.random.default_rng(seed)
    indexes = rng.integers(rows.start, rows.stop, size, dtype=np.int32)
    radii = TABLES.radii[indexes]
    symbols = np.clip(np.rint(rng.normal(size=size) * DEVIATIONS[indexes]), -radii, radii).astype(np.int32)
    symbols[indexes <= LAST_SILENT_ROW] = 0
    return symbols, indexes


def decode(data: bytes, stages_indexes: list[np.ndarray]) -> list[np.ndarray]:
    decoder = SymbolDecoder(data, TABLES)
    symbols = [decoder.read(indexes) for indexes in stages_indexes]
    decoder.finish()
    return symbols


def assert_round_trip(*stages: tuple[np.ndarray, np.ndarray]) -> bytes:
    data = encode_symbols(stages, TABLES)
    decoded = decode(data, [indexes for _, indexes in stages])
    for (symbols, _), result in zip(stages, decoded, strict=True):
        assert result.dtype == np.int32
        np.testing.assert_array_equal(result, symbols)
    return data


def test_every_row_codes_its_table_and_beyond(subtests):
    for row in CODED_ROWS:
        with subtests.test(row=row):
            radius = int(TABLES.radii[row])
            inside = np.arange(-radius, radius + 1)
            outside = [-MAX_SYMBOL, -radius - 2, -radius - 1, radius + 1, radius + 2, MAX_SYMBOL]
            symbols = np.concatenate([inside, outside, inside[::-1]]).astype(np.int32)
            assert_round_trip((symbols, np.full(len(symbols), row, np.int32)))


def test_silent_rows_cost_nothing():
    indexes = np.arange(LAST_SILENT_ROW + 1, dtype=np.int32).repeat(1000)
    assert encode_symbols([(np.zeros_like(indexes), indexes)], TABLES) == b"\0"
    assert_round_trip((np.zeros_like(indexes), indexes))


def test_no_symbols_are_one_byte():
    empty = np.zeros(0, np.int32)
    assert assert_round_trip((empty, empty)) == b"\0"


def test_one_symbol(subtests):
    for symbol in [0, 1, -1, 127, -MAX_SYMBOL, MAX_SYMBOL]:
        for row in [CODED_ROWS[0], 30, 63]:
            with subtests.test(symbol=symbol, row=row):
                assert_round_trip((np.array([symbol], np.int32), np.array([row], np.int32)))


def test_a_million_symbols():
    assert_round_trip(gaussian_stage(1_000_000))


def test_many_escapes():
    symbols = np.tile(np.array([MAX_SYMBOL, -MAX_SYMBOL, 1], np.int32), 50_000)
    assert_round_trip((symbols, np.full(len(symbols), 10, np.int32)))


def test_later_stages_may_depend_on_earlier_ones():
    stages = [gaussian_stage(500, seed) for seed in range(5)]
    decoder = SymbolDecoder(encode_symbols(stages, TABLES), TABLES)
    for symbols, indexes in stages:
        np.testing.assert_array_equal(decoder.read(indexes), symbols)
    decoder.finish()


@given(st.lists(st.tuples(st.integers(-MAX_SYMBOL, MAX_SYMBOL), st.sampled_from(CODED_ROWS)), max_size=50))
def test_any_symbols_in_any_rows(pairs):
    symbols, indexes = np.array(pairs, np.int32).reshape(-1, 2).T.copy()
    assert_round_trip((symbols, indexes))


def test_payload_is_the_ideal_code_length(subtests):
    for size in [1, 100, 10_000, 1_000_000]:
        with subtests.test(size=size):
            symbols, indexes = gaussian_stage(size)
            ideal = TABLES.bits(symbols, indexes).sum(dtype=float)
            bits = 8 * len(encode_symbols([(symbols, indexes)], TABLES))
            assert ideal <= bits <= 1.001 * ideal + 8 * 16


def test_every_row_costs_its_ideal_code_length(subtests):
    for row in CODED_ROWS:
        with subtests.test(row=row):
            symbols, indexes = gaussian_stage(20_000, row, range(row, row + 1))
            ideal = TABLES.bits(symbols, indexes).sum(dtype=float)
            assert ideal <= 8 * len(encode_symbols([(symbols, indexes)], TABLES)) <= 1.001 * ideal + 8 * 16


def test_ideal_code_length_counts_the_escapes():
    indexes = np.full(3, 10, np.int32)
    radius = int(TABLES.radii[10])
    escape_bits = FREQUENCY_BITS - np.log2(TABLES.rows[10][0])
    zero_bits = FREQUENCY_BITS - np.log2(TABLES.rows[10][radius + 1])
    symbols = np.array([0, radius + 1, -MAX_SYMBOL], np.int32)  # one byte and three
    assert TABLES.bits(symbols, indexes).sum() == pytest.approx(zero_bits + 2 * escape_bits + 8 * 4)


def test_refuses_what_it_would_not_write(subtests):
    """A symbol that is not written must not be thought to be."""
    for row in range(LAST_SILENT_ROW + 1):
        with subtests.test(row=row), pytest.raises(ValueError, match="zero"):
            encode_symbols([(np.array([0, -1], np.int32), np.array([10, row], np.int32))], TABLES)
    for symbol in (MAX_SYMBOL + 1, -MAX_SYMBOL - 1):
        with subtests.test(symbol=symbol), pytest.raises(ValueError, match="beyond"):
            encode_symbols([(np.array([0, symbol], np.int32), np.array([10, 10], np.int32))], TABLES)


def test_frequencies_are_those_of_a_gaussian(subtests):
    for row in ROWS:
        with subtests.test(row=row):
            deviation, radius = DEVIATIONS[row], TABLES.radii[row]
            k = np.arange(-radius, radius + 1)
            # From the near tail: cdf differences cancel on the far side.
            inside = norm.sf((np.abs(k) - 0.5) / deviation) - norm.sf((np.abs(k) + 0.5) / deviation)
            pmf = np.concatenate([[2.0 * norm.sf((radius + 0.5) / deviation)], inside])
            spare = (1 << FREQUENCY_BITS) - len(pmf)  # every entry has one count for itself
            assert np.abs(TABLES.rows[row] - 1 - spare * pmf).max() < 1.0 + 1e-6


def test_table_is_nearly_as_short_as_the_gaussian(subtests):
    """Rounding the frequencies costs under 1 % of the entropy, and under 0.001 bit a symbol where that is small."""
    for row in ROWS:
        with subtests.test(row=row):
            slots = TABLES.rows[row] / 2.0**FREQUENCY_BITS
            k = np.abs(np.arange(-TABLES.radii[row], TABLES.radii[row] + 1))
            pmf = norm.sf((k - 0.5) / DEVIATIONS[row]) - norm.sf((k + 0.5) / DEVIATIONS[row])
            entropy = -(pmf * np.log2(np.maximum(pmf, 1e-300))).sum()
            crossed = -(pmf * np.log2(slots[1:])).sum()
            assert crossed - entropy < max(0.01 * entropy, 0.001)


def test_silent_rows_are_those_whose_zero_bin_holds_all_but_1e_4():
    outside = 2.0 * norm.sf(0.5 / DEVIATIONS)
    assert list(np.flatnonzero(outside < 1e-4)) == list(range(LAST_SILENT_ROW + 1))


def test_rejects_tables_that_are_none(subtests):
    for radii, frequencies in [
        ([1], [1, 1, 1, 65532]),  # one short
        ([1], [0, 1, 1, 65534]),  # a zero
        ([1], [65533, 1, 1]),  # too few entries
        ([1, 1], [65533, 1, 1, 1]),
        ([0], [65535, 1]),  # no symbol but zero
        ([-1], []),
        ([1] * 257, [65533, 1, 1, 1] * 257),  # more rows than a byte can name
    ]:
        with subtests.test(radii=radii, frequencies=frequencies), pytest.raises(ValueError, match="frequencies"):
            SymbolTables(np.array(radii, np.int32), np.array(frequencies, np.int32))


# Damage. `assert_survives` fails on anything but symbols or a CorruptError.

DAMAGED_SYMBOLS, DAMAGED_INDEXES = gaussian_stage(200, seed=9)
DAMAGED_SYMBOLS[DAMAGED_INDEXES == 20] += 1000  # some escapes
STREAM = encode_symbols([(DAMAGED_SYMBOLS, DAMAGED_INDEXES)], TABLES)


def assert_survives(data: bytes) -> None:
    try:
        (symbols,) = decode(data, [DAMAGED_INDEXES])
    except CorruptError:
        return
    assert symbols.dtype == np.int32
    assert np.abs(symbols).max() <= MAX_SYMBOL


def test_truncated_stream_is_corrupt(subtests):
    for length in range(len(STREAM)):
        with subtests.test(length=length), pytest.raises(CorruptError):
            decode(STREAM[:length], [DAMAGED_INDEXES])


def test_flipped_bits_are_survived():
    for bit in range(8 * len(STREAM)):
        damaged = bytearray(STREAM)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_survives(bytes(damaged))


@given(st.binary(max_size=300))
def test_random_bytes_are_survived(data):
    assert_survives(data)


@given(st.integers(0, 2**32 - 1))
def test_other_rows_are_survived(seed):
    indexes = np.random.default_rng(seed).integers(0, 64, len(DAMAGED_INDEXES), dtype=np.int32)
    decoder = SymbolDecoder(STREAM, TABLES)
    try:
        decoder.read(indexes)
        decoder.finish()
    except CorruptError:
        pass


def test_rejects_malformed_stream(subtests):
    for data in [
        b"",
        b"\x80",  # the length does not end
        b"\xff\xff\xff\xff\xff\xff",  # nor within five bytes
        b"\x01",  # a negative length
        b"\x02",  # one byte of escapes, but none there
        b"\xfe\xff\xff\xff\x0f",  # 2^31 bytes of escapes
        b"\x00\x01\x02\x03",  # no whole words
        b"\x00" + bytes(4),  # the last word is zero
        b"\x00\x01\x00\x00\x00\x00\x00\x00\x00",
    ]:
        with subtests.test(data=data), pytest.raises(CorruptError):
            decode(data, [np.zeros(0, np.int32)])


def test_rejects_words_left_over():
    with pytest.raises(CorruptError, match="left over"):
        decode(STREAM, [DAMAGED_INDEXES[:100]])


def test_rejects_escapes_left_over():
    with pytest.raises(CorruptError, match="left over"):
        decode(b"\x02\x05", [np.zeros(0, np.int32)])


@pytest.mark.parametrize("symbol", [MAX_SYMBOL + 1, -MAX_SYMBOL - 1, 2**30])
def test_rejects_escape_beyond_the_range(symbol, monkeypatch):
    stages = [(np.array([symbol], np.int32), np.array([10], np.int32))]
    with pytest.raises(ValueError, match="beyond"):
        encode_symbols(stages, TABLES)
    monkeypatch.setattr("codec.format.entropy.MAX_SYMBOL", 1 << 30)
    data = encode_symbols(stages, TABLES)
    monkeypatch.undo()
    with pytest.raises(CorruptError, match="range"):
        decode(data, [np.array([10], np.int32)])


def test_rejects_a_number_of_more_than_five_bytes(subtests):
    for count in [6, 10, 1000]:
        with subtests.test(count=count), pytest.raises(CorruptError, match="does not end"):
            SymbolDecoder(b"\x80" * (count - 1) + b"\x00", TABLES)
