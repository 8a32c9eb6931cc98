"""What the arguments of the command mean: parsers, options that several commands share, one input or many."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from codec.app.files import STREAM, is_pattern, output_path
from codec.format.bitstream import Region

F = TypeVar("F", bound=Callable[..., Any])


def parse_quality(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    """0 to 1, or a percentage."""
    if text is None:
        return None
    try:
        quality = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is no quality such as 0.3 or 30%") from error
    if not 0.0 <= quality <= 1.0:
        raise click.BadParameter(f"{text} does not lie between 0 and 1, or 0% and 100%")
    return quality


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


def parse_suffix(_: click.Context, __: click.Parameter, text: str) -> str:
    """A suffix, with or without its dot."""
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
class Many:
    """How to work on many files; `jobs` is None for as many at a time as there are cores."""

    recursive: bool
    skip_existing: bool
    jobs: int | None
    shard: tuple[int, int] | None


def many_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options for many inputs, which the command takes as one argument `many`."""

    @wraps(command)
    def wrapper(
        *args: Any, recursive: bool, skip_existing: bool, jobs: int | None, shard: tuple[int, int] | None, **kwargs: Any
    ) -> Any:
        return command(*args, many=Many(recursive, skip_existing, jobs, shard), **kwargs)

    for option in (
        click.option(
            "--shard", callback=parse_shard, metavar="I/N", help="Work on every N-th file only, from the I-th."
        ),
        click.option("--jobs", type=click.IntRange(1), help="Files at a time.  [default: as many as there are cores]"),
        click.option("--skip-existing", is_flag=True, help="Leave outputs that exist."),
        click.option("-r", "--recursive", is_flag=True, help="Also the folders in a folder."),
    ):
        wrapper = option(wrapper)
    return wrapper


TARGETS = {"--target-bytes": "size_bytes", "--target-bpp": "bpp", "--target-psnr": "psnr_db"}  # as in codec/target.py


def rate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that choose the rate; the command takes `quality`, and `target` or None as for `EncodeOptions`."""

    @wraps(command)
    def wrapper(*args: Any, quality: float | None, **kwargs: Any) -> Any:
        target = {name: value for name in TARGETS.values() if (value := kwargs.pop(name)) is not None}
        if len(target) + (quality is not None) > 1:
            raise click.UsageError(f"give one of --quality, {', '.join(TARGETS)}")
        return command(*args, quality=0.5 if quality is None else quality, target=target or None, **kwargs)

    for flag, help_text in (
        ("--target-psnr", "Choose the quality for a PSNR of so many dB."),
        ("--target-bpp", "Choose the quality for so many bits per pixel."),
        ("--target-bytes", "Choose the quality for a file of so many bytes."),
    ):
        wrapper = click.option(flag, TARGETS[flag], type=float, callback=parse_positive, help=help_text)(wrapper)
    help_text = "0 (fewest bits) to 1, or a percentage.  [default: 0.5]"
    return click.option("-q", "--quality", callback=parse_quality, help=help_text)(wrapper)


def loudness_options(command: F) -> F:
    """How much is said."""
    command = click.option("--quiet", is_flag=True, help="Say nothing but errors.")(command)
    return click.option("-v", "--verbose", is_flag=True, help="Say more, on stderr.")(command)


inputs_argument = click.argument(
    "inputs", metavar="IN... [OUT]", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True)
)
weights_option = click.option(
    "--weights", type=click.Path(path_type=Path), help="Weights file instead of the one that is shipped."
)
device_option = click.option(
    "--device", default="cpu", show_default=True, help="Where the transforms run: cpu or cuda."
)
output_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File to write, - for stdout; a folder for many inputs."
)
force_option = click.option("-f", "--force", is_flag=True, help="Overwrite the output.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")


def folder_of_many(inputs: tuple[Path, ...], output: Path | None) -> Path | None:
    """The folder for the results, if a command is about a folder, a pattern, or files that go to a folder."""
    many = [path for path in inputs if path.is_dir() or is_pattern(path)]
    if output is None or output == STREAM or output.is_file():
        if many:
            kind = "folder" if many[0].is_dir() else "pattern"
            raise click.ClickException(f"{many[0]} is a {kind}; give the folder for the results with -o")
        return None
    several = len(inputs) > 1 and not output.suffix
    return output if many or several or output.is_dir() else None


def single(inputs: tuple[Path, ...], output: Path | None, suffix: str, force: bool, many: Many) -> tuple[Path, Path]:
    """Source and output of a command on one file: IN, IN OUT or IN -o OUT."""
    if len(inputs) > 2 or (len(inputs) == 2 and output):
        raise click.UsageError(
            "several inputs need a folder for the results, given with -o; make it first if it has a suffix"
        )
    if many.shard:
        raise click.UsageError("--shard is for many inputs")
    target = inputs[1] if len(inputs) == 2 else output
    return inputs[0], output_path(target, inputs[0], suffix, force or many.skip_existing)
