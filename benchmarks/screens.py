"""Bits on pictures that are no photographs, ours against the peers' lossy and lossless files at equal PSNR.

    python -m benchmarks.screens --out FOLDER

draws the set (`benchmarks.screenset`) into FOLDER/set if it is not there, measures every picture with every codec at
settings from coarse to fine, lossless ones included, and writes `screens.json` and the table `screens.md`. Means over
pictures would mix files that are exact with files that are not. So at each quality of ours each picture's bits are
held against what each peer needs for at least that PSNR: its bits there, on a line between its settings in log bits and
PSNR, or those of its lossless file where that is less or alone reaches it. The table tells the mean of the logarithms.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from PIL import Image

from benchmarks import screenset
from benchmarks.codecs import ImageCodec, Yoto
from benchmarks.dataset import load_rgb
from benchmarks.files import write_json
from codec.api import Codec
from codec.app.files import write_output
from codec.format.bitstream import MAGIC, unpack
from codec.metrics import psnr_db
from codec.peers import Peer, choose_peers
from codec.picture.image import Uint8Array

QUALITIES = (0.1, 0.3, 0.5, 0.8)
LOSSY = ("webp", "avif", "jpegxl")
LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "webp-lossless": ("WEBP", {"lossless": True, "method": 6, "quality": 90}),
    "png": ("PNG", {"optimize": True}),
    "jpegxl-lossless": ("JXL", {"lossless": True, "effort": 7}),
}
TITLES = {"webp": "WebP", "avif": "AVIF 4:4:4", "jpegxl": "JPEG XL", "png": "PNG", "best": "best of them"}
GROUPS = {
    "photographs": "pages with photographs",
    "screen": "screenshots",
    "chart": "charts",
    "text": "text",
    "drawing": "drawings",
}
WITH_PHOTOGRAPHS = ("screen-gallery", "screen-article", "screen-editor")


class Point(NamedTuple):
    """One file: bits per pixel and PSNR, infinite if nothing was lost; what kind it is, if ours."""

    bpp: float
    psnr_db: float
    kind: str = ""


Curves = dict[str, dict[str, list[Point]]]  # picture → codec → files, from coarse to fine


def measure(codec: ImageCodec, setting: float, image: Uint8Array) -> Point:
    """One file of a picture."""
    data = codec.encode(image, setting)
    kind = unpack(data).kind if data.startswith(MAGIC) else ""
    return Point(8.0 * len(data) / (image.shape[0] * image.shape[1]), float(psnr_db(image, codec.decode(data))), kind)


def lossless_bpp(image: Uint8Array, form: str, options: Mapping[str, Any]) -> float:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return 8.0 * buffer.tell() / (image.shape[0] * image.shape[1])


def measure_picture(image: Uint8Array, ours: Yoto, peers: Sequence[Peer]) -> dict[str, list[Point]]:
    """All files of one picture."""
    codecs: list[ImageCodec] = [ours, *peers]
    curves = {codec.name: [measure(codec, setting, image) for setting in codec.settings] for codec in codecs}
    exact = {name: lossless_bpp(image, form, options) for name, (form, options) in LOSSLESS.items()}
    exact["yoto-lossless"] = 8.0 * len(ours.codec.encode(image, lossless=True)) / (image.shape[0] * image.shape[1])
    return curves | {name: [Point(bpp, math.inf)] for name, bpp in exact.items()}


def needed_bpp(points: Sequence[Point], wanted_db: float) -> float:
    """Bits that a peer needs for a PSNR of at least so much: least of its files and of the lines between them."""
    enough = [point.bpp for point in points if point.psnr_db >= wanted_db]
    for a, b in pairwise(points):
        if a.psnr_db < wanted_db < b.psnr_db < math.inf:
            share = (wanted_db - a.psnr_db) / (b.psnr_db - a.psnr_db)
            enough.append(a.bpp * (b.bpp / a.bpp) ** share)
    return min(enough, default=math.inf)


def peer_points(curves: Mapping[str, Sequence[Point]], name: str) -> list[Point]:
    """A peer's files, and its lossless one."""
    return [*curves.get(name, []), *curves.get(f"{name}-lossless", [])]


