"""Seconds to encode and decode one Kodak image, and what of it the entropy model takes.

    python -m benchmarks.speed --dataset KODAK --compressai-python .venv-compressai/bin/python --output speed.json

The model is loaded and warm, pixels are in memory, files too; medians of several calls. The peers code the same picture
to about as many bytes in the same process, CompressAI's models in another one, in the same run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import click

from benchmarks.codecs import FAST, ImageCodec, Yoto, limited_to
from benchmarks.compressai_models import CompressaiError, measure_elsewhere
from benchmarks.dataset import DatasetError, find_kodak, load_rgb
from benchmarks.files import write_json
from benchmarks.machine import OUR_PACKAGES, PEER_PACKAGES, command, machine, model, versions
from codec import api, encoder
from codec.errors import CodecError
from codec.format.entropy import SymbolDecoder
from codec.metrics import psnr_db
from codec.network.integer import IntegerPrior
from codec.peers import choose_peers, encode_at_size
from codec.picture.image import Uint8Array

PEERS = ("jpeg", "webp", "avif", "avif-slowest", "jpegxl", "jpegxl-slowest", "heic")
PRIOR, CODER = "prior", "coder"
ROOT = Path(__file__).parent.parent


class SectionTimer:
    """Seconds spent in each kind of function, without those in timed functions that it calls in turn."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def wrap(self, section: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        @wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                elapsed = time.perf_counter() - start
                self.seconds[section] += elapsed - self._inner.pop()
                if self._inner:
                    self._inner[-1] += elapsed

        return timed


@contextmanager
def timed_entropy_path() -> Iterator[SectionTimer]:
    """Time the entropy model (rounding of y included) and the entropy coder wherever `Codec` calls them."""
    timer = SectionTimer()
    with ExitStack() as stack:
        for owner, name, section in (
            (IntegerPrior, "run", PRIOR),
            (encoder, "encode_symbols", CODER),
            (SymbolDecoder, "__init__", CODER),
            (SymbolDecoder, "read", CODER),
            (SymbolDecoder, "finish", CODER),
        ):
            stack.enter_context(patch.object(owner, name, timer.wrap(section, getattr(owner, name))))
        yield timer


class Timing(NamedTuple):
    """Medians over several calls, seconds."""

    total_s: float
    prior_s: float
    coder_s: float

    @property
    def entropy_share(self) -> float:
        """Share of the entropy model and the coder."""
        return (self.prior_s + self.coder_s) / self.total_s


def time_calls(call: Callable[[], object], repeats: int) -> Timing:
    """Call once to warm up, then measure."""
    call()
    rows = []
    for _ in range(repeats):
        with timed_entropy_path() as timer:
            start = time.perf_counter()
            call()
            rows.append((time.perf_counter() - start, timer.seconds[PRIOR], timer.seconds[CODER]))
    return Timing(*(median(column) for column in zip(*rows, strict=True)))


def time_codec(codec: ImageCodec, setting: float, image: Uint8Array, threads: int, repeats: int) -> dict[str, Any]:
    """One codec at one setting with so many threads."""
    data = codec.encode(image, setting)
    encode = time_calls(lambda: codec.encode(image, setting), repeats)
    decode = time_calls(lambda: codec.decode(data), repeats)
    row = {"codec": codec.name, "threads": threads, "setting": setting, "bytes": len(data)}
    row |= {"psnr_db": float(psnr_db(image, codec.decode(data)))}
    for name, timing in (("encode", encode), ("decode", decode)):
        row[f"{name}_s"] = timing.total_s
        if isinstance(codec, Yoto):
            row |= {f"{name}_prior_s": timing.prior_s, f"{name}_coder_s": timing.coder_s}
            row |= {f"{name}_entropy_share": timing.entropy_share}
    return row


def startup_seconds(arguments: list[str], repeats: int) -> float:
    """Median seconds of the command line as a fresh process."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", *arguments], check=True, capture_output=True, cwd=ROOT)
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:])  # the first fills the file cache


def format_row(row: dict[str, Any], ours: dict[str, Any]) -> str:
    """One line; ratios are our time over the other's, below 1 where we are faster."""
    line = f"{row['codec']:<25} {row['threads']:>7}"
    if "bytes" in row:
        line += f" {row['setting']:>7g} {row['bytes']:>8} {row['psnr_db']:>8.2f}"
    else:
        line += f" {'–':>7} {'–':>8} {'–':>8}"  # random weights
    for name in ("encode", "decode"):
        line += f"  {row[f'{name}_s']:>8.4f}"
        if f"{name}_prior_s" in row:
            prior, coder, share = (row[f"{name}_{part}"] for part in ("prior_s", "coder_s", "entropy_share"))
            line += f" (model {prior:.4f}, coder {coder:.4f}: {share:4.0%})"
        if row is not ours:
            line += f" (ours takes {ours[f'{name}_s'] / row[f'{name}_s']:6.2f} times that)"
    return line


