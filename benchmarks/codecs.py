"""What is compared, ours and the peers, all as `encode(picture, setting) → bytes`, `decode(bytes) → picture`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from unittest.mock import patch

import numpy as np
import torch
from PIL import AvifImagePlugin

from codec.api import Codec
from codec.encoder import DEFAULT_EFFORT
from codec.picture.image import Uint8Array

OURS = "yoto"
FAST = "yoto-fast"  # the same at effort 0


class ImageCodec(Protocol):
    """What a benchmark needs to know of a codec."""

    @property
    def name(self) -> str:
        """As on the command line and in the results."""
        ...

    @property
    def settings(self) -> Sequence[float]:
        """Points of the curve, from few bits to many."""
        ...

    @property
    def options(self) -> Mapping[str, object]:
        """What is the same at every setting."""
        ...

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        """The bytes of a complete file."""
        ...

    def decode(self, data: bytes) -> Uint8Array:
        """The picture, from the bytes alone."""
        ...


@dataclass(frozen=True)
class Yoto:
    """Our codec; a setting is the quality in [0, 1]."""

    codec: Codec
    settings: Sequence[float] = ()
    name: str = OURS
    effort: int = DEFAULT_EFFORT

    @property
    def options(self) -> Mapping[str, object]:
        """The effort."""
        return {"effort": self.effort}

    def encode(self, image: Uint8Array, setting: float) -> bytes:
        return self.codec.encode(image, setting, effort=self.effort)

    def decode(self, data: bytes) -> Uint8Array:
        return np.asarray(self.codec.decode(data, max_pixels=sys.maxsize))


@contextmanager
def limited_to(threads: int) -> Iterator[None]:
    """Let every codec use so many threads: by its own setting, and where the system can, by the cores it may run on.

    JPEG XL and HEIC offer no setting, so elsewhere than on Linux they are not limited.
    """
    before, cores = torch.get_num_threads(), allowed_cores()
    with patch.object(AvifImagePlugin, "DEFAULT_MAX_THREADS", threads):
        try:
            torch.set_num_threads(threads)
            if cores:
                os.sched_setaffinity(0, cores[:threads])
            yield
        finally:
            torch.set_num_threads(before)
            if cores:
                os.sched_setaffinity(0, cores)


def allowed_cores() -> list[int]:
    """The cores that this process may use; empty where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
