"""Hostile files and weights: whatever they hold, only a CodecError may escape, within caps of time and memory.

    python -m tests.fuzz --count 200000 --seed 1
    python -m tests.fuzz --target weights --count 5000 --seed 1

Input i of a seed is the same in every run. Inputs are tried in processes of their own; one that crashes, hangs or
takes too much memory is kept in the folder --crashes, and the campaign goes on behind it. The figures at the end say
how many inputs got how far.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
from conftest import make_model, page, picture, reseal

from codec import decoder
from codec.api import Codec
from codec.errors import CodecError, WeightsError
from codec.format.bitstream import Header, Section, pack_alpha, read_alpha, read_metadata, unpack
from codec.format.entropy import IntArray, SymbolDecoder, SymbolTables
from codec.network import weights
from codec.picture.plain import PlainTile, unpack_plain
from training.export import freeze

ROOT = Path(__file__).parent.parent
MEMORY_BYTES = 256 << 20  # on top of what the loaded model takes
CPU_SECONDS = 10  # per input
CHUNK = 20_000  # inputs per process
MAX_PIXELS = 1 << 18
# The fixed part's fields, and the first words of the section table: offset and bytes.
FIELDS = [(4, 1), (5, 1), (6, 2), (8, 4), (12, 4), (16, 6), (22, 1), *((offset, 4) for offset in range(23, 71, 4))]
Rng = np.random.Generator


# Files.


def samples(codec: Codec) -> list[bytes]:
    """Small files of every kind."""
    tagged = Image.fromarray(picture(40, 50))
    tagged.info.update(icc_profile=b"a profile", xmp=b"<xmp/>")
    rgba = np.dstack([picture(60, 70), picture(60, 70, 1)[:, :, 0]])
    both = Image.fromarray(rgba[:50, :40])
    both.info.update(icc_profile=b"a profile")
    return [
        codec.encode(picture(64, 64), 0.5),
        codec.encode(picture(64, 64)[:, :, 0], 1.0),
        codec.encode(picture(1, 1), 0.0),
        codec.encode(picture(130, 70), 0.8, tile_px=64),
        codec.encode(tagged, 0.2),
        codec.encode(rgba, 0.3),
        codec.encode(both, 0.3),
        codec.encode(page(96, 160), 0.4, tile_px=64),
        codec.encode(page(70, 90)[:, :, 0], 0.4),
        codec.encode(rgba, lossless=True),
    ]


def damage_bits(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    for bit in rng.integers(8 * len(data), size=rng.integers(1, 9)):
        data[bit // 8] ^= 1 << bit % 8


def cut_short(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    del data[rng.integers(len(data)) :]


def splice(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    """A piece of another file, in place of as much or as little."""
    other = files[rng.integers(len(files))]
    start, length = rng.integers(len(other)), rng.integers(1, 40)
    place = rng.integers(len(data))
    data[place : place + rng.integers(40)] = other[start : start + length]


def set_field(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    """A field of the header or the section table: extremes, powers of two, small numbers."""
    offset, size = FIELDS[rng.integers(len(FIELDS))]
    values = [0, 1, 255, 2 ** (8 * size) - 1, 1 << rng.integers(8 * size), rng.integers(1, 600)]
    value = int(values[rng.integers(len(values))]) % 2 ** (8 * size)
    data[offset : offset + size] = value.to_bytes(size, "little")


def other_grid(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    """Another size of image and tiles, the section table as long as it was or as it should be."""
    header = unpack(bytes(data))
    width, height, tile = (int(rng.integers(1, limit)) for limit in (400, 400, 5))
    struct.pack_into("<II", data, 8, width, height)
    data[22] = tile
    if rng.integers(2):
        end = header.tiles[0].start - 4
        entry = 24 if header.plain else 12
        bytes_needed = entry * -(-width // (64 * tile)) * -(-height // (64 * tile))
        data[end - entry * len(header.tiles) : end] = (
            rng.bytes(bytes_needed) if rng.integers(2) else bytes(bytes_needed)
        )


def coded_sections(header: Header) -> list[Section]:
    """Symbols and plain sections of the tiles, as the table has them."""
    pairs = zip(header.tiles, header.plain, strict=True) if header.plain else zip(header.tiles, strict=True)
    return [section for pair in pairs for section in pair]


def replace_section(data: bytearray, number: int, body: bytes) -> None:
    """Another body for the number-th section of the table, under a right length; the file must be sound."""
    header = unpack(bytes(data))
    extra = sum(section is not None for section in (header.metadata_section, header.alpha_section))
    sections = [s for s in (header.metadata_section, header.alpha_section, *coded_sections(header)) if s]
    entry = 23 + 8 * min(number, extra) + 12 * max(0, number - extra)
    data[sections[number].start : sections[number].start + sections[number].length] = body
    struct.pack_into("<I", data, entry, len(body))


def other_metadata(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    """Metadata items of any type and length."""
    data[:] = files[4 + 2 * rng.integers(2)]
    items = b""
    for _ in range(rng.integers(1, 5)):
        lengths = [0, 1, 5, 2**31, 2**32 - 1, rng.integers(300)]
        length = int(lengths[rng.integers(len(lengths))])
        items += struct.pack("<BI", rng.integers(6), length) + rng.bytes(min(length, rng.integers(300)))
    replace_section(data, 0, items[: rng.integers(1, len(items) + 1)])


def other_alpha(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    """Alpha of another size, bombs among them, damaged streams, things behind the end."""
    data[:] = files[5]
    pixels = 60 * 70
    sizes = [0, 1, pixels - 1, pixels, pixels + 1, 1 << 22]
    stream = bytearray(pack_alpha(bytes(int(sizes[rng.integers(len(sizes))]))))
    match rng.integers(5):
        case 0:
            stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
        case 1:
            del stream[rng.integers(1, len(stream)) :]
        case 2:
            stream += rng.bytes(rng.integers(1, 20))
        case 3:
            stream[:] = zlib.compress(rng.bytes(pixels), wbits=[-15, 31, 15][rng.integers(3)])
    replace_section(data, 0, bytes(stream))


def other_tile(rng: Rng, data: bytearray, files: list[bytes]) -> None:
    """Symbols or plain pixels with a flipped bit, well-formed noise, another end, or noise."""
    header = unpack(bytes(data))
    sections = coded_sections(header)
    number = len(sections) - 1 - int(rng.integers(1 + bool(header.plain)))
    section = sections[number]
    body = bytes(data[section.start : section.start + section.length]) or bytes(2)
    flipped = bytearray(body)
    flipped[rng.integers(1, len(flipped))] ^= 1 << rng.integers(8)
    escapes, words = rng.bytes(rng.integers(64)), rng.bytes(4 * rng.integers(40))
    well_formed = bytes([2 * len(escapes)]) + escapes + words
    bodies = [bytes(flipped), well_formed, body[: len(body) - 4 * rng.integers(5)], rng.bytes(rng.integers(90))]
    replace_section(
        data,
        bool(header.metadata_section) + bool(header.alpha_section) + number,
        bodies[rng.integers(len(bodies))],
    )


# Each with the share of inputs that it makes, in percent.
FILE_MUTATIONS: list[tuple[int, Callable[[Rng, bytearray, list[bytes]], None]]] = [
    (6, damage_bits),
    (20, cut_short),
    (10, splice),
    (30, set_field),
    (14, other_grid),
    (5, other_metadata),
    (5, other_alpha),
    (10, other_tile),
]


def mutate(rng: Rng, files: list[bytes]) -> bytes:
    """Damage one file; nine in ten are given right checksums again."""
    data = bytearray(files[rng.integers(len(files))])
    shares = np.cumsum([share for share, _ in FILE_MUTATIONS])
    _, mutation = FILE_MUTATIONS[np.searchsorted(shares, rng.integers(100), side="right")]
    mutation(rng, data, files)
    return reseal(bytes(data)) if rng.integers(10) else bytes(data)


class FileTarget:
    """Tries files with one codec."""

    def __init__(self, path: Path) -> None:
        self.codec = Codec(path)
        self.files = samples(self.codec)
        self.reached: set[str] = set()
        for data in self.files:
            self.codec.decode(data)  # all that is loaded late is loaded

    def make(self, rng: Rng) -> bytes:
        return mutate(rng, self.files)

    def attempt(self, rng: Rng, data: bytes) -> set[str]:
        """Read the header and every section; decode the whole, a region, or what is left. The stages reached."""
        self.reached = set()
        attempts = [self.sections, self.whole, self.region, self.partial]
        lenient = bool(rng.integers(2))  # without the checks of what the symbols were, to get behind them
        checks = {name: getattr(decoder, name) for name in ("integers_crc", "pixels_crc")}
        if lenient:
            checks = dict.fromkeys(checks, mock.Mock(return_value=mock.ANY))
        plain = self.watched_plain()
        with mock.patch.multiple(decoder, SymbolDecoder=self.watched(lenient), unpack_plain=plain, **checks):
            for number in (0, 1 + rng.integers(3)):
                try:
                    attempts[number](rng, data)
                except CodecError as error:
                    self.reached.add(type(error).__name__)
                    if "\n" in str(error):
                        raise AssertionError("the message has several lines") from error
        return self.reached

    def sections(self, rng: Rng, data: bytes) -> None:
        header = unpack(data, MAX_PIXELS)
        self.reached.add("header read")
        if header.alpha:
            read_alpha(header, data)
            self.reached.add("alpha read")
        if read_metadata(header, data):
            self.reached.add("metadata read")

    def whole(self, rng: Rng, data: bytes) -> None:
        self.codec.decode(data, max_pixels=MAX_PIXELS)
        self.reached.add("decoded")

    def region(self, rng: Rng, data: bytes) -> None:
        header = unpack(data, MAX_PIXELS)
        x, y = int(rng.integers(header.width)), int(rng.integers(header.height))
        width, height = (int(rng.integers(1, side + 1)) for side in (header.width - x, header.height - y))
        image = self.codec.decode(data, region=(x, y, width, height), max_pixels=MAX_PIXELS)
        if image.size != (width, height):
            raise AssertionError("the region has another size")
        self.reached.add("region decoded")

    def partial(self, rng: Rng, data: bytes) -> None:
        _, damage = self.codec.decode_partial(data, max_pixels=MAX_PIXELS)
        self.reached.add("partly decoded, damage found" if damage else "partly decoded, no damage")

    def watched_plain(self) -> Callable[..., PlainTile]:
        def unpack_watched(*args: object, **kwargs: object) -> PlainTile:
            self.reached.add("plain decoder fed")
            tile = unpack_plain(*args, **kwargs)
            self.reached.add("plain tile decoded")
            return tile

        return unpack_watched

    def watched(self, lenient: bool) -> type[SymbolDecoder]:
        reached = self.reached

        class Watched(SymbolDecoder):
            def __init__(self, data: bytes, tables: SymbolTables) -> None:
                reached.add("entropy decoder fed")
                super().__init__(data, tables)

            def read(self, indexes: IntArray) -> IntArray:
                symbols = super().read(indexes)
                reached.add("symbols decoded")
                return symbols

            def finish(self) -> None:
                reached.add("all symbols of a tile decoded")
                if not lenient:
                    super().finish()

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
                damage_bits(rng, data, [])
            case 1:
                for bit in rng.integers(8 * end, size=rng.integers(1, 4)):
                    data[bit // 8] ^= 1 << bit % 8
            case 2:
                cut_short(rng, data, [])
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
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # SIGPROF ends the process
            counts.update(target.attempt(rng, data))
            signal.setitimer(signal.ITIMER_PROF, 0)
            counts["inputs"] += 1


def campaign(target: str, path: Path, count: int, seed: int, crashes: Path) -> Counter[str]:
    """Try `count` inputs; keep those at which a worker fails."""
    counts: Counter[str] = Counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        current = Path(folder, "current")
        first = 0
        while first < count:
            stop = min(first + CHUNK, count)
            arguments = [target, path, seed, first, stop, current]
            command = [sys.executable, "-m", "tests.fuzz", "worker", *map(str, arguments)]
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            result = json.loads(done.stdout) if done.stdout.startswith("{") else {}
            counts.update(result)
            if done.returncode:
                if not current.exists() or not current.stat().st_size:
                    raise click.ClickException(f"the worker does not start: {done.stderr}")
                kept = current.read_bytes()
                stop = int.from_bytes(kept[:8], "little") + 1
                counts.update({"inputs": stop - first - result.get("inputs", 0), "crashes": 1})
                crashes.mkdir(parents=True, exist_ok=True)
                (crashes / f"{target}-{seed}-{stop - 1}").write_bytes(kept[8:])
                reason = (done.stderr.strip().splitlines() or ["killed"])[-1]
                click.echo(f"input {stop - 1}: status {done.returncode}, {reason}", err=True)
            first = stop
            current.unlink(missing_ok=True)
    return counts


@click.group(invoke_without_command=True)
@click.option("--target", type=click.Choice(list(TARGETS)), default="files", show_default=True)
@click.option("--count", type=click.IntRange(1), default=2000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--weights", "path", type=click.Path(path_type=Path), help="Weights file instead of the tests' tiny one.")
@click.option("--crashes", type=click.Path(path_type=Path), default=Path("fuzz-crashes"), show_default=True)
@click.pass_context
def main(context: click.Context, target: str, count: int, seed: int, path: Path | None, crashes: Path) -> None:
    """Try damaged inputs; print how many got how far as JSON; exit with 1 if one crashed."""
    if context.invoked_subcommand:
        return
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            path = Path(folder, "tiny.safetensors")
            model = make_model()
            weights.save(path, model.config, freeze(model), {"origin": "fuzz"})
        counts = campaign(target, path.resolve(), count, seed, crashes)
    click.echo(json.dumps(dict(counts.most_common()), indent=1))
    if counts["crashes"]:
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
