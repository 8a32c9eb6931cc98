"""Freeze a trained model: float16 transforms, integer entropy model, integer frequency tables, one safetensors file;
and the ONNX graphs beside it.

    python -m training.export --run OUT --images DIR --output weights.safetensors

The loss by freezing is measured, not assumed: `freezing_loss` prices the same pictures with both forms.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from codec.api import Codec
from codec.format.bitstream import QUALITY_MAX, unpack
from codec.format.entropy import FREQUENCY_BITS, encode_symbols
from codec.metrics import psnr_db
from codec.network import weights
from codec.network.bounds import ACCUMULATOR_LIMIT, check_exact
from codec.network.config import ModelConfig
from codec.network.integer import IntegerPrior
from codec.network.layers import Depthwise, FiLMPointwise
from codec.network.layout import (
    FACTOR_BITS,
    FEATURE_BITS,
    LATENT_BITS,
    MEAN_BITS,
    NORM_BITS,
    RECIPROCAL_BITS,
    Layer,
    prior_layers,
)
from codec.network.model import YotoModel
from codec.picture.image import open_image
from codec.quantise import RDO_LEVELS, quantiser
from training import graphs
from training.data import find_images, validation_crops


def freeze_dense(module: FiLMPointwise, layer: Layer, cond: Tensor, extra: Tensor | float) -> dict[str, Tensor]:
    """Integer tensors of a dense layer, see `IntegerPointwise`.

    Args:
        module: the trained layer.
        layer: its row of the table.
        cond: (knots, width) embeddings of the knots.
        extra: added to the output, (knots, out) or (out,).
    """
    limits, out_bits = torch.from_numpy(layer.in_limits), torch.from_numpy(layer.out_bits)
    factor, beta = (c.double() for c in module.film.coefficients(cond))
    weight = module.weight.double() * torch.from_numpy(layer.in_steps)
    offset = module.bias.double() * factor + beta + extra
    size = weight.abs().amax(1).clamp_min(1e-12)
    exponent = (14 - size.log2().ceil()).clamp_max(30)
    # The largest scale whose worst-case sum, each weight rounded up by one, stays inside the accumulator.
    slack = limits.sum().item()
    reach = (weight.abs() @ limits) * factor.abs().amax(0) + offset.abs().amax(0)
    shift_half = torch.exp2(-out_bits - 1)
    scale = torch.log2((ACCUMULATOR_LIMIT - slack - 2) / (reach + shift_half)).floor()
    scale = torch.minimum(scale, exponent + FACTOR_BITS)
    half = torch.where(scale > out_bits, torch.exp2(scale - out_bits - 1), 0.0)
    return {
        "weight": torch.round(weight * torch.exp2(exponent)[:, None]).to(torch.int16),
        "factor": torch.round(factor * 2.0**FACTOR_BITS).to(torch.int32),
        "bias": torch.round(offset * torch.exp2(scale) + half).to(torch.int32),
        "fold": (exponent + FACTOR_BITS - scale).to(torch.int32),
        "shift": (scale - out_bits).to(torch.int32),
    }


def freeze_depthwise(module: Depthwise, layer: Layer) -> dict[str, Tensor]:
    """Integer tensors of a depthwise layer, see `IntegerDepthwise`; inputs and outputs are of one unit."""
    limits, out_bits = torch.from_numpy(layer.in_limits), torch.from_numpy(layer.out_bits)
    taps = module.weight.double().reshape(-1, 9)
    bias = module.bias.double() * torch.exp2(out_bits)
    reach = taps.abs().sum(1) * limits + bias.abs() + 0.5
    scale = torch.log2((ACCUMULATOR_LIMIT - 10.0 * limits) / reach).floor()
    scale = torch.minimum(scale, 14 - taps.abs().amax(1).clamp_min(1e-12).log2().ceil())
    half = torch.where(scale > 0, torch.exp2(scale - 1), 0.0)
    return {
        "weight": torch.round(taps * torch.exp2(scale)[:, None]).T.to(torch.int16),
        "bias": torch.round(bias * torch.exp2(scale) + half).to(torch.int32),
        "shift": scale.to(torch.int32),
    }


def frequency_tables(config: ModelConfig) -> dict[str, Tensor]:
    """Tables of the zero-mean Gaussians of the scale table, as `SymbolTables` takes them."""
    radii, frequencies = [], []
    for row in range(config.scales_levels):
        deviation = config.scales_min * math.exp(config.scales_step * row)
        radius = math.ceil(5.0 * deviation) + 3

        def upper(value: float, deviation: float = deviation) -> float:
            return 0.5 * math.erfc(value / (deviation * math.sqrt(2.0)))

        half = [upper(k - 0.5) - upper(k + 0.5) for k in range(1, radius + 1)]
        masses = [2.0 * upper(radius + 0.5), *half[::-1], 1.0 - 2.0 * upper(0.5), *half]
        radii.append(radius)
        frequencies.append(quantise_masses(np.array(masses)))
    return {
        "tables.radii": torch.tensor(radii, dtype=torch.int32),
        "tables.frequencies": torch.from_numpy(np.concatenate(frequencies)),
    }


def quantise_masses(masses: np.ndarray) -> np.ndarray:
    """Integers proportional to `masses`, each at least 1, summing to 2^FREQUENCY_BITS (largest remainders)."""
    spare = (1 << FREQUENCY_BITS) - len(masses)
    exact = masses / masses.sum() * spare
    counts = np.floor(exact).astype(np.int32)
    remainders = np.argsort(counts - exact, kind="stable")
    counts[remainders[: spare - counts.sum()]] += 1
    return counts + 1


@torch.no_grad()
def freeze(model: YotoModel) -> dict[str, np.ndarray]:
    """All tensors of the weights file of a trained model that is conditioned on quality alone."""
    config, prior, transforms = model.config, model.prior, model.transforms
    if config.num_coefficients != 1:
        raise ValueError("a codec is conditioned on quality alone; this model takes several coefficients")
    cond = transforms.condition_net(knot_conditions(config))

    tensors = frequency_tables(config) | freeze_tables(model, cond)
    for layer in prior_layers(config).values():
        module: nn.Module = prior.get_submodule(layer.name)
        if isinstance(module, Depthwise):
            frozen = freeze_depthwise(module, layer)
        else:
            assert isinstance(module, FiLMPointwise)
            extra = head_extra(model) if layer.name.endswith(".head") else torch.zeros(layer.out_channels)
            # With the largest of the biases that are added later inside, so that the scale leaves room for it; then
            # it is taken out again.
            biases = {name: prior.get_parameter(name).double() for name in layer.reserve}
            largest = torch.stack([bias.abs() for bias in biases.values()] or [torch.zeros(())]).amax(0)
            frozen = freeze_dense(module, layer, cond, extra + largest)
            unit = torch.exp2(frozen["shift"] + torch.from_numpy(layer.out_bits))
            frozen["bias"] -= torch.round(largest * unit).to(torch.int32)
            tensors |= {name: torch.round(bias * unit).to(torch.int32) for name, bias in biases.items()}
        tensors |= {f"{layer.name}.{key}": value for key, value in frozen.items()}
    tensors |= {f"{weights.FLOATS}{name}": value.half() for name, value in transforms.state_dict().items()}
    arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}
    check_exact({name: array for name, array in arrays.items() if not name.startswith(weights.FLOATS)}, config)
    return arrays


def knot_conditions(config: ModelConfig) -> Tensor:
    """Conditions (knots, 1) at which the tables over quality are sampled."""
    return torch.linspace(-1.0, 1.0, config.knots)[:, None]


def knot_norms(model: YotoModel) -> Tensor:
    """Deviations (knots, M) that means, indexes and context count in."""
    return model.transforms.normaliser(knot_conditions(model.config))[:, :, 0, 0].double()


def head_extra(model: YotoModel) -> Tensor:
    """What is added to the outputs of a head (knots, 2·M): its index counts from `knot_norms`."""
    shift = torch.log(knot_norms(model) / model.config.scales_min) / model.config.scales_step
    return torch.cat([torch.zeros_like(shift), shift], dim=1)


def freeze_tables(model: YotoModel, cond: Tensor) -> dict[str, Tensor]:
    """Rows of z's scales, and tables from units of `knot_norms` to steps of y, and back."""
    config, norm = model.config, knot_norms(model)
    z_index = (config.z_index_start + model.prior.z_index(cond)).clamp(0, config.scales_levels - 1)
    to_steps = norm * 2.0 ** (NORM_BITS + LATENT_BITS - MEAN_BITS)
    to_deviations = 2.0 ** (RECIPROCAL_BITS + FEATURE_BITS - LATENT_BITS) / norm
    return {
        "z_index": torch.round(z_index).to(torch.int32),
        "norm": torch.round(to_steps).to(torch.int32),
        "reciprocal": torch.round(to_deviations).clamp_max(2**30).to(torch.int32),
    }


