"""What pictures become before they are coded, and back."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from conftest import picture
from PIL import Image, ImageCms, PngImagePlugin

from codec.bitstream import Metadata
from codec.errors import ImageError
from codec.image import Planes, open_image, psnr_db, save_image, to_pil, to_planes
from codec.tiles import Box, padded_size, read_region

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


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3)])
def test_coded_modes_pass_unchanged(mode, channels):
    image = pil(mode)
    planes = to_planes(image)
    assert planes.colour.shape == (5, 7, channels)
    assert (planes.alpha is not None) == mode.endswith("A")
    result = to_pil(planes)
    assert result.mode == mode
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image))


CONVERTED = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "PA": "RGBA"}


@pytest.mark.parametrize(("mode", "target"), CONVERTED.items())
def test_other_8_bit_modes_are_converted(mode, target):
    image = pil(mode)
    result = to_pil(to_planes(image))
    assert result.mode == target
    np.testing.assert_array_equal(np.asarray(result), np.asarray(image.convert(target)))


@pytest.mark.parametrize("mode", ["I;16", "I", "F", "LAB", "HSV"])
def test_modes_without_an_8_bit_form_are_refused(mode):
    with pytest.raises(ImageError, match=f"mode {mode}"):
        to_planes(Image.new(mode, (4, 4)))


def test_transparent_palette_entry_becomes_alpha():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    planes = to_planes(saved(image, transparency=1))
    assert planes.colour.tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert planes.alpha.tolist() == [[255, 0]]


@pytest.mark.parametrize(("mode", "transparent"), [("L", 7), ("RGB", (7, 8, 9))])
def test_transparent_colour_becomes_alpha(mode, transparent):
    image = Image.new(mode, (2, 1))
    image.putpixel((1, 0), transparent)
    planes = to_planes(saved(image, transparency=transparent))
    assert planes.alpha.tolist() == [[255, 0]]
    assert to_pil(planes).mode == mode + "A"


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


@pytest.mark.parametrize(("form", "options"), [("PNG", {"pnginfo": PNG_XMP}), ("JPEG", {}), ("WEBP", {})])
def test_metadata_is_kept(form, options):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    blocks = {"icc_profile": profile, "exif": exif(description="kept").tobytes(), "xmp": XMP % 1}
    planes = to_planes(saved(pil("RGB"), form, **blocks, **options))
    assert planes.metadata.icc_profile == profile
    assert planes.metadata.xmp == XMP % 1
    assert loaded(planes.metadata.exif)[DESCRIPTION] == "kept"


def loaded(block: bytes) -> Image.Exif:
    result = Image.Exif()
    result.load(block)
    return result


def test_image_without_metadata_has_none():
    assert to_planes(saved(pil("RGB"))).metadata == Metadata()


def test_profile_of_other_colours_is_dropped():
    image = pil("CMYK")
    image.info.update(icc_profile=b"of CMYK", xmp=b"kept")
    assert to_planes(image).metadata == Metadata(xmp=b"kept")


@pytest.mark.parametrize("channels", [0, 1, 3, 4])
def test_takes_uint8_arrays(channels):
    array = np.random.default_rng(0).integers(0, 256, (5, 7, channels) if channels else (5, 7), dtype=np.uint8)
    planes = to_planes(array)
    np.testing.assert_array_equal(planes.colour, array.reshape(5, 7, -1)[:, :, :3])
    assert (planes.alpha is not None) == (channels == 4)
    if channels == 4:
        np.testing.assert_array_equal(planes.alpha, array[:, :, 3])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_takes_tensors(channels, dtype):
    levels = torch.tensor([0, 1, 64, 127, 200, 255], dtype=torch.uint8).reshape(1, 2, 3).expand(channels, -1, -1)
    tensor = levels if dtype == torch.uint8 else (levels.to(torch.float64) / 255.0).to(dtype)
    planes = to_planes(tensor)
    assert planes.colour.dtype == np.uint8
    error = planes.colour[:, :, 0].astype(int) - levels[0].numpy()
    assert np.abs(error).max() <= (1 if dtype == torch.bfloat16 else 0)
    assert (planes.alpha is not None) == (channels == 4)


def test_tensor_beyond_its_range_is_clipped():
    assert to_planes(torch.tensor([-1.0, 2.0]).reshape(1, 1, 2)).colour.ravel().tolist() == [0, 255]


def test_tensor_that_needs_a_gradient_is_taken():
    assert to_planes(torch.ones(3, 2, 2, requires_grad=True)).colour.min() == 255


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint16, np.int64, bool])
def test_arrays_of_another_type_are_the_callers_mistake(dtype):
    with pytest.raises(TypeError, match="uint8"):
        to_planes(np.zeros((4, 4, 3), dtype))


@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.bool, torch.int8])
def test_tensors_of_another_type_are_the_callers_mistake(dtype):
    with pytest.raises(TypeError, match="uint8"):
        to_planes(torch.zeros(3, 4, 4, dtype=dtype))


@pytest.mark.parametrize("value", [None, "image.png", b"bytes", [[0]], 3])
def test_other_objects_are_the_callers_mistake(value):
    with pytest.raises(TypeError, match="PIL image"):
        to_planes(value)


@pytest.mark.parametrize(
    "array",
    [np.zeros((), np.uint8), np.zeros(3, np.uint8), np.zeros((4, 4, 2), np.uint8), np.zeros((1, 4, 4, 3), np.uint8)],
)
def test_arrays_of_another_shape_are_the_callers_mistake(array):
    with pytest.raises(ValueError, match="shape"):
        to_planes(array)


@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 3, 4, 4)])
def test_tensors_of_another_shape_are_the_callers_mistake(shape):
    with pytest.raises(ValueError, match="shape"):
        to_planes(torch.zeros(shape))


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.broadcast_to(np.uint8(0), (1, (1 << 24) + 1, 3)),
        torch.zeros(3, 0, 4),
        Image.new("RGB", (0, 4)),
    ],
    ids=["no rows", "no columns", "too wide", "tensor", "PIL"],
)
def test_images_that_are_empty_or_too_large_are_refused(image):
    with pytest.raises(ImageError, match="px"):
        to_planes(image)


# Files.


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(20)])
def test_file_that_is_no_image_is_an_image_error(data):
    with pytest.raises(ImageError):
        open_image(io.BytesIO(data))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF"])
def test_image_cut_short_is_an_image_error(form):
    buffer = io.BytesIO()
    pil("RGB", 64, 64).save(buffer, form)
    with pytest.raises(ImageError, match=r"damaged|not an image"):
        open_image(io.BytesIO(buffer.getvalue()[: len(buffer.getvalue()) // 2]))


def test_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        open_image(tmp_path / "missing.png")


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".tif", ".webp", ".jpg"])
def test_suffix_chooses_the_format(suffix):
    image = open_image(io.BytesIO(save_image(pil("RGB"), suffix)))
    assert image.format == {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP", ".jpg": "JPEG"}[suffix.lower()]
    assert image.size == (7, 5)


@pytest.mark.parametrize(("mode", "suffix"), [("RGB", ".yoto"), ("RGB", ""), ("RGB", ".svg"), ("RGBA", ".jpg")])
def test_what_cannot_be_written_is_an_image_error(mode, suffix):
    with pytest.raises(ImageError, match="cannot be written"):
        save_image(pil(mode), suffix)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_saved_file_carries_the_metadata(suffix):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    metadata = Metadata(profile, exif(description="kept").tobytes(), XMP % 1)
    image = open_image(io.BytesIO(save_image(to_pil(Planes(picture(4, 4), None, metadata)), suffix)))
    kept = to_planes(image).metadata
    assert (kept.icc_profile, kept.xmp) == (metadata.icc_profile, metadata.xmp)
    assert loaded(kept.exif)[DESCRIPTION] == "kept"


def test_psnr():
    a = picture(300, 10)
    assert psnr_db(a, a) == float("inf")
    assert psnr_db(np.zeros((300, 4), np.uint8), np.full((300, 4), 255, np.uint8)) == 0.0
    b = picture(300, 10, 1)
    mse = np.mean((a.astype(float) - b) ** 2)
    assert psnr_db(a, b) == pytest.approx(10 * np.log10(255**2 / mse))


# Padding.


@pytest.mark.parametrize(("side", "padded"), [(1, 64), (63, 64), (64, 64), (65, 128), (300, 320)])
def test_sides_are_padded_to_multiples_of_64(side, padded):
    assert padded_size(side) == padded


@pytest.mark.parametrize("channels", [1, 3])
def test_padding_repeats_the_edge_and_crops_back(channels):
    colour = picture(5, 70)[:, :, :channels]
    x = read_region(colour, Box(0, 0, 64, 128))
    assert x.shape == (1, 3, 64, 128)
    levels = (x[0] * 255.0).round().to(torch.uint8).permute(1, 2, 0).numpy()
    expected = np.broadcast_to(colour, (5, 70, 3))
    np.testing.assert_array_equal(levels[:5, :70], expected)
    np.testing.assert_array_equal(levels[5:, :70], np.broadcast_to(expected[-1:], (59, 70, 3)))
    np.testing.assert_array_equal(levels[:, 70:], np.broadcast_to(levels[:, 69:70], (64, 58, 3)))


def test_region_inside_the_image_is_not_padded():
    colour = picture(192, 192)
    x = read_region(colour, Box(64, 128, 64, 64))
    np.testing.assert_array_equal((x[0] * 255.0).round().permute(1, 2, 0).numpy(), colour[64:128, 128:])
