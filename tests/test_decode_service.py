"""The service of `examples/decode_service`, as a process: without torch, and with one line for every error."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden" / "v1"
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from examples.decode_service.service import main; main()"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        yield process.stdout.readline().strip()
        process.terminate()


def post(address: str, data: bytes) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_answers_a_file_with_its_picture(address: str) -> None:
    status, png = post(address, (GOLDEN / "colour.yoto").read_bytes())
    assert status == 200
    with Image.open(io.BytesIO(png)) as found, Image.open(GOLDEN / "colour.png") as expected:
        assert np.abs(np.asarray(found).astype(int) - np.asarray(expected)).max() <= 1


def test_refuses_in_one_line_and_goes_on(address: str) -> None:
    good = (GOLDEN / "odd.yoto").read_bytes()
    huge = good[:8] + (1 << 24).to_bytes(4, "little") * 2 + good[16:]
    for data, status in ((b"", 400), (b"no picture", 400), (good[:-1], 400), (huge, 413)):
        code, message = post(address, data)
        assert (code, message.count(b"\n")) == (status, 1), message
    assert post(address, good)[0] == 200


@pytest.mark.parametrize(
    ("length", "status"), [("", 411), ("x", 411), ("-1", 411), ("99999999999", 413), ("9" * 5000, 413)]
)
def test_refuses_lengths_before_it_reads(address: str, length: str, status: int) -> None:
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as client:
        header = f"Content-Length: {length}\r\n" if length else ""
        client.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\n{header}\r\n".encode())
        assert client.makefile("rb").readline().split()[1] == str(status).encode()
