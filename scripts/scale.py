"""Time and peak memory of every step as a collection grows, each in a process of its own.

    .venv/bin/python scripts/scale.py
    .venv/bin/python scripts/scale.py --rows 10000 100000 --steps build-index query

The collection is a real one, of random images, but its features are drawn: a mixture of 2,000 centres in 48 numbers
whose spread falls off as an encoder's does, one row in a hundred a near copy of the row before. `extract` works on
images (28x28) that are made up as it reads. Beside each step the growth of its time over the size before (n log n is
11 to 12) and, for each progress bar of 10 s or more, the time foretold when 5 % were done over the time it took.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import pty
import re
import resource
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DIM, CENTRES, BLOCK = 48, 2000, 2**16
COPIES = 0.01
BAR = re.compile(r"([a-z ]+): +(\d+)%\|.*?\[([\d:]+)<([\d:]+)")
TOLD_AT, LEAST_SECONDS = 5, 10
ROWS = (10_000, 100_000, 1_000_000, 10_000_000)


def draw(start: int, count: int) -> NDArray[np.float32]:
    """Rows ``start`` to ``start + count``, the same each time."""
    generator = np.random.default_rng([1, start])
    spread = (np.arange(1, DIM + 1) ** -0.5).astype(np.float32)
    centres = np.random.default_rng(0).standard_normal((CENTRES, DIM), dtype=np.float32)
    rows = centres[generator.integers(0, CENTRES, count)] + 0.5 * generator.standard_normal(
        (count, DIM), dtype=np.float32
    )
    copies = 1 + 2 * generator.permutation(count // 2)[: int(COPIES * count)]
    rows[copies] = rows[copies - 1] + 1e-4 * generator.standard_normal((len(copies), DIM), dtype=np.float32)
    return rows * spread


def prepare(folder: Path, rows: int) -> None:
    """Write the collection: an encoder of one epoch, then the drawn features in place of its own."""
    from aesearch import Collection
    from aesearch.store.reader import Store
    from aesearch.store.writer import StoreWriter

    images = folder / "images.npy"
    np.save(images, np.random.default_rng(0).integers(0, 255, (256, 28, 28), dtype=np.uint8))
    collection = Collection.build(str(images), folder / "c", epochs=1, latent_dim=DIM + 16, progress=False)
    path = folder / "c/features.h5"
    attributes = {"encoder_fingerprint": collection.store.encoder_fingerprint, "source": str(images)}
    path.unlink()
    with StoreWriter(path, DIM, {}, attributes, style_dim=collection.spec.style_dim) as writer:
        for start in range(0, rows, BLOCK):
            count = min(BLOCK, rows - start)
            columns = {
                "features": draw(start, count),
                "style": np.zeros((count, collection.spec.style_dim), np.float32),
                "reconstruction_error": np.random.default_rng(start).random(count, dtype=np.float32),
                "held_out": np.zeros(count, bool),
                "stamp": np.full((count, 2), -1),
                "id": [f"drawn/{row}" for row in range(start, start + count)],
                "label": [str(row % 10) for row in range(start, start + count)],
                "split": [""] * count,
                "content_hash": [f"{row:016x}" + "0" * 16 for row in range(start, start + count)],
            }
            writer.append(columns, [], start + count)
        writer.finish()
    recorded = collection.manifest.artifacts["features"]
    collection.manifest.record(
        "features",
        "features.h5",
        made_from=recorded["made_from"],
        parameters=recorded["parameters"],
        figures={"rows": rows, "skipped": 0},
        source=recorded["source"],
        fingerprint=Store(path).fingerprint,
    )


def make_up(rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Images of those rows."""
    return np.random.default_rng(int(rows[0])).integers(0, 255, (len(rows), 28, 28), dtype=np.uint8)


def extract(folder: Path, rows: int) -> str:
    """Features of made-up images, into a store of their own."""
    from aesearch import Collection
    from aesearch.collection.extract import extract_features
    from aesearch.images.sources.arrays import ArraySource

    ids = [f"made/{row}" for row in range(rows)]
    source = ArraySource("made", make_up, (28, 28), ids, [""] * rows, [""] * rows, str(rows))
    autoencoder = Collection.open(folder / "c").autoencoder
    done = extract_features(source, autoencoder, folder / "made.h5", encoder_fingerprint="scale", progress=True)
    (folder / "made.h5").unlink()
    return f"{done.images_per_second:,.0f} images/s"


def build_index(folder: Path, rows: int) -> str:
    """The index that auto picks."""
    from aesearch import Collection
    from aesearch.index.build import describe_figures

    return describe_figures(Collection.open(folder / "c").build_index().figures)


