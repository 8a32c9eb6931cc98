"""The command `yoto-codec`: parse, call `codec`, print. Imports torch only where pixels are coded."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from codec.app.arguments import (
    ANY_PATH,
    How,
    file_options,
    json_option,
    megapixels_option,
    model_options,
    parse_levels,
    parse_places,
    parse_region,
    parse_share,
    parse_suffix,
    rate_options,
)
from codec.app.files import STREAM, is_yoto, read_input, removed_when_stopped, write_output
from codec.app.places import Plan, Task, UsageError, resolve
from codec.app.reports import report, run_many, run_one, tile_bar
from codec.app.work import Decoding, Encoding
from codec.errors import CodecError, explain
from codec.format.bitstream import Region, unpack
from codec.picture.url import Url

if TYPE_CHECKING:
    from codec.api import Codec

M_MMAP_THRESHOLD, LARGE_BYTES = -3, 8 << 20  # of glibc's mallopt
F = TypeVar("F", bound=Callable[..., Any])


def one_line_errors(command: F) -> F:
    """Turn errors of data and files into one line on stderr and exit code 1, of arguments into exit code 2."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            with removed_when_stopped():
                return command(*args, **kwargs)
        except UsageError as error:
            raise click.UsageError(str(error)) from error
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            raise click.ClickException(message) from error

    return wrapper  # type: ignore[return-value]


def give_memory_back() -> None:
    """Have glibc return large arrays to the system when they are freed; else its threshold rises and holes stay.

    Of 16 megapixels an encode by ONNX Runtime took 1.9 GiB, and takes 1.0.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every libc has it
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="yoto-codec")
def main() -> None:
    """Compress images with one learned model, at any quality."""
    # Threads of torch that wait for each other at full speed make it many times slower on a machine that is busy.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if sys.platform == "linux":
        give_memory_back()
    # Names of files are bytes of any coding: what is no text in the terminal's is escaped, as Python does on stderr.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


@main.command()
@file_options
@rate_options
@click.option(
    "--effort",
    type=click.IntRange(0, 8),
    default=1,
    show_default=True,
    help="How often to look at the result and choose anew what is sent. More takes longer and comes closer to the"
    " picture at about as many bytes, or needs 2 to 4 % fewer at equal error. Decoding takes the same time.",
)
@click.option(
    "--levels",
    callback=parse_levels,
    metavar="LOW:HIGH",
    help="Values that become black and white in pictures of 16 bits a channel, which are stored with 8.",
)
@megapixels_option
@click.option("--metrics", is_flag=True, help="Decode again and print the PSNR.")
@click.option("--strip", is_flag=True, help="Leave out ICC profile, Exif and XMP, which are kept otherwise.")
@model_options
@one_line_errors
def encode(
    inputs: tuple[str, ...],
    output: str | None,
    how: How,
    quality: float,
    target: dict[str, float] | None,
    lossless: bool,
    effort: int,
    levels: tuple[float, float] | None,
    max_pixels: int,
    metrics: bool,
    strip: bool,
    load: Callable[[], Codec],
) -> None:
    """Compress pictures to .yoto files.

    \b
    encode a.png              writes a.yoto beside it
    encode a.png b.yoto       writes b.yoto
    encode *.jpg              writes each beside its input, as does the name of a folder
    encode photos -o coded/   writes to the folder coded, with the tree of photos kept

    Also quoted patterns such as 'photos/**/*.png', and URLs of files, https://… or what else fsspec knows (extra
    `remote`); results of theirs go to the current folder unless -o names a place, which may be a URL, too.

    Grey or colour, transparency (without loss), ICC profile, Exif and XMP are kept; of several frames the first.
    Outputs that exist are left alone, with an error, unless --force or --skip-existing says otherwise; an output that
    is a picture is only ever named by -o.
    """
    from codec.picture.formats import has_pictures_suffix, missing_plugin, pillows_limit_lifted, readable_suffixes

    click.get_current_context().with_resource(pillows_limit_lifted())
    plan = Plan((), None, ".yoto", readable_suffixes(), how.recursive, missing_plugin)
    place = resolve(inputs, output, plan, lambda path: has_pictures_suffix(path) or is_other_file(path))
    work = Encoding(load, quality, target, lossless, effort, not strip, levels, max_pixels, metrics)
    if isinstance(place, Task) and has_pictures_suffix(place.output) and not how.quiet:
        click.echo(f"Warning: {place.output} will hold a .yoto file, whatever its suffix says", err=True)
    if isinstance(place, Plan):
        if metrics:
            raise click.UsageError("--metrics is for one input")
        run_many(place, work, how)
    else:
        run_one(place, work, how)


@main.command()
@file_options
@click.option(
    "--suffix",
    callback=parse_suffix,
    help="Format to write.  [default: as the output's suffix says; .png for many inputs]",
)
@click.option("--region", callback=parse_region, metavar="X,Y,W,H", help="Decode these pixels only.")
@click.option(
    "--realism",
    callback=parse_share,
    default="0",
    show_default=True,
    hidden=True,  # no shipped weights have learned it: training/EXPERIMENTS.md says what was gained
    help="0 for the least error, up to 1, or a percentage, for the structure that MS-SSIM sees.",
)
@click.option("--fit", type=click.IntRange(1), metavar="PX", help="Shrink what is larger to PX on its longer side.")
@click.option("--partial", is_flag=True, help="Write what is left of a damaged file; exit with 1 if it is damaged.")
@megapixels_option
@click.option("--max-pixels", "pixels", type=click.IntRange(1), hidden=True)  # its name in the first edition
@model_options
@one_line_errors
def decode(
    inputs: tuple[str, ...],
    output: str | None,
    how: How,
    suffix: str | None,
    region: Region | None,
    realism: float,
    fit: int | None,
    partial: bool,
    max_pixels: int,
    pixels: int | None,
    load: Callable[[], Codec],
) -> None:
    """Decompress .yoto files to pictures.

    \b
    decode a.yoto             writes a.png beside it
    decode a.yoto b.webp      writes b.webp, in the format that its suffix stands for
    decode *.yoto             writes each beside its input, as does the name of a folder
    decode coded -o back/     writes to the folder back, with the tree of coded kept

    IN and OUT may be URLs as with `encode`. ICC profile, Exif and XMP are kept where the format can hold them. JPEG,
    WebP and AVIF are written at quality 95. Outputs that exist are left alone, with an error, unless --force or
    --skip-existing says otherwise.
    """
    place = resolve(inputs, output, Plan((), None, suffix or ".png", {".yoto"}, how.recursive), looks_like_yoto)
    if isinstance(place, Plan):
        if region or partial:
            raise click.UsageError("--region and --partial are for one input")
        run_many(place, Decoding(load, place.suffix, None, False, pixels or max_pixels, fit, realism), how)
        return
    suffix = suffix or (".png" if place.output == STREAM else place.output.suffix)
    run_one(place, Decoding(load, suffix, region, partial, pixels or max_pixels, fit, realism), how)


def is_other_file(place: Path | Url) -> bool:
    """Whether there is a file that `encode` has not made: a drawing, a camera's raw picture, a text."""
    return place.suffix.lower() != ".yoto" and isinstance(place, Path) and place.is_file() and not is_yoto(place)


