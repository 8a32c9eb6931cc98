"""Bytes in and out: pipes, URLs, and files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import BinaryIO, NoReturn

from codec.errors import CodecError
from codec.format.bitstream import MAGIC
from codec.picture.url import Url

STREAM = Path("-")
# Where a folder knows no second names (FAT, some shares), `os.link` fails with one of these.
NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK}

_temporaries: set[Path] = set()
_guard = threading.RLock()  # reentrant, since a signal's handler may interrupt whoever holds it


def check_input(path: Path) -> None:
    """Refuse, before any work, what is not there or would be read for ever.

    Raises:
        OSError: nothing is there, or no file: a folder, a device, or a named pipe, which may wait for its writer.
    """
    if path == STREAM:
        return
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    opened_already = stat.S_ISFIFO(mode) and str(path).startswith(("/dev/", "/proc/"))  # as by the shell's <(…)
    if not stat.S_ISREG(mode) and not opened_already:
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "no regular file"
        raise OSError(errno.EINVAL, f"is {kind}; what is to be read from a pipe is given as -", str(path))


def is_yoto(path: Path) -> bool:
    """Whether a file starts like a .yoto file; errors as of `check_input`."""
    check_input(path)
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def read_input(place: Path | Url) -> bytes:
    """All bytes of a file, or of standard input for `-`; errors as of `check_input` and `Url`."""
    if isinstance(place, Path):
        check_input(place)
    return sys.stdin.buffer.read() if place == STREAM else place.read_bytes()


def modified_ns(place: Path | Url) -> int | None:
    """When a file was last written, ns since 1970; None for a pipe. CodecError for a URL: few protocols tell."""
    if isinstance(place, Url):
        raise CodecError(f"{place}: --keep-time is for files of this machine")
    return None if place == STREAM else place.stat().st_mtime_ns


def is_taken(place: Path | Url) -> bool:
    """Whether a name is taken, be it by a link to nothing."""
    return place.exists() if isinstance(place, Url) else place != STREAM and os.path.lexists(place)


def refuse_existing(place: Path | Url, force: bool) -> None:
    """FileExistsError for a name that is taken, unless it may be overwritten.

    Devices and pipes lose nothing when they are written to.
    """
    if not force and is_taken(place) and not (isinstance(place, Path) and _is_device(place)):
        raise _exists(place)


def check_output(path: Path | Url, size_bytes: int = 0) -> None:
    """Refuse, before any work, what could not be written.

    Args:
        path: as for `write_output`.
        size_bytes: that the file will take at least.

    Raises:
        OSError: the folder is missing or may not be written, the name is too long, the disk is full.
        CodecError: fsspec, or what the protocol of a URL needs, is missing; the rest its server says later.
    """
    if isinstance(path, Url):
        path.check()
        return
    if path == STREAM:
        return
    with _naming(path):
        target, found = _destination(path)
        if found and not stat.S_ISREG(found.st_mode):
            return
        if found and found.st_nlink > 1:
            os.close(os.open(target, os.O_WRONLY))
        else:
            with _temporary(target):
                pass
        free = _free_bytes(target.parent)
        if free is not None and free < size_bytes:
            needed = f"{os.strerror(errno.ENOSPC)}: needed are {size_bytes} B at least, free {free} B"
            raise OSError(errno.ENOSPC, needed, str(path))


def write_output(path: Path | Url, data: bytes, *, new: bool = False, mtime_ns: int | None = None) -> None:
    """Write a file whole or not at all: a temporary file beside it, then a rename.

    What is there is overwritten where it lies, behind links, and keeps its mode and owner. A file of several names
    (hard links) keeps them, so it alone is written in place, after room for it has been made. Devices and pipes are
    written to.

    Args:
        path: the file, or `-` for standard output. What is said here of files holds for URLs as far as their servers
            see to it.
        data: its content.
        new: leave what is there, be it a link to nothing. Of several processes that write one file, one succeeds.
        mtime_ns: when it was modified, ns since 1970; None for now.

    Raises:
        FileExistsError: `new`, and the name is taken.
        OSError: it cannot be written; the error names `path`, whichever file was really touched.
        CodecError: a URL cannot be written.
    """
    if isinstance(path, Url):
        refuse_existing(path, force=not new)
        path.write_bytes(data)
        return
    if path == STREAM:
        with _naming(Path("standard output")):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        return
    with _naming(path):
        target, found = (path, None) if new and not _is_device(path) else _destination(path)
        if found and not stat.S_ISREG(found.st_mode):
            _write_to_device(target, data)
        elif found and found.st_nlink > 1:
            _write_in_place(target, data, mtime_ns)
        else:
            _write_beside(target, data, found, new, mtime_ns)


def _destination(path: Path) -> tuple[Path, os.stat_result | None]:
    """What a path leads to through links, and what is there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        found = None
    if found and stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return Path(os.path.realpath(path)), found


