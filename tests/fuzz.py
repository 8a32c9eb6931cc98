"""Hostile files and weights: whatever they hold, only a CodecError may escape, within caps of time and memory.

    python -m tests.fuzz --count 1000000 --seed 1 --output runs/fuzz.json
    python -m tests.fuzz --target weights --count 5000 --seed 1

Input i of a seed is the same in every run, `forge.py` makes it. Inputs are tried in processes of their own; one that
crashes, hangs or takes too much memory is kept in the folder --crashes, and the campaign goes on behind it. The figures
at the end say how many inputs got how far. With --output they are written after every chunk, and a campaign that was
interrupted, or is given a larger --count, goes on where it was.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from conftest import make_model, picture, reseal
from forge import Corpus, Rng, cut_short, damage_bits, pick, samples

from benchmarks.files import write_json
from codec import decoder
from codec.api import Codec, default_codec
from codec.errors import CodecError, WeightsError
from codec.format.bitstream import read_alpha, read_metadata, unpack
from codec.format.entropy import IntArray, SymbolDecoder, SymbolTables
from codec.network import weights
from codec.picture.plain import PlainTile, unpack_plain
from training.export import freeze

ROOT = Path(__file__).parent.parent
MEMORY_BYTES = 256 << 20  # on top of what the loaded models take
CPU_SECONDS = 10  # per input
PAINTED = 8  # one input in so many has its pixels made
CHUNK = 10_000  # inputs per process
MAX_PIXELS = 1 << 18


class FileTarget:
    """Tries files with one codec, of its model and of the shipped one."""

    def __init__(self, path: Path) -> None:
        self.codec = Codec(path)
        self.corpus = Corpus([*samples(self.codec), *samples(default_codec())])
        for data in self.corpus.files:
            self.codec.decode(data)  # all that is loaded late is loaded
        self.reached: set[str] = set()
        self.lenient = False  # without the checks of what the symbols were, to get behind them
        self.painting = True  # makes pixels of latents: the dearest step, which nothing of the file but latents reaches
        # This process does nothing else, so that the decoder stays watched.
        decoder.SymbolDecoder = self.watched()
        decoder.unpack_plain = self.watched_plain
        for name in ("integers_crc", "pixels_crc"):
            setattr(decoder, name, self.unless_lenient(getattr(decoder, name)))
        for model in (self.codec.model, self.codec.model.of(default_codec().model.id)):
            model.backend.synthesise = self.if_painting(model.backend.synthesise)

    def make(self, rng: Rng) -> bytes:
        data, self.mutation = self.corpus.forge(rng)
        return data

    def attempt(self, rng: Rng, data: bytes) -> set[str]:
        """Read the header and every section; decode the whole, a region, or what is left. Outcomes, stages reached."""
        self.reached = {f"made by {self.mutation}"}
        if reseal(data) == data:
            self.reached.add("checksums right")
        self.lenient, self.painting = bool(rng.integers(2)), not rng.integers(PAINTED)
        ways = [self.sections, self.whole, self.region, self.partial]
        for way in (ways[0], pick(rng, ways[1:])):
            try:
                outcome = way(rng, data)
            except CodecError as error:
                outcome = type(error).__name__
                if "\n" in str(error) or type(error) is CodecError:  # such as a want of memory
                    raise AssertionError(f"not an error that a file may cause: {error}") from error
            self.reached.add(f"{way.__name__}: {outcome}")
        return self.reached

    def sections(self, rng: Rng, data: bytes) -> str:
        header = unpack(data, MAX_PIXELS)
        self.reached.add("header read")
        if header.alpha:
            read_alpha(header, data)
            self.reached.add("alpha read")
        if read_metadata(header, data):
            self.reached.add("metadata read")
        return "read"

    def whole(self, rng: Rng, data: bytes) -> str:
        self.codec.decode(data, max_pixels=MAX_PIXELS)
        return "decoded"

    def region(self, rng: Rng, data: bytes) -> str:
        header = unpack(data, MAX_PIXELS)
        x, y = int(rng.integers(header.width)), int(rng.integers(header.height))
        width, height = (int(rng.integers(1, side + 1)) for side in (header.width - x, header.height - y))
        image = self.codec.decode(data, region=(x, y, width, height), max_pixels=MAX_PIXELS)
        if image.size != (width, height):
            raise AssertionError("the region has another size")
        return "decoded"

    def partial(self, rng: Rng, data: bytes) -> str:
        _, damage = self.codec.decode_partial(data, max_pixels=MAX_PIXELS)
        return "damage found" if damage else "decoded"

    def unless_lenient(self, crc: Callable[..., int]) -> Callable[..., object]:
        return lambda *content: mock.ANY if self.lenient else crc(*content)

    def if_painting(self, synthesise: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def synthesise_some(y_hat: np.ndarray, rate_point: int) -> np.ndarray:
            if not self.painting:
                return np.zeros((16 * y_hat.shape[0], 16 * y_hat.shape[1], 3), np.float32)
            self.reached.add("pixels made")
            return synthesise(y_hat, rate_point)

        return synthesise_some

    def watched_plain(self, *args: object, **kwargs: object) -> PlainTile:
        self.reached.add("plain decoder fed")
        tile = unpack_plain(*args, **kwargs)
        self.reached.add("plain tile decoded")
        return tile

    def watched(self) -> type[SymbolDecoder]:
        target = self

        class Watched(SymbolDecoder):
            def __init__(self, data: bytes, tables: SymbolTables) -> None:
                target.reached.add("entropy decoder fed")
                super().__init__(data, tables)

            def read(self, indexes: IntArray) -> IntArray:
                symbols = super().read(indexes)
                target.reached.add("symbols decoded")
                return symbols

            def finish(self) -> None:
                target.reached.add("all symbols of a tile decoded")
                if not target.lenient:
                    super().finish()

            def _read_escape(self) -> int:
                target.reached.add("escape met")
                return super()._read_escape()

        return Watched


# Weights.


class WeightsTarget:
    """Tries weights files; those that load must encode and decode, or fail with a CodecError."""

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        self.header_bytes = int.from_bytes(self.data[:8], "little")
        self.header = json.loads(self.data[8 : 8 + self.header_bytes])
        self.names = [name for name in self.header if name != "__metadata__"]
        self.picture = picture(20, 30)
        handle, name = tempfile.mkstemp(suffix=".safetensors")
        os.close(handle)
        self.path = Path(name)
        codec = Codec(path)
        codec.decode(codec.encode(self.picture))

    def make(self, rng: Rng) -> bytes:
        data, header = bytearray(self.data), json.loads(json.dumps(self.header))
        end = 8 + self.header_bytes
        match rng.integers(8):
            case 0:
                damage_bits(rng, data)
            case 1:
                for bit in rng.integers(8 * end, size=rng.integers(1, 4)):
                    data[bit // 8] ^= 1 << bit % 8
            case 2:
                cut_short(rng, data)
            case 3:
                lengths = [0, 1, end, len(data), 2**31, 2**63, 2**64 - 1, rng.integers(2 * len(data))]
                data[:8] = int(lengths[rng.integers(len(lengths))]).to_bytes(8, "little")
            case 4:  # a tensor of another type or shape, the header well-formed
                entry = header[self.names[rng.integers(len(self.names))]]
                types = [
                    "F16",
                    "F32",
                    "F64",
                    "BF16",
                    "I8",
                    "U8",
                    "I16",
                    "I32",
                    "I64",
                    "U64",
                    "BOOL",
                    "F8_E4M3",
                    "C64",
                    "?",
                ]
                shapes = [[], [0], [1], entry["shape"][::-1], [*entry["shape"], 1], [2**40, 2**40], [-1]]
                if rng.integers(2):
                    entry["dtype"] = types[rng.integers(len(types))]
                else:
                    entry["shape"] = shapes[rng.integers(len(shapes))]
                data = self.rebuilt(header)
            case 5:  # another name, or none
                entry = header.pop(self.names[rng.integers(len(self.names))])
                if rng.integers(2):
                    header[self.names[rng.integers(len(self.names))]] = entry
                data = self.rebuilt(header)
            case 6:  # a setting of another size
                config = json.loads(header["__metadata__"]["config"])
                values = [0, -1, 1, 3, 2**31, 10**30, 1e308, float("inf"), float("nan"), "x", None, [], True, 1.5]
                config[list(config)[rng.integers(len(config))]] = values[rng.integers(len(values))]
                header["__metadata__"]["config"] = json.dumps(config)
                data = self.rebuilt(header)
            case _:  # extreme numbers in an integer tensor
                name = self.names[rng.integers(len(self.names))]
                start, stop = (end + offset for offset in self.header[name]["data_offsets"])
                size = {"I16": 2, "F16": 2, "I32": 4}[self.header[name]["dtype"]]
                for place in rng.integers((stop - start) // size, size=rng.integers(1, 5)):
                    numbers = [b"\0\0\0\x80", b"\xff\xff\xff\x7f", b"\xff" * 4, b"\0\x01\0\0", rng.bytes(4)]
                    data[start + size * place : start + size * (place + 1)] = numbers[rng.integers(5)][-size:]
        return bytes(data)

    def rebuilt(self, header: dict[str, object]) -> bytearray:
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        return bytearray(len(text).to_bytes(8, "little") + text + self.data[8 + self.header_bytes :])

    def attempt(self, rng: Rng, data: bytes) -> set[str]:
        self.path.write_bytes(data)
        try:
            codec = Codec(self.path)
        except WeightsError as error:
            if "\n" in str(error):
                raise AssertionError("the message has several lines") from error
            return {"WeightsError"}
        try:
            codec.decode(codec.encode(self.picture, float(rng.random())))
        except CodecError as error:
            return {"loaded", type(error).__name__}
        return {"loaded", "encoded and decoded"}


TARGETS = {"files": FileTarget, "weights": WeightsTarget}


# The campaign.


def work(target_name: str, path: Path, seed: int, first: int, stop: int, current: Path, counts: Counter[str]) -> None:
    """In a process of its own: try inputs first … stop - 1; each lies in the file `current` while it is tried."""
    target = TARGETS[target_name](path)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    with current.open("wb", buffering=0) as file:
        for i in range(first, stop):
            rng = np.random.default_rng([seed, i])
            data = target.make(rng)
            file.seek(0)
            file.write(i.to_bytes(8, "little") + data)
            file.truncate()
            start = time.process_time()
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
            counts.update(target.attempt(rng, data))
            signal.setitimer(signal.ITIMER_PROF, 0)
            counts["took more than 0.5 s of CPU"] += time.process_time() - start > 0.5
            counts["inputs"] += 1


def chunk(arguments: list[object], crashes: Path) -> tuple[int, Counter[str]]:
    """Try a chunk in a fresh process; keep the input at which it fails. The first one not tried, and the counts."""
    target, _, seed, first, stop = arguments
    # oneDNN keeps what it compiled for every size it met, up to a thousand: 160 MiB that belong to no single input.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8"}
    with tempfile.TemporaryDirectory() as folder:
        current = Path(folder, "current")
        command = [sys.executable, "-m", "tests.fuzz", "worker", *map(str, arguments), str(current)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        counts = Counter(json.loads(done.stdout) if done.stdout.startswith("{") else {})
        if not done.returncode:
            return stop, counts
        if not current.exists() or not current.stat().st_size:
            raise click.ClickException(f"the worker does not start: {done.stderr}")
        kept = current.read_bytes()
    failed = int.from_bytes(kept[:8], "little")
    counts.update({"inputs": failed + 1 - first - counts["inputs"], "crashes": 1})
    crashes.mkdir(parents=True, exist_ok=True)
    (crashes / f"{target}-{seed}-{failed}").write_bytes(kept[8:])
    reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
    click.echo(f"input {failed}: status {done.returncode}, {reason}", err=True)
    return failed + 1, counts


def campaign(target: str, path: Path, count: int, seed: int, crashes: Path, output: Path | None) -> dict[str, int]:
    """Try `count` inputs, those that `output` knows of left out; how many got how far, most frequent first."""
    asked = {"target": target, "seed": seed, "weights": weights.load(path).sha256, "shipped": weights.load(None).sha256}
    state: dict[str, Any] = asked | {"tried": 0, "counts": {}}
    if output and output.exists():
        state = json.loads(output.read_text())
        if asked != {key: state[key] for key in asked}:
            raise click.ClickException(f"{output} is of another campaign")
    counts = Counter(state["counts"])
    while state["tried"] < count:
        stop = min(state["tried"] + CHUNK, count)
        state["tried"], found = chunk([target, path, seed, state["tried"], stop], crashes)
        counts += found
        state["counts"] = dict(counts.most_common())
        if output:
            write_json(output, state)
    return dict(counts.most_common())


@click.group(invoke_without_command=True)
@click.option("--target", type=click.Choice(list(TARGETS)), default="files", show_default=True)
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--weights", "path", type=click.Path(path_type=Path), help="Weights file instead of the tests' tiny one.")
@click.option("--crashes", type=click.Path(path_type=Path), default=Path("fuzz-crashes"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="JSON file of the figures; goes on where it was.")
@click.pass_context
def main(
    context: click.Context, target: str, count: int, seed: int, path: Path | None, crashes: Path, output: Path | None
) -> None:
    """Try damaged inputs; print how many got how far as JSON; exit with 1 if one crashed."""
    if context.invoked_subcommand:
        return
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder, "tiny.safetensors")
            model = make_model()
            weights.save(path, model.config, freeze(model), {"origin": "fuzz"})
        counts = campaign(target, path.resolve(), count, seed, crashes, output)
    click.echo(json.dumps(counts, indent=1))
    if counts.get("crashes"):
        sys.exit(1)


@main.command(hidden=True)
@click.argument("target")
@click.argument("path", type=click.Path(path_type=Path))
@click.argument("seed", type=int)
@click.argument("first", type=int)
@click.argument("stop", type=int)
@click.argument("current", type=click.Path(path_type=Path))
def worker(target: str, path: Path, seed: int, first: int, stop: int, current: Path) -> None:
    """One chunk of a campaign."""
    counts: Counter[str] = Counter()
    try:
        work(target, path, seed, first, stop, current, counts)
    finally:
        click.echo(json.dumps(counts))


if __name__ == "__main__":
    main()
