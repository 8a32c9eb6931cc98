"""The Ray example on a cluster of two workers, with bad pictures and a worker that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image
from test_broken_pictures import WRITTEN, mutants

pytestmark = pytest.mark.ray

ROOT = Path(__file__).parent.parent
PICTURES = 5
# Runs the example; its workers die by a signal when they meet "once" for the first time, and "z-always" every time.
PROGRAM = """
import os, signal
from pathlib import Path

import ray
from examples import transcode_ray

SCAR = Path(os.environ["SCAR"])

class Mortal(transcode_ray.Transcoder):
    def __call__(self, row):
        name = Path(row["source"]).stem
        if name == "once" and not SCAR.exists():
            SCAR.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "z-always":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)

transcode_ray.Transcoder = Mortal
transcode_ray.FILES_PER_TASK = 3
transcode_ray.TASK_RETRIES = 1
ray.init(num_cpus=2, include_dashboard=False)
transcode_ray.main()
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "sub").mkdir(parents=True)
    for number in range(PICTURES):
        Image.fromarray(picture(64, 80, number)).save(folder / "sub" / f"{number}.png")
    return folder


def transcode(
    folder: Path | str, tmp_path: Path, weights: Path, output: str | None = None
) -> tuple[subprocess.CompletedProcess, dict[str, dict]]:
    """The finished run, and the manifest's lines by the names of their sources."""
    environment = {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "SCAR": str(tmp_path / "scar")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, output or tmp_path / "out", "--weights", weights, "--quality", "0.3"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,  # a dozen processes start, each with torch: 224 s on two cores at a load of 18
    )
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    by_name = {Path(line["source"]).name: line for line in lines}
    assert len(by_name) == len(lines), "a picture has two lines"
    return done, by_name


def test_collection_of_urls(pictures, tmp_path, weights_path, codec, monkeypatch):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)  # stores of objects have no folders to be made
    monkeypatch.chdir(out)  # where the manifest goes
    # By this name fsspec serves the disk, and the example does not know that.
    done, lines = transcode(f"local://{pictures}", tmp_path, weights_path, output=f"local://{out}")
    assert done.returncode == 0, done.stderr
    assert set(lines) == {f"{number}.png" for number in range(PICTURES)}
    for name, line in lines.items():
        assert line["source"] == f"local://{pictures}/sub/{name}"
        assert line["output"] == f"local://{out}/sub/{name}.yoto"
        data = (out / "sub" / f"{name}.yoto").read_bytes()
        assert data == codec.encode(np.asarray(Image.open(pictures / "sub" / name)), 0.3)


@pytest.fixture(scope="session")
def worker(weights_path: Path):
    from examples.transcode_ray import Transcoder

    return Transcoder(str(weights_path), 0.3)


@pytest.mark.filterwarnings("ignore")  # of what is read all the same, and of what is not kept
@pytest.mark.parametrize("form", WRITTEN)
def test_worker_tells_what_is_wrong_with_a_picture_in_one_line(tmp_path, worker, codec, form):
    """Whatever else it raised would cost its whole group of files."""
    errors = []
    for number, data in enumerate(mutants(WRITTEN[form], seed=len(form))):
        source, output = tmp_path / f"{number}", tmp_path / "out" / f"{number}.yoto"
        source.write_bytes(data)
        line = worker({"source": str(source), "output": str(output)})
        assert output.exists() == (line["error"] is None)
        if line["error"]:
            errors.append(line["error"])
        else:
            assert line["bytes"] == len(output.read_bytes())
            codec.decode(output)
    assert errors
    assert not any("\n" in error for error in errors)


def test_collection_survives_bad_pictures_and_killed_workers(pictures, tmp_path, weights_path, codec):
    (pictures / "bad.png").write_bytes(b"no picture")
    (pictures / "missing.png").symlink_to("nowhere")
    for name in ("once", "z-always"):
        Image.fromarray(picture(64, 64)).save(pictures / f"{name}.png")
    done, lines = transcode(pictures, tmp_path, weights_path)
    assert (tmp_path / "scar").exists(), done.stderr  # a worker was killed where Ray tried again
    good = {f"{number}.png" for number in range(PICTURES)} | {"once.png"}
    assert {name for name, line in lines.items() if line["error"] is None} == good, done.stderr
    assert set(lines) == good | {"bad.png", "z-always.png"}
    for name in good:
        line = lines[name]
        data = Path(line["output"]).read_bytes()
        assert data == codec.encode(np.asarray(Image.open(line["source"])), 0.3)
        assert line["bytes"] == len(data)
        assert line["seconds"] > 0
        height, width = np.asarray(Image.open(line["source"])).shape[:2]
        assert line["bpp"] == pytest.approx(8 * len(data) / (height * width))
    assert Path(lines["0.png"]["output"]) == tmp_path / "out" / "sub" / "0.png.yoto"
    assert "not an image" in lines["bad.png"]["error"]
    assert "workers died" in lines["z-always.png"]["error"]
    assert done.returncode == 1
    assert f"{len(good)} of {len(good) + 2} pictures coded" in done.stdout
    written = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {f"{name}.yoto" for name in good} | {"manifest.jsonl"}  # and no temporary file
