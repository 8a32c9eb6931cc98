"""What pictures become before they are coded, and back."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from codec.errors import ImageError, TooLargeError
from codec.format.bitstream import Metadata
from codec.metrics import psnr_db
from codec.picture.formats import readable_suffixes
from codec.picture.image import (
    SIXTEEN_BITS,
    Planes,
    open_image,
    save_image,
    scale_levels,
    to_pil,
    to_planes,
)

ORIENTATION, DESCRIPTION = 0x0112, 0x010E
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="%d"/></x:xmpmeta>'


def pil(mode: str, height: int = 5, width: int = 7) -> Image.Image:
    """An image of this mode, every channel different."""
    rgba = np.dstack([picture(height, width), picture(height, width, 1)[:, :, 0]])
    return Image.fromarray(rgba).convert(mode)


def saved(image: Image.Image, form: str = "PNG", **options: object) -> Image.Image:
    """The image as it comes out of a file."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return open_image(io.BytesIO(buffer.getvalue()))


def exif(**tags: object) -> Image.Exif:
    block = Image.Exif()
    block.update(
        {{"orientation": ORIENTATION, "description": DESCRIPTION}[name]: value for name, value in tags.items()}
    )
    return block


def test_coded_modes_pass_unchanged(subtests):
    for mode, channels in [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3)]:
        with subtests.test(mode=mode, channels=channels):
            image = pil(mode)
            planes = to_planes(image)
            assert planes.colour.shape == (5, 7, channels)
            assert (planes.alpha is not None) == mode.endswith("A")
            result = to_pil(planes)
            assert result.mode == mode
            np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


CONVERTED = {
    "1": "L",
    "La": "LA",
    "P": "RGBA",  # its palette has alpha
    "PA": "RGBA",
    "RGBa": "RGBA",
    "RGBX": "RGB",
    "CMYK": "RGB",
    "YCbCr": "RGB",
    "HSV": "RGB",
    "LAB": "RGB",
}


def test_other_8_bit_modes_are_converted(subtests):
    for mode, target in CONVERTED.items():
        with subtests.test(mode=mode, target=target):
            image = pil("LA" if mode == "La" else "RGB" if mode in ("HSV", "LAB") else "RGBA").convert(mode)
            result = to_pil(to_planes(image))
            assert result.mode == target
            error = np.asarray(result).astype(int) - np.asarray(image.convert(target))
            assert np.abs(error).max() <= (mode == "LAB")  # which has a profile, that rounds in its own way


def test_opaque_palette_becomes_rgb():
    image = saved(pil("RGB").convert("P"))
    assert image.mode == "P"
    result = to_pil(to_planes(image))
    assert result.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image.convert("RGB")))


def test_grey_stored_as_rgb_stays_rgb():
    assert to_planes(pil("L").convert("RGB")).colour.shape == (5, 7, 3)


# More than 8 bits a channel.

DEEP = {"I;16": np.uint16, "I": np.int32, "F": np.float32}


def deep(mode: str, values: list[float]) -> Image.Image:
    image = Image.fromarray(np.array([values], DEEP[mode]))
    assert image.mode == mode
    return image


def test_deep_modes_are_refused_with_their_range(subtests):
    for mode in DEEP:
        with (
            subtests.test(mode=mode),
            pytest.raises(ImageError, match=rf"mode {mode}, values from 3 to 4012, .* --levels LOW:HIGH"),
        ):
            to_planes(deep(mode, [4012, 3, 7]))


def test_levels_scale_deep_images(subtests):
    for mode in DEEP:
        with subtests.test(mode=mode):
            image = scale_levels(deep(mode, [0, 1000, 4000]), 0, 4000)
            assert image.mode == "L"
            assert np.asarray(image).tolist() == [[0, 64, 255]]


def test_levels_never_clip(subtests):
    for levels in [(1, 4000), (0, 3999)]:
        with subtests.test(levels=levels), pytest.raises(ImageError, match="from 0 to 4000, outside the levels"):
            scale_levels(deep("I;16", [0, 1000, 4000]), *levels)


def test_not_a_number_is_outside_every_range():
    with pytest.raises(ImageError, match="outside the levels"):
        scale_levels(deep("F", [0.0, float("nan")]), 0, 1)


def test_levels_that_are_no_range_are_the_callers_mistake(subtests):
    """Under infinite ones every value would become the same."""
    infinity = float("inf")
    for levels in [(1, 1), (2, 1), (float("nan"), 1), (0, infinity), (-infinity, 1)]:
        with subtests.test(levels=levels), pytest.raises(ValueError, match="below"):
            scale_levels(deep("I", [1, 2]), *levels)


