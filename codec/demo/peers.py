"""JPEG, WebP and AVIF at a given size: what the demo shows beside a `.yoto` file of as many bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from codec.errors import ImageError
from codec.picture.image import Planes, Uint8Array, open_image, to_pil, to_planes

QUALITY_MIN, QUALITY_MAX = 1, 100  # Pillow's scale

# Options that do well in PSNR, as in benchmarks/peers.py, but for WebP's method, which is Pillow's own.
PEERS: Mapping[str, Mapping[str, object]] = {
    "jpeg": {"subsampling": "4:2:0", "optimize": True, "progressive": True},
    "webp": {"method": 4},
    "avif": {"subsampling": "4:4:4", "advanced": {"tune": "psnr"}},
}


class PeerFile(NamedTuple):
    """A file of a peer's, and Pillow's quality that it was written with."""

    data: bytes
    quality: int


def encode_at_size(colour: Uint8Array, peer: str, limit_bytes: int) -> PeerFile:
    """Compress to the largest file of at most `limit_bytes`; to the smallest of all if none is so small.

    Sizes are taken to grow with the quality: bisection, eight files at most.

    Args:
        colour: uint8 (H, W, 3) or (H, W, 1).
        peer: a name of PEERS.
        limit_bytes: size to come close to from below.

    Raises:
        ImageError: the format cannot hold the image.
    """
    low, high = QUALITY_MIN, QUALITY_MAX
    best = PeerFile(encode_peer(colour, peer, low), low)
    if len(best.data) > limit_bytes:
        return best
    while low < high:
        middle = (low + high + 1) // 2
        data = encode_peer(colour, peer, middle)
        if len(data) <= limit_bytes:
            best, low = PeerFile(data, middle), middle
        else:
            high = middle - 1
    return best


def decode_peer(data: bytes, channels: int) -> Uint8Array:
    """Decode a peer's file to uint8 (H, W, channels), three channels or one."""
    image = open_image(io.BytesIO(data))
    return to_planes(image.convert("RGB" if channels == 3 else "L")).colour


def writable_peers() -> list[str]:
    """The peers that this Pillow was built with."""
    return [peer for peer in PEERS if _is_writable(peer)]


def _is_writable(peer: str) -> bool:
    try:
        encode_peer(np.zeros((8, 8, 1), np.uint8), peer, QUALITY_MIN)
    except KeyError:  # Pillow's word for a format that it does not know
        return False
    return True


def encode_peer(colour: Uint8Array, peer: str, quality: int) -> bytes:
    """Compress with Pillow's quality; ImageError if the format cannot hold the image."""
    buffer = io.BytesIO()
    try:
        to_pil(Planes(colour)).save(buffer, peer.upper(), quality=quality, **PEERS[peer])
    except (OSError, ValueError, RuntimeError) as error:  # each format has its own way to say so
        height, width = colour.shape[:2]
        raise ImageError(f"{peer.upper()} cannot hold an image of {width}×{height} px") from error
    return buffer.getvalue()
