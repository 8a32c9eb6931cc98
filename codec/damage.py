"""What of a file could not be decoded, for those who want the rest of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from codec.errors import CorruptError
from codec.format.bitstream import Region

T = TypeVar("T")


class Damage(NamedTuple):
    """A part of a file that could not be decoded.

    Attributes:
        reason: one line that names the part.
        tile: its number, if it is a tile.
        region: x, y, width and height of the pixels that it should have held, if it is a tile.
    """

    reason: str
    tile: int | None = None
    region: Region | None = None


def unless_damaged(
    read: Callable[[], T], found: list[Damage] | None, tile: int | None = None, region: Region | None = None
) -> T | None:
    """What `read` returns, or None and an entry in `found` if its data is damaged; without `found`, CorruptError."""
    try:
        return read()
    except CorruptError as error:
        if found is None:
            raise
        found.append(Damage(str(error), tile, region))
        return None
