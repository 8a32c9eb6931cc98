"""The formats that ours is compared with, in benchmarks, reports and the demo: Pillow's, and two that plugins add.

Pictures are uint8 (H, W, C), C being 3 or 1. Options are those that gave the best PSNR in RGB on a few photographs; the
effort that a codec works with stands in its title. Imports no torch, so that the memory of a process with one of these
codecs is the codec's own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, features

from codec.errors import ImageError
from codec.metrics import Uint8Array
from codec.picture.formats import plugins

SOURCE_BITS = 24.0  # per pixel; Pillow takes JPEG 2000's rate as a ratio to it


class PeerFile(NamedTuple):
    """A complete file, and the setting that it was written with."""

    data: bytes
    setting: float


@dataclass(frozen=True)
class Peer:
    """A format that Pillow writes and reads.

    Attributes:
        name: on command lines and in results.
        title: for people, with the codec's effort.
        form: Pillow's name of the format.
        suffix: of its files, which is also its media type's name.
        present: whether it can be used here; loads the plugin.
        settings: a curve's points, from few bits to many.
        options: what is the same at every setting.
        scale: all settings, rising: Pillow's quality unless said otherwise. 100 is a lossless mode of its own in some.
    """

    name: str
    title: str
    form: str
    suffix: str
    present: Callable[[], bool]
    settings: Sequence[float]
    options: Mapping[str, Any]
    scale: Sequence[float] = range(100)

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        """The bytes of a complete file; ImageError if the format cannot hold the picture."""
        buffer = io.BytesIO()
        pixels = image[:, :, 0] if image.shape[2] == 1 else image
        try:
            Image.fromarray(pixels).save(buffer, self.form, **self.save_options(setting, image.shape[2]))
        except (OSError, ValueError, RuntimeError) as error:  # each format has its own way to say so
            height, width = image.shape[:2]
            raise ImageError(f"{self.title} cannot hold an image of {width}×{height} px") from error
        return buffer.getvalue()

    def save_options(self, setting: float, channels: int) -> dict[str, Any]:
        """Options of Pillow's `save`."""
        """What Pillow is told."""
        return {**self.options, "quality": round(setting)}

    def decode(self, data: bytes, channels: int = 3) -> Uint8Array:
        """The picture, uint8 (H, W, channels), from the bytes alone."""
        with Image.open(io.BytesIO(data), formats=[self.form]) as image:
            pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
        return pixels.reshape(*pixels.shape[:2], channels)


@dataclass(frozen=True)
class Jpeg2000(Peer):
    """JPEG 2000; a setting is the rate in bits per pixel."""

    def save_options(self, setting: float, channels: int) -> dict[str, Any]:
        """Options of Pillow's `save`."""
        bits = SOURCE_BITS * channels / 3
        rate = {"quality_mode": "rates", "quality_layers": [max(1.0, bits / setting)]}
        return {**self.options, **rate, "mct": int(channels == 3)}


def _built_in(feature: str) -> Callable[[], bool]:
    """Whether Pillow was built with a library."""
    return lambda: bool(features.check(feature))


def _jpegxl_present() -> bool:
    return "pillow-jxl-plugin" in plugins()


def _heic_present() -> bool:
    """Whether HEIC can be written, too."""
    return "pillow-heif" in plugins() and bool(import_module("pillow_heif").libheif_info()["HEIF"])


_JPEG = {"subsampling": "4:2:0", "optimize": True, "progressive": True}  # 4:4:4 needs 6 % more, at any rate to 40 dB
_AVIF = {"subsampling": "4:4:4", "advanced": {"tune": "psnr"}}  # -5 % against libavif's own choice, "iq"
_HEIC = {"enc_params": {"tune": "psnr", "chroma": "444"}}
_RATES = tuple(0.02 * 1.03**step for step in range(200))  # to 7 bits per pixel

PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("jpeg", "JPEG (4:2:0)", "JPEG", "jpg", _built_in("jpg"), (7, 15, 30, 60, 80, 90, 96), _JPEG),
        Peer(
            "webp",
            "WebP (method 6)",
            "WEBP",
            "webp",
            _built_in("webp"),
            (0, 12, 35, 65, 82, 92, 98),
            {"method": 6},  # the slowest
        ),
        # 6 is Pillow's default. Speed 0 takes 3 times as long as 1, for 0.3 % of the bytes and 0.03 dB (kodim05).
        *(
            Peer(
                name,
                f"AVIF (aom, speed {speed})",
                "AVIF",
                "avif",
                _built_in("avif"),
                (5, 20, 40, 58, 72, 83, 91),
                {"speed": speed, **_AVIF},
            )
            for name, speed in (("avif", 6), ("avif-slowest", 1))
        ),
        Jpeg2000(
            "jpeg2000",
            "JPEG 2000",
            "JPEG2000",
            "jp2",
            _built_in("jpg_2000"),
            (0.1, 0.2, 0.4, 0.8, 1.4, 2.1, 3.0),
            {"irreversible": True, "mct": 1},  # Pillow leaves the colour transform off unless told: twice the rate
            _RATES,
        ),
        # 7 is the default, 10 the slowest. Always 4:4:4, in a perceptual colour space; it has no tuning for PSNR.
        *(
            Peer(
                name,
                f"JPEG XL (effort {effort})",
                "JXL",
                "jxl",
                _jpegxl_present,
                (1, 20, 45, 65, 80, 90, 95),
                {"effort": effort},
            )
            for name, effort in (("jpegxl", 7), ("jpegxl-slowest", 10))
        ),
        # libheif's default; slower presets gained nothing.
        Peer("heic", "HEIC (x265, slow)", "HEIF", "heic", _heic_present, (0, 12, 24, 36, 48, 60, 74), _HEIC),
    )
}
# Those that a report on one's own pictures takes: one of each format, none that takes minutes.
REPORTED = ("jpeg", "webp", "avif", "jpegxl", "heic")


def choose_peers(names: Sequence[str] = tuple(PEERS)) -> tuple[list[Peer], list[str]]:
    """The codecs of these names, in the table's order, and the names of those that cannot be used here."""
    chosen = [PEERS[name] for name in PEERS if name in names]
    present = [peer for peer in chosen if peer.present()]
    return present, [peer.name for peer in chosen if peer not in present]


def encode_at_size(peer: Peer, image: Uint8Array, target_bytes: int) -> PeerFile:
    """The file nearest to a size; sizes are taken to rise with the setting, so that bisection finds it.

    Raises:
        ImageError: the format cannot hold the picture.
    """
    smaller, larger = _bisect(peer, image, lambda data: len(data) >= target_bytes)
    return min((smaller, larger), key=lambda file: abs(len(file.data) - target_bytes))


def encode_at_quality(peer: Peer, image: Uint8Array, is_enough: Callable[[Uint8Array], bool]) -> PeerFile | None:
    """The smallest file whose decoded picture is good enough; None if the format's best is not.

    Raises:
        ImageError: the format cannot hold the picture.
    """
    channels = image.shape[2]
    _, larger = _bisect(peer, image, lambda data: is_enough(peer.decode(data, channels)))
    return larger if is_enough(peer.decode(larger.data, channels)) else None


def _bisect(peer: Peer, image: Uint8Array, reached: Callable[[bytes], bool]) -> tuple[PeerFile, PeerFile]:
    """Files of neighbouring settings, the second being the first that reaches a goal, the last of all if none does."""
    files: dict[int, PeerFile] = {}

    def file(index: int) -> PeerFile:
        if index not in files:
            files[index] = PeerFile(peer.encode(image, peer.scale[index]), peer.scale[index])
        return files[index]

    low, high = 0, len(peer.scale) - 1
    if reached(file(low).data):
        return file(low), file(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(file(middle).data) else (middle, high)
    return file(low), file(high)
