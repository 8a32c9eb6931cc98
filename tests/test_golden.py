"""Files that every later release must decode. `python -m tests.test_golden` rewrites them: only with new weights.

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
from codec.picture.image import to_planes

FOLDER = Path(__file__).parent / "golden" / "v1"
NAMES = ("colour", "grey", "alpha", "odd", "tiles")


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


@pytest.mark.parametrize("name", NAMES)
def test_golden_file_decodes_to_its_picture(name: str) -> None:
    decoded = codec.decode((FOLDER / f"{name}.yoto").read_bytes())
    with Image.open(FOLDER / f"{name}.png") as image:
        expected = np.asarray(image).astype(int)
    assert np.abs(np.asarray(decoded).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_golden_header_is_as_written(name: str) -> None:
    header = codec.read_header((FOLDER / f"{name}.yoto").read_bytes())
    expected = json.loads((FOLDER / "headers.json").read_text())[name]
    crcs = [tile.content_crc for tile in header.tiles]
    assert expected == {
        "mode": header.mode,
        "quality": header.rate_point,
        "size": [header.width, header.height],
        "crcs": crcs,
    }


@pytest.mark.parametrize("name", NAMES)
def test_golden_picture_resembles_its_input(name: str) -> None:
    """Else a golden file could hold noise for ever."""
    source = to_planes(pictures()[name][0])
    with Image.open(FOLDER / f"{name}.png") as image:
        decoded = to_planes(image)
    assert np.square(source.colour.astype(float) - decoded.colour).mean() < 250.0
    if source.alpha is not None:
        np.testing.assert_array_equal(source.alpha, decoded.alpha)


def rewrite(coder: Codec) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    headers = {}
    for name, (picture, quality, tile_px) in pictures().items():
        data = coder.encode(picture, quality, tile_px=tile_px)
        (FOLDER / f"{name}.yoto").write_bytes(data)
        coder.decode(data).save(FOLDER / f"{name}.png")
        header = codec.read_header(data)
        headers[name] = {
            "mode": header.mode,
            "quality": header.rate_point,
            "size": [header.width, header.height],
            "crcs": [tile.content_crc for tile in header.tiles],
        }
    (FOLDER / "headers.json").write_text(json.dumps(headers, indent=1) + "\n")


if __name__ == "__main__":
    rewrite(default_codec())
