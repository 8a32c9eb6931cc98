"""What the decoder in `web/` loads, made from a weights file: the entropy model's integers and the synthesis as ONNX.

    python -m training.browser web/models

writes `<model id>.safetensors` and `<model id>.onnx`. A browser asks for those that a `.yoto` file names.
"""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import click
import numpy as np
import onnx
import safetensors.numpy
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from codec.network.layout import feature_unit
from codec.network.torch_backend import build
from codec.network.transforms import Transforms
from codec.network.weights import Weights, available, find, load

OPSET = 18


class Synthesis(nn.Module):
    """Latents (h, w, M) in quantiser steps and the condition (1, 1) → pixels (16h, 16w, 3), about [0, 1]."""

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        self.transforms = transforms

    def forward(self, y_hat: Tensor, condition: Tensor) -> Tensor:
        return self.transforms.synthesise(y_hat.permute(2, 0, 1)[None], condition)[0].permute(1, 2, 0)


def synthesis_graph(transforms: Transforms) -> onnx.ModelProto:
    """The synthesis for every size and quality."""
    file = io.BytesIO()
    example = (torch.zeros(4, 8, transforms.config.M), torch.zeros(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            Synthesis(transforms).eval(),
            example,
            file,
            opset_version=OPSET,
            input_names=["y_hat", "condition"],
            output_names=["pixels"],
            dynamic_axes={"y_hat": {0: "h", 1: "w"}, "pixels": {0: "height", 1: "width"}},
            dynamo=False,
        )
    return halved(onnx.load_from_string(file.getvalue()))


def halved(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, with numbers stored in 16 bits where they lose nothing by it, and cast when it is loaded."""
    casts = []
    for tensor in graph.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and (values.astype(np.float16) == values).all():
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.checker.check_model(graph)
    return graph


def integers_file(weights: Weights) -> bytes:
    """The tensors of the entropy model, and what of the config a decoder must know."""
    tensors = weights.integers
    config = {
        "M": weights.config.M,
        "Z": weights.config.Z,
        "D": weights.config.D,
        "knots": weights.config.knots,
        "scales_levels": len(tensors["tables.radii"]),
        "feature_limit": feature_unit(weights.config).high,
        "margin_px": weights.config.margin_px,
    }
    return safetensors.numpy.save(tensors, metadata={"config": json.dumps(config)})


def write(folder: Path, path: Path) -> list[Path]:
    """Write the two files of a model."""
    weights = load(path)
    folder.mkdir(parents=True, exist_ok=True)
    name = weights.model_id.hex()
    files = {
        folder / f"{name}.safetensors": integers_file(weights),
        folder / f"{name}.onnx": synthesis_graph(build(weights.config, weights.floats)).SerializeToString(),
    }
    for file, data in files.items():
        file.write_bytes(data)
    return list(files)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--weights", "path", type=click.Path(path_type=Path, exists=True), help="Default: all that are installed."
)
def main(folder: Path, path: Path | None) -> None:
    """Write what the browser's decoder loads of models."""
    for weights in [path] if path else map(find, available()):
        for file in write(folder, weights):
            click.echo(f"{file} {file.stat().st_size}")


if __name__ == "__main__":
    main()