def test_levels_are_for_deep_images():
    with pytest.raises(ImageError, match="mode RGB"):
        scale_levels(pil("RGB"), 0, 255)


def test_scaled_image_is_upright_and_keeps_its_metadata(subtests):
    for form in ["PNG", "TIFF"]:
        with subtests.test(form=form):
            buffer = io.BytesIO()
            deep("I;16", [0, 65535, 257]).save(buffer, form, exif=exif(orientation=6, description="kept"))
            image = scale_levels(open_image(io.BytesIO(buffer.getvalue())), *SIXTEEN_BITS)
            assert np.asarray(image).tolist() == [[0], [255], [1]]
            assert loaded(image.info["exif"])[DESCRIPTION] == "kept"


def png_16(values: list[int]) -> bytes:
    """One row of 16-bit RGB, as a PNG file."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", len(values) // 3, 1, 16, 2, 0, 0, 0)),
        (
            b"IDAT",
            zlib.compress(b"\0" + struct.pack(f">{len(values)}H", *values)),
        ),
    )
    parts = [len(data).to_bytes(4) + kind + data + zlib.crc32(kind + data).to_bytes(4) for kind, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + bytes.fromhex("0000000049454e44ae426082")


def ppm_16(values: list[int]) -> bytes:
    return b"P6 %d 1 65535\n" % (len(values) // 3) + struct.pack(f">{len(values)}H", *values)


def test_16_bit_colour_is_coded_only_if_asked_for(subtests):
    for make in [png_16, ppm_16]:
        with subtests.test(make=make):
            data = make([0, 0x1234, 0xFFFF, 257, 514, 0xFF00])
            with pytest.raises(ImageError, match=r"16 bits a channel.*--levels 0:65535"):
                open_image(io.BytesIO(data))
            with pytest.raises(ImageError, match="16 bits a channel"):
                open_image(io.BytesIO(data), levels=(0, 4095))
            image = open_image(io.BytesIO(data), levels=SIXTEEN_BITS)
            assert image.mode == "RGB"
            assert np.abs(np.asarray(image).astype(int).ravel() - [0, 0x12, 0xFF, 1, 2, 0xFE]).max() <= 1


def test_levels_leave_8_bit_files_alone():
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "PNG")
    np.testing.assert_array_equal(np.asarray(open_image(buffer, levels=SIXTEEN_BITS)), np.asarray(pil("RGB")))


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "AVIF", "TIFF"])
def test_first_frame_is_read_and_others_are_noted(form, tmp_path):
    pages = [Image.new("RGB", (7, 5), colour) for colour in ("red", "lime", "blue")]
    pages[0].save(tmp_path / "x", form, save_all=True, append_images=pages[1:])
    image = open_image(tmp_path / "x")
    assert to_planes(image).notes == ("the image has several frames, of which the first is coded",)
    assert image.convert("RGB").getpixel((3, 2))[0] > 200


def test_preview_of_a_camera_is_no_frame():
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "MPO", save_all=True, append_images=[pil("RGB")])
    image = open_image(buffer)
    assert (image.format, image.n_frames, to_planes(image).notes) == ("MPO", 2, ())


# Alpha that is not a channel.


def test_transparent_palette_entry_becomes_alpha():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    planes = to_planes(saved(image, transparency=1))
    assert planes.colour.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert planes.alpha.tolist() == [[255, 0]]


def test_transparent_colour_becomes_alpha(subtests):
    for mode, transparent in [("1", 0), ("L", 7), ("RGB", (7, 8, 9))]:
        with subtests.test(mode=mode, transparent=transparent):
            image = Image.new(mode, (2, 1), 1 if mode == "1" else 0)
            image.putpixel((1, 0), transparent)
            planes = to_planes(saved(image, transparency=transparent))
            assert planes.alpha.tolist() == [[255, 0]]
            assert to_pil(planes).mode == mode.replace("1", "L") + "A"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_and_dropped(mode, orientation):
    image = saved(pil(mode), exif=exif(orientation=orientation, description="kept"))
    result = to_pil(to_planes(image))
    transposed = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: np.rot90,
    }[orientation]
    np.testing.assert_array_equal(np.asarray(result), transposed(np.asarray(image.convert(result.mode))))
    assert dict(saved(result, exif=result.info["exif"]).getexif()) in (
        {DESCRIPTION: "kept"},
        {DESCRIPTION: "kept", ORIENTATION: 1},
    )


def test_orientation_in_xmp_is_applied_once():
    image = saved(pil("RGB"), "JPEG", xmp=XMP % 6)
    once = to_pil(to_planes(image))
    assert once.size == image.size[::-1]
    again = to_pil(to_planes(saved(once, xmp=once.info["xmp"])))
    np.testing.assert_array_equal(np.asarray(again), np.asarray(once))


def test_the_callers_image_is_left_alone():
    image = saved(pil("RGB"), exif=exif(orientation=6, description="kept"))
    first, second = to_planes(image), to_planes(image)
    assert dict(image.getexif()) == {ORIENTATION: 6, DESCRIPTION: "kept"}
    np.testing.assert_array_equal(first.colour, second.colour)
    assert first.metadata == second.metadata


PNG_XMP = PngImagePlugin.PngInfo()  # Pillow's PNG writer takes no other
PNG_XMP.add_itxt("XML:com.adobe.xmp", (XMP % 1).decode())


def test_metadata_is_kept(subtests):
    for form, options in [("PNG", {"pnginfo": PNG_XMP}), ("JPEG", {}), ("WEBP", {})]:
        with subtests.test(form=form, options=options):
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            blocks = {"icc_profile": profile, "exif": exif(description="kept").tobytes(), "xmp": XMP % 1}
            planes = to_planes(saved(pil("RGB"), form, **blocks, **options))
            assert planes.metadata.icc_profile == profile
            assert planes.metadata.xmp == XMP % 1
            assert loaded(planes.metadata.exif)[DESCRIPTION] == "kept"


def test_exif_of_tiff_is_kept_without_the_tags_of_its_layout():
    block = exif(description="kept")
    block.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.0
    kept = loaded(to_planes(saved(pil("RGB"), "TIFF", exif=block.tobytes())).metadata.exif)
    assert kept[DESCRIPTION] == "kept"
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] == 2.0
    assert ExifTags.Base.ImageWidth not in kept


def loaded(block: bytes) -> Image.Exif:
    result = Image.Exif()
    result.load(block)
    return result


def test_image_without_metadata_has_none():
    assert to_planes(saved(pil("RGB"))).metadata == Metadata()


def test_cmyk_without_a_usable_profile_is_converted_with_a_note():
    image = pil("CMYK")
    image.info["xmp"] = b"kept"
    planes = to_planes(image)
    assert planes.metadata == Metadata(xmp=b"kept")
    assert planes.notes == ("it is CMYK without a colour profile; colours are approximate",)
    image.info["icc_profile"] = b"no profile"
    planes = to_planes(image)
    assert planes.metadata == Metadata(xmp=b"kept")
    assert planes.notes == ("its colour profile cannot be used for CMYK and is left out; colours are approximate",)


def test_colours_of_another_model_go_through_their_profile():
    """LAB is the only such model for which a profile can be made; its lightness says what must come out."""
    image = pil("LAB")
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    planes = to_planes(image)
    assert (planes.metadata.icc_profile, planes.notes) == (b"", ())
    assert np.abs(planes.colour.astype(int) - np.asarray(image.convert("RGB"))).max() <= 1
    image = pil("YCbCr")  # whose profile is that of the RGB it becomes
    image.info["icc_profile"] = profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert to_planes(image).metadata.icc_profile == profile


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_exif_stays_byte_for_byte_but_for_the_orientation(order, prefix, orientation):
    """A maker note that no library could move: the block's end is referred to from within."""
    start = {"<": b"II*\0", ">": b"MM\0*"}[order]
    block = prefix + start + struct.pack(order + "IH", 8, 2)
    block += struct.pack(order + "HHIHxx", ORIENTATION, 3, 1, orientation)
    block += struct.pack(order + "HHII", 0x927C, 7, 4, 0xDEADBEEF) + bytes(4) + b"maker's own"
    image = pil("RGB")
    image.info["exif"] = block
    planes = to_planes(image)
    assert planes.colour.shape == ((7, 5, 3) if orientation == 6 else (5, 7, 3))
    differing = [i for i, (a, b) in enumerate(zip(block, planes.metadata.exif, strict=True)) if a != b]
    assert len(differing) == (orientation != 1)
    image = pil("RGB")
    image.info["exif"] = planes.metadata.exif
    assert to_planes(image).metadata.exif == planes.metadata.exif
    assert to_planes(image).colour.shape == (5, 7, 3)


