"""Files named by URL: a server of HTTP on this machine, fsspec's memory, and what goes wrong on the way."""

from __future__ import annotations

import io
import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import fsspec
import pytest
from conftest import picture
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from test_cli import assert_fails, run

import codec as package
from codec.errors import CodecError
from codec.format.bitstream import MAGIC
from codec.picture.url import Url, is_url, locate

PICTURE = picture(40, 70)


class Handler(BaseHTTPRequestHandler):
    """Keeps what is PUT, and has a path for every refusal."""

    protocol_version = "HTTP/1.1"
    kept: dict[str, bytes]

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        if path.startswith("/forbidden"):
            self.answer(403)
        elif path.startswith("/slow"):
            time.sleep(1.5)
            self.answer(200)
        elif path in self.kept:
            self.answer(200, self.kept[path])
        else:
            self.answer(404)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/readonly"):
            self.answer(405)
        else:
            self.kept[self.path] = data
            self.answer(201)

    def answer(self, status: int, data: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Silent, also where its client has gone."""

    def handle_error(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, and nothing in fsspec's memory."""
    monkeypatch.chdir(tmp_path)
    MemoryFileSystem.store.clear()
    return tmp_path


@pytest.fixture
def server() -> Iterator[tuple[str, dict[str, bytes]]]:
    """The address of a server, and its files: one picture."""
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "PNG")
    kept = {"/my picture.png": buffer.getvalue()}
    server = Server(("127.0.0.1", 0), type("OfOneTest", (Handler,), {"kept": kept}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kept
    server.shutdown()
    server.server_close()
    thread.join()


# The names.


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("https://example.org/a/my%20picture.png?width=3#top", "my picture.png"),
        ("https://example.org/", "example.org"),
        ("s3://bucket/a/what?.png", "what?.png"),
        ("memory://a.png", "a.png"),
        ("simplecache::s3://bucket/a.yoto", "a.yoto"),
        ("zip://in/a.png::https://example.org/all.zip", "a.png"),
    ],
)
def test_names_of_urls(text, name):
    url = locate(text)
    assert (url.name, url.stem, url.suffix) == (name, Path(name).stem, Path(name).suffix)
    assert str(url) == text


def test_files_below_a_url():
    assert str(Url("s3://bucket/coded/") / Path("a/b.yoto")) == "s3://bucket/coded/a/b.yoto"
    assert str(Url("s3://bucket") / Path()) == "s3://bucket"


def test_what_is_no_url(folder):
    assert [is_url(text) for text in ("a.png", "C:/a.png", "./http:/x", "a b://c", "-", "")] == [False] * 6
    assert locate(f"file://{folder}/my%20picture.png") == folder / "my picture.png"
    assert locate("FILE:///a.png") == Path("/a.png")


# There and back.


def test_picture_of_a_server_there_and_back(server, folder, weights_path, codec):
    address, kept = server
    encoded = run("encode", f"{address}/my%20picture.png?v=1", "-q", "0.3", "--weights", weights_path)
    assert (encoded.exit_code, encoded.stderr) == (0, "")
    data = (folder / "my picture.yoto").read_bytes()  # in the current folder
    assert data == codec.encode(PICTURE, 0.3)
    assert encoded.stdout.startswith(f"my picture.yoto: {len(data)} bytes")

    put = run("encode", f"{address}/my%20picture.png", f"{address}/a.yoto", "-q", "0.3", "--weights", weights_path)
    assert (put.exit_code, put.stderr, kept["/a.yoto"]) == (0, "", data)
    assert put.stdout.startswith(f"{address}/a.yoto: {len(data)} bytes")

    assert json.loads(run("info", f"{address}/a.yoto", "--json").stdout)["bytes"] == len(data)
    decoded = run("decode", f"{address}/a.yoto", "--weights", weights_path)
    assert (decoded.exit_code, decoded.stderr) == (0, "")
    assert Image.open("a.png").tobytes() == codec.decode(data).tobytes()
    assert package.Codec(weights_path).decode(f"{address}/a.yoto").tobytes() == codec.decode(data).tobytes()

    sizes = [len(kept["/my picture.png"]), len(data)]
    compared = run("compare", f"{address}/my%20picture.png", f"{address}/a.yoto", "--json", "--weights", weights_path)
    assert json.loads(compared.stdout)["bytes"] == sizes
    seen = run("view", f"{address}/a.yoto", "--viewer", f"cp -t {folder}", "--weights", weights_path)
    assert seen.exit_code == 0, seen.output
    reported = run("report", f"{address}/my%20picture.png", "--weights", weights_path)
    assert reported.exit_code == 0, reported.output
    assert "<h2>my picture.png</h2>" in Path("report.html").read_text()


