"""The weights as one of CompressAI's models: importing this module makes its tools know them as "yoto".

    python -m codec.compressai pretrained PICTURES --architecture yoto --quality 25,50,75

is CompressAI's `compressai.utils.eval_model`, as it is. Needs the extra `compressai`.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NamedTuple

import numpy as np
import torch
from compressai.models import CompressionModel
from compressai.zoo import image_models
from torch import Tensor

from codec.api import DEFAULT_QUALITY, Codec, as_fraction, integer_quality
from codec.encoder import DEFAULT_EFFORT, NOTHING, TILE_PX, pack_planes, pack_symbols, search
from codec.format.bitstream import QUALITY_MAX, unpack
from codec.format.entropy import SymbolTables
from codec.grid import Grid
from codec.network.backend import FloatArray
from codec.network.config import HYPER_STRIDE, LATENT_STRIDE, PASSES
from codec.network.integer import TilePrior
from codec.picture.image import to_planes

NAME = "yoto"  # in `compressai.zoo`


class Coded(NamedTuple):
    """A picture's `.yoto` file, and the code lengths of its symbols, float32 (channels, h, w), bits."""

    data: bytes
    y_bits: FloatArray
    z_bits: FloatArray


class YotoModel(CompressionModel):  # type: ignore[misc]
    """A variable-rate model for evaluation; its entropy model is the frozen one, so that nothing here can be trained.

    x is float32 (B, 3, H, W) in [0, 1], rounded to 8 bits as the files hold it; sides need not be multiples of 64.
    Unlike `codec.encode`, it leaves text and drawings to the network, too: all bits are those of y, z and the header.

    Args:
        weights: path of a weights file; None for the one that is shipped.
        quality: 0 (fewest bits) to 1, continuous; may be set at any time.
        effort: of the encoder, 0 to 8, see `Codec.encode`.

    Raises:
        WeightsError: the weights cannot be used.
        ValueError: the quality is out of range.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        quality: float = DEFAULT_QUALITY,
        effort: int = DEFAULT_EFFORT,
    ) -> None:
        super().__init__()
        self.codec = Codec(weights, backend="torch")
        self.transforms = self.codec.model.backend.transforms  # type: ignore[attr-defined]  # what `to(device)` moves
        self.quality = quality
        self.effort = effort

    @property
    def quality(self) -> float:
        """0 (fewest bits) to 1."""
        return self.rate_point / QUALITY_MAX

    @quality.setter
    def quality(self, quality: float) -> None:
        self.rate_point = integer_quality(quality)

    def forward(self, x: Tensor) -> dict[str, Any]:
        """Reconstruct and price a batch.

        Returns:
            x_hat, float32 (B, 3, H, W), as decoded from the files of `compress`; likelihoods of y, (B, M, 4h, 4w), and
            of z, (B, Z, h, w), h = ⌈H / 64⌉, w = ⌈W / 64⌉: 2^-b where the entropy coder's tables take b bits.
        """
        coded = [self._code(picture) for picture in x]
        bits = {"y": [each.y_bits for each in coded], "z": [each.z_bits for each in coded]}
        likelihoods = {name: torch.from_numpy(np.exp2(-np.stack(maps))).to(x.device) for name, maps in bits.items()}
        return {"x_hat": self._pictures([each.data for each in coded]).to(x.device), "likelihoods": likelihoods}

    def compress(self, x: Tensor) -> dict[str, Any]:
        """Compress a batch; one list of strings, each the bytes of a `.yoto` file, and the size of z."""
        shape = torch.Size(-(-side // HYPER_STRIDE) for side in x.shape[2:])
        return {"strings": [[self._code(picture).data for picture in x]], "shape": shape}

    def decompress(self, strings: list[list[bytes]], shape: torch.Size) -> dict[str, Tensor]:
        """Decompress what `compress` returned, or any `.yoto` files of one size: x_hat as of `forward`.

        Raises:
            CodecError: a file is damaged, or of other weights.
            ValueError: a file's size is not that of `shape`.
        """
        for data in strings[0]:
            header = unpack(data)
            if tuple(shape) != (-(-header.height // HYPER_STRIDE), -(-header.width // HYPER_STRIDE)):
                raise ValueError(f"the file is of {header.width}×{header.height} px, which is not of shape {shape}")
        return {"x_hat": self._pictures(strings[0]).to(next(self.parameters()).device)}

    def _pictures(self, files: list[bytes]) -> Tensor:
        pictures = [np.asarray(self.codec.decode(data)) for data in files]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255.0

    def _code(self, picture: Tensor) -> Coded:
        """Code one picture (3, H, W)."""
        if len(picture) != 3:
            raise ValueError(f"x has {len(picture)} channels; expected 3")
        model, planes = self.codec.model, to_planes(picture)
        config, tables = model.weights.config, model.weights.tables
        height, width, _ = planes.colour.shape
        grid = Grid(height, width, TILE_PX, model.margin_px)
        h, w = grid.padded.latents
        y_bits = np.empty((h, w, config.M), np.float32)
        z_bits = np.empty((h // 4, w // 4, config.Z), np.float32)
        tiles = []
        for box in grid.tiles():
            found = search(model, planes.colour, grid, box, self.rate_point)
            chosen = found.best(self.effort)
            tiles.append(pack_symbols(model, found, chosen))
            y_bits[box.slices(grid.padded, LATENT_STRIDE)] = bits_of_y(chosen.tile, tables)
            z_bits[box.slices(grid.padded, HYPER_STRIDE)] = tables.bits(*chosen.tile.stages[0]).reshape(found.z.shape)
        plain = [NOTHING] * len(tiles)
        data = pack_planes(planes, self.rate_point, TILE_PX, model.id, tiles, plain, exact=False)
        return Coded(data, y_bits.transpose(2, 0, 1), z_bits.transpose(2, 0, 1))


def bits_of_y(tile: TilePrior, tables: SymbolTables) -> FloatArray:
    """Code lengths of the latents where they lie, (h, w, M); pass k codes channel group (k + phase) mod 4."""
    h, w, m = tile.y_hat.shape
    out = np.empty((h // 2, 2, w // 2, 2, PASSES, m // PASSES), np.float32)
    for k, stage in enumerate(tile.stages[1:]):
        bits = tables.bits(*stage).reshape(4, h // 2, w // 2, m // PASSES)
        for phase in range(4):
            out[:, phase // 2, :, phase % 2, (k + phase) % PASSES] = bits[phase]
    return out.reshape(h, w, m)


def from_zoo(quality: float, metric: str = "mse", pretrained: bool = True, progress: bool = True) -> YotoModel:
    """The model as `compressai.zoo` makes its own.

    Args:
        quality: 0 to 1, or a percentage if it is an integer above 1.
        metric: "mse", which it was trained for.
        pretrained, progress: without effect; the weights are shipped.

    Raises:
        ValueError: another metric; the quality is out of range.
    """
    if metric != "mse":
        raise ValueError(f"the weights were trained for mse, not for {metric}")
    return YotoModel(quality=as_fraction(quality)).eval()


image_models[NAME] = from_zoo

if __name__ == "__main__":
    from compressai.utils.eval_model.__main__ import main

    main(sys.argv[1:])
