"""A results file: one JSON object, written whole after every measurement, so that a run can go on after a stop.

Ours and the peers' are two files: other weights do not touch what was measured of the peers.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.files import write_json

OURS_FILE, PEERS_FILE = "yoto.json", "peers.json"
AVERAGING = (
    "each figure is averaged over the images at each setting: the mean of bpp, the mean of PSNR in dB, and so on"
)
# A second run may add to the file only if these are the same. The machine may be another: rates do not depend on it,
# and the seconds are for orientation.
SAME = ("versions", "model", "dataset")
REMEDY = "name another folder with --results, or give --replace to measure it all anew"


class ResultsError(Exception):
    """The results file was made under other conditions."""


@dataclass(frozen=True)
class Record:
    """One picture at one setting; seconds are of the processor.

    Similarities are None for pictures smaller than their windows. PSNR and MS-SSIM in dB are infinite where nothing was
    lost, which is null in the file.
    """

    codec: str
    setting: float
    image: str
    bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float | None
    ms_ssim_db: float | None
    ssim: float | None
    encode_s: float
    decode_s: float
    ssimulacra2: float | None = None


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
    ms_ssim: float | None
    ms_ssim_db: float | None
    ssim: float | None
    encode_s: float
    decode_s: float
    ssimulacra2: float | None = None


class Results:
    """The contents of a results file.

    Args:
        path: the file; what it holds is kept, if it exists.
        conditions: what the measurements depend on, see SAME; an entry that is None fits any other.
        replace: drop measurements that were made under other conditions, instead of refusing to mix with them.

    Raises:
        ResultsError: the file was made under other conditions, or is none of ours.
    """

    def __init__(self, path: Path, conditions: dict[str, Any], replace: bool = False) -> None:
        self.path = path
        self.conditions: dict[str, Any] = {key: json.loads(json.dumps(conditions.get(key))) for key in SAME}
        self.replace = replace
        self.records: dict[tuple[str, float, str], Record] = {}
        self.extra: dict[str, Any] = {"machines": [], "commands": [], "codecs": {}, "absent": [], "memory": []}
        if path.exists():
            self._resume()

    def _resume(self) -> None:
        try:
            stored = json.loads(self.path.read_text())
            records = [Record(**_from_json(entry)) for entry in stored["records"]]
            extra = {key: stored[key] for key in self.extra}
            conditions = {key: stored[key] for key in SAME}
        except (ValueError, KeyError, TypeError) as error:
            raise ResultsError(f"{self.path} is no results file; name another folder with --results") from error
        both = [(key, conditions[key], self.conditions[key]) for key in SAME]
        changed = [key for key, old, new in both if old is not None and new is not None and old != new]
        if changed and self.replace:
            return
        if changed:
            raise ResultsError(f"{self.path} was made with another {' and '.join(changed)}; {REMEDY}")
        self.conditions = {key: old if new is None else new for key, old, new in both}
        self.records = {(record.codec, record.setting, record.image): record for record in records}
        self.extra = extra

    def note_run(self, command: str, machine: dict[str, object]) -> None:
        """Remember how and where the measurements were made."""
        for kept, new in (("commands", command), ("machines", machine)):
            if new not in self.extra[kept]:
                self.extra[kept].append(new)

    def note_codec(self, name: str, options: dict[str, object]) -> None:
        """Remember a codec's options; those measured with others are dropped or refused, as for conditions."""
        options = json.loads(json.dumps(options))
        if self.extra["codecs"].get(name, options) != options:
            if not self.replace:
                raise ResultsError(f"{self.path} holds {name} with other options; {REMEDY}")
            self.records = {key: record for key, record in self.records.items() if record.codec != name}
            self.extra["memory"] = [entry for entry in self.extra["memory"] if entry["codec"] != name]
        self.extra["codecs"][name] = options

    def note_absent(self, names: list[str]) -> None:
        """Remember which codecs were asked for and are not there, as long as there is no measurement of them."""
        measured = {codec for codec, _, _ in self.records}
        self.extra["absent"] = sorted({*self.extra["absent"], *names} - measured)

    def has_memory(self, codec: str, setting: float) -> bool:
        """Whether the memory that this takes has been measured."""
        return any((entry["codec"], entry["setting"]) == (codec, setting) for entry in self.extra["memory"])

    def add_memory(self, codec: str, setting: float, image: str, figures: dict[str, float]) -> None:
        """Add what coding one picture in a fresh process took, and write the file."""
        peaks = {name: figure for name, figure in figures.items() if name.endswith("_mib")}
        self.extra["memory"].append({"codec": codec, "setting": setting, "image": image, **peaks})
        self.save()

    def has(self, codec: str, setting: float, image: str) -> bool:
        """Whether this has been measured."""
        return (codec, setting, image) in self.records

    def add(self, record: Record) -> None:
        """Add a measurement and write the file."""
        self.records[record.codec, record.setting, record.image] = record
        self.save()

    @property
    def images(self) -> list[str]:
        """Names of all pictures measured on."""
        return sorted({record.image for record in self.records.values()})

    def means(self, images: list[str]) -> list[Mean]:
        """Averages, by codec and rising rate, of the settings at which all these images have been measured."""
        groups: dict[tuple[str, float], list[Record]] = {}
        for record in self.records.values():
            if record.image in images:
                groups.setdefault((record.codec, record.setting), []).append(record)
        means = [
            Mean(*key, len(group), *(_mean([getattr(record, name) for record in group]) for name in MEASURES))
            for key, group in groups.items()
            if len(group) == len(images)
        ]
        order = list(dict.fromkeys(mean.codec for mean in means))
        return sorted(means, key=lambda mean: (order.index(mean.codec), mean.bpp))

    def save(self) -> None:
        """Write the file whole or not at all."""
        content = {
            "averaging": AVERAGING,
            **self.conditions,
            **self.extra,
            "means": [_to_json(asdict(mean)) for mean in self.means(self.images)],
            "records": [_to_json(asdict(record)) for record in self.records.values()],
        }
        write_json(self.path, content)


def _mean(values: list[float | None]) -> Any:
    """None where a picture lacks the figure."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _to_json(entry: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no infinity."""
    return {key: None if value == math.inf else value for key, value in entry.items()}


def _from_json(entry: dict[str, Any]) -> dict[str, Any]:
    infinite = {"psnr_db"} | ({"ms_ssim_db"} if entry["ms_ssim"] is not None else set())
    return {key: math.inf if value is None and key in infinite else value for key, value in entry.items()}
