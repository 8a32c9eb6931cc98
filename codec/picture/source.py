"""Where the bytes of a picture or a `.yoto` file may come from: memory, a path, a URL, a file that is open."""

from __future__ import annotations

import errno
import io
import os
from typing import IO, Any, BinaryIO, TypeAlias, TypeGuard

from codec.errors import CodecError

Source: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | IO[bytes]


def is_source(given: Any) -> TypeGuard[Source]:
    """Whether something stands for bytes, and is no picture itself."""
    return isinstance(given, bytes | bytearray | memoryview | str | os.PathLike) or hasattr(given, "read")


def local_file(source: Source) -> str | os.PathLike[str] | BinaryIO:
    """A path on this machine as it is; else the bytes as a file in which one may go back.

    Raises:
        CodecError: a URL that its server refuses, or for which fsspec, or what it needs, is not installed.
        OSError: it cannot be read.
    """
    if isinstance(source, os.PathLike) or (isinstance(source, str) and "://" not in source):
        return source
    return io.BytesIO(read_bytes(source))


def read_bytes(source: Source) -> bytes:
    """All bytes; errors as of `local_file`."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, str) and "://" in source:
        return _fetch(source)
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read()
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError(f"the file gives {type(data).__name__}; open it in binary mode")
    return data


def _fetch(url: str) -> bytes:
    try:
        import fsspec

        with fsspec.open(url, "rb") as file:
            return bytes(file.read())
    except FileNotFoundError as error:  # whose words are the URL alone
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except (ImportError, ValueError) as error:  # fsspec's words for a package that is missing and a scheme of no one's
        raise CodecError(f"{url} cannot be opened: {error}; pip install 'yoto-codec[remote]'") from error
    except Exception as error:  # every protocol's client has its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CodecError(f"{url} cannot be read: {reason}") from error
