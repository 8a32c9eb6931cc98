"""A model that is ready to code: weights, what runs their transforms, and the entropy model at each rate point."""

from __future__ import annotations

import os
from functools import lru_cache

import torch

from codec.network import weights as weights_file
from codec.network.backend import Backend, TorchBackend
from codec.network.config import MARGIN_PX
from codec.network.integer import IntegerPrior, exact_dtype


class LoadedModel:
    """What encoder and decoder need of a model. Safe to share between threads.

    Args:
        path: of a weights file; None for the one that is shipped.
        device: where the transforms run; the entropy model always runs on the CPU.

    Raises:
        WeightsError: the weights cannot be used.
        CodecError: the device cannot be used.
    """

    def __init__(self, path: str | os.PathLike[str] | None, device: str) -> None:
        self.weights = weights_file.load(path)
        self.backend: Backend = TorchBackend(self.weights.transforms, device)
        self._priors = lru_cache(maxsize=16)(self._build_prior)

    @property
    def id(self) -> bytes:
        """As in the header of a `.yoto` file."""
        return self.weights.model_id

    @property
    def margin_px(self) -> int:
        """Context of the transforms around a tile, px."""
        return MARGIN_PX

    def prior(self, rate_point: int) -> IntegerPrior:
        """The frozen entropy model at a rate point."""
        return self._priors(rate_point, exact_dtype())

    def _build_prior(self, rate_point: int, dtype: torch.dtype) -> IntegerPrior:
        return IntegerPrior(self.weights.integers, rate_point, dtype)
