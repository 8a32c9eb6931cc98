"""The decoder in `web/` in headless Chromium: the same integers, pixels within one level, the same refusals."""

from __future__ import annotations

import base64
import functools
import http.server
import io
import shutil
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromium import start
from conftest import page, picture, reseal
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_browser import Page as DemoPage
from test_server import serving

from codec.demo.server import create_app
from codec.errors import CodecError
from codec.format.bitstream import unpack
from codec.grid import Grid
from codec.network.weights import available, find
from tests.forge import Corpus, samples
from tests.fuzz import MAX_PIXELS
from training.browser import write

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
GOLDEN = sorted((ROOT / "tests" / "golden").rglob("*.yoto"))
WAIT_S = 120
FUZZED = 1000

# Decodes files one by one; answers what became of each: its parts, or the name of the error.
DECODE = """
const [files, options, done] = arguments;
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const text = (data) => {
  let out = "";
  for (let i = 0; i < data.length; i += 32768) out += String.fromCharCode(...data.subarray(i, i + 32768));
  return btoa(out);
};
(async () => {
  const { sharedDecoder } = await import("/yoto.js");
  const answers = [];
  for (const file of files) {
    const parts = [];
    const add = (part) => parts.push({ ...part, pixels: text(new Uint8Array(part.pixels.buffer)) });
    const failed = ({ name, message }) => ({ error: name, message });
    answers.push(await sharedDecoder().decode(bytes(file), options, undefined, add).then(() => ({ parts }), failed));
  }
  return answers;
})().then(done, (error) => done(String(error)));
"""

