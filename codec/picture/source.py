"""Where the bytes of a picture or a `.yoto` file may come from: memory, a path, a URL, a file that is open."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeAlias, TypeGuard

from codec.picture.url import locate

Source: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]


def is_source(given: Any) -> TypeGuard[Source]:
    """Whether something stands for bytes, and is no picture itself."""
    return isinstance(given, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(given, "read")


class NamedBytes(io.BytesIO):
    """Bytes in memory that know, for errors, where they came from."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def local_file(source: Source) -> Path | BinaryIO:
    """A path on this machine as it is; else the bytes as a file in which one may go back.

    Raises:
        CodecError: a URL that its server refuses, or for which fsspec, or what it needs, is not installed.
        OSError: it cannot be read.
    """
    if isinstance(source, str):
        place = locate(source)
        return place if isinstance(place, Path) else NamedBytes(place.read_bytes(), source)
    return Path(source) if isinstance(source, os.PathLike) else io.BytesIO(read_bytes(source))


def read_bytes(source: Source) -> bytes:
    """All bytes; errors as of `local_file`."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str):
        return locate(source).read_bytes()
    if isinstance(source, os.PathLike):
        return Path(source).read_bytes()
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError(f"the file gives {type(data).__name__}; open it in binary mode")
    return data
