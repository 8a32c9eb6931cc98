"""What codecs make of the same picture in the same number of bytes: crops to be shown side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks.codecs import ImageCodec
from benchmarks.dataset import Dataset, load_rgb
from benchmarks.summary import title
from codec.metrics import psnr_db
from codec.peers import Peer, encode_at_size
from codec.picture.image import Uint8Array

PEERS = ("jpeg", "webp", "avif-slowest", "jpegxl-slowest")
WIDTH_PX, HEIGHT_PX = 288, 216


class Place(NamedTuple):
    """Where to look: a Kodak image and the upper left corner of the crop, px."""

    image: str
    left: int
    top: int


# Machines with lettering, a face with wool, a fence with clouds.
PLACES = (Place("kodim05.png", 170, 130), Place("kodim15.png", 350, 20), Place("kodim19.png", 20, 440))


def places(dataset: Dataset) -> list[Place]:
    """Those of the Kodak images; the middles of the first pictures of any other set."""
    if dataset.is_kodak:
        return list(PLACES)
    found = []
    for path in dataset.paths[: len(PLACES)]:
        height, width = load_rgb(path).shape[:2]
        found.append(Place(path.name, max(0, (width - WIDTH_PX) // 2), max(0, (height - HEIGHT_PX) // 2)))
    return found


class Crop(NamedTuple):
    """What one codec made of it; figures are of the whole picture, and None for the original."""

    name: str
    png: bytes
    setting: float | None = None
    bytes: int | None = None
    psnr_db: float | None = None


class View(NamedTuple):
    """One place in every codec's version, the original first, then ours."""

    place: Place
    crops: list[Crop]


def view(place: Place, folder: Path, ours: ImageCodec, quality: float, peers: Sequence[Peer]) -> View:
    """Encode a picture with ours, then with each peer at the setting that comes nearest to as many bytes."""
    image = load_rgb(folder / place.image)
    data = ours.encode(image, quality)
    crops = [Crop("original", png(image, place)), crop(ours, quality, data, image, place)]
    for peer in peers:
        file = encode_at_size(peer, image, len(data))
        crops.append(crop(peer, file.setting, file.data, image, place))
    return View(place, crops)


def crop(codec: ImageCodec, setting: float, data: bytes, image: Uint8Array, place: Place) -> Crop:
    """Decode a file and cut the place out."""
    decoded = codec.decode(data)
    return Crop(title(codec.name), png(decoded, place), setting, len(data), float(psnr_db(image, decoded)))


def png(image: Uint8Array, place: Place) -> bytes:
    """The place of a picture as a PNG file."""
    buffer = io.BytesIO()
    part = image[place.top : place.top + HEIGHT_PX, place.left : place.left + WIDTH_PX]
    Image.fromarray(part).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
