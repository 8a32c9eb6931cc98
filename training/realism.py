"""A second coefficient, the decoder's realism a in [0, 1], learned after all else is final:

    L = λ · ((1 - a) · 255² · MSE + a · 1300 · (1 - MS-SSIM))

The encoder, its bits and the decoder that they are made for stay as they are. Only the synthesis sees a: its tensors
are W + a·ΔW, so that a = 0 is the decoder that ships, to the last bit, and the rest of a's range costs nothing but one
addition a picture. ΔW begins at 0 and is all that is trained. (Deep network interpolation: Wang et al. 2019,
arXiv:1811.10515; there both ends are trained, here all that lies between, as YOTO draws its coefficients.)

    python -m training.train --config training/configs/realism.toml --from FINAL/checkpoint.pt --data IMAGES --out RUN
    python -m training.add_realism --run RUN --data IMAGES WEIGHTS
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from codec.network.config import ModelConfig
from codec.network.model import ModelOutput, YotoModel
from codec.network.transforms import Transforms
from training.sent import SentModel


class Synthesise(nn.Module):
    """`Transforms.synthesise` as a module, which `functional_call` wants."""

    def __init__(self, transforms: Transforms) -> None:
        super().__init__()
        self.transforms = transforms

    def forward(self, y_hat: Tensor, condition: Tensor) -> Tensor:
        return self.transforms.synthesise(y_hat, condition)


class RealismModel(YotoModel):
    """`YotoModel` on what the encoder sends, under the condition (quality, a); all but ΔW is frozen."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.requires_grad_(False)
        # By the names of g_s's tensors; those of parameters must not hold dots.
        self.realism = nn.ParameterDict(
            {n.replace(".", "/"): torch.zeros_like(p) for n, p in self.transforms.named_parameters() if in_g_s(n)}
        )

    def added(self) -> dict[str, Tensor]:
        """ΔW, by the names of `Transforms`."""
        return {name.replace("/", "."): delta for name, delta in self.realism.items()}

    def forward(self, x: Tensor, condition: Tensor, noise: bool = True) -> ModelOutput:
        """As `YotoModel.forward`; the a of the first sample is that of all, and symbols are always the encoder's."""
        quality, a = condition[:, :1], (condition[0, 1] + 1.0) / 2.0
        with torch.no_grad():
            y_hat, y_bits, z_bits = SentModel(self).send(x, quality)
        own = dict(self.transforms.named_parameters())
        moved = {f"transforms.{name}": own[name] + a * delta for name, delta in self.added().items()}
        return ModelOutput(functional_call(Synthesise(self.transforms), moved, (y_hat, quality)), y_bits, z_bits)


def in_g_s(name: str) -> bool:
    return name.startswith("g_s.")
