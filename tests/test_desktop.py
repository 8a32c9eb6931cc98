"""`.yoto` files among other pictures: a viewer, thumbnails, and how the desktop knows them."""

from __future__ import annotations

import ast
import configparser
import os
import shlex
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import picture
from PIL import Image
from test_cli import ROOT, assert_fails, run

from codec.app import viewer
from codec.format.bitstream import MAGIC
from codec.pillow import MIME

DESKTOP = ROOT / "examples" / "desktop"
NAMESPACE = "{http://www.freedesktop.org/standards/shared-mime-info}"


@pytest.fixture
def file(tmp_path: Path, codec, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, in a folder where the viewer's temporary files go, too."""
    monkeypatch.setattr(viewer.tempfile, "tempdir", str(tmp_path))
    path = tmp_path / "holiday.yoto"
    path.write_bytes(codec.encode(picture(40, 70)))
    return path


def program(path: Path, lines: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)
    return path


def test_view_opens_the_systems_viewer_on_a_png(file, tmp_path, weights_path, monkeypatch):
    program(tmp_path / "bin" / "xdg-open", f'echo "$1" > "{tmp_path}/seen"')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    result = run("view", file, "--weights", weights_path)
    seen = Path((tmp_path / "seen").read_text().strip())
    assert (result.exit_code, result.stderr, seen.name) == (0, "", "holiday.png")
    assert str(seen) in result.stdout
    with Image.open(seen) as image:
        assert (image.format, image.size) == ("PNG", (70, 40))
    assert seen.parent.stat().st_mode & 0o077 == 0
    program(tmp_path / "bin" / "xdg-open", "exit 3")
    seen.unlink()
    assert_fails(run("view", file, "--weights", weights_path), "no viewer", "--viewer")
    assert not list(tmp_path.glob("yoto-view-*/*"))


def test_view_with_a_viewer_of_ones_own_leaves_no_file(file, tmp_path, weights_path):
    other = program(tmp_path / "bin" / "other viewer", f'cp "$2" "{tmp_path}/seen.png"')
    options = ("--viewer", f"'{other}' --large", "--region", "10,10,20,8", "--weights", weights_path)
    result = run("view", file, *options)
    assert (result.exit_code, result.output) == (0, "")
    with Image.open(tmp_path / "seen.png") as image:
        assert image.size == (20, 8)
    assert not list(tmp_path.glob("yoto-view-*"))
    assert_fails(run("view", tmp_path / "none.yoto"), "none.yoto")


def test_desktop_learns_type_thumbnails_and_opening(file, tmp_path, weights_path):
    """The installed entries name the format's own magic; the thumbnailer's command line makes a small PNG."""
    for name in ("update-mime-database", "update-desktop-database"):
        program(tmp_path / "bin" / name, f'echo "{name} $1" >> "{tmp_path}/updated"')
    data = tmp_path / "data home"
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"XDG_DATA_HOME": str(data), "PATH": path}
    subprocess.run([DESKTOP / "install.sh"], env=environment, check=True, capture_output=True)
    updated = f"update-mime-database {data}/mime\nupdate-desktop-database {data}/applications\n"
    assert (tmp_path / "updated").read_text() == updated
    (kind,) = ET.parse(data / "mime/packages/yoto.xml").getroot()
    (match,) = kind.iter(f"{NAMESPACE}match")
    assert kind.get("type") == MIME
    assert (match.get("offset"), ast.literal_eval(f"b'{match.get('value')}'")) == ("0", MAGIC)
    entries = {}
    for name in ("thumbnailers/yoto-codec.thumbnailer", "applications/yoto-codec.desktop"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(data / name)
        (section,) = parser.sections()
        entries[section] = parser[section]
        assert parser[section]["MimeType"] == f"{MIME};"
    assert shlex.split(entries["Desktop Entry"]["Exec"]) == ["yoto-codec", "view", "%f"]
    small = tmp_path / ".thumbnail.X7Y8Z9"
    small.touch()  # as GNOME does
    values = {"%s": "32", "%i": str(file), "%o": str(small)}
    name, *arguments = (values.get(word, word) for word in shlex.split(entries["Thumbnailer Entry"]["Exec"]))
    result = run(*arguments, "--weights", weights_path)
    assert (name, result.exit_code, result.output) == ("yoto-codec", 0, "")
    with Image.open(small) as image:
        assert (image.format, image.size) == ("PNG", (32, 18))
