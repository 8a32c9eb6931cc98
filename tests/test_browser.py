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
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from codec.format.bitstream import unpack

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent
WAIT_S = 60


@pytest.fixture(scope="module")
def address(weights_path: Path) -> Iterator[str]:
    """Where the command `demo-server` serves, with the tiny weights and a limit of 0.3 megapixels."""
    command = [sys.executable, "-m", "cli", "demo-server", "--port", "0", "--max-megapixels", "0.3"]
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
            const image = document.querySelector(`#${arguments[0]} img`);
            const canvas = document.createElement("canvas");
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            canvas.getContext("2d").drawImage(image, 0, 0);
            return canvas.toDataURL("image/png");
            """,
            side,
        )
        png = base64.b64decode(address.split(",")[1])
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))

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
    assert unpack(page.fetch("download")).quality == round(4096 * quality)


@pytest.mark.parametrize("name", ["JPEG", "WebP", "AVIF"])
def test_peer_is_shown_at_equal_bytes(page, name):
    ours = page.shown("right")
    page.part("quality").send_keys(Keys.END)
    page.compare(name)
    page.until(lambda: page.part("table").is_displayed() and name in page.text("left-name"))
    page.ready()
    rows = [
        [cell.text for cell in row.find_elements(By.XPATH, "*")]
        for row in page.part("table").find_elements(By.TAG_NAME, "tr")
    ]
    assert rows[1][0] == "yoto"
    assert re.fullmatch(rf"{name}, quality \d+", rows[2][0])
    assert number(rows[2][1]) <= number(rows[1][1])
    difference = number(rows[1][3]) - number(rows[2][3])
    assert number(page.text("verdict")) == pytest.approx(abs(difference), abs=0.011)
    assert ("above" if difference > 0 else "below") in page.text("verdict")
    assert not np.array_equal(page.shown("left"), ours)
    page.compare("Original")
    page.until(lambda: page.text("left-name") == "Original")
    assert not page.part("table").is_displayed()


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


def test_cut_follows_the_enlarged_picture(page):
    page.driver.find_element(By.XPATH, "//*[@id='zoom']//label[span='300%']").click()
    assert page.part("canvas").size["width"] == 3 * 512

    before = page.cut_px()
    page.driver.execute_script("document.getElementById('scroller').scrollLeft = 100")
    page.until(lambda: page.cut_px() == pytest.approx(before - 100, abs=1))


def test_all_is_reached_by_the_keyboard(page):
    reached = set()
    for _ in range(20):
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        focused = page.driver.switch_to.active_element
        reached.add(focused.get_attribute("id") or focused.get_attribute("name"))
    assert {"sample", "open", "divider", "zoom", "quality", "against", "download", "download-png"} <= reached


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
    Image.new("L", (1000, 301)).save(path)
    page.open(path)
    page.until(lambda: "1000×301 px, more than the limit of 300000" in page.text("error"))
    path = tmp_path / "heavy.bin"
    path.write_bytes(bytes(4 * 300_000 + (1 << 20) + 1))
    page.open(path)
    page.until(lambda: "heavy.bin”: the file has 2.25 MB, the limit is 2.25 MB" in page.text("error"))


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
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    try:
        chromium.get(address)
        page = Page(chromium)
        page.ready()
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= 360
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
