"""What travels with a picture: Exif, XMP and ICC profile as its file holds them; and what has no place in a `.yoto`."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from PIL import ExifTags, Image

_ORIENTATION, _MAKER_NOTE = 0x0112, 0x927C
_XMP_ORIENTATION = re.compile(rb'(tiff:Orientation(?:="|>))([0-9])')
_INTEGERS = {3: "H", 4: "I"}  # types of Exif values: 16 and 32 bits
# Description, maker, model, resolution with its unit, software, date, artist, computer, copyright.
_TIFF_EXIF_TAGS = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432)
_FRAMED = ("AVIF", "GIF", "HEIF", "JXL", "PNG", "TIFF", "WEBP")  # not MPO, whose second picture is a preview; nor PSD
_PNG_XMP, _PNG_EXIF = "XML:com.adobe.xmp", "Raw profile type exif"
_SCREEN_DPI = (0, 1, 72, 96)  # what is written where nobody chose a resolution
_SRGB_GAMMA = 1 / 2.2
_SRGB_PRIMARIES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_IPTC = 0x0404


class Blocks(NamedTuple):
    """Exif and XMP, empty if absent, and the orientation (1 … 8) that the picture they came with was stored in."""

    exif: bytes
    xmp: bytes
    orientation: int


def upright_blocks(exif: bytes, xmp: bytes) -> Blocks:
    """Reset the orientation, where it is stored; every other byte stays, so that maker notes stay where they are.

    Exif goes before XMP, as with Pillow. Exif that is damaged has no orientation, and is kept as it is.
    """
    orientation, place = 0, _orientation_in(exif)
    if place:
        at, form = place
        (orientation,) = struct.unpack_from(form, exif, at)
    elif match := _XMP_ORIENTATION.search(xmp):
        orientation = int(match[2])
    if not 2 <= orientation <= 8:
        return Blocks(exif, xmp, 1)
    if place:
        exif = exif[:at] + struct.pack(form, 1) + exif[at + struct.calcsize(form) :]
    return Blocks(exif, _XMP_ORIENTATION.sub(rb"\g<1>1", xmp), orientation)


def _orientation_in(exif: bytes) -> tuple[int, str] | None:
    """Offset and `struct` format of the orientation in the first directory of an Exif block."""
    start = 0
    while exif.startswith(b"Exif\0\0", start):
        start += 6
    order = {b"II": "<", b"MM": ">"}.get(exif[start : start + 2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", exif, start + 4)
        (entries,) = struct.unpack_from(order + "H", exif, start + directory)
        for entry in range(start + directory + 2, start + directory + 2 + 12 * entries, 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, entry)
            if tag == _ORIENTATION and kind in _INTEGERS and count == 1:
                form = order + _INTEGERS[kind]
                struct.unpack_from(form, exif, entry + 8)
                return entry + 8, form
    except struct.error:  # the directory lies beyond the end
        pass
    return None


def stored_exif(image: Image.Image, notes: list[str]) -> bytes:
    """The Exif block of an image, byte for byte; that of a TIFF file is put together from its tags."""
    if hasattr(image, "tag_v2"):
        try:
            tags = image.getexif()
            if _MAKER_NOTE in tags.get_ifd(ExifTags.IFD.Exif):
                notes.append("the maker's notes are moved, and what they point to may be lost")
            kept = tiff_exif(tags)
            return kept.tobytes() if kept else b""
        except Exception:  # Pillow raises a dozen kinds over tags that are damaged
            notes.append("its Exif is damaged and left out")
            return b""
    exif: object = image.info.get("exif") or b""
    if not exif and isinstance(text := image.info.get(_PNG_EXIF), str):
        try:
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
        except ValueError:
            notes.append("its Exif is damaged and left out")
    return exif if isinstance(exif, bytes) else b""


def stored_xmp(image: Image.Image) -> bytes:
    """The XMP of an image."""
    xmp = image.info.get("xmp") or image.info.get(_PNG_XMP) or b""
    return xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)


def tiff_exif(tags: Image.Exif) -> Image.Exif:
    """Exif as other formats have it, from the tags of a TIFF file, without those of its layout."""
    exif = Image.Exif()
    exif.update({tag: tags[tag] for tag in _TIFF_EXIF_TAGS if tag in tags})
    for ifd in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        exif.get_ifd(ifd).update(tags.get_ifd(ifd))
    return exif


def remember(image: Image.Image) -> None:
    """Have Pillow read what it would look for in a file that is closed by then: TIFF's Exif, and further frames."""
    further_frames(image)
    if hasattr(image, "tag_v2"):
        stored_exif(image, [])


def further_frames(image: Image.Image) -> bool:
    """Whether a file has more than one frame or page. They are not counted, which takes Pillow quadratic time."""
    return image.format in _FRAMED and bool(getattr(image, "is_animated", False))


def left_out(image: Image.Image) -> list[str]:
    """What of a picture's file has no place in a `.yoto`, a line each, but for what everybody's files have."""
    info, lost = image.info, []
    if image.format == "PNG":
        known = (_PNG_XMP, _PNG_EXIF)
        texts = [key for key, text in info.items() if isinstance(text, str) and key not in known]
        lost += [f"text {key}" for key in texts if not str(key).startswith("date:")]
        # A profile goes before gAMA and cHRM, and sRGB is what is taken for granted without any.
        if not info.get("icc_profile") and "srgb" not in info:
            lost += ["gAMA"] if abs(info.get("gamma", _SRGB_GAMMA) - _SRGB_GAMMA) > 0.005 else []
            primaries = info.get("chromaticity", _SRGB_PRIMARIES)
            lost += ["cHRM"] if max(abs(a - b) for a, b in zip(primaries, _SRGB_PRIMARIES, strict=True)) > 0.002 else []
    else:
        lost += ["comment"] if info.get("comment") else []
    photoshop = info.get("photoshop")
    if (isinstance(photoshop, dict) and _IPTC in photoshop) or 33723 in getattr(image, "tag_v2", ()):
        lost.append("IPTC")
    dpi = info.get("dpi")
    if dpi and not info.get("exif") and not hasattr(image, "tag_v2") and round(float(dpi[0])) not in _SCREEN_DPI:
        lost.append(f"resolution of {float(dpi[0]):.0f} dpi, which has no Exif to stand in")
    notes = ["the image has several frames, of which the first is coded"] if further_frames(image) else []
    return notes + ([f"left out: {', '.join(lost)}"] if lost else [])
