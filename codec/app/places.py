"""Which files a command reads, and where each result goes."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, TypeGuard

from codec.app.files import STREAM
from codec.errors import CodecError, explain
from codec.picture.url import Url, locate

REASONS_NAMED = 8  # for which files of a folder were left out


class UsageError(ValueError):
    """The arguments do not go together."""


class Task(NamedTuple):
    """A file to read and the one to write.

    Attributes:
        source: to read, `-` for standard input.
        output: to write, `-` for standard output.
        folder: to make if need be, unless it is a URL.
        inferred: the output was not named, neither itself nor its folder.
        trouble: what stands against the work, in one line.
    """

    source: Path | Url
    output: Path | Url
    folder: Path | Url | None = None
    inferred: bool = False
    trouble: str | None = None


class Group(NamedTuple):
    """Files whose results share a folder. Plain strings, since there may be many."""

    folder: Path | Url
    sources: list[str]


@dataclass
class Plan:
    """Many files to work on: iterating yields them one by one, so a folder may hold any number.

    Attributes:
        inputs: folders, patterns such as `photos/**/*.png`, and files, which need not exist. URLs are of files.
        folder: where the results go, the tree below a folder, or below the fixed part of a pattern, kept; None for
            beside their inputs, and for the current folder if those are URLs.
        suffix: of the results. Where two inputs differ in their suffix alone, their results are called `a.png.yoto` and
            `a.jpg.yoto`.
        wanted: suffixes, lower case, of the files of a folder that are meant; hidden ones never are.
        recursive: take the folders in a folder, too. Links to folders are not followed.
        reason: why files of a suffix that is not wanted are left out, where there is more to say than that.
        ignored: how many files of the folders were left out, by reason, after an iteration.
    """

    inputs: Sequence[Path | Url]
    folder: Path | Url | None
    suffix: str
    wanted: Collection[str]
    recursive: bool = False
    reason: Callable[[str], str | None] = lambda suffix: None
    ignored: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Task]:
        self.ignored.clear()
        several = len(self.inputs) > 1
        seen: dict[Path | Url, Path | Url] = {}  # within one folder names differ already
        for group in self._groups():
            for task in [group] if isinstance(group, Task) else self._named(group):
                other = seen.setdefault(task.output, task.source) if several else task.source
                if other == task.source:
                    yield task
                elif os.path.abspath(str(other)) != os.path.abspath(str(task.source)):
                    clash = f"{task.source} and {other} would both be written to {task.output}; rename one of them"
                    yield task._replace(trouble=clash)

    def survey(self) -> int:
        """Count the files, after which `ignored` tells of the others.

        Raises:
            CodecError: an input stands for no file.
        """
        for given in self.inputs:
            if holds_many(given):
                part = replace(self, inputs=[given], ignored=Counter())
                if next(iter(part), None) is None:
                    left_out = f"; left out: {describe(part.ignored)}" if part.ignored else ""
                    raise CodecError(f"{given}: no file to work on{left_out}")
        return sum(1 for _ in self)

    def _groups(self) -> Iterator[Group | Task]:
        """Those named one by one, then folder by folder; folders that fail."""
        loose: dict[Path | Url, list[str]] = {}
        known: set[str] = set()
        for source, below in self._named_one_by_one():
            if (name := os.path.abspath(str(source))) not in known:
                known.add(name)
                beside = source.parent if isinstance(source, Path) else Path()
                loose.setdefault(beside if self.folder is None else self.folder / below, []).append(str(source))
        yield from (Group(folder, sources) for folder, sources in loose.items())
        for given in self.inputs:
            if is_folder(given):
                yield from self._listings(given, self.folder or given)

    def _named_one_by_one(self) -> Iterator[tuple[Path | Url, Path]]:
        """Files, and those that patterns stand for, each with its place below the folder for the results."""
        for given in self.inputs:
            if isinstance(given, Path) and is_pattern(given):
                yield from ((source, place.parent) for source, place in _matches(given))
            elif not holds_many(given):
                yield given, Path()

    def _listings(self, top: Path, folder: Path | Url) -> Iterator[Group | Task]:
        """The files that are meant in a folder, then in those in it, in the order of their names."""
        pending = [top]
        while pending:
            here = pending.pop()
            files, folders = [], []
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        kind = self._kind(entry)
                        if kind == "file":
                            files.append(entry.path)
                        elif kind == "folder":
                            folders.append(entry.path)
                        else:
                            self.ignored[kind] += 1
            except OSError as error:
                yield Task(here, here, trouble=explain(error))
            yield Group(folder / here.relative_to(top), sorted(files))
            pending += map(Path, sorted(folders, reverse=True))

    def _kind(self, entry: os.DirEntry[str]) -> str:
        """`file`, `folder`, or why an entry of a folder is left out."""
        if entry.name.startswith("."):
            return "hidden"
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link in a circle
            is_folder = is_file = False
        if is_folder and entry.is_symlink():
            return "links to folders"
        if is_folder:
            return "folder" if self.recursive else "folders (--recursive takes them)"
        if not is_file:
            return "links to nothing" if entry.is_symlink() else "no regular files"
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in self.wanted:
            return "file"
        reason = self.reason(suffix)
        return f"{suffix or 'without suffix'} ({reason})" if reason else suffix or "without suffix"

    def _named(self, group: Group) -> Iterator[Task]:
        """Give results names that differ, with the suffixes of their inputs where they would not otherwise.

        Also `A.png` and `a.jpg` would not on many systems.
        """
        names = {locate(source).name for source in group.sources}
        kept: set[str] = set()
        while True:
            taken = Counter(self._result(name, kept).casefold() for name in names)
            clashing = {name for name in names if taken[self._result(name, kept).casefold()] > 1} - kept
            if not clashing:
                break
            kept |= clashing
        for source in map(locate, group.sources):
            output = group.folder / self._result(source.name, kept)
            yield Task(source, output, group.folder, inferred=self.folder is None)

    def _result(self, name: str, kept: set[str]) -> str:
        return (name if name in kept else os.path.splitext(name)[0]) + self.suffix


def describe(left_out: Counter[str]) -> str:
    """Counts by reason, the most frequent first."""
    ordered = sorted((-count, reason) for reason, count in left_out.items())
    named = [f"{-count} {reason}" for count, reason in ordered[:REASONS_NAMED]]
    others = -sum(count for count, _ in ordered[REASONS_NAMED:])
    return ", ".join([*named, f"{others} others"] if others else named)


def is_folder(place: Path | Url) -> TypeGuard[Path]:
    """Whether a place is a folder of this machine."""
    return isinstance(place, Path) and place.is_dir()


def holds_many(place: Path | Url) -> bool:
    """Whether a place stands for the files of a folder or of a pattern."""
    return is_folder(place) or (isinstance(place, Path) and is_pattern(place))


def is_pattern(path: Path) -> bool:
    """Whether a path is one for `glob`; a file of that very name is not."""
    return glob.has_magic(str(path)) and not path.exists()


def _matches(pattern: Path) -> Iterator[tuple[Path, Path]]:
    """Files that a pattern stands for, each with its place below the pattern's fixed part; no hidden ones.

    Links to folders are followed where a part of the pattern names them, not by `**`, and not back up the tree.
    """
    fixed = next(parent for parent in pattern.parents if not glob.has_magic(str(parent)))
    parts = [part if part == "**" else re.sub(r"\*+", "*", part) for part in pattern.relative_to(fixed).parts]
    if parts[-1] == "**":
        parts.append("*")
    with_hidden = any(part.startswith(".") for part in parts)
    for path in sorted(set(fixed.glob(str(Path(*parts))))):
        place = path.relative_to(fixed)
        hidden = not with_hidden and any(part.startswith(".") for part in place.parts)
        if path.is_file() and not hidden and not _leads_back(fixed, place):
            yield path, place


def _leads_back(fixed: Path, place: Path) -> bool:
    """Whether a folder on the way is a link to one that holds it."""
    links = (fixed / parent for parent in place.parents)
    return any(link.is_symlink() and link.parent.resolve().is_relative_to(link.resolve()) for link in links)


def resolve(
    inputs: Sequence[str], output: str | None, plan: Plan, looks_like_input: Callable[[Path | Url], bool]
) -> Task | Plan:
    """What the arguments `IN... [OUT]` and the option `-o OUT` mean: one file, or many.

    Args:
        inputs, output: as given, paths or URLs; `-` is a pipe, and an output that ends in `/` a folder to be made.
        plan: what to complete for many files.
        looks_like_input: whether a file may be meant to be read; it then is no output unless `output` says so.

    Raises:
        UsageError: they do not go together.
        CodecError: a folder or pattern, and a file for the results; a second input where the output would be.
    """
    if "" in (*inputs, output):  # as of a variable that is not set; as a path it would be this folder
        raise UsageError("an empty name is given")
    paths, target = [locate(text) for text in inputs], None if output is None else locate(output)
    folder = _folder(paths, output)
    of_many = [path for path in paths if holds_many(path)]
    if of_many and folder is None and output is not None:
        kind = "folder" if is_folder(of_many[0]) else "pattern"
        raise CodecError(f"{of_many[0]} is a {kind}, and {output} is none for the results; give one with -o")
    if len(paths) == 2 and output is None:
        if is_folder(paths[1]) and not is_folder(paths[0]):  # as `cp` has it, or as an input?
            raise CodecError(f"{paths[1]} is a folder; give it with -o for the results, or alone to work in its place")
        if looks_like_input(paths[1]):
            raise CodecError(
                f"{paths[1]} is taken for an input, not for the output; give -o FOLDER for both (-o . for here),"
                f" or if it is the output, -o {paths[1]}"
            )
        return resolve(inputs[:1], inputs[1], plan, looks_like_input)
    several = len(paths) > 1
    if STREAM in paths and (several or folder is not None):
        raise UsageError("- is for one input and one output")
    if several and folder is None:
        if output is not None:
            raise UsageError("several inputs need a folder for the results; a new one's name ends in /")
        wrong = [path for path in paths if path.suffix.lower() == plan.suffix]
        if wrong:
            raise UsageError(f"several inputs and {wrong[0]}: give the folder for the results with -o")
    if several or of_many:
        return replace(plan, inputs=paths, folder=folder)
    source = paths[0]
    if folder is not None:
        return Task(source, folder / Path(source.name).with_suffix(plan.suffix), folder)
    if target is not None or source == STREAM:
        return Task(source, target or STREAM)
    beside = source if isinstance(source, Path) else Path(source.name)
    return Task(source, beside.with_suffix(plan.suffix), inferred=True)


def _folder(paths: Sequence[Path | Url], output: str | None) -> Path | Url | None:
    """The folder for the results, if the output is one."""
    place = STREAM if output is None else locate(output)
    if output is None or place == STREAM or (isinstance(place, Path) and place.is_file()):
        return None
    many = len(paths) > 1 and not place.suffix
    named = output.endswith(("/", os.sep)) or is_folder(place)
    return place if named or many or any(map(holds_many, paths)) else None
