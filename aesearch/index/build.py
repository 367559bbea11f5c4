"""Building an index, and measuring its recall against exact search."""

from __future__ import annotations

import itertools
import logging
import math
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, did_you_mean
from aesearch.index.options import KINDS, LEAST_SAMPLE, SAMPLE_A_LIST, IndexOptions, choose_factory, most_rows
from aesearch.index.search import RECALL_AT, SearchIndex, graph_in
from aesearch.machine import memory_at_hand
from aesearch.vectors.distances import Rows, gather, in_blocks, nearest_in_blocks, prepare

if TYPE_CHECKING:
    import faiss


logger = logging.getLogger(__name__)
# efSearch of the graph that finds lists, when they are filled and when they are searched: FAISS's own, 16, finds them a
# little more surely, but filling then takes most of its time for that.
FILLING_EFFORT, LISTS_EFFORT = 6, 8
PARTED, SAMPLE_A_PARTED_LIST = 1024, 40  # centres, from so many on, are looked for in parts; learning from so many
MOST_IN_FACTORY, MOST_LINKS = 10**7, 512  # in a factory string, and of a graph's node: FAISS itself does not look
HELD_OUT_QUERIES, SINGLE_QUERIES = 1000, 20
LEAST_PROBES = 4  # lists; doubled until the recall is reached
GRAPH_EFFORTS = (16, 32, 64, 128, 256, 512)  # efSearch


def build_index(features: Rows, options: IndexOptions, *, progress: bool = False) -> SearchIndex:
    """Build an index and measure its recall and speed on queries it does not yet hold.

    A random sample is left out, searched for in the index of the rest, compared with exact search, and
    then added; every row keeps its number. The comparison is by distance, so that ties are fair.

    Parameters
    ----------
    features : (n, d) float32, or what gives such blocks when sliced
        At least one row, all finite. Read some blocks at a time: only the index holds them all.
    options : IndexOptions

    Raises
    ------
    AesearchError
        The kind is no FAISS factory string, or cannot be trained on so few rows.
    ValueError
        There is no row, or a number that is not finite.
    """
    n, dim = features.shape
    if n == 0:
        raise ValueError("there are no features")
    builder = _Builder(features, options, progress)
    built = builder.build(*choose_factory(options.kind, n, dim, options.max_memory or memory_at_hand()))
    kind, recall = built.figures["kind"], built.figures["recall_at_10"]
    if recall >= options.min_recall:
        return built
    told = "%s reaches recall@10 %.3f, below %g", kind, recall, options.min_recall
    if options.kind == "auto":
        logger.warning(told[0] + ", and nothing better fits in the memory: raise --max-memory", *told[1:])
        return built
    logger.warning(told[0] + ": exact search instead (--min-recall 0 keeps it)", *told[1:])
    del built  # two at once may be more than fits
    return builder.build("Flat", f"{kind} fell short of --min-recall")


def _make(factory: str, dim: int) -> faiss.Index:
    """Make an empty index; one that cannot take row numbers itself is wrapped."""
    import faiss

    numbers = [int(number[:9]) for number in re.findall(r"[0-9]+", factory)]
    graph = re.search(r"HNSW([0-9]+)", factory)
    if max(numbers, default=0) > MOST_IN_FACTORY or (graph and not 2 <= int(graph[1][:9]) <= MOST_LINKS):
        raise AesearchError(f"index {factory!r} has numbers that FAISS rejects")
    try:
        index = faiss.index_factory(dim, factory, faiss.METRIC_L2)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise AesearchError(
            f"index {factory!r} is none of {', '.join(KINDS)} and no FAISS factory string for {dim} numbers"
            f"{did_you_mean(factory, KINDS)}"
        ) from error
    if "IDMap" in factory:
        raise AesearchError(f"index {factory!r}: rows are numbered without IDMap, leave it out")
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None and faiss.try_extract_index_ivf(_quantizer(ivf)) is not None:
        raise AesearchError(f"index {factory!r}: FAISS may abort on nested IVF lists; use IVF20000_HNSW32,… instead")
    return index if factory == "Flat" or ivf is not None else faiss.IndexIDMap2(index)


def _quantizer(ivf: faiss.IndexIVF | None) -> Any:
    """What finds the lists of an index."""
    import faiss

    made: Any = faiss  # its stubs know too little of this
    return None if ivf is None else made.downcast_index(made.downcast_index(ivf).quantizer)


