"""Results on disk."""

from __future__ import annotations

import json
from pathlib import Path

from codec.app.files import write_output


def write_json(path: Path, content: object) -> None:
    """Write JSON, indented, whole or not at all; infinities are refused, since JSON knows none."""
    write_output(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