@click.command()
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the 24 Kodak images.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--image", "name", default="kodim05.png", show_default=True, help="Which of the images.")
@click.option("--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.option("--threads", "thread_counts", type=click.IntRange(1), multiple=True, default=(1, 2), show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=9, show_default=True)
@click.option("--compressai-python", type=click.Path(path_type=Path), help="Interpreter that has CompressAI.")
@click.option("--compressai-models", help="Names, comma-separated, instead of all; the serial ones take minutes.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures to this JSON file.")
def main(
    dataset: Path | None,
    weights: Path | None,
    name: str,
    quality: float,
    thread_counts: tuple[int, ...],
    repeats: int,
    compressai_python: Path | None,
    compressai_models: str | None,
    output: Path | None,
) -> None:
    """Time codecs on one picture, and the start of the command."""
    try:
        paths = {path.name: path for path in find_kodak(dataset)}
        if name not in paths:
            raise click.UsageError(f"no image {name}; there are {', '.join(paths)}")
        ours = Yoto(api.Codec(weights))
        report = conditions(ours.codec) | {"image": name, "repeats": repeats, "load_before": os.getloadavg()[0]}
        click.echo(f"{report['machine']['cpu']}, {report['machine']['cores']} cores; {name}; medians of {repeats}, s")
        click.echo(f"load before the start: {report['load_before']:.2f}; above 0 it was not alone on the machine")
        compressai = (compressai_python, compressai_models) if compressai_python else None
        report |= time_all(ours, quality, paths[name], thread_counts, repeats, compressai)
        report["startup_s"] = time_startup(ours.encode(load_rgb(paths[name]), quality), repeats)
    except (DatasetError, CodecError, CompressaiError) as error:
        raise click.ClickException(str(error)) from error
    for started, seconds in report["startup_s"].items():
        click.echo(f"start of {started}: {seconds:.3f} s")
    if output:
        write_json(output, report)


def conditions(codec: api.Codec) -> dict[str, Any]:
    """What the times depend on."""
    return {
        "command": command("benchmarks.speed"),
        "machine": machine(threads=None),
        "versions": versions(OUR_PACKAGES) | versions(PEER_PACKAGES),
        "model": model(codec.weights),
    }


def time_all(
    ours: Yoto,
    quality: float,
    path: Path,
    thread_counts: tuple[int, ...],
    repeats: int,
    compressai: tuple[Path, str | None] | None,
) -> dict[str, Any]:
    """Times of all codecs at each number of threads; names of those that are absent.

    `compressai` is the interpreter that has it, and the models to time.
    """
    image = load_rgb(path)
    peers, absent = choose_peers(PEERS)
    target = len(ours.encode(image, quality))
    settings = {peer.name: encode_at_size(peer, image, target).setting for peer in peers}
    click.echo(f"{'codec':<25} {'threads':>7} {'setting':>7} {'bytes':>8} {'PSNR dB':>8}    encode … decode")
    timings = []
    for threads in thread_counts:
        with limited_to(threads):
            first = time_codec(ours, quality, image, threads, repeats)
            fast = time_codec(Yoto(ours.codec, name=FAST, effort=0), quality, image, threads, repeats)
            rows = [first, fast, *(time_codec(peer, settings[peer.name], image, threads, repeats) for peer in peers)]
            if compressai:
                rows += time_compressai(*compressai, path, threads, repeats)
        timings += rows
        for row in rows:
            click.echo(format_row(row, first))
    absent += [] if compressai else ["CompressAI"]
    if absent:
        click.echo(f"not measured, since they are not here: {', '.join(absent)}")
    return {"timings": timings, "absent": absent}


def time_compressai(
    python: Path, models: str | None, picture: Path, threads: int, repeats: int
) -> list[dict[str, Any]]:
    """Rows of CompressAI's models, whose weights are random: they have neither setting nor bytes."""
    chosen = ("--models", models) if models else ()
    figures = measure_elsewhere(python, picture, *chosen, "--threads", str(threads), "--repeats", str(repeats))
    return [
        {
            "codec": f"CompressAI {entry['model']}",
            "threads": threads,
            "encode_s": entry["encode_s"],
            "decode_s": entry["decode_s"],
            "versions": figures["versions"],
        }
        for entry in figures["models"]
    ]


def time_startup(data: bytes, repeats: int) -> dict[str, float]:
    """Seconds of commands that need no model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "picture.yoto")
        file.write_bytes(data)
        return {
            "yoto-codec --help": startup_seconds(["--help"], repeats),
            "yoto-codec info": startup_seconds(["info", str(file)], repeats),
        }


if __name__ == "__main__":
    main()
