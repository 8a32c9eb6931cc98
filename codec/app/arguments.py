"""What the options of the command mean: parsers, and options that several commands share."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial, wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from codec.format.bitstream import DEFAULT_MAX_PIXELS, Region
from codec.picture.url import locate

if TYPE_CHECKING:
    from codec.api import Codec


ANY_PATH = click.Path(allow_dash=True)  # as text, since a final / means a folder; shells complete it
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


def parse_places(_: click.Context, __: click.Parameter, given: str | tuple[str, ...]) -> object:
    """Paths and URLs of files to read, or one; see `locate`."""
    return locate(given) if isinstance(given, str) else tuple(map(locate, given))


def parse_share(_: click.Context, option: click.Parameter, text: str | None) -> float | None:
    """0 to 1, or a percentage."""
    if text is None:
        return None
    try:
        share = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no {option.name} such as 0.3 or 30%") from error
    if not 0.0 <= share <= 1.0:
        raise click.BadParameter(f"{text} does not lie between 0 and 1, or 0% and 100%")
    return share


def parse_positive(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    """A finite number above 0."""
    if value is not None and not 0.0 < value < math.inf:
        raise click.BadParameter(f"{value:g} is no finite number above 0")
    return value


def parse_levels(_: click.Context, __: click.Parameter, text: str | None) -> tuple[float, float] | None:
    """LOW:HIGH, LOW below HIGH."""
    if text is None:
        return None
    try:
        low, high = (float(number) for number in text.split(":"))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise click.BadParameter(f"'{text}' is no range such as 0:65535")
    return low, high


def parse_shard(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """I/N with 1 ≤ I ≤ N."""
    if text is None:
        return None
    try:
        number, count = (int(part) for part in text.split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise click.BadParameter(f"'{text}' is no shard such as 2/8, the second of eight")
    return number, count


def parse_suffix(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """A suffix, with or without its dot."""
    if text is None:
        return None
    suffix = "." + text.removeprefix(".")
    if Path("name" + suffix).suffix != suffix or suffix == ".":
        raise click.BadParameter(f"'{text}' is no suffix such as .png")
    return suffix


def parse_region(_: click.Context, __: click.Parameter, text: str | None) -> Region | None:
    """X,Y,W,H."""
    if text is None:
        return None
    try:
        x, y, width, height = (int(number) for number in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no region such as 0,0,640,480") from error
    return x, y, width, height


@dataclass(frozen=True)
class How:
    """How `encode` and `decode` treat files, whatever is done to them; `jobs` is None for one for each core."""

    force: bool
    skip_existing: bool
    keep_time: bool
    recursive: bool
    jobs: int | None
    shard: tuple[int, int] | None
    as_json: bool
    verbose: bool
    quiet: bool

    @property
    def with_bar(self) -> bool:
        """Whether to draw progress."""
        return sys.stderr.isatty() and not self.quiet and not self.verbose


def file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Inputs, output and how to treat them; the command takes `inputs`, `output` and `how`."""

    @wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        how = How(**{field.name: kwargs.pop(field.name) for field in fields(How)})
        return command(*args, how=how, **kwargs)

    for option in reversed(
        (
            click.argument("inputs", metavar="IN... [OUT]", nargs=-1, required=True, type=ANY_PATH),
            click.option(
                "-o",
                "--output",
                type=ANY_PATH,
                help="File to write, - for stdout; for many inputs a folder, which is made if need be.",
            ),
            click.option(
                "-f",
                "--force",
                is_flag=True,
                help="Overwrite outputs; they keep their permissions, and links to them lead on.",
            ),
            click.option(
                "--skip-existing", is_flag=True, help="Leave outputs that exist, and do not read their inputs."
            ),
            click.option("--keep-time", is_flag=True, help="Give outputs the times of their inputs."),
            click.option(
                "-r",
                "--recursive",
                is_flag=True,
                help="Also the folders in a folder; links to folders are not followed.",
            ),
            click.option(
                "--jobs", type=click.IntRange(1), help="Files at a time.  [default: as many as there are cores]"
            ),
            click.option(
                "--shard", callback=parse_shard, metavar="I/N", help="Work on every N-th file only, from the I-th."
            ),
            json_option,
            click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr."),
            click.option("--quiet", is_flag=True, help="Say nothing but errors."),
        )
    ):
        wrapper = option(wrapper)
    return wrapper


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Which model, and where it runs; the command takes `load`, which loads it."""

    @wraps(command)
    def wrapper(*args: Any, weights: Path | None, device: str, backend: str, threads: int | None, **kwargs: Any) -> Any:
        return command(*args, load=partial(load_codec, weights, device, threads, backend), **kwargs)

    for option in (
        click.option(
            "--threads", type=click.IntRange(1), help="Cores to use.  [default: all, shared by the files of --jobs]"
        ),
        click.option(
            "--backend",
            type=click.Choice(("auto", "onnx", "torch")),
            default="auto",
            show_default=True,
            help="What runs the transforms; auto is the faster of those that are installed.",
        ),
        click.option("--device", default="cpu", show_default=True, help="Where the transforms run: cpu or cuda."),
        click.option(
            "--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped."
        ),
    ):
        wrapper = option(wrapper)
    return wrapper


def megapixels_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """A limit, which the command takes as `max_pixels`."""
    return click.option(
        "--max-megapixels",
        "max_pixels",
        type=click.FloatRange(0.0, min_open=True),
        callback=lambda _, __, value: round(value * 1e6),
        default=DEFAULT_MAX_PIXELS // 1_000_000,
        show_default=True,
        help="Refuse larger pictures.",
    )(command)


def load_codec(weights: Path | None, device: str, count: int | None, backend: str = "auto") -> Codec:
    """Load the model; in a test, which calls several commands, the number of threads is only borrowed."""
    from codec.api import Codec
    from codec.network import threads

    if backend == "torch" and find_spec("torch"):
        import_module("torch")  # before its number of threads is set
    if count:
        click.get_current_context().call_on_close(partial(threads.choose, threads.get()))
        threads.choose(count)
    return Codec(weights, device, backend)


TARGETS = {"--target-bytes": "size_bytes", "--target-bpp": "bpp", "--target-psnr": "psnr_db"}  # as in codec/target.py


def rate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose the rate; the command takes `quality`, `target` and `lossless` as `Encoding` does."""

    @wraps(command)
    def wrapper(*args: Any, quality: float | None, lossless: bool, **kwargs: Any) -> Any:
        target = {name: value for name in TARGETS.values() if (value := kwargs.pop(name)) is not None}
        if len(target) + (quality is not None) + lossless > 1:
            raise click.UsageError(f"give one of --quality, --lossless, {', '.join(TARGETS)}")
        quality = 0.5 if quality is None else quality
        return command(*args, quality=quality, target=target or None, lossless=lossless, **kwargs)

    for flag, help_text in (
        ("--target-psnr", "Choose the quality for a PSNR of so many dB."),
        (
            "--target-bpp",
            "Choose the quality for at most so many bits per pixel of the picture, the whole file counted.",
        ),
        ("--target-bytes", "Choose the quality for a file of at most so many bytes, and no more than 1 % fewer."),
    ):
        wrapper = click.option(flag, TARGETS[flag], type=float, callback=parse_positive, help=help_text)(wrapper)
    help_text = "Keep every pixel, of 8 bits a channel, as it is; needs most bytes for photographs."
    wrapper = click.option("--lossless", is_flag=True, help=help_text)(wrapper)
    help_text = "0 (fewest bits) to 1, or a percentage.  [default: 0.5]"
    return click.option("-q", "--quality", callback=parse_share, help=help_text)(wrapper)
