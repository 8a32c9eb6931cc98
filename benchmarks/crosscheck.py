"""What CompressAI says of the same Gaussians: likelihoods and integer tables, for a test to hold ours against.

Runs with the interpreter that has CompressAI (`make .venv-compressai/.installed`), as `compressai_models` does: JSON on
stdin, {"scales": […], "residuals": […], "masses": [[…], …]}, JSON on stdout.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.compressai_models import ROOT, CompressaiError, import_models

PRECISION_BITS = 16


def ask(python: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Ask with another interpreter; CompressaiError, with its last line, if it cannot answer."""
    arguments = [str(python.absolute()), "-m", "benchmarks.crosscheck"]
    done = subprocess.run(arguments, cwd=ROOT, input=json.dumps(question), capture_output=True, text=True, check=False)
    if done.returncode:
        raise CompressaiError(f"CompressAI in {python} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def main() -> None:
    """Answer."""
    import_models()
    import torch
    from compressai._CXX import pmf_to_quantized_cdf
    from compressai.entropy_models import GaussianConditional

    question = json.load(sys.stdin)
    scales, residuals = (torch.tensor(question[name], dtype=torch.float32) for name in ("scales", "residuals"))
    grid = torch.broadcast_tensors(residuals[None, :], scales[:, None])
    _, likelihoods = GaussianConditional(None)(grid[0].contiguous(), grid[1].contiguous(), training=False)
    cdfs = [pmf_to_quantized_cdf(masses, PRECISION_BITS) for masses in question["masses"]]
    json.dump({"likelihoods": likelihoods.tolist(), "cdfs": [list(cdf) for cdf in cdfs]}, sys.stdout)


if __name__ == "__main__":
    main()
