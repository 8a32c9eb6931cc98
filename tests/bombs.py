"""Forged files that ask for the most memory: the peak of the process that decodes each.

    python -m tests.bombs

builds them for the shipped weights, decodes each in a fresh process, and exits with 1 if one takes more than 1.5 GiB.
Larger weights take more: measure again when others are shipped. The last file takes minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from benchmarks.memory import peak_mib
from codec.api import default_codec
from codec.errors import CodecError
from codec.format.bitstream import NO_MODEL, Header, Metadata, pack, pack_alpha, unpack
from codec.picture.plain import compress, pixels_crc

ROOT = Path(__file__).parent.parent
BOUND_MIB = 1536
WIDTH, HEIGHT = 8192, 12288  # 100.7 megapixels, whole tiles of 2048 px
Part = tuple[bytes, int]  # a section, and the CRC of what it holds


def symbols(side: int) -> Part:
    """The symbols of a tile of noise."""
    noise = np.random.default_rng(0).integers(100, 150, (side, side, 3)).astype(np.uint8)
    data = default_codec().encode(noise, effort=0, tile_px=2048)
    (section,) = unpack(data).tiles
    return section.read(data, "the tile"), section.content_crc


def black(side: int, *, masked: bool = False) -> Part:
    """A plain section of black pixels, with a mask of no block if it stands beside symbols."""
    pixels = np.zeros((side, side, 3), np.uint8)
    mask = bytes((side // 32) ** 2 // 8) if masked else b""
    return mask + compress(pixels), pixels_crc(pixels)


def plain(width: int, height: int, tile_px: int, *, alpha: bool = False) -> bytes:
    """A file of plain tiles alone."""
    header = Header(width, height, 2048, NO_MODEL, tile_px=tile_px, lossless=True, alpha=alpha)
    packed = pack_alpha(bytes(width * height)) if alpha else b""
    return pack(header, [(b"", 0)] * header.tile_count, packed, plain=[black(tile_px)] * header.tile_count)


def everything() -> bytes:
    """Tiles of the largest size that is accepted, with plain blocks and alpha; symbols in the last three rows.

    A decoder holds the latents of three rows at a time, so that those of others would take time and no more memory.
    """
    header = Header(WIDTH, HEIGHT, 2048, default_codec().model.id, tile_px=2048, alpha=True)
    learned = 3 * WIDTH // 2048
    other = header.tile_count - learned
    sections = [black(2048)] * other + [black(2048, masked=True)] * learned
    return pack(
        header, [(b"", 0)] * other + [symbols(2048)] * learned, pack_alpha(bytes(WIDTH * HEIGHT)), plain=sections
    )


def one_tile() -> bytes:
    """A header whose one tile is the whole picture: refused."""
    return pack(Header(9984, 9984, 2048, default_codec().model.id, tile_px=9984), [(bytes(3), 0)])


def metadata() -> bytes:
    """100 MiB of profile behind a picture of one block."""
    header = Header(64, 64, 2048, default_codec().model.id, tile_px=64)
    return pack(header, [symbols(64)], metadata=Metadata(icc_profile=bytes(100 << 20)))


BOMBS: dict[str, Callable[[], bytes]] = {
    "one tile of 9984² px": one_tile,
    "100 MiB of metadata": metadata,
    "plain tiles of 64² px": lambda: plain(9984, 9984, 64),
    "plain tiles of 2048² px": lambda: plain(WIDTH, HEIGHT, 2048),
    "plain tiles of 2048² px, alpha": lambda: plain(WIDTH, HEIGHT, 2048, alpha=True),
    "symbols, plain, alpha, tiles of 2048² px": everything,
}


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Print the peak memory of a process that decodes each file."""
    if context.invoked_subcommand:
        return
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bomb.yoto")
        for name, make in BOMBS.items():
            file.write_bytes(make())
            command = [sys.executable, "-m", "tests.bombs", "decode-step", str(file)]
            done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
            outcome, loaded, peak = json.loads(done.stdout)
            worst = max(worst, peak)
            click.echo(f"{name:42} {file.stat().st_size:>11} B  {peak:5.0f} MiB, {loaded:.0f} before it  {outcome}")
    click.echo(f"weights {default_codec().model.id.hex()}: at most {worst:.0f} MiB; the bound is {BOUND_MIB}")
    sys.exit(worst > BOUND_MIB)


@main.command(hidden=True)
@click.argument("file", type=click.Path(path_type=Path))
def decode_step(file: Path) -> None:
    """In a fresh process: decode a file with a model that is loaded and has been used."""
    codec = default_codec()
    codec.decode(codec.encode(np.zeros((64, 64, 3), np.uint8)))
    loaded = peak_mib()
    try:
        outcome = "decoded {}×{}".format(*codec.decode(file).size)
    except CodecError as error:
        outcome = type(error).__name__
    click.echo(json.dumps([outcome, loaded, peak_mib()]))


if __name__ == "__main__":
    main()
