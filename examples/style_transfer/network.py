"""The feed-forward network that is shown how its losses are weighed, and its weights on disk."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights.safetensors"
COEFFICIENTS = ("content", "style1", "style2", "style3", "style4", "blend")  # the condition, in this order
STRIDE = 4  # sides are padded to multiples of it
LEAST_PX = 8  # a side; below, there is nothing to normalise


class ConditionalNorm(nn.Module):
    """Instance normalisation whose scale and shift are linear in a code of the condition.

    Dumoulin et al., "A Learned Representation for Artistic Style", ICLR 2017, with FiLM in place of their table of
    styles. It starts as plain instance normalisation.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.film = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        gain, shift = self.film(code).float().chunk(2, dim=1)
        y = x.reshape(
            1, -1, *x.shape[2:]
        )  # every channel of every sample is normalised by itself: faster than its parts
        y = F.batch_norm(y, None, None, 1.0 + gain.flatten(), shift.flatten(), training=True)
        return y.view(x.shape).contiguous(memory_format=torch.channels_last)


class Layer(nn.Module):
    """Convolution, normalisation and, unless it ends a residual block, ReLU."""

    def __init__(self, width: int, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)  # which normalisation undoes
        self.norm = ConditionalNorm(outputs, width)
        self.relu = relu

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.norm(self.conv(x), code)
        return F.relu_(x) if self.relu else x


class StyleNetwork(nn.Module):
    """Maps a picture and a condition to the picture in the painters' styles.

        x ── unshuffle ── N ── ↓2, M ── blocks × (M + M) ── ↑2, N ── 12, shuffle ── stylised

    Steps down, residual blocks and steps up are the network of Johnson et al., "Perceptual Losses for Real-Time Style
    Transfer and Super-Resolution", ECCV 2016; here nothing is computed at the full resolution, which is where most of
    its time would go. The normalisations forget the photograph's overall colour and contrast, so the code is told them.
    There is no way around all this: with a share of the photograph added at the end, a short training settles for its
    negative, or for other colours.

    Args:
        channels: N, at half the resolution.
        wide: M, at a quarter of it.
        blocks: how many residual blocks.
        width: of the code that all normalisations read.
    """

    def __init__(self, channels: int = 32, wide: int = 96, blocks: int = 4, width: int = 64) -> None:
        super().__init__()
        n, m = channels, wide
        told = len(COEFFICIENTS) + 6
        # Its own normalisation: a code that hardly differs from one condition to the next is learned as slowly.
        self.code = nn.Sequential(
            nn.Linear(told, width), nn.SiLU(), nn.Linear(width, width, bias=False), nn.LayerNorm(width)
        )
        self.down = nn.ModuleList([Layer(width, 12, n, 3), Layer(width, n, m, 3, stride=2)])
        self.blocks = nn.ModuleList(
            nn.ModuleList([Layer(width, m, m, 3), Layer(width, m, m, 3, relu=False)]) for _ in range(blocks)
        )
        self.up = Layer(width, m, n, 3)
        self.last = nn.Conv2d(n, 12, 3, padding=1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Stylise.

        Args:
            x: float32 (B, 3, H, W) in [0, 1]; H and W multiples of STRIDE.
            condition: float32 (B, 6) in [-1, 1], in the order of COEFFICIENTS.

        Returns:
            float32 (B, 3, H, W), mostly in [0, 1].
        """
        spread, mean = torch.std_mean(x, dim=(2, 3))
        code = self.code(torch.cat([condition, 4.0 * mean - 2.0, 4.0 * spread - 1.0], dim=1))
        y = F.pixel_unshuffle(x - 0.5, 2).contiguous(memory_format=torch.channels_last)
        for layer in self.down:
            y = layer(y, code)
        for first, second in self.blocks:
            y = y + second(first(y, code), code)
        y = self.up(F.interpolate(y, scale_factor=2.0, mode="nearest"), code)
        return F.pixel_shuffle(self.last(y).float(), 2) + 0.5


def save(network: StyleNetwork, path: Path) -> None:
    """Write the weights as float16."""
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, path)


def load(path: Path = WEIGHTS) -> StyleNetwork:
    """Read what `save` wrote, for use in float32.

    Raises:
        OSError, ValueError: there is no such file, or it is none of this network.
    """
    network = StyleNetwork()
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except FileNotFoundError:
        raise ValueError(f"there are no weights at {path}; README.md says how to train them") from None
    except OSError:
        raise
    except Exception as error:  # safetensors' own kind, or RuntimeError of torch
        raise ValueError(f"{path} holds no weights of this network: {str(error).splitlines()[0]}") from None
    return network.eval()


@torch.inference_mode()
def stylise(network: StyleNetwork, picture: Tensor, positions: Tensor) -> Tensor:
    """Stylise one picture of any size of at least 8 px.

    Args:
        picture: uint8 (H, W, 3).
        positions: float32 (6,) in [0, 1]: where each coefficient lies in its range, in the order of COEFFICIENTS.

    Returns:
        uint8 (H, W, 3).
    """
    height, width = picture.shape[:2]
    x = picture.permute(2, 0, 1)[None].float() / 255.0
    x = F.pad(x, (0, -width % STRIDE, 0, -height % STRIDE), mode="reflect")
    y = network(x, 2.0 * positions[None] - 1.0)[0, :, :height, :width]
    return (y.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).permute(1, 2, 0).contiguous()
