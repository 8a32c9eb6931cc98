"""The demo server: what it answers, what it refuses, what it keeps."""

from __future__ import annotations

import asyncio
import io
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from conftest import picture, reseal
from fastapi import HTTPException, Request
from fastapi.testclient import TestClient
from PIL import EpsImagePlugin, Image, ImageCms
from starlette.types import ASGIApp
from test_cli import assert_fails, run

from codec.api import Codec
from codec.demo import peers, server, studio
from codec.demo.connection import Limits
from codec.demo.server import Worker, create_app, is_own_host
from codec.demo.studio import Shelf, Studio
from codec.format.bitstream import read_metadata, unpack
from codec.metrics import ms_ssim, psnr_db

MAX_PIXELS = 20_000
HOST = "127.0.0.1:8000"
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def client(codec: Codec) -> Iterator[TestClient]:
    with TestClient(create_app(codec, MAX_PIXELS), base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        yield client


def file_of(image: np.ndarray | Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, form, **options)
    return buffer.getvalue()


def upload(client: TestClient, data: bytes) -> dict:
    response = client.post("/pictures", content=data)
    assert response.status_code == 200, response.text
    return response.json()


def get(client: TestClient, key: str, what: str, **query: object) -> TestClient:
    return client.get(f"/pictures/{key}/{what}", params=query)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def assert_refused(response, status: int, *words: str) -> None:
    """One line that says why, and nothing else."""
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    message = response.json()["error"]
    assert message
    assert "\n" not in message
    assert "Traceback" not in message
    assert all(word in message for word in words), message


# What it answers.


def test_page_and_its_parts_are_served(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for part, kind in (("demo.js", "javascript"), ("demo.css", "css"), ("favicon.svg", "svg")):
        assert f'"{part}"' in page.text
        assert kind in client.get(f"/{part}").headers["content-type"]


def test_page_asks_nothing_of_other_sites(client):
    for part in ("", "demo.js", "demo.css"):
        assert "//" not in client.get(f"/{part}").text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


def test_figures_file_and_picture_belong_together(client, codec):
    original = picture(60, 90)
    facts = upload(client, file_of(original))
    assert (facts["width"], facts["height"], facts["alpha"], facts["yoto"]) == (90, 60, False, None)
    figures = get(client, facts["id"], "encode", quality=0.4).json()
    data = get(client, facts["id"], "file", quality=0.4).content
    shown = get(client, facts["id"], "decoded.png", quality=0.4).content
    assert data == codec.encode(original, 0.4)
    np.testing.assert_array_equal(pixels(shown), np.asarray(codec.decode(data)))
    assert figures["bytes"] == len(data)
    assert figures["colour_bytes"] == len(data)
    assert figures["bpp"] == pytest.approx(8 * len(data) / (60 * 90))
    assert figures["psnr_db"] == pytest.approx(psnr_db(original, pixels(shown)))
    np.testing.assert_array_equal(pixels(get(client, facts["id"], "original.png").content), original)


def test_file_is_offered_for_download(client):
    key = upload(client, file_of(picture(20, 20)))["id"]
    response = get(client, key, "file", quality=0.1)
    assert response.headers["content-type"] == "image/x-yoto"
    assert response.headers["content-disposition"] == "attachment"


def test_sample_needs_no_upload(codec):
    app = create_app(codec, 512 * 512)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        facts = client.post("/sample").json()
        assert (facts["width"], facts["height"]) == (512, 512)
        assert get(client, facts["id"], "encode", quality=0).json()["bytes"] > 0


@pytest.mark.parametrize("form", ["jpeg", "webp", "avif", "jpegxl", "heic"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_peer_is_the_nearest_in_size_and_ours_is_made_equal(client, form, mode):
    original = Image.fromarray(picture(128, 128)).convert(mode)
    key = upload(client, file_of(original))["id"]
    ours = get(client, key, "encode", quality=0.6).json()
    theirs = get(client, key, "encode", quality=0.6, form=form).json()
    equal = get(client, key, "encode", quality=0.6, against=form).json()
    data = get(client, key, "file", quality=0.6, form=form).content
    assert len(data) == theirs["bytes"]
    colour = np.atleast_3d(np.asarray(original))
    peer = peers.peer_for(form, colour)
    assert peer.form == Image.open(io.BytesIO(data)).format
    assert theirs["encoder"] == peer.title
    others = [peer.encode(colour, round(theirs["quality"]) + step) for step in (-1, 1)]
    distance = abs(np.log(len(data) / ours["bytes"]))
    assert all(distance <= abs(np.log(len(other) / ours["bytes"])) + 0.03 for other in others)
    assert equal["bytes"] == pytest.approx(theirs["bytes"], rel=0.01)
    assert len(get(client, key, "file", quality=0.6, against=form).content) == equal["bytes"]
    shown = pixels(get(client, key, "decoded.png", quality=0.6, form=form).content)
    assert theirs["psnr_db"] == pytest.approx(psnr_db(np.asarray(original), shown))


def test_every_peer_is_at_hand(client):
    assert client.get("/about").json()["peers"] == ["jpeg", "webp", "avif", "jpegxl", "heic"]


def test_peers_try_less_on_large_pictures():
    large, small = np.zeros((1000, 1001, 1), np.uint8), np.zeros((1000, 1000, 1), np.uint8)
    assert [peers.peer_for("avif", colour).options["speed"] for colour in (small, large)] == [4, 6]
    assert [peers.peer_for("jpegxl", colour).title[-9:] for colour in (small, large)] == ["effort 9)", "effort 7)"]


def test_alpha_is_kept_and_not_counted(client):
    rgba = np.dstack([picture(64, 64), np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)])
    facts = upload(client, file_of(rgba))
    assert facts["alpha"]
    data = get(client, facts["id"], "file", quality=0.9).content
    ours = get(client, facts["id"], "encode", quality=0.9).json()
    assert ours["colour_bytes"] == len(data) - unpack(data).alpha_section.length
    theirs = get(client, facts["id"], "encode", quality=0.9, form="webp").json()
    equal = get(client, facts["id"], "encode", quality=0.9, against="webp").json()
    assert theirs["bytes"] == pytest.approx(ours["colour_bytes"], rel=0.1)
    assert equal["bytes"] == pytest.approx(theirs["bytes"], rel=0.02)
    for setting in ({}, {"form": "webp"}, {"against": "webp"}):
        shown = pixels(get(client, facts["id"], "decoded.png", quality=0.9, **setting).content)
        np.testing.assert_array_equal(shown[:, :, 3], rgba[:, :, 3])


def test_a_part_is_coded_alone(client, codec):
    original = picture(100, 120)
    key = upload(client, file_of(original))["id"]
    part = original[20:70, 30:110]
    shown = pixels(get(client, key, "decoded.png", quality=0.5, effort=0, region="30,20,80,50").content)
    np.testing.assert_array_equal(shown, np.asarray(codec.decode(codec.encode(part, 0.5, effort=0))))
    for region in ("30,20,91,50", "0,0,0,5", "120,0,1,1"):
        assert_refused(get(client, key, "encode", quality=0.5, region=region), 400, "does not lie within")
    assert_refused(get(client, key, "encode", quality=0.5, region="1,2,3"), 400, "region")


def test_similarity_is_measured_apart(codec):
    app = create_app(codec, 200_000)
    original = picture(200, 170)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        key = upload(client, file_of(original))["id"]
        poor, good = (get(client, key, "metrics", quality=quality).json() for quality in (0, 1))
        assert poor["ms_ssim"] < good["ms_ssim"] < 1
        assert poor["ssimulacra2"] < good["ssimulacra2"] < 100
        decoded = pixels(get(client, key, "decoded.png", quality=1).content)
        assert good["ms_ssim"] == ms_ssim(original, decoded)
        small = upload(client, file_of(picture(9, 7)))["id"]
        assert get(client, small, "metrics", quality=1).json() == {"ms_ssim": None, "ssimulacra2": None}


def test_colour_profile_reaches_file_and_page(client):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    key = upload(client, file_of(picture(30, 30), icc_profile=profile))["id"]
    data = get(client, key, "file", quality=0.5).content
    assert read_metadata(unpack(data), data).icc_profile == profile
    for what in ("original.png", "decoded.png"):
        answer = get(client, key, what, quality=0.5).content
        assert Image.open(io.BytesIO(answer)).info["icc_profile"] == profile


def test_lossless_has_no_psnr(client, codec, monkeypatch):
    monkeypatch.setattr(studio, "psnr_db", lambda *_: float("inf"))
    key = upload(client, file_of(picture(8, 8)))["id"]
    assert get(client, key, "encode", quality=0.5).json()["psnr_db"] is None


def test_yoto_file_is_viewed(client, codec):
    data = codec.encode(picture(40, 50), 0.25)
    facts = upload(client, data)
    assert facts["yoto"] == {"quality": 0.25, "bpp": pytest.approx(8 * len(data) / 2000)}
    assert facts["bytes"] == len(data)
    shown = pixels(get(client, facts["id"], "original.png").content)
    np.testing.assert_array_equal(shown, np.asarray(codec.decode(data)))


# What it refuses.


def test_refuses_large_upload_by_its_length(client):
    limit = client.get("/about").json()["max_bytes"]
    assert_refused(client.post("/pictures", content=bytes(limit + 1)), 413, "larger than the limit", "1.1 MB")


def test_refuses_large_upload_of_unknown_length(client):
    limit = client.get("/about").json()["max_bytes"]
    chunks = iter([bytes(limit), b"x"])
    assert_refused(client.post("/pictures", content=chunks), 413, "larger than the limit")


def test_refuses_too_many_pixels_before_decoding_them(client, codec):
    assert_refused(client.post("/pictures", content=file_of(picture(151, 140))), 413, "140×151", "20000")
    assert_refused(client.post("/pictures", content=codec.encode(picture(151, 140))), 413, "140×151")
    thin = file_of(picture(1, 400))  # 400 px that take the time of 64·448
    assert_refused(client.post("/pictures", content=thin), 413, "400×1 px, which are coded as 28672")
    bomb = file_of(Image.new("1", (20_000, 20_000)))
    assert_refused(client.post("/pictures", content=bomb), 413, "too large")


def test_refuses_bad_pictures(subtests, client):
    for cut in [0, 10, 200, 3000]:
        with subtests.test(cut=cut):
            assert_refused(client.post("/pictures", content=file_of(picture(50, 50))[:cut]), 400, "image")


def test_refuses_bad_files(client, codec):
    data = codec.encode(picture(20, 20))
    assert_refused(client.post("/pictures", content=data[:-1]), 400, "cut short")
    assert_refused(client.post("/pictures", content=data + b"x"), 400, "behind its end")
    assert_refused(client.post("/pictures", content=data[:-1] + bytes([data[-1] ^ 1])), 400, "checksum")
    other = bytearray(data)
    other[16] ^= 1
    assert_refused(client.post("/pictures", content=reseal(bytes(other))), 400, "needs the weights")


def test_opens_formats_of_a_list_alone(client, monkeypatch):
    """Never EPS, for which Pillow starts Ghostscript."""
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))
    assert_refused(client.post("/pictures", content=file_of(picture(20, 20), "EPS")), 400, "not an image")


def test_refuses_16_bit_pictures(client):
    assert_refused(client.post("/pictures", content=file_of(Image.new("I;16", (9, 9)))), 400, "I;16")


def test_refuses_wrong_quality(subtests, client):
    for query in [{}, {"quality": 1.1}, {"quality": "nan"}, {"quality": "x"}]:
        with subtests.test(query=query):
            assert_refused(client.get("/pictures/sample/encode", params=query), 400, "quality")


def test_refuses_unknown_form_picture_and_path(client):
    assert_refused(client.get("/pictures/sample/encode?quality=0&form=gif"), 400, "form")
    assert_refused(client.get("/pictures/none/encode?quality=0"), 404, "open it again")
    assert_refused(client.get("/missing"), 404)
    assert_refused(client.get("/..%2f..%2fapi.py"), 404)
    assert_refused(client.put("/pictures"), 405)


def test_peer_that_cannot_hold_the_picture_is_one_line(codec):
    with TestClient(create_app(codec, 64 * 20_000), base_url=f"http://{HOST}") as client:
        key = upload(client, file_of(np.zeros((16_384, 1, 3), np.uint8)))["id"]
        assert_refused(get(client, key, "encode", quality=0, effort=0, form="webp"), 400, "cannot hold", "1×16384 px")


@pytest.mark.parametrize(("error", "status", "word"), [(MemoryError, 413, "memory"), (RuntimeError, 500, "log")])
def test_failure_is_one_line(client, monkeypatch, error, status, word):
    def fail(*_: object) -> None:
        raise error("secret")

    monkeypatch.setattr(server.Studio, "picture", fail)
    assert_refused(get(client, "sample", "original.png"), status, word)
    assert "secret" not in get(client, "sample", "original.png").text


def test_refuses_what_other_sites_send(subtests, client):
    for headers in [
        {"host": "evil.example:8000"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ]:
        for method, path in [("GET", "/about"), ("POST", "/sample")]:
            with subtests.test(headers=headers, method=method, path=path):
                assert_refused(client.request(method, path, headers=headers), 403)


def test_malformed_headers_are_the_clients_fault(subtests, client):
    for headers in [{"host": "[bad"}, {"host": "127.0.0.1]:8000"}, {"origin": "http://[bad"}, {"origin": "http://a]"}]:
        with subtests.test(headers=headers):
            assert_refused(client.get("/about", headers=headers), 400, "malformed")


def test_answers_its_own_page(subtests, client):
    for headers in [{"origin": f"http://{HOST}"}, {"host": "localhost:1"}, {"host": "[::1]:1"}]:
        with subtests.test(headers=headers):
            assert client.get("/about", headers={"sec-fetch-site": "same-origin"} | headers).status_code == 200


def test_links_to_the_page_work(client):
    assert client.get("/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


def test_name_of_the_host_is_its_own():
    assert is_own_host("box.lan:8000", frozenset({"box.lan"}))
    assert not is_own_host("box.lan:8000", frozenset({"localhost"}))


def test_every_answer_is_guarded(subtests, client):
    for path in ["/", "/demo.js", "/about", "/missing"]:
        with subtests.test(path=path):
            headers = client.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            # But 'wasm-unsafe-eval': no script can be made of text.
            assert "'unsafe" not in headers["content-security-policy"]
            assert "access-control-allow-origin" not in headers


# What it keeps, and how it works.


def test_picture_is_coded_once(client, codec, monkeypatch):
    key = upload(client, file_of(picture(10, 10, seed=5)))["id"]
    calls = []
    encode = Codec.encode_planes
    monkeypatch.setattr(Codec, "encode_planes", lambda *a, **options: calls.append(1) or encode(*a, **options))
    for what in ("encode", "decoded.png", "file", "encode"):
        assert get(client, key, what, quality=0.123).status_code == 200
    assert len(calls) == 1


def test_pictures_beyond_the_budget_are_forgotten(codec, monkeypatch):
    uploads = [file_of(picture(10, 10, seed)) for seed in range(3)]
    monkeypatch.setattr(studio, "PICTURES_BYTES", 2 * 3 * 100 + len(uploads[1]) + len(uploads[2]))
    room = Studio(codec, MAX_PIXELS)
    keys = [room.add(io.BytesIO(data))["id"] for data in uploads]
    with pytest.raises(studio.ForgottenError):
        room.picture(keys[0])
    assert room.picture(keys[1]).planes.colour.shape == room.picture(keys[2]).planes.colour.shape == (10, 10, 3)


def test_shelf_drops_the_longest_unused_and_keeps_the_newest():
    shelf: Shelf[str] = Shelf(10)
    shelf.put("a", "A", 4)
    shelf.put("b", "B", 4)
    assert shelf.get("a") == "A"
    shelf.put("c", "C", 4)
    assert [shelf.get(key) for key in "abc"] == ["A", None, "C"]
    shelf.put("c", "C2", 6)  # replaced, not counted twice
    assert [shelf.get(key) for key in "ac"] == ["A", "C2"]
    shelf.put("d", "D", 99)
    assert [shelf.get(key) for key in "acd"] == [None, None, "D"]


def request(disconnected: bool = False) -> Request:
    async def receive() -> dict[str, str]:
        if not disconnected:
            await asyncio.sleep(3600)
        return {"type": "http.disconnect"}

    return Request({"type": "http", "headers": []}, receive)


def test_jobs_run_one_at_a_time():
    running, most = 0, 0
    lock = threading.Lock()

    def job(number: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1
        return number

    async def main() -> list[int]:
        worker = Worker()
        return await asyncio.gather(*(worker.run(request(), job, number) for number in range(5)))

    assert asyncio.run(main()) == [0, 1, 2, 3, 4]
    assert most == 1


def test_withdrawn_request_is_not_begun():
    async def main() -> None:
        await Worker().run(request(disconnected=True), pytest.fail, "it was begun")

    with pytest.raises(HTTPException, match="withdrawn"):
        asyncio.run(main())


def test_withdrawn_request_is_ended_on_the_way():
    begun = asyncio.Event()
    ended = threading.Event()

    async def receive() -> dict[str, str]:
        await begun.wait()
        return {"type": "http.disconnect"}

    def job(loop: asyncio.AbstractEventLoop, check: Callable[[], None]) -> None:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                check()
        finally:
            ended.set()

    async def main() -> None:
        waiting = Request({"type": "http", "headers": []}, receive)
        with pytest.raises(server.WithdrawnError):
            await Worker().run_while_wanted(waiting, job, asyncio.get_running_loop())

    asyncio.run(main())
    assert ended.is_set()


def test_too_many_requests_are_turned_away():
    release = threading.Event()

    async def main() -> list[object]:
        worker = Worker()
        jobs = [asyncio.create_task(worker.run(request(), release.wait, 30)) for _ in range(server.MAX_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(HTTPException, match="busy"):
            await worker.run(request(), release.wait, 30)
        release.set()
        return await asyncio.gather(*jobs)

    assert asyncio.run(main()) == [True] * server.MAX_WAITING


def test_parallel_requests_are_all_answered(client):
    key = upload(client, file_of(picture(40, 40)))["id"]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: get(client, key, "encode", quality=n / 8).status_code, range(8)))
    assert answers == [200] * 8


# Clients that keep it waiting, on real sockets.


@contextmanager
def serving(app: ASGIApp, **limits: float) -> Iterator[tuple[tuple[str, int], uvicorn.Server]]:
    """Address and server, while it runs in a thread."""
    with server.listen("127.0.0.1", 0) as listener:
        running = server.make_server(app, Limits(**limits))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname(), running
        finally:
            running.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def connect() -> Iterator[Callable[..., socket.socket]]:
    """Open connections that are closed after the test."""
    with ExitStack() as stack:

        def connect(address: tuple[str, int], data: bytes = b"") -> socket.socket:
            connection = stack.enter_context(socket.create_connection(address, timeout=20))
            connection.sendall(data)
            return connection

        yield connect


def about(address: tuple[str, int]) -> int:
    """Status of a request that is as it should be."""
    with closing(HTTPConnection(*address, timeout=20)) as connection:
        connection.request("GET", "/about", headers={"Connection": "close"})
        with connection.getresponse() as answer:
            answer.read()
            return answer.status


def until(claim: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 20
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def upload_head(address: tuple[str, int], length: int) -> bytes:
    return f"POST /pictures HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Length: {length}\r\n\r\n".encode()


def status(connection: socket.socket) -> int:
    return int(connection.recv(4096).split()[1])


def test_silent_connections_give_way_to_one_that_speaks(codec, connect):
    with serving(create_app(codec, MAX_PIXELS), connections=4) as (address, _):
        head = upload_head(address, 1000)
        held = [connect(address, data) for data in (b"", b"GET", head, head + b"abc") * 4]
        assert about(address) == 200
        until(lambda: len(select.select(held, [], [], 0)[0]) >= 12)


def test_connections_that_wait_for_a_job_do_not_give_way(codec, monkeypatch, connect):
    begun, release = threading.Event(), threading.Event()
    monkeypatch.setattr(Studio, "add_sample", lambda _: begun.set() or {"held": release.wait(30)})
    with serving(create_app(codec, MAX_PIXELS), connections=2) as (address, _):
        request = f"POST /sample HTTP/1.1\r\nHost: {address[0]}\r\nContent-Length: 0\r\n\r\n".encode()
        busy = [connect(address, request) for _ in range(2)]
        assert begun.wait(20)
        assert [status(connect(address, request)) for _ in range(3)] == [503] * 3
        release.set()
        assert [status(connection) for connection in busy] == [200] * 2


@pytest.mark.parametrize("limit", ["head", "body", "reply"])
def test_every_wait_ends(codec, monkeypatch, limit, connect):
    monkeypatch.setattr(Studio, "original_png", lambda *_: bytes(50 << 20))
    with serving(create_app(codec, MAX_PIXELS), **{limit: 0.2}) as (address, running):
        requests = {
            "head": b"GET / HTTP/1.1\r\nHost:",
            "body": upload_head(address, 1000) + b"abc",
            "reply": f"GET /pictures/x/original.png HTTP/1.1\r\nHost: {address[0]}\r\n\r\n".encode(),
        }
        connection = connect(address, requests[limit])
        until(lambda: running.server_state.connections)
        until(lambda: not running.server_state.connections)
        connection.settimeout(20)
        with suppress(ConnectionResetError):
            while connection.recv(1 << 20):
                pass
        assert about(address) == 200


def test_slow_but_whole_requests_are_answered(codec, connect):
    with serving(create_app(codec, MAX_PIXELS), head=20, body=0.2) as (address, _):
        connection = connect(address, b"GET /about HTTP/1.1\r\n")
        connection.sendall(f"Host: {address[0]}\r\n\r\n".encode())
        assert status(connection) == 200
        kept = HTTPConnection(*address, timeout=20)
        kept.connect()
        kept.auto_open = 0  # one connection, whose client may think between his requests
        for pause in (0, 0.5):
            time.sleep(pause)
            kept.request("GET", "/about")
            assert kept.getresponse().read()
        kept.close()


def test_uploads_under_way_share_a_budget(codec, connect):
    one = 1 << 20
    with serving(create_app(codec, MAX_PIXELS, uploads_bytes=0)) as (address, _):
        held = [connect(address, upload_head(address, one) + bytes(one - 1)) for _ in range(4)]
        refused: list[socket.socket] = []
        until(lambda: refused.extend(set(select.select(held, [], [], 0)[0]) - set(refused)) or len(refused) == 3)
        assert [status(connection) for connection in refused] == [503] * 3
        for connection in held:
            connection.close()
        again = connect(address, upload_head(address, one) + bytes(one))  # what they held is free again
        assert status(again) == 400


# The command.


def test_second_interrupt_ends_a_running_job(connect):
    program = """
import time
from codec.api import default_codec
from codec.demo import server
server.Studio.add_sample = lambda _: print("begun", flush=True) or time.sleep(300)
with server.listen("127.0.0.1", 0) as listener:
    print(listener.getsockname()[1], flush=True)
    server.serve(default_codec(), listener, "127.0.0.1", 10_000)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        address = ("127.0.0.1", int(process.stdout.readline()))
        connect(address, b"POST /sample HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)  # the first one waits for the job
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT


def test_command_says_where_it_serves_and_ends_in_peace():
    server = subprocess.Popen(
        [sys.executable, "-m", "cli", "demo-server", "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = server.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert b"yoto-codec" in answer.read()
    finally:
        server.send_signal(signal.SIGINT)
        rest, log = server.communicate(timeout=30)
    assert (server.returncode, rest, log) == (0, "", "")


def test_command_needs_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "codec.demo.server")
    monkeypatch.delattr("codec.demo.server")
    assert_fails(run("demo-server"), "pip install 'yoto-codec[demo]'")


def test_command_refuses_a_port_in_use_and_unusable_weights(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert_fails(run("demo-server", "--port", taken.getsockname()[1]), "in use")
    assert_fails(run("demo-server", "--port", 0, "--weights", tmp_path / "missing"), "missing")