def _look_for_lists(index: faiss.Index, effort: int) -> None:
    """Set how thoroughly a graph looks for an index's lists, if one does."""
    import faiss

    lists = _quantizer(faiss.try_extract_index_ivf(index))
    if isinstance(lists, faiss.IndexHNSW):
        lists.hnsw.efSearch = effort


class _Builder:
    """Builds indexes over the same rows, and measures them with the same queries."""

    def __init__(self, features: Rows, options: IndexOptions, progress: bool) -> None:
        self._features, self._options, self._progress = features, options, progress
        self._order = np.random.default_rng(options.seed).permutation(features.shape[0])
        self._held_out = np.sort(self._order[: min(HELD_OUT_QUERIES, len(self._order) // 10)])
        self._farthest: NDArray[np.float32] | None = None  # distance of each query's last true neighbour

    def build(self, factory: str, reason: str) -> SearchIndex:
        """Train, fill, measure."""
        times = [time.perf_counter()]
        n, dim = self._features.shape
        index = _make(factory, dim)
        figures: dict[str, Any] = {"kind": factory, "reason": reason, "effort": None, "queries": 0}
        figures |= {"recall_at_10": 1.0, "recall_interval": [1.0, 1.0]}
        queries = self._gather(self._held_out)
        held_out = self._held_out[:0] if factory == "Flat" else self._held_out
        try:
            if not index.is_trained:
                self._train(index)
            _look_for_lists(index, FILLING_EFFORT)
            self._fill(index, held_out)
            _look_for_lists(index, LISTS_EFFORT)
            times.append(time.perf_counter())
            if len(held_out):
                figures |= self._measure(index, queries)
            figures["queries_per_second"] = _speeds(index, queries if len(queries) else self._gather(self._order[:1]))
            times.append(time.perf_counter())
            if len(held_out):
                index.add_with_ids(queries, held_out)
            times.append(time.perf_counter())
        except RuntimeError as error:
            raise AesearchError(f"index {factory!r} cannot be built over {n} rows: use --index flat") from error
        filling, measuring, adding = np.diff(times)
        figures |= {"seconds": round(float(filling + adding), 3), "measuring_seconds": round(float(measuring), 3)}
        return SearchIndex(index, self._options.metric, figures)

    def _blocks(self, doing: str = "", size: int | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """First row and prepared vectors of one block after the other."""
        for start, block in in_blocks(self._features, doing if self._progress else "", size):
            if not np.isfinite(block).all():
                raise ValueError(f"features of rows {start} to {start + len(block) - 1} are not all finite")
            yield start, prepare(block, self._options.metric)

    def _gather(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Prepared vectors of those rows, which rise."""
        return prepare(gather(self._features, rows), self._options.metric)

    def _train(self, index: faiss.Index) -> None:
        """Learn from some rows: FAISS itself would take more of them to the same end."""
        import faiss

        made: Any = faiss  # its stubs know too little of this
        ivf = made.try_extract_index_ivf(index)
        lists = 0 if ivf is None else int(made.downcast_index(ivf).nlist)
        parted = isinstance(_quantizer(ivf), faiss.IndexHNSW) and isinstance(index, faiss.IndexIVF) and lists >= PARTED
        wanted = max(LEAST_SAMPLE, (SAMPLE_A_PARTED_LIST if parted else SAMPLE_A_LIST) * lists)
        sample = self._gather(np.sort(self._order[len(self._held_out) :][:wanted]))
        if parted:
            _quantizer(ivf).add(_centres(sample, lists, self._options.seed))
        index.train(sample)

    def _fill(self, index: faiss.Index, held_out: NDArray[np.int64]) -> None:
        import faiss

        n, dim = self._features.shape
        vectors = None
        if isinstance(index, faiss.IndexFlat):  # it would grow by copying itself
            index.codes.resize(4 * n * dim)
            vectors = faiss.rev_swig_ptr(index.codes.data(), 4 * n * dim).view(np.float32).reshape(n, dim)
            index.ntotal = n
        for start, block in self._blocks("index", most_rows(dim) if graph_in(index) else None):
            if vectors is not None:
                vectors[start : start + len(block)] = block
            else:
                rows = np.arange(start, start + len(block))
                kept = ~np.isin(rows, held_out)
                index.add_with_ids(block[kept], rows[kept])

    def _measure(self, index: faiss.Index, queries: NDArray[np.float32]) -> dict[str, Any]:
        """Raise the effort until the recall is reached; the recall, and the effort."""
        import faiss

        if self._farthest is None:
            k = min(RECALL_AT, len(self._order) - len(queries))
            nearest, _ = nearest_in_blocks(self._blocks("exact"), queries, k, without=self._held_out)
            self._farthest = self._distances(queries, nearest)[:, -1:]
        figures: dict[str, Any] = {"queries": len(queries)}
        for effort in _efforts(index) or [{}]:
            for name, value in effort.items():
                faiss.ParameterSpace().set_index_parameter(index, name, value)
            figures["effort"] = effort or None
            found = self._recalls(index, queries)
            if found.mean() >= self._options.min_recall:
                break
        half = 1.96 * float(found.std()) / math.sqrt(len(found))
        recall = float(found.mean())
        return figures | {"recall_at_10": recall, "recall_interval": [max(0.0, recall - half), min(1.0, recall + half)]}

    def _recalls(self, index: faiss.Index, queries: NDArray[np.float32]) -> NDArray[np.float64]:
        """Share of each query's true nearest that were found, by true distances: codes know theirs only roughly."""
        assert self._farthest is not None
        _, rows = index.search(queries, min(RECALL_AT, len(self._order) - len(queries)))
        near_enough = self._distances(queries, rows) <= self._farthest * (1 + 1e-5)
        return np.asarray((near_enough & (rows >= 0)).mean(axis=1), dtype=np.float64)

    def _distances(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Exact distances (m, k) of queries (m, d) to rows (m, k)."""
        wanted, places = np.unique(np.maximum(rows, 0), return_inverse=True)
        vectors = self._gather(wanted)[places.reshape(rows.shape)]
        return np.asarray(np.linalg.norm(vectors - queries[:, None], axis=2), dtype=np.float32)


def _centres(sample: NDArray[np.float32], count: int, seed: int) -> NDArray[np.float32]:
    """Centres (count, d) of rows (n, d) by k-means in parts, and in each of as many as it has of the rows.

    Of all at once it would take as long as their number times that of the rows.
    """
    import faiss

    made: Any = faiss  # its stubs know nothing of arrays
    dim, parts = sample.shape[1], round(math.sqrt(count))
    outer = made.Kmeans(dim, parts, seed=seed, niter=10)
    outer.train(sample)
    members = outer.index.search(sample, 1)[1][:, 0]
    order = np.argsort(members, kind="stable")
    ends = np.searchsorted(members[order], np.arange(parts + 1))
    shares = np.diff(np.round(ends * (count / len(sample))).astype(int))  # they add up to the count
    centres = []
    for begin, end, share in zip(ends[:-1], ends[1:], shares, strict=True):
        if share:
            inner = made.Kmeans(dim, int(share), seed=seed, niter=10, min_points_per_centroid=1)
            inner.train(sample[order[begin:end]])
            centres.append(inner.centroids)
    return np.concatenate(centres)


def _efforts(index: faiss.Index) -> list[dict[str, int]]:
    """Settings to try, from quick to thorough; none for an index without such a setting."""
    import faiss

    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        lists = int(faiss.downcast_index(ivf).nlist)  # type: ignore[attr-defined]
        steps = itertools.takewhile(lambda v: v < lists, (LEAST_PROBES << n for n in itertools.count()))
        return [{"nprobe": v} for v in [*steps, lists]]
    return [] if graph_in(index) is None else [{"efSearch": v} for v in GRAPH_EFFORTS]


def _speeds(index: faiss.Index, queries: NDArray[np.float32]) -> dict[str, float]:
    """Queries a second: the first ones one by one, and all as one batch."""
    k = min(RECALL_AT, index.ntotal)
    times = []
    for query in queries[:SINGLE_QUERIES]:
        started = time.perf_counter()
        index.search(query[None], k)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    index.search(queries, k)
    batch = len(queries) / (time.perf_counter() - started)
    return {"1": round(1 / float(np.median(times)), 1), str(len(queries)): round(batch, 1)}


def describe_figures(figures: dict[str, Any]) -> str:
    """Say in one line which index it is, how true and how quick."""
    effort = "".join(f", {name} {value}" for name, value in (figures["effort"] or {}).items())
    recall = f"recall@10 {figures['recall_at_10']:.3f}"
    if figures["queries"]:
        low, high = figures["recall_interval"]
        recall += f" ({low:.3f} to {high:.3f}, {figures['queries']} held-out queries)"
    else:
        recall += " (exact)"
    speeds = " and ".join(f"{speed:,.0f} in batches of {n}" for n, speed in figures["queries_per_second"].items())
    size = f", {figures['bytes_per_vector']:.0f} bytes a vector" if "bytes_per_vector" in figures else ""
    return f"{figures['kind']} ({figures['reason']}{effort}), {recall}, queries/s: {speeds}{size}"