IS_WARM = "import('/decoding.js').then((decoding) => arguments[0](decoding.possible()))"
KEEP_DOWNLOADS = """
const create = URL.createObjectURL;
URL.createObjectURL = (blob) => create((window.kept = blob));
"""
KEPT = "window.kept.arrayBuffer().then((data) => arguments[0](Array.from(new Uint8Array(data))))"
SET_QUALITY = """
const slider = document.getElementById("quality");
slider.value = arguments[0];
slider.dispatchEvent(new Event("input"));
"""


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(weights_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page is served as static files, with the shipped models and the tiny one."""
    folder = tmp_path_factory.mktemp("site")
    assert (ROOT / "web" / "vendor" / "kernel.wasm").exists(), "web/ is not built: make web/vendor/.built (needs npm)"
    for path in (ROOT / "web").iterdir():
        if path.name not in ("models", "node_modules"):
            (folder / path.name).symlink_to(path)
    for path in [*map(find, available()), weights_path]:
        write(folder / "models", path)
    shutil.copytree(ROOT / "tests" / "golden", folder / "golden")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def driver(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start(tmp_path_factory.mktemp("profile"))
    driver.set_script_timeout(WAIT_S)
    driver.get(address)
    yield driver
    driver.quit()


def decode(driver: webdriver.Chrome, files: list[bytes], **options: object) -> list[dict[str, Any]]:
    """What becomes of each file in the browser."""
    answers = driver.execute_async_script(DECODE, [base64.b64encode(data).decode() for data in files], options)
    assert isinstance(answers, list), answers
    return answers


def boxes(answer: dict[str, Any]) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of the parts, in the order in which they came."""
    return [(part["left"], part["top"], part["width"], part["height"]) for part in answer["parts"]]


def assembled(answer: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """The picture of all parts, uint8 (H, W, 4); what no part covers is transparent pink."""
    canvas = np.full((size[1], size[0], 4), (255, 0, 255, 0), np.uint8)
    for part, (left, top, width, height) in zip(answer["parts"], boxes(answer), strict=True):
        pixels = np.frombuffer(base64.b64decode(part["pixels"]), np.uint8)
        canvas[top : top + height, left : left + width] = pixels.reshape(height, width, 4)
    return canvas


def difference(found: np.ndarray, expected: Image.Image | np.ndarray) -> int:
    """Largest difference of a level, alpha included."""
    wanted = expected if isinstance(expected, np.ndarray) else np.asarray(expected.convert("RGBA"))
    return int(np.abs(found.astype(int) - wanted).max())


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_file_decodes_to_its_picture(driver, path):
    """The integers are those of the CRC in the file, see below; so only the synthesis can differ."""
    (answer,) = decode(driver, [path.read_bytes()])
    with Image.open(path.with_suffix(".png")) as image:
        assert difference(assembled(answer, image.size), image) <= 1


def test_other_integers_are_noticed(driver, codec):
    data = bytearray(codec.encode(picture(64, 64), 0.5))
    end = unpack(bytes(data)).tiles[0].start - 4
    struct.pack_into("<I", data, end - 4, 1 ^ struct.unpack_from("<I", data, end - 4)[0])
    (answer,) = decode(driver, [reseal(bytes(data))])
    assert answer["error"] == "CorruptError"
    assert "other integers" in answer["message"]


def test_empty_symbol_stream_is_refused(driver, codec):
    """Only version 2 knows tiles without symbols; the browser once showed such a tile of version 1 in black."""
    data = codec.encode(picture(64, 64), 0.5)
    start = unpack(data).tiles[0].start
    (answer,) = decode(driver, [reseal(data[: start - 16] + bytes(4) + data[start - 12 : start])])
    assert answer["error"] == "CorruptError"


def test_region_comes_first_and_alone_if_asked(driver, codec):
    data = codec.encode(picture(200, 300), 0.9, tile_px=64)
    whole = codec.decode(data)
    region = {"x": 130, "y": 70, "width": 60, "height": 100}
    first, only = decode(driver, [data], first=region)[0], decode(driver, [data], first=region, only=True)[0]
    assert boxes(first)[:2] == [(128, 64, 64, 64), (128, 128, 64, 64)]
    assert len(boxes(first)) == 20
    assert boxes(only) == [(128, 64, 64, 64), (128, 128, 64, 48)]
    assert difference(assembled(first, whole.size), whole) <= 1
    part = np.s_[64:176, 128:192]
    assert difference(assembled(only, whole.size)[part], np.asarray(whole.convert("RGBA"))[part]) <= 1


def test_tiles_are_decoded_as_they_come(driver, codec):
    """The rest of the file is sent when the first tile is there; what a cut or endless file shows is no picture."""
    data = codec.encode(picture(128, 320), 0.5, tile_px=64)
    grid = Grid(128, 320, 64, codec.model.margin_px)
    needed = unpack(data).tiles[grid.touching(grid.with_margin(grid.tile(0)))[-1]]  # the last that the first tile needs
    answers = driver.execute_async_script(
        """
        const [text, count, done] = arguments;
        const data = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const run = async (atFirst) => {
          let parts = 0;
          let sender = null;
          const stream = new ReadableStream({ start: (controller) => (sender = controller) });
          sender.enqueue(data.slice(0, count));
          const onPart = () => parts++ || atFirst(sender);
          const { sharedDecoder } = await import("/yoto.js");
          const failed = ({ name, message }) => [name, message, parts];
          return sharedDecoder().decode(stream, {}, undefined, onPart).then(() => parts, failed);
        };
        const rest = (sender) => (sender.enqueue(data.slice(count)), sender);
        (async () => [
          await run((sender) => rest(sender).close()),
          await run((sender) => sender.close()),
          await run((sender) => sender.error(new Error("lost"))),
          await run((sender) => rest(sender).enqueue(new Uint8Array(9))),
        ])().then(done, (error) => done(String(error)));
        """,
        base64.b64encode(data).decode(),
        needed.start + needed.length,
    )
    assert answers[0] == 10
    assert [(answer[0], answer[2] < 10) for answer in answers[1:3]] == [("TruncatedError", True), ("LoadError", True)]
    assert answers[3][0] == "CorruptError"
    assert f"should have {len(data)} bytes" in answers[3][1]


def test_withdrawn_file_stops_and_the_next_one_is_decoded(driver, codec):
    data = codec.encode(picture(256, 320), 0.5, tile_px=64)
    first, second, last = driver.execute_async_script(
        """
        const done = arguments[1];
        const data = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        (async () => {
          const { sharedDecoder } = await import("/yoto.js");
          const decode = async (signal, onPart) => {
            let parts = 0;
            const count = () => onPart(++parts);
            const failed = ({ name }) => [name, parts];
            return sharedDecoder().decode(data, { signal }, undefined, count).then(() => parts, failed);
          };
          const [one, two] = [new AbortController(), new AbortController()];
          two.abort();
          const first = decode(one.signal, () => one.abort());
          return Promise.all([first, decode(two.signal, () => {}), decode(null, () => {})]);
        })().then(done, (error) => done(String(error)));
        """,
        base64.b64encode(data).decode(),
    )
    assert (first, second, last) == (["AbortError", 1], ["AbortError", 0], 20)


@pytest.mark.parametrize("case", ["colour", "grey", "region", "lossless", "lossless grey with alpha"])
def test_plain_blocks_are_exact(driver, codec, case):
    """Beside learned ones, whose neighbours may have no latents; the browser's WebP decoder makes the same pixels."""
    drawn = page(170, 200)
    if "grey" in case:
        drawn = drawn[:, :, 1]
    image = Image.fromarray(drawn)
    if "alpha" in case:
        image.putalpha(Image.fromarray(picture(170, 200, 1)[:, :, 0]))
    lossless = "lossless" in case
    data = codec.encode(image, 0.4, tile_px=64, lossless=lossless)
    assert unpack(data).kind == ("lossless" if lossless else "mixed")
    region = {"x": 80, "y": 50, "width": 100, "height": 100} if case == "region" else None
    (answer,) = decode(driver, [data], first=region)
    assert difference(assembled(answer, image.size), codec.decode(data)) <= (0 if lossless else 1)
    if lossless:
        assert difference(assembled(answer, image.size), image) == 0


def test_damaged_files_get_the_same_verdict(driver, codec):
    """A seeded thousand, nearly all with their checksums made right."""
    corpus = Corpus(samples(codec))
    inputs = [corpus.forge(np.random.default_rng([3, i]))[0] for i in range(FUZZED)]
    verdicts = []
    for data in inputs:
        try:
            codec.decode(data, max_pixels=MAX_PIXELS)
            verdicts.append(None)
        except CodecError as error:
            verdicts.append(type(error).__name__)
    answers = [
        answer for at in range(0, FUZZED, 50) for answer in decode(driver, inputs[at : at + 50], maxPixels=MAX_PIXELS)
    ]
    found = [answer.get("error") for answer in answers]
    elsewhere = {"ModelMismatchError": "LoadError"}  # a browser asks for the model that a file names, and gets none
    assert found == [elsewhere.get(name, name) for name in verdicts]
    assert all("\n" not in answer.get("message", "") for answer in answers)
    counts = Counter(name for name in found if name)
    assert FUZZED - counts.total() > FUZZED // 50
    assert {"CorruptError", "TruncatedError", "TooLargeError", "UnsupportedVersionError", "LoadError"} <= set(counts)


class Page:
    """The viewer, in a user's words."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        driver.get(address)
        driver.get_log("browser")

    def text(self, name: str) -> str:
        return self.driver.find_element(By.ID, name).text

    def until(self, name: str, claim: str) -> None:
        WebDriverWait(self.driver, WAIT_S, 0.05).until(lambda _: claim in self.text(name))

    def shown(self) -> np.ndarray:
        address = self.driver.execute_script(
            "return document.querySelector('yoto-image').canvas.toDataURL('image/png')"
        )
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).convert("RGBA"))


def test_page_shows_linked_and_chosen_files(driver, address):
    page = Page(driver, f"{address}/?src=golden/v1/colour.yoto")
    page.until("status", "colour.yoto · 160 × 128 px · colour · quality 0.300 · 812 bytes")
    with Image.open(ROOT / "tests" / "golden" / "v1" / "colour.png") as image:
        assert difference(page.shown(), image) <= 1
    driver.find_element(By.ID, "file").send_keys(str(ROOT / "tests" / "golden" / "v1" / "odd.yoto"))
    page.until("status", "odd.yoto · 1 × 65 px")
    assert page.shown().shape == (65, 1, 4)
    assert not driver.find_element(By.ID, "error").is_displayed()
    assert [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_page_shows_dropped_files_and_names_bad_ones(driver, address):
    page = Page(driver, f"{address}/")
    for name, data in (("good.yoto", GOLDEN[0].read_bytes()), ("bad.yoto", b"no picture")):
        driver.execute_script(
            """
            const transfer = new DataTransfer();
            transfer.items.add(new File([Uint8Array.from(arguments[1])], arguments[0]));
            document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
            """,
            name,
            list(data),
        )
        page.until("status" if name == "good.yoto" else "error", name)
    page.until("error", "“bad.yoto”: this is not a .yoto file")
    assert page.shown().shape == (128, 160, 4)  # the old picture stays


def test_element_shows_what_its_address_holds(driver, address):
    Page(driver, address)
    events = driver.execute_async_script(
        """
        const done = arguments[0];
        const element = document.createElement("yoto-image");
        const seen = [];
        for (const kind of ["header", "part", "load", "error"]) {
          element.addEventListener(kind, ({ detail }) => {
            seen.push([kind, element.canvas.width, detail.name ?? ""]);
            if (kind === "load") element.setAttribute("src", "golden/v1/missing.yoto");
            if (kind === "error") done(seen);
          });
        }
        element.setAttribute("region", "70,10,20,20");
        element.setAttribute("src", "golden/v1/tiles.yoto");
        document.body.append(element);
        """
    )
    assert [kind for kind, _, _ in events] == ["header", *["part"] * 7, "load", "error"]  # the region, then six tiles
    assert {width for _, width, _ in events} == {160}
    assert events[-1][2] == "LoadError"


def test_demo_page_decodes_what_its_server_sends(driver, address, codec, weights_path, tmp_path):
    """The server's PNG is shown until the decoder is warm; then its file is decoded here and is what is downloaded."""
    for name in ("decoder", "vendor", "yoto.js"):
        (tmp_path / name).symlink_to(ROOT / "web" / name)
    write(tmp_path / "models", weights_path)
    original = tmp_path / "waves.png"
    Image.fromarray(picture(80, 112)).save(original)
    with serving(create_app(codec, 300_000, decoder=tmp_path)) as ((host, port), _):
        demo = DemoPage(driver)
        try:
            driver.get(f"http://{host}:{port}")
            demo.ready()
            demo.open(original)
            demo.until(lambda: "waves.png" in demo.text("source"))
            demo.ready()
            demo.until(lambda: driver.execute_async_script(IS_WARM))
            driver.execute_script(KEEP_DOWNLOADS)
            for quality in (0.7, 0.8):
                driver.execute_script(SET_QUALITY, quality)
                demo.ready()
                data = codec.encode(picture(80, 112), quality)
                assert driver.find_elements(By.CSS_SELECTOR, "#right canvas")
                assert difference(demo.shown("right"), np.asarray(codec.decode(data))) <= 1
                assert "Decoded in this browser in" in demo.text("ratio")
                assert demo.part("download").get_attribute("href").startswith("blob:")
                assert bytes(driver.execute_async_script(KEPT)) == data
        finally:
            driver.get(address)