def ratio(curves: Mapping[str, Sequence[Point]], name: str, index: int) -> float:
    """How many times a peer's bits ours are, at our quality of this index; 0 where it cannot reach our PSNR."""
    ours = curves["yoto"][index]
    if name == "best":
        needed = min(needed_bpp(peer_points(curves, peer), ours.psnr_db) for peer in TITLES if peer != "best")
    else:
        needed = needed_bpp(peer_points(curves, name), ours.psnr_db)
    return ours.bpp / needed


def group(name: str) -> str:
    return "photographs" if name in WITH_PHOTOGRAPHS else name.split("-")[0]


def table(curves: Curves) -> str:
    """Our bits over the peers' at our PSNR, by group and quality, and over the lossless files."""
    lines = [
        "Our bits against a peer's for the same PSNR or its lossless file, whichever takes fewer: mean ratio - 1, over"
        " the pictures where it reaches our PSNR.",
        "",
    ]
    lines += [f"| pictures | quality | PSNR dB | bpp | exact | {' | '.join(TITLES.values())} |"]
    lines += ["| --- " * (5 + len(TITLES)) + "|"]
    for key, title in {**GROUPS, "": "all"}.items():
        chosen = [found for name, found in curves.items() if key in ("", group(name))]
        for index, quality in enumerate(QUALITIES):
            points = [found["yoto"][index] for found in chosen]
            lossy = [point.psnr_db for point in points if math.isfinite(point.psnr_db)]
            cells = [
                f"{title} ({len(chosen)})",
                f"{quality:g}",
                f"{np.mean(lossy):.1f}" if lossy else "–",
                f"{np.mean([point.bpp for point in points]):.3f}",
                f"{len(points) - len(lossy)}",
            ]
            for peer in TITLES:
                reached = [math.log(value) for found in chosen if (value := ratio(found, peer, index))]
                cells.append(f"{100.0 * math.expm1(np.mean(reached)):+.1f} %" if reached else "–")
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "PSNR is the mean of the pictures that are not exact. Lossless, bits per pixel, mean of all:", ""]
    names = ["yoto-lossless", *LOSSLESS]
    means = [f"{name} {np.mean([found[name][0].bpp for found in curves.values()]):.3f}" for name in names]
    return "\n".join([*lines, ", ".join(means), ""])


def worst(curves: Curves) -> str:
    """Where ours is furthest above the best peer."""
    found = [(ratio(found, "best", i), name, q) for name, found in curves.items() for i, q in enumerate(QUALITIES)]
    parts = [f"{name} at {quality:g} {100 * (value - 1):+.0f} %" for value, name, quality in sorted(found)[:-9:-1]]
    return f"Furthest above the best of them: {', '.join(parts)}.\n"


def in_json(curves: Curves) -> dict[str, dict[str, list[dict[str, object]]]]:
    """The same, PSNR null where nothing was lost."""

    def fields(point: Point) -> dict[str, object]:
        return point._asdict() | {"psnr_db": point.psnr_db if math.isfinite(point.psnr_db) else None}

    return {
        name: {codec: [fields(point) for point in points] for codec, points in found.items()}
        for name, found in curves.items()
    }


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the set and the results.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--only", default="", help="Only pictures whose names start so.")
def main(out: Path, weights: Path | None, only: str) -> None:
    """Measure all codecs on pictures that are no photographs."""
    folder = out / "set"
    paths = sorted(folder.glob("*.png")) or sorted(screenset.make(folder))
    peers, absent = choose_peers(LOSSY)
    if absent:
        raise click.ClickException(f"{', '.join(absent)} cannot be written here: pip install -e '.[bench]'")
    ours, curves = Yoto(Codec(weights), QUALITIES), Curves()
    for path in paths:
        if path.name.startswith(only):
            click.echo(path.stem, err=True)
            curves[path.stem] = measure_picture(load_rgb(path), ours, peers)
    content = {"qualities": QUALITIES, "model": ours.codec.weights.model_id.hex(), "curves": in_json(curves)}
    write_json(out / "screens.json", content)
    text = f"{table(curves)}\n{worst(curves)}"
    write_output(out / "screens.md", text.encode())
    click.echo(text)


if __name__ == "__main__":
    main()
