"""A self-contained HTML page about one's own pictures: ours and other formats beside what they are stored as now."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from codec.app.files import read_input
from codec.metrics import Uint8Array, psnr_db
from codec.peers import Peer, encode_at_quality, encode_at_size
from codec.picture.image import Planes, open_image, to_pil, to_planes
from codec.picture.source import NamedBytes
from codec.picture.url import Url

if TYPE_CHECKING:
    from codec.api import Codec

OURS = "yoto-codec"
THUMBNAIL_PX = 320
CSS = """
:root { color-scheme: light dark; --line: #8886; --quiet: #666; --ground: #fff; --text: #1a1a1a; --ours: #d1344b22; }
@media (prefers-color-scheme: dark) { :root { --quiet: #aaa; --ground: #16181b; --text: #e6e6e6; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 56rem; font: 16px/1.5 system-ui, sans-serif;
  color: var(--text); background: var(--ground); }
h1, h2 { line-height: 1.2; overflow-wrap: anywhere; } h2 { margin-top: 2.5rem; font-size: 1.15rem; }
p.note, figcaption { color: var(--quiet); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: .3rem; }
th { white-space: normal; vertical-align: bottom; }
tr.ours td { background: var(--ours); font-weight: 600; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; max-width: 42rem; }
figure { margin: 0 0 .8rem; } img { width: 100%; display: block; }
"""


class Line(NamedTuple):
    """What a format makes of a picture beside our file of it; None where it cannot be had.

    Attributes:
        name: of the format.
        bytes: its smallest file of our PSNR or more.
        psnr_db: of its file that is nearest to our bytes, infinite if nothing is lost.
        nearest_bytes: size of that file.
    """

    name: str
    bytes: int | None
    psnr_db: float
    nearest_bytes: int


class Entry(NamedTuple):
    """A picture: how it is stored, our file of it, and the other formats' files."""

    name: str
    form: str  # Pillow's name of what it is stored as
    stored_bytes: int
    width: int
    height: int
    lines: list[Line]  # ours first
    thumbnails: tuple[bytes, bytes]  # WebP, of the picture and of ours


def measure(place: Path | Url, codec: Codec, quality: float, peers: Sequence[Peer]) -> Entry:
    """Encode a picture's colours, without its alpha and metadata, with ours and to match with the peers.

    Raises:
        CodecError: it cannot be read, or a format cannot hold it.
        OSError: as for reading.
    """
    stored = NamedBytes(read_input(place), str(place))
    image = open_image(stored)
    colour = to_planes(image).colour
    data = codec.encode(to_pil(Planes(colour)), quality)
    decoded = to_planes(codec.decode(data)).colour
    ours = psnr_db(colour, decoded)
    lines = [Line(OURS, len(data), ours, len(data)), *(compare(peer, colour, len(data), ours) for peer in peers)]
    height, width = colour.shape[:2]
    return Entry(
        place.name,
        image.format or "?",
        len(stored.getbuffer()),
        width,
        height,
        lines,
        (thumbnail(colour), thumbnail(decoded)),
    )


def compare(peer: Peer, colour: Uint8Array, our_bytes: int, our_psnr_db: float) -> Line:
    """A format at our PSNR, and at our bytes."""
    equal = encode_at_quality(peer, colour, lambda decoded: psnr_db(colour, decoded) >= our_psnr_db)
    nearest = encode_at_size(peer, colour, our_bytes).data
    reached = psnr_db(colour, peer.decode(nearest, colour.shape[2]))
    return Line(peer.title, None if equal is None else len(equal.data), reached, len(nearest))


def thumbnail(colour: Uint8Array) -> bytes:
    """A small WebP file of a picture."""
    image = to_pil(Planes(colour))
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def page(entries: Sequence[Entry], quality: float) -> str:
    """The whole page; it loads nothing from elsewhere."""
    count = f"{len(entries)} pictures" if len(entries) > 1 else "1 picture"
    parts = [
        f"<h1>{count} as .yoto files</h1>",
        f"<p>Encoded at quality {quality:g}. Beside our file each format is given twice: its smallest file that is at"
        " least as good as ours (PSNR), and its file nearest to our size. Sizes are of colours alone; what is stored"
        " now may hold transparency and metadata besides.</p>",
        *([summary(entries)] if len(entries) > 1 else []),
        *(section(entry) for entry in entries),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{count} as .yoto files</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def summary(entries: Sequence[Entry]) -> str:
    """All pictures together: sums of bytes, means of PSNR."""
    stored = sum(entry.stored_bytes for entry in entries)
    rows = [("stored now", size(stored), "", "")]
    for index, first in enumerate(entries[0].lines):
        lines = [entry.lines[index] for entry in entries]
        reached = [line.bytes for line in lines if line.bytes is not None]
        total = sum(reached) if len(reached) == len(lines) else None
        mean = sum(line.psnr_db for line in lines) / len(lines)
        rows.append((first.name, size(total), share(total, stored), decibels(mean)))
    return "<h2>All together</h2>" + table(("", "bytes at our PSNR", "of now", "mean dB at our bytes"), rows)


def section(entry: Entry) -> str:
    """One picture."""
    rows = [(f"stored now, {entry.form}", size(entry.stored_bytes), "", "", "")]
    rows += [
        (
            line.name,
            size(line.bytes),
            share(line.bytes, entry.stored_bytes),
            decibels(line.psnr_db),
            size(line.nearest_bytes),
        )
        for line in entry.lines
    ]
    figures = "".join(
        f'<figure><img src="data:image/webp;base64,{base64.b64encode(data).decode()}" alt="{name}">'
        f"<figcaption>{name}</figcaption></figure>"
        for name, data in zip(("as it is stored", OURS), entry.thumbnails, strict=True)
    )
    return (
        f"<h2>{escape(entry.name)}</h2><p class=note>{entry.width}×{entry.height} px</p>"
        f"<div class=pair>{figures}</div>"
        + table(("", "bytes at our PSNR", "of now", "dB at our bytes", "whose bytes are"), rows)
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, our row set off."""
    cells = "".join(f"<th>{cell}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=ours' if row[0] == OURS else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row in rows
    )
    return f"<div class=wide><table><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>"


def size(count: int | None) -> str:
    """Bytes, or that the format's best is not as good."""
    return "not reached" if count is None else f"{count:,}".replace(",", " ")


def share(count: int | None, stored: int) -> str:
    """Of what is stored now."""
    return "" if count is None else f"{100.0 * count / stored:.0f} %"


def decibels(value: float) -> str:
    """PSNR."""
    return f"{value:.2f}" if math.isfinite(value) else "lossless"