def trained_model(checkpoint: dict[str, Any], key: str = "ema") -> YotoModel:
    """The network of a checkpoint, with its averaged weights ("ema") or those of its last step ("model").

    Checkpoints of the pilot in `shared/training` name their tensors as `YotoModel` does, and load as they are.
    """
    config = ModelConfig(**checkpoint["config"]["model"])
    config.validate()
    model = YotoModel(config)
    model.load_state_dict({name: value.float() for name, value in checkpoint[key].items()})
    return model.eval()


@torch.no_grad()
def freezing_loss(model: YotoModel, frozen: weights.Weights, images: Tensor) -> float:
    """Share by which the frozen model's streams exceed the float model's bits, over five qualities.

    Both quantise the same latents by plain rounding, so that only freezing, tables and coder differ. It is negative
    where the symbols that the tables call zero, and which cost nothing, save more than the coder loses.
    """
    asked = spent = 0.0
    for quality in (0.0, 0.25, 0.5, 0.75, 1.0):
        condition = torch.tensor([[2.0 * quality - 1.0]])
        prior = IntegerPrior(frozen.config, frozen.integers, round(quality * QUALITY_MAX))
        plain = np.zeros((model.config.scales_levels, RDO_LEVELS + 1), np.float32)
        for image in images:
            output = model(image[None], condition, noise=False)
            asked += (output.y_bits + output.z_bits).item()
            y = model.transforms.analyse(image[None], condition)
            z = model.transforms.hyper_analyse(y, condition).round().int()
            coder = quantiser(y[0].permute(1, 2, 0).numpy(), plain)
            tile = prior.run(z[0].permute(1, 2, 0).contiguous().numpy(), coder)
            spent += 8.0 * len(encode_symbols(tile.stages, frozen.tables))
    return spent / asked - 1.0


