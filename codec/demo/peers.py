"""The formats that the demo shows beside `.yoto`, each at the best effort for which a page can wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from codec.metrics import Uint8Array
from codec.peers import PEERS, Peer, PeerFile, encode_at_size

PeerName = Literal["jpeg", "webp", "avif", "jpegxl", "heic"]
NAMES: tuple[PeerName, ...] = ("jpeg", "webp", "avif", "jpegxl", "heic")
PATIENT_PX = 1_000_000  # up to which an encoder may take seconds
PATIENT: Mapping[str, Peer] = {
    "avif": replace(PEERS["avif"], title="AVIF (aom, speed 4)", options={**PEERS["avif"].options, "speed": 4}),
    "jpegxl": replace(PEERS["jpegxl"], title="JPEG XL (effort 9)", options={"effort": 9}),
}
Check = Callable[[], None]  # raises if the work is no longer wanted


@dataclass(frozen=True)
class Watched(Peer):
    """A peer that gives up before a file that is no longer wanted."""

    check: Check = lambda: None

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        """As the peer does."""
        self.check()
        return super().encode(image, setting)


@cache
def writable_peers() -> list[PeerName]:
    """Those that can be used here."""
    return [name for name in NAMES if PEERS[name].present()]


def peer_for(name: PeerName, colour: Uint8Array) -> Peer:
    """The peer with the effort that suits a picture's size."""
    small = colour.shape[0] * colour.shape[1] <= PATIENT_PX
    return PATIENT.get(name, PEERS[name]) if small else PEERS[name]


def nearest_file(peer: Peer, colour: Uint8Array, size_bytes: int, check: Check) -> PeerFile:
    """The file of a picture, uint8 (H, W, 3 or 1), whose size is nearest; ImageError if the format cannot hold it."""
    return encode_at_size(Watched(**vars(peer), check=check), colour, size_bytes)
