"""The floating-point half of a model as the codec uses it: NumPy arrays in and out, channels last.

Pixels are float32 (H, W, 3) in [0, 1], H and W multiples of 16. Latents y are float32 (h, w, M) in quantiser steps,
h = H / 16 and w = W / 16; hyper-latents z int32 (h / 4, w / 4, Z). The rate point is the header's integer quality.
Nothing that comes from here needs to be the same on two machines: decoders see integers only.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from codec.network.layout import LATENT_BITS

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int32]


class Look(NamedTuple):
    """What the picture of some symbols costs.

    error_bits: λ·255² times the squared error, mean over the channels, summed over the pixels of each latent, (h, w).
    gradient: derivative of its sum by y_hat, (h, w, M), or None if it was not asked for.
    """

    error_bits: FloatArray
    gradient: FloatArray | None


class Backend(Protocol):
    """What runs the transforms of one model."""

    name: str

    def analyse(self, pixels: FloatArray, rate_point: int) -> FloatArray:
        """Latents y of pixels."""
        ...

    def hyper_analyse(self, y: FloatArray, rate_point: int) -> FloatArray:
        """Hyper-latents z of y, not yet rounded; h and w multiples of 4."""
        ...

    def look(self, pixels: FloatArray, y_hat: FloatArray, rate_point: int, *, gradient: bool) -> Look:
        """Compare the picture of y_hat with pixels (H', W', 3 or 1), H' ≤ H, W' ≤ W: what lies beyond does not count.

        With one channel of pixels, the mean of the picture's channels is compared.
        """
        ...

    def synthesise(self, y_hat: FloatArray, rate_point: int) -> FloatArray:
        """Pixels of latents, about [0, 1], not clipped."""
        ...


def from_steps(y_hat: npt.NDArray[np.integer]) -> FloatArray:
    """Latents in the integer steps of the entropy model as `Backend` takes them."""
    return y_hat.astype(np.float32) * np.float32(2.0**-LATENT_BITS)
