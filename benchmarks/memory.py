"""Peak memory and seconds, each step in a fresh process: how they grow with the picture, and codec against codec.

    python -m benchmarks.memory --megapixels 0.1,1,10,100 --output memory.json

The peak is that of the whole process: Python, torch where the codec needs it, model, picture and result.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

# The steps import what they need and no more: it counts.

ROOT = Path(__file__).parent.parent
PATCH_PX = 512  # small, so that making it does not set the peak
WARM_UP_PX = 64
ASPECT = 1.5
STATUS = Path("/proc/self/status")


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    if STATUS.exists():
        # Not ru_maxrss, into which Linux counts the parent's size at the fork.
        fields = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(fields["VmHWM"].split()[0]) / (1 << 10)
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


def measure(codec: str, setting: float, picture: str, weights: Path | None) -> dict[str, Any]:
    """Encode a picture and decode the file, each in a fresh process.

    Args:
        codec: name of ours or of a peer.
        setting: of that codec.
        picture: path of a picture, or WIDTH×HEIGHT of a synthetic one.
        weights: of ours.

    Returns:
        `bytes` of the file, and the figures of `report_step`, once with `encode_` and once with `decode_` before them.
    """
    options = [] if weights is None else ["--weights", str(weights.resolve())]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "file")
        figures: dict[str, Any] = {}
        for step in ("encode", "decode"):
            arguments = [f"{step}-step", codec, str(setting), picture, str(file), *options]
            figures |= {f"{step}_{name}": figure for name, figure in run_step(arguments).items()}
        return {"bytes": file.stat().st_size} | figures


def run_step(arguments: list[str]) -> dict[str, float]:
    """Run a step of this module in a fresh process; its figures."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
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
@click.option("--megapixels", default="0.1,1,10,100", show_default=True, callback=parse_sizes, help="Picture sizes.")
@click.option("--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped.")
@click.option("--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Also write the figures to this JSON file.")
@click.pass_context
def main(
    context: click.Context, megapixels: list[float], weights: Path | None, quality: float, output: Path | None
) -> None:
    """Print peak memory and seconds of encoding and decoding pictures of the given sizes."""
    if context.invoked_subcommand:
        return
    load = os.getloadavg()[0]
    click.echo("peak MiB of the process; in brackets what of it was there with the model loaded, before the picture")
    click.echo(f"{'megapixels':>10} {'size px':>13} {'bytes':>10} {'encode':>15} {'s':>7} {'decode':>15} {'s':>7}")
    rows = []
    for size in megapixels:
        height, width = picture_size(size)
        row = {"megapixels": size, "width": width, "height": height}
        row |= measure("yoto", quality, f"{width}×{height}", weights)
        shape = f"{width}×{height}"
        click.echo(
            f"{size:>10g} {shape:>13} {row['bytes']:>10} {format_step(row, 'encode')} {format_step(row, 'decode')}"
        )
        rows.append(row)
    if output:
        write_report(output, rows, quality, weights, load)


def format_step(row: dict[str, Any], step: str) -> str:
    """Peak, loaded and seconds of a step as two columns."""
    memory = f"{row[f'{step}_peak_mib']:.0f} ({row[f'{step}_loaded_mib']:.0f})"
    return f"{memory:>15} {row[f'{step}_seconds']:>7.2f}"


def write_report(output: Path, rows: list[dict[str, Any]], quality: float, weights: Path | None, load: float) -> None:
    """The JSON file."""
    from benchmarks.files import write_json
    from benchmarks.machine import OUR_PACKAGES, command, machine, model, versions
    from codec.network import weights as weights_file

    report = {
        "command": command("benchmarks.memory"),
        "machine": machine(threads=None),
        "versions": versions(OUR_PACKAGES),
        "model": model(weights_file.load(weights)),
        "load_before": load,
        "quality": quality,
        "rows": rows,
    }
    write_json(output, report)


def load_codec(name: str, weights: Path | None) -> Any:
    """Ours or a peer."""
    if name == "yoto":
        from benchmarks.codecs import Yoto
        from codec.api import Codec

        return Yoto(Codec(weights))
    from codec.peers import choose_peers

    (peer,), _ = choose_peers([name])
    return peer


def load_warm(name: str, setting: float, weights: Path | None) -> Any:
    """A codec whose first call is behind it: that one loads libraries and builds tables."""
    codec = load_codec(name, weights)
    codec.decode(codec.encode(synthetic_picture(WARM_UP_PX, WARM_UP_PX), setting))
    return codec


def load_picture(name: str) -> Any:
    """A file's pixels, or a synthetic picture, as uint8 (H, W, 3)."""
    if "×" in name and not Path(name).exists():
        width, height = name.split("×")
        return synthetic_picture(int(height), int(width))
    import numpy as np
    from PIL import Image

    with Image.open(name) as image:
        return np.asarray(image.convert("RGB"))


arguments = (
    click.argument("name"),
    click.argument("setting", type=float),
    click.argument("picture"),
    click.argument("file", type=click.Path(path_type=Path)),
    click.option("--weights", type=click.Path(path_type=Path)),
)


def step(function: Any) -> Any:
    """Make a hidden command of a step."""
    for argument in reversed(arguments):
        function = argument(function)
    return main.command(hidden=True)(function)


@step
def encode_step(name: str, setting: float, picture: str, file: Path, weights: Path | None) -> None:
    """In a fresh process: load a codec, take a picture, encode it."""
    codec = load_warm(name, setting, weights)
    loaded = peak_mib()
    image = load_picture(picture)
    start = time.perf_counter()
    data = codec.encode(image, setting)
    report_step(loaded, time.perf_counter() - start)
    file.write_bytes(data)


@step
def decode_step(name: str, setting: float, picture: str, file: Path, weights: Path | None) -> None:
    """In a fresh process: load a codec, decode a file."""
    codec = load_warm(name, setting, weights)
    loaded = peak_mib()
    data = file.read_bytes()
    start = time.perf_counter()
    codec.decode(data)
    report_step(loaded, time.perf_counter() - start)


def report_step(loaded: float, seconds: float) -> None:
    """Tell the parent: the peak, what of it the loaded codec took, and the seconds of the call."""
    click.echo(json.dumps({"loaded_mib": loaded, "peak_mib": peak_mib(), "seconds": seconds}))


if __name__ == "__main__":
    main()
