"""Symbols ↔ bytes: ANS coding with integer frequency tables. Knows no network.

A stream is written for a sequence of stages; the decoder reads them in the same order, and may compute the table rows
of a stage from the symbols of those before it. `SPECIFICATION.md` says how symbols become bytes.

Range: |symbol| ≤ MAX_SYMBOL. Asymmetric numeral systems: Duda 2013, arXiv:1311.2540.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import constriction
import numpy as np
import numpy.typing as npt

from codec.errors import CorruptError

IntArray = npt.NDArray[np.int32]
FREQUENCY_BITS = 16
# Up to this row a zero-mean Gaussian bin holds all but 1e-4 of the mass: such symbols are zero and cost nothing.
LAST_SILENT_ROW = 1
MAX_SYMBOL = 1 << 14


def integers_crc(z: IntArray, y_hat: IntArray) -> int:
    """CRC-32 of a tile's integers, as `bitstream.py` defines it."""
    return zlib.crc32(y_hat.astype("<i2").tobytes(), zlib.crc32(z.astype("<i1").tobytes()))


class SymbolTables:
    """The frequency tables as coding models.

    Args:
        radii: (rows,) int, row i holds the symbols -radii[i] … radii[i].
        frequencies: all rows in one array, each as escape, -radius, …, radius; every entry at least 1, every
            row summing to 2**FREQUENCY_BITS.

    Raises:
        ValueError: the arrays do not form such tables.
    """

    def __init__(self, radii: npt.NDArray[np.integer], frequencies: npt.NDArray[np.integer]) -> None:
        self.radii = radii.astype(np.int32)
        lengths = 2 * self.radii.astype(np.int64) + 2
        if len(radii) > 256 or (self.radii < 1).any() or lengths.sum() != len(frequencies):
            raise ValueError("radii and frequencies do not match")
        self.rows = np.split(frequencies.astype(np.int64), np.cumsum(lengths)[:-1])
        if any(row.min() < 1 or row.sum() != 1 << FREQUENCY_BITS for row in self.rows):
            raise ValueError(f"a row of frequencies does not sum to {1 << FREQUENCY_BITS}")
        categorical = constriction.stream.model.Categorical
        self.models = [categorical(row.astype(np.float64) / (1 << FREQUENCY_BITS), perfect=False) for row in self.rows]

        self.costs = self._costs()

    def _costs(self) -> npt.NDArray[np.float32]:
        """Bits of a symbol by its row and magnitude, those beyond the row's radius as an escape without its number."""
        costs = np.zeros((len(self.rows), int(self.radii.max()) + 2), np.float32)
        for row, (radius, frequencies) in enumerate(zip(self.radii, self.rows, strict=True)):
            bits = FREQUENCY_BITS - np.log2(frequencies)
            costs[row] = bits[0]
            costs[row, : radius + 1] = bits[radius + 1 :]
        costs[: LAST_SILENT_ROW + 1] = 0.0
        return costs

    def bits(self, symbols: IntArray, indexes: IntArray) -> npt.NDArray[np.float32]:
        """Code length of each symbol under its row of the tables, escapes as in the stream, silent rows free."""
        magnitudes = np.abs(symbols)
        bits = self.costs[indexes, np.minimum(magnitudes, self.costs.shape[1] - 1)]
        outside = (magnitudes > self.radii[indexes]) & (indexes > LAST_SILENT_ROW)
        if outside.any():
            bits[outside] += [8.0 * len(_pack_escapes([value])) for value in symbols[outside].tolist()]
        return bits


def _by_row(indexes: IntArray) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
    """Yield each coded row with the positions of its symbols."""
    order = np.argsort(indexes.astype(np.uint8), kind="stable")
    counts = np.bincount(indexes, minlength=1)
    ends = np.cumsum(counts)
    for row in range(LAST_SILENT_ROW + 1, len(counts)):
        if counts[row]:
            yield row, order[ends[row] - counts[row] : ends[row]]


def _pack_escapes(values: Sequence[int]) -> bytes:
    out = bytearray()
    for value in values:
        rest = 2 * value if value >= 0 else -2 * value - 1
        while rest >= 128:
            out.append(rest & 127 | 128)
            rest >>= 7
        out.append(rest)
    return bytes(out)


def _unpack_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read one LEB128 number of at most 5 bytes; return it and the position behind it."""
    value = 0
    for shift in range(0, 35, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise CorruptError("a number in the symbol stream does not end; the file is damaged")


def encode_symbols(stages: Sequence[tuple[IntArray, IntArray]], tables: SymbolTables) -> bytes:
    """Encode stages of (symbols, indexes of their table rows), each pair two int32 arrays of equal length.

    Raises:
        ValueError: a symbol cannot be written: it is not zero in a silent row (see LAST_SILENT_ROW), or out of range.
    """
    chunks: list[tuple[int, IntArray]] = []
    escapes: list[int] = []
    for symbols, indexes in stages:
        if symbols[indexes <= LAST_SILENT_ROW].any():
            raise ValueError(f"symbols in rows up to {LAST_SILENT_ROW} are not written and must be zero")
        if len(symbols) and max(symbols.max(), -symbols.min()) > MAX_SYMBOL:
            raise ValueError(f"a symbol lies beyond ±{MAX_SYMBOL}")
        for row, part in _by_row(indexes):
            values, radius = symbols[part], tables.radii[row]
            inside = np.abs(values) <= radius
            escapes.extend(values[~inside].tolist())
            chunks.append((row, np.where(inside, values + radius + 1, 0).astype(np.int32)))
    coder = constriction.stream.stack.AnsCoder()
    for row, slots in reversed(chunks):
        coder.encode_reverse(slots, tables.models[row])
    packed = _pack_escapes(escapes)
    words = coder.get_compressed().astype("<u4").tobytes()
    return _pack_escapes([len(packed)]) + packed + words


class SymbolDecoder:
    """Reads the stages of one stream, in order.

    Raises:
        CorruptError: from any method, if the stream was not written by `encode_symbols` for these rows.
    """

    def __init__(self, data: bytes, tables: SymbolTables) -> None:
        doubled, start = _unpack_varint(data, 0)
        self._position, self._end = start, start + doubled // 2
        words = data[self._end :]
        if doubled % 2 or self._end > len(data) or len(words) % 4:
            raise CorruptError("the lengths in the symbol stream are wrong; the file is damaged")
        compressed = np.frombuffer(words, dtype="<u4").astype(np.uint32)
        if len(compressed) and compressed[-1] == 0:
            raise CorruptError("the symbol stream ends in a zero word; the file is damaged")
        self._data, self._tables = data[: self._end], tables
        self._coder = constriction.stream.stack.AnsCoder(compressed)

    def read(self, indexes: IntArray) -> IntArray:
        """Decode the symbols of a stage, int32, same length as its indexes."""
        symbols = np.zeros(len(indexes), np.int32)
        for row, part in _by_row(indexes):
            slots = self._coder.decode(self._tables.models[row], len(part))
            values = slots - (self._tables.radii[row] + 1)
            for i in np.flatnonzero(slots == 0):
                values[i] = self._read_escape()
            symbols[part] = values
        return symbols

    def _read_escape(self) -> int:
        number, self._position = _unpack_varint(self._data[: self._end], self._position)
        value = -((number + 1) // 2) if number % 2 else number // 2
        if abs(value) > MAX_SYMBOL:
            raise CorruptError("a symbol is out of range; the file is damaged")
        return value

    def finish(self) -> None:
        """Check that the stream is used up exactly."""
        if not self._coder.is_empty() or self._position != self._end:
            raise CorruptError("the symbol stream has data left over; the file is damaged")
