"""Start the network as a block-transform codec of any rate, so that training begins from a working codec.

The outer linear layers hold a lapped 16×16 DCT in an opponent colour space, of which the M strongest bands are
kept: the border filter, the 8×8 DCT, then what makes 16×16 of four of these. The synthesis holds their transposes.
Residual branches start at zero (`layers.py`).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.network.config import LAPPED_SPAN, PASSES, PIXELS
from codec.network.model import YotoModel

# Orthonormal opponent colours: luma, red-blue, green-magenta.
OPPONENT = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]])


def dct_matrix(size: int) -> Tensor:
    """Orthonormal DCT-II basis, (frequency, sample)."""
    k = torch.arange(size, dtype=torch.float64)
    basis = torch.cos(math.pi / size * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis.float()


def colour_dct(size: int) -> Tensor:
    """Orthonormal DCT of a block in opponent colours, (3·size², 3·size²), pixels in (channel, row, column) order."""
    colour = F.normalize(OPPONENT, dim=1)
    return torch.kron(colour, torch.kron(dct_matrix(size), dct_matrix(size)))


def lapped_matrix(size: int) -> Tensor:
    """Orthonormal border filter that turns the DCT into the fast lapped transform (type II), (size, size)."""
    half = size // 2
    identity, flip = torch.eye(half), torch.eye(half).flip(0)
    k = torch.arange(half, dtype=torch.float64) + 0.5
    dct4 = (torch.cos(math.pi / half * k[:, None] * k) * math.sqrt(2.0 / half)).float()
    middle = flip @ dct_matrix(half).T @ dct4 @ flip
    butterfly = torch.cat([torch.cat([identity, flip], 1), torch.cat([flip, -identity], 1)])
    return 0.5 * butterfly @ torch.block_diag(identity, middle) @ butterfly


@torch.no_grad()
def init_from_images(model: YotoModel, images: Tensor) -> None:
    """Set the outer layers and the channel statistics of `model` from crops (B, 3, H, W) in [0, 1]."""
    config, transforms = model.config, model.transforms
    border = lapped_matrix(LAPPED_SPAN)
    for lapped, matrix in ((transforms.g_a.lapped, border), (transforms.g_s.lapped, border.T)):
        lapped.rows.copy_(matrix)
        lapped.columns.copy_(matrix)

    small, large = colour_dct(8), colour_dct(16)
    blocks = F.pixel_unshuffle(transforms.g_a.lapped(images - 0.5), 8)
    strongest = F.conv2d(blocks, small[:, :, None, None]).square().mean(dim=(0, 2, 3)).argsort(descending=True)
    small = small[strongest[: config.N]]
    # 16×16 blocks of the picture, as two unshuffles order their pixels, and as they look through the 8×8 stage.
    order = F.pixel_unshuffle(F.pixel_unshuffle(torch.arange(768.0).reshape(1, 3, 16, 16), 8), 2).flatten().long()
    stage = torch.kron(small.T.contiguous(), torch.eye(4))
    large = large[:, order] @ stage
    y = F.conv2d(F.pixel_unshuffle(F.conv2d(blocks, small[:, :, None, None]), 2), large[:, :, None, None])
    energy = y.square().mean(dim=(0, 2, 3))
    kept = energy.argsort(descending=True)[: config.M]
    kept = kept.reshape(-1, PASSES).T.reshape(-1)  # deal the channels to the groups by strength
    large = large[kept]

    # 8×8 blocks as two unshuffles order their pixels; free channels stay as they are, for they are zero.
    order = F.pixel_unshuffle(F.pixel_unshuffle(torch.arange(192.0).reshape(1, 3, 8, 8), 4), 2).flatten().long()
    transforms.g_a.head.weight[:, : 4 * PIXELS] = small[:, order]
    transforms.g_a.tail.weight.copy_(large)
    transforms.g_s.head.weight.copy_(large.T)
    transforms.g_s.tail.weight[: 4 * PIXELS] = small[:, order].T
    for layer in (transforms.g_a.head, transforms.g_a.tail, transforms.g_s.head, transforms.g_s.tail):
        layer.bias.zero_()
    transforms.channel_std.copy_(energy[kept].sqrt())
    for context_pass in model.prior.passes:
        context_pass.head.weight.mul_(0.1)
        context_pass.head.bias.zero_()
