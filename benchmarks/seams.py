"""Do tiles leave seams? The error beside the borders of small tiles, against the error elsewhere.

    python -m benchmarks.seams --dataset KODAK

Every picture is coded in tiles and in one piece. What lies near the borders is by chance easier or harder than the
rest, so the PSNR of the pieces is taken relative to that of the whole: a seam is what the borders lose more.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import numpy.typing as npt

from benchmarks.dataset import DatasetError, find_images, load_rgb
from codec.api import Codec
from codec.format.bitstream import TILE_UNIT_PX
from codec.picture.image import Uint8Array, to_planes

BORDER_PX = 16  # to either side
LIMIT_DB = 0.05


class Seam(NamedTuple):
    """PSNR that tiles cost beside their borders and elsewhere, dB; negative: lost."""

    border_db: float
    elsewhere_db: float

    @property
    def excess_db(self) -> float:
        """What the borders lose more than the rest; below zero if it is less."""
        return self.elsewhere_db - self.border_db


def border_mask(height: int, width: int, tile_px: int) -> npt.NDArray[np.bool_]:
    """Pixels within BORDER_PX of a border between two tiles."""

    def near(side: int) -> npt.NDArray[np.bool_]:
        borders = np.arange(tile_px, side, tile_px)
        distance = np.arange(side)[:, None] - borders
        return ((distance >= -BORDER_PX) & (distance < BORDER_PX)).any(axis=1)

    return near(height)[:, None] | near(width)


def squared_errors(original: Uint8Array, decoded: Uint8Array, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Sums of squared errors beside borders and elsewhere."""
    squares = np.square(original.astype(np.float64) - decoded).sum(axis=2)
    return np.array([squares[mask].sum(), squares[~mask].sum()])


def measure(codec: Codec, pictures: list[Uint8Array], quality: float, tile_px: int) -> Seam:
    """The seam over all pictures, which are larger than a tile."""
    tiled, whole = np.zeros(2), np.zeros(2)
    for picture in pictures:
        mask = border_mask(*picture.shape[:2], tile_px)
        one_px = -(-max(picture.shape) // TILE_UNIT_PX) * TILE_UNIT_PX
        for total, px in ((tiled, tile_px), (whole, one_px)):
            decoded = to_planes(codec.decode(codec.encode(picture, quality, tile_px=px))).colour
            total += squared_errors(picture, decoded, mask)
    return Seam(*(10.0 * np.log10(whole / tiled)).tolist())


@click.command()
@click.option("--dataset", type=click.Path(exists=True, path_type=Path), required=True, help="Folder of pictures.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--tile-px", type=click.IntRange(64), default=256, show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Use the first so many pictures only.")
@click.option("--quality", "qualities", multiple=True, type=click.FloatRange(0.0, 1.0), default=(0.1, 0.5, 0.9))
def main(dataset: Path, weights: Path | None, tile_px: int, limit: int | None, qualities: tuple[float, ...]) -> None:
    """Print what tiles cost beside their borders and elsewhere; exit with 1 beyond 0.05 dB."""
    try:
        pictures = [load_rgb(path) for path in find_images(dataset)[:limit]]
    except DatasetError as error:
        raise click.ClickException(str(error)) from error
    codec = Codec(weights)
    click.echo(f"{len(pictures)} pictures, tiles of {tile_px} px against one tile; PSNR lost, dB")
    click.echo(f"{'quality':>7} {f'within {BORDER_PX} px':>13} {'elsewhere':>10} {'difference':>11}")
    worst = 0.0
    for quality in qualities:
        seam = measure(codec, pictures, quality, tile_px)
        worst = max(worst, seam.excess_db)
        click.echo(f"{quality:>7g} {-seam.border_db:>13.4f} {-seam.elsewhere_db:>10.4f} {seam.excess_db:>11.4f}")
    if worst > LIMIT_DB:
        raise click.ClickException(f"the borders lose {worst:.3f} dB more than the rest; the limit is {LIMIT_DB} dB")


if __name__ == "__main__":
    main()
