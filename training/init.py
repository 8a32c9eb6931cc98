"""Start the network as a block-transform codec of any rate, so that training begins from a working codec.

The outer linear layers hold the 8×8 DCT basis in an opponent colour space, then a Haar step that keeps the M
strongest of its bands; the synthesis holds their transposes. Residual branches start at zero (`layers.py`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.model import PASSES, YotoModel

# Orthonormal opponent colours: luma, red-blue, green-magenta.
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II basis, (frequency, sample)."""
    k = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis.float()


def block_dct() -> Tensor:
    """Colour 8×8 DCT of PixelUnshuffle(8) channels, (192, 192), orthonormal."""
    colour = F.normalize(OPPONENT, dim=1)
    return torch.kron(colour, torch.kron(dct_matrix(8), dct_matrix(8)))


def haar_step(channels: int) -> Tensor:
    """2×2 Haar bands of PixelUnshuffle(2) channels, (4·channels, 4·channels), orthonormal."""
    return torch.kron(torch.eye(channels), torch.kron(dct_matrix(2), dct_matrix(2)))


@torch.no_grad()
def init_from_images(model: YotoModel, images: Tensor) -> None:
    """Set the outer layers and the channel statistics of `model` from crops (B, 3, H, W) in [0, 1]."""
    config = model.config
    dct = block_dct()
    bands = F.conv2d(F.pixel_unshuffle(images - 0.5, 8), dct[:, :, None, None])
    strongest = bands.square().mean(dim=(0, 2, 3)).argsort(descending=True)[: config.N]
    dct, bands = dct[strongest], bands[:, strongest]

    haar = haar_step(config.N)
    y = F.conv2d(F.pixel_unshuffle(bands, 2), haar[:, :, None, None])
    energy = y.square().mean(dim=(0, 2, 3))
    kept = energy.argsort(descending=True)[: config.M]
    kept = kept.reshape(-1, PASSES).T.reshape(-1)  # deal the channels to the groups by strength
    haar = haar[kept]

    transforms = model.transforms
    transforms.g_a.head.weight.copy_(dct)
    transforms.g_a.tail.weight.copy_(haar)
    transforms.g_s.head.weight.copy_(haar.T)
    transforms.g_s.tail.weight.copy_(dct.T)
    for layer in (transforms.g_a.head, transforms.g_a.tail, transforms.g_s.head, transforms.g_s.tail):
        layer.bias.zero_()
    transforms.channel_std.copy_(energy[kept].sqrt())
    for context_pass in model.prior.passes:
        context_pass.head.weight.mul_(0.1)
        context_pass.head.bias.zero_()
