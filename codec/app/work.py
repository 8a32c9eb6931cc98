"""What the commands `encode` and `decode` do with each file. torch is imported when the model is needed."""

from __future__ import annotations

import errno
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from codec.app.files import (
    STREAM,
    check_input,
    check_output,
    is_taken,
    modified_ns,
    read_input,
    refuse_existing,
    write_output,
)
from codec.app.places import Task, UsageError
from codec.format.bitstream import DEFAULT_MAX_PIXELS, Header, Region, unpack
from codec.picture.source import NamedBytes
from codec.picture.url import Url

if TYPE_CHECKING:
    from codec.api import Codec
    from codec.grid import Progress
    from codec.picture.image import Planes

Given = TypeVar("Given")
UNITS = {"size_bytes": "bytes", "bpp": "bpp", "psnr_db": "dB"}  # of the targets of `encode_to_target`

# What one byte of a file can hold at most, in bytes of pixels: deflate shrinks 1032 times, the others store.
LEAST_SHARE = {".png": 1032, ".bmp": 1, ".ppm": 1, ".tif": 1, ".tiff": 1}


class Made(NamedTuple):
    """What came of a file.

    Attributes:
        data: the bytes to write.
        fields: the report for machines.
        text: the report in one line.
        details: what else may be of interest, in one line.
        notes: what the user should know, one line each.
        damage: what is missing in the result, one line each.
    """

    data: bytes
    fields: dict[str, object]
    text: str
    details: str
    notes: Sequence[str] = ()
    damage: Sequence[str] = ()


class Work(Protocol[Given]):
    """Reading is apart, because it finds most mistakes, and needs no model."""

    @property
    def codec(self) -> Codec:
        """The model, loaded by the first who asks."""

    def read(self, source: Path | Url) -> Given:
        """What of a file is needed, checked as far as that is quick."""

    def least_bytes(self, given: Given) -> int:
        """What the result will have at least, to find a full disk before the work."""

    def code(self, given: Given, progress: Progress | None = None) -> Made:
        """The result; may be called in several threads."""


def carry_out(task: Task, work: Work[Given], *, force: bool, keep_time: bool, progress: Progress | None = None) -> Made:
    """Read, work and write; what can be known to fail does so before the work.

    Raises:
        CodecError, OSError, UsageError: as of `Work` and `write_output`.
    """
    if keep_time and isinstance(task.output, Url):
        raise UsageError(f"{task.output} is a URL; --keep-time is for files of this machine")
    refuse_existing(task.output, force)
    _refuse_picture(task)
    given = work.read(task.source)
    mtime_ns = modified_ns(task.source) if keep_time else None
    if isinstance(task.folder, Path):
        task.folder.mkdir(parents=True, exist_ok=True)
    check_output(task.output, work.least_bytes(given))
    made = work.code(given, progress)
    write_output(task.output, made.data, new=not force, mtime_ns=mtime_ns)
    return made


def _refuse_picture(task: Task) -> None:
    """Save the original beside a file that was made of it: `--force` is not enough to overwrite it by a poorer one."""
    if task.inferred and task.output.suffix != ".yoto" and is_taken(task.output):
        from codec.picture.formats import has_pictures_suffix

        if has_pictures_suffix(task.output):
            raise FileExistsError(
                errno.EEXIST,
                "is a picture, maybe the original; to overwrite it, name it or its folder with -o",
                str(task.output),
            )


@dataclass(frozen=True)
class Encoding:
    """Pictures to .yoto files.

    Attributes:
        load: loads the model.
        quality: 0 to 1.
        target: instead of the quality, one of the targets of `encode_to_target`, by its name there.
        lossless: instead of both, keep every pixel as it is.
        effort: 0 to 8.
        keep_metadata: keep ICC profile, Exif and XMP.
        levels: for images of more than 8 bits a channel, see `open_image`.
        max_pixels: refuse larger pictures; None for Pillow's own limit alone.
        metrics: decode again and measure.
    """

    load: Callable[[], Codec]
    quality: float
    target: Mapping[str, float] | None = None
    lossless: bool = False
    effort: int = 1
    keep_metadata: bool = True
    levels: tuple[float, float] | None = None
    max_pixels: int | None = None
    metrics: bool = False

    @cached_property
    def codec(self) -> Codec:
        """The model, loaded when it is first needed."""
        return self.load()

    def read(self, source: Path | Url) -> Path | NamedBytes:
        """What to code: a path, or the bytes of standard input or a URL."""
        if isinstance(source, Path) and source != STREAM:
            check_input(source)
            return source
        return NamedBytes(read_input(source), "the input" if source == STREAM else str(source))

    def least_bytes(self, given: Path | NamedBytes) -> int:
        """Room that the output needs at least."""
        return 1

    def code(self, given: Path | NamedBytes, progress: Progress | None = None) -> Made:
        """The file of a picture."""
        from codec.picture.image import open_image, to_planes
        from codec.picture.transparent import without_hidden_colours

        image = open_image(given, levels=self.levels, max_pixels=self.max_pixels)
        planes = to_planes(image)
        if not self.lossless:
            planes = without_hidden_colours(planes)
        notes = list(planes.notes)
        start = time.perf_counter()
        quality, encodes = self.quality, 1
        if self.target:
            data, quality, encodes, note = self._search(planes, self.target, progress)
            notes += note
        else:
            data = self.codec.encode(
                planes,
                quality,
                effort=self.effort,
                keep_metadata=self.keep_metadata,
                lossless=self.lossless,
                progress=progress,
            )
        seconds = time.perf_counter() - start
        psnr = self._psnr_db(planes, data) if self.metrics else None
        return _encoded(data, unpack(data, sys.maxsize), quality, encodes, seconds, psnr, notes)

    def _search(
        self, planes: Planes, target: Mapping[str, float], progress: Progress | None
    ) -> tuple[bytes, float, int, list[str]]:
        """The file that meets the target, its quality, the number of those tried, and a note if it does not."""
        from codec.target import encode_to_target

        targets: dict[str, Any] = dict(target)
        found = encode_to_target(
            planes,
            **targets,
            codec=self.codec,
            effort=self.effort,
            keep_metadata=self.keep_metadata,
            progress=progress,
        )
        ((name, wanted),) = target.items()
        missed = (
            f"{wanted:g} {UNITS[name]} is out of reach; the nearest is {found.reached:.6g} {UNITS[name]}, at quality"
            f" {found.quality:g}"
        )
        return found.data, found.quality, found.encodes, [] if found.met else [missed]

    def _psnr_db(self, planes: Planes, data: bytes) -> float:
        from codec.metrics import psnr_db
        from codec.picture.image import to_planes

        decoded = self.codec.decode(data, max_pixels=sys.maxsize)
        return psnr_db(planes.colour, to_planes(decoded).colour)


