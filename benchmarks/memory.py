"""Peak memory and seconds for large pictures, each step in a fresh process.

    python -m benchmarks.memory --megapixels 1,10,100 --weights FILE

The peak is that of the whole process: Python, torch, model, picture and result.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

# The parent imports neither torch nor NumPy: Linux counts its size at the fork into the peak of the child.

PATCH_PX = 512  # small, so that making it does not set the peak
ASPECT = 1.5


def peak_mib() -> float:
    """Largest resident size of this process so far; ru_maxrss is in KiB, on macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def picture_size(megapixels: float) -> tuple[int, int]:
    """Height and width of a picture of so many pixels."""
    width = round((megapixels * 1e6 * ASPECT) ** 0.5)
    return max(1, round(megapixels * 1e6 / width)), width


def synthetic_picture(height: int, width: int, seed: int = 0) -> Any:
    """A picture with the spectrum of photographs, uint8 (H, W, 3): one patch of 1/f noise, tiled in place."""
    import numpy as np

    frequency = np.hypot(np.fft.fftfreq(PATCH_PX)[:, None], np.fft.rfftfreq(PATCH_PX)[None])
    frequency[0, 0] = 1.0
    noise = np.random.default_rng(seed).standard_normal((3, PATCH_PX, PATCH_PX))
    smooth = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.2, s=(PATCH_PX, PATCH_PX))
    smooth *= 45.0 / smooth.std(axis=(1, 2), keepdims=True)
    # Shared by the channels for the most part, as in photographs; 5 for grain.
    mixed = 0.9 * smooth[:1] + 0.3 * smooth + np.random.default_rng(seed + 1).normal(0.0, 5.0, smooth.shape)
    patch = np.clip(128.0 + mixed, 0.0, 255.0).astype(np.uint8).transpose(1, 2, 0)
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, PATCH_PX):
        for left in range(0, width, PATCH_PX):
            part = picture[top : top + PATCH_PX, left : left + PATCH_PX]
            part[:] = patch[: part.shape[0], : part.shape[1]]
    return picture


def run_step(arguments: list[str]) -> dict[str, float]:
    """Run a step of this module in a fresh process; its figures."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["killed, most likely for want of memory"]
        raise click.ClickException(f"{arguments[0]} ended with status {done.returncode}: {reason[0]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def parse_sizes(context: click.Context, parameter: click.Parameter, value: str) -> list[float]:
    """Comma-separated positive numbers."""
    try:
        sizes = [float(part) for part in value.split(",")]
    except ValueError as error:
        raise click.BadParameter(f"{value} is no list of numbers such as 1,10") from error
    if min(sizes) <= 0.0:
        raise click.BadParameter("sizes are positive")
    return sizes


@click.group(invoke_without_command=True)
@click.option("--megapixels", default="1,10,100", show_default=True, callback=parse_sizes, help="Sizes of pictures.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.pass_context
def main(context: click.Context, megapixels: list[float], weights: Path | None, quality: float) -> None:
    """Print peak memory and seconds of encoding and decoding pictures of the given sizes."""
    if context.invoked_subcommand:
        return
    shipped = [] if weights is None else ["--weights", str(weights.resolve())]
    click.echo("peak MiB of the process; in brackets what of it was there with the model loaded, before the picture")
    click.echo(f"{'megapixels':>10} {'size px':>13} {'bytes':>10} {'encode':>15} {'s':>7} {'decode':>15} {'s':>7}")
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "picture.yoto"))
        for size in megapixels:
            height, width = picture_size(size)
            encode = run_step(["encode-step", file, str(height), str(width), str(quality), *shipped])
            decode = run_step(["decode-step", file, *shipped])
            shape = f"{width}×{height}"
            start = f"{size:>10g} {shape:>13} {Path(file).stat().st_size:>10}"
            click.echo(f"{start} {format_step(encode)} {format_step(decode)}")


def format_step(step: dict[str, float]) -> str:
    """Peak, loaded and seconds of a step as two columns."""
    memory = f"{step['peak_mib']:.0f} ({step['loaded_mib']:.0f})"
    return f"{memory:>15} {step['seconds']:>7.2f}"


@main.command(hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("height", type=int)
@click.argument("width", type=int)
@click.argument("quality", type=float)
@click.option("--weights", type=click.Path(path_type=Path))
def encode_step(file: Path, height: int, width: int, quality: float, weights: Path | None) -> None:
    """In a fresh process: make a picture, encode it."""
    from codec.api import Codec

    codec = Codec(weights)
    loaded = peak_mib()
    picture = synthetic_picture(height, width)
    start = time.perf_counter()
    data = codec.encode(picture, quality)
    report_step(loaded, time.perf_counter() - start)
    file.write_bytes(data)


@main.command(hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path))
def decode_step(file: Path, weights: Path | None) -> None:
    """In a fresh process: decode a file."""
    from codec.api import Codec

    codec = Codec(weights)
    loaded = peak_mib()
    data = file.read_bytes()
    start = time.perf_counter()
    codec.decode(data, max_pixels=sys.maxsize)
    report_step(loaded, time.perf_counter() - start)


def report_step(loaded: float, seconds: float) -> None:
    """Tell the parent."""
    click.echo(json.dumps({"loaded_mib": loaded, "peak_mib": peak_mib(), "seconds": seconds}))


if __name__ == "__main__":
    main()
