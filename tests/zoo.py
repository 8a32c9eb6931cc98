"""Synthetic pictures that are no photographs, each hard in its own way.

    python -m tests.zoo --effort 0 --effort 1 --effort 2 --effort 4

encodes every one at 17 qualities and each effort with the shipped weights, decodes the files, which checks all integers
against the encoder's, and prints the PSNR. Exits with 1 if a file does not decode, if PSNR falls by more than a trifle
as quality rises, or is below 38 dB at quality 1.
"""

from __future__ import annotations

import math
import sys
from itertools import pairwise

import click
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from codec.api import Codec, default_codec
from codec.encoder import DEFAULT_EFFORT, MAX_EFFORT
from codec.errors import CodecError
from codec.metrics import psnr_db

Picture = npt.NDArray[np.uint8]
SIDE = 96
QUALITIES = tuple(i / 16 for i in range(17))
LEAST_DB = 38.0  # at quality 1
SLACK_DB = 0.35  # by which PSNR may fall where it is no more than CLEAR_DB, beyond which nothing shows
CLEAR_DB = 45.0


def grey(values: npt.NDArray[np.generic]) -> Picture:
    """A grey picture in three channels."""
    return np.clip(values, 0, 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)


def lines(angle: float, period: float) -> Picture:
    """Anti-aliased lines at an angle, degrees, so many px apart."""
    y, x = np.mgrid[:SIDE, :SIDE]
    across = x * math.cos(math.radians(angle)) + y * math.sin(math.radians(angle))
    distance = np.abs((across / period) % 1.0 - 0.5) * period
    return grey(255 * np.clip(distance - 0.3, 0, 1))


def text(size: int) -> Picture:
    """Lines of letters, as large as a bitmap font allows."""
    image = Image.new("L", (SIDE, SIDE), 255)
    draw = ImageDraw.Draw(image)
    for i in range(SIDE // (size + 2)):
        draw.text((2, i * (size + 2)), f"{i} The quick brown fox"[: SIDE // 5], 0, ImageFont.load_default(size))
    return grey(np.asarray(image))


def dither(kind: str) -> Picture:
    """A ramp in black and white: thresholds of Bayer's matrix, random ones, or error diffusion."""
    ramp = np.tile(np.linspace(0, 255, SIDE), (SIDE, 1))
    if kind == "diffused":
        return grey(np.asarray(Image.fromarray(ramp.astype(np.uint8)).convert("1")) * 255.0)
    if kind == "random":
        return grey(255.0 * (ramp > np.random.default_rng(1).uniform(0, 255, ramp.shape)))
    bayer = np.array([[0]])
    for _ in range(3):
        bayer = np.block([[4 * bayer, 4 * bayer + 2], [4 * bayer + 3, 4 * bayer + 1]])
    return grey(255.0 * (ramp > np.tile(bayer, (SIDE // 8, SIDE // 8)) * 4 + 2))


def zoo() -> dict[str, Picture]:
    """All pictures by name, uint8 (H, W, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    pictures = {f"flat {level}": np.full((SIDE, SIDE, 3), level, np.uint8) for level in (0, 77, 255)}
    pictures["flat colour"] = np.full((SIDE, SIDE, 3), (255, 0, 128), np.uint8)
    pictures["ramp across"] = grey(255.0 * x / SIDE)
    pictures["ramp aslant"] = grey(255.0 * (x + y) / (2 * SIDE))
    pictures["ramp of colours"] = np.stack([2 * x, 2 * y, 255 - x - y], axis=2).astype(np.uint8)
    for px in (1, 2, 3):
        pictures[f"checkerboard {px}"] = grey(255 * ((x // px + y // px) % 2))
    pictures["checkerboard faint"] = grey(120 + 16 * ((x + y) % 2))
    pictures["checkerboard of colours"] = np.where(((x + y) % 2)[:, :, None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    pictures["stripes 1"] = grey(255 * (x % 2))
    pictures |= {f"lines {angle}": lines(angle, 7.0) for angle in (0, 30, 45, 67, 90)}
    pictures |= {f"dither {kind}": dither(kind) for kind in ("ordered", "random", "diffused")}
    pictures |= {f"text {size}": text(size) for size in (9, 20)}
    pictures |= {f"noise {amplitude}": grey(128 + rng.normal(0, amplitude, x.shape)) for amplitude in (2, 8, 25)}
    pictures["noise binary"] = grey(255 * rng.integers(0, 2, x.shape))
    pictures["noise of colours"] = rng.integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    pictures["noise coarse"] = (
        rng.integers(0, 256, (SIDE // 4, SIDE // 4, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    )
    pictures["disc"] = grey(255 * (np.hypot(x - 48, y - 48) < 30))
    pictures["impulse"] = grey(255 * ((x == 48) & (y == 48)))
    pictures["one row"] = rng.integers(0, 256, (1, 200, 3)).astype(np.uint8)
    pictures["one column"] = grey(np.arange(200)[:, None])
    pictures["one pixel"] = np.array([[[200, 30, 90]]], np.uint8)
    return pictures


def tried(codec: Codec, picture: Picture, effort: int) -> list[float]:
    """PSNR at each quality, dB; nan where the file does not decode."""
    found = []
    for quality in QUALITIES:
        data = codec.encode(picture, quality, effort=effort)
        try:
            found.append(psnr_db(picture, np.asarray(codec.decode(data))))
        except CodecError as error:
            click.echo(f"quality {quality:.4g}, effort {effort}: {error}", err=True)
            found.append(math.nan)
    return found


def dips(found: list[float]) -> list[tuple[float, float]]:
    """Quality, and by how many dB PSNR falls up to the next, as far as it shows."""
    seen = [min(value, CLEAR_DB) for value in found]
    return [(quality, a - b) for quality, (a, b) in zip(QUALITIES, pairwise(seen), strict=False) if b < a]


def good(found: list[float]) -> bool:
    """Whether all decode, none is worse than a lower quality's, and the last is good."""
    return not any(map(math.isnan, found)) and all(by <= SLACK_DB for _, by in dips(found)) and found[-1] >= LEAST_DB


@click.command()
@click.option(
    "efforts",
    "--effort",
    type=click.IntRange(0, MAX_EFFORT),
    multiple=True,
    default=(DEFAULT_EFFORT,),
    show_default=True,
)
def main(efforts: tuple[int, ...]) -> None:
    """Try all, on the shipped weights."""
    codec, failed, worst = default_codec(), 0, 0.0
    click.echo(f"{'':40} PSNR at quality 0, 1/16 … 1, dB; where it falls, by how much")
    for name, picture in zoo().items():
        for effort in efforts:
            found = tried(codec, picture, effort)
            fallen = dips(found)
            failed += not good(found)
            worst = max([worst, *(by for _, by in fallen)])
            line = " ".join(f"{value:5.1f}" for value in found)
            notes = ", ".join(f"-{by:.2f} from {quality:.4g}" for quality, by in fallen)
            click.echo(f"{'ok  ' if good(found) else 'FAIL'} {name:24} effort {effort}  {line}  {notes}".rstrip())
    count = len(zoo()) * len(efforts)
    click.echo(f"{count * len(QUALITIES)} files, {failed} of {count} rows failed; the largest fall is {worst:.2f} dB")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
