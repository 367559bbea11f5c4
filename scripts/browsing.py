"""Headless Chromium, drawing in software and without a network, for the tests and for scripts that look at pages."""

from __future__ import annotations

import json
import shutil
import time
from typing import Any

FLAGS = (
    "headless=new", "no-sandbox", "disable-gpu", "window-size=1200,800", "no-first-run", "disable-sync", "disable-quic",
    "disable-background-networking", "disable-component-update",
)  # fmt: skip


def find_browser() -> tuple[str, str] | None:
    """Paths of chromium and its driver, if both are installed."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return (binary, driver) if binary and driver else None


def open_browser(binary: str, driver: str) -> Any:
    """A Selenium driver that keeps the logs of the console and of what pages ask for."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def drag(browser: Any, points: list[tuple[float, float]]) -> None:
    """Along those points of the window, with the left button down."""
    kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 2), "mouseReleased"]
    for kind, (x, y) in zip(kinds, points, strict=True):
        event = {"type": kind, "x": x, "y": y, "button": "left", "buttons": 1, "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def wait(browser: Any, script: str, *arguments: Any) -> Any:
    """What an expression gives, once that is true."""
    for _ in range(200):
        if found := browser.execute_script(f"return {script}", *arguments):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never true: {script}")


def check_quiet(browser: Any, origin: str) -> None:
    """Nothing was logged since the last time, and nobody asked but ``origin``."""
    logged = browser.get_log("browser")
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"]
    outside = [url for url in urls if not url.startswith((origin, "data:", "blob:", "about:"))]
    if logged or outside:
        raise AssertionError([*logged, *outside])
