"""The transforms as ONNX graphs, for machines without torch; `codec/network/onnx_backend.py` runs them.

    python -m training.graphs [MODEL ID …]

A graph holds no weights: it names the tensors of the model's weights file, which are given to it when it is loaded. So
it is small, and cannot disagree with them. One graph serves all sizes and qualities.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import click
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network import weights
from codec.network.config import PIXELS, ModelConfig
from codec.network.layers import Depthwise, FiLM, Lapped, Pointwise, ResidualBlock
from codec.network.onnx_backend import GRAPHS, graph_path
from codec.network.transforms import Synthesis, Transforms

OPSET = 18


def planes(rows: Tensor) -> Tensor:
    """(H, W, C) → (1, C, H, W)."""
    return rows.permute(2, 0, 1)[None]


def rows(planes: Tensor) -> Tensor:
    """(1, C, H, W) → (H, W, C)."""
    return planes[0].permute(1, 2, 0)


class Graph(nn.Module):
    """What is exported; `transforms` gives the tensors their names."""

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        self.transforms = transforms


class AnalyseGraph(Graph):
    """Pixels (H, W, 3) → y (h, w, M)."""

    def forward(self, pixels: Tensor, condition: Tensor) -> Tensor:
        return rows(self.transforms.analyse(planes(pixels), condition))


class HyperAnalyseGraph(Graph):
    """y (h, w, M) → z (h/4, w/4, Z), not rounded."""

    def forward(self, y: Tensor, condition: Tensor) -> Tensor:
        return rows(self.transforms.hyper_analyse(planes(y), condition))


class SynthesiseGraph(Graph):
    """y_hat (h, w, M) → pixels (H, W, 3)."""

    def forward(self, y_hat: Tensor, condition: Tensor) -> Tensor:
        return rows(self.transforms.synthesise(planes(y_hat), condition))


class LookGraph(Graph):
    """The squared error of y_hat's picture, and its gradient.

    Inputs: y_hat (h, w, M); pixels (H, W, 3); mask (H, W, 1), 0 where nothing counts; mix (3, 3), which the channels of
    the error are multiplied with: the identity, or 1/3 to compare means. Outputs: error (H, W), mean of the channels'
    squares; derivative of its sum by y_hat, (h, w, M).
    """

    def forward(
        self, y_hat: Tensor, condition: Tensor, pixels: Tensor, mask: Tensor, mix: Tensor
    ) -> tuple[Tensor, ...]:
        transforms = self.transforms
        cond = transforms.condition_net(condition)
        gain = torch.exp(transforms.decoder_gain(cond))[:, :, None, None] / transforms.latent_gain(condition)
        x_hat, kept = forward_keeping(transforms.g_s, planes(y_hat) * gain, cond)
        error = ((rows(x_hat) - pixels) @ mix) * mask
        slope = (error @ mix.T) * (2.0 / 3.0)
        gradient = pull_back(transforms.g_s, planes(slope), kept, cond) * gain
        return error.square().mean(dim=2), rows(gradient)


Kept = list[tuple[Tensor, Tensor, Tensor]]  # of each block, in order: value, gate, the gate's sigmoid or step


def forward_keeping(g_s: Synthesis, y_hat: Tensor, cond: Tensor) -> tuple[Tensor, Kept]:
    """`Synthesis.forward`, and what its derivative needs."""
    kept: Kept = []
    h = F.pixel_shuffle(g_s.head(y_hat), 2)
    for block in g_s.coarse:
        h = block_keeping(block, h, cond, kept)
    h = F.pixel_shuffle(g_s.tail(h), 2) * g_s.config.fine_scale
    for block in g_s.blocks:
        h = block_keeping(block, h, cond, kept)
    return g_s.lapped(F.pixel_shuffle(h[:, :PIXELS] / g_s.config.fine_scale, 4)) + 0.5, kept


def block_keeping(block: ResidualBlock, x: Tensor, cond: Tensor, kept: Kept) -> Tensor:
    value, gate = block.expand(block.film(block.depthwise(x), cond)).chunk(2, dim=1)
    opened = torch.sigmoid(gate) if block.gate is F.silu else (gate > 0).float()
    kept.append((value, gate, opened))
    return x + block.project(bounded(block, value * gate * opened))


def bounded(block: ResidualBlock, hidden: Tensor) -> Tensor:
    return hidden.clamp(-block.hidden_max, block.hidden_max) if block.hidden_max else hidden


def pull_back(g_s: Synthesis, slope: Tensor, kept: Kept, cond: Tensor) -> Tensor:
    """The derivative by g_s's input of what has the derivative `slope` (1, 3, H, W) by its output."""
    scale = g_s.config.fine_scale
    h = F.pixel_unshuffle(lapped_back(g_s.lapped, slope), 4) / scale
    h = F.pad(h, (0, 0, 0, 0, 0, g_s.config.extra))
    left = list(kept)
    for block in reversed(g_s.blocks):
        h = block_back(block, h, left.pop(), cond)
    h = pointwise_back(g_s.tail, F.pixel_unshuffle(h * scale, 2))
    for block in reversed(g_s.coarse):
        h = block_back(block, h, left.pop(), cond)
    return pointwise_back(g_s.head, F.pixel_unshuffle(h, 2))


