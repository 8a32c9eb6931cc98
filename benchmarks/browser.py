"""What a first visit of the browser's decoder loads, and its seconds to the first tile and to the whole picture.

    make web
    python -m benchmarks.browser --image kodim05.png

The folder `web` is served on loopback as static files, uncompressed; what its answers would have with gzip is told
beside it. Chromium starts with an empty profile: the first visit loads and compiles everything, the second visit is
of the same profile, and "warm" is a decoder that has decoded before.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
from selenium import webdriver

from codec.api import Codec

WEB = Path(__file__).parent.parent / "web"
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update"
)
TIMEOUT_S = 120
# From the start of the visit, or of the call where the decoder is warm.
VISIT = """
const [address, done] = arguments;
(async () => {
  const decode = async (start) => {
    const { sharedDecoder } = await import("/yoto.js");
    let first = null;
    const part = () => (first ??= performance.now() - start);
    const { body } = await fetch(address);
    const { backend } = await sharedDecoder().decode(body, {}, undefined, part);
    return [first / 1000, (performance.now() - start) / 1000, backend];
  };
  const cold = await decode(0);
  return [cold, await decode(performance.now())];
})().then(done, (error) => done(String(error)));
"""


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """An address, and the size of every file that is asked for there."""
    asked: dict[str, int] = {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            path = Path(self.translate_path(self.path))
            if path.is_file():
                asked[self.path] = path.stat().st_size
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


def visit(address: str, profile: str) -> tuple[list[Any], list[Any]]:
    """Seconds to the first part and to all of the picture, and what ran the synthesis: of a visit, and then warm."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(TIMEOUT_S)
        driver.get(f"{address}/blank.html")
        answer = driver.execute_async_script(VISIT, "/picture.yoto")
    finally:
        driver.quit()
    if isinstance(answer, str):
        raise click.ClickException(answer)
    return answer[0], answer[1]


def site(folder: Path, data: bytes) -> None:
    """What is served: the decoder, the file, and a page without anything."""
    for path in WEB.iterdir():
        if path.name != "node_modules":
            (folder / path.name).symlink_to(path)
    (folder / "picture.yoto").write_bytes(data)
    (folder / "blank.html").write_text("<!doctype html><link rel=icon href=data:,>")


@click.command()
@click.option("--image", type=click.Path(exists=True), required=True)
@click.option("--quality", type=click.FloatRange(0.0, 1.0), default=0.5, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True, help="Fresh profiles.")
def main(image: str, quality: float, repeats: int) -> None:
    """Visit the decoder with Chromium."""
    rows: dict[str, list[list[float]]] = {"first visit": [], "second visit": [], "warm": []}
    with tempfile.TemporaryDirectory() as folder:
        site(Path(folder), Codec().encode(image, quality))
        with serving(Path(folder)) as (address, asked):
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as profile:
                    asked.clear()
                    first, _ = visit(address, profile)
                    loaded = {
                        name: size for name, size in asked.items() if name not in ("/blank.html", "/picture.yoto")
                    }
                    second, warm = visit(address, profile)
                for name, times in zip(rows, (first, second, warm), strict=True):
                    rows[name].append(times[:2])
        packed = {name: len(gzip.compress(Path(folder, name[1:]).read_bytes())) for name in loaded}
    for name, size in sorted(loaded.items(), key=lambda item: -item[1]):
        click.echo(f"{size:>10} {packed[name]:>10} {name}")
    click.echo(f"{sum(loaded.values()):>10} {sum(packed.values()):>10} bytes of a first visit, and with gzip")
    for name, runs in rows.items():
        part, whole = (median(column) for column in zip(*runs, strict=True))
        click.echo(f"{name:<12} first tile {part:.2f} s, whole picture {whole:.2f} s ({first[2]})")


if __name__ == "__main__":
    main()
