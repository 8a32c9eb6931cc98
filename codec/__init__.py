"""yoto-codec: one learned model, every quality, the same file on every machine.

    import codec
    data = codec.encode("in.png", quality=0.3)
    image = codec.decode(data)

`encode` and `decode` take paths, open files and bytes; `encode` also PIL images, arrays and tensors. `Codec` is a
loaded model, for other weights or devices. `encode_to_target` chooses the quality for a wanted size or PSNR,
`read_header` says what a file is without decoding it, `register_pillow` makes `.yoto` a format of Pillow's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from codec.errors import (
    BitstreamError,
    CodecError,
    CorruptError,
    ImageError,
    LossWarning,
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

    __version__: str

__all__ = [
    "BitstreamError",
    "Codec",
    "CodecError",
    "CorruptError",
    "Header",
    "ImageError",
    "LossWarning",
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
    if name == "__version__":
        return import_module("importlib.metadata").version("yoto-codec")
    raise AttributeError(f"module 'codec' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, imported or not yet."""
    return sorted({*globals(), *__all__, "__version__"})


def register_pillow() -> None:
    """Let Pillow open and save `.yoto` files, as `import codec.pillow` does; a second call changes nothing."""
    import_module("codec.pillow").register()
