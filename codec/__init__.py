"""yoto-codec: one learned model, every quality, the same file on every machine.

import codec
data = codec.encode(image, quality=0.3)
image = codec.decode(data)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from codec.format.bitstream import Header, Metadata
from codec.format.bitstream import unpack as read_header

if TYPE_CHECKING:
    from codec.api import Codec, decode, encode
    from codec.picture.image import scale_levels
    from codec.target import encode_to_target

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
    "encode_to_target",
    "read_header",
    "register_pillow",
    "scale_levels",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch (2–3 s) at its first use, so that headers and errors do not pay for it."""
    if name in ("Codec", "decode", "encode"):
        return getattr(import_module("codec.api"), name)
    if name == "encode_to_target":
        return import_module("codec.target").encode_to_target
    if name == "scale_levels":
        return import_module("codec.picture.image").scale_levels
    raise AttributeError(f"module 'codec' has no attribute '{name}'")


def register_pillow() -> None:
    """Let Pillow open and save `.yoto` files, as `import codec.pillow` does; a second call changes nothing."""
    import_module("codec.pillow").register()
