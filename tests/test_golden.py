"""Files that every later release must decode. `python -m tests.test_golden` adds those of new default weights.

Decoding checks the CRC of the integers in each file, so the entropy path is held exactly; pixels may differ by one.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

import codec
from codec.api import Codec, default_codec
from codec.network.weights import DEFAULT_ID
from codec.picture.image import to_planes

GOLDEN = Path(__file__).parent / "golden"
NAMES = ("colour", "grey", "alpha", "odd", "tiles")
# One folder for each set of weights that was shipped, named by its id; the first edition's is v1.
FILES = pytest.mark.parametrize(
    "path",
    [path.parent / name for path in sorted(GOLDEN.glob("*/headers.json")) for name in NAMES],
    ids=lambda p: "-".join(p.parts[-2:]),
)


def pictures() -> dict[str, tuple[np.ndarray, float, int]]:
    """Input, quality and tile size of each golden file."""
    face = skimage.data.astronaut()[:128, 160:320]
    alpha = np.dstack([face, np.tile(np.arange(160, dtype=np.uint8), (128, 1))])
    return {
        "colour": (face, 0.3, 1024),
        "grey": (face[:, :, 1], 0.6, 1024),
        "alpha": (alpha, 0.0, 1024),
        "odd": (face[:65, :1], 1.0, 1024),
        "tiles": (face, 0.8, 64),
    }


@FILES
def test_golden_file_decodes_to_its_picture(path: Path) -> None:
    decoded = codec.decode(path.with_suffix(".yoto").read_bytes())
    with Image.open(path.with_suffix(".png")) as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(np.asarray(decoded).astype(int) - expected).max() <= 1


@FILES
def test_golden_header_is_as_written(path: Path) -> None:
    header = codec.read_header(path.with_suffix(".yoto").read_bytes())
    expected = json.loads(path.with_name("headers.json").read_text())[path.name]
    crcs = [tile.content_crc for tile in header.tiles]
    assert expected == {
        "mode": header.mode,
        "quality": header.rate_point,
        "size": [header.width, header.height],
        "crcs": crcs,
    }


@FILES
def test_golden_picture_resembles_its_input(path: Path) -> None:
    """Else a golden file could hold noise for ever."""
    source = to_planes(pictures()[path.name][0])
    with Image.open(path.with_suffix(".png")) as image:
        decoded = to_planes(image)
    assert np.square(source.colour.astype(float) - decoded.colour).mean() < 250.0
    if source.alpha is not None:
        np.testing.assert_array_equal(source.alpha, decoded.alpha)


def write(coder: Codec, folder: Path) -> None:
    folder.mkdir()
    headers = {}
    for name, (picture, quality, tile_px) in pictures().items():
        data = coder.encode(picture, quality, tile_px=tile_px)
        (folder / f"{name}.yoto").write_bytes(data)
        coder.decode(data).save(folder / f"{name}.png")
        header = codec.read_header(data)
        headers[name] = {
            "mode": header.mode,
            "quality": header.rate_point,
            "size": [header.width, header.height],
            "crcs": [tile.content_crc for tile in header.tiles],
        }
    (folder / "headers.json").write_text(json.dumps(headers, indent=1) + "\n")


if __name__ == "__main__":
    write(default_codec(), GOLDEN / DEFAULT_ID.hex())