def looks_like_yoto(place: Path | Url) -> bool:
    """Whether a place has the suffix of .yoto files, or is one."""
    return place.suffix.lower() == ".yoto" or (isinstance(place, Path) and place.is_file() and is_yoto(place))


@main.command()
@click.argument("source", metavar="FILE", type=ANY_PATH, callback=parse_places)
@click.option("--viewer", metavar="COMMAND", help="Instead of the system's; the temporary file goes when it ends.")
@click.option("--region", callback=parse_region, metavar="X,Y,W,H", help="Show these pixels only.")
@click.option("--partial", is_flag=True, help="Show what is left of a damaged file.")
@megapixels_option
@model_options
@one_line_errors
def view(
    source: Path | Url,
    viewer: str | None,
    region: Region | None,
    partial: bool,
    max_pixels: int,
    load: Callable[[], Codec],
) -> None:
    """Show a .yoto file in the system's viewer for pictures.

    The viewer need not know the format: it gets a temporary PNG file.
    """
    from codec.app.viewer import show

    work = Decoding(load, ".png", region, partial, max_pixels)
    with tile_bar(sys.stderr.isatty()) as progress:
        made = work.code(work.read(source), progress)
    name = "picture" if source == STREAM else source.stem
    for part in made.damage:
        click.echo(f"Damaged: {part}", err=True)
    if path := show(made.data, name, viewer):
        click.echo(f"{source}: {made.text}; shown from {path}, which you may delete")
    if made.damage:
        sys.exit(1)


