"""Our likelihoods and tables against CompressAI's, in the environment that it needs (`make test-all` makes it)."""

from __future__ import annotations

import math
import os
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
import torch

from benchmarks.crosscheck import ask
from codec.format.entropy import FREQUENCY_BITS
from codec.network.config import ModelConfig
from codec.network.layers import gaussian_bits
from training.export import frequency_tables

ROOT = Path(__file__).parent.parent
PYTHON = Path(os.environ.get("YOTO_COMPRESSAI_PYTHON") or ROOT / ".venv-compressai/bin/python")
CONFIG = ModelConfig()
SCALES = [CONFIG.scales_min * math.exp(CONFIG.scales_step * row) for row in range(CONFIG.scales_levels)]
RESIDUALS = [-40, -7, -3, -1, 0, 1, 2, 5, 12]


def masses_of(deviation: float, radius: int) -> np.ndarray:
    """Of -radius … radius, then of all else: the order that CompressAI takes."""
    normal = NormalDist(0.0, deviation)
    inside = [normal.cdf(k + 0.5) - normal.cdf(k - 0.5) for k in range(-radius, 1)]  # the lower half loses no digits
    return np.array([*inside, *inside[-2::-1], 2.0 * normal.cdf(-radius - 0.5)])


@pytest.fixture(scope="module")
def tables() -> list[np.ndarray]:
    """Ours: escape, -radius … radius."""
    stored = frequency_tables(CONFIG)
    lengths = 2 * np.asarray(stored["tables.radii"]) + 2
    return np.split(np.asarray(stored["tables.frequencies"]).astype(np.int64), np.cumsum(lengths)[:-1])


@pytest.fixture(scope="module")
def masses(tables) -> list[np.ndarray]:
    return [masses_of(deviation, len(row) // 2 - 1) for deviation, row in zip(SCALES, tables, strict=True)]


@pytest.fixture(scope="module")
def theirs(masses) -> dict[str, list]:
    return ask(PYTHON, {"scales": SCALES, "residuals": RESIDUALS, "masses": [row.tolist() for row in masses]})


def test_likelihoods_are_those_of_gaussian_conditional(theirs):
    likelihoods = np.array(theirs["likelihoods"])
    ours = gaussian_bits(torch.tensor(RESIDUALS, dtype=torch.float32)[None, :], torch.tensor(SCALES)[:, None]).numpy()
    near = np.abs(RESIDUALS)[None, :] <= 4.0 * np.array(SCALES)[:, None] + 0.5  # beyond stands the escape
    assert near.sum() > 200
    assert np.abs(ours + np.log2(likelihoods))[near].max() < 0.01


def test_tables_cost_no_more_than_those_of_pmf_to_quantized_cdf(theirs, tables, masses):
    for row, cdf, mass in zip(tables, theirs["cdfs"], masses, strict=True):
        frequencies = np.diff(cdf)
        assert frequencies.sum() == row.sum() == 1 << FREQUENCY_BITS
        ours = np.append(row[1:], row[0])
        assert np.abs(ours - frequencies).max() <= len(row)  # either gives each symbol its one at others' expense
        excess = float((mass * (np.log2(frequencies) - np.log2(ours))).sum())
        assert excess < 1e-5  # bits a symbol