def _is_device(path: Path) -> bool:
    """Whether a path leads to what is neither a file nor a folder."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _write_to_device(path: Path, data: bytes) -> None:
    """Unlike `open`, fail at a named pipe that nobody reads, rather than wait."""
    with os.fdopen(os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0)), "wb") as file:
        os.set_blocking(file.fileno(), True)
        file.write(data)


def _write_in_place(path: Path, data: bytes, mtime_ns: int | None) -> None:
    with path.open("r+b") as file:
        size = os.fstat(file.fileno()).st_size
        if len(data) > size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(file.fileno(), 0, len(data))
            except OSError:
                file.truncate(size)
                raise
        file.write(data)
        file.truncate()
    if mtime_ns is not None:
        os.utime(path, ns=(mtime_ns, mtime_ns))


def _write_beside(path: Path, data: bytes, found: os.stat_result | None, new: bool, mtime_ns: int | None) -> None:
    with _temporary(path) as (temporary, file):
        file.write(data)
        file.close()
        if found:
            if hasattr(os, "chown"):
                with suppress(PermissionError):  # another's file becomes ours, as with any rename
                    os.chown(temporary, found.st_uid, found.st_gid)
            os.chmod(temporary, stat.S_IMODE(found.st_mode))
        if mtime_ns is not None:
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
        if new:
            _give_free_name(temporary, path)
        else:
            os.replace(temporary, path)


def _give_free_name(temporary: Path, path: Path) -> None:
    """Rename, but not over anything: who comes second gets FileExistsError."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        path.open("xb").close()  # the name is ours now
        os.replace(temporary, path)


@contextmanager
def _temporary(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside `path`, removed at the end if it is still there; its name is short, whatever the path's."""
    temporary = path.with_name(f".yoto-{secrets.token_hex(8)}.tmp")
    with _guard:
        _temporaries.add(temporary)
        file = temporary.open("xb")
    try:
        with file:
            yield temporary, file
    finally:
        temporary.unlink(missing_ok=True)
        _temporaries.discard(temporary)


def _free_bytes(folder: Path) -> int | None:
    """What a file may take at most on a folder's disk, or None if the system does not say so."""
    if not hasattr(os, "statvfs"):
        return None
    disk = os.statvfs(folder)
    return disk.f_bfree * disk.f_frsize if disk.f_blocks else None


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Make errors name the file that the user knows."""
    try:
        yield
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise type(error)(error.errno, error.strerror or str(error), str(path)) from error


def _exists(path: Path | Url) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "exists; give --force to overwrite it", str(path))


@contextmanager
def removed_when_stopped() -> Iterator[None]:
    """See to it that SIGTERM and SIGHUP leave no temporary file; they end the process all the same."""
    signals = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    ours = threading.current_thread() is threading.main_thread()  # where alone Python lets handlers be set
    signals = [number for number in signals if ours and signal.getsignal(number) is signal.SIG_DFL]
    for number in signals:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


def _stop(number: int, _: FrameType | None) -> NoReturn:
    _guard.acquire()  # and never released: no thread begins another file
    for temporary in list(_temporaries):
        temporary.unlink(missing_ok=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    raise SystemExit(128 + number)  # where the signal does not end the process at once
