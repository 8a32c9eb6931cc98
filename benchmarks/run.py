"""Rate and quality on a set of pictures, from real files, into JSON files and tables; also `yoto-codec benchmark`.

    python -m benchmarks.run --dataset ANY_FOLDER --limit 20 --results FOLDER

The folder gets `yoto.json` (ours), `peers.json`, `bdrate.json`, `plots/` and `report.html`. A run that was stopped goes
on where it was when it is called again. Its times are the processor's in single calls, for orientation;
`benchmarks.speed` measures them with care. Published curves are compared with on the Kodak images alone.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks import memory
from benchmarks.anchors import ANCHORS, DEFAULT_ANCHORS, Anchors, load_anchors
from benchmarks.codecs import OURS, CommandCodec, CommandError, ImageCodec, Yoto, limited_to
from benchmarks.comparison import compare, save_comparison
from benchmarks.dataset import Dataset, DatasetError, download_kodak, find_dataset, kodak_folder, load_rgb, sha256
from benchmarks.machine import OUR_PACKAGES, PEER_PACKAGES, command, machine, model, versions
from benchmarks.report import bd_table, curve_table
from benchmarks.results import OURS_FILE, PEERS_FILE, Record, Results, ResultsError
from codec.api import Codec
from codec.encoder import DEFAULT_EFFORT, MAX_EFFORT
from codec.errors import CodecError
from codec.metrics import (
    MS_SSIM_MIN_PX,
    SSIM_MIN_PX,
    SSIMULACRA2_MIN_PX,
    ms_ssim,
    ms_ssim_db,
    psnr_db,
    ssim,
    ssimulacra2,
)
from codec.peers import PEERS, choose_peers
from codec.picture.image import Uint8Array

CODEC_NAMES = (OURS, *PEERS)
QUICK = tuple(name for name in CODEC_NAMES if not name.endswith("-slowest"))  # minutes a picture
PAGE_QUALITY = 0.2  # of the pictures side by side
DEFAULT_QUALITIES = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"


def measure(codec: ImageCodec, setting: float, name: str, image: Uint8Array) -> Record:
    """Encode one picture to bytes, decode these, compare."""
    start = processor_seconds()
    data = codec.encode(image, setting)
    encoded = processor_seconds()
    decoded = codec.decode(data)
    end = processor_seconds()
    if decoded.shape != image.shape:
        raise click.ClickException(f"{codec.name} made {decoded.shape} of {name}, which is {image.shape}")
    side = min(image.shape[:2])
    multiscale = ms_ssim(image, decoded) if side >= MS_SSIM_MIN_PX else None
    return Record(
        codec.name,
        setting,
        name,
        len(data),
        8.0 * len(data) / (image.shape[0] * image.shape[1]),
        psnr_db(image, decoded),
        multiscale,
        None if multiscale is None else ms_ssim_db(multiscale),
        ssim(image, decoded) if side >= SSIM_MIN_PX else None,
        encoded - start,
        end - encoded,
        ssimulacra2(image, decoded) if side >= SSIMULACRA2_MIN_PX else None,
    )


def processor_seconds() -> float:
    """What this process and the commands that it ran have used: others' work on the machine does not count."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


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


