"""Does this machine compute the integers that every other one computes? `yoto-codec selftest` asks.

Golden inputs, made by integer arithmetic alone, run through the entropy model of the shipped weights under every
thread count, back end, carrier and memory layout that this machine offers; the SHA-256 of all that comes out must be
the one in `data/selftest.json`, which ships beside the weights. Then files that are encoded under one setting, or on
one device, must decode under another.

`python -m codec.app.selftest` rewrites the file: once, whenever the shipped weights change.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from codec.api import Codec
from codec.decoder import Decoder
from codec.errors import CodecError, CorruptError, WeightsError
from codec.format.bitstream import unpack
from codec.format.entropy import LAST_SILENT_ROW, SymbolDecoder, encode_symbols
from codec.network.integer import IntArray, IntegerPrior
from codec.network.layout import LATENT_BITS, LATENT_LIMIT, Z_LIMIT
from codec.picture.image import Uint8Array, to_planes

torch: Any = import_module("torch") if find_spec("torch") else None  # without it there is less to check
EXPECTED_PATH = Path(__file__).parent.parent / "data" / "selftest.json"
# Height and width of z, and rate point: odd shapes, the knots of the tables over it, and what lies between.
Case = tuple[int, int, int]
CASES: list[Case] = [(1, 1, 0), (1, 5, 1), (7, 1, 127), (3, 4, 2048), (2, 3, 4096), (5, 9, 777)]
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio: the step of SplitMix64
CARRIERS: tuple[type[np.floating[Any]], ...] = (np.float32, np.float64)
SYMBOL_LIMIT = (LATENT_LIMIT >> LATENT_BITS) - 1


class Check(NamedTuple):
    """One line of the report."""

    name: str
    passed: bool


class Setting(NamedTuple):
    """A way to run the entropy model: `enter` sets up torch."""

    name: str
    enter: Callable[[], AbstractContextManager[object]]


def random_integers(seed: int, count: int, limit: int) -> IntArray:
    """`count` integers in -limit … limit, the same everywhere; one in eight over the whole range, else up to ±3.

    SplitMix64 of a counter (Steele, Lea & Flood 2014, doi:10.1145/2714064.2660195); products wrap around at 2^64.
    """
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(seed << 40)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    x ^= x >> np.uint64(31)
    span = np.where(x & np.uint64(7), min(3, limit), limit).astype(np.uint64)
    return ((x >> np.uint64(3)) % (2 * span + 1)).astype(np.int32) - span.astype(np.int32)


def golden_symbols(seed: int, indexes: IntArray, limit: int) -> IntArray:
    """Symbols for these scale indexes, zero where nothing is coded."""
    symbols = random_integers(seed, indexes.size, limit).reshape(indexes.shape)
    return np.where(indexes <= LAST_SILENT_ROW, 0, symbols)


def digest(arrays: list[npt.NDArray[np.integer]]) -> str:
    """SHA-256 of integers as int32, little-endian, in C order."""
    return hashlib.sha256(b"".join(array.astype("<i4").tobytes() for array in arrays)).hexdigest()


def run_case(codec: Codec, case: Case, dtype: type[np.floating[Any]], order: Literal["C", "F"] = "C") -> str:
    """Run a golden input; the digest of its means, indexes, y_hat and symbol stream.

    Raises:
        CorruptError: the symbol stream does not decode to the symbols.
    """
    height, width, rate_point = case
    prior = IntegerPrior(codec.weights.config, codec.weights.integers, rate_point, dtype)
    seen: list[npt.NDArray[np.integer]] = []

    def coder(k: int, means: IntArray, indexes: IntArray) -> IntArray:
        seen.extend((means, indexes))
        return np.asarray(golden_symbols(k + 1, indexes, SYMBOL_LIMIT), order=order)

    z_indexes = np.broadcast_to(prior.z_index, (height, width, len(prior.z_index)))
    tile = prior.run(np.asarray(golden_symbols(0, z_indexes, Z_LIMIT), order=order), coder)
    stream = encode_symbols(tile.stages, codec.weights.tables)
    decoder = SymbolDecoder(stream, codec.weights.tables)
    if any((decoder.read(indexes) != symbols).any() for symbols, indexes in tile.stages):
        raise CorruptError("the symbol stream does not decode to what was encoded")
    decoder.finish()
    return digest([*seen, tile.y_hat, np.frombuffer(stream, np.uint8)])


def case_name(case: Case) -> str:
    """What the report and `data/selftest.json` call a case."""
    height, width, rate_point = case
    return f"{height}x{width} q{rate_point}"


def expected_digests(codec: Codec) -> dict[str, str]:
    """The digests that ship with the weights; WeightsError if they are of other weights."""
    try:
        notes = json.loads(EXPECTED_PATH.read_text())
        owner, digests = notes["weights"], dict(notes["digests"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{EXPECTED_PATH} is missing or damaged; reinstall yoto-codec") from error
    if owner != codec.weights.sha256:
        raise WeightsError(f"{EXPECTED_PATH} belongs to other weights; `python -m codec.app.selftest` rewrites it")
    return digests


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def onednn(enabled: bool) -> Iterator[None]:
    """Let torch use oneDNN, or not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TF32 acceleration")  # torch 2.13 warns when oneDNN is switched off
        with torch.backends.mkldnn.flags(enabled=enabled):
            yield


