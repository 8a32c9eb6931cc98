"""A second decoder of symbols, written from codec/format/SPECIFICATION.md alone, in NumPy's integers.

    python tests/pure_decoder.py WEIGHTS FILE…

prints for each file the CRC-32 of every tile's integers. No floating point, torch or constriction is used.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.int64]
A, Y = 1023, 1 << 14
TYPES = {"I16": "<i2", "I32": "<i4"}


class Tile(NamedTuple):
    """One learned tile of a file: its stream, the CRC-32 of its integers, and its size in positions of 16 px."""

    stream: bytes
    crc: int
    h: int
    w: int


def read_container(data: bytes) -> tuple[int, list[Tile]]:
    """Quality and learned tiles of a sound file."""
    magic, version, flags, quality, width, height, _, side = struct.unpack_from("<4sBBHII6sB", data)
    assert magic == b"\xd9YTO"
    assert version in (1, 2)
    padded = [-(-size // 64) for size in (height, width)]
    corners = [(y, x) for y in range(0, padded[0], side) for x in range(0, padded[1], side)]
    entry = 23 + 8 * ((flags & 1) + (flags >> 2 & 1))
    start = entry + 12 * version * len(corners) + 4
    start += sum(struct.unpack_from("<I", data, at)[0] for at in range(23, entry, 8))
    tiles = []
    for y, x in corners:
        length, _, crc = struct.unpack_from("<III", data, entry)
        h, w = 4 * min(side, padded[0] - y), 4 * min(side, padded[1] - x)
        if length:
            tiles.append(Tile(data[start : start + length], crc, h, w))
        for _ in range(version):  # the second is the plain section
            start += struct.unpack_from("<I", data, entry)[0]
            entry += 12
    assert start == len(data)
    return quality, tiles


def read_model(path: Path) -> tuple[dict[str, int], dict[str, Array]]:
    """Config and integer tensors of a weights file."""
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    config = json.loads(header.pop("__metadata__")["config"])
    tensors = {}
    for name, entry in header.items():
        if not name.startswith("transforms."):
            first, last = entry["data_offsets"]
            values = np.frombuffer(data[end + first : end + last], TYPES[entry["dtype"]])
            tensors[name] = values.astype(np.int64).reshape(entry["shape"])
    return config, tensors


def number(stream: Iterator[int]) -> int:
    """Read one LEB128 number."""
    value = 0
    for place in range(5):
        byte = next(stream)
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value
    raise ValueError("a number does not end")


class Symbols:
    """The symbol stream."""

    def __init__(self, stream: bytes, tensors: dict[str, Array]) -> None:
        rest = iter(stream)
        doubled = number(rest)
        remaining = bytes(rest)
        assert doubled % 2 == 0
        escapes, words = remaining[: doubled // 2], remaining[doubled // 2 :]
        self.escapes = iter(escapes)
        self.words = list(struct.unpack(f"<{len(words) // 4}I", words))
        self.state = 0
        for _ in range(2):
            self.refill()
        self.radii = tensors["tables.radii"].tolist()
        lengths = [2 * radius + 2 for radius in self.radii]
        rows = np.split(tensors["tables.frequencies"], np.cumsum(lengths)[:-1])
        self.limits = [
            [(c * ((1 << 24) - n) >> 16) + s for s, c in enumerate(accumulate(row.tolist(), initial=0))]
            for n, row in zip(lengths, rows, strict=True)
        ]

    def refill(self) -> None:
        if self.words:
            self.state = self.state << 32 | self.words.pop()

    def stage(self, rows: Array) -> Array:
        """The symbols of one stage, in the shape of its table rows."""
        flat = rows.reshape(-1)
        symbols = np.zeros(len(flat), np.int64)
        for place in np.argsort(flat, kind="stable").tolist():
            row = int(flat[place])
            if row > 1:
                symbols[place] = self.symbol(row)
        assert np.abs(symbols).max() <= 1 << 14
        return symbols.reshape(rows.shape)

    def symbol(self, row: int) -> int:
        limits, t = self.limits[row], self.state & (1 << 24) - 1
        slot = bisect_right(limits, t) - 1
        self.state = (self.state >> 24) * (limits[slot + 1] - limits[slot]) + t - limits[slot]
        if self.state < 1 << 32:
            self.refill()
        if slot:
            return slot - self.radii[row] - 1
        n = number(self.escapes)
        return -(n + 1) // 2 if n % 2 else n // 2

    def finish(self) -> None:
        assert not self.words
        assert self.state == 0
        assert next(self.escapes, None) is None


def requantise(sums: Array, shift: Array, low: int, high: int) -> Array:
    return np.clip((sums << np.maximum(-shift, 0)) >> np.maximum(shift, 0), low, high)


def shuffle(a: Array) -> Array:
    h, w, c = a.shape
    out = np.zeros((2 * h, 2 * w, c // 4), np.int64)
    for i in range(2):
        for j in range(2):
            out[i::2, j::2] = a[:, :, 2 * i + j :: 4]
    return out


def magnitudes(y_hat: Array) -> Array:
    """⌊(⌊32 · log2(1 + |y_hat| / 16)⌋ + 1) / 2⌋, exactly."""
    values, inverse = np.unique(np.abs(y_hat), return_inverse=True)
    logs = [((16 + int(v)) ** 32).bit_length() - 129 for v in values]
    return np.array([(e + 1) // 2 for e in logs])[inverse].reshape(y_hat.shape)


class Prior:
    """The model's layers at one quality."""

    def __init__(self, config: dict[str, int], tensors: dict[str, Array], quality: int) -> None:
        self.tensors, self.quality = tensors, quality
        self.knots = config.get("knots", 33)
        self.top_row = config.get("scales_levels", 64) - 1
        self.F = int(64 * config.get("feature_max", 4))
        self.M = config["M"]

    def at_quality(self, name: str) -> Array:
        table, spacing = self.tensors[name], 4096 // (self.knots - 1)
        j = min(self.quality // spacing, self.knots - 2)
        f = self.quality - j * spacing
        return (table[j] * (spacing - f) + table[j + 1] * f) // spacing

    def weight(self, name: str) -> Array:
        fold = self.tensors[f"{name}.fold"][:, None]
        product = self.tensors[f"{name}.weight"] * self.at_quality(f"{name}.factor")[:, None]
        return product + (1 << fold) // 2 >> fold

    def dense(self, name: str, a: Array, low: int, high: int, part: slice = slice(None)) -> Array:
        sums = a @ self.weight(name)[part].T + self.at_quality(f"{name}.bias")[part]
        return requantise(sums, self.tensors[f"{name}.shift"][part], low, high)

    def depthwise(self, name: str, a: Array) -> Array:
        h, w, _ = a.shape
        padded = np.pad(a, ((1, 1), (1, 1), (0, 0)))
        taps = self.tensors[f"{name}.weight"]
        sums = sum(taps[i] * padded[i // 3 : i // 3 + h, i % 3 : i % 3 + w] for i in range(9))
        return requantise(sums + self.tensors[f"{name}.bias"], self.tensors[f"{name}.shift"], -A, A)

    def hyper(self, z: Array) -> Array:
        a = self.depthwise("h_s.spatial1", shuffle(self.dense("h_s.up1", z, 0, A)))
        a = self.depthwise("h_s.spatial2", shuffle(self.dense("h_s.up2", a, 0, A)))
        return self.dense("h_s.out", a, 0, A)

    def context(self, k: int, sums: Array, hyper: Array) -> Array:
        biased = sums + self.tensors[f"passes.{k}.context_bias"]
        a = self.depthwise(f"passes.{k}.spatial", requantise(biased, self.tensors["embed.shift"], 0, A))
        a = self.dense(f"passes.{k}.mix", np.concatenate([a, hyper], axis=2), 0, A)
        return self.dense(f"passes.{k}.hidden", a, 0, A)

    def features(self, y_hat: Array, group: slice) -> Array:
        scaled = y_hat * self.at_quality("reciprocal")[group] + (1 << 11) >> 12
        return np.concatenate([np.clip(scaled, -self.F, self.F), magnitudes(y_hat)], axis=2)

    def decode(self, symbols: Symbols, h: int, w: int) -> tuple[Array, Array]:
        """z and y_hat of a tile."""
        z_rows = self.at_quality("z_index")
        z = symbols.stage(np.tile(z_rows, (h // 4, w // 4, 1)))
        assert np.abs(z).max() <= 127
        hyper = self.hyper(z)
        y_hat = np.zeros((h, w, self.M), np.int64)
        sums = np.tile(self.at_quality("embed.bias"), (h, w, 1))
        norm, embed, quarter = self.at_quality("norm"), self.weight("embed"), self.M // 4
        for k in range(4):
            a = self.context(k, sums, hyper)
            means, rows = [], []
            places = [np.s_[p // 2 :: 2, p % 2 :: 2] for p in range(4)]
            groups = [slice((k + p) % 4 * quarter, ((k + p) % 4 + 1) * quarter) for p in range(4)]
            for place, group in zip(places, groups, strict=True):
                index = slice(self.M + group.start, self.M + group.stop)
                mean = self.dense(f"passes.{k}.head", a[place], -8192, 8192, group)
                means.append(np.clip(mean * norm[group] + (1 << 13) >> 14, -Y, Y))
                rows.append(self.dense(f"passes.{k}.head", a[place], 0, self.top_row, index))
            decoded = np.clip(16 * symbols.stage(np.array(rows)) + np.array(means), -Y, Y)
            for part, place, group in zip(decoded, places, groups, strict=True):
                y_hat[*place, group] = part
                columns = np.r_[group, self.M + group.start : self.M + group.stop]
                sums[place] += self.features(part, group) @ embed[:, columns].T
        return z, y_hat


def decode(model: Path, data: bytes) -> list[tuple[int, int]]:
    """For each tile, the CRC-32 of its integers as decoded and as the file says."""
    config, tensors = read_model(model)
    quality, tiles = read_container(data)
    prior = Prior(config, tensors, quality)
    found = []
    for tile in tiles:
        symbols = Symbols(tile.stream, tensors)
        z, y_hat = prior.decode(symbols, tile.h, tile.w)
        symbols.finish()
        found.append((zlib.crc32(y_hat.astype("<i2").tobytes(), zlib.crc32(z.astype("i1").tobytes())), tile.crc))
    return found


if __name__ == "__main__":
    for name in sys.argv[2:]:
        crcs = decode(Path(sys.argv[1]), Path(name).read_bytes())
        print(name, *(f"{crc:08x}" for crc, _ in crcs), "right" if all(a == b for a, b in crcs) else "WRONG")