def query(folder: Path, rows: int) -> str:
    """A thousand queries, from opening on."""
    from aesearch import Collection

    collection = Collection.open(folder / "c")
    began = time.perf_counter()
    collection.query(row=rows // 2, k=10)
    first = time.perf_counter() - began
    began = time.perf_counter()
    collection.query_rows(list(range(1000)), k=10)
    return f"opening and the first {first:.2f} s, then {1000 / (time.perf_counter() - began):,.0f} queries/s"


def scattered(folder: Path, rows: int) -> str:
    """Opening the store and reading 1,000 rows from all over it."""
    from aesearch.store.reader import Store

    began = time.perf_counter()
    wanted = np.sort(np.random.default_rng(0).integers(0, rows, 1000))
    found = Store(folder / "c/features.h5").features(wanted)
    assert len(found) == 1000
    return f"{time.perf_counter() - began:.2f} s"


def anomalies(folder: Path, rows: int) -> str:
    """Rows far from their neighbours."""
    from aesearch import Collection

    found = Collection.open(folder / "c").anomalies(score="neighbours", top=10)
    return f"{found.scored:,} scored"


def cluster(folder: Path, rows: int) -> str:
    """Ten clusters by k-means."""
    from aesearch import Collection

    collection = Collection.open(folder / "c")
    return f"sizes {collection.cluster(method='kmeans', space='features', clusters=10).sizes}"


def duplicates(folder: Path, rows: int) -> str:
    """Groups of near copies."""
    from aesearch import Collection

    found = Collection.open(folder / "c").duplicates()
    share = "" if found.found is None else f", {found.found:.1%} of exact search's pairs"
    return f"{len(found.rows):,} groups{share}"


def lay_out(folder: Path, rows: int) -> str:
    """A map by UMAP."""
    from aesearch import Collection

    Collection.open(folder / "c").map(colour_by="none")
    return ""


def peak_memory() -> float:
    """Largest resident size of this process in GiB, mapped pages of an index among it."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) / 2**20
    except (OSError, StopIteration):  # elsewhere; this counts what the parent had when it started us, too
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


STEPS: dict[str, Callable[[Path, int], str]] = {
    "extract": extract,
    "build-index": build_index,
    "query": query,
    "scattered": scattered,
    "anomalies": anomalies,
    "cluster": cluster,
    "duplicates": duplicates,
    "map": lay_out,
}


def run(step: str, folder: Path, rows: int) -> tuple[dict[str, Any], str]:
    """A step in a process of its own, on a terminal of its own: what it found, and how well it foretold its time."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # rows, columns: bars need room
    command = [sys.executable, __file__, "--child", step, str(folder), str(rows)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        written = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 2**16):
                written += part
        said = process.stdout.read() if process.stdout else ""
    os.close(ours)
    if process.returncode:
        sys.exit(written.decode())
    bars: dict[str, list[tuple[int, int, int]]] = {}
    for name, percent, elapsed, left in BAR.findall(written.decode()):
        bars.setdefault(name.strip(), []).append((int(percent), seconds(elapsed), seconds(left)))
    foretold = ""
    for name, shown in bars.items():
        took = shown[-1][1]
        early = next((elapsed + left for percent, elapsed, left in shown if percent >= TOLD_AT), took)
        if took >= LEAST_SECONDS:
            foretold += f"; {name}: foretold {early / took:.2f} of its time"
    return json.loads(said.splitlines()[-1]), foretold


def seconds(clock: str) -> int:
    """Of hours, minutes and seconds between colons."""
    total = 0
    for part in clock.split(":"):
        total = 60 * total + int(part)
    return total


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        step, folder, rows = options.child
        began = time.perf_counter()
        said = STEPS[step](Path(folder), int(rows))
        return print(json.dumps({"seconds": time.perf_counter() - began, "peak": peak_memory(), "said": said}))
    from measuring import print_circumstances

    print_circumstances(dim=DIM, seed=0)
    with tempfile.TemporaryDirectory() as name:
        folders = {rows: Path(name) / str(rows) for rows in options.rows}
        for rows, folder in folders.items():
            folder.mkdir()
            prepare(folder, rows)
        for step in options.steps:  # all sizes in turn: a machine's speed varies from hour to hour
            before = None
            for rows, folder in folders.items():
                found, foretold = run(step, folder, rows)
                growth = f"x{found['seconds'] / before:.1f}" if before else ""
                before = found["seconds"]
                cost = f"{found['seconds']:9.1f} s {growth:>7}{found['peak']:7.2f} GiB"
                print(f"{rows:11,} {step:12}{cost}  {found['said']}{foretold}", flush=True)


if __name__ == "__main__":
    main()
