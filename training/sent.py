"""The decoder's stage: synthesis and prior trained on what the encoder really sends.

Training prices latents with noise and rounds them; the encoder rounds towards zero where that saves more bits than it
costs error, looks at the picture, and corrects the latents by a Newton step (`codec/quantise.py`, which needs the
frozen prior and an entropy coder; here the same rules on the network in floating point). With everything before the
bits frozen, the rest can learn to undo what that does.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from codec.network.layers import gaussian_bits
from codec.network.model import ModelOutput, YotoModel

# As in codec/quantise.py; a test holds them together.
RDO_BITS = 25.0
NEWTON_SHARE = 0.35
CURVATURE = 17.312340490667562

# All that decides about the symbols; the condition's embedding among it, since the analysis reads it.
ENCODER = ("transforms.g_a.", "transforms.h_a.", "transforms.encoder_gain.", "transforms.condition_net.")


def freeze_encoder(model: YotoModel) -> None:
    """Keep the symbols of every picture as they are, but for the prior's part in them."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(ENCODER))


def rounded_for_rate(residual: Tensor, sigma: Tensor) -> Tensor:
    """Symbols of residuals: a magnitude must be worth its bits, else it takes the next lower one.

    Gradients pass as if nothing had been rounded.
    """
    with torch.no_grad():
        magnitude = residual.abs()
        levels = magnitude.round()
        lower = (levels - 1.0).clamp_min(0.0)
        saved = gaussian_bits(levels, sigma) - gaussian_bits(lower, sigma)
        least = levels - 0.5 + (saved / (2.0 * RDO_BITS)).clamp(0.0, 1.0)
        symbols = torch.where(magnitude < least, lower, levels) * residual.sign()
    return residual + (symbols - residual).detach()


class SentModel(nn.Module):
    """`YotoModel` behind the encoder's choice of symbols at the default effort, for all samples of a batch."""

    def __init__(self, model: YotoModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, condition: Tensor) -> ModelOutput:
        """As `YotoModel.forward`, but with the bits of the symbols themselves."""
        y_hat, y_bits, z_bits = self.send(x, condition)
        return ModelOutput(self.model.transforms.synthesise(y_hat, condition), y_bits, z_bits)

    def send(self, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y_hat as the decoder has it, and the bits of y's and z's symbols."""
        transforms, prior = self.model.transforms, self.model.prior
        with torch.no_grad():
            y = transforms.analyse(x, condition)
            z_hat = transforms.hyper_analyse(y, condition).round()
        y = self.choose(x, y, z_hat, condition)
        cond = transforms.condition_net(condition)
        y_hat, y_bits = self.coded(y, z_hat, condition, cond)
        return y_hat, y_bits, prior.z_bits(z_hat, cond, noise=False)

    def coded(self, y: Tensor, z_hat: Tensor, condition: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
        norm = self.model.transforms.normaliser(condition)
        return self.model.prior(y, z_hat, norm, cond, False, rounded_for_rate)

    def choose(self, x: Tensor, y: Tensor, z_hat: Tensor, condition: Tensor) -> Tensor:
        """Latents to quantise: the corrected ones where that is cheaper.

        The encoder decides so for each block of latents, here for each crop.
        """
        transforms = self.model.transforms
        scale = transforms.lmbda(condition)[:, 0] * 255.0**2 / x.shape[1]

        def error_bits(y_hat: Tensor) -> Tensor:
            return scale * (transforms.synthesise(y_hat, condition) - x).square().sum(dim=(1, 2, 3))

        with torch.no_grad():
            cond = transforms.condition_net(condition)
            draft, draft_bits = self.coded(y, z_hat, condition, cond)
        with torch.enable_grad():
            error = error_bits(draft.requires_grad_())
            (gradient,) = torch.autograd.grad(error.sum(), draft)
        with torch.no_grad():
            wanted = draft - gradient / CURVATURE
            refined = y + NEWTON_SHARE * (wanted - y)
            again, again_bits = self.coded(refined, z_hat, condition, cond)
            better = again_bits + error_bits(again) < draft_bits + error
        return torch.where(better[:, None, None, None], refined, y)
