"""Rate and quality on a set of pictures, from real files, into JSON files and tables; also `yoto-codec benchmark`.

    python -m benchmarks.run --dataset KODAK --anchors kodak_anchors.json --results FOLDER

The folder gets `yoto.json` (ours), `peers.json` and, with anchors, `bdrate.json`. A run that was stopped goes on where
it was when it is called again. Its times are those of single calls, for orientation; `benchmarks.speed` measures them
with care.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import memory
from benchmarks.anchors import DEFAULT_ANCHORS, Anchors, load_anchors
from benchmarks.codecs import OURS, ImageCodec, Yoto, limited_to
from benchmarks.comparison import compare, save_comparison
from benchmarks.dataset import DatasetError, download_kodak, find_images, find_kodak, kodak_folder, load_rgb, sha256
from benchmarks.machine import OUR_PACKAGES, PEER_PACKAGES, command, machine, model, versions
from benchmarks.report import bd_table, curve_table
from benchmarks.results import OURS_FILE, PEERS_FILE, Record, Results, ResultsError
from codec.api import Codec
from codec.encoder import DEFAULT_EFFORT, MAX_EFFORT
from codec.errors import CodecError
from codec.metrics import ms_ssim, ms_ssim_db, psnr_db, ssim
from codec.peers import PEERS, choose_peers
from codec.picture.image import Uint8Array

CODEC_NAMES = (OURS, *PEERS)
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
        psnr_db(image, decoded),
        multiscale,
        ms_ssim_db(multiscale),
        ssim(image, decoded),
        encoded - start,
        end - encoded,
    )


def measure_all(codecs: Sequence[ImageCodec], paths: Sequence[Path], results: Results) -> None:
    """Measure what the results lack, with a progress bar on stderr."""
    for codec in codecs:
        results.note_codec(codec.name, dict(codec.options))
        wanted = [(setting, path) for setting in codec.settings for path in paths]
        todo = [(s, path) for s, path in wanted if not results.has(codec.name, s, path.name)]
        if todo:
            codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8), todo[0][0]))  # the first call loads libraries
        with progress(codec.name, todo) as bar:
            for setting, path in bar:
                results.add(measure(codec, setting, path.name, load_rgb(path)))
    results.save()


def measure_memory(codecs: Sequence[ImageCodec], path: Path, weights: Path | None, results: Results) -> None:
    """Peak memory at each setting, of fresh processes that code one picture."""
    for codec in codecs:
        todo = [setting for setting in codec.settings if not results.has_memory(codec.name, setting)]
        with progress(f"{codec.name}, memory", todo) as bar:
            for setting in bar:
                figures = memory.measure(codec.name, setting, str(path.resolve()), weights)
                results.add_memory(codec.name, setting, path.name, figures)


def progress(label: str, items: Sequence[Any]) -> Any:
    """A progress bar on stderr, or one line where that is no terminal."""
    return click.progressbar(items, label=f"{label} ({len(items)} to measure)", file=sys.stderr)


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


def read_anchors(path: Path | None, names: Sequence[str]) -> Anchors | None:
    """The chosen curves of the anchors file, if there is one."""
    if path is None:
        return None
    try:
        return load_anchors(path, names or DEFAULT_ANCHORS)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--anchors") from error


def find_paths(dataset: Path | None, images: Path | None, anchored: bool) -> list[Path]:
    """The pictures that the options name."""
    if dataset and images:
        raise click.UsageError("give --dataset or --images, not both")
    if anchored and images:
        raise click.UsageError("the anchors are of the Kodak images; they say nothing about --images")
    return find_images(images) if images else find_kodak(dataset)


@click.command()
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the 24 Kodak images.")
@click.option("--download", is_flag=True, help="Only fetch the Kodak images, into --dataset or a cache.")
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Folder of any other pictures instead.")
@click.option("--limit", type=click.IntRange(1), help="Take only the first pictures, for a quick look.")
@click.option("--anchors", "anchors_path", type=click.Path(exists=True, path_type=Path), help="kodak_anchors.json.")
@click.option("--anchor", "anchor_names", multiple=True, help="Name of a published codec in it instead of a choice.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--qualities", default=DEFAULT_QUALITIES, show_default=True, callback=parse_qualities, help="Of yoto.")
@click.option(
    "--effort", type=click.IntRange(0, MAX_EFFORT), default=DEFAULT_EFFORT, show_default=True, help="Of yoto."
)
@click.option("--codecs", "names", default=",".join(CODEC_NAMES), show_default=True, callback=parse_codecs)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For every codec.")
@click.option("--memory/--no-memory", "with_memory", default=True, help="Measure peak memory as well.")
@click.option("--replace", is_flag=True, help="Drop results made with other weights, options or versions.")
@click.option(
    "--results", "folder", type=click.Path(path_type=Path), default=Path("benchmark-results"), show_default=True
)
def main(
    dataset: Path | None,
    download: bool,
    images: Path | None,
    limit: int | None,
    anchors_path: Path | None,
    anchor_names: tuple[str, ...],
    weights: Path | None,
    qualities: list[float],
    effort: int,
    names: list[str],
    threads: int,
    with_memory: bool,
    replace: bool,
    folder: Path,
) -> None:
    """Measure rate and quality of codecs on a set of pictures; results go to a folder and are added to."""
    anchors = read_anchors(anchors_path, anchor_names)
    try:
        if download:
            target = kodak_folder(dataset)
            download_kodak(target)
            click.echo(f"the 24 Kodak images are in {target}")
            return
        found = find_paths(dataset, images, anchors is not None)
        paths = found[:limit]
        folder.mkdir(parents=True, exist_ok=True)
        here, shared = machine(threads), {"dataset": identity(found, images)}
        with limited_to(threads):
            if OURS in names:
                codec = Codec(weights)
                conditions = shared | {"versions": versions(OUR_PACKAGES), "model": model(codec.weights)}
                results = Results(folder / OURS_FILE, conditions, replace)
                results.note_run(command("benchmarks.run"), here)
                measure_file([Yoto(codec, qualities, effort=effort)], [], paths, weights, with_memory, results)
            peers, absent = choose_peers(names)
            if peers or absent:
                results = Results(folder / PEERS_FILE, shared | {"versions": versions(PEER_PACKAGES)}, replace)
                results.note_run(command("benchmarks.run"), here)
                measure_file(peers, absent, paths, None, with_memory, results)
    except (DatasetError, ResultsError, CodecError) as error:
        raise click.ClickException(str(error)) from error
    report(folder, [path.name for path in paths], anchors)


def measure_file(
    codecs: Sequence[ImageCodec],
    absent: list[str],
    paths: Sequence[Path],
    weights: Path | None,
    with_memory: bool,
    results: Results,
) -> None:
    """Complete one results file."""
    measure_all(codecs, paths, results)
    if with_memory:
        measure_memory(codecs, paths[0], weights, results)
    results.note_absent(absent)
    results.save()


def identity(paths: Sequence[Path], images: Path | None) -> dict[str, Any]:
    """Name and hashes of the whole set of pictures, so that --limit may grow."""
    return {"name": images.name if images else "Kodak", "sha256": {path.name: sha256(path) for path in paths}}


def report(folder: Path, images: list[str], anchors: Anchors | None) -> None:
    """Tables of all that the folder holds to stdout, what limits them, and the BD-rates to their file."""
    files = [Results(path, {}) for name in (OURS_FILE, PEERS_FILE) if (path := folder / name).exists()]
    means = [mean for results in files for mean in results.means(images)]
    click.echo(curve_table(means))
    click.echo()
    if anchors and len(images) < 24:
        click.echo(f"Only {len(images)} of 24 images, the published curves are of all: the BD-rates mean little.")
    click.echo(bd_table(compare(means, anchors.curves if anchors else [])))
    for rate in anchors.rates if anchors else ():
        click.echo(f"published: {rate.name} {rate.percent:+.2f}% against {rate.reference}")
    absent = sorted({name for results in files for name in results.extra["absent"]})
    if absent:
        click.echo(f"\nNot measured, since they are not installed here: {', '.join(absent)}.")
    ours = next((results for results in files if results.conditions["model"]), None)
    if anchors and ours and len(images) == 24:
        save_comparison(folder, ours.conditions["model"]["id"], means, anchors)


if __name__ == "__main__":
    main()
