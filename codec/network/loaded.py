"""A model that is ready to code: weights, what runs their transforms, and the entropy model at each rate point."""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec

from codec.errors import CodecError, ModelMismatchError, WeightsError
from codec.network import weights as weights_file
from codec.network.backend import Backend
from codec.network.integer import IntegerPrior
from codec.network.weights import Weights

BACKENDS = ("auto", "onnx", "torch")


class LoadedModel:
    """What encoder and decoder need of a model. Safe to share between threads.

    Args:
        path: of a weights file; None for an installed model.
        device: where the transforms run; the entropy model always runs on the CPU.
        backend: "onnx", "torch", or "auto" for the faster of those that there are.
        model_id: which of the installed models.

    Raises:
        WeightsError: the weights cannot be used.
        ModelMismatchError: no such model is installed.
        CodecError: the device or the back end cannot be used.
        ValueError: there is no such back end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        device: str = "cpu",
        backend: str = "auto",
        model_id: bytes = weights_file.DEFAULT_ID,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f"backend is {backend!r}; known: {', '.join(BACKENDS)}")
        self.weights = weights_file.load(path, model_id)
        try:
            self.backend = start_backend(self.weights, device, backend)
        except ValueError as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{self.weights.path} is not a usable weights file: {reason}") from error
        self.prior = lru_cache(maxsize=16)(self._build_prior)
        self._realistic = lru_cache(maxsize=2)(
            lambda realism: start_backend(self.weights.with_realism(realism), device, backend)
        )
        self._installed = lru_cache(maxsize=4)(lambda model_id: LoadedModel(None, device, backend, model_id))

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

    def synthesiser(self, realism: float) -> Backend:
        """What makes the pictures, faithful at 0, realistic at 1.

        Raises:
            WeightsError: the model has not learned it, and it is not 0.
        """
        return self._realistic(realism) if realism else self.backend

    def _build_prior(self, rate_point: int) -> IntegerPrior:
        """The frozen entropy model at a rate point."""
        return IntegerPrior(self.weights.config, self.weights.integers, rate_point)


def start_backend(weights: Weights, device: str, name: str) -> Backend:
    """What runs the transforms of these weights.

    Raises:
        CodecError: it is not installed, or cannot use the device.
        ValueError: the weights are not those of their configuration.
    """
    if name == "onnx" or (name == "auto" and device == "cpu" and onnx_serves(weights)):
        if device != "cpu":
            raise CodecError(f"the back end onnx runs on the CPU alone, not on {device}; choose torch")
        if not find_spec("onnxruntime"):
            raise CodecError("the back end onnx needs onnxruntime, which is not installed: pip install onnxruntime")
        from codec.network.onnx_backend import OnnxBackend

        return OnnxBackend(weights.config, weights.floats, weights.path)
    if not find_spec("torch"):
        reason = f"there are no ONNX graphs beside {weights.path}, and " if name == "auto" and device == "cpu" else ""
        raise CodecError(f"{reason}torch is not installed: pip install 'yoto-codec[torch]'")
    from codec.network.torch_backend import TorchBackend

    return TorchBackend(weights.config, weights.floats, device)


def onnx_serves(weights: Weights) -> bool:
    """Whether ONNX Runtime is installed and there are graphs for it."""
    if not find_spec("onnxruntime"):
        return False
    from codec.network.onnx_backend import has_graphs

    return has_graphs(weights.path)
