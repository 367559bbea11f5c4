"""Frames a second while a map's page is dragged about, in headless Chromium that draws in software.

    .venv/bin/python scripts/benchmark_page.py

Points drawn from a mixture of ten Gaussians, each with one of scikit-learn's digits as its image; 70,000, and as many
as a map of more images shows. 1200x800 pixels, seed 0. Each is dragged in circles, seen as a whole and eight times
enlarged.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from browsing import drag, find_browser, open_browser
from measuring import print_circumstances
from sklearn.datasets import load_digits

from aesearch.collection.maps import MOST_SHOWN
from aesearch.drawing.map_page import MapPage
from aesearch.drawing.thumbnails import empty_atlas

COUNT = """
window.frames_seen = []; let last = performance.now();
const tick = (now) => { frames_seen.push(now - last); last = now; window.ticking = requestAnimationFrame(tick); };
window.ticking = requestAnimationFrame(tick);
"""


def make_page(count: int) -> str:
    """A page of so many images."""
    generator = np.random.default_rng(0)
    groups = generator.integers(0, 10, count)
    coordinates = generator.normal(scale=6, size=(10, 2))[groups] + generator.normal(size=(count, 2))
    digits = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)[:, None].repeat(4, axis=2).repeat(4, axis=3)
    thumbnails = [list(digits[np.arange(start, min(start + 1000, count)) % 1797]) for start in range(0, count, 1000)]
    atlas = empty_atlas(count).extended(np.full(count, -1), np.arange(count), thumbnails)
    near = (np.arange(count)[:, None] + np.arange(1, 9)) % count
    names = [f"image {number}" for number in range(count)]
    columns = {"label": groups.astype(str).tolist()}
    points = coordinates.astype(np.float32)
    return MapPage(
        "benchmark", np.arange(count), points, names, columns, "label", points[:, 0], "score", atlas, near
    ).html()


def frames(browser: Any, seconds: float) -> np.ndarray:
    """Milliseconds of each frame while the map is dragged in circles."""
    browser.execute_script(COUNT)
    began, turns = time.perf_counter(), np.linspace(0, 2 * np.pi, 60)
    while time.perf_counter() - began < seconds:
        drag(browser, [(600 + 150 * np.sin(t), 400 + 150 * np.cos(t)) for t in turns])
    return np.array(browser.execute_script("cancelAnimationFrame(ticking); return frames_seen.slice(3)"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[70_000, MOST_SHOWN])
    parser.add_argument("--seconds", type=float, default=6)
    options = parser.parse_args()
    found = find_browser()
    if found is None:
        sys.exit("needs chromium and chromedriver")
    browser = open_browser(*found)
    print_circumstances(seed=0, browser=f"Chromium {browser.capabilities['browserVersion']}, software drawing")
    with tempfile.TemporaryDirectory() as folder:
        for count in options.points:
            path = Path(folder) / "map.html"
            path.write_text(make_page(count), encoding="utf-8")
            began = time.perf_counter()
            browser.get(path.as_uri())
            ready = time.perf_counter() - began
            print(f"{count:,} points: {path.stat().st_size / 1e6:.1f} MB, open after {ready:.2f} s", flush=True)
            for zoom in (0, 3):
                browser.execute_script(
                    "imageMap.map.setZoom(imageMap.map.getZoom() + arguments[0], {animate: false})", zoom
                )
                time.sleep(2)
                spent = frames(browser, options.seconds)
                print(
                    f"  dragged at zoom +{zoom}: {1000 / spent.mean():.0f} frames/s in the mean, "
                    f"95 % of the frames within {np.percentile(spent, 95):.0f} ms, n = {len(spent)}",
                    flush=True,
                )
    browser.quit()


if __name__ == "__main__":
    main()