def _encoded(
    data: bytes, header: Header, quality: float, encodes: int, seconds: float, psnr: float | None, notes: list[str]
) -> Made:
    fields: dict[str, object] = {
        "bytes": len(data),
        "bpp": round(header.bpp, 5),
        "width": header.width,
        "height": header.height,
        "kind": header.kind,
        "quality": None if header.lossless else quality,
        "seconds": round(seconds, 3),
    }
    kept = "lossless" if header.lossless else f"quality {quality:.4g}"
    text = f"{len(data)} bytes, {header.bpp:.4f} bpp, {kept}, {seconds:.2f} s"
    if psnr is not None:
        fields["psnr_db"] = round(psnr, 3) if math.isfinite(psnr) else None
        text += f", PSNR {psnr:.2f} dB"
    tiles, model = len(header.tiles), header.model_id.hex()
    return Made(
        data, fields, text, f"{header.mode}, tiles: {tiles}, qualities tried: {encodes}, weights: {model}", notes
    )


@dataclass(frozen=True)
class Decoding:
    """.yoto files to pictures.

    Attributes:
        load: loads the model.
        suffix: says in which format.
        region: decode these pixels only.
        partial: make the best of damaged files, whose header must be sound.
        max_pixels: refuse larger pictures.
        fit: shrink what is larger to this many px on the longer side.
        realism: 0 for the least squared error, up to 1 for the structure that MS-SSIM sees.
    """

    load: Callable[[], Codec]
    suffix: str
    region: Region | None = None
    partial: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    fit: int | None = None
    realism: float = 0.0

    @cached_property
    def codec(self) -> Codec:
        """The model, loaded when it is first needed."""
        return self.load()

    def read(self, source: Path | Url) -> bytes:
        """UsageError if the region does not lie within the picture."""
        data = read_input(source)
        header = unpack(data, self.max_pixels, whole=not self.partial)
        from codec.picture import formats

        formats.format_to_write(self.suffix)
        if self.region:
            try:
                header.check_region(self.region)
            except ValueError as error:
                raise UsageError(f"Invalid value for --region: {error}") from error
        return data

    def least_bytes(self, given: bytes) -> int:
        """Room that the output needs at least."""
        if self.suffix not in LEAST_SHARE or self.region or self.fit:
            return 1
        header = unpack(given, self.max_pixels, whole=False)
        return header.width * header.height * len(header.mode) // LEAST_SHARE[self.suffix]

    def code(self, given: bytes, progress: Progress | None = None) -> Made:
        """The picture of a file."""
        from codec.picture.formats import losses
        from codec.picture.image import save_image

        start = time.perf_counter()
        damage = []
        if self.partial:
            image, found = self.codec.decode_partial(
                given, region=self.region, realism=self.realism, max_pixels=self.max_pixels, progress=progress
            )
            damage = [_place(part.region) + part.reason for part in found]
        else:
            image = self.codec.decode(
                given, region=self.region, realism=self.realism, max_pixels=self.max_pixels, progress=progress
            )
        seconds = time.perf_counter() - start
        if self.fit:
            image.thumbnail((self.fit, self.fit))
        fields: dict[str, object] = {
            "width": image.width,
            "height": image.height,
            "mode": image.mode,
            "seconds": round(seconds, 3),
        }
        text = f"{image.width}×{image.height} px, {image.mode}, {seconds:.2f} s"
        header = unpack(given, sys.maxsize, whole=False)
        details = f"tiles: {len(header.tiles)}, weights: {header.model_id.hex()}"
        return Made(save_image(image, self.suffix), fields, text, details, losses(image, self.suffix), damage)


def _place(region: Region | None) -> str:
    if region is None:
        return ""
    x, y, width, height = region
    return f"x {x}, y {y}, {width}×{height} px: "