@main.command()
@click.argument("source", metavar="IN", type=ANY_PATH, callback=parse_places)
@json_option
@one_line_errors
def info(source: Path | Url, as_json: bool) -> None:
    """Print what the header of a .yoto file says.

    The model is not loaded.
    """
    header = unpack(read_input(source), sys.maxsize)
    fields: dict[str, object] = {
        "width": header.width,
        "height": header.height,
        "mode": header.mode,
        "version": header.version,
        "kind": header.kind,
        "quality": None if header.lossless else round(header.quality, 5),
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
    """Check that this machine computes what files rely on.

    These are integers, computed in every way that the machine offers, and compared with those of other machines.
    """
    from codec.app import selftest

    failed = 0
    for check in selftest.run():
        click.echo(f"{'ok  ' if check.passed else 'FAIL'} {check.name}")
        failed += not check.passed
    if failed:
        raise click.ClickException(f"{failed} checks failed: do not rely on files from or for this machine, report it")


@main.command()
@click.argument("first", metavar="A", type=ANY_PATH, callback=parse_places)
@click.argument("second", metavar="B", type=ANY_PATH, callback=parse_places)
@json_option
@model_options
@one_line_errors
def compare(first: Path | Url, second: Path | Url, as_json: bool, load: Callable[[], Codec]) -> None:
    """Print how far two pictures are apart.

    PSNR, SSIM, MS-SSIM and bytes. A and B are pictures of any format, .yoto among them, of one size; paths or URLs.
    """
    from codec.app.compare import compare_files

    found = compare_files(first, second, load)
    report(found.fields, str(found), as_json, False)


@main.command("report")
@click.argument("inputs", metavar="IMG…", nargs=-1, required=True, type=ANY_PATH, callback=parse_places)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("report.html"), show_default=True)
@click.option(
    "-q", "--quality", callback=parse_share, default="0.5", show_default=True, help="Of our files, as for encode."
)
@click.option("-f", "--force", is_flag=True, help="Overwrite the page if it exists.")
@model_options
@one_line_errors
def report_page(
    inputs: tuple[Path | Url, ...], output: Path, quality: float, force: bool, load: Callable[[], Codec]
) -> None:
    """Write an HTML page that compares formats on your pictures.

    For each picture IMG it says the bytes at equal PSNR and the PSNR at equal bytes, beside what it is stored as now.
    """
    if output.exists() and not force:
        raise click.UsageError(f"{output} exists; --force overwrites it")
    from codec.app import savings
    from codec.peers import REPORTED, choose_peers

    codec, peers, entries = load(), choose_peers(REPORTED)[0], []
    for path in inputs:
        try:
            entries.append(savings.measure(path, codec, quality, peers))
            click.echo(f"{path}: measured", err=True)
        except Exception as error:
            message = explain(error)
            if message is None:
                raise
            click.echo(f"Error: {message if str(path) in message else f'{path}: {message}'}", err=True)
    if entries:
        write_output(output, savings.page(entries, quality).encode())
        click.echo(f"{output}: {len(entries)} of {len(inputs)} pictures")
    if len(entries) < len(inputs):
        sys.exit(1)


@main.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("demo-output"), show_default=True)
@model_options
@one_line_errors
def demo(output: Path, load: Callable[[], Codec]) -> None:
    """Encode and decode an example at three qualities.

    The picture comes with scikit-image. All files of an earlier demonstration are overwritten.
    """
    try:
        import skimage.data
    except ImportError as error:
        raise CodecError("the picture comes with scikit-image: pip install 'yoto-codec[demo]'") from error

    from codec.metrics import psnr_db
    from codec.picture.image import save_image, to_pil, to_planes

    original = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    output.mkdir(parents=True, exist_ok=True)
    write_output(output / "original.png", save_image(to_pil(to_planes(original)), ".png"))
    codec = load()
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
@model_options
@one_line_errors
def demo_server(host: str, port: int, max_megapixels: float, load: Callable[[], Codec]) -> None:
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
        codec = load()
        address = f"[{host}]" if ":" in host else host
        click.echo(f"http://{address}:{listener.getsockname()[1]}/  (Ctrl+C stops the server)")
        serve(codec, listener, host, round(max_megapixels * 1e6))


@main.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True}, add_help_option=False)
@click.pass_context
def benchmark(context: click.Context) -> None:
    """Measure rate and quality against other codecs.

    Needs a clone of the repository and the extra "bench".
    """
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
