"""What the demo page's server does for it: keep pictures, code them, say what came of it. Knows no HTTP."""

from __future__ import annotations

import hashlib
import io
import math
import sys
from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Generic, Literal, NamedTuple, TypeVar

import skimage.data
from pydantic import BaseModel, Field

from codec.api import Codec, integer_quality
from codec.demo.peers import Check, PeerName, nearest_file, peer_for
from codec.errors import ImageError
from codec.format.bitstream import MAGIC, QUALITY_MAX, Header, Metadata, unpack
from codec.metrics import psnr_db
from codec.picture.image import Planes, Uint8Array, open_image, to_pil, to_planes
from codec.picture.transparent import without_hidden_colours
from codec.target import search

SAMPLE = "sample"
PICTURES_BYTES, FILES_BYTES = 256 << 20, 256 << 20

SIZE_TOLERANCE = 0.002  # of ln(bytes): nearer need not be looked for
SIZE_RISE = 3.0  # of ln(bytes) over the whole range of quality, a first guess
T = TypeVar("T")


class ForgottenError(Exception):
    """A picture that is asked for is no longer held."""


class Setting(BaseModel, frozen=True):
    """Which file is asked for.

    Attributes:
        quality, effort: of the .yoto file.
        form: the format of the file; if not yoto, the one whose size is nearest to that .yoto file's.
        against: make the .yoto file of the size of this format's file, which is that of `form=against`.
        region: "x,y,width,height", px: of this part of the picture alone.
    """

    quality: Annotated[float, Field(ge=0.0, le=1.0)]
    effort: Annotated[int, Field(ge=0, le=8)] = 1
    form: Literal["yoto", PeerName] = "yoto"
    against: PeerName | None = None
    region: Annotated[str, Field(pattern=r"^\d{1,8},\d{1,8},\d{1,8},\d{1,8}$")] | None = None


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
        encoder: its name, with its effort.
        bpp: bits of the file per pixel.
        colour_bytes: size without alpha and metadata, which only a .yoto file has here.
        psnr_db: infinite if nothing was lost.
        png: the decoded picture.
    """

    data: bytes
    quality: float
    encoder: str
    bpp: float
    colour_bytes: int
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
            planes = without_hidden_colours(to_planes(open_image(upload, max_pixels=self.max_pixels)))
        return self._keep(hashlib.sha256(data).hexdigest(), Picture(planes, len(data), header))

    def add_sample(self) -> dict[str, object]:
        """Take in a picture that needs no file."""
        pixels = skimage.data.astronaut()  # type: ignore[no-untyped-call]
        return self._keep(SAMPLE, Picture(Planes(pixels), pixels.nbytes, None))

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
            "sample": key == SAMPLE,
            "profile": has_other_colours(picture.planes.metadata.icc_profile),
            "yoto": None,
        }
        if picture.header:
            facts["yoto"] = {"quality": picture.header.quality, "bpp": picture.header.bpp}
        return facts

    def picture(self, key: str) -> Picture:
        """An upload, or ForgottenError."""
        picture = self._pictures.get(key)
        if picture is None:
            raise ForgottenError("this picture is no longer held; open it again")
        return picture

    def original_png(self, key: str, region: str | None = None) -> bytes:
        """The picture, or a part of it, as the codec sees it, upright and with 8 bits a channel."""
        planes = self.picture(key).planes
        return png(cut(planes, region) if region else planes)

    def coded(self, key: str, setting: Setting, check: Check = lambda: None) -> Coded:
        """The picture's file of a setting; `check` is called again and again on the way."""
        name = f"{key} {setting!r}"
        coded = self._files.get(name)
        if coded is None:
            coded = self._code(key, setting, check)
            self._files.put(name, coded, len(coded.data) + len(coded.png))
        return coded

    def _code(self, key: str, setting: Setting, check: Check) -> Coded:
        planes = self.picture(key).planes
        if setting.region:
            planes = cut(planes, setting.region)
        encoder = f"yoto (effort {setting.effort})"
        if setting.form != "yoto":
            ours = self.coded(key, setting.model_copy(update={"form": "yoto", "against": None}), check)
            peer = peer_for(setting.form, planes.colour)
            data, quality = nearest_file(peer, planes.colour, ours.colour_bytes, check)
            colour = peer.decode(data, planes.colour.shape[2])
            return summary(planes, data, quality, peer.title, len(data), colour)
        if setting.against:
            peer_setting = setting.model_copy(update={"form": setting.against, "against": None})
            size_bytes = len(self.coded(key, peer_setting, check).data)
            data, quality = self._encode_at_size(planes.colour, size_bytes, setting.effort, check)
        else:
            quality = setting.quality
            data = self._encode(planes, integer_quality(quality), setting.effort, check)
        decoded = self.codec.decode(data, max_pixels=sys.maxsize, progress=lambda *_: check())
        return summary(planes, data, quality, encoder, colour_bytes(data), to_planes(decoded).colour)

    def _encode(self, planes: Planes, rate_point: int, effort: int, check: Check) -> bytes:
        check()
        return self.codec.encode_planes(planes, rate_point, effort, progress=lambda *_: check())

    def _encode_at_size(self, colour: Uint8Array, size_bytes: int, effort: int, check: Check) -> tuple[bytes, float]:
        """As `encode_to_target`, but nearer than that, and without alpha and metadata: a file and its quality."""

        @cache
        def encode(rate_point: int) -> bytes:
            return self._encode(Planes(colour), rate_point, effort, check)

        found = search(lambda point: math.log(len(encode(point))), math.log(size_bytes), SIZE_TOLERANCE, SIZE_RISE)
        return encode(found), found / QUALITY_MAX


def summary(planes: Planes, data: bytes, quality: float, encoder: str, size_bytes: int, colour: Uint8Array) -> Coded:
    """What came of coding a picture."""
    height, width = colour.shape[:2]
    shown = png(Planes(colour, planes.alpha, planes.metadata))
    bpp = 8.0 * len(data) / (width * height)
    return Coded(data, quality, encoder, bpp, size_bytes, psnr_db(planes.colour, colour), shown)


def cut(planes: Planes, region: str) -> Planes:
    """A part of a picture, without metadata but the colour profile; ImageError if it does not lie within."""
    x, y, width, height = (int(number) for number in region.split(","))
    rows, columns = planes.colour.shape[:2]
    if not (width and height and x + width <= columns and y + height <= rows):
        raise ImageError(f"the region {region} does not lie within the picture of {columns}×{rows} px")
    part = (slice(y, y + height), slice(x, x + width))
    alpha = None if planes.alpha is None else planes.alpha[part]
    return Planes(planes.colour[part], alpha, Metadata(icc_profile=planes.metadata.icc_profile))


def png(planes: Planes) -> bytes:
    """A PNG for the page, with the colour profile and no other metadata; quick rather than small."""
    buffer = io.BytesIO()
    profile = planes.metadata.icc_profile or None
    to_pil(Planes(planes.colour, planes.alpha)).save(buffer, "PNG", compress_level=1, icc_profile=profile)
    return buffer.getvalue()


def has_other_colours(icc_profile: bytes) -> bool:
    """Whether a colour profile names another space than sRGB, as far as its description tells."""
    return bool(icc_profile) and b"sRGB" not in icc_profile.replace(b"\0", b"")  # ASCII or UTF-16


def colour_bytes(data: bytes) -> int:
    """Bytes of a .yoto file without alpha and metadata."""
    header = unpack(data, max_pixels=1 << 62)
    extra = (header.alpha_section, header.metadata_section)
    return header.size_bytes - sum(section.length for section in extra if section)
