"""Groups of images: k-means, Gaussian mixture, HDBSCAN; on features or on UMAP of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, check_choice
from aesearch.projection import embed_umap, index_of_sample
from aesearch.vectors.distances import Rows, exact_neighbours, gather, in_blocks, prepare
from aesearch.vectors.sampling import sample_rows

METHODS = ("gmm", "kmeans", "hdbscan")
SPACES = ("umap", "features")
UMAP_DIMS = 10
FITTED = 100_000  # rows; of more a sample is grouped, and the others go with their nearest of it
SAMPLE = 3000  # rows on which the number of clusters is chosen and silhouettes are measured
MOST_CLUSTERS = 30
RESTARTS = 5
RESAMPLES, RESAMPLED_SHARE = 3, 0.8
CLEAR_STABILITY = 0.6  # between shapeless clouds and groups: scripts/check_stability.py
VOTERS = 15
FINER, LEAST_ROWS = 3, 50  # components for each cluster, at first, and rows for each component
SPLINTER = 0.2  # of the mean size of a cluster: less is none
SMALL_FIRST = 1.5  # power of the sizes that links are weighed by: 1 is average linkage
LINKS, LINKED = 15, 100_000  # nearest neighbours, of as many rows at most, along which components are joined


@dataclass(frozen=True, eq=False)
class Clustering:
    """Groups of rows.

    Attributes
    ----------
    assignments : (n,) int32
        Cluster of each row, numbered from 0 by falling size; -1 for HDBSCAN's noise.
    method, space : str
    silhouette : float or None
        Mean silhouette (Rousseeuw 1987) of up to 3,000 rows in the space that was clustered, noise
        left out; larger is better, at most 1. None with fewer than two clusters.
    against_labels : dict or None
        ``accuracy`` of the best one-to-one match, ``nmi``, ``ari`` (adjusted Rand index) over labelled rows.
    stability : float or None
        Mean adjusted Rand index between clusterings of two resamples, each from scratch, on the rows they share
        (Ben-Hur et al. 2002): 1 if the groups do not depend on the sample. Measured where the number of
        clusters was not given.
    """

    assignments: NDArray[np.int32]
    method: str
    space: str
    silhouette: float | None
    against_labels: dict[str, float] | None
    stability: float | None = None

    @property
    def unclear(self) -> bool:
        """Whether there is no clear structure: groups that may be an accident of the sample, or not even two."""
        return is_unclear(self.stability, len(self.sizes))

    @property
    def sizes(self) -> list[int]:
        """Rows in each cluster."""
        return [int(s) for s in np.bincount(self.assignments[self.assignments >= 0])]


def is_unclear(stability: float | None, clusters: int) -> bool:
    """As `Clustering.unclear`, of its figures."""
    return stability is not None and (stability < CLEAR_STABILITY or clusters < 2)


def cluster(
    features: Rows,
    *,
    method: str = "gmm",
    clusters: int | None = None,
    space: str = "umap",
    metric: str = "l2",
    labels: list[str] | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Clustering:
    """Group features.

    Parameters
    ----------
    features : (n, d) float32, or what gives such blocks when sliced
        Of more than 100,000 rows a sample is grouped, and the others by `assign`.
    method : {"gmm", "kmeans", "hdbscan"}
        Full-covariance Gaussian mixture, of three times as many components first where there are 50 rows for each,
        joined (compare Baudry et al. 2010) by the modularity of their nearest-neighbour links (Clauset et al. 2004);
        k-means; or HDBSCAN (Campello et al. 2013), which finds its own number of clusters and leaves noise out.
    clusters : int, optional
        By default the number of best silhouette among 2 to 30.
    space : {"umap", "features"}
        Where to group. UMAP to 10 dimensions first, then a mixture, is N2D (McConville et al. 2021).
    labels : list of n str, optional
        Only compared with, never used to group; empty strings are left out.

    Raises
    ------
    AesearchError
        Unknown method or space, or more clusters than rows.
    """
    n = features.shape[0]
    for name, value, allowed in (("method", method, METHODS), ("space", space, SPACES)):
        check_choice(f"cluster {name}", value, allowed)
    if method == "hdbscan" and clusters is not None:
        raise AesearchError("hdbscan finds the number of clusters itself: leave --clusters out")
    if clusters is not None and not 1 <= clusters <= n:
        raise AesearchError(f"{clusters} clusters of {n} images: --clusters must be 1 to {n}")
    drawn = sample_rows(n, FITTED, seed)
    sample = gather(features, drawn)
    points = _place(sample, space, metric, seed, progress)
    number = None if method == "hdbscan" else clusters or _choose_number(points, method, seed)
    groups = _group(points, method, number, seed, RESTARTS, sample, metric)
    if len(drawn) < n:
        groups = _spread(features, sample, groups, drawn, metric, progress)
    assignments = _by_size(groups)
    return Clustering(
        assignments,
        method,
        space,
        silhouette(points, assignments[drawn], seed),
        compare(assignments, labels),
        None if clusters else _stability(sample, method, number, space, metric, seed),
    )


def _spread(
    features: Rows,
    sample: NDArray[np.float32],
    groups: NDArray[np.int64],
    drawn: NDArray[np.int64],
    metric: str,
    progress: bool,
) -> NDArray[np.int64]:
    """Clusters of all rows from those of a sample."""
    nearest = index_of_sample(sample, metric)
    everything = np.empty(features.shape[0], np.int64)
    for start, block in in_blocks(features, "assign" if progress else ""):
        rows, _ = nearest.search(block, min(VOTERS, len(sample)))
        everything[start : start + len(block)] = assign(rows, groups)[0]
    everything[drawn] = groups
    return everything


def assign(neighbours: NDArray[np.int64], assignments: NDArray[Any]) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Clusters of new images, by a vote of their nearest rows; nothing is fitted again.

    Parameters
    ----------
    neighbours : (n, k) int64
        Rows nearest to each new image; -1 where an index found no more.
    assignments : (rows,) int
        As `Clustering.assignments`.

    Returns
    -------
    (n,) int32 and (n,) float
        The cluster most of them are in (-1: noise), and the share of them that are.
    """
    votes = np.where(neighbours < 0, -2, assignments[neighbours]) + 1
    counts = np.stack([(votes == group).sum(axis=1) for group in range(int(assignments.max(initial=-1)) + 2)], axis=1)
    return (counts.argmax(axis=1) - 1).astype(np.int32), counts.max(axis=1) / np.maximum(counts.sum(axis=1), 1)


def carry_names(
    names: Mapping[int, str], before: NDArray[Any], now: NDArray[Any]
) -> tuple[dict[int, str], dict[str, dict[int, int]]]:
    """Names of clusters for others of the same rows, by what they have in common.

    A cluster takes over the name of one that it has more than half of, and that more than half of it comes from: no
    other can have as good a claim.

    Parameters
    ----------
    names : dict
        Number of a cluster as it was, and its name.
    before, now : (n,) int
        Clusters of the same rows as they were and as they are; -1 for none.

    Returns
    -------
    dict
        Number of a cluster as it is, and its name.
    dict
        Of each name that is left over, how many of its rows are in which cluster now, the largest first.
    """
    sizes = np.bincount(now[now >= 0], minlength=1)
    kept: dict[int, str] = {}
    left: dict[str, dict[int, int]] = {}
    for number, name in names.items():
        groups, counts = np.unique(now[before == number], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        found = {int(groups[i]): int(counts[i]) for i in order}
        largest = next(iter(found), -1)
        if largest >= 0 and 2 * found[largest] > max(counts.sum(), sizes[largest]):
            kept[largest] = name
        else:
            left[name] = found
    return kept, left


def _place(
    features: NDArray[np.float32], space: str, metric: str, seed: int, progress: bool = False
) -> NDArray[np.float32]:
    """Points to group."""
    if space == "umap":
        dims = min(UMAP_DIMS, features.shape[1])
        return embed_umap(features, dims, metric=metric, seed=seed, progress=progress)
    return prepare(features, metric)


def _stability(
    features: NDArray[np.float32], method: str, number: int | None, space: str, metric: str, seed: int
) -> float | None:
    """Agreement of clusterings of resamples; None with too few rows to say."""
    from sklearn.metrics import adjusted_rand_score

    generator = np.random.default_rng(seed)
    rows = generator.permutation(len(features))[:SAMPLE]
    size = int(RESAMPLED_SHARE * len(rows))
    if size < 10 or (number is not None and not 1 < number <= size):
        return None
    agreements = []
    for _ in range(RESAMPLES):
        drawn = [np.sort(generator.permutation(rows)[:size]) for _ in range(2)]
        groups = [
            _group(_place(features[d], space, metric, seed + i), method, number, seed + i, 1, features[d], metric)
            for i, d in enumerate(drawn)
        ]
        _, first, second = np.intersect1d(drawn[0], drawn[1], return_indices=True)
        one, other = groups[0][first], groups[1][second]
        grouped = (one >= 0) | (other >= 0)  # to leave the same rows out says nothing of groups
        agreements.append(adjusted_rand_score(one[grouped], other[grouped]) if grouped.any() else 0.0)
    return float(np.mean(agreements))


def _group(
    points: NDArray[np.float32],
    method: str,
    clusters: int | None,
    seed: int,
    restarts: int,
    features: NDArray[np.float32] | None = None,
    metric: str = "l2",
) -> NDArray[np.int64]:
    """Cluster of each point; with the features of enough, a mixture of more components, joined."""
    if method == "hdbscan":
        return _hdbscan(points)
    if len(points) < 2:
        return np.zeros(len(points), dtype=np.int64)
    count = clusters or 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct points than clusters; the result says so itself
        if method == "kmeans":
            from sklearn.cluster import KMeans

            return np.asarray(KMeans(count, n_init=restarts, random_state=seed).fit_predict(points))
        finer = min(FINER * count, len(points) // LEAST_ROWS)
        if features is None or finer <= count:
            return _mixture(points, count, restarts, seed)
        return _join(_mixture(points, finer, 1, seed), _links(features, metric, seed), count, prepare(features, metric))


def _mixture(points: NDArray[np.float32], components: int, restarts: int, seed: int) -> NDArray[np.int64]:
    """Component of each point."""
    from sklearn.mixture import GaussianMixture

    # Double precision and a floor relative to the spread keep covariances of tight groups invertible.
    floor = 1e-6 + 1e-4 * float(points.var())
    mixture = GaussianMixture(components, n_init=restarts, reg_covar=floor, random_state=seed)
    return np.asarray(mixture.fit_predict(points.astype(np.float64)))


def _links(features: NDArray[np.float32], metric: str, seed: int) -> NDArray[np.int64]:
    """Pairs of rows (m, 2): some rows with each of their nearest neighbours among all."""
    rows = np.random.default_rng(seed).permutation(len(features))[:LINKED]
    near, _ = exact_neighbours(features, features[rows], min(LINKS + 1, len(features)), metric)
    return np.stack([np.repeat(rows, near.shape[1]), near.ravel()], axis=1)


def _join(
    groups: NDArray[np.int64], links: NDArray[np.int64], clusters: int, features: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Join groups, two at a time, until so many are left.

    Always the two that raise modularity most. Where none does, for it would join groups without a link as long as
    they are small: first a group of less than a fifth of the mean size with the one whose centre is nearest, as
    splinters without links would stay in place of groups; then the two with the most links for their sizes. Between
    two groups the links from the smaller one count: those from a sparse group end in any denser one, those of a dense
    group in itself.
    """
    names, found = np.unique(groups, return_inverse=True)
    leaving = np.zeros((len(names), len(names)))
    np.add.at(leaving, (found[links[:, 0]], found[links[:, 1]]), 1)
    leaving /= leaving.sum()
    joined = np.arange(len(names))
    for _ in range(len(names) - clusters):
        shares = leaving.sum(axis=1)
        between = np.where(shares[:, None] <= shares, leaving, leaving.T)
        by_chance = np.outer(shares, shares)
        gone = joined != np.arange(len(names))
        value = between - by_chance
        value[gone] = value[:, gone] = -np.inf
        np.fill_diagonal(value, -np.inf)
        if value.max() <= 0 and (pair := _splinter(joined[found], clusters, features)):
            one, other = pair
        else:
            one, other = _most_linked(value, between, by_chance)
        leaving[one] += leaving[other]
        leaving[:, one] += leaving[:, other]
        leaving[other] = leaving[:, other] = 0
        joined[joined == other] = one
    return np.asarray(joined[found])


def _most_linked(
    value: NDArray[np.float64], between: NDArray[np.float64], by_chance: NDArray[np.float64]
) -> tuple[int, int]:
    """The pair that raises modularity most, or else has the most links for its sizes."""
    if value.max() <= 0:
        value = np.where(np.isfinite(value), between / np.maximum(by_chance, 1e-12) ** SMALL_FIRST, -np.inf)
    one, other = np.unravel_index(value.argmax(), value.shape)
    return int(one), int(other)


def _splinter(groups: NDArray[np.int64], clusters: int, features: NDArray[np.float32]) -> tuple[int, int] | None:
    """The group whose centre is nearest to the smallest one, and that, if it is small enough to be none."""
    names, sizes = np.unique(groups, return_counts=True)
    smallest = int(sizes.argmin())
    if sizes[smallest] >= SPLINTER * len(groups) / clusters:
        return None
    centres = np.stack([features[groups == name].mean(axis=0) for name in names])
    far = np.square(centres - centres[smallest]).sum(axis=1)
    far[smallest] = np.inf
    return int(names[far.argmin()]), int(names[smallest])


def _hdbscan(points: NDArray[np.float32]) -> NDArray[np.int64]:
    from sklearn.cluster import HDBSCAN

    if len(points) < 5:
        return np.full(len(points), -1)
    smallest = max(5, len(points) // 200)
    return np.asarray(HDBSCAN(min_cluster_size=smallest, min_samples=5, copy=True).fit_predict(points))


def _choose_number(points: NDArray[np.float32], method: str, seed: int) -> int:
    """Return the number of clusters whose groups, on a sample, have the best silhouette."""
    rows = np.random.default_rng(seed).permutation(len(points))[:SAMPLE]
    sample = points[np.sort(rows)]
    most = min(MOST_CLUSTERS, len(sample) - 1)
    scores = {k: silhouette(sample, _group(sample, method, k, seed, 1), seed) for k in range(2, most + 1)}
    found = {k: s for k, s in scores.items() if s is not None}
    return max(found, key=lambda k: found[k]) if found else 1


def silhouette(points: NDArray[np.float32], assignments: NDArray[Any], seed: int = 0) -> float | None:
    """Mean silhouette of up to 3,000 rows in a cluster; None with fewer than two clusters."""
    from sklearn.metrics import silhouette_score

    rows = np.random.default_rng(seed).permutation(np.flatnonzero(assignments >= 0))[:SAMPLE]
    groups = len(np.unique(assignments[rows]))
    if not 2 <= groups < len(rows):
        return None
    return float(silhouette_score(points[rows], assignments[rows]))


def compare(assignments: NDArray[Any], labels: list[str] | None) -> dict[str, float] | None:
    """Accuracy, NMI and adjusted Rand index against labels; None if there are none."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    names = np.array(labels or [], dtype=str)
    known = np.flatnonzero(names != "")
    if len(known) == 0:
        return None
    truth = np.unique(names[known], return_inverse=True)[1]
    found = np.unique(assignments[known], return_inverse=True)[1]
    table = np.zeros((truth.max() + 1, found.max() + 1), dtype=np.int64)
    np.add.at(table, (truth, found), 1)
    matched = table[linear_sum_assignment(table, maximize=True)].sum()
    return {
        "accuracy": float(matched / len(known)),
        "nmi": float(normalized_mutual_info_score(truth, found)),
        "ari": float(adjusted_rand_score(truth, found)),
    }


def _by_size(raw: NDArray[np.int64]) -> NDArray[np.int32]:
    """Renumber clusters by falling size; noise stays -1."""
    names, counts = np.unique(raw[raw >= 0], return_counts=True)
    new = np.full(raw.max(initial=0) + 2, -1, dtype=np.int32)  # the last entry serves -1
    new[names[np.argsort(-counts, kind="stable")]] = np.arange(len(names))
    return new[raw]
