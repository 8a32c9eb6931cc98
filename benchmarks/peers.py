"""The codecs that ours is compared with: Pillow's formats, and two that plugins add.

Pictures are uint8 (H, W, 3). Options are those that gave the best PSNR in RGB on a few Kodak images. Imports no torch,
so that the memory of a process with one of these codecs is the codec's own.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, features

if TYPE_CHECKING:
    from codec.picture.image import Uint8Array

SOURCE_BITS = 24.0  # per pixel; Pillow takes JPEG 2000's rate as a ratio to it


@dataclass(frozen=True)
class Peer:
    """A format that Pillow writes and reads; a setting is its quality, 0 to 100."""

    name: str
    title: str  # for people
    form: str  # Pillow's name of the format
    present: Callable[[], bool]  # whether it can be used here; loads the plugin
    settings: Sequence[float]
    options: Mapping[str, Any]

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        """The bytes of a complete file."""
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, self.form, **self.options, **self.rate_option(setting))
        return buffer.getvalue()

    def rate_option(self, setting: float) -> dict[str, Any]:
        """The option of Pillow's that chooses the rate."""
        return {"quality": round(setting)}

    def decode(self, data: bytes) -> Uint8Array:
        """The picture, from the bytes alone."""
        with Image.open(io.BytesIO(data), formats=[self.form]) as image:
            return np.asarray(image.convert("RGB"))


@dataclass(frozen=True)
class Jpeg2000(Peer):
    """JPEG 2000; a setting is the rate in bits per pixel."""

    def rate_option(self, setting: float) -> dict[str, Any]:
        return {"quality_mode": "rates", "quality_layers": [SOURCE_BITS / setting]}


def built_in(feature: str) -> Callable[[], bool]:
    """Whether Pillow was built with a library."""
    return lambda: bool(features.check(feature))


def jpegxl_present() -> bool:
    """Whether the plugin pillow-jxl-plugin is installed; registers it."""
    return plugin("pillow_jxl") is not None


def heic_present() -> bool:
    """Whether the plugin pillow-heif is installed and can write HEIC; registers it."""
    heif = plugin("pillow_heif")
    if heif is None or not heif.libheif_info()["HEIF"]:
        return False
    heif.register_heif_opener()
    return True


def plugin(module: str) -> Any:
    """The module, or None if it is not installed. One that is broken raises."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


QUALITY_MAX = 99  # 100 is a lossless mode of its own in some
AVIF_SETTINGS = (5, 20, 40, 58, 72, 83, 91)
AVIF_OPTIONS = {"subsampling": "4:4:4", "advanced": {"tune": "psnr"}}  # -5 % against libavif's own choice, "iq"
JPEGXL_SETTINGS = (1, 20, 45, 65, 80, 90, 95)
PEERS: tuple[Peer, ...] = (
    # 4:4:4 needs 6 % more than 4:2:0, at any rate up to 40 dB.
    Peer(
        "jpeg",
        "JPEG",
        "JPEG",
        built_in("jpg"),
        (7, 15, 30, 60, 80, 90, 96),
        {"subsampling": "4:2:0", "optimize": True, "progressive": True},
    ),
    Peer("webp", "WebP", "WEBP", built_in("webp"), (0, 12, 35, 65, 82, 92, 98), {"method": 6}),
    Peer("avif", "AVIF", "AVIF", built_in("avif"), AVIF_SETTINGS, {"speed": 6, **AVIF_OPTIONS}),  # 6: Pillow's default
    Peer("avif-slow", "AVIF (slow)", "AVIF", built_in("avif"), AVIF_SETTINGS, {"speed": 4, **AVIF_OPTIONS}),
    # Pillow leaves the colour transform (mct) off unless told: twice the rate.
    Jpeg2000(
        "jpeg2000",
        "JPEG 2000",
        "JPEG2000",
        built_in("jpg_2000"),
        (0.1, 0.2, 0.4, 0.8, 1.4, 2.1, 3.0),
        {"irreversible": True, "mct": 1},
    ),
    # Always 4:4:4, in a perceptual colour space; it has no tuning for PSNR.
    Peer("jpegxl", "JPEG XL", "JXL", jpegxl_present, JPEGXL_SETTINGS, {"effort": 7}),  # 7: default
    Peer("jpegxl-slow", "JPEG XL (slow)", "JXL", jpegxl_present, JPEGXL_SETTINGS, {"effort": 9}),
    # x265; its slower presets than libheif's default, "slow", gained nothing.
    Peer(
        "heic",
        "HEIC (x265)",
        "HEIF",
        heic_present,
        (0, 12, 24, 36, 48, 60, 74),
        {"enc_params": {"tune": "psnr", "chroma": "444"}},
    ),
)
PEER_NAMES = tuple(peer.name for peer in PEERS)
TITLES = {peer.name: peer.title for peer in PEERS}


def choose_peers(names: Sequence[str]) -> tuple[list[Peer], list[str]]:
    """The codecs of these names, and the names of those that cannot be used here."""
    chosen = [peer for peer in PEERS if peer.name in names]
    present = [peer for peer in chosen if peer.present()]
    return present, [peer.name for peer in chosen if peer not in present]


def match_bytes(peer: Peer, image: Uint8Array, target: int) -> int:
    """The quality, 0 to 99, at which a codec's file comes nearest to `target` bytes; sizes rise with quality."""
    sizes: dict[int, int] = {}

    def size(quality: int) -> int:
        return sizes.setdefault(quality, len(peer.encode(image, quality)))

    low, high = 0, QUALITY_MAX
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    return min((low, high), key=lambda quality: abs(size(quality) - target))
