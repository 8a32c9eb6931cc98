"""What a network is: its sizes, and all that a decoder must know besides its weights. Needs no torch."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from codec.format.bitstream import QUALITY_MAX

LATENT_STRIDE = 16  # pixels per latent y
HYPER_STRIDE = 64  # pixels per hyper-latent z
PASSES = 4
LAPPED_SPAN = 16  # px, of the lapped transform
PIXELS = 48  # channels at 1/4 resolution that hold 4×4 cells of three colours
GATES = ("silu", "relu")

# Least and largest value of each number; far beyond any use, and small enough to build.
LIMITS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("N", "M", "Z", "D", "cond_width"), (1, 1024)),
    **dict.fromkeys(("analysis_blocks", "synthesis_blocks", "analysis_coarse", "synthesis_coarse"), (0, 32)),
    "extra": (0, 1024),
    "num_coefficients": (1, 16),
    "expansion": (0.0, 8.0),
    "hidden_max": (0.0, 1e4),
    "fine_scale": (1e-3, 1e3),
    "lmbda_min": (1e-6, 1e3),
    "lmbda_max": (1e-6, 1e3),
    "scales_min": (0.01, 1.0),
    "scales_max": (1.0, 4096.0),
    "z_index_start": (0.0, 255.0),
    "scales_levels": (2, 256),
    "feature_max": (1.0, 64.0),
    "magnitude_max": (1.0, 64.0),
    "knots": (2, QUALITY_MAX + 1),
    "margin_px": (0, 256),
}


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and constants of one network.

    Attributes:
        N: channels of the coefficients at 1/8 resolution.
        M: channels of the latent y at 1/16, a multiple of 4.
        Z: channels of the hyper-latent z at 1/64.
        D: channels of the prior nets.
        cond_width: entries of the embedded condition.
        num_coefficients: entries of the loss-coefficient vector that condition the network; 1 for a codec.
        extra: free channels at 1/4 resolution beside the 48 that hold the pixels of 4×4 cells.
        analysis_blocks, synthesis_blocks: residual blocks at 1/4 resolution, on pixels and free channels.
        analysis_coarse, synthesis_coarse: residual blocks at 1/8, on the coefficients.
        expansion: hidden units of a block, as a multiple of its channels.
        gate: activation of the blocks' gates, "silu" or "relu".
        hidden_max: bound of the blocks' hidden units; 0 for none. In photographs 99.99 % lie below 4; unbounded,
            products of products reach infinity on dithers and checkerboards.
        fine_scale: brings pixels, deviation about 0.25, to units of the blocks at 1/4.
        lmbda_min, lmbda_max: λ at quality 0 and 1, in CompressAI's convention L = bpp + λ·255²·MSE, pixels in [0, 1].
        scales_min, scales_max, scales_levels: deviations of the table of entropy models, and how many, log-uniform.
            Below 0.11 the zero bin holds all the mass (CompressAI, TensorFlow Compression).
        z_index_start: row of z's scales before training.
        feature_max, magnitude_max: bounds of the context features, see `context_features`.
        knots: rows of the frozen tables over quality, interpolated linearly.
        margin_px: context of the transforms around a tile, so that tiles leave no seam; at least `reach_px`.
    """

    N: int = 192
    M: int = 320
    Z: int = 96
    D: int = 192
    cond_width: int = 64
    num_coefficients: int = 1
    extra: int = 48
    analysis_blocks: int = 4
    synthesis_blocks: int = 6
    analysis_coarse: int = 1
    synthesis_coarse: int = 2
    expansion: float = 1.0
    gate: str = "silu"
    hidden_max: float = 8.0
    fine_scale: float = 4.0
    lmbda_min: float = 0.0008
    lmbda_max: float = 0.2
    scales_min: float = 0.11
    scales_max: float = 256.0
    scales_levels: int = 64
    z_index_start: float = 24.0
    feature_max: float = 4.0
    magnitude_max: float = 15.0
    knots: int = 33
    margin_px: int = 96

    @property
    def scales_step(self) -> float:
        """Ratio of neighbouring deviations of the table, as a logarithm."""
        return math.log(self.scales_max / self.scales_min) / (self.scales_levels - 1)

    @property
    def reach_px(self) -> int:
        """How far a pixel or latent acts, px: 3×3 layers at 1/4 and 1/8, and the lapped transform's half span."""
        analysis = 4 * self.analysis_blocks + 8 * self.analysis_coarse
        synthesis = 4 * self.synthesis_blocks + 8 * self.synthesis_coarse
        return LAPPED_SPAN // 2 + max(analysis, synthesis)

    def lmbda(self, quality: float) -> float:
        """λ of a quality in [0, 1], log-uniform between lmbda_min and lmbda_max."""
        return self.lmbda_min * (self.lmbda_max / self.lmbda_min) ** quality

    def validate(self) -> None:
        """Raise ValueError if no codec has these sizes and constants."""
        for field in dataclasses.fields(self):
            value, kind = getattr(self, field.name), type(field.default)
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(f"{field.name} is {value!r}; expected {kind.__name__}")
            low, high = LIMITS.get(field.name, (-math.inf, math.inf))
            if isinstance(value, int | float) and not low <= value <= high:  # also of NaN
                raise ValueError(f"{field.name} is {value}; it must lie in {low} … {high}")
        if self.gate not in GATES:
            raise ValueError(f"gate is {self.gate!r}; known: {', '.join(GATES)}")
        if self.M % PASSES:
            raise ValueError(f"M is {self.M}; it must be a multiple of {PASSES}")
        if self.lmbda_min > self.lmbda_max:
            raise ValueError(f"lmbda_min is {self.lmbda_min}, more than lmbda_max, {self.lmbda_max}")
        if QUALITY_MAX % (self.knots - 1):
            raise ValueError(f"{self.knots} knots do not divide the {QUALITY_MAX} steps of quality evenly")
        if self.margin_px % LATENT_STRIDE or self.reach_px > self.margin_px:
            raise ValueError(
                f"its transforms reach {self.reach_px} px, tiles have a margin of {self.margin_px},"
                f" which must be a multiple of {LATENT_STRIDE}"
            )
