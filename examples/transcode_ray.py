"""Transcode a collection of pictures to `.yoto` on a cluster, with Ray Data.

    pip install 'yoto-codec[ray]'
    python examples/transcode_ray.py PICTURES OUTPUT --quality 0.4              # starts Ray on this machine
    python examples/transcode_ray.py PICTURES OUTPUT --address auto             # joins the cluster it is run on
    python examples/transcode_ray.py s3://bucket/in s3://bucket/coded           # needs s3fs on every node

Both folders must be reachable from every node under the same path or URL (whatever fsspec knows), and yoto-codec
installed there. The tree of folders is kept, and `.yoto` appended to every name. A pool of actors codes on one CPU
each; each loads the model once and reads its own files, so that nothing but paths and results travels.

What goes wrong is kept apart. A picture that cannot be coded is recorded and not tried again. If a worker dies, by
lack of memory or loss of a node, Ray starts another and gives it the same files; files are written whole or not at all,
so doing one twice is harmless. A group of files that kills its workers repeatedly is tried again file by file, so
that only the guilty one fails.

manifest.jsonl, in OUTPUT or, where that is a URL, in the current folder, has a line for every picture, as soon as it
is done: source, output, bytes, bpp, seconds, error. The exit code is 1 if any has an error. Without Ray, `yoto-codec
encode --shard i/n` divides a folder among machines.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import ray
import ray.data

from codec.app.files import write_output
from codec.errors import CodecError
from codec.format.bitstream import unpack
from codec.picture.url import Url, locate

MANIFEST = "manifest.jsonl"
FILES_PER_TASK = 16  # what is done again if a worker dies
TASK_RETRIES = 2


class Transcoder:
    """A worker: a loaded model that turns one file after the other into a `.yoto` file.

    Args:
        weights: path of a weights file, None for the one that is shipped.
        quality: 0 (fewest bits) to 1.
    """

    def __init__(self, weights: str | None, quality: float) -> None:
        import torch

        from codec.api import Codec

        torch.set_num_threads(1)  # the CPU that Ray reserves for it
        self.codec = Codec(weights)
        self.quality = quality

    def __call__(self, row: dict[str, str]) -> dict[str, object]:
        """Code the file `source` into the file `output`; return its line of the manifest."""
        start = time.perf_counter()
        try:
            data = self.transcode(row["source"], locate(row["output"]))
        except (CodecError, OSError) as error:
            return failure(row, str(error))
        seconds = time.perf_counter() - start
        return row | {"bytes": len(data), "bpp": unpack(data).bpp, "seconds": round(seconds, 4), "error": None}

    def transcode(self, source: str, output: Path | Url) -> bytes:
        """Write and return the `.yoto` file of a picture."""
        data = self.codec.encode(source, self.quality)
        if isinstance(output, Path):
            output.parent.mkdir(parents=True, exist_ok=True)
        write_output(output, data)
        return data


def failure(row: dict[str, str], error: str) -> dict[str, object]:
    """The manifest's line of a picture that has no output."""
    return row | {"bytes": None, "bpp": None, "seconds": None, "error": error}


def transcode_all(
    rows: Iterable[dict[str, str]], weights: str | None, quality: float, workers: int
) -> Iterator[dict[str, object]]:
    """Code every row's `source` into its `output`; yield the manifest's lines as they come, in any order."""
    ray.data.DataContext.get_current().max_errored_blocks = -1  # the rest goes on
    pending = {row["source"]: row for row in rows}
    for files_per_task in (FILES_PER_TASK, 1):
        if not pending:
            return
        tasks = -(-len(pending) // files_per_task)
        dataset = ray.data.from_items(list(pending.values()), override_num_blocks=tasks).map(
            Transcoder,
            fn_constructor_args=(weights, quality),
            # One task at a time each, because one that kills its worker takes with it those that wait there.
            compute=ray.data.ActorPoolStrategy(size=min(workers, tasks), max_tasks_in_flight_per_actor=1),
            num_cpus=1,
            max_task_retries=TASK_RETRIES,
        )
        for result in dataset.iter_rows():
            del pending[result["source"]]
            yield result
        # Errors of tasks that failed lead, in circles, to the actors that they ran on, which keep their CPUs: the
        # second pool waited up to half a minute for them.
        del dataset
        gc.collect()
    for row in pending.values():
        yield failure(row, "its workers died or failed unexpectedly; Ray's log says how")


def parse_folder(_: click.Context, __: click.Parameter, text: str) -> Path | Url:
    """A URL, or a path that holds on every node."""
    place = locate(text)
    return place.resolve() if isinstance(place, Path) else place


def find(pictures: Path | Url, pattern: str, output: Path | Url) -> list[str]:
    """The files below a folder, by their paths from there."""
    if isinstance(pictures, Url):
        return pictures.files(pattern)
    if not pictures.is_dir():
        raise click.BadParameter(f"{pictures} is no folder")
    found = [path for path in pictures.glob(pattern) if path.is_file()]
    if isinstance(output, Path):
        found = [path for path in found if not path.is_relative_to(output)]
    return sorted(str(path.relative_to(pictures)) for path in found)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("pictures", callback=parse_folder)
@click.argument("output", callback=parse_folder)
@click.option("--pattern", default="**/*", show_default=True, help="Which files below PICTURES.")
@click.option("-q", "--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.option("--weights", type=click.Path(path_type=Path, exists=True, dir_okay=False, resolve_path=True))
@click.option("--workers", type=click.IntRange(1), help="At most so many; default: the cluster's CPUs.")
@click.option("--address", help="Of a running cluster, such as auto; default: start Ray here.")
def main(
    pictures: Path | Url,
    output: Path | Url,
    pattern: str,
    quality: float,
    weights: Path | None,
    workers: int | None,
    address: str | None,
) -> None:
    """Transcode the files below PICTURES to .yoto files below OUTPUT."""
    names = find(pictures, pattern, output)
    if not names:
        raise click.ClickException(f"{pictures}: no file matches {pattern}")
    rows = [{"source": str(pictures / name), "output": str(output / f"{name}.yoto")} for name in names]
    if not ray.is_initialized():
        ray.init(address=address)
    folder = output if isinstance(output, Path) else Path()
    folder.mkdir(parents=True, exist_ok=True)
    workers = workers or int(ray.cluster_resources()["CPU"])
    failed = 0
    with (folder / MANIFEST).open("w") as manifest:
        for result in transcode_all(rows, str(weights) if weights else None, quality, workers):
            manifest.write(json.dumps(result) + "\n")
            manifest.flush()
            failed += result["error"] is not None
    click.echo(f"{len(names) - failed} of {len(names)} pictures coded; see {folder / MANIFEST}")
    if failed:
        raise click.ClickException(f"{failed} failed")


if __name__ == "__main__":
    main()
