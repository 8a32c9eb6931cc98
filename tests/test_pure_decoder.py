"""The specification is complete: a decoder written from it alone reads what the codec writes."""

from __future__ import annotations

import ast
import hashlib
import sys
from pathlib import Path

import numpy as np
import pure_decoder
import pytest
from conftest import page, picture

from codec.format.bitstream import NO_MODEL, unpack
from codec.format.entropy import SymbolTables, encode_symbols

ROOT = Path(__file__).parent.parent
GOLDEN = [
    path
    for path in sorted((ROOT / "tests" / "golden").rglob("*.yoto"))
    if unpack(path.read_bytes()).model_id != NO_MODEL  # without symbols
]


def weights_of(data: bytes) -> Path:
    """The shipped weights that a file names."""
    wanted = unpack(data).model_id.hex()
    paths = (ROOT / "codec" / "data").rglob("*.safetensors")
    return next(path for path in paths if wanted in (path.stem, hashlib.sha256(path.read_bytes()).hexdigest()[:12]))


def test_uses_nothing_of_the_codec():
    tree = ast.walk(ast.parse(Path(pure_decoder.__file__).read_text()))
    imports = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "numpy"}


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_reads_golden_files(path):
    data = path.read_bytes()
    found = pure_decoder.decode(weights_of(data), data)
    assert [crc for crc, _ in found] == [tile.content_crc for tile in unpack(data).tiles if tile.length]


@pytest.mark.parametrize("quality", [0.013, 0.5, 0.997])
def test_reads_files_between_knots_and_of_other_sizes(codec, weights_path, quality):
    data = codec.encode(picture(150, 70), quality, tile_px=64)
    assert all(found == written for found, written in pure_decoder.decode(weights_path, data))


def test_reads_symbols_beside_plain_sections(codec, weights_path):
    data = codec.encode(page(64, 480), 0.4, tile_px=64)  # beyond the margin of what is learned, nothing is
    header = unpack(data)
    assert header.kind == "mixed"
    found = pure_decoder.decode(weights_path, data)
    assert len(found) == sum(tile.length > 0 for tile in header.tiles) < len(header.tiles)
    assert all(decoded == written for decoded, written in found)


def test_reads_every_row_and_escapes(codec):
    """Golden files hold few of either."""
    rng = np.random.default_rng(0)
    tables: SymbolTables = codec.weights.tables
    rows = rng.integers(0, len(tables.radii), 5000).astype(np.int32)
    symbols = (
        np.rint(rng.standard_t(1.2, len(rows)) * tables.radii[rows] / 3).clip(-(1 << 14), 1 << 14).astype(np.int32)
    )
    symbols[rows <= 1] = 0
    assert (np.abs(symbols) > tables.radii[rows]).sum() > 200
    tensors = {
        "tables.radii": tables.radii.astype(np.int64),
        "tables.frequencies": np.concatenate(tables.rows).astype(np.int64),
    }
    stream = encode_symbols([(symbols[:999], rows[:999]), (symbols[999:], rows[999:])], tables)
    reader = pure_decoder.Symbols(stream, tensors)
    read = np.concatenate([reader.stage(rows[:999]), reader.stage(rows[999:])])
    reader.finish()
    np.testing.assert_array_equal(read, symbols)
