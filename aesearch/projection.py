"""Features to a few coordinates: UMAP, t-SNE, PCA."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, check_choice
from aesearch.index.build import build_index
from aesearch.index.options import IndexOptions
from aesearch.index.search import SearchIndex
from aesearch.vectors.distances import Rows, exact_neighbours, gather, in_blocks, prepare
from aesearch.vectors.sampling import sample_rows

METHODS = ("umap", "tsne", "pca", "latent")
FITTED = {"umap": 100_000, "tsne": 20_000, "pca": 1_000_000, "latent": 1_000_000}  # rows; of more a sample is
PLACED_BY, CLOSE = 5, 1e-6  # nearest fitted rows, and a distance that counts as none
EXACT_SAMPLE = 20_000  # rows, beyond which an index finds the nearest of a sample


@dataclass(frozen=True, eq=False)
class Projection:
    """Coordinates (n, dims) float32, row-aligned with the features, and the method that gave them.

    ``axes`` are, where the coordinates are some of the features as they are, which of them.
    """

    coordinates: NDArray[np.float32]
    method: str
    axes: tuple[int, ...] = ()


def project(
    features: Rows,
    *,
    method: str = "umap",
    dims: int = 2,
    metric: str = "l2",
    seed: int = 0,
    progress: bool = False,
) -> Projection:
    """Lay features out in two or three dimensions.

    Parameters
    ----------
    features : (n, d) float32, or what gives such blocks when sliced
        Of many, a sample is fitted and the others are placed beside their nearest of it, see `place`.
    method : {"umap", "tsne", "pca", "latent"}
        UMAP (McInnes, Healy & Melville 2018), t-SNE (van der Maaten & Hinton 2008), principal
        components, or the features as they are: those that vary most. t-SNE takes far longer than UMAP.
    dims : {2, 3}
    metric : {"cosine", "l2"}
        Of the features.

    Raises
    ------
    AesearchError
        Unknown method, or too few rows for it.
    """
    check_choice("map method", method, METHODS)
    if dims not in (2, 3):
        raise AesearchError(f"a map has 2 or 3 dimensions, not {dims}")
    fitted = sample_rows(features.shape[0], FITTED[method], seed)
    sample = gather(features, fitted)
    coordinates = _fit(sample, method, dims, metric, seed, progress)
    if len(fitted) < features.shape[0]:
        everything = place(features, sample, coordinates, metric, progress=progress)
        everything[fitted] = coordinates
        coordinates = everything
    axes = _widest(sample, dims) if method == "latent" and dims < features.shape[1] else np.empty(0, np.int64)
    return Projection(coordinates, method, tuple(axes.tolist()))


def _fit(
    vectors: NDArray[np.float32], method: str, dims: int, metric: str, seed: int, progress: bool
) -> NDArray[np.float32]:
    if method == "umap":
        coordinates = embed_umap(
            vectors, dims, metric=metric, seed=seed, neighbours=15, min_dist=0.1, progress=progress
        )
    elif method == "tsne":
        coordinates = _embed_tsne(prepare(vectors, metric), dims, seed)
    elif method == "latent":
        coordinates = vectors[:, _widest(vectors, dims)]
    else:
        coordinates = _embed_pca(prepare(vectors, metric), dims)
    return np.ascontiguousarray(coordinates, dtype=np.float32)


def index_of_sample(sample: NDArray[np.float32], metric: str) -> SearchIndex:
    """What finds the nearest of a sample for many others."""
    return build_index(sample, IndexOptions("flat" if len(sample) <= EXACT_SAMPLE else "ivf", metric))


def place(
    features: Rows,
    fitted: NDArray[np.float32],
    coordinates: NDArray[np.float32],
    metric: str,
    *,
    progress: bool = False,
) -> NDArray[np.float32]:
    """Coordinates (n, dims) float32 of rows by those of their 5 nearest fitted ones, the nearer counting more.

    Parameters
    ----------
    features : (n, d) float32, or what gives such blocks when sliced
    fitted : (m, d) float32
    coordinates : (m, dims) float32
        Of the fitted rows.
    """
    nearest = index_of_sample(fitted, metric)
    placed = np.empty((features.shape[0], coordinates.shape[1]), np.float32)
    for start, block in in_blocks(features, "place" if progress else ""):
        rows, distances = nearest.search(block, min(PLACED_BY, len(fitted)))
        placed[start : start + len(block)] = between(coordinates[rows], distances)
    return placed


def between(coordinates: NDArray[np.float32], distances: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places (n, dims) float32 between k others (n, k, dims), the nearer counting more; infinitely far ones do not."""
    weights = 1 / np.maximum(distances, CLOSE)
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("nk,nkd->nd", weights, coordinates), dtype=np.float32)