def test_many_go_to_a_folder_of_urls(folder, weights_path, codec):
    for place in ("photos/a.png", "photos/sub/b.png"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(PICTURE).save(place)
    there = run("encode", "photos", "-r", "-o", "memory://coded/", "-q", "0.3", "--weights", weights_path)
    assert (there.exit_code, there.stderr) == (0, "")
    expected = codec.encode(PICTURE, 0.3)
    stored = {name: file.getvalue() for name, file in MemoryFileSystem.store.items()}
    assert stored == {"/coded/a.yoto": expected, "/coded/sub/b.yoto": expected}
    skipped = run("encode", "photos", "-r", "-o", "memory://coded/", "--skip-existing", "--weights", weights_path)
    assert skipped.stdout.startswith("0 written, 2 skipped, 0 failed")
    urls = ["memory://coded/a.yoto", "memory://coded/sub/b.yoto"]
    back = run("decode", *urls, "-o", f"file://{folder}/back/", "--weights", weights_path)
    assert (back.exit_code, back.stderr) == (0, "")
    here = run("decode", *urls, "-o", ".", "--weights", weights_path)
    assert (here.exit_code, here.stderr) == (0, "")
    for place in ("a.png", "b.png", "back/a.png", "back/b.png"):
        assert Image.open(place).tobytes() == codec.decode(expected).tobytes()


def test_urls_to_pipes_and_from_them(weights_path, codec):
    buffer = io.BytesIO()
    Image.fromarray(PICTURE).save(buffer, "PNG")
    put = run("encode", "-", "-o", "memory://a.yoto", "-q", "0.3", "--weights", weights_path, stdin=buffer.getvalue())
    assert put.exit_code == 0, put.output
    got = run("decode", "memory://a.yoto", "-", "--weights", weights_path)
    with Image.open(io.BytesIO(got.stdout_bytes)) as image:
        assert image.tobytes() == codec.decode(codec.encode(PICTURE, 0.3)).tobytes()


def test_overwriting_is_as_for_files(weights_path):
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/a.yoto", b"mine")
    Image.fromarray(PICTURE).save("a.png")
    words = ["encode", "a.png", "memory://a.yoto", "--weights", weights_path]
    assert_fails(run(*words), "memory://a.yoto: exists; give --force to overwrite it")
    skipped = run(*words, "--skip-existing")
    assert (skipped.exit_code, skipped.stdout) == (0, "memory://a.yoto: exists, skipped\n")
    assert memory.cat_file("/a.yoto") == b"mine"
    forced = run(*words, "--force")
    assert (forced.exit_code, memory.cat_file("/a.yoto")[:4]) == (0, MAGIC)


def test_result_of_a_url_does_not_overwrite_a_picture_here(weights_path, codec, folder):
    fsspec.filesystem("memory").pipe_file("/a.yoto", codec.encode(PICTURE, 0.3))
    (folder / "a.png").write_bytes(b"mine")
    refused = run("decode", "memory://a.yoto", "--force", "--weights", weights_path)
    assert_fails(refused, "a.png: is a picture, maybe the original")
    assert (folder / "a.png").read_bytes() == b"mine"


# What goes wrong.


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("none.png", "none.png: No such file or directory"),
        ("forbidden.png", "forbidden.png cannot be read: 403, message='Forbidden'"),
        ("slow.png", "slow.png cannot be read: no answer in time"),
    ],
)
def test_what_a_server_says_is_one_line(server, monkeypatch, path, words):
    address, _ = server
    if path == "slow.png":
        import aiohttp

        options = {"client_kwargs": {"timeout": aiohttp.ClientTimeout(total=0.3)}, "skip_instance_cache": True}
        monkeypatch.setitem(fsspec.config.conf, "http", options)
    for command in ("encode", "info", "view"):
        assert_fails(run(command, f"{address}/{path}"), f"Error: {address}/{words}")


