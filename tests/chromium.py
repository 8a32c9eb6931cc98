"""Headless Chromium, for the tests that look at pages."""

from __future__ import annotations

import shutil
from pathlib import Path

from selenium import webdriver

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    " --disable-component-update --disable-sync --force-device-scale-factor=1 --window-size=1280,900"
)


def start(profile: Path) -> webdriver.Chrome:
    """Start the browser; its log is kept for `get_log`."""
    browser, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser, "Chromium is not installed (Debian: apt-get install chromium chromium-driver)"
    assert driver_path, "ChromeDriver is not installed (Debian: apt-get install chromium-driver)"
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS.split(), f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(driver_path))
