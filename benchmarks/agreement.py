"""Whether ONNX Runtime and torch decode the same pictures: at most one level apart on Kodak at five qualities.

    python -m benchmarks.agreement --dataset KODAK

Prints, for each quality, the largest difference and the share of samples that differ; exits with 1 above one level.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np

from benchmarks.dataset import DatasetError, find_kodak, load_rgb
from codec.api import Codec
from codec.errors import CodecError

QUALITIES = (0.0, 0.25, 0.5, 0.75, 1.0)


@click.command()
@click.option("--dataset", type=click.Path(path_type=Path), help="Folder of the 24 Kodak images.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--limit", type=click.IntRange(1), help="Only so many images.")
def main(dataset: Path | None, weights: Path | None, limit: int | None) -> None:
    """Compare the two back ends."""
    try:
        images = [load_rgb(path) for path in find_kodak(dataset)[:limit]]
        onnx, torch = (Codec(weights, backend=name) for name in ("onnx", "torch"))
    except (DatasetError, CodecError) as error:
        raise click.ClickException(str(error)) from error
    most = 0
    for quality in QUALITIES:
        largest, share = 0, []
        for image in images:
            data = onnx.encode(image, quality, effort=0)
            difference = np.abs(np.asarray(onnx.decode(data), int) - np.asarray(torch.decode(data), int))
            largest = max(largest, int(difference.max()))
            share.append(np.mean(difference > 0))
        click.echo(f"quality {quality:g}: at most {largest} level apart, {np.mean(share):.2e} of the samples differ")
        most = max(most, largest)
    sys.exit(most > 1)


if __name__ == "__main__":
    main()