def parse_numbers(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Comma-separated numbers."""
    try:
        return sorted({float(part) for part in value.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{value} is no list of numbers such as 0,0.5,1") from error


def parse_qualities(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Comma-separated numbers in [0, 1]."""
    numbers = parse_numbers(context, parameter, value)
    if not all(0.0 <= number <= 1.0 for number in numbers):
        raise click.BadParameter("qualities lie between 0 and 1")
    return numbers


def parse_codecs(context: click.Context, parameter: click.Parameter, value: str) -> list[str]:
    """Comma-separated names of codecs."""
    unknown = sorted(set(value.split(",")) - set(CODEC_NAMES))
    if unknown:
        raise click.BadParameter(f"no codec {', '.join(unknown)}; there are {', '.join(CODEC_NAMES)}")
    return value.split(",")


def read_anchors(path: Path, names: Sequence[str]) -> Anchors:
    """The chosen curves of the anchors file."""
    try:
        return load_anchors(path, names or DEFAULT_ANCHORS)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--anchors") from error


def parse_added(texts: Sequence[str], settings: Sequence[float]) -> list[CommandCodec]:
    """The codecs of --add."""
    try:
        added = [CommandCodec.parse(text, settings) for text in texts]
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--add") from error
    if taken := {codec.name for codec in added} & set(CODEC_NAMES):
        raise click.BadParameter(f"{', '.join(sorted(taken))} has another codec's name", param_hint="--add")
    return added


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--dataset", "source", type=click.Path(path_type=Path), help="Folder of any pictures.  [default: Kodak]")
@click.option("--download", is_flag=True, help="Only fetch the Kodak images, into --dataset or a cache.")
@click.option("--limit", type=click.IntRange(1), help="Take only the first pictures.")
@click.option(
    "--anchors", "anchors_path", type=click.Path(exists=True, path_type=Path), default=ANCHORS, help="Published curves."
)
@click.option("--anchor", "anchor_names", multiple=True, help="Name of a published codec in it instead of a choice.")
@click.option("--reference", help="Also compare every codec with this one of those measured.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--qualities", default=DEFAULT_QUALITIES, show_default=True, callback=parse_qualities, help="Of yoto.")
@click.option(
    "--effort", type=click.IntRange(0, MAX_EFFORT), default=DEFAULT_EFFORT, show_default=True, help="Of yoto."
)
@click.option("--codecs", "names", default=",".join(QUICK), show_default=True, callback=parse_codecs)
@click.option(
    "--add",
    "added",
    multiple=True,
    metavar="NAME:COMMAND",
    help="Any other codec: its command with {input}, a PNG, {output} and {quality}; then ' :: ' and a command with"
    " {input} and {output} to decode, unless Pillow reads the file.",
)
@click.option(
    "--add-qualities", default="10,30,50,70,90", show_default=True, callback=parse_numbers, help="Of what --add names."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="For every codec.")
@click.option("--memory/--no-memory", "with_memory", help="Measure peak memory as well.  [default: no]")
@click.option("--page/--no-page", "with_page", default=True, help="Draw curves and write report.html.  [default: yes]")
@click.option("--replace", is_flag=True, help="Drop results made with other weights, options or versions.")
@click.option(
    "--results", "folder", type=click.Path(path_type=Path), default=Path("benchmark-results"), show_default=True
)
def main(
    source: Path | None,
    download: bool,
    limit: int | None,
    anchors_path: Path,
    anchor_names: tuple[str, ...],
    reference: str | None,
    weights: Path | None,
    qualities: list[float],
    effort: int,
    names: list[str],
    added: tuple[str, ...],
    add_qualities: list[float],
    threads: int,
    with_memory: bool,
    with_page: bool,
    replace: bool,
    folder: Path,
) -> None:
    """Measure rate and quality of codecs on a set of pictures; results go to a folder and are added to."""
    commands = parse_added(added, add_qualities)
    if reference and reference not in {*CODEC_NAMES, *(codec.name for codec in commands)}:
        raise click.BadParameter(f"no codec {reference}", param_hint="--reference")
    anchors = read_anchors(anchors_path, anchor_names)
    try:
        if download:
            target = kodak_folder(source)
            download_kodak(target)
            click.echo(f"the 24 Kodak images are in {target}")
            return
        dataset = find_dataset(source)
        paths = dataset.paths[:limit]
        folder.mkdir(parents=True, exist_ok=True)
        here, shared = machine(threads), {"dataset": identity(dataset)}
        ours = None
        with limited_to(threads):
            if OURS in names:
                ours = Yoto(Codec(weights), qualities, effort=effort)
                conditions = shared | {"versions": versions(OUR_PACKAGES), "model": model(ours.codec.weights)}
                results = Results(folder / OURS_FILE, conditions, replace)
                results.note_run(command("benchmarks.run"), here)
                measure_file([ours], [], paths, weights, with_memory, results)
            peers, absent = choose_peers(names)
            if peers or absent or commands:
                results = Results(folder / PEERS_FILE, shared | {"versions": versions(PEER_PACKAGES)}, replace)
                results.note_run(command("benchmarks.run"), here)
                measure_file(peers, absent, paths, None, with_memory, results)
                measure_all(commands, paths, results)
    except (DatasetError, ResultsError, CodecError, CommandError) as error:
        raise click.ClickException(str(error)) from error
    complete = dataset.is_kodak and paths == dataset.paths
    report(folder, [path.name for path in paths], anchors if complete else None, reference)
    if ours and with_page:
        draw(folder, anchors_path if complete else None, anchor_names, dataset, ours)


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


def identity(dataset: Dataset) -> dict[str, Any]:
    """Name and hashes of the whole set of pictures, so that --limit may grow."""
    return {"name": dataset.name, "sha256": {path.name: sha256(path) for path in dataset.paths}}


def report(folder: Path, images: list[str], anchors: Anchors | None, reference: str | None) -> None:
    """Tables of all that the folder holds to stdout, what limits them, and the BD-rates to their file."""
    files = [Results(path, {}) for name in (OURS_FILE, PEERS_FILE) if (path := folder / name).exists()]
    means = [mean for results in files for mean in results.means(images)]
    rows = compare(means, anchors, reference)
    click.echo(curve_table(means))
    click.echo()
    click.echo(bd_table(rows))
    for rate in anchors.rates if anchors else ():
        click.echo(f"published: {rate.name} {rate.percent:+.2f}% against {rate.reference}")
    absent = sorted({name for results in files for name in results.extra["absent"]})
    if absent:
        click.echo(f"\nNot measured, since they are not installed here: {', '.join(absent)}.")
    ours = next((results for results in files if results.conditions["model"]), None)
    if ours:
        save_comparison(folder, ours.conditions["model"]["id"], rows, anchors.rates if anchors else ())


def draw(folder: Path, anchors: Path | None, names: Sequence[str], dataset: Dataset, ours: Yoto) -> None:
    """Curves and the page; in a results folder that holds more pictures, of all that were measured."""
    from benchmarks.html import write_page  # Matplotlib takes a second
    from benchmarks.plot import read_figures, write_files

    summary, _, figures = read_figures(folder, anchors, names)
    write_files(figures, folder / "plots")
    write_page(folder / "report.html", summary, figures, dataset, ours, PAGE_QUALITY)
    click.echo(f"\n{folder / 'report.html'} shows it")


if __name__ == "__main__":
    main()
