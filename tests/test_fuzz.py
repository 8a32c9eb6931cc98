"""A thousand damaged files whose checksums are right: whatever a file holds, only a CodecError may escape.

The decoder runs in a process of its own, so that a crash, a hang or a flood of memory is seen as what it is:

    python tests/test_fuzz.py WEIGHTS
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import picture, reseal
from PIL import Image

from codec.api import Codec
from codec.bitstream import unpack
from codec.entropy import SymbolDecoder
from codec.errors import CodecError

ROOT = Path(__file__).parent.parent
FILES = 1000
MEMORY_BYTES = 256 << 20  # on top of what the loaded model takes
CPU_SECONDS = 60
MAX_PIXELS = 1 << 18
# The fixed part's fields, and the first words of the section table: offset and bytes.
FIELDS = [(4, 1), (5, 1), (6, 2), (8, 4), (12, 4), (16, 6), (22, 1), *((offset, 4) for offset in range(23, 71, 4))]


def samples(codec: Codec) -> list[bytes]:
    """Small files of every kind."""
    tagged = Image.fromarray(picture(40, 50))
    tagged.info.update(icc_profile=b"a profile", xmp=b"<xmp/>")
    rgba = np.dstack([picture(60, 70), picture(60, 70, 1)[:, :, 0]])
    return [
        codec.encode(picture(64, 64), 0.5),
        codec.encode(picture(64, 64)[:, :, 0], 1.0),
        codec.encode(picture(1, 1), 0.0),
        codec.encode(picture(130, 70), 0.8, tile_px=64),
        codec.encode(tagged, 0.2),
        codec.encode(rgba, 0.3),
    ]


def mutate(rng: np.random.Generator, files: list[bytes]) -> bytes:
    """Damage one file: bits, end, pieces, header fields; in every second case the last tile, under a right length."""
    data = bytearray(files[rng.integers(len(files))])
    match rng.integers(8):
        case 0:
            for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
                data[bit // 8] ^= 1 << bit % 8
        case 1:
            del data[rng.integers(len(data)) :]
        case 2:
            other = files[rng.integers(len(files))]
            start, length = rng.integers(len(other)), rng.integers(1, 40)
            place = rng.integers(len(data))
            data[place : place + rng.integers(40)] = other[start : start + length]
        case 3:
            offset, size = FIELDS[rng.integers(len(FIELDS))]
            values = [0, 1, 255, 2 ** (8 * size) - 1, 1 << rng.integers(8 * size), rng.integers(1, 600)]
            value = int(values[rng.integers(len(values))]) % 2 ** (8 * size)
            data[offset : offset + size] = value.to_bytes(size, "little")
        case _:
            header = unpack(bytes(data))
            start = header.tiles[-1].start
            entry = 23 + 8 * (data[5] & 1) + 2 * (data[5] & 4) + 12 * (len(header.tiles) - 1)
            flipped = bytearray(data[start:])
            flipped[rng.integers(1, len(flipped))] ^= 1 << rng.integers(8)
            escapes, words = rng.bytes(rng.integers(64)), rng.bytes(4 * rng.integers(40))
            well_formed = bytes([2 * len(escapes)]) + escapes + words
            bodies = [flipped, well_formed, data[start : len(data) - 4 * rng.integers(5)], rng.bytes(rng.integers(90))]
            data[start:] = bodies[rng.integers(len(bodies))]
            struct.pack_into("<I", data, entry, len(data) - start)
    return bytes(data)


def fuzz(weights: Path) -> Counter[str]:
    """Decode the damaged files; every second without the checks of what the symbols were, to get behind them."""
    codec = Codec(weights)
    files = samples(codec)
    for data in files:
        codec.decode(data)  # all that is loaded late is loaded
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    rng = np.random.default_rng(0)
    outcomes: Counter[str] = Counter()
    for i in range(FILES):
        data = mutate(rng, files)
        data = reseal(data) if i % 10 else data
        try:
            with contextlib.ExitStack() as stack:
                if i % 2:
                    stack.enter_context(mock.patch("codec.api.integers_crc", return_value=mock.ANY))
                    stack.enter_context(mock.patch.object(SymbolDecoder, "finish"))
                codec.decode(data, max_pixels=MAX_PIXELS)
            outcomes["decoded"] += 1
        except CodecError as error:
            outcomes[type(error).__name__] += 1
        except BaseException:
            print(f"file {i}: {data.hex()}", file=sys.stderr)
            raise
    return outcomes


@pytest.fixture(scope="module")
def outcomes(weights_path: Path) -> dict[str, int]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(weights_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3 * CPU_SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_only_codec_errors_escape(outcomes):
    assert sum(outcomes.values()) == FILES


def test_damage_gets_past_every_check(outcomes):
    """Else the test above would try the header alone."""
    errors = ("CorruptError", "TruncatedError", "ModelMismatchError", "TooLargeError", "UnsupportedVersionError")
    assert set(errors) < set(outcomes)
    assert outcomes["decoded"] > FILES // 10
    assert outcomes["CorruptError"] > FILES // 4


if __name__ == "__main__":
    print(json.dumps(fuzz(Path(sys.argv[1]))))
