"""Files that lie elsewhere: `https://…`, `s3://…` and whatever else fsspec knows, named by URL."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from codec.errors import CodecError

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*"
_URL = re.compile(rf"({_SCHEME}::)*{_SCHEME}://")  # fsspec chains protocols: `simplecache::s3://…`
_EXTRA = "pip install 'yoto-codec[remote]'"


@dataclass(frozen=True)
class Url:
    """A file, or a folder to put files into, that fsspec reaches; what it can do is named as in `Path`.

    Errors of `exists`, `read_bytes` and `write_bytes` are those of the file system, or a CodecError of one line: for
    which of fsspec and the protocol's own package is missing, and for what the server says.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __truediv__(self, below: str | os.PathLike[str]) -> Url:
        parts = PurePosixPath(Path(below).as_posix()).parts  # none for "."
        return Url("/".join([self.text.rstrip("/"), *parts])) if parts else self

    @property
    def name(self) -> str:
        """The last part, without a query."""
        text = next(part for part in self.text.split("::") if "://" in part)
        if text.startswith(("http://", "https://")):
            parts = urlsplit(text)
            return PurePosixPath(parts.netloc + unquote(parts.path)).name
        return text.partition("://")[2].rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """Of the name, with its dot."""
        return Path(self.name).suffix

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return Path(self.name).stem

    def exists(self) -> bool:
        """Whether the server has such a file."""
        with self._errors("read"):
            fs, path = self._resolve()
            return bool(fs.exists(path))

    def read_bytes(self) -> bytes:
        """All of the file."""
        with self._errors("read"):
            fs, path = self._resolve()
            return bytes(fs.cat_file(path))

    def write_bytes(self, data: bytes) -> None:
        """Make or overwrite the file; the folder is taken to exist, as it always does in stores of objects."""
        with self._errors("written"):
            fs, path = self._resolve()
            fs.pipe_file(path, data)

    def check(self) -> None:
        """CodecError if a package is missing."""
        self._resolve()

    def files(self, pattern: str) -> list[str]:
        """The files below that a pattern stands for, each by its path from here, sorted."""
        with self._errors("read"):
            fs, root = self._resolve()
            found = fs.glob(f"{root.rstrip('/')}/{pattern}", detail=True)
            names = [name for name, about in found.items() if about["type"] == "file"]
            return sorted(name.removeprefix(root.rstrip("/")).lstrip("/") for name in names)

    def _resolve(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise CodecError(f"{self} cannot be opened: URLs need fsspec, {_EXTRA}") from error
        try:
            fs, path = url_to_fs(self.text)
        except (ImportError, ValueError) as error:  # fsspec names the package, or the scheme that is no one's
            reason = " ".join(str(error).split())
            hint = f"; {_EXTRA}" if "aiohttp" in reason else ""
            raise CodecError(f"{self} cannot be opened: {reason}{hint}") from error
        return fs, path

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        """Say in one line what became of it; every protocol's client has errors of its own."""
        try:
            yield
        except CodecError:
            raise
        except FileNotFoundError as error:  # whose words are the URL alone
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.text) from error
        except TimeoutError as error:  # whose words are none
            raise CodecError(f"{self} cannot be {done}: no answer in time") from error
        except NotImplementedError as error:
            raise CodecError(f"{self} cannot be {done}: its protocol offers no way") from error
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise CodecError(f"{self} cannot be {done}: {reason}") from error


def is_url(text: str) -> bool:
    """Whether a text names a file by URL, and not by its path."""
    return _URL.match(text) is not None


def locate(text: str) -> Path | Url:
    """The file that a text names; one on this machine (`file://`) is a path."""
    if not is_url(text):
        return Path(text)
    if not text.lower().startswith("file://"):
        return Url(text)
    from urllib.request import url2pathname  # brings all of HTTP and TLS along

    return Path(url2pathname(urlsplit(text).path))
