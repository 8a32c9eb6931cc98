"""Inside other programs: whatever they set torch to, fork or pickle, files and pictures are the same."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
from conftest import picture

import codec as package

ROOT = Path(__file__).parent.parent

# Prints a line `first name digest` for every setting, from a model that was loaded under each of the arguments.
PROGRAM = """
import hashlib, sys, warnings
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

sys.path.insert(0, "tests")
from conftest import picture
import codec

weights = sys.argv[1]

@contextmanager
def set_to(change, back):
    change()
    try:
        yield
    finally:
        back()

@contextmanager
def reduced_precision():
    before = torch.backends.mkldnn.matmul.fp32_precision, torch.backends.mkldnn.conv.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = torch.backends.mkldnn.conv.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision, torch.backends.mkldnn.conv.fp32_precision = before

settings = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default_dtype": lambda: set_to(
        lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)
    ),
    "default_device": lambda: torch.device("meta"),
    "deterministic": lambda: set_to(
        lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)
    ),
    "fp32_precision": reduced_precision,
    "nothing": nullcontext,
}
for first in sys.argv[2:]:
    order = [first] + [name for name in settings if name != first]
    model = None
    for name in order:
        with settings[name]():
            model = model or codec.Codec(weights)
            data = model.encode(picture(70, 130), 0.6, effort=2)
            pixels = np.asarray(model.decode(data))
        print(first, name, hashlib.sha256(data + pixels.tobytes()).hexdigest())
"""

LOADED_UNDER = ("inference_mode", "default_device", "default_dtype")

FORK = """
import os, sys

import torch

sys.path.insert(0, "tests")
from conftest import picture
import codec

torch.set_num_threads(2)
model = codec.Codec(sys.argv[1])
data = model.encode(picture(300, 300), 0.6)
child = os.fork()
if child == 0:
    os._exit(0 if model.encode(picture(300, 300), 0.6) == data else 3)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert torch.get_num_threads() == 2
"""


def run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_the_host_sets_changes_nothing(weights_path, codec):
    lines = [line.split() for line in run(PROGRAM, weights_path, *LOADED_UNDER).splitlines()]
    data = codec.encode(picture(70, 130), 0.6, effort=2)
    expected = hashlib.sha256(data + np.asarray(codec.decode(data)).tobytes()).hexdigest()
    assert len(lines) == 3 * 8
    assert [line for line in lines if line[2] != expected] == []


def test_forked_child_codes_too(weights_path):
    run(FORK, weights_path)


def test_codec_pickles(weights_path):
    codec = package.Codec(weights_path)
    again = pickle.loads(pickle.dumps(codec))
    assert again.encode(picture(20, 20)) == codec.encode(picture(20, 20))