def test_nobody_answers():
    assert_fails(run("info", "http://127.0.0.1:9/a.yoto"), "http://127.0.0.1:9/a.yoto cannot be read: Cannot connect")


def test_server_that_takes_nothing(server, weights_path):
    address, _ = server
    Image.fromarray(PICTURE).save("a.png")
    refused = run("encode", "a.png", f"{address}/readonly.yoto", "--weights", weights_path)
    assert_fails(refused, f"{address}/readonly.yoto cannot be written: 405, ")


class ReadOnly(fsspec.AbstractFileSystem):
    """As many of fsspec's are: GitHub's, for one."""

    protocol = "readonly"

    def _open(self, path: str, mode: str = "rb", **_: object) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("url", "reason"),
    [("data://a.yoto", "Read only filesystem"), ("readonly://a.yoto", "its protocol offers no way")],
)
def test_protocol_that_cannot_write(weights_path, url, reason):
    fsspec.register_implementation("readonly", ReadOnly, clobber=True)
    Image.fromarray(PICTURE).save("a.png")
    assert_fails(run("encode", "a.png", url, "--weights", weights_path), f"{url} cannot be written: {reason}")


def test_what_a_url_holds_is_no_picture(server, weights_path):
    address, kept = server
    kept["/page.png"] = b"<!doctype html>"
    assert_fails(run("encode", f"{address}/page.png"), f"{address}/page.png is not an image that can be read")
    assert_fails(run("decode", f"{address}/page.png", "a.png"), "this is not a .yoto file")
    many = run("encode", f"{address}/page.png", f"{address}/my%20picture.png", "-o", "out/", "--weights", weights_path)
    assert many.exit_code == 1
    assert many.stderr == f"Error: {address}/page.png is not an image that can be read\n"
    assert many.stdout.startswith("1 written, 0 skipped, 1 failed")


def test_times_are_kept_for_files_alone(server):
    address, _ = server
    Image.fromarray(PICTURE).save("a.png")
    assert_fails(
        run("encode", f"{address}/my%20picture.png", "--keep-time"), "--keep-time is for files of this machine"
    )
    assert run("encode", "a.png", "memory://a.yoto", "--keep-time").exit_code == 2


@pytest.mark.parametrize("words", [["encode", "URL"], ["encode", "a.png", "URL", "-f"], ["info", "URL"]], ids=" ".join)
@pytest.mark.parametrize(
    ("missing", "url", "message"),
    [
        ("fsspec.core", "memory://a.yoto", "URLs need fsspec, pip install 'yoto-codec[remote]'\n"),
        ("aiohttp", "https://x.invalid/a.yoto", "\"aiohttp\" to be installed; pip install 'yoto-codec[remote]'\n"),
        ("s3fs", "s3://bucket/a.yoto", "Install s3fs to access S3\n"),
        (None, "nonsense://a.yoto", "Protocol not known: nonsense\n"),
    ],
    ids=str,
)
def test_missing_package_is_named_before_the_work(monkeypatch, words, missing, url, message):
    if missing:
        monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    for protocol in ("http", "https"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    Image.fromarray(PICTURE).save("a.png")
    # With weights that are none: the work would fail for another reason.
    weights = ["--weights", "none.safetensors"] if words[0] != "info" else []
    result = run(*(url if word == "URL" else word for word in words), *weights)
    assert_fails(result, f"Error: {url} cannot be opened: ")
    assert result.stderr.endswith(message)


def test_library_says_the_same(codec):
    with pytest.raises(CodecError, match=r"^nonsense://x cannot be opened: Protocol not known: nonsense$"):
        codec.decode("nonsense://x")


def test_files_below_a_folder_by_pattern():
    memory = fsspec.filesystem("memory")
    for name in ("/in/a.png", "/in/sub/b.png", "/in/sub/c.txt"):
        memory.pipe_file(name, b"x")
    assert Url("memory://in/").files("**/*.png") == ["a.png", "sub/b.png"]
    assert Url("memory://in").files("**/*") == ["a.png", "sub/b.png", "sub/c.txt"]
    assert Url("memory://none").files("**/*") == []
