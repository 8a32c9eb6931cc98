"""Write files whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a temporary file beside the path, then rename it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o644)  # mkstemp's own mode shuts out everyone else
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path: Path, content: object) -> None:
    """Write JSON, indented; infinities are refused, since JSON knows none."""
    write_whole(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
