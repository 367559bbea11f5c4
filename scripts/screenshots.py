"""The pictures of README and docs, `docs/pictures/*.png`, of digits: of the page, and what commands draw.

    .venv/bin/python scripts/screenshots.py

Needs chromium and chromedriver. The collection is built with default settings and kept in indexes/handwritten-digits.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from browsing import find_browser, open_browser, wait
from PIL import Image

from aesearch import Collection

FOLDER = Path(__file__).parent.parent / "docs" / "pictures"
SIZE = {"width": 1100, "height": 660, "deviceScaleFactor": 1, "mobile": False}
COLOURS = 96
DRAWN = {"neighbours": ["query", "--row", "37", "-k", "5"], "groups": ["cluster", "--clusters", "10"]}
QUIET = "document.querySelector('#view[aria-busy=false]') && !document.querySelector('.busy')"


def main() -> None:
    """Build, serve, look."""
    found = find_browser()
    if found is None:
        sys.exit("needs chromium and chromedriver")
    collection = Collection.build("digits", "indexes/handwritten-digits")
    for name, make in (
        ("clusters", lambda: collection.cluster(clusters=10)),
        ("combined", lambda: collection.anomalies(top=1)),
        ("map-tsne", lambda: collection.map(method="tsne")),
    ):
        if not collection.is_fresh(name):
            make()
    for name, drawing in DRAWN.items():
        path = FOLDER / f"{name}.png"
        command = [sys.executable, "-m", "aesearch", *drawing, "-c", str(collection.folder), "--save", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        shrink(Image.open(path), path)
    command = [sys.executable, "-m", "aesearch", "serve", "-c", str(collection.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split(": ", 1)[1].split("  ")[0]
        browser = open_browser(*found)
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", SIZE)
        browser.get(f"{address}#/image?row=37&k=18")
        wait(browser, f"document.querySelectorAll('.three img').length === 3 && {QUIET}")
        keep(browser, "search")
        browser.get(f"{address}#/map?method=tsne")
        wait(browser, "window.imageMap && imageMap.data.thumb(5) !== null && true")
        imagine(browser)
        keep(browser, "map")
        browser.get(f"{address}#/anomalies?rate=0.05")
        wait(browser, f"document.querySelectorAll('.pair img').length > 20 && {QUIET}")
        keep(browser, "anomalies")
        browser.quit()
        process.terminate()


def imagine(browser: Any) -> None:
    """Point at the emptiest place well within the map."""
    box = browser.find_element("css selector", ".ground").rect
    script = """
        const { map, data } = imageMap, points = [];
        for (let i = 0; i < data.count; i++) {
          const p = map.latLngToContainerPoint(imageMap.latLng(i)); points.push([p.x, p.y]);
        }
        return points;"""
    points = np.array(browser.execute_script(script))
    low, high = np.quantile(points, [0.2, 0.8], axis=0)
    across, down = np.meshgrid(np.linspace(low[0], high[0], 60), np.linspace(low[1], high[1], 60))
    places = np.stack([across.ravel(), down.ravel()], axis=1)
    free = np.hypot(*(places[:, None] - points[None]).transpose(2, 0, 1)).min(axis=1)
    x, y = places[free.argmax()]
    for step in (3, 0):
        move = {"type": "mouseMoved", "x": box["x"] + x - step, "y": box["y"] + y}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", move)
    wait(browser, "document.querySelector('.hover img')?.naturalWidth > 0")


def keep(browser: Any, name: str) -> None:
    """What is shown, as a small file."""
    wait(browser, f"[...document.images].every((i) => i.complete || i.getBoundingClientRect().top > {SIZE['height']})")
    shrink(Image.open(io.BytesIO(browser.get_screenshot_as_png())), FOLDER / f"{name}.png")


def shrink(picture: Image.Image, path: Path) -> None:
    """Save it, small."""
    picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
