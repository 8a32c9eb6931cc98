"""Find the pictures to measure on, and make sure that they are what they are said to be."""

from __future__ import annotations

import hashlib
import os
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import NamedTuple
from urllib.error import HTTPError

import click
import numpy as np

from codec.app.files import write_output
from codec.picture.formats import readable_suffixes
from codec.picture.image import Uint8Array, open_image

KODAK_URL = "https://r0k.us/graphics/kodak/kodak"
FILE_MAX_BYTES = 2 << 20  # the largest of the images has 0.8 MB
TIMEOUT_S = 30.0
KODAK = "Kodak"
CACHE = Path("~/.cache/yoto-codec/kodak")
ENVIRONMENT = "YOTO_KODAK"

# The Kodak PhotoCD images, 768×512 or 512×768 px, as on r0k.us; published curves are of these files.
KODAK_SHA256 = {
    "kodim01.png": "6b4fbe6f3e8e0e20150d5b0c32248bf072e22b5989d415f96f796c5b7004a70f",
    "kodim02.png": "1788370471429d992750a09caf6702ac74e56962447de02520d4b161738c0369",
    "kodim03.png": "b9c800ee568f0b18c983817df08d9f7f24a7ddb3abfdc31bde9234c4fde83137",
    "kodim04.png": "0c60c62599ad33fd78b29c36013fbe4120946f6c327c0ef0ec6983297fb48d23",
    "kodim05.png": "ccf694ceb6bbf431e0009ed0d5573a8ff0915095b69ddfb527b91d8325897f5e",
    "kodim06.png": "f4212cc927d1d579c712843cf8320c7eccb571e5ea80456022ffe99d67e9cd5d",
    "kodim07.png": "7cdd6d63ae0a245f6f9d983d740e11c6808c2efc24f8351aad9b5f676c27b55a",
    "kodim08.png": "5a6a089bdb47605287c00d89ebf2a5312981eb998c94b5853d917c93a9066cdb",
    "kodim09.png": "4d8d801592aeaf446978bbd1c83b76c498242d0f684769311a4e7248289500bf",
    "kodim10.png": "7aca487dc83db732a5690b7affe8558e9dadf5bb44a4589ba2b607480a07228b",
    "kodim11.png": "c7c02bd6e942d1181518e3ce2d97cf0451e4494a5e9d6ddee276940e4875d746",
    "kodim12.png": "df571f5e66d1aefd764ea77855e81e3be61528c34962a0fd1d50557502162c1e",
    "kodim13.png": "797949ce1152ef157ff0a1231c95cb8ed7641615e0b0f5f77f851a44aee19e8d",
    "kodim14.png": "08a1898d5702f32e7d9f94a94651d74a62cb9325475775a558b388c8d98f1846",
    "kodim15.png": "416c475f39b0eb9203ce7f77d2af8824f5bffc1a86a4605865017f04c41639b9",
    "kodim16.png": "5d03303693decdf7a1e1e930b5ca6684283aa80a9e7d8d6a842a74fa5f790640",
    "kodim17.png": "19d90e98e5835efae20a6e17e22e5ac6814ee2c8efb32d188ea4359abaf9f5bd",
    "kodim18.png": "83df267dfec61e9b9d3756c422502160b2fab595650c73a8b12940540ad09ec5",
    "kodim19.png": "86560efe85a13413b228ef7e42dde0d439b25a94fb8e2d6fb1dc1631cf48853b",
    "kodim20.png": "1ae187d92b3a4483b6717f7fd08592846ffdfc340c6424f6756627a27f3d8ea7",
    "kodim21.png": "26e193795108c4b5ec47206ae4ff07a353d2492947f7a7ae8d380e042b74027b",
    "kodim22.png": "627b76fccf714b4ddffb739b2eb63ba2817cf5b5a8e222079542dcf2cfdda939",
    "kodim23.png": "85c67d7ea758cb0604fb6980ab0c65091a2eefa7b3b50cbb1bc702a60206dfe5",
    "kodim24.png": "9f1c26df52217bd49f998a720a2ffeba41a535cf826f4ae32e355fb2b0bbc0fe",
}


class DatasetError(Exception):
    """The pictures are missing or are not the ones that results are published on."""


def kodak_folder(folder: Path | None) -> Path:
    """Where the Kodak images lie: in `folder`, else $YOTO_KODAK, else the cache."""
    return (folder or Path(os.environ.get(ENVIRONMENT) or CACHE)).expanduser()


def download_kodak(folder: Path, base_url: str = KODAK_URL) -> None:
    """Fetch those of the 24 images that are missing or altered, each checked before it gets its name.

    Raises:
        DatasetError: one cannot be fetched, or is not the published one.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DatasetError(f"cannot make {folder}: {error.strerror}") from error
    for number, (name, digest) in enumerate(KODAK_SHA256.items(), start=1):
        path = folder / name
        if path.is_file() and sha256(path) == digest:
            continue
        url = f"{base_url}/{name}"
        data = fetch(url)
        found = hashlib.sha256(data).hexdigest()
        if found != digest:
            raise DatasetError(f"{url} is not the published image: its SHA-256 is {found}, expected is {digest}")
        write_output(path, data)
        click.echo(f"{number}/{len(KODAK_SHA256)} {path}", err=True)


def fetch(url: str) -> bytes:
    """The body of a small file; DatasetError if it cannot be had."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            body: bytes = answer.read(FILE_MAX_BYTES)
            return body
    except HTTPError as error:
        error.close()
        raise DatasetError(f"cannot fetch {url}: {error}") from error
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        raise DatasetError(f"cannot fetch {url}: {getattr(error, 'reason', None) or error}") from error


def find_kodak(folder: Path | None = None) -> list[Path]:
    """The 24 Kodak images, checked, in order: from `folder`, else $YOTO_KODAK, else the cache.

    Raises:
        DatasetError: some are missing or altered.
    """
    chosen = kodak_folder(folder)
    paths = [chosen / name for name in KODAK_SHA256]
    missing = [path.name for path in paths if not path.is_file()]
    altered = [path.name for path in paths if path.is_file() and sha256(path) != KODAK_SHA256[path.name]]
    faults = [f"{kind}: {', '.join(names)}" for kind, names in (("missing", missing), ("altered", altered)) if names]
    if faults:
        raise DatasetError(
            f"{chosen} does not hold the 24 Kodak images; {'; '.join(faults)}. Name the right folder with --dataset"
            f" or {ENVIRONMENT}, or fetch them with --download"
        )
    return paths


def find_images(folder: Path) -> list[Path]:
    """All pictures of a folder, sorted; DatasetError if there are none."""
    suffixes = readable_suffixes()
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())
    if not paths:
        raise DatasetError(f"{folder} holds no pictures")
    return paths


class Dataset(NamedTuple):
    """Pictures to measure on; published curves are of the Kodak images alone."""

    name: str
    paths: list[Path]

    @property
    def is_kodak(self) -> bool:
        """Whether these are the 24 Kodak images, unaltered."""
        return self.name == KODAK


def find_dataset(folder: Path | None) -> Dataset:
    """The pictures of a folder; without one the Kodak images, which a folder of theirs has to hold unaltered.

    Raises:
        DatasetError: there are none, or Kodak images are missing or altered.
    """
    if folder is None or (folder / "kodim01.png").is_file() or not folder.is_dir():
        return Dataset(KODAK, find_kodak(folder))
    return Dataset(folder.resolve().name, find_images(folder))


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def load_rgb(path: Path) -> Uint8Array:
    """A picture as uint8 (H, W, 3)."""
    return np.asarray(open_image(path).convert("RGB"))
