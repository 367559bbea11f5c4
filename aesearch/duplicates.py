"""Images that are in a collection more than once, or nearly: exact copies by content, others by features and pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError
from aesearch.index.options import most_rows
from aesearch.index.search import SearchIndex
from aesearch.vectors.distances import Rows, from_squared, gather, in_blocks, nearest_in_blocks, prepare
from aesearch.vectors.sampling import sample_rows

NEAR = 0.1  # of the usual distance to the tenth nearest image
LINKS = 10  # nearest rows looked at
SAMPLE = 1000  # rows that tell what is usual, and how many of the pairs were found
LIGHTEST = 1e-9  # of a link: one of no weight is none
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
        were found to be near; None where there are no such pairs.
    pixels : list of float or None
        Of each group the largest pixel distance from one image to the next, 0 for exact copies; None where that was
        not looked at, or an image could not be read.
    rejected : int
        Pairs within the threshold that the pixels kept apart.
    """

    threshold: float
    groups: list[NDArray[np.int64]]
    exact: list[bool]
    found: float | None
    pixels: list[float | None]
    rejected: int


@dataclass(frozen=True)
class Pixels:
    """What tells by pixels whether images are the same.

    Attributes
    ----------
    distances : callable
        Pairs (p, 2) int64 of rows to their pixel distances (p,) float32, NaN where one cannot be read.
    most : float
        Largest distance of two that are the same.
    """

    distances: Callable[[NDArray[np.int64]], NDArray[np.float32]]
    most: float


def find_duplicates(
    features: Rows,
    index: SearchIndex,
    contents: NDArray[np.uint64] | None = None,
    *,
    pixels: Pixels | None = None,
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
    pixels : Pixels, optional
        Confirms that rows near by their features are the same; a pair that cannot be read stays. By default the
        features alone tell.
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
    drawn = sample_rows(n, SAMPLE, seed)
    k = min(LINKS + 1, n)
    near, distances, least = _exactly(features, drawn, k, index.metric)
    if threshold is None:
        threshold = max(least, NEAR * float(np.median(distances[:, -1])))
    same = _by_content(contents) if contents is not None else np.empty((0, 2), np.int64)
    parts, lengths = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for start, block in in_blocks(features, "compare" if progress else "", most_rows(features.shape[1])):
        rows, far = index.search(block, k)
        pairs, apart = _within(np.arange(start, start + len(block)), rows, far, threshold)
        parts.append(pairs)
        lengths.append(apart)
    links, far = _once(np.concatenate(parts), np.concatenate(lengths))
    names = _connected(np.concatenate([same, links]), n)
    pairs, _ = _within(drawn, near, distances, threshold)
    found = float((names[pairs[:, 0]] == names[pairs[:, 1]]).mean()) if len(pairs) else None
    steps = np.full(len(links), np.nan, np.float32)
    if pixels is not None:
        kept, steps = _confirm(same, links, far, names, pixels, n)
        names = _connected(np.concatenate([same, kept]), n)
        rejected = int((names[links[:, 0]] != names[links[:, 1]]).sum())
        links = kept
    else:
        rejected = 0
    together = np.flatnonzero(np.bincount(names)[names] > 1)
    order = together[np.argsort(names[together], kind="stable")]
    ends = np.flatnonzero(np.diff(names[order])) + 1
    groups = sorted(np.split(order, ends), key=lambda g: (-len(g), g[0])) if len(order) else []
    exact = [contents is not None and len(np.unique(contents[g])) == 1 for g in groups]
    widest = _widest(same, links, steps, names, n)
    told = [None if np.isnan(far) else float(far) for far in (widest[names[group[0]]] for group in groups)]
    return Groups(threshold, groups, exact, found, told, rejected)


def _confirm(
    same: NDArray[np.int64],
    links: NDArray[np.int64],
    far: NDArray[np.float32],
    names: NDArray[np.int64],
    pixels: Pixels,
    n: int,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Links that the pixels confirm, and their pixel distances, NaN where an image cannot be read.

    First the nearest links that hold each group together are looked at; then, where some of them were none, the others
    of those that are still apart.
    """
    order = np.lexsort((links[:, 1], links[:, 0], names[links[:, 0]]))  # images of a group are read together
    links, far = links[order], far[order]
    first = _holding(same, links, far, n)
    kept, steps = [np.empty((0, 2), np.int64)], [np.empty(0, np.float32)]
    for looked_at in (first, ~first):
        now = _connected(np.concatenate([same, *kept]), n)
        some = links[looked_at & (now[links[:, 0]] != now[links[:, 1]])]
        apart = pixels.distances(some)
        good = ~(apart > pixels.most)  # NaN: not known, as before
        kept.append(some[good])
        steps.append(apart[good])
    return np.concatenate(kept), np.concatenate(steps)


def _holding(same: NDArray[np.int64], links: NDArray[np.int64], far: NDArray[np.float32], n: int) -> NDArray[np.bool_]:
    """Which links, beside those of the same content, hold the groups together with the least distances."""
    tree = _tree(same, links, far, n).tocoo()
    held = np.minimum(tree.row, tree.col).astype(np.int64) * n + np.maximum(tree.row, tree.col)
    return np.isin(links[:, 0] * n + links[:, 1], held)


def _tree(same: NDArray[np.int64], links: NDArray[np.int64], far: NDArray[np.float32], n: int) -> Any:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    ends = np.concatenate([np.sort(same, axis=1), links])
    weights = np.concatenate([np.zeros(len(same)), far]) + LIGHTEST
    _, one = np.unique(ends[:, 0] * n + ends[:, 1], return_index=True)  # of several, that of the same content
    return minimum_spanning_tree(coo_array((weights[one], (ends[one, 0], ends[one, 1])), shape=(n, n)).tocsr())


def _widest(
    same: NDArray[np.int64],
    links: NDArray[np.int64],
    steps: NDArray[np.float32],
    names: NDArray[np.int64],
    n: int,
) -> NDArray[np.float32]:
    """Of each group the largest step from one image to the next, by the smallest there are; NaN where unknown."""
    tree = _tree(same, links, np.where(np.isnan(steps), 1e6, steps), n).tocoo()
    widest = np.zeros(n, np.float32)
    np.maximum.at(widest, names[tree.row], (tree.data - LIGHTEST).astype(np.float32))
    return np.where(widest > 1e5, np.float32(np.nan), np.maximum(widest, 0))


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
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Pairs (p, 2) of a row and one near it, no farther than the threshold, and how far they are (p,)."""
    place, which = np.nonzero((near >= 0) & (near != rows[:, None]) & (distances <= threshold))
    return np.stack([rows[place], near[place, which]], axis=1), distances[place, which]


def _once(pairs: NDArray[np.int64], far: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each pair once, the lower row first."""
    pairs = np.sort(pairs, axis=1)
    order = np.lexsort((far, pairs[:, 1], pairs[:, 0]))
    pairs, far = pairs[order], far[order]
    new = np.ones(len(pairs), dtype=bool)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new], far[new]


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
