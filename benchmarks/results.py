"""The results file: one JSON object, written whole after every measurement, so that a run can go on after a stop."""

from __future__ import annotations

import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

AVERAGING = (
    "each figure is averaged over the images at each setting: the mean of bpp, the mean of PSNR in dB, and so on"
)
# A second run may add to the file only if these are the same; times and curves would mix otherwise.
SAME = ("machine", "versions", "model", "dataset")


class ResultsError(Exception):
    """The results file was made under other conditions."""


@dataclass(frozen=True)
class Record:
    """One picture at one setting. Figures that are infinite, since nothing was lost, are null in the file."""

    codec: str
    setting: float
    image: str
    bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float
    ms_ssim_db: float
    ssim: float
    encode_s: float
    decode_s: float


MEASURES = tuple(entry.name for entry in fields(Record) if entry.name not in ("codec", "setting", "image"))


@dataclass(frozen=True)
class Mean:
    """All pictures at one setting; the names of `Record`."""

    codec: str
    setting: float
    images: int
    bytes: float
    bpp: float
    psnr_db: float
    ms_ssim: float
    ms_ssim_db: float
    ssim: float
    encode_s: float
    decode_s: float


class Results:
    """The contents of a results file.

    Args:
        path: the file; what it holds is kept, if it exists.
        conditions: what the measurements depend on, see SAME; an entry that is None fits any other.

    Raises:
        ResultsError: the file was made under other conditions, or is none of ours.
    """

    def __init__(self, path: Path, conditions: dict[str, Any]) -> None:
        self.path = path
        self.conditions = conditions
        self.records: dict[tuple[str, float, str], Record] = {}
        self.extra: dict[str, Any] = {"commands": [], "codecs": {}, "absent": []}
        if path.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            stored = json.loads(self.path.read_text())
            records = [Record(**_from_json(entry)) for entry in stored["records"]]
            extra = {key: stored[key] for key in self.extra}
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{self.path} is no results file; name another with --output") from error
        for key in SAME:
            old, new = stored.get(key), json.loads(json.dumps(self.conditions.get(key)))
            if old is not None and new is not None and old != new:
                raise ResultsError(f"{self.path} was made with another {key}; name another file with --output")
            self.conditions[key] = old if new is None else new
        self.records = {(record.codec, record.setting, record.image): record for record in records}
        self.extra = extra

    def note_command(self, command: str) -> None:
        """Remember how the measurements were made."""
        if command not in self.extra["commands"]:
            self.extra["commands"].append(command)

    def note_codec(self, name: str, options: dict[str, object]) -> None:
        """Remember a codec's options; ResultsError if there are measurements with others."""
        options = json.loads(json.dumps(options))
        if self.extra["codecs"].setdefault(name, options) != options:
            raise ResultsError(f"{self.path} holds {name} with other options; name another file with --output")

    def note_absent(self, names: list[str]) -> None:
        """Remember which codecs were asked for and are not there."""
        self.extra["absent"] = sorted({*self.extra["absent"], *names})

    def has(self, codec: str, setting: float, image: str) -> bool:
        """Whether this has been measured."""
        return (codec, setting, image) in self.records

    def add(self, record: Record) -> None:
        """Add a measurement and write the file."""
        self.records[record.codec, record.setting, record.image] = record
        self.save()

    def means(self, images: list[str]) -> list[Mean]:
        """Averages, by codec and rising rate, of the settings at which all these images have been measured."""
        groups: dict[tuple[str, float], list[Record]] = {}
        for record in self.records.values():
            if record.image in images:
                groups.setdefault((record.codec, record.setting), []).append(record)
        means = [
            Mean(*key, len(group), *(fmean(getattr(record, name) for record in group) for name in MEASURES))
            for key, group in groups.items()
            if len(group) == len(images)
        ]
        order = list(dict.fromkeys(mean.codec for mean in means))
        return sorted(means, key=lambda mean: (order.index(mean.codec), mean.bpp))

    def save(self) -> None:
        """Write the file whole or not at all."""
        images = sorted({record.image for record in self.records.values()})
        content = {
            "averaging": AVERAGING,
            **self.conditions,
            **self.extra,
            "means": [_to_json(asdict(mean)) for mean in self.means(images)],
            "records": [_to_json(asdict(record)) for record in self.records.values()],
        }
        write_whole(self.path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        os.chmod(temporary, 0o644)  # mkstemp's own mode shuts out everyone else
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _to_json(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {key: None if value == math.inf else value for key, value in entry.items()}


def _from_json(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: math.inf if value is None else value for key, value in entry.items()}
