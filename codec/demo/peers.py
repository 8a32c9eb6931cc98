"""Other formats' files, of about as many bytes as a `.yoto` file, that the demo shows beside it."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from codec.errors import ImageError
from codec.format.bitstream import QUALITY_MAX as RATE_POINTS
from codec.picture.formats import plugins
from codec.picture.image import Planes, Uint8Array, open_image, to_pil, to_planes
from codec.target import search

QUALITY_MIN, QUALITY_MAX = 1, 99  # Pillow's scale; 100 is a lossless mode of its own in some
PATIENT_PX = 1_000_000  # up to which the encoders may take seconds
SIZE_TOLERANCE = 0.002  # of ln(bytes): nearer need not be looked for
SIZE_RISE = 3.0  # of ln(bytes) over the whole scale, a first guess

Effort = tuple[Mapping[str, object], str]  # options, and in words


@dataclass(frozen=True)
class Peer:
    """A format that Pillow writes.

    Attributes:
        title: for people.
        form: Pillow's name.
        options: those that do well in PSNR, as in benchmarks/peers.py.
        patient, quick: what else is given for small and for large pictures.
    """

    title: str
    form: str
    options: Mapping[str, object]
    patient: Effort
    quick: Effort

    def effort(self, colour: Uint8Array) -> Effort:
        """The best that is sensible for a picture of this size."""
        return self.patient if colour.shape[0] * colour.shape[1] <= PATIENT_PX else self.quick


_JPEG: Effort = ({}, "progressive, optimised")
_WEBP: Effort = ({"method": 6}, "method 6, its slowest")
_HEIC: Effort = ({}, "x265, preset slow")
PEERS: Mapping[str, Peer] = {
    "jpeg": Peer(
        "JPEG", "JPEG", {"subsampling": "4:2:0", "optimize": True, "progressive": True}, patient=_JPEG, quick=_JPEG
    ),
    "webp": Peer("WebP", "WEBP", {}, patient=_WEBP, quick=_WEBP),
    "avif": Peer(
        "AVIF",
        "AVIF",
        {"subsampling": "4:4:4", "advanced": {"tune": "psnr"}},
        patient=({"speed": 4}, "aom, speed 4"),
        quick=({"speed": 6}, "aom, speed 6"),
    ),
    "jxl": Peer("JPEG XL", "JXL", {}, patient=({"effort": 9}, "effort 9"), quick=({"effort": 7}, "effort 7")),
    "heic": Peer("HEIC", "HEIF", {"enc_params": {"tune": "psnr", "chroma": "444"}}, patient=_HEIC, quick=_HEIC),
}


@dataclass(frozen=True)
class PeerFile:
    """A file of a peer's, Pillow's quality that it was written with, and the encoder's effort in words."""

    data: bytes
    quality: int
    effort: str


def encode_at_size(
    colour: Uint8Array, peer: str, size_bytes: int, check: Callable[[], None] = lambda: None
) -> PeerFile:
    """Compress to the file whose size is nearest, in ratio.

    Args:
        colour: uint8 (H, W, 3) or (H, W, 1).
        peer: a name of PEERS.
        size_bytes: size to come close to, from either side.
        check: called before each of the files that are tried; what it raises ends the search.

    Raises:
        ImageError: the format cannot hold the image.
    """

    @cache
    def encode(quality: int) -> bytes:
        check()
        return encode_peer(colour, peer, quality)

    def quality_at(point: int) -> int:
        return QUALITY_MIN + round((QUALITY_MAX - QUALITY_MIN) * point / RATE_POINTS)

    point = search(lambda p: math.log(len(encode(quality_at(p)))), math.log(size_bytes), SIZE_TOLERANCE, SIZE_RISE)
    quality = quality_at(point)
    return PeerFile(encode(quality), quality, PEERS[peer].effort(colour)[1])


def decode_peer(data: bytes, channels: int) -> Uint8Array:
    """Decode a peer's file to uint8 (H, W, channels), three channels or one."""
    image = open_image(io.BytesIO(data))
    return to_planes(image.convert("RGB" if channels == 3 else "L")).colour


@cache
def writable_peers() -> tuple[str, ...]:
    """The peers that this Pillow and its plugins write."""
    plugins()
    return tuple(peer for peer in PEERS if _is_writable(peer))


def _is_writable(peer: str) -> bool:
    try:
        encode_peer(np.zeros((8, 8, 3), np.uint8), peer, QUALITY_MIN)
    except (KeyError, ImageError):  # Pillow's word for a format that it does not know; a plugin without encoder
        return False
    return True


def encode_peer(colour: Uint8Array, peer: str, quality: int) -> bytes:
    """Compress with Pillow's quality; ImageError if the format cannot hold the image."""
    form, options, (effort, _) = PEERS[peer].form, PEERS[peer].options, PEERS[peer].effort(colour)
    buffer = io.BytesIO()
    try:
        to_pil(Planes(colour)).save(buffer, form, quality=quality, **options, **effort)
    except (OSError, ValueError, RuntimeError) as error:  # each format has its own way to say so
        height, width = colour.shape[:2]
        raise ImageError(f"{PEERS[peer].title} cannot hold an image of {width}×{height} px") from error
    return buffer.getvalue()
