"""The FAISS index over features: which kind, how it is built, how true its answers are."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.atomic import replacing
from aesearch.distances import METRICS, exact_neighbours, from_squared, prepare
from aesearch.errors import AesearchError

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

KINDS = ("auto", "flat", "hnsw", "ivf", "ivfpq")
# Measured by scripts/benchmark_index.py: exact search answers one query within 10 ms up to here …
FLAT_MOST_NUMBERS = 16_000_000
# … and beyond this many rows inverted lists are built in a fraction of the graph's time.
HNSW_MOST_ROWS = 500_000
HELD_OUT_QUERIES = 1000
EFFORTS = {"nprobe": (4, 8, 16, 32, 64, 128, 256), "efSearch": (16, 32, 64, 128, 256, 512)}
RECALL_AT = 10


@dataclass(frozen=True)
class IndexOptions:
    """How the index is built.

    Attributes
    ----------
    kind : str
        ``auto``, ``flat`` (exact), ``hnsw``, ``ivf``, ``ivfpq``, or any FAISS factory string.
    metric : {"cosine", "l2"}
    min_recall : float
        Below this recall@10 the search effort is raised, then exact search used. 0 keeps any index.
    seed : int
        Draws the held-out queries.
    """

    kind: str = "auto"
    metric: str = "cosine"
    min_recall: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise AesearchError(f"metric {self.metric!r} is not one of {', '.join(METRICS)}")
        if not 0 <= self.min_recall <= 1:
            raise AesearchError(f"min-recall must lie in [0, 1], not {self.min_recall}")

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """A FAISS index whose answers are row numbers of the store.

    Attributes
    ----------
    index : faiss.Index
        Over squared Euclidean distances of prepared vectors.
    metric : str
    figures : dict
        ``kind``, ``reason``, ``recall_at_10``, ``queries``, ``effort``, ``seconds``.
    """

    index: faiss.Index
    metric: str
    figures: dict[str, Any]

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Nearest rows of each query, nearest first.

        Parameters
        ----------
        queries : (m, d) float32
        k : int
            At most the number of rows.

        Returns
        -------
        rows (m, k) int64, distances (m, k) float32
            Row -1 where an approximate index found fewer than k.
        """
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise ValueError(f"queries of shape {queries.shape} for an index of dimension {self.index.d}")
        if not 0 < k <= self.index.ntotal:
            raise ValueError(f"k = {k} for {self.index.ntotal} rows")
        squared, rows = self.index.search(prepare(queries, self.metric), k)
        return rows, from_squared(squared, self.metric)

    def save(self, path: Path) -> None:
        """Write the FAISS file, whole or not at all."""
        import faiss

        with replacing(path) as temporary:
            faiss.write_index(self.index, str(temporary))


def load_index(path: Path, metric: str, rows: int, dim: int) -> SearchIndex:
    """Read an index; ``AesearchError`` if it is damaged or of another shape."""
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError as error:
        raise AesearchError(f"{path} is no index, or is damaged: run aesearch build-index") from error
    if (index.ntotal, index.d) != (rows, dim):
        raise AesearchError(f"{path} does not fit the features: run aesearch build-index")
    return SearchIndex(index, metric, {})


def build_index(features: NDArray[np.float32], options: IndexOptions) -> SearchIndex:
    """Build an index and measure its recall on queries it does not yet hold.

    A random sample is left out, searched for in the index of the rest, compared with exact search, and
    then added; every row keeps its number. The comparison is by distance, so that ties are fair.

    Parameters
    ----------
    features : (n, d) float32
        At least one row, all finite.
    options : IndexOptions

    Raises
    ------
    AesearchError
        The kind is no FAISS factory string, or cannot be trained on so few rows.
    """
    n, dim = features.shape
    if n == 0 or not np.isfinite(features).all():
        raise ValueError(f"features of shape {features.shape} must be finite and at least one row")
    started = time.perf_counter()
    factory, reason = choose_factory(options.kind, n, dim)
    vectors = prepare(features, options.metric)
    figures: dict[str, Any] = {"kind": factory, "reason": reason, "recall_at_10": 1.0, "queries": 0, "effort": None}
    index = None
    if factory != "Flat":
        index = _build_measured(vectors, factory, options, figures)
        if figures["recall_at_10"] < options.min_recall:
            logger.warning(
                "%s reaches recall@10 %.3f, below %g: exact search instead (--min-recall 0 keeps it)",
                factory,
                figures["recall_at_10"],
                options.min_recall,
            )
            figures |= {
                "kind": "Flat",
                "reason": f"{factory} fell short of --min-recall",
                "effort": None,
                "recall_at_10": 1.0,
                "queries": 0,
            }
            index = None
    if index is None:
        index = _make("Flat", dim)
        index.add(vectors)
    figures["seconds"] = round(time.perf_counter() - started, 2)
    return SearchIndex(index, options.metric, figures)


