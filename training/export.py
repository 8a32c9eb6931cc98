"""Freeze a trained model: float16 transforms, integer entropy model, integer frequency tables, one safetensors file.

    python -m training.export --run OUT --images DIR --output weights.safetensors

The loss by freezing is measured, not assumed: `freezing_loss` prices the same pictures with both forms.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from codec.api import Codec
from codec.format.bitstream import unpack
from codec.format.entropy import FREQUENCY_BITS, encode_symbols
from codec.metrics import psnr_db
from codec.network import integer, weights
from codec.network.config import SCALES_LEVELS, SCALES_MIN, SCALES_STEP, Z_INDEX_START, ModelConfig
from codec.network.layers import Depthwise, FiLMPointwise
from codec.network.model import YotoModel
from codec.picture.image import open_image
from codec.quantise import RDO_LEVELS, quantiser
from training.data import find_images, validation_crops

ACCUMULATOR_LIMIT = 2**24  # integers up to here are exact in float32, in sums of any order


def knot_conditions() -> Tensor:
    """Conditions (KNOTS, 1) at which the tables over quality are sampled."""
    return torch.linspace(-1.0, 1.0, integer.KNOTS)[:, None]


def freeze_pointwise(
    layer: FiLMPointwise,
    cond: Tensor,
    steps: Tensor,
    limits: Tensor,
    out_bits: Tensor,
    extra: Tensor | float,
) -> dict[str, Tensor]:
    """Integer tensors of a dense layer, see `IntegerPointwise`.

    Args:
        layer: the trained layer.
        cond: (KNOTS, width) embeddings of the knots.
        steps: (in,) real value of one unit of each input.
        limits: (in,) largest magnitude of each input, in units.
        out_bits: (out,) outputs are in units of 2^-out_bits.
        extra: added to the output, (KNOTS, out) or (out,).
    """
    factor, beta = (c.double() for c in layer.film.coefficients(cond))
    weight = layer.weight.double() * steps.double()
    offset = layer.bias.double() * factor + beta + extra
    size = weight.abs().amax(1).clamp_min(1e-12)
    exponent = (14 - size.log2().ceil()).clamp_max(30)
    # The largest scale whose worst-case sum, each weight rounded up by one, stays inside the accumulator.
    slack = limits.sum().item()
    reach = (weight.abs() @ limits.double()) * factor.abs().amax(0) + offset.abs().amax(0)
    shift_half = torch.exp2(-out_bits.double() - 1)
    scale = torch.log2((ACCUMULATOR_LIMIT - slack - 2) / (reach + shift_half)).floor()
    scale = torch.minimum(scale, exponent + integer.FACTOR_BITS)
    half = torch.where(scale > out_bits, torch.exp2(scale - out_bits - 1), 0.0)
    return {
        "weight": torch.round(weight * torch.exp2(exponent)[:, None]).to(torch.int16),
        "factor": torch.round(factor * 2.0**integer.FACTOR_BITS).to(torch.int32),
        "bias": torch.round(offset * torch.exp2(scale) + half).to(torch.int32),
        "fold": (exponent + integer.FACTOR_BITS - scale).to(torch.int32),
        "shift": (scale - out_bits).to(torch.int32),
    }


def freeze_depthwise(layer: Depthwise) -> dict[str, Tensor]:
    """Integer tensors of a depthwise layer, see `IntegerDepthwise`; inputs and outputs are activations."""
    taps = layer.weight.double().reshape(-1, 9)
    bias = layer.bias.double() * 2.0**integer.ACTIVATION_BITS  # type: ignore[union-attr]
    reach = taps.abs().sum(1) * integer.ACTIVATION_LIMIT + bias.abs() + 0.5
    scale = torch.log2((ACCUMULATOR_LIMIT - 10.0 * integer.ACTIVATION_LIMIT) / reach).floor()
    scale = torch.minimum(scale, 14 - taps.abs().amax(1).clamp_min(1e-12).log2().ceil())
    half = torch.where(scale > 0, torch.exp2(scale - 1), 0.0)
    return {
        "weight": torch.round(taps * torch.exp2(scale)[:, None]).T.contiguous().to(torch.int16),
        "bias": torch.round(bias * torch.exp2(scale) + half).to(torch.int32),
        "shift": scale.to(torch.int32),
    }


def assert_exact(tensors: dict[str, Tensor], name: str, limits: Tensor, reserve: Tensor | float = 0.0) -> None:
    """Check that no sum of this layer, and `reserve` on top, can leave the accumulator.

    Qualities between knots are safe too: weights and biases there lie between those of the knots.
    """
    for quality in range(0, integer.QUALITY_MAX + 1, integer.KNOT_SPACING):
        layer = integer.IntegerPointwise(tensors, name, quality, torch.float64)
        worst = (limits.double() @ layer.weight.abs() + layer.bias.abs() + reserve).max().item()
        if worst >= ACCUMULATOR_LIMIT:
            raise ValueError(f"{name} at quality {quality} sums up to {worst}; float32 would not be exact")


def frequency_tables() -> dict[str, Tensor]:
    """Tables of the zero-mean Gaussians of the scale table, as `SymbolTables` takes them."""
    radii, frequencies = [], []
    for row in range(SCALES_LEVELS):
        deviation = SCALES_MIN * math.exp(SCALES_STEP * row)
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


class Freezer:
    """Collects the integer tensors of a model, layer by layer."""

    def __init__(self, model: YotoModel) -> None:
        if model.config.num_coefficients != 1:
            raise ValueError("a codec is conditioned on quality alone; this model takes several coefficients")
        self.model, self.config = model, model.config
        condition = knot_conditions()
        self.cond = model.transforms.condition_net(condition)
        self.norm = model.transforms.normaliser(condition)[:, :, 0, 0].double()
        self.tensors: dict[str, Tensor] = {}

    def put(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.tensors.update({f"{name}.{key}": value for key, value in tensors.items()})

    def dense(
        self,
        name: str,
        layer: FiLMPointwise,
        steps: Tensor | None = None,
        limits: Tensor | None = None,
        out_bits: Tensor | None = None,
        extra: Tensor | float = 0.0,
    ) -> None:
        """Freeze a dense layer; inputs and outputs are activations unless told otherwise."""
        n, out = layer.in_features, layer.out_features
        steps = constant(n, 2.0**-integer.ACTIVATION_BITS) if steps is None else steps
        limits = constant(n, integer.ACTIVATION_LIMIT) if limits is None else limits
        out_bits = constant(out, integer.ACTIVATION_BITS) if out_bits is None else out_bits
        self.put(name, freeze_pointwise(layer, self.cond, steps, limits, out_bits, extra))
        assert_exact(self.tensors, name, limits)

    def hyper_synthesis(self) -> None:
        h_s, z = self.model.prior.h_s, self.config.Z
        self.dense("h_s.up1", h_s.up1, steps=constant(z, 1.0), limits=constant(z, integer.Z_LIMIT))
        self.dense("h_s.up2", h_s.up2)
        self.dense("h_s.out", h_s.out)
        self.put("h_s.spatial1", freeze_depthwise(h_s.spatial1))
        self.put("h_s.spatial2", freeze_depthwise(h_s.spatial2))
        z_index = (Z_INDEX_START + self.model.prior.z_index(self.cond)).clamp(0, SCALES_LEVELS - 1)
        self.tensors["z_index"] = torch.round(z_index).to(torch.int32)

    def embedding(self) -> None:
        """The embedding of the context, and the static biases of the passes, which add to the same accumulator."""
        prior, m = self.model.prior, self.config.M
        limits = torch.cat([constant(m, integer.FEATURE_LIMIT), constant(m, integer.MAGNITUDE_LIMIT)])
        biases = torch.stack([net.context_bias for net in prior.passes]).double()
        # Freeze with the largest pass bias inside, so that the scale leaves room for it; then take it out again.
        largest = biases.abs().amax(0)
        out_bits = constant(self.config.D, integer.ACTIVATION_BITS)
        frozen = freeze_pointwise(prior.embed, self.cond, context_steps(m), limits, out_bits, largest)
        unit = torch.exp2((frozen["shift"] + integer.ACTIVATION_BITS).double())
        frozen["bias"] -= torch.round(largest * unit).to(torch.int32)
        self.put("embed", frozen)
        for k, bias in enumerate(biases):
            self.tensors[f"passes.{k}.context_bias"] = torch.round(bias * unit).to(torch.int32)
        assert_exact(self.tensors, "embed", limits, reserve=torch.round(largest * unit))

    def context_passes(self) -> None:
        out_bits, extra = head_units(self.norm)
        for k, net in enumerate(self.model.prior.passes):
            name = f"passes.{k}"
            self.put(f"{name}.spatial", freeze_depthwise(net.spatial))
            self.dense(f"{name}.mix", net.mix)
            self.dense(f"{name}.hidden", net.hidden)
            self.dense(f"{name}.head", net.head, out_bits=out_bits, extra=extra)

    def normalisers(self) -> None:
        """Tables from units of the deviation to steps of y, and back."""
        bits = integer.NORM_BITS + integer.LATENT_BITS - integer.MEAN_BITS
        self.tensors["norm"] = torch.round(self.norm * 2.0**bits).to(torch.int32)
        bits = integer.RECIPROCAL_BITS + integer.FEATURE_BITS - integer.LATENT_BITS
        self.tensors["reciprocal"] = torch.round(2.0**bits / self.norm).clamp_max(2**30).to(torch.int32)


def constant(n: int, value: float) -> Tensor:
    """n float64 of one value."""
    return torch.full((n,), value, dtype=torch.float64)


def context_steps(m: int) -> Tensor:
    """Real value of one unit of each context feature, (2M,)."""
    return torch.cat([constant(m, 2.0**-integer.FEATURE_BITS), constant(m, 2.0**-integer.MAGNITUDE_BITS)])


def head_units(norm: Tensor) -> tuple[Tensor, Tensor]:
    """`out_bits` (2M,) and `extra` (KNOTS, 2M) of a pass's head: the index counts from the deviation `norm`."""
    m = norm.shape[1]
    index_shift = torch.log(norm / SCALES_MIN) / SCALES_STEP
    extra = torch.cat([torch.zeros_like(index_shift), index_shift], dim=1)
    return torch.cat([constant(m, integer.MEAN_BITS), constant(m, 0)]), extra


