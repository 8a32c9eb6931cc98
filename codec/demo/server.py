"""The demo page's server: a picture is uploaded once, then coded as often as the page asks. Needs the extra `demo`.

    GET  /                       the page, codec/demo/static/
    GET  /about                  limits, formats to compare with, model
    POST /pictures               body: a picture or a .yoto file → its id and what it is
    POST /sample                 the same, for a picture that scikit-image brings along
    GET  /pictures/ID/original.png
    GET  /pictures/ID/encode     ?SETTING → bytes, bpp, PSNR as JSON
    GET  /pictures/ID/metrics    ?SETTING → MS-SSIM and SSIMULACRA2, which take longer
    GET  /pictures/ID/decoded.png  ?SETTING
    GET  /pictures/ID/file       ?SETTING → the .yoto file itself
    GET  /web/…                  the decoder that runs in the browser, if it has been built

SETTING is quality=Q, and effort, form, against and region: see `Setting`. Every error is {"error": one line}. Pictures
and files are kept in memory, within a budget, and forgotten when they are the oldest.
Uploads under way are held within another; see connection.py for how long clients may take.
"""

from __future__ import annotations

import asyncio
import io
import math
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from codec.api import Codec
from codec.demo.connection import Connection, Limits
from codec.demo.peers import writable_peers
from codec.demo.similarity import similarity
from codec.demo.studio import Coded, ForgottenError, Setting, Studio
from codec.errors import CodecError, TooLargeError
from codec.peers import PEERS

PAGE = Path(__file__).parent / "static"
BYTES_PER_PX = 4  # of an upload, at most: an uncompressed picture with alpha
HEAD_BYTES = 1 << 20  # and its metadata
UPLOADS_BYTES = 128 << 20  # of all that are under way or wait to be opened; one alone may have more
MAX_WAITING = 16  # requests
WATCH_S = 0.05  # between looks whether a request has been withdrawn
DECODER = Path(__file__).parent.parent.parent / "web"  # in a clone of the repository, after `make web`
DECODER_PARTS = ("decoder", "vendor", "models")
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self';"
    " img-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",  # with which the decoder in the browser may use threads
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Wanted = Annotated[Setting, Query()]
T = TypeVar("T")


class WithdrawnError(Exception):
    """Nobody waits for this any more."""


class Worker:
    """Runs one job at a time, in a thread. What nobody waits for any more is not begun."""

    def __init__(self) -> None:
        self._gate = asyncio.Lock()
        self._waiting = 0

    async def run(self, request: Request, job: Callable[..., T], *arguments: object) -> T:
        """Run a job for a request; 503 if too many wait already."""
        if self._waiting >= MAX_WAITING:
            raise HTTPException(503, "the server is busy; try again in a moment")
        self._waiting += 1
        try:
            async with self._gate:
                if await request.is_disconnected():
                    raise HTTPException(499, "the request was withdrawn")
                return await run_in_threadpool(job, *arguments)
        finally:
            self._waiting -= 1

    async def run_while_wanted(self, request: Request, job: Callable[..., T], *arguments: object) -> T:
        """The same for a job whose last argument is to be called on the way, and ends it when nobody waits any more."""
        withdrawn = threading.Event()

        def check() -> None:
            if withdrawn.is_set():
                raise WithdrawnError

        async def watch() -> None:
            while not await request.is_disconnected():
                await asyncio.sleep(WATCH_S)
            withdrawn.set()

        watching = asyncio.create_task(watch())
        try:
            return await self.run(request, job, *arguments, check)
        finally:
            watching.cancel()


class Guard:
    """Answers its own page only, and keeps it from loading or being embedded anywhere else.

    A page of another site can make a browser send requests here, even under a name of that site that is bound to this
    machine (DNS rebinding). Such a request shows in its headers Host, Origin and Sec-Fetch-Site.
    """

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            try:
                refusal = self._refusal(Headers(scope=scope), scope["path"])
                app = JSONResponse({"error": refusal}, 403) if refusal else self.app
            except ValueError:
                app = JSONResponse({"error": "the request has a malformed header Host or Origin"}, 400)
            await app(scope, receive, send_guarded)

    def _refusal(self, headers: Headers, path: str) -> str | None:
        """Why a request is refused, if it is; ValueError if a header is malformed."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not is_own_host(host, self.names):
            return "this server does not answer to that host name"
        if origin is not None and urlsplit(origin).netloc != host:
            return "requests from other sites are refused"
        # A link to the page may stand anywhere.
        if path != "/" and headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "requests from other sites are refused"
        return None


def is_own_host(host: str, names: frozenset[str]) -> bool:
    """Whether a Host header is an address, which no site can bind to another machine, or one of these names.

    Raises:
        ValueError: the header is malformed.
    """
    name = urlsplit(f"//{host}").hostname or ""
    if name in names:
        return True
    with suppress(ValueError):
        ip_address(name)
        return True
    return False


class Uploads:
    """The bodies of requests, within a limit each and a budget together, from their first byte to their last use."""

    def __init__(self, limit_bytes: int, budget_bytes: int) -> None:
        self.limit_bytes, self._budget_bytes = limit_bytes, budget_bytes
        self._held_bytes = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[io.BytesIO]:
        """The body of a request; 413 as soon as it is known to be too large, 503 when others leave it no room."""
        if self._length(request) > self.limit_bytes:
            raise self._too_large()
        body = io.BytesIO()
        try:
            async for chunk in request.stream():
                body.write(chunk)
                self._held_bytes += len(chunk)
                if body.tell() > self.limit_bytes:
                    raise self._too_large()
                if self._held_bytes > self._budget_bytes:
                    raise HTTPException(503, "too many uploads at once; try again in a moment")
            yield body
        finally:
            self._held_bytes -= body.tell()

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the file is larger than the limit of {self.limit_bytes / 1e6:.1f} MB")

    def _length(self, request: Request) -> int:
        try:
            return int(request.headers.get("content-length", 0))
        except ValueError:
            raise HTTPException(400, "the request has a malformed header Content-Length") from None


def create_app(
    codec: Codec,
    max_pixels: int,
    names: frozenset[str] = frozenset({"localhost"}),
    uploads_bytes: int = UPLOADS_BYTES,
    decoder: Path = DECODER,
) -> ASGIApp:
    """The server's application.

    Args:
        codec: what codes.
        max_pixels: limit of an upload; that of its bytes follows from it.
        names: host names, besides addresses, under which browsers reach it.
        uploads_bytes: limit of all uploads at a time, but room for one of the largest is always given.
        decoder: folder of the decoder for browsers; where it or its model is missing, the page shows the server's PNG.
    """
    studio, worker, judge = Studio(codec, max_pixels), Worker(), Worker()
    limit_bytes = BYTES_PER_PX * max_pixels + HEAD_BYTES
    uploads = Uploads(limit_bytes, max(uploads_bytes, limit_bytes))
    model = codec.weights.model_id.hex()
    decodes = all((decoder / part).exists() for part in ("vendor/kernel.wasm", f"models/{model}.onnx"))
    app = FastAPI(openapi_url=None)

    @app.get("/about")
    async def about() -> dict[str, object]:
        return {
            "max_bytes": limit_bytes,
            "max_pixels": max_pixels,
            "peers": writable_peers(),
            "model": model,
            "decoder": decodes,
        }

    @app.post("/pictures")
    async def upload(request: Request) -> dict[str, object]:
        async with uploads.body(request) as body:
            return await worker.run(request, studio.add, body)

    @app.post("/sample")
    async def sample(request: Request) -> dict[str, object]:
        return await worker.run(request, studio.add_sample)

    @app.get("/pictures/{key}/original.png")
    async def original(request: Request, key: str) -> Response:
        return Response(await worker.run(request, studio.original_png, key), media_type="image/png")

    async def coded(request: Request, key: str, setting: Setting) -> Coded:
        return await worker.run_while_wanted(request, studio.coded, key, setting)

    @app.get("/pictures/{key}/encode")
    async def encode(request: Request, key: str, setting: Wanted) -> dict[str, object]:
        file = await coded(request, key, setting)
        return {
            "quality": file.quality,
            "encoder": file.encoder,
            "bytes": len(file.data),
            "bpp": file.bpp,
            "colour_bytes": file.colour_bytes,
            "psnr_db": file.psnr_db if math.isfinite(file.psnr_db) else None,
        }

    @app.get("/pictures/{key}/metrics")
    async def metrics(request: Request, key: str, setting: Wanted) -> dict[str, float | None]:
        file = await coded(request, key, setting)
        before = await worker.run(request, studio.original_png, key, setting.region)
        return (await judge.run(request, similarity, before, file.png))._asdict()

    @app.get("/pictures/{key}/decoded.png")
    async def decoded(request: Request, key: str, setting: Wanted) -> Response:
        return Response((await coded(request, key, setting)).png, media_type="image/png")

    @app.get("/pictures/{key}/file")
    async def file(request: Request, key: str, setting: Wanted) -> Response:
        data = (await coded(request, key, setting)).data
        media_type = "image/x-yoto" if setting.form == "yoto" else f"image/{PEERS[setting.form].suffix}"
        return Response(data, media_type=media_type, headers={"Content-Disposition": "attachment"})

    if decodes:

        @app.get("/web/yoto.js")
        async def yoto() -> FileResponse:
            return FileResponse(decoder / "yoto.js")

        for part in DECODER_PARTS:
            app.mount(f"/web/{part}", StaticFiles(directory=decoder / part))
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    _answer_errors_in_one_line(app)
    return Guard(app, names)


def _answer_errors_in_one_line(app: FastAPI) -> None:
    def answer(status: int, error: object) -> Response:
        return JSONResponse({"error": str(error)}, status)

    @app.exception_handler(StarletteHTTPException)
    async def http_error(_: Request, error: StarletteHTTPException) -> Response:
        return answer(error.status_code, error.detail)

    @app.exception_handler(RequestValidationError)
    async def wrong_argument(_: Request, error: RequestValidationError) -> Response:
        return answer(400, "; ".join(f"{e['loc'][-1]}: {e['msg']}" for e in error.errors()))

    @app.exception_handler(CodecError)
    async def bad_data(_: Request, error: CodecError) -> Response:
        return answer(413 if isinstance(error, TooLargeError) else 400, error)

    @app.exception_handler(ForgottenError)
    async def forgotten(_: Request, error: ForgottenError) -> Response:
        return answer(404, error)

    @app.exception_handler(ClientDisconnect)
    @app.exception_handler(WithdrawnError)
    async def gone(_: Request, __: Exception) -> Response:
        return answer(499, "the request was withdrawn")

    @app.exception_handler(MemoryError)
    async def too_much(_: Request, __: MemoryError) -> Response:
        return answer(413, "not enough memory for this image")

    @app.exception_handler(Exception)
    async def defect(_: Request, __: Exception) -> Response:
        return answer(500, "the server failed; its log says why")


def listen(host: str, port: int) -> socket.socket:
    """Open the port, 0 for any that is free; OSError if that is impossible."""
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


class Server(uvicorn.Server):
    """A server that the second Ctrl+C ends at once, even amid a job, which no thread can be asked to leave."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop once the running job is done; if told again, as any process does."""
        signal.signal(sig, signal.SIG_DFL)
        super().handle_exit(sig, frame)


def make_server(app: ASGIApp, limits: Limits) -> Server:
    """A server whose clients keep within limits."""
    config = uvicorn.Config(
        app,
        http=Connection.within(limits),
        ws="none",
        lifespan="off",
        log_level="warning",
        server_header=False,
        limit_concurrency=limits.connections + 1,  # a new client, if no other can give way, is told to come back
    )
    return Server(config)


def serve(codec: Codec, listener: socket.socket, host: str, max_pixels: int) -> None:
    """Answer requests until interrupted."""
    app = create_app(codec, max_pixels, frozenset({"localhost", host.lower()}))
    with suppress(KeyboardInterrupt):  # raised again once the server has stopped in good order
        make_server(app, Limits()).run(sockets=[listener])
