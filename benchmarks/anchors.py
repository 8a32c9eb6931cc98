"""What others published on Kodak, from a kodak_anchors.json: curves, BD-rates, complexity."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.bdrate import Curve
from codec.metrics import ms_ssim_db

ANCHORS = Path(__file__).parent / "anchors" / "kodak.json"
VTM = "VTM 18.0 (lossy-vae)"  # the reference of the project
# What the tables name besides, unless told otherwise: classical codecs, and the learned ones nearest in kind.
DEFAULT_ANCHORS = (
    VTM,
    "BPG 4:4:4 x265 (0.9.8, CompressAI)",
    "AV1 (libaom via CompressAI)",
    "CompressAI bmshj2018-hyperprior (mse)",
    "CompressAI mbt2018-mean (mse)",
    "CompressAI cheng2020-anchor (mse)",
    "CompressAI mbt2018-mean-vbr",
    "QmapCompression (SFT, uniform map)",
    "EVC-S (SS, mask decay, official)",
    "QARV base",
    "DCVC-RT-Intra",
)


class PublishedRate(NamedTuple):
    """A BD-rate of which the curve was not published."""

    name: str
    reference: str
    percent: float


class Kmacs(NamedTuple):
    """kMAC per pixel."""

    encode: float
    decode: float


class Anchors(NamedTuple):
    """What the chosen names stand for in the file, in the order of the choice."""

    curves: list[Curve]
    ms_ssim: list[Curve]  # the same codecs as far as published; dB in place of PSNR
    rates: list[PublishedRate]
    kmacs: dict[str, Kmacs]


def load_anchors(path: Path, names: Sequence[str] = DEFAULT_ANCHORS) -> Anchors:
    """Read a kodak_anchors.json; ValueError names what it lacks, or says that it is none."""
    try:
        stored = json.loads(path.read_text())
        entries: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in stored["anchors"]}
        rates = {
            entry["name"]: PublishedRate(entry["name"], entry["kodak_bd_rate_psnr_vs"], entry["value"])
            for entry in stored.get("published_bd_only", [])
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no anchors file: {error!r}") from error
    with_psnr = {name: entry for name, entry in entries.items() if entry.get("psnr_rgb")}
    missing = [name for name in names if name not in with_psnr and name not in rates]
    if missing:
        raise ValueError(f"{path} holds neither a PSNR curve nor a BD-rate of {', '.join(missing)}")
    chosen = [with_psnr[name] for name in names if name in with_psnr]
    return Anchors(
        [Curve(entry["name"], entry["bpp"], entry["psnr_rgb"]) for entry in chosen],
        [
            Curve(entry["name"], entry["bpp"], [ms_ssim_db(value) for value in entry["ms_ssim_rgb"]])
            for entry in chosen
            if "ms_ssim_rgb" in entry
        ],
        [rates[name] for name in names if name in rates],
        {entry["name"]: kmacs for entry in chosen if (kmacs := stated_kmacs(entry.get("note", "")))},
    )


def stated_kmacs(note: str) -> Kmacs | None:
    """What an entry's note says of its complexity, as in "790/425 kMAC/px enc/dec"."""
    found = re.search(r"(\d+)/(\d+) kMAC/px enc/dec", note)
    return Kmacs(float(found[1]), float(found[2])) if found else None
