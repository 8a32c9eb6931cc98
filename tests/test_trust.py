"""What services and strangers' files need: limits, damage of every kind, concurrency, interrupted and failed writes."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import resource
import signal
import struct
import subprocess
import sys
import time
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import picture, reseal
from PIL import Image

from codec.api import Codec, default_codec
from codec.errors import CodecError, CorruptError, ImageError, TruncatedError
from codec.format.bitstream import Header, pack, pack_alpha, unpack

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1"
HUGE = 1 << 60


# Every truncation and every flipped bit of real files.


def count_refusals(codec: Codec, broken: list[bytes]) -> int:
    refused = 0
    for data in broken:
        with pytest.raises(CodecError):
            codec.decode(data)
        refused += 1
    return refused


def test_every_truncation_of_a_real_file_is_refused(subtests):
    for name in ["odd", "alpha"]:
        with subtests.test(name=name):
            data = (GOLDEN / f"{name}.yoto").read_bytes()
            assert count_refusals(default_codec(), [data[:length] for length in range(len(data))]) == len(data)


def test_every_flipped_bit_of_a_real_file_is_refused():
    data = (GOLDEN / "odd.yoto").read_bytes()
    number = int.from_bytes(data, "little")
    broken = [(number ^ 1 << bit).to_bytes(len(data), "little") for bit in range(8 * len(data))]
    assert count_refusals(default_codec(), broken) == 8 * len(data)


# Claims that would take too much.


def claim(width: int, height: int, tile: int = 1, entries: int = 0, flags: int = 2, lengths: int = 0) -> bytes:
    """A file of such a header, its checksums right, with so many entries of tiles of this length."""
    head = struct.pack("<4sBBHII6sB", b"\xd9YTO", 1, flags, 2048, width, height, b"abcdef", tile)
    data = head + struct.pack("<III", lengths, 0, 0) * entries
    return reseal(data + bytes(4))


@pytest.mark.parametrize(
    ("data", "max_pixels", "error"),
    [
        (claim(2**31, 2**31), HUGE, CorruptError),
        (claim(2**32 - 1, 1), HUGE, CorruptError),
        (claim(2**24, 2**24), 256_000_000, ImageError),
        (claim(2**24, 2**24), HUGE, TruncatedError),
        (claim(2**24, 2**24, tile=255), HUGE, TruncatedError),
        (claim(16_001, 16_000, entries=10), 256_000_000, ImageError),
        (claim(128, 128, entries=3), HUGE, TruncatedError),  # the grid has four tiles
        (claim(128, 128, entries=4, lengths=2**32 - 1), HUGE, TruncatedError),
        (claim(128, 128, entries=5), HUGE, CorruptError),
        (claim(64, 64, entries=1, flags=6), HUGE, CodecError),  # metadata of no length
        (claim(64, 64, entries=1) + b"?", HUGE, CorruptError),
    ],
)
def test_claims_are_refused_before_anything_is_allocated(codec, data, max_pixels, error):
    tracemalloc.start()
    try:
        for decode in (
            codec.decode,
            lambda data, max_pixels: codec.decode(data, region=(0, 0, 1, 1), max_pixels=max_pixels),
        ):
            with pytest.raises(error):
                decode(data, max_pixels=max_pixels)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_metadata_longer_than_the_file_is_refused(codec):
    image = Image.fromarray(picture(20, 20))
    image.info["icc_profile"] = b"profile"
    data = bytearray(codec.encode(image))
    struct.pack_into("<I", data, 23, 2**32 - 1)
    with pytest.raises(TruncatedError):
        codec.decode(reseal(bytes(data)))


@pytest.mark.parametrize("decode", ["decode", "decode_partial"])
def test_alpha_that_inflates_without_end_takes_no_memory(codec, decode):
    """64 MB of zeros in 64 kB; the image has 70×60 px."""
    image = np.dstack([picture(60, 70), picture(60, 70)[:, :, 0]])
    data = bytearray(codec.encode(image))
    section = unpack(bytes(data)).alpha_section
    bomb = pack_alpha(bytes(1 << 26))
    data[section.start : section.start + section.length] = bomb
    struct.pack_into("<I", data, 23, len(bomb))
    data = reseal(bytes(data))
    tracemalloc.start()
    try:
        if decode == "decode":
            with pytest.raises(CorruptError, match="alpha"):
                codec.decode(data)
        else:
            assert "alpha" in codec.decode_partial(data).damage[0].reason
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


WANT_OF_MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from PIL import Image
from codec.api import Codec
from codec.errors import CodecError

noise = np.asarray(Image.effect_noise((104, 104), 40).resize((832, 832), Image.Resampling.BICUBIC))  # no plain block
data = Codec(backend=sys.argv[1]).encode(noise, 0.3, effort=0)  # by another, since ONNX Runtime keeps what it got
codec = Codec(backend=sys.argv[1])
codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8)))
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
for mib in range(0, 1024, 8):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (mib << 20), hard))
    try:
        codec.decode(data)
        print("decoded")
        break
    except CodecError as error:
        print(f"{error} <- {error.__cause__}".splitlines()[0])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
"""


@pytest.mark.parametrize(("backend", "said"), [("onnx", "ONNX Runtime"), ("torch", "allocator")])
def test_want_of_memory_is_a_codec_error_wherever_it_shows(backend, said):
    """NumPy, ONNX Runtime and torch each raise an exception of their own."""
    command = [sys.executable, "-c", WANT_OF_MEMORY, backend]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    *wanting, last = done.stdout.splitlines()
    assert last == "decoded"
    assert all(line.startswith("not enough memory for this image <- ") for line in wanting)
    assert any(said.lower() in line.lower() for line in wanting), done.stdout


