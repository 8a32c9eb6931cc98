"""What the demo page's server does for it: keep pictures, code them, say what came of it. Knows no HTTP."""

from __future__ import annotations

import hashlib
import io
import sys
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, Literal, NamedTuple, TypeVar

import skimage.data

from codec.api import Codec
from codec.demo.peers import decode_peer, encode_at_size
from codec.errors import TooLargeError
from codec.format.bitstream import MAGIC, QUALITY_MAX, Header, unpack
from codec.picture.image import Planes, open_image, psnr_db, to_pil, to_planes

PICTURES_BYTES, FILES_BYTES = 256 << 20, 256 << 20

Form = Literal["yoto", "jpeg", "webp", "avif"]
T = TypeVar("T")


class ForgottenError(Exception):
    """A picture that is asked for is no longer held."""


class Picture(NamedTuple):
    """An upload: its planes, and its header if it was a .yoto file."""

    planes: Planes
    size_bytes: int
    header: Header | None


@dataclass(frozen=True)
class Coded:
    """A file that a picture became.

    Attributes:
        data: the file.
        quality: what its format calls so.
        bpp: bits of the file per pixel.
        colour_bytes: size without alpha and metadata, which only a .yoto file has here.
        fits: it is no larger than the .yoto file that it is compared with.
        psnr_db: infinite if nothing was lost.
        png: the decoded picture.
    """

    data: bytes
    quality: float
    bpp: float
    colour_bytes: int
    fits: bool
    psnr_db: float
    png: bytes


class Shelf(Generic[T]):
    """Keeps the values used last, within a budget of bytes; the newest always."""

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._used_bytes = 0
        self._items: OrderedDict[str, tuple[T, int]] = OrderedDict()

    def get(self, key: str) -> T | None:
        """The value, which counts as used now; None if it is not here."""
        if key not in self._items:
            return None
        self._items.move_to_end(key)
        return self._items[key][0]

    def put(self, key: str, value: T, size_bytes: int) -> None:
        """Keep a value and drop the oldest ones beyond the budget."""
        self._used_bytes += size_bytes - self._items.pop(key, (None, 0))[1]
        self._items[key] = value, size_bytes
        while self._used_bytes > self._budget_bytes and len(self._items) > 1:
            self._used_bytes -= self._items.popitem(last=False)[1][1]


class Studio:
    """Pictures and the files that they become. Its methods block and are called by one thread at a time."""

    def __init__(self, codec: Codec, max_pixels: int) -> None:
        self.codec, self.max_pixels = codec, max_pixels
        self._pictures: Shelf[Picture] = Shelf(PICTURES_BYTES)
        self._files: Shelf[Coded] = Shelf(FILES_BYTES)

    def add(self, upload: io.BytesIO) -> dict[str, object]:
        """Take in a picture or a .yoto file; return what the page needs to know of it."""
        data = upload.getvalue()
        header = unpack(data, self.max_pixels) if data.startswith(MAGIC) else None
        if header:
            planes = to_planes(self.codec.decode(data, max_pixels=self.max_pixels))
        else:
            planes = to_planes(open_image(upload, max_pixels=self.max_pixels))
            self._check_padded(planes)
        return self._keep(hashlib.sha256(data).hexdigest(), Picture(planes, len(data), header))

    def _check_padded(self, planes: Planes) -> None:
        """Refuse a picture, thin as a line, that takes more time than its pixels say."""
        height, width = planes.colour.shape[:2]
        coded = Header(width, height, 0, self.codec.weights.model_id).padded_pixels
        if coded > self.max_pixels:
            raise TooLargeError(
                f"the image has {width}×{height} px, which are coded as {coded},"
                f" more than the limit of {self.max_pixels}"
            )

    def add_sample(self) -> dict[str, object]:
        """Take in a picture that needs no file."""
        pixels = skimage.data.astronaut()  # type: ignore[no-untyped-call]
        return self._keep("sample", Picture(Planes(pixels), pixels.nbytes, None))

    def _keep(self, key: str, picture: Picture) -> dict[str, object]:
        colour, alpha = picture.planes.colour, picture.planes.alpha
        # The upload's size stands for that of its metadata, which it bounds.
        held_bytes = colour.nbytes + (0 if alpha is None else alpha.nbytes) + picture.size_bytes
        self._pictures.put(key, picture, held_bytes)
        facts: dict[str, object] = {
            "id": key,
            "width": colour.shape[1],
            "height": colour.shape[0],
            "bytes": picture.size_bytes,
            "alpha": alpha is not None,
            "yoto": None,
        }
        if picture.header:
            facts["yoto"] = {"quality": picture.header.quality / QUALITY_MAX, "bpp": picture.header.bpp}
        return facts

    def picture(self, key: str) -> Picture:
        """An upload, or ForgottenError."""
        picture = self._pictures.get(key)
        if picture is None:
            raise ForgottenError("this picture is no longer held; open it again")
        return picture

    def original_png(self, key: str) -> bytes:
        """The picture as the codec sees it, upright and with 8 bits a channel."""
        return png(self.picture(key).planes)

    def coded(self, key: str, quality: float, form: Form) -> Coded:
        """The picture's .yoto file of this quality, or another format's file of as many bytes."""
        name = f"{key} {quality} {form}"
        coded = self._files.get(name)
        if coded is None:
            coded = self._code(key, quality, form)
            self._files.put(name, coded, len(coded.data) + len(coded.png))
        return coded

    def _code(self, key: str, quality: float, form: Form) -> Coded:
        planes = self.picture(key).planes
        if form == "yoto":
            data, used, fits = self.codec.encode(to_pil(planes), quality), quality, True
            size_bytes = colour_bytes(data)
            colour = to_planes(self.codec.decode(data, max_pixels=sys.maxsize)).colour
        else:
            limit_bytes = self.coded(key, quality, "yoto").colour_bytes
            data, used = encode_at_size(planes.colour, form, limit_bytes)
            size_bytes, fits = len(data), len(data) <= limit_bytes
            colour = decode_peer(data, planes.colour.shape[2])
        height, width = colour.shape[:2]
        bpp = 8.0 * len(data) / (width * height)
        shown = png(Planes(colour, planes.alpha, planes.metadata))
        return Coded(data, used, bpp, size_bytes, fits, psnr_db(planes.colour, colour), shown)


def png(planes: Planes) -> bytes:
    """A PNG for the page, with the colour profile and no other metadata; quick rather than small."""
    buffer = io.BytesIO()
    profile = planes.metadata.icc_profile or None
    to_pil(Planes(planes.colour, planes.alpha)).save(buffer, "PNG", compress_level=1, icc_profile=profile)
    return buffer.getvalue()


def colour_bytes(data: bytes) -> int:
    """Bytes of a .yoto file without alpha and metadata."""
    header = unpack(data, max_pixels=1 << 62)
    extra = (header.alpha_section, header.metadata_section)
    return header.size_bytes - sum(section.length for section in extra if section)
