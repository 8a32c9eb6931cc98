"""What is compared: our codec and Pillow's, all as `encode(picture, setting) → bytes`, `decode(bytes) → picture`.

Pictures are uint8 (H, W, 3). Options are those that gave the best PSNR in RGB on a few Kodak images.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from PIL import AvifImagePlugin, Image, features

from codec.api import Codec
from codec.image import Uint8Array

OURS = "yoto"
SOURCE_BITS = 24.0  # per pixel; Pillow takes JPEG 2000's rate as a ratio to it


class ImageCodec(Protocol):
    """What a benchmark needs to know of a codec."""

    @property
    def name(self) -> str:
        """As on the command line and in the results."""
        ...

    @property
    def settings(self) -> Sequence[float]:
        """Points of the curve, from few bits to many."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """What is the same at every setting."""
        ...

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        """The bytes of a complete file."""
        ...

    def decode(self, data: bytes) -> Uint8Array:
        """The picture, from the bytes alone."""
        ...


@dataclass(frozen=True)
class Yoto:
    """Our codec; a setting is the quality in [0, 1]."""

    codec: Codec
    settings: Sequence[float]
    name: str = OURS
    options: Mapping[str, object] = field(default_factory=dict)

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        return self.codec.encode(image, setting)

    def decode(self, data: bytes) -> Uint8Array:
        return np.asarray(self.codec.decode(data))


@dataclass(frozen=True)
class PillowCodec:
    """A format of Pillow's; a setting is its quality, 0 to 100."""

    name: str
    form: str  # Pillow's name of the format
    feature: str  # Pillow's name of the library behind it
    settings: Sequence[float]
    options: Mapping[str, object]

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, self.form, **self.options, **self.rate_option(setting))
        return buffer.getvalue()

    def rate_option(self, setting: float) -> dict[str, object]:
        """The option of Pillow's that chooses the rate."""
        return {"quality": round(setting)}

    def decode(self, data: bytes) -> Uint8Array:
        with Image.open(io.BytesIO(data), formats=[self.form]) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class PillowJpeg2000(PillowCodec):
    """JPEG 2000; a setting is the rate in bits per pixel."""

    def rate_option(self, setting: float) -> dict[str, object]:
        return {"quality_mode": "rates", "quality_layers": [SOURCE_BITS / setting]}


AVIF_SETTINGS = (5, 15, 25, 35, 45, 55, 65, 75, 85, 91)
AVIF_OPTIONS = {"subsampling": "4:4:4", "advanced": {"tune": "psnr"}}  # -5 % against libavif's own choice, "iq"
PEERS: tuple[PillowCodec, ...] = (
    # 4:4:4 needs 6 % more than 4:2:0, at any rate up to 40 dB.
    PillowCodec(
        "jpeg",
        "JPEG",
        "jpg",
        (7, 15, 30, 45, 60, 75, 85, 92, 96),
        {"subsampling": "4:2:0", "optimize": True, "progressive": True},
    ),
    PillowCodec("webp", "WEBP", "webp", (0, 10, 25, 40, 55, 70, 80, 88, 94, 98), {"method": 6}),
    PillowCodec("avif", "AVIF", "avif", AVIF_SETTINGS, {"speed": 6, **AVIF_OPTIONS}),  # 6: Pillow's default
    PillowCodec("avif-slow", "AVIF", "avif", AVIF_SETTINGS, {"speed": 4, **AVIF_OPTIONS}),
    # Pillow leaves the colour transform (mct) off unless told: twice the rate.
    PillowJpeg2000(
        "jpeg2000",
        "JPEG2000",
        "jpg_2000",
        (0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0),
        {"irreversible": True, "mct": 1},
    ),
)
PEER_NAMES = tuple(peer.name for peer in PEERS)


def choose_peers(names: Sequence[str]) -> tuple[list[PillowCodec], list[str]]:
    """Pillow's codecs of these names, and the names of those that this Pillow was built without."""
    chosen = [peer for peer in PEERS if peer.name in names]
    present = [peer for peer in chosen if features.check(peer.feature)]
    return present, [peer.name for peer in chosen if peer not in present]


def set_threads(threads: int) -> None:
    """Let our transforms and AVIF use this many threads; the other codecs have one."""
    torch.set_num_threads(threads)
    # Pillow offers no other way to limit the AVIF decoder; the encoder follows it.
    AvifImagePlugin.DEFAULT_MAX_THREADS = threads