def choose_factory(kind: str, rows: int, dim: int) -> tuple[str, str]:
    """FAISS factory string for a kind, and why in a few words."""
    lists = max(1, min(int(4 * math.sqrt(rows)), rows // 44))  # FAISS wants 39 training points a list, 10% held out
    named = {
        "flat": "Flat",
        "hnsw": "HNSW32",
        "ivf": f"IVF{lists},Flat",
        "ivfpq": f"IVF{lists},PQ{next(m for m in (32, 16, 8, 4, 2, 1) if dim % m == 0 and m <= dim)}x8",
    }
    if kind != "auto":
        return named.get(kind, kind), "as asked"
    if rows * dim <= FLAT_MOST_NUMBERS:
        return named["flat"], "exact search is quick at this size"
    if rows <= HNSW_MOST_ROWS:
        return named["hnsw"], "too many rows for quick exact search"
    return named["ivf"], "too many rows to build a graph quickly"


def _make(factory: str, dim: int) -> faiss.Index:
    """Make an empty index; one that cannot take row numbers itself is wrapped."""
    import faiss

    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_L2)
    except (RuntimeError, ValueError) as error:
        raise AesearchError(
            f"index {factory!r} is none of {', '.join(KINDS)} and no FAISS factory string for {dim} numbers"
        ) from error
    takes_rows = factory == "Flat" or factory.startswith("IDMap") or faiss.try_extract_index_ivf(index) is not None
    return index if takes_rows else faiss.IndexIDMap2(index)


def _build_measured(
    vectors: NDArray[np.float32], factory: str, options: IndexOptions, figures: dict[str, Any]
) -> faiss.Index:
    """Build, raise the effort until the recall is reached, and note both in ``figures``."""
    import faiss

    n = len(vectors)
    order = np.random.default_rng(options.seed).permutation(n)
    held_out = np.sort(order[: min(HELD_OUT_QUERIES, n // 10)])
    kept = np.setdiff1d(np.arange(n), held_out)
    index = _make(factory, vectors.shape[1])
    try:
        index.train(vectors[kept])
        index.add_with_ids(vectors[kept], kept)
    except RuntimeError as error:
        raise AesearchError(f"index {factory!r} cannot be built over {n} rows: use --index flat") from error
    if len(held_out):
        k = min(RECALL_AT, len(kept))
        _, truth = exact_neighbours(vectors[kept], vectors[held_out], k, "l2")
        for effort in _efforts(index, len(kept)):
            name, value = effort
            faiss.ParameterSpace().set_index_parameter(index, name, value)
            figures["effort"] = {name: value}
            figures["recall_at_10"] = _recall(index, vectors[held_out], truth)
            if figures["recall_at_10"] >= options.min_recall:
                break
        else:
            figures["recall_at_10"] = _recall(index, vectors[held_out], truth)
        figures["queries"] = len(held_out)
        index.add_with_ids(vectors[held_out], held_out)
    return index


def _efforts(index: faiss.Index, rows: int) -> list[tuple[str, int]]:
    """Settings to try, from quick to thorough; none for an index without such a setting."""
    import faiss

    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        lists = int(faiss.downcast_index(ivf).nlist)  # type: ignore[attr-defined]
        return [("nprobe", v) for v in EFFORTS["nprobe"] if v < lists] + [("nprobe", lists)]
    inner = faiss.downcast_index(index.index) if hasattr(index, "index") else index
    if isinstance(inner, faiss.IndexHNSW):
        return [("efSearch", v) for v in EFFORTS["efSearch"]]
    return []


def _recall(index: faiss.Index, queries: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Share of the true k nearest that were found, judged by the k-th true distance (l2)."""
    squared, rows = index.search(queries, truth.shape[1])
    near_enough = np.sqrt(np.maximum(squared, 0)) <= truth[:, -1:] * (1 + 1e-4) + 1e-6
    return float((near_enough & (rows >= 0)).mean())


def describe_figures(figures: dict[str, Any]) -> str:
    """Say in one line which index it is and how true."""
    effort = f", {json.dumps(figures['effort'])[1:-1]}" if figures["effort"] else ""
    measured = f"on {figures['queries']} held-out queries" if figures["queries"] else "exact"
    return f"{figures['kind']} ({figures['reason']}{effort}), recall@10 {figures['recall_at_10']:.3f} ({measured})"
