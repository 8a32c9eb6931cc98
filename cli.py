"""The command `yoto-codec`: parse, call `codec`, print. Imports torch only where pixels are coded."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from codec.bitstream import DEFAULT_MAX_PIXELS, QUALITY_MAX, Region, unpack
from codec.errors import CodecError

if TYPE_CHECKING:
    from codec.api import Codec
    from codec.damage import Damage

STREAM = Path("-")
F = TypeVar("F", bound=Callable[..., Any])


def one_line_errors(command: F) -> F:
    """Turn errors of data and files into one line on stderr and exit code 1."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except CodecError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{name}{error.strerror or error}") from error
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "allocate" not in str(error):  # how torch says it
                raise
            raise click.ClickException("not enough memory for this image") from error

    return wrapper  # type: ignore[return-value]


def read_input(path: Path) -> bytes:
    """All bytes of a file, or of standard input for `-`."""
    return sys.stdin.buffer.read() if path == STREAM else path.read_bytes()


def output_path(given: Path | None, source: Path, suffix: str, force: bool) -> Path:
    """The path to write: the one given, else the input's with another suffix; refuse to overwrite."""
    path = given or (STREAM if source == STREAM else source.with_suffix(suffix))
    if path != STREAM and path.exists() and not force:
        raise click.ClickException(f"{path} exists; give --force to overwrite it")
    return path


def write_output(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename."""
    if path == STREAM:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():  # a device such as /dev/null cannot be replaced
        path.write_bytes(data)
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_codec(weights: Path | None, device: str) -> Codec:
    from codec.api import Codec

    return Codec(weights, device)


weights_option = click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped."
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where the transforms run: cpu or cuda."
)
output_option = click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write; - for stdout.")
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite the output.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="yoto-codec")
def main() -> None:
    """Compress images with one learned model, at any quality."""


def report(fields: dict[str, object], text: str, as_json: bool, to_stderr: bool) -> None:
    """Print a result; on stderr if the data itself goes to stdout."""
    click.echo(json.dumps(fields) if as_json else text, err=to_stderr)


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("target", metavar="[OUT]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "-q", "--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True, help="0 (fewest bits) to 1."
)
@output_option
@force_option
@click.option("--metrics", is_flag=True, help="Decode again and print the PSNR.")
@click.option("--strip", is_flag=True, help="Leave out ICC profile, Exif and XMP.")
@json_option
@weights_option
@device_option
@one_line_errors
def encode(
    source: Path,
    target: Path | None,
    quality: float,
    output: Path | None,
    force: bool,
    metrics: bool,
    strip: bool,
    as_json: bool,
    weights: Path | None,
    device: str,
) -> None:
    """Compress the image IN to a .yoto file."""
    path = output_path(single_output(target, output), source, ".yoto", force)
    stream = read_input(source) if source == STREAM else None
    if stream is None and not source.is_file():
        raise click.ClickException(f"{source}: no such file")

    from io import BytesIO

    from codec.image import open_image, psnr_db, to_planes

    image = open_image(source if stream is None else BytesIO(stream))
    codec = load_codec(weights, device)
    start = time.perf_counter()
    data = codec.encode(image, quality, keep_metadata=not strip)
    seconds = time.perf_counter() - start
    header = unpack(data, sys.maxsize)
    fields: dict[str, object] = {
        "output": str(path),
        "bytes": len(data),
        "bpp": round(header.bpp, 5),
        "width": header.width,
        "height": header.height,
        "quality": quality,
        "seconds": round(seconds, 3),
    }
    text = f"{path}: {len(data)} bytes, {header.bpp:.4f} bpp, {seconds:.2f} s"
    if metrics:
        decoded = codec.decode(data, max_pixels=sys.maxsize)
        psnr = psnr_db(to_planes(image).colour, to_planes(decoded).colour)
        fields["psnr_db"] = round(psnr, 3) if psnr != float("inf") else None
        text += f", PSNR {psnr:.2f} dB"
    write_output(path, data)
    report(fields, text, as_json, path == STREAM)


def single_output(target: Path | None, output: Path | None) -> Path | None:
    """The output may be given as an argument or as an option, not as both."""
    if target is not None and output is not None:
        raise click.UsageError("the output is given twice")
    return target or output


def parse_region(context: click.Context, parameter: click.Parameter, value: str | None) -> Region | None:
    """The four numbers of --region."""
    if value is None:
        return None
    try:
        x, y, width, height = (int(number) for number in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{value}' is no region such as 0,0,640,480") from error
    return x, y, width, height


def report_damage(damage: list[Damage]) -> None:
    """Name what is missing in the output, one line each on stderr, and exit with 1 if anything is."""
    for part in damage:
        x, y, width, height = part.region or (0, 0, 0, 0)
        place = f"Damaged: x {x}, y {y}, {width}×{height} px: " if part.region else "Damaged: "
        click.echo(place + part.reason, err=True)
    if damage:
        sys.exit(1)


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, allow_dash=True))
@click.argument("target", metavar="[OUT]", required=False, type=click.Path(path_type=Path, allow_dash=True))
@output_option
@force_option
@click.option("--region", metavar="X,Y,W,H", callback=parse_region, help="Decode these pixels only.")
@click.option("--partial", is_flag=True, help="Write what is left of a damaged file; exit with 1 if it is damaged.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=DEFAULT_MAX_PIXELS, show_default=True, help="Refuse more."
)
@json_option
@weights_option
@device_option
@one_line_errors
def decode(
    source: Path,
    target: Path | None,
    output: Path | None,
    force: bool,
    region: Region | None,
    partial: bool,
    max_pixels: int,
    as_json: bool,
    weights: Path | None,
    device: str,
) -> None:
    """Decompress the .yoto file IN, to PNG or what the output's suffix says."""
    path = output_path(single_output(target, output), source, ".png", force)
    data = read_input(source)
    header = unpack(data, max_pixels, whole=not partial)  # errors that need no weights come before importing torch
    if region:
        try:
            header.check_region(region)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--region") from error

    from codec.image import save_image

    codec = load_codec(weights, device)
    start = time.perf_counter()
    damage: list[Damage] = []
    if partial:
        image, damage = codec.decode_partial(data, region=region, max_pixels=max_pixels)
    else:
        image = codec.decode(data, region=region, max_pixels=max_pixels)
    seconds = time.perf_counter() - start
    write_output(path, save_image(image, ".png" if path == STREAM else path.suffix))
    fields: dict[str, object] = {
        "output": str(path),
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "seconds": round(seconds, 3),
    }
    text = f"{path}: {image.width}×{image.height} px, {image.mode}, {seconds:.2f} s"
    report(fields, text, as_json, path == STREAM)
    report_damage(damage)


@main.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path, allow_dash=True))
@json_option
@one_line_errors
def info(source: Path, as_json: bool) -> None:
    """Print what the header of a .yoto file says, without loading the model."""
    header = unpack(read_input(source), sys.maxsize)
    fields: dict[str, object] = {
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "quality": round(header.quality / QUALITY_MAX, 5),
        "model": header.model_id.hex(),
        "tile_px": header.tile_px,
        "tiles": len(header.tiles),
        "metadata_bytes": header.metadata_section.length if header.metadata_section else 0,
        "alpha_bytes": header.alpha_section.length if header.alpha_section else 0,
        "bytes": header.size_bytes,
        "bpp": round(header.bpp, 5),
    }
    report(fields, "\n".join(f"{name}: {value}" for name, value in fields.items()), as_json, False)


