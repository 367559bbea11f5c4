"""Where exact search stops being quick, and which approximate index follows: the choices of `--index auto`.

    .venv/bin/python scripts/benchmark_index.py

Features are drawn from a mixture (2,000 centres, 64 numbers) at growing sizes; each index is built as aesearch
builds it, with recall@10 of at least 0.95 on queries it does not hold.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from measuring import print_circumstances
from numpy.typing import NDArray

from aesearch.index.build import build_index
from aesearch.index.options import IndexOptions

DIM = 64


def draw(rows: int) -> NDArray[np.float32]:
    """Clustered vectors on a few directions, like an autoencoder's."""
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(2000, DIM)).astype(np.float32)
    picked = generator.integers(0, len(centres), rows)
    return centres[picked] + 0.5 * generator.standard_normal((rows, DIM), dtype=np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 100_000, 250_000, 500_000, 1_000_000])
    rows = parser.parse_args().rows
    print_circumstances(rows=rows, dim=DIM, metric="cosine", seed=0)
    head = f"{'rows':>10}  {'index':16}{'build s':>9}{'recall@10':>11}{'ms a query':>12}{'1000s, 1/s':>12}"
    print(f"{head}  effort")
    for n in rows:
        features = draw(n)
        queries = draw(1000)
        for kind in ("flat", "hnsw", "ivf", f"IVF{int(4 * n**0.5)},Flat"):  # the last: twice as many lists
            built = build_index(features, IndexOptions(kind=kind))
            singles = []
            for query in queries[:100]:
                started = time.perf_counter()
                built.search(query[None], 10)
                singles.append(time.perf_counter() - started)
            started = time.perf_counter()
            built.search(queries, 10)
            batch = len(queries) / (time.perf_counter() - started)
            figures = built.figures
            built_as = f"{n:10,}  {figures['kind']:16}{figures['seconds']:9.1f}{figures['recall_at_10']:11.3f}"
            speed = f"{np.median(singles) * 1000:12.2f}{batch:12,.0f}"
            print(f"{built_as}{speed}  {figures['effort'] or ''}", flush=True)


if __name__ == "__main__":
    main()