def test_what_is_not_kept_is_named():
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "me")
    text.add(b"gAMA", struct.pack(">I", 100_000))
    assert to_planes(saved(pil("RGB"), pnginfo=text)).notes == ("left out: text Author, gAMA",)
    assert to_planes(saved(pil("RGB"), "JPEG", comment=b"mine", dpi=(300, 300))).notes == (
        "left out: comment, resolution of 300 dpi, which has no Exif to stand in",
    )
    assert to_planes(saved(pil("RGB"), "JPEG", dpi=(72, 72))).notes == ()


def test_damaged_exif_is_kept_as_it_is_and_turns_nothing(subtests):
    for form in ["PNG", "JPEG", "WEBP"]:
        for block in [b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x03" * 9, b"\0"]:
            with subtests.test(form=form, block=block):
                planes = to_planes(saved(pil("RGB"), form, exif=b"Exif\0\0" + block))
                assert planes.colour.shape == (5, 7, 3)
                assert planes.metadata.exif.endswith(block)


def test_takes_uint8_arrays(subtests):
    for channels in [0, 1, 3, 4]:
        with subtests.test(channels=channels):
            array = np.random.default_rng(0).integers(0, 256, (5, 7, channels) if channels else (5, 7), dtype=np.uint8)
            planes = to_planes(array)
            np.testing.assert_array_equal(planes.colour, array.reshape(5, 7, -1)[:, :, :3])
            assert (planes.alpha is not None) == (channels == 4)
            if channels == 4:
                np.testing.assert_array_equal(planes.alpha, array[:, :, 3])


def test_takes_tensors(subtests):
    for channels in [1, 3, 4]:
        for dtype in [torch.uint8, torch.float32, torch.float64, torch.bfloat16]:
            with subtests.test(channels=channels, dtype=dtype):
                levels = (
                    torch.tensor([0, 1, 64, 127, 200, 255], dtype=torch.uint8).reshape(1, 2, 3).expand(channels, -1, -1)
                )
                tensor = levels if dtype == torch.uint8 else (levels.to(torch.float64) / 255.0).to(dtype)
                planes = to_planes(tensor)
                assert planes.colour.dtype == np.uint8
                error = planes.colour[:, :, 0].astype(int) - levels[0].numpy()
                assert np.abs(error).max() <= (1 if dtype == torch.bfloat16 else 0)
                assert (planes.alpha is not None) == (channels == 4)


def test_floating_point_beyond_its_range_is_refused_not_clipped(subtests):
    for value in [-0.01, 1.01, float("nan"), float("inf"), -float("inf")]:
        with subtests.test(value=value):
            values = torch.tensor([0.5, value, 0.5]).reshape(3, 1, 1)
            for image in (values, values.permute(1, 2, 0).numpy(), values.double(), values.half()):
                with pytest.raises(ValueError, match=r"expected \[0, 1\]"):
                    to_planes(image)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_arrays_and_tensors_need_levels(shape, dtype):
    values = np.linspace(0, 4000, int(np.prod(shape))).astype(dtype).reshape(shape)
    with pytest.raises((TypeError, ValueError), match="levels"):
        to_planes(values)
    with pytest.raises(ImageError, match="outside the levels"):
        to_planes(values, (0, 3999))
    planes = to_planes(values, (0, 4000))
    coded = planes.colour if planes.alpha is None else np.dstack([planes.colour, planes.alpha])
    np.testing.assert_array_equal(coded, np.round(values * (255 / 4000.0)).astype(np.uint8).reshape(*shape[:2], -1))
    if len(shape) == 3:
        tensor = torch.from_numpy(values.astype(np.float64)).permute(2, 0, 1)
        np.testing.assert_array_equal(to_planes(tensor, (0, 4000)).colour, planes.colour)


def test_tensor_that_needs_a_gradient_is_taken():
    assert to_planes(torch.ones(3, 2, 2, requires_grad=True)).colour.min() == 255


def test_arrays_of_another_type_are_the_callers_mistake(subtests):
    for dtype in [np.complex64, np.int8, np.uint16, np.int64, bool]:
        with subtests.test(dtype=dtype), pytest.raises(TypeError, match="uint8"):
            to_planes(np.zeros((4, 4, 3), dtype))


def test_tensors_of_another_type_are_the_callers_mistake(subtests):
    for dtype in [torch.int16, torch.int64, torch.bool, torch.int8]:
        with subtests.test(dtype=dtype), pytest.raises(TypeError, match="uint8"):
            to_planes(torch.zeros(3, 4, 4, dtype=dtype))


def test_other_objects_are_the_callers_mistake(subtests):
    for value in [None, "image.png", b"bytes", [[0]], 3]:
        with subtests.test(value=value), pytest.raises(TypeError, match="PIL image"):
            to_planes(value)


def test_arrays_of_another_shape_are_the_callers_mistake(subtests):
    for array in [
        np.zeros((), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ]:
        with subtests.test(array=array), pytest.raises(ValueError, match="shape"):
            to_planes(array)


def test_tensors_of_another_shape_are_the_callers_mistake(subtests):
    for shape in [(4, 4), (2, 4, 4), (1, 3, 4, 4)]:
        with subtests.test(shape=shape), pytest.raises(ValueError, match="shape"):
            to_planes(torch.zeros(shape))


def test_images_that_are_empty_or_too_large_are_refused(subtests):
    for image in [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.broadcast_to(np.uint8(0), (1, (1 << 24) + 1, 3)),
        torch.zeros(3, 0, 4),
        Image.new("RGB", (0, 4)),
    ]:
        with subtests.test(image=image), pytest.raises(ImageError, match="px"):
            to_planes(image)


# Files.


def test_file_that_is_no_image_is_an_image_error(subtests):
    for data in [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(20)]:
        with subtests.test(data=data), pytest.raises(ImageError):
            open_image(io.BytesIO(data))


def test_image_cut_short_is_an_image_error(subtests):
    for form in ["PNG", "JPEG", "GIF", "TIFF"]:
        with subtests.test(form=form):
            buffer = io.BytesIO()
            pil("RGB", 64, 64).save(buffer, form)
            with pytest.raises(ImageError, match=r"damaged|not an image"):
                open_image(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "missing.png")


FORMATS = {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".jpg": "JPEG", ".avif": "AVIF", ".bmp": "BMP"}


def test_suffix_chooses_the_format(subtests):
    for suffix in [*FORMATS, ".PNG"]:
        for mode in ["L", "RGB"]:
            with subtests.test(suffix=suffix, mode=mode):
                image = open_image(io.BytesIO(save_image(pil(mode), suffix)))
                assert image.format == FORMATS[suffix.lower()]
                assert image.size == (7, 5)


def test_alpha_is_written_where_there_is_room(subtests):
    for suffix in [".png", ".tiff", ".webp", ".avif", ".jp2", ".tga"]:
        for mode in ["LA", "RGBA"]:
            with subtests.test(suffix=suffix, mode=mode):
                image = open_image(io.BytesIO(save_image(pil(mode), suffix))).convert("RGBA")
                error = np.asarray(image)[:, :, 3].astype(int) - np.asarray(pil(mode))[:, :, -1]
                assert np.abs(error).max() <= (6 if suffix == ".avif" else 0)


def test_what_cannot_be_written_is_an_image_error(subtests):
    for mode, suffix in [
        ("RGB", ""),
        ("RGB", ".svg"),
        ("RGB", ".ico"),
        *((m, s) for m in ("LA", "RGBA") for s in (".jpg", ".bmp", ".ppm")),
    ]:
        with (
            subtests.test(mode=mode, suffix=suffix),
            pytest.raises(ImageError, match=r"^[^\n]*cannot be written[^\n]*use \.png$"),
        ):
            save_image(pil(mode), suffix)


def test_saved_file_carries_the_metadata(subtests):
    for suffix in [".png", ".webp", ".jpg", ".tif", ".avif"]:
        with subtests.test(suffix=suffix):
            profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
            metadata = Metadata(profile, exif(description="kept").tobytes(), XMP % 1)
            image = open_image(io.BytesIO(save_image(to_pil(Planes(picture(4, 4), None, metadata)), suffix)))
            kept = to_planes(image).metadata
            assert (kept.icc_profile, kept.xmp) == (metadata.icc_profile, metadata.xmp)
            assert loaded(kept.exif)[DESCRIPTION] == "kept"


def test_readable_suffixes_are_those_of_pictures():
    suffixes = readable_suffixes()
    assert {".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".gif", ".bmp"} <= suffixes
    assert not {".yoto", ".txt", ".pdf", ".mpg", ".h5"} & suffixes


def test_psnr():
    a = picture(300, 10)
    assert psnr_db(a, a) == float("inf")
    assert psnr_db(np.zeros((300, 4), np.uint8), np.full((300, 4), 255, np.uint8)) == 0.0
    b = picture(300, 10, 1)
    mse = np.mean((a.astype(float) - b) ** 2)
    assert psnr_db(a, b) == pytest.approx(10 * np.log10(255**2 / mse))


def test_limit_of_pixels_is_checked_before_they_are_decoded():
    buffer = io.BytesIO()
    pil("RGB").save(buffer, "PNG")
    assert open_image(io.BytesIO(buffer.getvalue()), max_pixels=64 * 64).size == (7, 5)
    header_only = buffer.getvalue()[:60]
    with pytest.raises(TooLargeError, match="7×5 px, which are coded as 4096, more than the limit of 4095"):
        open_image(io.BytesIO(header_only), max_pixels=64 * 64 - 1)