def embed_umap(
    features: NDArray[np.float32],
    dims: int,
    *,
    metric: str,
    seed: int,
    neighbours: int = 20,
    min_dist: float = 0.0,
    progress: bool = False,
) -> NDArray[np.float32]:
    """UMAP on exact neighbours: (n, dims) float32, the same for the same seed on one machine.

    The defaults are those for clustering: wide neighbourhoods, points as close as they like.
    """
    n = len(features)
    if n < 4:
        raise AesearchError(f"UMAP needs at least 4 images, there are {n}: use --method pca, or --space features")
    neighbours = min(neighbours, n - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about n_jobs with a seed, and transform() with given neighbours
        reducer = _umap().UMAP(
            n_components=dims,
            n_neighbors=neighbours,
            min_dist=min_dist,
            random_state=seed,
            n_jobs=1,
            init="spectral" if n > 10 * dims else "random",
            precomputed_knn=_neighbours(features, neighbours, metric),
            tqdm_kwds={"desc": "umap", "bar_format": None, "disable": None if progress else True},
        )
        return np.asarray(reducer.fit_transform(prepare(features, metric)), dtype=np.float32)


def _umap() -> Any:
    """Import UMAP; where numba finds no folder to keep what it compiles in, it keeps that for this process alone."""
    try:
        import umap
    except RuntimeError:  # "cannot cache function …: no locator available"
        folder = tempfile.mkdtemp(prefix="aesearch-")  # nobody else's: numba runs what it finds in it
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        sys.modules["numba"].config.CACHE_DIR = folder
        import umap
    return umap


def _neighbours(features: NDArray[np.float32], k: int, metric: str) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Exact neighbours in UMAP's form: each row its own first neighbour."""
    n = len(features)
    rows, distances = exact_neighbours(features, features, k, metric)
    own = rows == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True  # among many equal rows a row may not find itself
    order = np.argsort(~own, axis=1, kind="stable")
    rows = np.take_along_axis(rows, order, axis=1)
    rows[:, 0] = np.arange(n)
    distances = np.take_along_axis(distances, order, axis=1)
    distances[:, 0] = 0
    return rows.astype(np.int32), distances


def _embed_tsne(vectors: NDArray[np.float32], dims: int, seed: int) -> NDArray[np.float32]:
    from sklearn.manifold import TSNE

    if len(vectors) < 4:
        raise AesearchError(f"t-SNE needs at least 4 images, there are {len(vectors)}: use --method pca")
    perplexity = min(30.0, (len(vectors) - 1) / 3)
    # Started from principal components without any spread, scikit-learn's gradient crashes on NaN.
    init = "pca" if min(vectors.shape) >= dims and np.ptp(vectors, axis=0).any() else "random"
    tsne = TSNE(dims, perplexity=perplexity, init=init, random_state=seed)
    return np.asarray(tsne.fit_transform(vectors), dtype=np.float32)


def _embed_pca(vectors: NDArray[np.float32], dims: int) -> NDArray[np.float32]:
    """Principal components; axes without any spread stay 0."""
    from sklearn.decomposition import PCA

    coordinates = np.zeros((len(vectors), dims), dtype=np.float32)
    kept = min(dims, *vectors.shape)
    if np.ptp(vectors, axis=0).any():
        coordinates[:, :kept] = PCA(kept, random_state=0).fit_transform(vectors)
    return coordinates


def _widest(features: NDArray[np.float32], dims: int) -> NDArray[np.int64]:
    """Which numbers have the largest spread, in their own order."""
    if features.shape[1] < dims:
        raise AesearchError(f"a latent of {features.shape[1]} numbers has no {dims} dimensions: use --dims 2, or pca")
    return np.sort(np.argsort(-features.std(axis=0), kind="stable")[:dims])
