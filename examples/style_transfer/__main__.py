"""Stylise a picture, or serve a page with a slider for each coefficient.

python -m examples.style_transfer INPUT --content 0.2 --blend 0.5 -o OUTPUT
python -m examples.style_transfer --serve                 # needs the extra `demo`
python -m examples.style_transfer --time                  # frames a second at 256 px
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from examples.style_transfer.network import COEFFICIENTS, LEAST_PX, WEIGHTS, load, stylise

DEFAULT = {"content": 0.3, "style1": 0.7, "style2": 0.7, "style3": 0.7, "style4": 0.7, "blend": 0.0}
SIDE_PX = 256  # of the page's picture
MAX_SIDE_PX = 4096
FRAMES = 50


def sliders(command):
    for name in reversed(COEFFICIENTS):
        what = "share of the second style" if name == "blend" else "least to greatest weight"
        option = click.option(
            f"--{name}", type=click.FloatRange(0.0, 1.0), default=DEFAULT[name], show_default=True, help=what
        )
        command = option(command)
    return command


def frames_per_second(network) -> float:
    """The median rate over FRAMES pictures of SIDE_PX, with torch's threads as they are."""
    picture = torch.randint(256, (SIDE_PX, SIDE_PX, 3), dtype=torch.uint8)
    positions = torch.full((len(COEFFICIENTS),), 0.5)
    seconds = []
    for _ in range(FRAMES):
        start = time.perf_counter()
        stylise(network, picture, positions)
        seconds.append(time.perf_counter() - start)
    return 1.0 / sorted(seconds)[FRAMES // 2]


@click.command()
@click.argument("picture", metavar="[INPUT]", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A picture, by its suffix.")
@sliders
@click.option("--weights", type=click.Path(dir_okay=False, path_type=Path), default=WEIGHTS)
@click.option("--serve", is_flag=True, help="Serve the page on this machine.")
@click.option("--port", default=8010, show_default=True)
@click.option("--time", "timed", is_flag=True, help="Print frames a second at 256 px, and stop.")
def main(picture, output, weights, serve, port, timed, **positions):
    """Stylise INPUT into OUTPUT; every coefficient is a place in the range that the network was trained on."""
    if bool(picture) + serve + timed != 1 or bool(picture) != bool(output):
        raise click.UsageError("give INPUT and --output, or --serve, or --time")
    try:
        network = load(weights)
        if timed:
            click.echo(f"{frames_per_second(network):.1f} frames/s at {SIDE_PX} px, {torch.get_num_threads()} threads")
        elif serve:
            from examples.style_transfer.page import run

            run(network, port)
        else:
            with Image.open(picture) as image:
                if min(image.size) < LEAST_PX or max(image.size) > MAX_SIDE_PX:
                    raise ValueError(
                        f"{picture} has sides of {image.size}; they must be {LEAST_PX} to {MAX_SIDE_PX} px"
                    )
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
            values = torch.tensor([positions[name] for name in COEFFICIENTS])
            Image.fromarray(stylise(network, pixels, values).numpy()).save(output)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
