"""Files through the codec, one or many: what the commands `encode` and `decode` do with each."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from codec.api import DEFAULT_QUALITY, Codec
from codec.app.files import Task, refuse_existing, write_output
from codec.encoder import DEFAULT_EFFORT
from codec.errors import explain
from codec.format.bitstream import DEFAULT_MAX_PIXELS, Header, unpack
from codec.picture.image import frames, open_image, psnr_db, save_image, to_planes
from codec.target import encode_to_target


@dataclass(frozen=True)
class EncodeOptions:
    """How to encode a file.

    Attributes:
        quality: 0 to 1.
        target: instead of the quality, one of the targets of `encode_to_target`, by its name there.
        effort: 0 to 8.
        keep_metadata: keep ICC profile, Exif and XMP.
        levels: for images of more than 8 bits a channel, see `open_image`.
        metrics: decode again and measure.
    """

    quality: float = DEFAULT_QUALITY
    target: Mapping[str, float] | None = None
    effort: int = DEFAULT_EFFORT
    keep_metadata: bool = True
    levels: tuple[float, float] | None = None
    metrics: bool = False


class Encoded(NamedTuple):
    """A file made from an image; `encodes` tells how many qualities were tried, `notes` what the user should know."""

    data: bytes
    header: Header
    quality: float
    encodes: int
    seconds: float
    psnr_db: float | None
    notes: list[str]

    @property
    def fields(self) -> dict[str, object]:
        """The report of the command."""
        fields: dict[str, object] = {
            "bytes": len(self.data),
            "bpp": round(self.header.bpp, 5),
            "width": self.header.width,
            "height": self.header.height,
            "quality": self.quality,
            "seconds": round(self.seconds, 3),
        }
        if self.psnr_db is not None:
            fields["psnr_db"] = round(self.psnr_db, 3) if math.isfinite(self.psnr_db) else None
        return fields

    def __str__(self) -> str:
        text = f"{len(self.data)} bytes, {self.header.bpp:.4f} bpp, quality {self.quality:.4g}, {self.seconds:.2f} s"
        return text if self.psnr_db is None else f"{text}, PSNR {self.psnr_db:.2f} dB"


class Outcome(NamedTuple):
    """What became of a task: bytes written, 0 if it was skipped or failed; an error in one line, or None."""

    task: Task
    size_bytes: int
    notes: list[str]
    error: str | None = None

    def __str__(self) -> str:
        return f"{self.task.output}: {f'{self.size_bytes} bytes' if self.size_bytes else self.error or 'skipped'}"


class Summary(NamedTuple):
    """Counts over many files, as the command reports them."""

    written: int
    skipped: int
    failed: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.written} written, {self.skipped} skipped, {self.failed} failed; {self.bytes} bytes"


def summarise(outcomes: Sequence[Outcome]) -> Summary:
    """Count what became of tasks."""
    failed = sum(outcome.error is not None for outcome in outcomes)
    written = sum(outcome.size_bytes > 0 for outcome in outcomes)
    return Summary(written, len(outcomes) - written - failed, failed, sum(outcome.size_bytes for outcome in outcomes))


def encode_image(codec: Codec, image: Image.Image, options: EncodeOptions) -> Encoded:
    """Encode one image; errors are those of `Codec.encode` and `encode_to_target`."""
    notes = []
    if (count := frames(image)) > 1:
        notes.append(f"the image has {count} frames, of which the first is coded")
    start = time.perf_counter()
    quality, encodes = options.quality, 1
    if options.target:
        found = encode_to_target(
            image, **options.target, codec=codec, effort=options.effort, keep_metadata=options.keep_metadata
        )
        data, quality, encodes = found.data, found.quality, found.encodes
        if not found.met:
            ((name, wanted),) = options.target.items()
            unit = {"size_bytes": "bytes", "bpp": "bpp", "psnr_db": "dB"}[name]
            notes.append(
                f"{wanted:g} {unit} is out of reach; the nearest is {found.reached:.6g} {unit}, at quality {quality:g}"
            )
    else:
        data = codec.encode(image, quality, effort=options.effort, keep_metadata=options.keep_metadata)
    seconds = time.perf_counter() - start
    psnr = None
    if options.metrics:
        decoded = codec.decode(data, max_pixels=sys.maxsize)
        psnr = psnr_db(to_planes(image).colour, to_planes(decoded).colour)
    return Encoded(data, unpack(data, sys.maxsize), quality, encodes, seconds, psnr, notes)


@dataclass(frozen=True)
class FileEncoder:
    """Makes the .yoto file of an image file, and notes on it."""

    codec: Codec
    options: EncodeOptions

    def __call__(self, source: Path) -> tuple[bytes, list[str]]:
        encoded = encode_image(self.codec, open_image(source, levels=self.options.levels), self.options)
        return encoded.data, encoded.notes


@dataclass(frozen=True)
class FileDecoder:
    """Makes the image file, of the format that a suffix stands for, of a .yoto file; there is nothing to note."""

    codec: Codec
    suffix: str
    max_pixels: int = DEFAULT_MAX_PIXELS

    def __call__(self, source: Path) -> tuple[bytes, list[str]]:
        return save_image(self.codec.decode(source.read_bytes(), max_pixels=self.max_pixels), self.suffix), []


def run(
    tasks: Sequence[Task],
    work: Callable[[Path], tuple[bytes, list[str]]],
    *,
    jobs: int | None = None,
    force: bool = False,
    skip_existing: bool = False,
) -> Iterator[Outcome]:
    """Work on many files; yield the outcome of each as it is done.

    Threads, since most of the time goes to torch, which lets others run, and since they share one model. The cores
    are split among them: many pictures at once, each on few threads, take less time than one after the other on all.

    Args:
        tasks: what to read and write; folders are made as needed.
        work: the bytes to write for a file, and notes; may raise, which ends this task alone.
        jobs: files at a time, each in memory; None for one for each thread that torch would use.
        force: overwrite outputs that exist; else they are errors.
        skip_existing: leave outputs that exist, and do not work on their inputs.
    """

    def attempt(task: Task) -> Outcome:
        if skip_existing and task.output.exists():
            return Outcome(task, 0, [])
        try:
            refuse_existing(task.output, force)
            data, notes = work(task.source)
            task.output.parent.mkdir(parents=True, exist_ok=True)
            write_output(task.output, data)
        except Exception as error:
            # A fault of the program with one file is no reason to give up the others; it is reported as such.
            return Outcome(task, 0, [], explain(error) or f"unexpected {type(error).__name__}: {error}")
        return Outcome(task, len(data), notes)

    cores = torch.get_num_threads()
    jobs = jobs or cores
    torch.set_num_threads(max(1, cores // jobs))
    pool = ThreadPoolExecutor(jobs)
    try:
        with warnings.catch_warnings():  # `open_image` sets filters, and in several threads may not restore them
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            for future in as_completed([pool.submit(attempt, task) for task in tasks]):
                yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)
