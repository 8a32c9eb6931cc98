"""Draw the grid of pictures for README.md: a photograph of scikit-image's under many coefficients.

python -m examples.style_transfer.grid grid.jpg --weights WEIGHTS
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import skimage.data
import torch
from PIL import Image

from examples.style_transfer.__main__ import DEFAULT
from examples.style_transfer.network import COEFFICIENTS, WEIGHTS, load, stylise

SIDE_PX = 192
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
FAINT = dict.fromkeys(("style1", "style2", "style3", "style4"), 0.0)


@click.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--weights", type=click.Path(dir_okay=False, path_type=Path), default=WEIGHTS)
def main(output, weights):
    """Write OUTPUT: a row for each coefficient, the photograph at the left."""
    network = load(weights)
    photograph = np.asarray(Image.fromarray(skimage.data.astronaut()).resize((SIDE_PX, SIDE_PX)))
    rows = []
    for name in COEFFICIENTS:
        others = DEFAULT | (FAINT if name.startswith("style") else {})  # so that one layer is seen by itself
        row = [photograph]
        for place in PLACES:
            positions = [(others | {name: place})[each] for each in COEFFICIENTS]
            row.append(stylise(network, torch.from_numpy(photograph.copy()), torch.tensor(positions)).numpy())
        rows.append(np.concatenate(row, axis=1))
    Image.fromarray(np.concatenate(rows, axis=0)).save(output, quality=85)


if __name__ == "__main__":
    main()
