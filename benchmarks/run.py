"""Rate and quality on a set of pictures, from real files, into a JSON file and tables.

    python -m benchmarks.run --dataset KODAK --anchors kodak_anchors.json --weights FILE --output results.json

A run that was stopped goes on where it was when it is called again. Its times are those of single calls, for
orientation; `benchmarks.speed` measures them with care.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.bdrate import Curve, load_anchors
from benchmarks.codecs import OURS, PEER_NAMES, ImageCodec, Yoto, choose_peers, set_threads
from benchmarks.dataset import DatasetError, find_images, find_kodak, load_rgb, sha256
from benchmarks.machine import machine, model, versions
from benchmarks.metrics import ms_ssim, psnr_db, ssim
from benchmarks.report import bd_table, curve_table
from benchmarks.results import Record, Results, ResultsError
from codec.api import Codec
from codec.errors import CodecError
from codec.image import Uint8Array

CODEC_NAMES = (OURS, *PEER_NAMES)
DEFAULT_QUALITIES = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"


def measure(codec: ImageCodec, setting: float, name: str, image: Uint8Array) -> Record:
    """Encode one picture to bytes, decode these, compare."""
    start = time.perf_counter()
    data = codec.encode(image, setting)
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    if decoded.shape != image.shape:
        raise click.ClickException(f"{codec.name} made {decoded.shape} of {name}, which is {image.shape}")
    multiscale = ms_ssim(image, decoded)
    return Record(
        codec.name,
        setting,
        name,
        len(data),
        8.0 * len(data) / (image.shape[0] * image.shape[1]),
        float(psnr_db(image, decoded)),
        multiscale.value,
        multiscale.db,
        ssim(image, decoded),
        encoded - start,
        end - encoded,
    )


def measure_all(codecs: Sequence[ImageCodec], paths: Sequence[Path], results: Results) -> None:
    """Fill `results` with what it lacks, telling stderr."""
    for codec in codecs:
        results.note_codec(codec.name, dict(codec.options))
        wanted = [(setting, path) for setting in codec.settings for path in paths]
        todo = [(s, path) for s, path in wanted if not results.has(codec.name, s, path.name)]
        if todo:
            codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8), todo[0][0]))  # the first call loads libraries
        for number, (setting, path) in enumerate(todo, start=len(wanted) - len(todo) + 1):
            record = measure(codec, setting, path.name, load_rgb(path))
            results.add(record)
            click.echo(
                f"{codec.name} {number}/{len(wanted)}: {setting:g} {path.name} {record.bpp:.4f} bpp"
                f" {record.psnr_db:.2f} dB",
                err=True,
            )
    results.save()


def parse_qualities(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Comma-separated numbers in [0, 1]."""
    try:
        numbers = [float(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value} is no list of numbers such as 0,0.5,1") from error
    if not all(0.0 <= number <= 1.0 for number in numbers):
        raise click.BadParameter("qualities lie between 0 and 1")
    return sorted(set(numbers))


def parse_codecs(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Comma-separated names of codecs."""
    unknown = sorted(set(value.split(",")) - set(CODEC_NAMES))
    if unknown:
        raise click.BadParameter(f"no codec {', '.join(unknown)}; there are {', '.join(CODEC_NAMES)}")
    return value.split(",")


def parse_anchors(context: click.Context, parameter: click.Parameter, value: Path | None) -> list[Curve]:
    """Curves of the anchors file, if there is one."""
    try:
        return load_anchors(value) if value else []
    except (ValueError, KeyError, TypeError) as error:
        raise click.BadParameter(str(error)) from error


def find_paths(dataset: Path | None, images: Path | None, anchored: bool) -> list[Path]:
    """The pictures that the options name."""
    if dataset and images:
        raise click.UsageError("give --dataset or --images, not both")
    if anchored and images:
        raise click.UsageError("the anchors are of the Kodak images; they say nothing about --images")
    return find_images(images) if images else find_kodak(dataset)


@click.command()
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the 24 Kodak images.")
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Folder of any other pictures instead.")
@click.option("--limit", type=click.IntRange(1), help="Take only the first pictures, for a quick look.")
@click.option(
    "--anchors", type=click.Path(exists=True, path_type=Path), callback=parse_anchors, help="kodak_anchors.json."
)
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--qualities", default=DEFAULT_QUALITIES, show_default=True, callback=parse_qualities, help="Of yoto.")
@click.option("--codecs", "names", default=",".join(CODEC_NAMES), show_default=True, callback=parse_codecs)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For yoto and AVIF.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="JSON file; added to if it exists.")
def main(
    dataset: Path | None,
    images: Path | None,
    limit: int | None,
    anchors: list[Curve],
    weights: Path | None,
    qualities: list[float],
    names: list[str],
    threads: int,
    output: Path,
) -> None:
    """Measure rate and quality of codecs on a set of pictures."""
    set_threads(threads)
    try:
        found = find_paths(dataset, images, bool(anchors))
        ours = Codec(weights) if OURS in names else None
        peers, absent = choose_peers(names)
        results = Results(output, conditions(found, images, threads, ours))
        results.note_command(shlex.join(["python", "-m", "benchmarks.run", *sys.argv[1:]]))
        results.note_absent(absent)
        measure_all([*([Yoto(ours, qualities)] if ours else []), *peers], found[:limit], results)
    except (DatasetError, ResultsError, CodecError) as error:
        raise click.ClickException(str(error)) from error
    print_report(results, found[:limit], anchors)


def conditions(paths: Sequence[Path], images: Path | None, threads: int, ours: Codec | None) -> dict[str, Any]:
    """What the results depend on; the whole set of pictures, so that --limit may grow."""
    hashes = {path.name: sha256(path) for path in paths}
    return {
        "machine": machine(threads),
        "versions": versions(),
        "model": model(ours.weights) if ours else None,
        "dataset": {"name": images.name if images else "Kodak", "sha256": hashes},
    }


def print_report(results: Results, paths: Sequence[Path], anchors: Sequence[Curve]) -> None:
    """Tables to stdout, and what limits them."""
    means = results.means([path.name for path in paths])
    click.echo(curve_table(means))
    click.echo()
    if anchors and len(paths) < 24:
        click.echo(f"Only {len(paths)} of 24 images, the published curves are of all: the BD-rates mean little.")
    click.echo(bd_table(means, anchors))
    if results.extra["absent"]:
        click.echo(f"\nNot measured, since this Pillow lacks them: {', '.join(results.extra['absent'])}.")


if __name__ == "__main__":
    main()