ENCODE = """
import cli
try:
    cli.main()
finally:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and bounds glibc's memory")
def test_encoding_a_megapixel_takes_no_gigabyte(tmp_path):
    """ONNX Runtime's arenas and glibc's holes made 1.4 GiB of it, and 2 GiB of ten."""
    source = tmp_path / "a.png"
    Image.effect_noise((120, 80), 40).resize((1200, 800), Image.Resampling.BICUBIC).save(source)
    command = [sys.executable, "-c", ENCODE, "encode", str(source), "--backend", "onnx"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) < 1 << 20  # KiB


def test_header_of_many_tiles_takes_little_more_than_the_file(codec):
    header = Header(16_000, 15_616, 2048, codec.weights.model_id, tile_px=64)
    data = pack(header, [(b"", 0)] * header.tile_count)
    tracemalloc.start()
    try:
        assert len(unpack(data).tiles) == header.tile_count
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data)
    finally:
        tracemalloc.stop()


def test_file_of_many_empty_tiles_fails_at_the_first(codec):
    """250 megapixels claimed in 733 kB: refused at once, though each tile's checksum of no bytes is right."""
    header = Header(16_000, 15_625, 2048, codec.weights.model_id, tile_px=64)
    start = time.process_time()
    with pytest.raises(CorruptError):
        codec.decode(pack(header, [(b"", 0)] * header.tile_count))
    assert time.process_time() - start < 10.0


# Concurrency: eight threads are tried in test_api.py.


def coded(job: tuple[str, int]) -> tuple[bytes, str]:
    """A file, and the hash of the picture that it decodes to."""
    path, seed = job
    codec = Codec(path)
    data = codec.encode(picture(70, 90, seed), seed % 8 / 8)
    return data, hashlib.sha256(np.asarray(codec.decode(data)).tobytes()).hexdigest()


def test_processes_give_the_same_bytes_as_one(weights_path):
    jobs = [(str(weights_path), seed) for seed in range(4)]
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        parallel = list(pool.map(coded, jobs))
    assert parallel == [coded(job) for job in jobs]


# Writes that are interrupted, and writes that fail.

WRITER = """
import sys
from pathlib import Path
from codec.app.files import write_output
target, size = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for i in range(1, 1_000_000):
    write_output(target, bytes([i % 256]) * size)
"""
ENCODER = """
import sys
import cli
from codec.app import work
write = work.write_output
def announced(*arguments, **options):
    print("writing", flush=True)
    write(*arguments, **options)
work.write_output = announced
cli.main(sys.argv[1:])
"""


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("moment_ms", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55])
def test_file_is_whole_whenever_its_writer_is_killed(tmp_path, moment_ms):
    """The loop that encode and decode write with, killed at any moment; the old file has another length."""
    target, size = tmp_path / "out.yoto", 3_000_000
    target.write_bytes(b"old")
    command = [sys.executable, "-c", WRITER, str(target), str(size)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        time.sleep(moment_ms / 1000)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    data = target.read_bytes()
    assert data == b"old" or (len(data) == size and data.count(data[:1]) == size)
    others = [path.name for path in tmp_path.iterdir() if path != target]
    assert all(name.startswith(".yoto-") and name.endswith(".tmp") for name in others)
    assert len(others) <= 1


@pytest.mark.parametrize("moment", ["start", "writing"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_killed_encode_leaves_the_old_file_or_none(tmp_path, moment, old):
    source, target = tmp_path / "in.png", tmp_path / "out.yoto"
    Image.fromarray(picture(300, 300)).save(source)
    if old:
        target.write_bytes(old)
    command = [sys.executable, "-c", ENCODER, "encode", str(source), str(target), "--force"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        if moment == "writing":
            assert process.stdout.readline() == "writing\n"
        else:
            time.sleep(0.2)
        process.kill()
    complete = default_codec().encode(picture(300, 300))
    assert (target.read_bytes() if target.exists() else None) in (old, complete)


def limited_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))


@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("command", ["encode", "decode"])
def test_full_disk_is_one_clear_line_and_leaves_nothing(tmp_path, command, old):
    """A limit on the size of files stands for the disk: the same error from the same call."""
    source = tmp_path / "source"
    if command == "encode":
        Image.fromarray(picture(200, 200)).save(source, "PNG")
    else:
        source.write_bytes(default_codec().encode(picture(200, 200)))
    target = tmp_path / ("target.yoto" if command == "encode" else "target.png")
    if old:
        target.write_bytes(old)
    arguments = [command, source, "-o", target, "--force"]
    done = subprocess.run(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        cwd=ROOT,
        env=environment(),
        preexec_fn=limited_file_size,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == f"Error: {target}: File too large"
    assert (target.read_bytes() if target.exists() else None) == old
    assert {path.name for path in tmp_path.iterdir()} <= {"source", target.name}


@pytest.mark.parametrize("target", ["/dev/full", "-"])
def test_device_without_space_is_one_clear_line(tmp_path, target):
    source = tmp_path / "in.png"
    Image.fromarray(picture(200, 200)).save(source)
    arguments = ["encode", source, target, "--force"]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "cli", *map(str, arguments)],
            cwd=ROOT,
            env=environment(),
            stdout=full if target == "-" else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=600,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr
