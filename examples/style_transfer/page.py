"""The page: it sends its picture with the sliders' places, and shows what comes back. Needs the extra `demo`.

GET  /            the page
POST /stylise     ?content=…&style1=… body: a picture of at most 256 px → PNG
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import create_model

from codec.demo.server import Guard
from examples.style_transfer.__main__ import DEFAULT, SIDE_PX
from examples.style_transfer.network import COEFFICIENTS, LEAST_PX, StyleNetwork, stylise

STATIC = Path(__file__).parent / "static"
BODY_BYTES = 1 << 20  # a PNG of 256 px has less
Sliders = create_model("Sliders", **{name: (Annotated[float, Query(ge=0, le=1)], DEFAULT[name]) for name in DEFAULT})


def answer(network: StyleNetwork, data: bytes, positions: list[float]) -> bytes:
    try:
        with Image.open(io.BytesIO(data)) as image:
            if not LEAST_PX <= min(image.size) <= max(image.size) <= SIDE_PX:
                raise HTTPException(413, f"sides must be {LEAST_PX} to {SIDE_PX} px")
            pixels = torch.from_numpy(np.array(image.convert("RGB")))
    except (OSError, ValueError, SyntaxError):
        raise HTTPException(400, "the body is no picture") from None
    buffer = io.BytesIO()
    out = stylise(network, pixels, torch.tensor(positions))
    Image.fromarray(out.numpy()).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def create_app(network: StyleNetwork) -> Guard:
    app = FastAPI(openapi_url=None)

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "page.html")

    @app.post("/stylise")
    async def stylised(request: Request, sliders: Annotated[Sliders, Query()]) -> Response:
        data = b""
        async for part in request.stream():
            data += part
            if len(data) > BODY_BYTES:
                raise HTTPException(413, f"a picture has at most {BODY_BYTES} bytes")
        positions = [getattr(sliders, name) for name in COEFFICIENTS]
        return Response(await run_in_threadpool(answer, network, data, positions), media_type="image/png")

    app.mount("/static", StaticFiles(directory=STATIC))
    return Guard(app, frozenset({"localhost"}))


def run(network: StyleNetwork, port: int) -> None:
    print(f"http://127.0.0.1:{port}/")
    uvicorn.run(create_app(network), host="127.0.0.1", port=port, log_level="warning")
