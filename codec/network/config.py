"""What a network is: its sizes, and the constants of transforms and entropy model. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

LATENT_STRIDE = 16  # pixels per latent y
HYPER_STRIDE = 64  # pixels per hyper-latent z
# Context of the transforms around a tile, so that tiles leave no seam; weights that reach further are refused.
MARGIN_PX = 64
PASSES = 4
LAPPED_SPAN = 16  # px, of the lapped transform

SCALES_MIN = 0.11  # CompressAI and TensorFlow Compression: below it the zero bin holds all the mass
SCALES_MAX = 256.0
SCALES_LEVELS = 64
SCALES_STEP = math.log(SCALES_MAX / SCALES_MIN) / (SCALES_LEVELS - 1)

# CompressAI's convention: L = bpp + lmbda · 255² · MSE, pixels in [0, 1].
LMBDA_MIN = 0.0008
LMBDA_MAX = 0.2

Z_INDEX_START = 24.0  # deviation 2.1: z's prior before training
FEATURE_MAX = 4.0  # bounds of the context features, see `context_features`
MAGNITUDE_MAX = 15.0


@dataclass(frozen=True)
class ModelConfig:
    """Sizes of the network.

    Attributes:
        N: channels of the transforms at 1/8 resolution, at most 192.
        M: channels of the latent y at 1/16, a multiple of 4.
        Z: channels of the hyper-latent z at 1/64.
        D: channels of the prior nets.
        analysis_blocks: residual blocks of g_a.
        synthesis_blocks: residual blocks of g_s.
        latent_blocks: residual blocks at 1/16 resolution, behind those of g_a and before those of g_s.
        expansion: hidden channels of a block, as a multiple of its channels.
        num_coefficients: entries of the loss-coefficient vector that condition the network.
    """

    N: int = 192
    M: int = 320
    Z: int = 96
    D: int = 256
    analysis_blocks: int = 4
    synthesis_blocks: int = 6
    expansion: float = 1.0
    cond_width: int = 64
    num_coefficients: int = 1
    latent_blocks: int = 0

    @property
    def reach_px(self) -> int:
        """How far a pixel or latent acts, px: 3×3 layers at either resolution, and the lapped transform's half span."""
        blocks = max(self.analysis_blocks, self.synthesis_blocks)
        return LAPPED_SPAN // 2 + 8 * blocks + LATENT_STRIDE * self.latent_blocks
