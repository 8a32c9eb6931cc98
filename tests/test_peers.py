"""The formats that ours is compared with."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import picture

from codec import peers
from codec.errors import ImageError
from codec.metrics import psnr_db
from codec.peers import PEERS, choose_peers, encode_at_quality, encode_at_size


@pytest.mark.parametrize("name", PEERS)
def test_peers_spend_more_for_better(name: str) -> None:
    (peer,), absent = choose_peers([name])
    assert absent == []
    for channels in (3, 1):
        image = picture(96, 128)[:, :, :channels]
        low, high = (peer.encode(image, setting) for setting in (peer.settings[1], peer.settings[-2]))
        assert len(low) < len(high)
        decoded = [peer.decode(data, channels) for data in (low, high)]
        assert decoded[1].shape == image.shape
        assert psnr_db(image, decoded[0]) < psnr_db(image, decoded[1])


def test_absent_codecs_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.features, "check", lambda feature: feature != "avif")
    monkeypatch.setattr(peers, "plugins", frozenset)
    present, missing = choose_peers(["heic", "avif", "jpeg", "jpegxl"])
    assert [peer.name for peer in present] == ["jpeg"]
    assert missing == ["avif", "jpegxl", "heic"]


def test_nearest_size_is_found() -> None:
    jpeg, image = PEERS["jpeg"], picture(96, 96)
    sizes = {quality: len(jpeg.encode(image, quality)) for quality in range(100)}
    for target in (1, sizes[63] + 2, sizes[64] - 2, 1 << 20):
        found = encode_at_size(jpeg, image, target)
        assert found.data == jpeg.encode(image, found.setting)
        assert abs(len(found.data) - target) == min(abs(size - target) for size in sizes.values())


@pytest.mark.parametrize("name", ["webp", "jpeg2000"])
def test_smallest_file_that_is_good_enough_is_found(name: str) -> None:
    peer, image = PEERS[name], picture(96, 96)
    file = encode_at_quality(peer, image, lambda decoded: psnr_db(image, decoded) >= 31.0)
    before = peer.scale[list(peer.scale).index(file.setting) - 1]
    assert psnr_db(image, peer.decode(file.data)) >= 31.0 > psnr_db(image, peer.decode(peer.encode(image, before)))
    assert encode_at_quality(peer, image, lambda decoded: psnr_db(image, decoded) >= 99.0) is None


def test_pictures_that_a_format_cannot_hold_are_refused() -> None:
    with pytest.raises(ImageError, match=r"WebP .* cannot hold an image of 16384×1 px"):
        PEERS["webp"].encode(np.zeros((1, 16384, 3), np.uint8), 50)
