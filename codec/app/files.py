"""Bytes in and out: pipes, files written whole or not at all, and which files of a folder a command is about."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from codec.errors import CodecError

STREAM = Path("-")


class Task(NamedTuple):
    """A file to read and the one to write."""

    source: Path
    output: Path


def read_input(path: Path) -> bytes:
    """All bytes of a file, or of standard input for `-`."""
    return sys.stdin.buffer.read() if path == STREAM else path.read_bytes()


def output_path(given: Path | None, source: Path, suffix: str, force: bool) -> Path:
    """The path to write: the one given, else the input's with another suffix; refuse to overwrite."""
    path = given or (STREAM if source == STREAM else source.with_suffix(suffix))
    refuse_existing(path, force)
    return path


def refuse_existing(path: Path, force: bool) -> None:
    """FileExistsError for a path that is there, unless it may be overwritten."""
    if path != STREAM and path.exists() and not force:
        raise FileExistsError(errno.EEXIST, "exists; give --force to overwrite it", str(path))


def write_output(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename."""
    if path == STREAM:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    if path.exists() and not path.is_file():  # a device such as /dev/null cannot be replaced
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    file = temporary.open("xb")
    try:
        with file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink()
        raise


def is_pattern(path: Path) -> bool:
    """Whether a path is one for `glob`; a file of that very name is not."""
    return glob.has_magic(str(path)) and not path.exists()


def plan(
    inputs: Sequence[Path], folder: Path, suffix: str, wanted: Collection[str], *, recursive: bool = False
) -> list[Task]:
    """What to read and write for files, folders and patterns.

    Args:
        inputs: folders, patterns such as `photos/**/*.png` and files, which need not exist.
        folder: where the results go; the tree below a folder, or below the fixed part of a pattern, is kept.
        suffix: of the results.
        wanted: suffixes, lower case, of the files of a folder that are meant; hidden ones never are.
        recursive: take the folders in a folder, too.

    Raises:
        CodecError: two inputs would be written to one file, or an input stands for no file.
        OSError: a folder cannot be read.
    """
    sources: dict[Path, Path] = {}
    for given in inputs:
        found = list(find(given, wanted, recursive))
        if not found:
            hint = "; --recursive looks into its folders" if given.is_dir() and not recursive else ""
            raise CodecError(f"{given}: no file to work on{hint}")
        for source, place in found:
            output = folder / place.with_suffix(suffix)
            other = sources.setdefault(output, source)
            if other.absolute() != source.absolute():
                raise CodecError(f"{other} and {source} would both be written to {output}; rename one of them")
    return [Task(source, output) for output, source in sorted(sources.items())]


def find(given: Path, wanted: Collection[str], recursive: bool) -> Iterator[tuple[Path, Path]]:
    """Yield the files that an input stands for, each with its place in the tree of the results."""
    if given.is_dir():
        for root, folders, names in os.walk(given, onerror=_fail):
            folders[:] = [name for name in folders if recursive and not name.startswith(".")]
            for path in (Path(root, name) for name in names if not name.startswith(".")):
                if path.suffix.lower() in wanted:
                    yield path, path.relative_to(given)
    elif is_pattern(given):
        fixed = next(parent for parent in given.parents if not glob.has_magic(str(parent)))
        for path in map(Path, glob.glob(str(given), recursive=True)):
            if path.is_file():
                yield path, path.relative_to(fixed)
    else:
        yield given, Path(given.name)


def _fail(error: OSError) -> NoReturn:
    raise error
