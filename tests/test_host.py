"""Inside other programs: a model that is forked or pickled makes the same files."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

from conftest import picture

import codec as package

ROOT = Path(__file__).parent.parent

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
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_forked_child_codes_too(weights_path):
    run(FORK, weights_path)


def test_codec_pickles(weights_path):
    codec = package.Codec(weights_path)
    again = pickle.loads(pickle.dumps(codec))
    assert again.encode(picture(20, 20)) == codec.encode(picture(20, 20))
