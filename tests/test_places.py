"""Which files a command works on, and where the results go."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from codec.app.places import Plan, Task, UsageError, is_pattern, resolve
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


def plan(*inputs: Path | str, recursive: bool = False) -> Plan:
    return Plan([Path(name) for name in inputs], OUT, ".yoto", {".png", ".jpg"}, recursive)


def planned(*inputs: str, recursive: bool = False) -> list[tuple[str, str]]:
    tasks = list(plan(*inputs, recursive=recursive))
    assert [task.trouble for task in tasks] == [None] * len(tasks)
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
    assert list(plan(folder / "photos/*.png")) == [Task(folder / "photos/b.png", OUT / "b.yoto", OUT)]


def test_files_go_straight_to_the_folder():
    assert planned("photos/in/c.png", "photos/notes.txt") == [
        ("photos/in/c.png", "c.yoto"),
        ("photos/notes.txt", "notes.yoto"),
    ]


def test_input_named_twice_counts_once(folder):
    assert planned("photos/b.png", "./photos/b.png", "photos/*.png") == [("photos/b.png", "b.yoto")]
    assert plan(folder / "photos/b.png", "photos/b.png").survey() == 1


def test_file_whose_name_looks_like_a_pattern_is_a_file():
    Path("photos/[1].png").touch()
    assert not is_pattern(Path("photos/[1].png"))
    assert planned("photos/[1].png") == [("photos/[1].png", "[1].yoto")]


@pytest.mark.parametrize("inputs", [["photos"], ["photos/b.png", "photos/b.jpg"], ["photos/[b]*"]], ids=" ".join)
def test_two_inputs_of_one_stem_keep_their_suffixes(inputs):
    Path("photos/b.jpg").touch()
    found = dict(planned(*inputs))
    assert found.pop("photos/a.JPG", "a.yoto") == "a.yoto"
    assert found == {"photos/b.jpg": "b.jpg.yoto", "photos/b.png": "b.png.yoto"}


def test_kept_suffixes_do_not_clash_with_a_third_name():
    for name in ("b.jpg", "b.jpg.png"):
        Path("photos", name).touch()
    outputs = [output for _, output in planned("photos")]
    assert outputs == ["a.yoto", "b.jpg.yoto", "b.jpg.png.yoto", "b.png.yoto"]


def test_two_inputs_for_one_output_stop_only_the_second():
    Path("photos/other").mkdir()
    Path("photos/other/b.png").touch()
    first, second = plan("photos/b.png", "photos/other/b.png")
    assert first.trouble is None
    assert (
        second.trouble == "photos/other/b.png and photos/b.png would both be written to out/b.yoto; rename one of them"
    )


@pytest.mark.parametrize("given", ["photos/*.gif", "nothing*", "empty"])
def test_input_that_stands_for_no_file_is_refused(given):
    Path("empty").mkdir()
    with pytest.raises(CodecError, match="no file to work on"):
        plan("photos", given, recursive=True).survey()


def test_recursion_is_recommended_where_it_would_help():
    Path("outer/inner").mkdir(parents=True)
    with pytest.raises(CodecError, match="--recursive"):
        plan("outer").survey()


def test_what_is_left_out_is_counted_by_reason():
    os.symlink("..", "photos/in/up")
    os.symlink("in", "photos/elsewhere")
    os.symlink("itself", "photos/itself")
    os.mkfifo("photos/pipe.png")
    found = plan("photos", recursive=True)
    assert found.survey() == 4
    assert found.ignored == {
        ".txt": 1,
        "hidden": 2,
        "links to folders": 2,
        "links to nothing": 1,
        "no regular files": 1,
    }


@pytest.mark.parametrize("pattern", ["photos/**/*.png", "photos/*/*/*.png", "photos/*/*.png"])
def test_links_in_circles_are_not_repeated(pattern):
    before = planned(pattern)
    for name in ("one", "two"):  # with glob.glob, 2^40 paths
        os.symlink("..", f"photos/in/{name}")
        os.symlink(".", f"photos/{name}")
    os.mkfifo("photos/in/pipe.png")
    assert planned(pattern) == before


def test_plan_of_ten_thousand_files_takes_little_memory():
    Path("many").mkdir()
    for number in range(10_000):
        Path("many", f"{number}.png").touch()
    assert plan("many").survey() == 10_000  # after which Python knows the names, once for all
    tracemalloc.start()
    try:
        assert sum(1 for _ in plan("many")) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 5_000_000  # as a list, 9 MB
    finally:
        tracemalloc.stop()


def test_unreadable_folder_does_not_stop_the_rest(monkeypatch):
    scandir = os.scandir

    def refusing(path: Path) -> object:
        if Path(path).name == "in":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)  # the tests may run as root, who may read everything
    tasks = list(plan("photos", recursive=True))
    assert [task.trouble for task in tasks] == [None, None, "photos/in: Permission denied"]


@pytest.mark.parametrize(
    ("inputs", "output", "expected"),
    [
        (["a.png"], None, ("a.png", "a.yoto", None, True)),
        (["a.png", "b.yoto"], None, ("a.png", "b.yoto", None)),
        (["a.png"], "b.png", ("a.png", "b.png", None)),
        (["a.png"], "new/", ("a.png", "new/a.yoto", "new")),
        (["a.png"], "photos", ("a.png", "photos/a.yoto", "photos")),
        (["-"], None, ("-", "-", None)),
    ],
)
def test_one_input(inputs, output, expected):
    place = resolve(inputs, output, Plan((), None, ".yoto", {".png"}), lambda path: path.suffix == ".png")
    assert place == Task(*(Path(part) if isinstance(part, str) else part for part in expected))


def test_empty_name_is_no_folder():
    """As a path it would be this one, and a script whose variable is not set would code all that is in it."""
    for inputs, output in [([""], None), (["a.png", ""], "new/"), (["a.png"], "")]:
        with pytest.raises(UsageError, match="empty name"):
            resolve(inputs, output, Plan((), None, ".yoto", {".png"}), lambda path: False)
