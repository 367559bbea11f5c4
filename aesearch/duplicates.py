"""Images that are in a collection more than once, or nearly: exact copies by content, others by their features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.distances import Rows, from_squared, gather, in_blocks, nearest_in_blocks, prepare
from aesearch.errors import AesearchError
from aesearch.index import SearchIndex, most_rows
from aesearch.projection import draw

NEAR = 0.1  # of the usual distance to the tenth nearest image
LINKS = 10  # nearest rows looked at
SAMPLE = 1000  # rows that tell what is usual, and how many of the pairs were found
LEAST = {"cosine": 1e-6, "l2": 1e-3}  # distances that rounding alone can make; l2: of a vector's length


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows that are near each other.

    Attributes
    ----------
    threshold : float
        Largest distance of two rows that are put together, in the index's metric.
    groups : list of (m,) int64
        Rows of each group, rising; the largest group first. A row may be farther than the threshold from some of
        its group, if others lie between; two knots of more than ten copies each may stay apart though they are near.
    exact : list of bool
        Whether all of a group have the same content.
    found : float or None
        Share of the pairs within the threshold, of up to 1,000 rows with their nearest ones by exact search, that
        are in one group; None where there are no such pairs.
    """

    threshold: float
    groups: list[NDArray[np.int64]]
    exact: list[bool]
    found: float | None


def find_duplicates(
    features: Rows,
    index: SearchIndex,
    contents: NDArray[np.uint64] | None = None,
    *,
    threshold: float | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Groups:
    """Group rows by the links of each to its 10 nearest, as far as they lie within a threshold.

    Parameters
    ----------
    features : (n, d) float32, or what gives such blocks when sliced
    index : SearchIndex
        Over them.
    contents : (n,) uint64, optional
        Numbers that are the same for the same content: such rows go together whatever their features.
    threshold : float, optional
        By default a tenth of the median distance to the tenth nearest row: to the nearest would be to the other
        copy, where most images are there twice.

    Raises
    ------
    AesearchError
        The threshold is below 0 or no number.
    """
    n = features.shape[0]
    if threshold is not None and not 0 <= threshold < np.inf:
        raise AesearchError(f"--threshold must be 0 or more, not {threshold:g}")
    drawn = draw(n, SAMPLE, seed)
    k = min(LINKS + 1, n)
    near, distances, least = _exactly(features, drawn, k, index.metric)
    if threshold is None:
        threshold = max(least, NEAR * float(np.median(distances[:, -1])))
    links = [_by_content(contents)] if contents is not None else []
    for start, block in in_blocks(features, "compare" if progress else "", most_rows(features.shape[1])):
        rows, far = index.search(block, k)
        links.append(_within(np.arange(start, start + len(block)), rows, far, threshold))
    names = _connected(np.concatenate(links), n)
    together = np.flatnonzero(np.bincount(names)[names] > 1)
    order = together[np.argsort(names[together], kind="stable")]
    ends = np.flatnonzero(np.diff(names[order])) + 1
    groups = sorted(np.split(order, ends), key=lambda g: (-len(g), g[0])) if len(order) else []
    exact = [contents is not None and len(np.unique(contents[g])) == 1 for g in groups]
    pairs = _within(drawn, near, distances, threshold)
    found = float((names[pairs[:, 0]] == names[pairs[:, 1]]).mean()) if len(pairs) else None
    return Groups(threshold, groups, exact, found)


def _exactly(
    features: Rows, rows: NDArray[np.int64], k: int, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float32], float]:
    """Nearest rows, and distances, of some rows by exact search; and the least distance that means anything."""
    queries = prepare(gather(features, rows), metric)
    blocks = ((start, prepare(block, metric)) for start, block in in_blocks(features))
    near, squared = nearest_in_blocks(blocks, queries, k)
    length = float(np.median(np.linalg.norm(queries, axis=1)))
    return near, from_squared(squared, metric), LEAST[metric] * (1 if metric == "cosine" else max(length, 1e-6))


def _within(
    rows: NDArray[np.int64], near: NDArray[np.int64], distances: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """Pairs (p, 2) of a row and one near it, no farther than the threshold."""
    place, which = np.nonzero((near >= 0) & (near != rows[:, None]) & (distances <= threshold))
    return np.stack([rows[place], near[place, which]], axis=1)


def _by_content(contents: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of rows of the same content, each with the next one."""
    order = np.argsort(contents, kind="stable")
    same = np.flatnonzero(contents[order[1:]] == contents[order[:-1]])
    return np.stack([order[same], order[same + 1]], axis=1)


def _connected(links: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Number of the group that each row hangs together with."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links), np.int8), (links[:, 0], links[:, 1])), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
