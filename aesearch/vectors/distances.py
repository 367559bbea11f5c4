"""What a metric means: normalising, distance, order. Its one owner."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from aesearch.progress import step

Metric = Literal["cosine", "l2"]
METRICS: tuple[str, ...] = get_args(Metric)

BLOCK_ROWS = 2**16
RIDGE, LEAST_VARIANCE = 0.1, 1e-12


Block = TypeVar("Block", bound=NDArray[Any], covariant=True)


class Sliced(Protocol[Block]):
    """What need not be in memory: a NumPy array, or what gives its rows when sliced."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, …)."""

    def __getitem__(self, rows: slice) -> Block: ...


Rows = Sliced[NDArray[np.float32]]  # vectors (n, d)


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


def principal_directions(covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Principal directions (m, m), each divided by the standard deviation along it.

    To every variance a tenth of their mean is added, or few samples would make chance count.
    """
    variances, axes = np.linalg.eigh(covariance)
    spread = np.sqrt(variances.clip(min=0) + max(RIDGE * float(variances.mean()), LEAST_VARIANCE))
    return np.asarray(axes / spread, dtype=np.float32)


def mahalanobis(
    numbers: NDArray[np.float32], mean: NDArray[np.float32], directions: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Squared Mahalanobis distances (n,) of numbers (n, m), along `principal_directions`."""
    return np.asarray(np.square((numbers - mean) @ directions).sum(axis=1), dtype=np.float32)


def nearest_way(
    rows: NDArray[np.int64], distances: NDArray[np.float32], ways: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Of the neighbours of each query, asked in several ways, the nearest, each row once.

    Parameters
    ----------
    rows, distances : (n, ways · k)
        The k nearest of each way side by side, row -1 for none.

    Returns
    -------
    rows, distances, ways : (n, k) each
        Nearest first; row -1 where there are fewer.
    """
    k = rows.shape[1] // ways
    if ways == 1:
        return rows, distances, np.zeros_like(rows)
    order = np.lexsort((distances, rows), axis=1)  # of each row the nearest comes first
    by_row = np.take_along_axis(rows, order, 1)
    again = np.zeros(rows.shape, dtype=bool)
    again[:, 1:] = by_row[:, 1:] == by_row[:, :-1]
    far = np.where(again | (by_row < 0), np.inf, np.take_along_axis(distances, order, 1))
    nearest = np.argsort(far, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(far, nearest, 1)
    kept = np.where(np.isfinite(found), np.take_along_axis(by_row, nearest, 1), -1)
    return kept, found.astype(np.float32), np.take_along_axis(order // k, nearest, 1)


def in_blocks(features: Sliced[Block], doing: str = "", size: int | None = None) -> Iterator[tuple[int, Block]]:
    """First row and rows of one block after the other; under a progress bar of that name, if one is given."""
    n, size = features.shape[0], size or BLOCK_ROWS
    with step(doing, n, unit="row", progress=bool(doing)) as bar:
        for start in range(0, n, size):
            block = features[start : min(start + size, n)]
            yield start, block
            bar.update(len(block))


def gather(features: Rows, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Those rows (m, d) float32, which must rise: all blocks are read, which is quicker than many scattered rows."""
    found = np.empty((len(rows), features.shape[1]), np.float32)
    for start, block in in_blocks(features):
        first, last = np.searchsorted(rows, (start, start + len(block)))
        found[first:last] = block[rows[first:last] - start]
    return found


def nearest_in_blocks(
    blocks: Iterable[tuple[int, NDArray[np.float32]]],
    queries: NDArray[np.float32],
    k: int,
    *,
    without: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Exact k nearest of each query among rows that come in blocks, nearest first.

    Parameters
    ----------
    blocks : iterable of (first row, (n, d) float32)
        Of prepared vectors.
    queries : (m, d) float32
        Prepared too.
    without : (p,) int64, optional
        Rows that do not count, rising.

    Returns
    -------
    rows (m, k) int64, squared distances (m, k) float32
        Row -1 and an infinite distance where there are fewer than k.
    """
    import faiss

    rows = np.full((len(queries), k), -1, np.int64)
    squared = np.full((len(queries), k), np.inf, np.float32)
    for start, block in blocks:
        numbers = np.arange(start, start + len(block))
        if without is not None:
            counted = ~np.isin(numbers, without)
            numbers, block = numbers[counted], block[counted]
        if not len(block):
            continue
        near, places = faiss.knn(queries, block, min(k, len(block)))
        squared, rows = np.hstack([squared, near]), np.hstack([rows, numbers[places]])
        order = np.argsort(squared, axis=1, kind="stable")[:, :k]
        squared, rows = np.take_along_axis(squared, order, 1), np.take_along_axis(rows, order, 1)
    return rows, squared