def block_back(block: ResidualBlock, slope: Tensor, kept: tuple[Tensor, Tensor, Tensor], cond: Tensor) -> Tensor:
    value, gate, opened = kept
    by_hidden = pointwise_back(block.project, slope)
    if block.hidden_max:
        by_hidden = by_hidden * ((value * gate * opened).abs() <= block.hidden_max).float()
    by_gate = by_hidden * value * opened
    if block.gate is F.silu:
        by_gate = by_gate * (1.0 + gate * (1.0 - opened))
    by_input = pointwise_back(block.expand, torch.cat([by_hidden * gate * opened, by_gate], dim=1))
    return slope + depthwise_back(block.depthwise, by_input * film_factor(block.film, cond))


def film_factor(film: FiLM, cond: Tensor) -> Tensor:
    return film.coefficients(cond)[0][:, :, None, None]


def pointwise_back(layer: Pointwise, slope: Tensor) -> Tensor:
    return F.conv2d(slope, layer.weight.T[:, :, None, None])


def depthwise_back(layer: Depthwise, slope: Tensor) -> Tensor:
    """Correlation with the taps turned by half a circle, which convolution's transpose is."""
    return F.conv_transpose2d(slope, layer.weight, padding=1, groups=layer.groups)


def lapped_back(lapped: Lapped, slope: Tensor) -> Tensor:
    """The transpose of `Lapped.forward`."""
    slope = lapped._filter(slope.transpose(2, 3), lapped.columns.T)
    return lapped._filter(slope.transpose(2, 3), lapped.rows.T)


MAKERS: dict[str, type[Graph]] = {
    "analyse": AnalyseGraph,
    "hyper_analyse": HyperAnalyseGraph,
    "synthesise": SynthesiseGraph,
    "look": LookGraph,
}


@torch.no_grad()
def make(config: ModelConfig, name: str) -> bytes:
    """One of the graphs of a network, without its weights."""
    inputs, outputs = GRAPHS[name]
    m = config.M
    transforms = Transforms(config).requires_grad_(False)
    for tensor in transforms.state_dict().values():
        tensor.uniform_(0.5, 1.0)  # all different, or the exporter would take equal tensors for one
    examples = {
        "pixels": torch.zeros(128, 192, 3),
        "mask": torch.zeros(128, 192, 1),
        "mix": torch.zeros(3, 3),
        "y": torch.zeros(8, 12, m),
        "y_hat": torch.zeros(8, 12, m),
        "condition": torch.zeros(1, 1),
    }
    varying = {key: {0: f"{key}_h", 1: f"{key}_w"} for key in (*inputs, *outputs) if key not in ("condition", "mix")}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            MAKERS[name](transforms).eval(),
            tuple(examples[key] for key in inputs),
            file,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=varying,
            do_constant_folding=False,  # so that tensors keep their names
            dynamo=False,
        )
    return without_weights(onnx.load_from_string(file.getvalue())).SerializeToString()


def without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the tensors of the transforms named, but not given."""
    for tensor in model.graph.initializer:
        if tensor.name.startswith(weights.FLOATS):
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            del tensor.external_data[:]
            tensor.external_data.add(key="location", value="weights")
    return model


def write(path: Path, config: ModelConfig) -> list[Path]:
    """Write the graphs of a model beside its weights file."""
    written = [graph_path(path, name) for name in GRAPHS]
    for file, name in zip(written, GRAPHS, strict=True):
        file.write_bytes(make(config, name))
    return written


@click.command()
@click.argument("models", nargs=-1)
def main(models: tuple[str, ...]) -> None:
    """Write the graphs of installed models, by default of all."""
    for model_id in [bytes.fromhex(name) for name in models] or weights.available():
        loaded = weights.load(model_id=model_id)
        for path in write(loaded.path, loaded.config):
            click.echo(f"{path} {path.stat().st_size}")


if __name__ == "__main__":
    main()
