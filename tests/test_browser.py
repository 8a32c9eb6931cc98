"""The demo page in headless Chromium: a real server, real clicks and keys."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import start
from conftest import picture
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from codec.format.bitstream import unpack

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
WAIT_S = 60


@pytest.fixture(scope="module")
def address(weights_path: Path) -> Iterator[str]:
    """Where the command `demo-server` serves, with the tiny weights and a limit of 1.4 megapixels."""
    command = [sys.executable, "-m", "cli", "demo-server", "--port", "0", "--max-megapixels", "1.4"]
    server = subprocess.Popen(
        [*command, "--weights", str(weights_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield server.stdout.readline().split()[0]
    finally:
        server.terminate()
        _, log = server.communicate(timeout=30)
    assert log == ""  # no warning, no traceback


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    driver = start(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


class Page:
    """The open page, in a user's words."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def part(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return self.part(name).text

    def until(self, claim: Callable[[], object]) -> None:
        WebDriverWait(self.driver, WAIT_S, 0.05).until(lambda _: claim())

    def ready(self) -> None:
        """Wait until the figures are those of the slider's position."""
        self.until(
            lambda: (
                not self.part("busy").is_displayed()
                and re.match(r"[\d.]+", self.text("psnr"))
                and "stale" not in self.part("figures").get_attribute("class")
            )
        )

    def open(self, path: Path) -> None:
        self.part("file").send_keys(str(path))

    def compare(self, name: str) -> None:
        """Click on a choice of "Compare with", where a user would."""
        self.driver.find_element(By.XPATH, f"//*[@id='against']//label[span='{name}']").click()

    def shown(self, side: str) -> np.ndarray:
        """The picture of one side, as the browser decoded it."""
        address = self.driver.execute_script(
            """
            const image = document.querySelector(`#${arguments[0]} :is(img, canvas)`);
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth ?? image.width, image.naturalHeight ?? image.height];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png");
            """,
            side,
        )
        png = base64.b64decode(address.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

    def cell(self, row: str, column: int) -> str:
        return self.driver.execute_script(
            "return document.getElementById(arguments[0]).cells[arguments[1]].textContent", row, column
        )

    def cut_px(self) -> float:
        """How much of the left picture is cut away."""
        style = self.driver.execute_script("return document.getElementById('left').style.clipPath")
        values = re.findall(r"([\d.]+)px", style)
        return float(values[1]) if len(values) > 1 else 0.0

    def fetch(self, link: str) -> bytes:
        """What a click on a download link saves."""
        data = self.driver.execute_async_script(
            """
            const done = arguments[1];
            fetch(document.getElementById(arguments[0]).href)
              .then((answer) => answer.arrayBuffer()).then((data) => done(Array.from(new Uint8Array(data))));
            """,
            link,
        )
        return bytes(data)

    def complaints(self) -> list[str]:
        """What the browser logged, such as violations of the security policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]


@pytest.fixture
def page(address: str, chromium: webdriver.Chrome) -> Page:
    """The page with the sample picture."""
    chromium.get(address)
    page = Page(chromium)
    page.ready()
    page.complaints()
    return page


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "waves.png"
    Image.fromarray(picture(96, 128)).save(path)
    return path


def number(text: str) -> float:
    return float(re.search(r"[\d.]+", text.replace(",", ""))[0])


def test_works_at_once_with_the_sample(page):
    assert "512 × 512 px" in page.text("source")
    assert "kB" in page.text("bytes")
    assert page.text("left-name") == "Original"
    assert page.shown("left").shape == page.shown("right").shape == (512, 512, 3)
    assert page.complaints() == []


def test_slider_changes_picture_and_figures(page, saved, codec):
    page.open(saved)
    page.until(lambda: "waves.png" in page.text("source"))
    page.ready()
    before = page.shown("right"), number(page.text("psnr"))
    slider = page.part("quality")
    slider.send_keys(Keys.END)
    page.until(lambda: page.text("quality-value") == "1.000")
    page.ready()
    after = page.shown("right"), number(page.text("psnr"))
    assert after[1] > before[1]
    assert not np.array_equal(before[0], after[0])
    data = codec.encode(picture(96, 128), 1.0)
    np.testing.assert_array_equal(after[0], np.asarray(codec.decode(data)))
    assert f"{len(data):,} bytes" in page.text("ratio")
    assert number(page.text("bpp")) == pytest.approx(8 * len(data) / (96 * 128), abs=6e-4)


def test_dragging_the_slider_ends_at_its_last_position(page):
    slider = page.part("quality")
    drag = ActionChains(page.driver, duration=20).move_to_element(slider).click_and_hold()
    for step in (-60, 90, -30, 40, -100, 110):
        drag.move_by_offset(step, 0)
    drag.release().perform()
    page.ready()
    quality = number(page.text("quality-value"))
    assert 0.6 < quality < 0.8  # released 50 of some 300 px right of the middle
    link = page.part("download").get_attribute("href")
    assert f"quality={quality:g}&" in link
    assert unpack(page.fetch("download")).rate_point == round(4096 * quality)


@pytest.mark.parametrize("name", ["JPEG", "AVIF"])
def test_peer_keeps_its_size_and_ours_is_made_equal(page, saved, name):
    page.open(saved)
    page.until(lambda: "waves.png" in page.text("source"))
    page.part("quality").send_keys(Keys.END, Keys.PAGE_DOWN)  # ours may have to grow to the peer's size
    page.ready()
    whole = page.shown("right")
    page.compare(name)
    page.until(lambda: page.part("duel").is_displayed() and name in page.text("left-name"))
    page.ready()
    rows = {
        row.find_element(By.TAG_NAME, "th").text: [cell.text for cell in row.find_elements(By.TAG_NAME, "td")]
        for row in page.driver.find_elements(By.CSS_SELECTOR, "#duel tbody tr")
    }
    ours, theirs = map(number, rows["Bytes"])
    assert ours == pytest.approx(theirs, rel=0.01)
    difference = number(rows["PSNR"][0]) - number(rows["PSNR"][1])
    assert number(page.text("verdict")) == pytest.approx(abs(difference), abs=0.011)
    assert ("above" if difference > 0 else "below") in page.text("verdict")
    assert re.match(rf"{name} \(.+\), quality \d+: ", page.text("terms"))
    assert not np.array_equal(page.shown("left"), whole)
    page.until(lambda: re.match(r"-?\d+\.\d", page.cell("duel-ssimulacra2", 2)))
    assert page.cell("duel-ms-ssim", 1) == "–"  # too small for it
    best = [cell.text for cell in page.driver.find_elements(By.CSS_SELECTOR, "#duel-psnr .best")]
    assert best == [max(rows["PSNR"], key=number)]
    page.compare("Original")
    page.until(lambda: page.text("left-name") == "Original")
    assert not page.part("duel").is_displayed()


def test_upload_is_what_bytes_are_saved_of(page, saved):
    page.open(saved)
    page.until(lambda: "waves.png" in page.text("source"))
    page.ready()
    before, after = saved.stat().st_size, number(page.text("ratio"))
    assert number(page.text("saved")) == pytest.approx(100 * (1 - after / before), abs=0.6)
    page.until(lambda: number(page.text("ssimulacra2") + " 0") != 0)


def test_effort_is_obeyed(page, saved, codec):
    page.open(saved)
    page.until(lambda: "waves.png" in page.text("source"))
    page.driver.find_element(By.XPATH, "//*[@id='effort']//label[span='4']").click()
    page.ready()
    assert page.fetch("download") == codec.encode(picture(96, 128), 0.3, effort=4)


def test_large_picture_shows_a_part_first(page, tmp_path, codec):
    path = tmp_path / "large.png"
    original = np.tile(picture(256, 256), (4, 5, 1))
    Image.fromarray(original).save(path)
    page.driver.execute_script(
        """
        window.parts = [];
        new MutationObserver(() => {
          const part = document.querySelector("#right .part");
          if (part) window.parts.push([part.region, part.naturalWidth, document.getElementById("bytes").textContent]);
        }).observe(document.getElementById("right"), { childList: true });
        """
    )
    page.open(path)
    page.until(lambda: "large.png" in page.text("source"))
    page.ready()
    region, width, _ = page.driver.execute_script("return window.parts")[0]
    assert (region["width"], region["height"], width) == (448, 448, 448)
    assert region["x"] == pytest.approx(640 + (640 - 448) / 2, abs=2)  # the middle of what is seen of it
    assert page.driver.find_elements(By.CSS_SELECTOR, "#right .part") == []
    np.testing.assert_array_equal(page.shown("right"), np.asarray(codec.decode(page.fetch("download"))))


def test_divider_is_dragged_and_obeys_keys(page):
    divider, view = page.part("divider"), page.part("view")
    ActionChains(page.driver).drag_and_drop_by_offset(divider, -view.size["width"] // 4, 0).perform()
    assert divider.get_attribute("aria-valuenow") == "25"
    handle = divider.rect["x"] + divider.rect["width"] / 2 - view.rect["x"]
    assert handle == pytest.approx(view.size["width"] / 4, abs=2)
    divider.send_keys(Keys.ARROW_RIGHT)
    assert divider.get_attribute("aria-valuenow") == "27"
    divider.send_keys(Keys.HOME)
    assert page.cut_px() == pytest.approx(page.part("canvas").size["width"], abs=1)
    divider.send_keys(Keys.END)
    assert page.cut_px() == 0


def test_zooms_about_the_pointer_and_pans(page):
    stage, canvas = page.part("stage"), page.part("canvas")
    box = canvas.rect
    point = (box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.25)
    origin = ScrollOrigin.from_viewport(round(point[0]), round(point[1]))
    ActionChains(page.driver).scroll_from_origin(origin, 0, -500).perform()
    page.until(lambda: canvas.rect["width"] > 3 * box["width"])
    zoomed = canvas.rect
    for corner, length, at in (("x", "width", point[0]), ("y", "height", point[1])):
        assert zoomed[corner] + 0.25 * zoomed[length] == pytest.approx(at, abs=2)
    cut = page.cut_px()
    drag = ActionChains(page.driver, duration=20).move_to_element_with_offset(stage, 150, 100)
    drag.click_and_hold().move_by_offset(-100, 30).release().perform()
    assert canvas.rect["x"] == pytest.approx(zoomed["x"] - 100, abs=1)
    assert page.cut_px() == pytest.approx(cut - 100, abs=1)  # the divider stays where it is
    body = page.driver.find_element(By.TAG_NAME, "body")
    body.send_keys("1")
    assert (canvas.rect["width"], page.text("scale")) == (512, "100 %")
    body.send_keys("+")
    assert canvas.rect["width"] == 768
    body.send_keys("0")
    assert canvas.rect == box


def test_two_fingers_zoom(page):
    before = page.part("canvas").rect["width"]
    page.driver.execute_script(
        """
        const stage = document.getElementById("stage");
        const box = stage.getBoundingClientRect();
        stage.setPointerCapture = () => {};
        const finger = (kind, pointerId, x) => stage.dispatchEvent(new PointerEvent(kind, {
          pointerId, pointerType: "touch", clientX: box.left + x, clientY: box.top + 200, bubbles: true }));
        finger("pointerdown", 1, 300);
        finger("pointerdown", 2, 400);
        finger("pointermove", 1, 200);
        finger("pointermove", 2, 500);
        finger("pointerup", 1, 200);
        finger("pointerup", 2, 500);
        """
    )
    assert page.part("canvas").rect["width"] == pytest.approx(3 * before, rel=1e-3)


def test_loupe_shows_both_pictures_at_the_pointer(page):
    page.driver.find_element(By.TAG_NAME, "body").send_keys("l")
    canvas = page.part("canvas")
    ActionChains(page.driver).move_to_element_with_offset(canvas, -120, -90).perform()
    box = canvas.rect
    loupe = page.driver.execute_script(
        """
        const loupe = document.getElementById("loupe");
        const context = loupe.getContext("2d");
        const at = (share) => Array.from(context.getImageData(loupe.width * share, loupe.height / 2, 1, 1).data);
        return [at(0.25), at(0.75)];
        """
    )
    scale = 512 / box["width"]
    x, y = (int((box[length] / 2 + offset) * scale) for length, offset in (("width", -120), ("height", -90)))
    for side, seen in zip(("left", "right"), loupe, strict=True):
        around = page.shown(side)[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3).astype(int)
        assert np.abs(around - seen[:3]).max(axis=1).min() <= 1
    page.driver.find_element(By.TAG_NAME, "body").send_keys(Keys.ESCAPE)
    assert not page.part("loupe").is_displayed()


def test_all_is_reached_by_the_keyboard(page):
    reached = set()
    for _ in range(24):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.driver.switch_to.active_element
        reached.add(focused.get_attribute("id") or focused.get_attribute("name"))
    assert {"sample", "open", "stage", "divider", "fit", "loupe-switch", "quality", "effort"} <= reached
    assert {"against", "download", "download-png"} <= reached


def test_downloaded_file_can_be_opened_again(page, saved, codec, tmp_path):
    page.open(saved)
    page.until(lambda: "waves.png" in page.text("source"))
    page.ready()
    assert page.part("download").get_attribute("download") == "waves.yoto"
    data = page.fetch("download")
    decoded = np.asarray(codec.decode(data))
    np.testing.assert_array_equal(decoded, np.asarray(Image.open(io.BytesIO(page.fetch("download-png")))))
    path = tmp_path / "again.yoto"
    path.write_bytes(data)
    page.open(path)
    page.until(lambda: "again.yoto" in page.text("source"))
    page.until(lambda: page.text("third") == "Quality")
    assert number(page.text("psnr")) == pytest.approx(0.3, abs=1e-3)
    np.testing.assert_array_equal(page.shown("right"), decoded)
    assert not page.part("quality").is_displayed()
    assert not page.part("divider").is_displayed()
    page.part("sample").click()
    page.until(lambda: "astronaut" in page.text("source"))
    page.ready()
    assert page.part("quality").is_displayed()


def test_dropped_picture_is_opened(page, saved):
    page.driver.execute_script(
        """
        const bytes = Uint8Array.from(arguments[0]);
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "dropped.png"));
        for (const kind of ["dragenter", "dragover", "drop"]) {
          document.body.dispatchEvent(new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
          if (kind === "dragenter") window.hintShown = !document.getElementById("drop").hidden;
        }
        """,
        list(saved.read_bytes()),
    )
    assert page.driver.execute_script("return window.hintShown")
    page.until(lambda: "dropped.png · 128 × 96 px" in page.text("source"))
    assert not page.part("drop").is_displayed()


def test_pasted_picture_is_opened(page, saved):
    page.driver.execute_script(
        """
        const clipboardData = new DataTransfer();
        clipboardData.items.add(new File([Uint8Array.from(arguments[0])], "image.png", { type: "image/png" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        """,
        list(saved.read_bytes()),
    )
    page.until(lambda: "image.png · 128 × 96 px" in page.text("source"))
    page.ready()
    page.driver.find_element(By.TAG_NAME, "body").send_keys("]")
    page.until(lambda: page.text("quality-value") == "0.320")


def test_bad_picture_is_one_line_and_the_old_one_stays(page, tmp_path):
    path = tmp_path / "bad.png"
    path.write_bytes(b"no picture")
    page.open(path)
    page.until(lambda: page.part("error").is_displayed())
    assert page.text("error").startswith("“bad.png”: the input is not an image that can be read.")
    page.ready()
    assert "astronaut" in page.text("source")
    page.driver.find_element(By.CSS_SELECTOR, "#error button").click()
    assert not page.part("error").is_displayed()


def test_large_pictures_are_refused(page, tmp_path):
    path = tmp_path / "wide.png"
    Image.new("L", (1000, 1409)).save(path)
    page.open(path)
    page.until(lambda: "more than the limit of 1400000" in page.text("error"))
    path = tmp_path / "heavy.bin"
    path.write_bytes(bytes(4 * 1_400_000 + (1 << 20) + 1))
    page.open(path)
    page.until(lambda: "heavy.bin”: the file has 6.65 MB, the limit is 6.65 MB" in page.text("error"))


def test_forgotten_picture_is_uploaded_again(page, saved, tmp_path):
    page.open(saved)
    page.until(lambda: "waves.png" in page.text("source"))
    page.ready()
    page.driver.execute_script(
        """
        const ask = window.fetch;
        let refused = 0;
        window.fetch = (path, options) => {
          if (!String(path).includes("/encode") || refused++) return ask(path, options);
          return Promise.resolve(new Response('{"error": "this picture is no longer held"}', { status: 404 }));
        };
        """
    )
    page.part("quality").send_keys(Keys.HOME)
    page.until(lambda: page.text("quality-value") == "0.000")
    page.ready()
    assert not page.part("error").is_displayed()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_a_phone_in_light_and_dark(address, chromium, scheme, tmp_path):
    metrics = {"width": 375, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    try:
        chromium.get(address)
        page = Page(chromium)
        page.ready()
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= 375
        ground = chromium.execute_script("return getComputedStyle(document.getElementById('panel')).backgroundColor")
        levels = [int(level) for level in re.findall(r"\d+", ground)[:3]]
        assert (min(levels) > 200) if scheme == "light" else (max(levels) < 60)
        page.compare("WebP")
        page.until(lambda: "WebP" in page.text("left-name"))
        chromium.execute_script("scrollTo(0, document.body.scrollHeight)")
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"no picture")
        page.open(bad)
        page.until(lambda: page.part("error").is_displayed())
        assert chromium.execute_script("return document.getElementById('error').getBoundingClientRect().top") == 0
    finally:
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
