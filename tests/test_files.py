"""Which files a command works on, and where the results go."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codec.app.files import Task, is_pattern, plan, write_output
from codec.errors import CodecError

TREE = ["b.png", "a.JPG", "notes.txt", ".hidden.png", "in/c.png", "in/deep/d.png", ".git/e.png"]
OUT = Path("out")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """The working directory, with a tree of files."""
    for name in TREE:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(*inputs: str, recursive: bool = False) -> list[tuple[str, str]]:
    tasks = plan([Path(name) for name in inputs], OUT, ".yoto", {".png", ".jpg"}, recursive=recursive)
    return [(str(task.source.relative_to(".")), str(task.output.relative_to(OUT))) for task in tasks]


def test_folder_stands_for_its_own_pictures():
    assert planned("photos") == [("photos/a.JPG", "a.yoto"), ("photos/b.png", "b.yoto")]


def test_recursion_keeps_the_tree():
    assert planned("photos", recursive=True) == [
        ("photos/a.JPG", "a.yoto"),
        ("photos/b.png", "b.yoto"),
        ("photos/in/c.png", "in/c.yoto"),
        ("photos/in/deep/d.png", "in/deep/d.yoto"),
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("photos/*.png", [("photos/b.png", "b.yoto")]),
        ("photos/i*/*.png", [("photos/in/c.png", "in/c.yoto")]),
        ("photos/in/**/*.png", [("photos/in/c.png", "c.yoto"), ("photos/in/deep/d.png", "deep/d.yoto")]),
        ("photos/n*.txt", [("photos/notes.txt", "notes.yoto")]),  # what a pattern names is meant
        ("*/[ab].*", [("photos/a.JPG", "photos/a.yoto"), ("photos/b.png", "photos/b.yoto")]),
    ],
)
def test_patterns_keep_the_tree_below_their_fixed_part(pattern, expected):
    assert planned(pattern) == expected


def test_absolute_pattern(folder):
    tasks = plan([folder / "photos/*.png"], OUT, ".yoto", set())
    assert tasks == [Task(folder / "photos/b.png", OUT / "b.yoto")]


def test_files_go_straight_to_the_folder():
    assert planned("photos/in/c.png", "photos/notes.txt") == [
        ("photos/in/c.png", "c.yoto"),
        ("photos/notes.txt", "notes.yoto"),
    ]


def test_input_named_twice_counts_once(folder):
    assert planned("photos/b.png", "./photos/b.png", "photos/*.png") == [("photos/b.png", "b.yoto")]
    assert len(plan([folder / "photos/b.png", Path("photos/b.png")], OUT, ".yoto", set())) == 1


def test_file_whose_name_looks_like_a_pattern_is_a_file():
    Path("photos/[1].png").touch()
    assert not is_pattern(Path("photos/[1].png"))
    assert planned("photos/[1].png") == [("photos/[1].png", "[1].yoto")]


@pytest.mark.parametrize(
    "inputs",
    [["photos"], ["photos/b.png", "photos/b.jpg"], ["photos/b.png", "photos/other/b.png"], ["photos/b.*"]],
    ids=" ".join,
)
def test_two_inputs_for_one_output_are_refused(inputs):
    Path("photos/other").mkdir()
    for name in ("b.jpg", "other/b.png"):
        Path("photos", name).touch()
    with pytest.raises(CodecError, match=r"b\.\w+ and .*b\.\w+ would both be written to out/b\.yoto"):
        planned(*inputs)


@pytest.mark.parametrize("given", ["photos/*.gif", "nothing*", "empty"])
def test_input_that_stands_for_no_file_is_refused(given):
    Path("empty").mkdir()
    with pytest.raises(CodecError, match="no file to work on"):
        planned("photos", given, recursive=True)


def test_recursion_is_recommended_where_it_would_help():
    Path("outer/inner").mkdir(parents=True)
    with pytest.raises(CodecError, match="--recursive"):
        planned("outer")


def test_links_to_folders_do_not_lead_in_circles():
    os.symlink("..", "photos/in/up")
    assert len(planned("photos", recursive=True)) == 4


def test_write_that_fails_half_way_leaves_the_old_file_and_no_other(tmp_path):
    (tmp_path / "new").mkdir()
    path = tmp_path / "new" / "x.yoto"
    path.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_output(path, "text, which cannot be written")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def test_files_written_in_threads_have_the_permissions_of_new_ones(tmp_path):
    umask = os.umask(0o027)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: write_output(tmp_path / f"{number}.yoto", b"x"), range(200)))
        assert {(tmp_path / f"{number}.yoto").stat().st_mode & 0o777 for number in range(200)} == {0o640}
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(umask)
