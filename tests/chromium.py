"""A real browser for tests: Debian's Chromium without a window, driven by selenium."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

PATIENCE = 240.0  # seconds that anything may take in a browser: a busy machine is no failure


class NoBrowser(Exception):
    """There is no browser here, or nothing that drives it. The message says what to install."""


def found() -> tuple[str, str]:
    """The paths of Chromium and of its driver. Raises NoBrowser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not browser or not driver:
        raise NoBrowser("there is no Chromium with its driver: sudo apt install chromium chromium-driver")
    return browser, driver


@contextlib.contextmanager
def started(folder: Path, width: int = 1280, height: int = 800) -> Iterator:
    """A selenium driver whose page is `width` x `height` CSS pixels; all that the browser keeps lies in `folder`.

    Chromium asks nobody for anything: what a page needs has to come from this machine. Raises NoBrowser.
    """
    from selenium import webdriver

    browser, driver = found()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.add_argument("--headless=new")
    options.add_argument(f"--user-data-dir={folder}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1")
    for switch in ("disable-gpu", "disable-dev-shm-usage", "disable-extensions", "force-device-scale-factor=1"):
        options.add_argument(f"--{switch}")
    if os.name == "posix" and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to be root's otherwise
    page = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        page.set_page_load_timeout(PATIENCE)
        page.set_script_timeout(PATIENCE)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield page
    finally:
        page.quit()