@torch.no_grad()
def freeze(model: YotoModel) -> dict[str, Tensor]:
    """All tensors of the weights file of a trained model that is conditioned on quality alone."""
    freezer = Freezer(model)
    freezer.hyper_synthesis()
    freezer.embedding()
    freezer.context_passes()
    freezer.normalisers()
    transforms = {f"transforms.{k}": v.half() for k, v in model.transforms.state_dict().items()}
    tensors = freezer.tensors | frequency_tables() | transforms
    return {key: value.contiguous() for key, value in tensors.items()}


@torch.no_grad()
def freezing_loss(model: YotoModel, frozen: weights.Weights, images: Tensor) -> float:
    """Share by which the frozen model's streams exceed the float model's bits, over five qualities.

    Both quantise the same latents by plain rounding, so that only freezing, tables and coder differ. It is negative
    where the symbols that the tables call zero, and which cost nothing, save more than the coder loses.
    """
    asked = spent = 0.0
    for quality in (0.0, 0.25, 0.5, 0.75, 1.0):
        condition = torch.tensor([[2.0 * quality - 1.0]])
        prior = integer.IntegerPrior(frozen.integers, round(quality * integer.QUALITY_MAX))
        plain = np.zeros((SCALES_LEVELS, RDO_LEVELS + 1), np.float32)
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
    config = checkpoint["config"] | {"model": ModelConfig(**checkpoint["config"]["model"])}
    model = YotoModel(config["model"])
    model.load_state_dict(checkpoint["ema"])
    model.eval()
    card: dict[str, object] = {
        "data": data_note,
        "training": checkpoint["config"],
        "steps": checkpoint["step"],
        "hours": round(checkpoint["seconds"] / 3600, 2),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }
    tensors = freeze(model)
    sha256 = weights.save(output, config["model"], tensors, card)
    if kodak:  # the figures do not depend on the card, so that the file can be written again with them
        sha256 = weights.save(output, config["model"], tensors, card | {"kodak": rate_and_quality(output, kodak)})
    loss = freezing_loss(model, weights.load(output), validation_crops(find_images(images)[:16], 256))
    click.echo(f"{output}: {output.stat().st_size} bytes, SHA-256 {sha256}")
    click.echo(f"streams exceed the float model's rate by {100 * loss:.3f} %")


if __name__ == "__main__":
    main()
