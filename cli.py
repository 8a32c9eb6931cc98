"""The command `yoto-codec`: parse, call `codec`, print. Imports torch only where pixels are coded."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial, wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from codec.app.arguments import (
    Many,
    device_option,
    folder_of_many,
    force_option,
    inputs_argument,
    json_option,
    loudness_options,
    many_options,
    output_option,
    parse_levels,
    parse_region,
    parse_suffix,
    rate_options,
    single,
    weights_option,
)
from codec.app.files import STREAM, plan, read_input, write_output
from codec.app.reports import report, report_skipped, run_many, warn
from codec.errors import explain
from codec.format.bitstream import DEFAULT_MAX_PIXELS, QUALITY_MAX, Region, unpack

if TYPE_CHECKING:
    from codec.api import Codec
    from codec.decoder import Damage

F = TypeVar("F", bound=Callable[..., Any])


def one_line_errors(command: F) -> F:
    """Turn errors of data and files into one line on stderr and exit code 1."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            raise click.ClickException(message) from error

    return wrapper  # type: ignore[return-value]


def load_codec(weights: Path | None, device: str) -> Codec:
    from codec.api import Codec

    return Codec(weights, device)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="yoto-codec")
def main() -> None:
    """Compress images with one learned model, at any quality."""


@main.command()
@inputs_argument
@rate_options
@click.option("--effort", type=click.IntRange(0, 8), default=1, show_default=True, help="More: smaller, slower.")
@click.option("--levels", callback=parse_levels, metavar="LOW:HIGH", help="Values of black and white in 16-bit images.")
@output_option
@force_option
@many_options
@click.option("--metrics", is_flag=True, help="Decode again and print the PSNR.")
@click.option("--strip", is_flag=True, help="Leave out ICC profile, Exif and XMP.")
@json_option
@loudness_options
@weights_option
@device_option
@one_line_errors
def encode(
    inputs: tuple[Path, ...],
    quality: float,
    target: dict[str, float] | None,
    effort: int,
    levels: tuple[float, float] | None,
    output: Path | None,
    force: bool,
    many: Many,
    metrics: bool,
    strip: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    weights: Path | None,
    device: str,
) -> None:
    """Compress the image IN to a .yoto file, or many images, folders and quoted patterns to a folder, -o OUT."""
    if folder := folder_of_many(inputs, output):
        if metrics:
            raise click.UsageError("--metrics is for one input")
        from codec.app.batch import EncodeOptions, FileEncoder
        from codec.picture.image import readable_suffixes

        tasks = plan(inputs, folder, ".yoto", readable_suffixes(), recursive=many.recursive)
        options = EncodeOptions(quality, target, effort, not strip, levels)
        work = FileEncoder(load_codec(weights, device), options)
        run_many(tasks, work, many, force=force, as_json=as_json, verbose=verbose, quiet=quiet)
        return
    source, path = single(inputs, output, ".yoto", force, many)
    if many.skip_existing and path.exists():
        report_skipped(path, as_json, quiet)
        return
    stream = read_input(source) if source == STREAM else None
    if stream is None and not source.is_file():
        raise click.ClickException(f"{source}: no such file")

    from io import BytesIO

    from codec.app.batch import EncodeOptions, encode_image
    from codec.picture.image import open_image

    image = open_image(source if stream is None else BytesIO(stream), levels=levels)
    options = EncodeOptions(quality, target, effort, not strip, levels, metrics)
    encoded = encode_image(load_codec(weights, device), image, options)
    write_output(path, encoded.data)
    warn(encoded.notes, quiet)
    if verbose:
        mode, tiles, model = encoded.header.mode, len(encoded.header.tiles), encoded.header.model_id.hex()
        click.echo(f"{mode}, tiles: {tiles}, qualities tried: {encoded.encodes}, weights: {model}", err=True)
    if not quiet:
        fields = {"output": str(path), **encoded.fields}
        report(fields, f"{path}: {encoded}", as_json, path == STREAM)


def report_damage(damage: list[Damage]) -> None:
    """Name what is missing in the output, one line each on stderr, and exit with 1 if anything is."""
    for part in damage:
        x, y, width, height = part.region or (0, 0, 0, 0)
        place = f"Damaged: x {x}, y {y}, {width}×{height} px: " if part.region else "Damaged: "
        click.echo(place + part.reason, err=True)
    if damage:
        sys.exit(1)


