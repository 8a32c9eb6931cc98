"""All that a results folder holds, read for the report, the plots and the README."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.codecs import FAST, OURS
from benchmarks.comparison import BDRATE_FILE, Comparison, Row, load_comparison
from benchmarks.results import OURS_FILE, PEERS_FILE, Mean, Results
from codec.peers import PEERS

SPEED_FILE, MEMORY_FILE, COMPLEXITY_FILE = "speed.json", "memory.json", "complexity.json"
RESULTS = Path(__file__).parent / "results"  # what the repository holds


class SummaryError(Exception):
    """The folder holds no results, or such of different models."""


@dataclass(frozen=True)
class Summary:
    """Results of one model; what has not been measured is None."""

    ours: Results
    peers: Results | None
    comparison: Comparison | None
    speed: dict[str, Any] | None
    memory: dict[str, Any] | None
    complexity: dict[str, Any] | None

    @property
    def model(self) -> dict[str, Any]:
        """Identity and sizes of our model."""
        model: dict[str, Any] = self.ours.conditions["model"]
        return model

    @property
    def files(self) -> list[Results]:
        """The results files there are."""
        return [results for results in (self.ours, self.peers) if results]

    @property
    def images(self) -> list[str]:
        """The pictures that ours was measured on."""
        return self.ours.images

    @property
    def means(self) -> list[Mean]:
        """Mean curves of all codecs, each over all of these pictures."""
        return [mean for results in self.files for mean in results.means(self.images)]

    @property
    def missing(self) -> str:
        """A sentence that names the codecs of which there is no curve, and why; empty if there is none."""
        absent = {name for results in self.files for name in results.extra["absent"]}
        absent |= set(self.speed["absent"] if self.speed else ())
        points = Counter(mean.codec for mean in self.means)
        unfinished = [name for name in PEERS if points[name] < 2 and name not in absent]
        reasons = (("not installed where this was measured", sorted(absent)), ("not measured yet", unfinished))
        return "; ".join(f"{reason}: {', '.join(title(name) for name in names)}" for reason, names in reasons if names)

    def rows(self, codec: str = OURS) -> list[Row]:
        """BD-rates of a codec that could be had."""
        rows = self.comparison.rows if self.comparison else []
        return [row for row in rows if row.codec == codec and row.whole]

    def kmacs(self, step: str) -> float | None:
        """kMAC per pixel to "encode", to "encode_fast" (effort 0), or to "decode"."""
        return sum(self.complexity["kmac_per_px"][step].values()) if self.complexity else None


def load_summary(folder: Path) -> Summary:
    """Read a results folder.

    Raises:
        SummaryError: our results are missing, or a file is of another model than they.
        ResultsError: a file is no results file.
    """
    if not (folder / OURS_FILE).exists():
        raise SummaryError(f"{folder} holds no {OURS_FILE}; python -m benchmarks.run makes it")
    ours = Results(folder / OURS_FILE, {})
    peers = Results(folder / PEERS_FILE, {}) if (folder / PEERS_FILE).exists() else None
    comparison = load_comparison(folder) if (folder / BDRATE_FILE).exists() else None
    others = {name: read_json(folder / name) for name in (SPEED_FILE, MEMORY_FILE, COMPLEXITY_FILE)}
    models = {name: content["model"]["id"] for name, content in others.items() if content}
    models |= {BDRATE_FILE: comparison.model} if comparison else {}
    expected = ours.conditions["model"]["id"]
    if stale := sorted(name for name, found in models.items() if found != expected):
        raise SummaryError(
            f"{', '.join(stale)} of {folder} are not of model {expected}, as {OURS_FILE} is: measure again"
        )
    return Summary(ours, peers, comparison, *others.values())


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no such file."""
    if not path.exists():
        return None
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def title(codec: str) -> str:
    """A codec's name for people."""
    if codec in PEERS:
        return PEERS[codec].title
    return {OURS: "yoto-codec", FAST: "yoto-codec, effort 0"}.get(codec, codec)
