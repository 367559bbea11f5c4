"""Large pictures in tiles: how quickly they are read, beside decoding alone, and the memory of building a collection.

    .venv/bin/python scripts/benchmark_tiles.py

The pictures are JPEGs of 8000x2000 grey pixels, put together from two photographs of scikit-learn. Reading cuts the
tiles of all pictures and brings them to the encoder's size; decoding alone decodes each picture whole, by as many
threads. Both are timed in turn. The collection is built by a process of its own, with --effort quick.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measuring import print_circumstances
from PIL import Image
from sklearn.datasets import load_sample_image

from aesearch.images.batches import in_order
from aesearch.images.decode import Preprocessing, decode_whole
from aesearch.images.sources.opening import open_source
from aesearch.images.tiles import TileSource
from aesearch.images.worker_processes import cores

HEIGHT, WIDTH, TILE, SIDE = 2000, 8000, 256, 64
AT_ONCE = 1024  # tiles


def write_pictures(folder: Path, count: int) -> None:
    """Write pictures of mirrored pieces of photographs, no two the same."""
    photographs = [load_sample_image(name).mean(axis=2).astype(np.uint8) for name in ("china.jpg", "flower.jpg")]
    draw = np.random.default_rng(0)
    for number in range(count):
        sheet = np.empty((HEIGHT, WIDTH), np.uint8)
        for top in range(0, HEIGHT, 400):
            for left in range(0, WIDTH, 500):
                photograph = photographs[draw.integers(2)]
                y, x = draw.integers(27), draw.integers(140)
                sheet[top : top + 400, left : left + 500] = photograph[y : y + 400, x : x + 500][
                    :: draw.choice([-1, 1])
                ]
        Image.fromarray(sheet).save(folder / f"{number:03d}.jpg", quality=90)


def read_tiles(source: TileSource, like: Preprocessing) -> float:
    """Seconds to read all tiles, as extraction does."""
    began = time.perf_counter()
    for group in in_order(0, len(source), AT_ONCE):
        source.read(group, like)
    return time.perf_counter() - began


def decode_alone(source: TileSource, like: Preprocessing) -> float:
    """Seconds to decode all pictures whole, in the colours that are wanted."""
    paths = [source.pictures.path(picture) for picture in range(len(source.pictures))]
    whole = Preprocessing(HEIGHT, WIDTH, like.channels)
    began = time.perf_counter()
    with ThreadPoolExecutor(cores()) as pool:
        for _ in pool.map(lambda path: decode_whole(path.read_bytes(), whole).height, paths):
            pass
    return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--timed", type=int, default=20, help="pictures that reading is timed with")
    options = parser.parse_args()
    print_circumstances(pictures=f"{options.pictures} of {WIDTH}x{HEIGHT}", tiles=TILE, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folder, some = Path(name) / "pictures", Path(name) / "some"
        folder.mkdir()
        some.mkdir()
        write_pictures(folder, options.pictures)
        for path in sorted(folder.iterdir())[: options.timed]:
            os.link(path, some / path.name)
        source = open_source(str(some), tiles=str(TILE))
        assert isinstance(source, TileSource)
        like = Preprocessing(SIDE, SIDE, 1)
        pairs = [(decode_alone(source, like), read_tiles(source, like)) for _ in range(options.rounds)]
        decoding, reading = np.median(pairs, axis=0)
        ratio = np.median([a / b for a, b in pairs])
        speed = f"{len(source) / reading:,.0f} tiles/s, {ratio:.2f} of the speed of decoding"
        print(f"decoding alone {decoding:.2f} s, reading tiles {reading:.2f} s: {speed}")
        command = [
            sys.executable,
            "-m",
            "aesearch",
            "build-index",
            str(folder),
            "-c",
            f"{name}/c",
            "--tiles",
            str(TILE),
        ]
        began = time.perf_counter()
        subprocess.run([*command, "--effort", "quick"], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        print(f"built in {time.perf_counter() - began:.0f} s, peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
