"""Images that belong together, as exposures of one part do: they never fall on both sides of a split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError
from aesearch.files.names import listed
from aesearch.vectors.distances import exact_neighbours

NONE = "none"  # for --group: no image belongs to another, whatever it looks like
SIDE, BLUR = 32, 4  # pixels of the images that are compared; deviation of what is taken for slow light
COMPONENTS, LEARNED_FROM = 64, 5000
NEAREST, NEAR = 20, 0.4  # images are near duplicates if this much nearer than the twentieth nearest of either
FEWEST, MOST_COMPARED = 10, 100_000  # images among which near duplicates are looked for
MOST_MATES = 100  # of an image, that are looked past for its neighbours
LEAST_SPREAD = 1.0  # grey levels: of a blank image what is left of noise says nothing


def groups_by_pattern(ids: Sequence[str], pattern: str) -> list[str]:
    """The group of each id: what a regular expression finds in it, or what its first parentheses hold.

    Ids in which it finds nothing are alone, "". `SourceError` if it is none, or finds nothing anywhere.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise SourceError(f"--group {pattern!r} is no column of a table, nor a regular expression: {error}") from None
    found = [expression.search(id) for id in ids]
    groups = ["" if one is None else (one[1] if expression.groups else one[0]) or "" for one in found]
    if not any(groups):
        raise SourceError(f"--group {pattern!r} matches none of the {len(ids):,} ids, such as {ids[0]!r}")
    return groups


def units_of(groups: Sequence[str]) -> NDArray[np.int64]:
    """A number for each image, the same for all of a group: (n,) int64; those without a group have their own."""
    names, units = np.unique(np.array(groups, dtype=str), return_inverse=True)
    alone = names[units] == ""
    units[alone] = len(names) + np.flatnonzero(alone)
    return np.asarray(units, np.int64)


def whole_units(units: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """The units to take so that there are as many images as wanted, or a few more; in the order in which they come.

    One that would take more than half of all images is passed over; where no other is left, the smallest is taken,
    unless it is the only one.
    """
    names, first, sizes = np.unique(units, return_index=True, return_counts=True)
    order = np.argsort(first)
    names, sizes, most = names[order], sizes[order], max(wanted, len(units) // 2)
    fits = sizes <= most
    before = np.cumsum(np.where(fits, sizes, 0)) - sizes
    taken = fits & (before < wanted) & (before + sizes <= most)
    if wanted and len(names) > 1 and not taken.any():
        taken[sizes.argmin()] = True
    return names[taken]


def oddest_of(units: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Of each unit the place of its highest score, rising."""
    order = np.lexsort((-scores, units))
    return np.sort(order[np.unique(units[order], return_index=True)[1]])


def highest_of(units: NDArray[np.int64], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The highest score of each unit, in the order in which the units come."""
    _, first, of = np.unique(units, return_index=True, return_inverse=True)
    highest = np.full(len(first), -np.inf, np.float32)
    np.maximum.at(highest, of, scores)
    return highest[np.argsort(first)]


def most_mates(units: NDArray[np.int64]) -> int:
    """How many of the nearest at most are of an image's own unit: as many as the largest has, within bounds."""
    return min(MOST_MATES, int(np.unique(units, return_counts=True)[1].max(initial=1)))


def signatures(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is compared of images (n, channels, height, width): small, grey, without slow light, of length 1."""
    from scipy import ndimage

    from aesearch.images.resize import shrunk

    grey = images.mean(axis=1, keepdims=True).round().astype(np.uint8)
    small = shrunk(grey, SIDE)[:, 0].astype(np.float32)
    small -= ndimage.gaussian_filter(small, (0, BLUR, BLUR))
    flat = small.reshape(len(small), -1)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), LEAST_SPREAD * flat.shape[1] ** 0.5)


def near_duplicates(found: NDArray[np.float32]) -> list[str]:
    """Groups of images of which one looks like the next, by `signatures` (n, d): n names, "" for one alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(found)
    if n < FEWEST:
        return [""] * n
    centred = found - found.mean(axis=0)
    drawn = centred[np.random.default_rng(0).permutation(n)[:LEARNED_FROM]].astype(np.float64)
    axes = np.linalg.eigh(drawn.T @ drawn)[1][:, -COMPONENTS:].astype(np.float32)
    vectors = np.ascontiguousarray(centred @ axes)
    k = min(NEAREST, n // 2)
    rows, distances = exact_neighbours(vectors, vectors, k + 1, "l2")
    usual = distances[:, -1]
    near = (distances <= NEAR * np.minimum(usual[:, None], usual[rows])) & (rows != np.arange(n)[:, None])
    ends = np.flatnonzero(near.ravel())
    links = coo_array((np.ones(len(ends)), (ends // (k + 1), rows.ravel()[ends])), shape=(n, n))
    names = connected_components(links, directed=False)[1]
    # Where many are alike that says nothing of what belongs together.
    return [
        f"alike {name}" if 1 < size <= n / 3 else ""
        for name, size in zip(names, np.bincount(names)[names], strict=True)
    ]


def say_leaks(groups: Sequence[str], splits: Sequence[str], ids: Sequence[str]) -> str:
    """One line if images of a group lie in two of the splits given; else empty."""
    members: dict[str, dict[str, str]] = {}  # by group an id of each split
    for group, split, id in zip(groups, splits, ids, strict=True):
        if group and split:
            members.setdefault(group, {}).setdefault(split, id)
    leaks = Counter(pair for there in members.values() for pair in combinations(sorted(there, reverse=True), 2))
    if not leaks:
        return ""
    (one, other), _ = leaks.most_common(1)[0]
    shown = next(there for there in members.values() if one in there and other in there)
    counts = [f"{count:,} in both {a} and {b}" for (a, b), count in leaks.most_common()]
    return (
        f"splits leak: of the groups of images that belong together {listed(counts)}, like {shown[one]} and "
        f"{shown[other]}; accuracies on such a split are too optimistic"
    )