@main.command()
@inputs_argument
@output_option
@force_option
@many_options
@click.option(
    "--suffix", default=".png", show_default=True, callback=parse_suffix, help="Format of the results for many inputs."
)
@click.option("--region", callback=parse_region, metavar="X,Y,W,H", help="Decode these pixels only.")
@click.option("--partial", is_flag=True, help="Write what is left of a damaged file; exit with 1 if it is damaged.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=DEFAULT_MAX_PIXELS, show_default=True, help="Refuse more."
)
@json_option
@loudness_options
@weights_option
@device_option
@one_line_errors
def decode(
    inputs: tuple[Path, ...],
    output: Path | None,
    force: bool,
    many: Many,
    suffix: str,
    region: Region | None,
    partial: bool,
    max_pixels: int,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    weights: Path | None,
    device: str,
) -> None:
    """Decompress the .yoto file IN, to PNG or what the output's suffix says, or many files to a folder, -o OUT."""
    if folder := folder_of_many(inputs, output):
        if region or partial:
            raise click.UsageError("--region and --partial are for one input")
        from codec.app.batch import FileDecoder

        tasks = plan(inputs, folder, suffix, {".yoto"}, recursive=many.recursive)
        work = FileDecoder(load_codec(weights, device), suffix, max_pixels)
        run_many(tasks, work, many, force=force, as_json=as_json, verbose=verbose, quiet=quiet)
        return
    source, path = single(inputs, output, ".png", force, many)
    if many.skip_existing and path.exists():
        report_skipped(path, as_json, quiet)
        return
    data = read_input(source)
    header = unpack(data, max_pixels, whole=not partial)  # errors that need no weights come before importing torch
    if region:
        try:
            header.check_region(region)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--region") from error

    from codec.picture.image import save_image

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
    if verbose:
        click.echo(f"tiles: {len(header.tiles)}, weights: {header.model_id.hex()}", err=True)
    if not quiet:
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
@one_line_errors
def selftest() -> None:
    """Check that this machine computes the integers that files rely on, in every way that it offers."""
    from codec.app import selftest

    failed = 0
    for check in selftest.run():
        click.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.name}")
        failed += not check.passed
    if failed:
        raise click.ClickException(f"{failed} checks failed: do not rely on files from or for this machine, report it")


@main.command()
@click.argument("first", metavar="A", type=click.Path(path_type=Path))
@click.argument("second", metavar="B", type=click.Path(path_type=Path))
@json_option
@weights_option
@device_option
@one_line_errors
def compare(first: Path, second: Path, as_json: bool, weights: Path | None, device: str) -> None:
    """Print how far the pictures A and B, of any format or .yoto, are apart: PSNR, SSIM, MS-SSIM, bytes."""
    from codec.app.compare import compare_files

    found = compare_files(first, second, partial(load_codec, weights, device))
    report(found.fields, str(found), as_json, False)


@main.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
@weights_option
@device_option
@one_line_errors
def demo(output: Path, weights: Path | None, device: str) -> None:
    """Encode and decode a picture that scikit-image brings along, at three qualities."""
    import skimage.data

    from codec.picture.image import psnr_db, save_image, to_pil, to_planes

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


@main.command("demo-server")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 for any that is free.")
@click.option("--max-megapixels", type=click.FloatRange(0.001), default=25.0, show_default=True, help="Refuse more.")
@weights_option
@device_option
@one_line_errors
def demo_server(host: str, port: int, max_megapixels: float, weights: Path | None, device: str) -> None:
    """Serve a page on which pictures can be coded and compared."""
    try:
        from codec.demo.server import listen, serve
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise click.ClickException(
            "the demo server needs FastAPI and uvicorn: pip install 'yoto-codec[demo]'"
        ) from error
    with listen(host, port) as listener:
        codec = load_codec(weights, device)
        address = f"[{host}]" if ":" in host else host
        click.echo(f"http://{address}:{listener.getsockname()[1]}/  (Ctrl+C stops the server)")
        serve(codec, listener, host, round(max_megapixels * 1e6))


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
