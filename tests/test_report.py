"""`yoto-codec report`: a page about one's own pictures."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import picture
from PIL import Image

import cli
from codec.api import Codec
from codec.metrics import psnr_db


class Page(HTMLParser):
    """Rows of the tables, and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "a & b.png", tmp_path / "grey.jpg"]
    Image.fromarray(picture(96, 128)).save(paths[0])
    Image.fromarray(picture(64, 80)[:, :, 0]).save(paths[1], quality=95)
    return paths


def run(weights_path: Path, output: Path, *words: object):
    options = ["report", *map(str, words), "-o", str(output), "--weights", str(weights_path), "--quality", "0.7"]
    return CliRunner().invoke(cli.main, options)


def test_page_says_what_each_format_needs(pictures, weights_path: Path, codec: Codec, tmp_path: Path) -> None:
    output = tmp_path / "report.html"
    done = run(weights_path, output, *pictures)
    assert done.exit_code == 0, done.output
    text = output.read_text()
    page = Page(text)
    assert all(address.startswith("data:image/webp;base64,") for address in page.addresses)
    assert not re.findall(r"url\(|@import|<script|<link", text)
    assert "a &amp; b.png" in text

    image = picture(96, 128)
    data = codec.encode(image, 0.7)
    ours = psnr_db(image, np.asarray(codec.decode(data)))
    first = next(index for index, row in enumerate(page.rows) if row[0] == "stored now, PNG")
    assert page.rows[first][1].replace(" ", "") == str(pictures[0].stat().st_size)
    assert page.rows[first + 1][:2] == ["yoto-codec", f"{len(data):,}".replace(",", " ")]
    assert page.rows[first + 1][3] == f"{ours:.2f}"
    jpeg = next(row for row in page.rows[first:] if row[0].startswith("JPEG (4"))
    sizes = {}
    for quality in range(100):
        buffer = io.BytesIO()
        Image.fromarray(image).save(
            buffer, "JPEG", quality=quality, subsampling="4:2:0", optimize=True, progressive=True
        )
        sizes[quality] = len(buffer.getvalue()), psnr_db(image, np.asarray(Image.open(buffer)))
    assert int(jpeg[1].replace(" ", "")) == min(count for count, psnr in sizes.values() if psnr >= ours)
    nearest = min(abs(count - len(data)) for count, _ in sizes.values())
    assert abs(int(jpeg[4].replace(" ", "")) - len(data)) == nearest
    total = next(row for row in page.rows if row[0] == "stored now")
    assert total[1].replace(" ", "") == str(sum(path.stat().st_size for path in pictures))


def test_bad_pictures_are_named_and_the_rest_is_shown(pictures, weights_path: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    output = tmp_path / "report.html"
    done = run(weights_path, output, tmp_path / "bad.png", pictures[1], tmp_path / "none.png")
    assert done.exit_code == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 2
    assert "bad.png" in errors[0]
    assert "none.png" in errors[1]
    assert "1 of 3 pictures" in done.stdout
    again = run(weights_path, output, pictures[1])
    assert again.exit_code == 2
    assert "exists; --force overwrites it" in again.stderr


def test_quality_is_given_as_to_encode(pictures, weights_path: Path, tmp_path: Path) -> None:
    def said(quality: str) -> str:
        words = [
            "report",
            str(pictures[1]),
            "-fo",
            str(tmp_path / "r.html"),
            "-q",
            quality,
            "--weights",
            str(weights_path),
        ]
        assert CliRunner().invoke(cli.main, words).exit_code == 0
        return (tmp_path / "r.html").read_text()

    assert "Encoded at quality 0.3." in said("30%")
    assert said("30%") == said("0.3")
