"""Drawn crops: text, charts, line art, dithers, checkerboards, noise, flat colours and gradients.

Photographs hold none of these, and what a network makes of them is otherwise left to chance. What they weigh
in the loss is limited (`TrainConfig.synthetic_limit`), for nothing is to be given up for them.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

Colours = tuple[tuple[int, ...], tuple[int, ...]]


def canvas(size: int, colours: Colours) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (size, size), colours[0])
    return image, ImageDraw.Draw(image)


def text(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    image, draw = canvas(size, colours)
    height = int(random.integers(8, 40))
    font = ImageFont.load_default(height)
    for top in range(0, size, height + int(random.integers(0, 8))):
        line = "".join(random.choice(list(string.printable[:94] + "      "), size // 4))
        draw.text((int(random.integers(-10, 10)), top), line, colours[1], font)
    return np.asarray(image)


def chart(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    image, draw = canvas(size, colours)
    for at in range(0, size, size // int(random.integers(3, 9))):
        draw.line([(0, at), (size, at)], colours[1])
    for _ in range(int(random.integers(1, 4))):
        x = np.arange(0, size, 4)
        y = size / 2 + np.cumsum(random.normal(0, size / 40, len(x)))
        colour = tuple(int(c) for c in random.integers(0, 256, 3))
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), colour, int(random.integers(1, 4)))
    for left in range(0, size, int(random.integers(10, 40))):
        top = int(random.integers(size // 2, size))
        draw.rectangle([left, top, left + 6, size], fill=tuple(int(c) for c in random.integers(0, 256, 3)))
    return np.asarray(image)


def line_art(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    image, draw = canvas(size, colours)
    for _ in range(int(random.integers(5, 40))):
        box = np.sort(random.integers(0, size, (2, 2)), axis=0).flatten().tolist()
        width = int(random.integers(1, 4))
        if random.random() < 0.5:
            draw.ellipse(box, outline=colours[1], width=width)
        else:
            draw.line(box, colours[1], width)
    return np.asarray(image)


def dither(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16.0
    threshold = np.tile(bayer, (size // 4 + 1, size // 4 + 1))[:size, :size]
    ramp = np.linspace(*random.random(2), size)[:, None] + np.linspace(*random.random(2) - 0.5, size)[None, :]
    return np.where((ramp > threshold)[..., None], *colours)


def checker(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    cells = np.indices((size, size)) // random.integers(1, 9, 2)[:, None, None]
    return np.where((cells.sum(axis=0) % 2 == 0)[..., None], *colours)


def noise(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    if random.random() < 0.5:
        return np.where(random.random((size, size, 1)) < random.random(), *colours)
    return np.array(colours[0]) + random.normal(0, random.uniform(1, 60), (size, size, 3))


def flat(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    return np.full((size, size, 3), colours[0])


def gradient(size: int, random: np.random.Generator, colours: Colours) -> np.ndarray:
    x, y = np.meshgrid(*(np.linspace(0, 1, size),) * 2)
    share = np.clip((x * random.uniform(-1, 1) + y * random.uniform(-1, 1)) % 1.0, 0, 1)[..., None]
    return np.array(colours[0]) * (1 - share) + np.array(colours[1]) * share


KINDS: tuple[Callable[[int, np.random.Generator, Colours], np.ndarray], ...] = (
    text, chart, line_art, dither, checker, noise, flat, gradient,
)  # fmt: skip


def draw(size: int, seed: int) -> Tensor:
    """One crop of any kind, float32 (3, size, size) in [0, 1] in steps of 1/255."""
    random = np.random.default_rng(seed)
    kind = KINDS[random.integers(len(KINDS))]
    pair = [(0, 0, 0), (255, 255, 255)] if random.random() < 0.3 else random.integers(0, 256, (2, 3)).tolist()
    if random.random() < 0.5:
        pair = pair[::-1]
    pixels = kind(size, random, (tuple(pair[0]), tuple(pair[1])))
    return torch.from_numpy(np.clip(np.rint(pixels), 0, 255).astype(np.uint8)).permute(2, 0, 1).float() / 255.0


def choose(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """For each sample the seed of its drawn crop, or -1 for a photograph, int64 (batch,); `share` of them are drawn."""
    chosen = torch.rand(batch, generator=generator) < share
    return torch.where(chosen, torch.randint(2**62, (batch,), generator=generator), -1)


def mix_in(x: Tensor, seeds: Tensor) -> None:
    """Put drawn crops in the place of those x (B, 3, size, size) that have a seed."""
    for i in (seeds >= 0).nonzero().flatten().tolist():
        x[i] = draw(x.shape[-1], int(seeds[i])).to(x.device)
