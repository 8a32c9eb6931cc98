"""yoto-codec: one learned model, every quality, the same file on every machine.

import codec
data = codec.encode(image, quality=0.3)
image = codec.decode(data)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codec.bitstream import Header, Metadata
from codec.bitstream import unpack as read_header
from codec.errors import (
    BitstreamError,
    CodecError,
    CorruptError,
    ImageError,
    ModelMismatchError,
    NotYotoError,
    TooLargeError,
    TruncatedError,
    UnsupportedVersionError,
    WeightsError,
)

if TYPE_CHECKING:
    from codec.api import Codec, decode, encode

__all__ = [
    "BitstreamError",
    "Codec",
    "CodecError",
    "CorruptError",
    "Header",
    "ImageError",
    "Metadata",
    "ModelMismatchError",
    "NotYotoError",
    "TooLargeError",
    "TruncatedError",
    "UnsupportedVersionError",
    "WeightsError",
    "decode",
    "encode",
    "read_header",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch (2–3 s) at its first use, so that headers and errors do not pay for it."""
    if name in ("Codec", "decode", "encode"):
        return getattr(import_module("codec.api"), name)
    raise AttributeError(f"module 'codec' has no attribute '{name}'")
