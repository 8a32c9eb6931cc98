"""A model that is ready to code: weights, what runs their transforms, and the entropy model at each rate point."""

from __future__ import annotations

import os
from functools import lru_cache

from codec.errors import ModelMismatchError, WeightsError
from codec.network import weights as weights_file
from codec.network.backend import Backend
from codec.network.integer import IntegerPrior
from codec.network.torch_backend import TorchBackend


class LoadedModel:
    """What encoder and decoder need of a model. Safe to share between threads.

    Args:
        path: of a weights file; None for an installed model.
        device: where the transforms run; the entropy model always runs on the CPU.
        model_id: which of the installed models.

    Raises:
        WeightsError: the weights cannot be used.
        ModelMismatchError: no such model is installed.
        CodecError: the device cannot be used.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, device: str, model_id: bytes = weights_file.DEFAULT_ID
    ) -> None:
        self.weights = weights_file.load(path, model_id)
        try:
            self.backend: Backend = TorchBackend(self.weights.config, self.weights.floats, device)
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{self.weights.path} is not a usable weights file: {reason}") from error
        self.prior = lru_cache(maxsize=16)(self._build_prior)
        self._installed = lru_cache(maxsize=4)(lambda model_id: LoadedModel(None, device, model_id))

    @property
    def id(self) -> bytes:
        """As in the header of a `.yoto` file."""
        return self.weights.model_id

    @property
    def margin_px(self) -> int:
        """Context of the transforms around a tile, px."""
        return self.weights.config.margin_px

    def of(self, model_id: bytes) -> LoadedModel:
        """The model that a file names: this one, or an installed one, loaded when it is first needed.

        Raises:
            ModelMismatchError: it is neither.
        """
        if model_id == self.id:
            return self
        try:
            return self._installed(model_id)
        except ModelMismatchError as error:
            raise ModelMismatchError(f"{error}; loaded are {self.id.hex()}") from error

    def _build_prior(self, rate_point: int) -> IntegerPrior:
        """The frozen entropy model at a rate point."""
        return IntegerPrior(self.weights.config, self.weights.integers, rate_point)
