"""What a metric means: normalising, distance, order. Its one owner."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Metric = Literal["cosine", "l2"]
METRICS: tuple[str, ...] = get_args(Metric)

# Search always runs on squared Euclidean distances, cosine on vectors of length 1 (there
# |a - b|² = 2 - 2 cos), so one FAISS metric serves both and smaller is nearer throughout.


def prepare(features: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Vectors ready for squared Euclidean search: (n, d) float32, of length 1 for cosine.

    A zero vector has no direction and stays zero: its cosine distance to anything is 0.5.
    """
    features = np.ascontiguousarray(features, dtype=np.float32)
    if metric == "l2":
        return features
    if metric != "cosine":
        raise ValueError(f"metric {metric!r} is not one of {', '.join(METRICS)}")
    norms = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(norms > 0, norms, 1), dtype=np.float32)


def from_squared(squared: NDArray[np.float32], metric: str) -> NDArray[np.float32]:
    """Turn the search's squared distances into the metric's own.

    Returns
    -------
    float32, same shape
        ``l2``: Euclidean distance; ``cosine``: 1 - cosine similarity, in [0, 2]. Never below 0.
    """
    squared = np.maximum(squared, 0)  # float32 cancellation can give -1e-7
    distances: NDArray[np.float32] = squared / np.float32(2) if metric == "cosine" else np.sqrt(squared)
    return distances


def exact_neighbours(
    base: NDArray[np.float32], queries: NDArray[np.float32], k: int, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Exact k nearest rows of ``base`` for each query, nearest first.

    Parameters
    ----------
    base, queries : (n, d) and (m, d) float32
    k : int
        At most n.

    Returns
    -------
    rows (m, k) int64, distances (m, k) float32
    """
    import faiss

    if not 0 < k <= len(base):
        raise ValueError(f"k = {k} for {len(base)} rows")
    squared, rows = faiss.knn(prepare(queries, metric), prepare(base, metric), k)
    return rows, from_squared(squared, metric)