@main.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
@weights_option
@device_option
@one_line_errors
def demo(output: Path, weights: Path | None, device: str) -> None:
    """Encode and decode a picture that scikit-image brings along, at three qualities."""
    import skimage.data

    from codec.image import psnr_db, save_image, to_pil, to_planes

    original = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    output.mkdir(parents=True, exist_ok=True)
    write_output(output / "original.png", save_image(to_pil(to_planes(original)), ".png"))
    codec = load_codec(weights, device)
    click.echo(f"astronaut, {original.shape[1]}×{original.shape[0]} px; the original is {output / 'original.png'}")
    for quality in (0.1, 0.4, 0.8):
        data = codec.encode(original, quality)
        decoded = codec.decode(data)
        stem = output / f"quality-{quality}"
        write_output(stem.with_name(stem.name + ".yoto"), data)
        write_output(stem.with_name(stem.name + ".png"), save_image(decoded, ".png"))
        bpp = unpack(data).bpp
        psnr = psnr_db(original, to_planes(decoded).colour)
        click.echo(
            f"quality {quality}: {len(data):6d} bytes, {bpp:.3f} bpp, {psnr:.2f} dB PSNR, {stem}.yoto and {stem}.png"
        )


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
@click.pass_context
def benchmark(context: click.Context) -> None:
    """Measure rate and quality against other codecs; needs a clone of the repository and the extra "bench"."""
    root = Path(__file__).parent
    if not (root / "benchmarks" / "run.py").is_file():
        raise click.ClickException(
            "the benchmarks are not in the wheel: clone the repository, pip install -e '.[bench]'"
        )
    sys.path.insert(0, str(root))
    try:
        run = import_module("benchmarks.run")
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed: pip install -e '.[bench]'") from error
    run.main(context.args, prog_name=context.command_path)


if __name__ == "__main__":
    main()
