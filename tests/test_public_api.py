"""What the package offers, and that its parts import each other in one direction only."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import codec

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "codec").rglob("*.py"))
# Rooms and hall, each with what it may import besides itself: nothing points backwards.
ALLOWED = {
    "codec.errors": set(),
    "codec.metrics": set(),
    "codec.peers": {"codec.errors", "codec.metrics", "codec.picture"},
    "codec.format": {"codec.errors"},
    "codec.network": {"codec.errors", "codec.format"},
    "codec.picture": {"codec.errors", "codec.format"},
    "codec.grid": {"codec.format", "codec.network"},
    "codec.quantise": {"codec.format", "codec.network"},
    "codec.blocks": {"codec.format", "codec.picture"},
    "codec.encoder": {"codec.format", "codec.network", "codec.picture", "codec.grid", "codec.quantise", "codec.blocks"},
    "codec.decoder": {"codec.errors", "codec.format", "codec.network", "codec.picture", "codec.grid"},
    "codec.api": {
        "codec.errors",
        "codec.format",
        "codec.network",
        "codec.picture",
        "codec.grid",
        "codec.encoder",
        "codec.decoder",
    },
    "codec.target": {"codec.api", "codec.encoder", "codec.format", "codec.grid", "codec.metrics", "codec.picture"},
    "codec.pillow": {
        "codec.api",
        "codec.encoder",
        "codec.errors",
        "codec.format",
        "codec.picture",
        "codec.target",
    },
    "codec.compressai": {
        "codec.api",
        "codec.encoder",
        "codec.format",
        "codec.grid",
        "codec.network",
        "codec.picture",
    },
    "codec": {"codec.api", "codec.errors", "codec.format", "codec.picture", "codec.pillow", "codec.target"},
    "codec.app": {
        "codec.api",
        "codec.decoder",
        "codec.encoder",
        "codec.errors",
        "codec.format",
        "codec.grid",
        "codec.metrics",
        "codec.network",
        "codec.peers",
        "codec.picture",
        "codec.target",
    },
    "codec.demo": {
        "codec.api",
        "codec.errors",
        "codec.format",
        "codec.metrics",
        "codec.peers",
        "codec.picture",
        "codec.target",
    },
}
OUTSIDE = {"training", "benchmarks", "tests", "compressai"}
ARITHMETIC_FREE = {
    "__future__",
    "array",
    "codec",
    "collections",
    "dataclasses",
    "importlib",
    "struct",
    "typing",
    "zlib",
}


def imports(path: Path) -> set[str]:
    """Dotted names of all modules that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
            names.add(ast.literal_eval(node.args[0]))
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def pattern(folder: str) -> str:
    return "*.py" if folder == "." else "**/*.py"


def importers(package: str, *folders: str) -> set[str]:
    return {
        path.stem for folder in folders for path in (ROOT / folder).glob(pattern(folder)) if package in packages(path)
    }


def test_all_is_exact_and_sorted():
    assert codec.__all__ == [
        "BitstreamError",
        "Codec",
        "CodecError",
        "CorruptError",
        "Header",
        "ImageError",
        "LossWarning",
        "Metadata",
        "ModelMismatchError",
        "NotYotoError",
        "TooLargeError",
        "TruncatedError",
        "UnsupportedVersionError",
        "WeightsError",
        "decode",
        "encode",
        "encode_to_target",
        "read_header",
        "register_pillow",
        "scale_levels",
    ]
    assert codec.__all__ == sorted(codec.__all__)


@pytest.mark.parametrize("name", codec.__all__)
def test_public_name_is_documented(name):
    assert getattr(codec, name).__doc__


def test_help_names_everything_and_the_version_is_known():
    text = pydoc.render_doc(codec, renderer=pydoc.plaintext)
    assert {*codec.__all__, "__version__"} <= set(dir(codec))
    assert all(f"class {name}(" in text or f"    {name}" in text for name in codec.__all__)
    assert codec.__version__ == importlib.metadata.version("yoto-codec")


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        codec.missing  # noqa: B018


def test_every_public_error_is_a_codec_error():
    errors = [getattr(codec, name) for name in codec.__all__ if name.endswith("Error")]
    assert all(issubclass(error, codec.CodecError) for error in errors)


def room(path: Path) -> str:
    """The room of a file of the library, or the file itself where it stands in the hall."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:2]) if parts[1] != "__init__" else "codec"


def test_every_module_has_its_place():
    assert {room(path) for path in SOURCES} == set(ALLOWED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    named = {".".join(name.split(".")[:2]) for name in imports(path)} & ALLOWED.keys() - {"codec"}
    assert named - {room(path)} <= ALLOWED[room(path)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_codec_knows_nothing_of_training_benchmarks_or_compressai(path):
    known = {"compressai"} if path == ROOT / "codec" / "compressai.py" else set()
    assert packages(path) & {*OUTSIDE, "cli"} == known


def test_command_knows_nothing_of_training_and_forwards_to_the_benchmarks_alone():
    used = {name for name in imports(ROOT / "cli.py") if name.split(".")[0] in OUTSIDE}
    assert used == {"benchmarks.run"}


def test_constriction_is_imported_in_one_file():
    assert importers("constriction", "codec", "training", ".") == {"entropy"}


def test_pillow_is_imported_where_pictures_come_and_go():
    rooms = {"image", "formats", "plain", "metadata", "api", "pillow", "target"}
    assert importers("PIL", "codec", ".") <= rooms | {"batch", "work", "peers", "savings"}


@pytest.mark.parametrize("name", ["errors", "format/bitstream", "__init__"])
def test_headers_need_the_standard_library_alone(name):
    assert packages(ROOT / "codec" / f"{name}.py") <= ARITHMETIC_FREE


def test_trainer_runs_without_entropy_coder_and_compressai():
    program = """
import sys
sys.modules |= dict.fromkeys(["constriction", "compressai"])
import training.train, training.sent, training.throughput
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


def test_all_that_the_library_reads_is_packaged():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["codec"]
    files = {path.relative_to(ROOT) for path in (ROOT / "codec").rglob("*") if path.is_file()}
    data = {path for path in files if path.suffix not in (".py", ".pyc")}
    packaged = {path.relative_to(ROOT) for pattern in patterns for path in (ROOT / "codec").glob(pattern)}
    assert len(data) > 5
    assert data <= packaged
