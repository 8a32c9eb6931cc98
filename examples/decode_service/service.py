"""Decodes `.yoto` files for others over HTTP: POST a file to /, the answer is a PNG. The core install suffices.

    python service.py --port 8080
    curl --data-binary @picture.yoto http://127.0.0.1:8080/ -o picture.png

GET / says "ready". Every error is one line of text. One picture is decoded at a time; put more processes behind a
proxy, which also ends TLS and limits how long clients may take.
"""

from __future__ import annotations

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import click

import codec

MAX_BYTES = 32 << 20
MAX_PIXELS = 64_000_000
MAX_CLIENTS = 16
CLIENT_S = 30  # between two of its bytes


class Handler(BaseHTTPRequestHandler):
    timeout = CLIENT_S
    decoding = threading.Lock()
    places = threading.BoundedSemaphore(MAX_CLIENTS)

    def do_GET(self) -> None:
        self.answer(200, b"ready\n")

    def do_POST(self) -> None:
        if not self.places.acquire(blocking=False):
            return self.answer(503, b"too many clients at once; try again in a moment\n")
        try:
            self.answer(*self.decoded())
        finally:
            self.places.release()

    def decoded(self) -> tuple[int, bytes, str]:
        """Status, body and its type."""
        text = "text/plain; charset=utf-8"
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            return 411, b"a header Content-Length is needed\n", text
        if len(length) > 12 or int(length) > MAX_BYTES:
            return 413, b"the file is larger than the limit of %d bytes\n" % MAX_BYTES, text
        data = self.rfile.read(int(length))
        png = io.BytesIO()
        try:
            with self.decoding:
                codec.decode(data, max_pixels=MAX_PIXELS).save(png, "PNG", compress_level=1)
        except codec.TooLargeError as error:
            return 413, f"{error}\n".encode(), text
        except codec.CodecError as error:
            return 400, f"{error}\n".encode(), text
        return 200, png.getvalue(), "image/png"

    def answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Connection", "close")  # of a refused upload the rest is not read
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8080, show_default=True, help="0 for any that is free.")
def main(host: str, port: int) -> None:
    """Serve until interrupted."""
    with ThreadingHTTPServer((host, port), Handler) as server:
        click.echo(f"http://{host}:{server.server_port}/")
        server.serve_forever()


if __name__ == "__main__":
    main()
