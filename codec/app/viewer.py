"""Show a picture in the viewer of the system, which need not know `.yoto` files."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import click

from codec.errors import CodecError


def show(png: bytes, name: str, viewer: str | None) -> Path | None:
    """Open a PNG file.

    Args:
        png: its bytes.
        name: what the viewer shows as its name, without suffix.
        viewer: a command that takes the file's path and ends when the picture was seen; None for the system's.

    Returns:
        Where the file is, if it has to stay: the system's viewer may go on when its starter is done, and reads it then.

    Raises:
        CodecError: no viewer could be started.
    """
    folder = Path(tempfile.mkdtemp(prefix="yoto-view-"))  # which only this user may read
    path = folder / f"{name}.png"
    stays = False
    try:
        path.write_bytes(png)
        if viewer:
            code = subprocess.run([*shlex.split(viewer), str(path)]).returncode
        else:
            code = click.launch(str(path), wait=sys.platform == "linux")  # elsewhere it would wait for the viewer's end
            stays = code == 0
    finally:
        if not stays:
            shutil.rmtree(folder, ignore_errors=True)
    if code:
        raise CodecError("no viewer opened the picture; name one with --viewer, or use decode")
    return path if stays else None
