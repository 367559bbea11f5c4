"""Where `cluster --clusters auto` says "no clear structure": stability of shapeless clouds and of separate groups.

    .venv/bin/python scripts/check_stability.py

1,500 points each (the digits: 1,797 images), Euclidean distances, mixture on UMAP, number of clusters chosen, seed 0.
"""

from __future__ import annotations

import numpy as np
from measuring import print_circumstances
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from aesearch.clusters import CLEAR_STABILITY, cluster


def sets() -> dict[str, NDArray[np.float32]]:
    """Points by name; the clouds come first."""
    generator = np.random.default_rng(0)
    close = np.concatenate([centre + generator.normal(size=(500, 8)) for centre in np.eye(3, 8) * 2.5])
    apart = np.concatenate([centre + generator.normal(size=(300, 8)) for centre in np.eye(5, 8) * 20])
    made = {
        "cloud: normal, 8 dimensions": generator.normal(size=(1500, 8)),
        "cloud: normal, 64 dimensions": generator.normal(size=(1500, 64)),
        "cloud: uniform, 8 dimensions": generator.uniform(size=(1500, 8)),
        "cloud: Student's t, 8 dimensions": generator.standard_t(2, size=(1500, 8)),
        "sheet: uniform, 2 dimensions": generator.uniform(size=(1500, 2)),
        "groups: 3 that touch": close,
        "groups: 5 far apart": apart,
        "groups: handwritten digits": load_digits().data,
    }
    return {name: np.ascontiguousarray(points, dtype=np.float32) for name, points in made.items()}


def main() -> None:
    """Measure and print."""
    print_circumstances(threshold=CLEAR_STABILITY, seed=0)
    for name, points in sets().items():
        found = cluster(points)
        verdict = "no clear structure" if found.unclear else "structure"
        print(f"{name:34} clusters {len(found.sizes):3}  stability {found.stability:.2f}  {verdict}", flush=True)


if __name__ == "__main__":
    main()