def rate_and_quality(frozen: Path, folder: Path) -> list[dict[str, float]]:
    """Mean bpp and PSNR over the pictures of a folder, from real files, at five qualities."""
    coder, points = Codec(frozen), []
    pictures = [open_image(path).convert("RGB") for path in find_images(folder)]
    for quality in (0.0, 0.25, 0.5, 0.75, 1.0):
        files = [coder.encode(picture, quality) for picture in pictures]
        bpp = np.mean([unpack(data).bpp for data in files])
        quality_db = np.mean(
            [
                psnr_db(np.asarray(picture), np.asarray(coder.decode(data)))
                for picture, data in zip(pictures, files, strict=True)
            ]
        )
        points.append({"quality": quality, "bpp": round(float(bpp), 4), "psnr_db": round(float(quality_db), 3)})
    return points


@click.command()
@click.option("--run", "run_path", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--images", type=click.Path(path_type=Path), required=True, help="Images to measure the loss on.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="Weights file to write.")
@click.option("--data", "data_note", default="", help="What it was trained on, for the model card.")
@click.option(
    "--kodak", type=click.Path(exists=True, path_type=Path), help="Kodak images, for the model card's figures."
)
def main(run_path: Path, images: Path, output: Path, data_note: str, kodak: Path | None) -> None:
    """Freeze the averaged weights of a run to a weights file."""
    checkpoint = torch.load(run_path / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = trained_model(checkpoint)
    card: dict[str, object] = {
        "data": data_note,
        "training": checkpoint["config"],
        "steps": checkpoint["step"],
        "hours": round(checkpoint["seconds"] / 3600, 2),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    tensors = freeze(model)
    weights.save(output, model.config, tensors, card)
    if kodak:  # the figures do not depend on the card, so that the file can be written again with them
        weights.save(output, model.config, tensors, card | {"kodak": rate_and_quality(output, kodak)})
    graphs.write(output, model.config)
    frozen = weights.load(output)
    loss = freezing_loss(model, frozen, validation_crops(find_images(images)[:16], 256))
    click.echo(f"{output}: {output.stat().st_size} bytes, model {frozen.model_id.hex()}")
    click.echo(f"streams exceed the float model's rate by {100 * loss:.3f} %")


if __name__ == "__main__":
    main()