@contextmanager
def reduced_products() -> Iterator[None]:
    """The process allows products in bfloat16, which the entropy model must not notice."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def both(first: AbstractContextManager[object], second: AbstractContextManager[object]) -> Iterator[None]:
    """Enter two settings."""
    with first, second:
        yield


def settings() -> list[Setting]:
    """Thread counts × back ends of this machine."""
    if torch is None:
        return [Setting("this machine as it is", nullcontext)]
    most = max(2, torch.get_num_threads(), torch.get_num_interop_threads())
    return [
        Setting(
            f"{count} {'threads' if count > 1 else 'thread'}, oneDNN {'on' if enabled else 'off'}",
            lambda count=count, enabled=enabled: both(threads(count), onednn(enabled)),  # type: ignore[misc]
        )
        for count, enabled in product((1, most), (True, False))
    ]


def check_integers(codec: Codec) -> Iterator[Check]:
    """The golden inputs under every setting."""
    expected = expected_digests(codec)

    def same(dtype: type[np.floating[Any]], order: Literal["C", "F"] = "C") -> bool:
        try:
            return {case_name(case): run_case(codec, case, dtype, order) for case in CASES} == expected
        except CorruptError:
            return False

    for setting, dtype in product(settings(), CARRIERS):
        with setting.enter():
            yield Check(f"integers: {setting.name}, {dtype.__name__}", same(dtype))
    yield Check("integers: column-major inputs", same(np.float32, "F"))
    if torch is None:
        return
    with reduced_products():
        yield Check("integers: bfloat16 products allowed", same(np.float32))
    with torch.autocast("cpu", torch.bfloat16):
        yield Check("integers: under autocast to bfloat16", same(np.float32))


def golden_picture() -> Uint8Array:
    """Slopes and noise, uint8 (150, 200, 3); nothing depends on its exact levels."""
    y, x, c = np.mgrid[:150, :200, :3]
    noise = random_integers(1, x.size, 7).reshape(x.shape)
    return ((x + 2 * y * (c + 1) + 60 * (x // 50 % 2)) % 240 + 7 + noise).astype(np.uint8)


def exchanged(sender: Codec, receiver: Codec, send: Setting, receive: Setting) -> bool:
    """Encode there, decode here: the same integers, and pixels within one level."""
    for quality in (0.1, 0.9):
        with send.enter():
            data = sender.encode(golden_picture(), quality, tile_px=128)
            there = latents(sender, data)
            pixels = to_planes(sender.decode(data)).colour.astype(int)
        with receive.enter():
            try:
                here = latents(receiver, data)
                difference = to_planes(receiver.decode(data)).colour - pixels
            except CodecError:
                return False
        if digest(here) != digest(there) or np.abs(difference).max() > 1:
            return False
    return True


def latents(codec: Codec, data: bytes) -> list[npt.NDArray[np.integer]]:
    """The integers of each tile of a file, (h, w, M)."""
    header = unpack(data)
    decoder = Decoder.of(codec.model, header, data)
    found = (decoder.latents(number) for number in range(header.tile_count))
    return [y_hat for y_hat in found if y_hat is not None]


def check_files(codec: Codec) -> Iterator[Check]:
    """Files that change hands: between settings of the CPU, and between CPU and GPU if there is one."""
    every = settings()
    first, last = every[0], every[-1]
    here = Setting("", nullcontext)
    if torch is not None and codec.backend == "onnx":
        other = Codec(backend="torch")
        yield Check("files: encoded with ONNX Runtime, decoded with torch", exchanged(codec, other, here, here))
        yield Check("files: encoded with torch, decoded with ONNX Runtime", exchanged(other, codec, here, here))
        codec = other
    for send, receive in dict.fromkeys([(first, last), (last, first)]):  # without torch, there is but one
        name = f"files: {codec.backend}, encoded with {send.name}, decoded with {receive.name}"
        yield Check(name, exchanged(codec, codec, send, receive))
    if torch is not None and torch.cuda.is_available():
        gpu = Codec(device="cuda")
        yield Check("files: encoded on the GPU, decoded on the CPU", exchanged(gpu, codec, here, here))
        yield Check("files: encoded on the CPU, decoded on the GPU", exchanged(codec, gpu, here, here))


def run() -> Iterator[Check]:
    """All checks, one after the other.

    Raises:
        WeightsError: the weights cannot be used, or the expected digests are not theirs.
    """
    codec = Codec()
    yield from check_integers(codec)
    yield from check_files(codec)


def rewrite() -> None:
    """Write the digests of the shipped weights, carried in double by one thread."""
    codec = Codec()
    with threads(1):
        digests = {case_name(case): run_case(codec, case, np.float64) for case in CASES}
    EXPECTED_PATH.write_text(json.dumps({"weights": codec.weights.sha256, "digests": digests}, indent=1) + "\n")


if __name__ == "__main__":
    rewrite()
