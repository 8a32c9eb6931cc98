"""The transforms in ONNX Runtime, on a CPU, without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from codec.errors import WeightsError
from codec.format.bitstream import QUALITY_MAX
from codec.network import threads
from codec.network.backend import FloatArray, Look
from codec.network.config import LATENT_STRIDE, ModelConfig

# Else the import writes an identifier of the machine below ~/.cache, for the telemetry that goes to Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# Inputs and outputs of each graph; see `training/graphs.py`.
GRAPHS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "analyse": (("pixels", "condition"), ("y",)),
    "hyper_analyse": (("y", "condition"), ("z",)),
    "synthesise": (("y_hat", "condition"), ("pixels",)),
    "look": (("y_hat", "condition", "pixels", "mask", "mix"), ("error", "gradient")),
}
PREFIX = "transforms."  # of the names of a model's tensors in its graphs
# Latents of a run, from which on its memory is not kept in ONNX Runtime's arenas, one a graph. They save small pictures
# some time, but an encode of four megapixels takes 1.8 GiB with them, and 1.2 without (0.75 by the command, see `cli`).
LARGE = 1600


def graph_path(weights: Path, name: str) -> Path:
    """Where a graph lies, beside the weights of its model."""
    return weights.with_name(f"{weights.stem}.{name}.onnx")


def has_graphs(weights: Path) -> bool:
    """Whether a model can be run by ONNX Runtime."""
    return all(graph_path(weights, name).is_file() for name in GRAPHS)


class OnnxBackend:
    """Runs the transforms with ONNX Runtime; see `Backend`. A graph is loaded when it is first needed."""

    name = "onnx"

    def __init__(self, config: ModelConfig, floats: Mapping[str, FloatArray], path: Path) -> None:
        """Take the graphs beside the weights file `path`."""
        self.config, self.path = config, path
        # The graphs read these arrays where they lie, so they must stay.
        self.floats = {name: np.ascontiguousarray(array) for name, array in floats.items()}
        self._sessions: dict[tuple[int, int, str, bool], onnxruntime.InferenceSession] = {}

    def analyse(self, pixels: FloatArray, rate_point: int) -> FloatArray:
        """Latents y of pixels; see `Backend`."""
        return self._run("analyse", {"pixels": pixels}, rate_point)[0]

    def hyper_analyse(self, y: FloatArray, rate_point: int) -> FloatArray:
        """Hyper-latents z of y, not yet rounded; see `Backend`."""
        return self._run("hyper_analyse", {"y": y}, rate_point)[0]

    def synthesise(self, y_hat: FloatArray, rate_point: int) -> FloatArray:
        """Pixels of latents; see `Backend`."""
        return self._run("synthesise", {"y_hat": y_hat}, rate_point)[0]

    def look(self, pixels: FloatArray, y_hat: FloatArray, rate_point: int, *, gradient: bool) -> Look:
        """Compare the picture of y_hat with pixels; see `Backend`."""
        height, width, channels = pixels.shape
        h, w, _ = y_hat.shape
        scale = np.float32(255.0**2 * self.config.lmbda(rate_point / QUALITY_MAX))
        slope = None
        if gradient:
            target = np.zeros((LATENT_STRIDE * h, LATENT_STRIDE * w, 3), np.float32)
            mask = np.zeros((*target.shape[:2], 1), np.float32)
            target[:height, :width], mask[:height, :width] = pixels, 1.0
            mix = np.eye(3, dtype=np.float32) if channels == 3 else np.full((3, 3), 1.0 / 3.0, np.float32)
            asked = {"y_hat": y_hat, "pixels": target, "mask": mask, "mix": mix}
            error, slope = self._run("look", asked, rate_point)
            slope = slope * scale
        else:
            x_hat = self.synthesise(y_hat, rate_point)
            if channels == 1:
                x_hat = x_hat.mean(axis=2, keepdims=True)
            error = np.zeros(x_hat.shape[:2], np.float32)
            with np.errstate(
                over="ignore", invalid="ignore"
            ):  # what the network makes of checkerboards may be no number
                error[:height, :width] = np.square(x_hat[:height, :width] - pixels).mean(axis=2)
        cells = error.reshape(h, LATENT_STRIDE, w, LATENT_STRIDE).sum(axis=(1, 3)) * scale
        return Look(cells, slope)

    def __getstate__(self) -> dict[str, object]:
        """Pickles without the graphs that are loaded."""
        return vars(self) | {"_sessions": {}}

    def _session(self, name: str, large: bool) -> onnxruntime.InferenceSession:
        """A graph that is ready to run; loaded anew for other numbers of threads, and in a process that was forked."""
        key = os.getpid(), threads.get(), name, large
        if key not in self._sessions:
            self._sessions[key] = self._load(name, large)
        return self._sessions[key]

    def _load(self, name: str, large: bool) -> onnxruntime.InferenceSession:
        path = graph_path(self.path, name)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads.get()
        options.log_severity_level = 3
        options.enable_cpu_mem_arena = not large
        # Threads spin between a graph's operations, but not between its runs: the entropy model needs the cores then.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            graph = path.read_bytes()
            given = {PREFIX + key: value for key, value in self.floats.items()}
            used = {key: value for key, value in given.items() if key.encode() in graph}  # others would be refused
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(value) for value in used.values()]
            options.add_external_initializers(list(used), values)
            return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        except OSError as error:
            raise WeightsError(f"the graph {path} cannot be read: {error.strerror}") from error
        except Exception as error:  # ONNX Runtime's own have no common base
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(f"{path} is not a usable graph of these weights: {reason}") from error

    def _run(self, name: str, inputs: dict[str, FloatArray], rate_point: int) -> list[FloatArray]:
        condition = np.full((1, 1), 2.0 * rate_point / QUALITY_MAX - 1.0, np.float32)
        contiguous = {key: np.ascontiguousarray(value, np.float32) for key, value in inputs.items()}
        height, width = next(iter(inputs.values())).shape[:2]
        large = height * width > LARGE * (LATENT_STRIDE**2 if name == "analyse" else 1)
        try:
            return self._session(name, large).run(None, contiguous | {"condition": condition})
        except Exception as error:  # ONNX Runtime's own have no common base
            if any(word in str(error) for word in ("allocate", "bad_alloc")):
                raise MemoryError(f"ONNX Runtime: {name}") from error
            raise
