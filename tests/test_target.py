"""The search for a quality: with few encodes where the rate rises, an end where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from conftest import picture
from PIL import Image
from test_image import pil

import codec as package
from codec.format.bitstream import QUALITY_MAX, read_metadata, unpack
from codec.metrics import psnr_db
from codec.picture.image import to_planes
from codec.target import encode_to_target, search

# Functions of q in [0, 1] that rise by about 3, as ln(bytes) does.
RISING = {
    "straight": lambda q: 3.0 * q,
    "bent": lambda q: 3.0 * q**3,
    "bent the other way": lambda q: 3.0 * q**0.3,
    "in steps": lambda q: math.floor(400.0 * q) / 133.0,
    "flat, then steep": lambda q: 0.001 * q + 3.0 * (q > 0.9),
    "steeper than expected": lambda q: 30.0 * q,
    "flatter than expected": lambda q: 0.3 * q,
}


def searched(function: Callable[[float], float], target: float) -> tuple[int, list[int]]:
    """The rate point found, and those measured, in order."""
    measured: list[int] = []

    def measure(rate_point: int) -> float:
        assert 0 <= rate_point <= QUALITY_MAX
        measured.append(rate_point)
        return function(rate_point / QUALITY_MAX)

    return search(measure, target, 0.01, 3.0), measured


@pytest.mark.parametrize("function", RISING.values(), ids=RISING)
@pytest.mark.parametrize("wanted", [0.0, 0.03, 0.31, 0.5, 0.87, 0.95, 1.0])
def test_what_some_quality_reaches_is_found(function, wanted):
    target = function(wanted)
    chosen, measured = searched(function, target)
    assert abs(function(chosen / QUALITY_MAX) - target) <= 0.01
    assert len(measured) == len(set(measured)) <= 16


@pytest.mark.parametrize("wanted", np.linspace(0.0, 1.0, 41))
def test_few_encodes_suffice_for_curves_like_those_of_real_pictures(wanted):
    def curve(q: float) -> float:
        return 3.1 * q - 0.5 * (q - 0.5) ** 2 + 0.002 * math.sin(700.0 * q)

    assert len(searched(curve, curve(wanted))[1]) <= 5


@pytest.mark.parametrize(("target", "end"), [(-50.0, 0), (-0.1, 0), (3.1, QUALITY_MAX), (900.0, QUALITY_MAX)])
def test_end_of_the_range_is_nearest_to_what_lies_outside(target, end):
    chosen, measured = searched(lambda q: 3.0 * q, target)
    assert chosen == end
    assert len(measured) <= 3


@pytest.mark.parametrize("target", [-1.0, 0.0, 0.4, 1.0, 9.0])
@pytest.mark.parametrize("seed", range(20))
def test_search_ends_even_if_nothing_rises(seed, target):
    values = np.random.default_rng(seed).uniform(-1.0, 1.0, QUALITY_MAX + 1)
    chosen, measured = searched(lambda q: values[round(q * QUALITY_MAX)], target)
    assert len(measured) == len(set(measured)) <= 40
    assert abs(values[chosen] - target) == min(abs(values[point] - target) for point in measured)


def test_infinite_values_lead_to_the_cheapest():
    assert searched(lambda _: math.inf, 40.0)[0] == 0
    chosen, _ = searched(lambda q: math.inf if q > 0.2 else 3.0 * q, 0.6)
    assert chosen / QUALITY_MAX == pytest.approx(0.2, abs=0.01)


# With a model.


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return picture(128, 192)


@pytest.fixture(scope="module")
def sizes(codec, image) -> tuple[int, int]:
    """Bytes at quality 0 and 1."""
    low, high = (len(codec.encode(image, quality)) for quality in (0.0, 1.0))
    assert high > 1.5 * low
    return low, high


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_bytes_are_met_within_one_percent(codec, image, sizes, share):
    target = sizes[0] ** (1 - share) * sizes[1] ** share
    found = encode_to_target(image, size_bytes=target, codec=codec)
    assert found.met
    assert 0.99 * target <= found.reached == len(found.data) <= target
    assert found.data == codec.encode(image, found.quality)


def test_bpp_is_bytes_over_pixels(codec, image, sizes):
    bpp = 8.0 * sum(sizes) / 2 / (128 * 192)
    found = encode_to_target(image, bpp=bpp, codec=codec)
    assert found.met
    assert 0.99 * bpp <= found.reached <= bpp
    assert found.reached == pytest.approx(unpack(found.data).bpp)


def test_psnr_is_that_of_the_decoded_picture(codec, image):
    low, high = (psnr_db(image, np.asarray(codec.decode(codec.encode(image, quality)))) for quality in (0.0, 1.0))
    found = encode_to_target(image, psnr_db=(low + high) / 2, codec=codec)
    assert found.met
    decoded = np.asarray(codec.decode(found.data))
    assert psnr_db(image, decoded) == found.reached == pytest.approx((low + high) / 2, abs=0.05)


def test_targets_out_of_reach_give_the_nearest(codec, image, sizes):
    for target, quality, size in ((1, 0.0, sizes[0]), (10 * sizes[1], 1.0, sizes[1])):
        found = encode_to_target(image, size_bytes=target, codec=codec)
        assert (found.quality, found.reached, found.met) == (quality, size, False)


def test_metadata_and_alpha_count_as_bytes(codec):
    image = pil("RGBA", 128, 192)
    image.info["xmp"] = bytes(range(256)) * 4
    rich = encode_to_target(image, size_bytes=30_000, codec=codec)
    assert rich.reached == len(rich.data)
    assert read_metadata(unpack(rich.data), rich.data).xmp == image.info["xmp"]
    assert not unpack(
        encode_to_target(image, size_bytes=30_000, codec=codec, keep_metadata=False).data
    ).metadata_section
    np.testing.assert_array_equal(np.asarray(codec.decode(rich.data))[:, :, 3], np.asarray(image)[:, :, 3])


def test_alpha_is_compressed_once(codec, monkeypatch):
    calls = []
    monkeypatch.setattr("codec.picture.image.pack_alpha", lambda alpha: calls.append(alpha) or b"packed")
    found = encode_to_target(pil("LA", 64, 64), size_bytes=300, codec=codec)
    assert found.encodes > 1
    assert len(calls) == 1


def test_effort_is_passed_on(codec, image):
    found = encode_to_target(image, bpp=1.0, codec=codec, effort=0)
    assert found.data == codec.encode(image, found.quality, effort=0)


def test_progress_never_goes_back_and_ends_where_it_said(codec):
    told = []
    found = encode_to_target(
        picture(40, 1100), psnr_db=30.0, codec=codec, effort=0, progress=lambda *step: told.append(step)
    )
    assert len(told) == 2 * found.encodes + 1  # two tiles a file, and the end
    done, totals = zip(*told, strict=True)
    assert list(done) == sorted(set(done))
    assert set(totals) == {done[-1]}


@pytest.mark.parametrize("targets", [{}, {"bpp": 1.0, "psnr_db": 30.0}, {"size_bytes": 1, "bpp": 1.0}])
def test_one_target_it_must_be(codec, image, targets):
    with pytest.raises(ValueError, match="give one of"):
        encode_to_target(image, codec=codec, **targets)


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["size_bytes", "bpp", "psnr_db"])
def test_targets_are_positive(codec, image, name, value):
    with pytest.raises(ValueError, match="positive"):
        encode_to_target(image, codec=codec, **{name: value})


# With the shipped weights, on a photograph, in the middle of their range.


@pytest.mark.parametrize("share", [0.25, 0.75])
@pytest.mark.parametrize("name", ["size_bytes", "bpp", "psnr_db"])
def test_shipped_weights_meet_targets_with_few_encodes(name, share):
    image = Image.fromarray(skimage.data.astronaut()[:192, :256])

    def value(data: bytes) -> float:
        if name == "psnr_db":
            return psnr_db(to_planes(image).colour, np.asarray(package.decode(data)))
        return len(data) if name == "size_bytes" else unpack(data).bpp

    low, high = (value(package.encode(image, quality)) for quality in (0.0, 1.0))
    target = low + share * (high - low)
    found = package.encode_to_target(image, **{name: target})
    if name == "psnr_db":
        assert abs(value(found.data) - target) <= 0.05
    else:
        assert 0.99 * target <= value(found.data) <= target
    assert found.encodes <= 6
