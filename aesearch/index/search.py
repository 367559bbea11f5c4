"""The FAISS index over features: which kind, how it is built, how true and how quick its answers are."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, check_choice, did_you_mean
from aesearch.files.atomic import replacing
from aesearch.files.naming import command_for
from aesearch.machine import memory_at_hand
from aesearch.vectors.distances import METRICS, Rows, from_squared, gather, in_blocks, nearest_in_blocks, prepare

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

KINDS = ("auto", "flat", "hnsw", "ivf", "ivfpq")
# Measured by scripts/benchmark_index.py: up to here exact search is quick, even of every row among all the others;
# beyond, inverted lists answer as quickly as a graph, and are built in a fraction of its time.
FLAT_MOST_NUMBERS = 4_000_000
LISTS = 2.0  # times the root of the rows: more are searched a little quicker, but built much more slowly …
LONGEST_LIST = 500  # … but of no more rows than this each, or a search would take the longer the more there are
MOST_ROWS, MOST_NUMBERS = 2**18, 2**24  # that an index is given or asked at once, at most: many go quicker together
# efSearch of the graph that finds lists, when they are filled and when they are searched: FAISS's own, 16, finds them a
# little more surely, but filling then takes most of its time for that.
FILLING_EFFORT, LISTS_EFFORT = 6, 8
WORTH_SORTING, NEIGHBOURHOODS = 2**14, 2**11  # queries, from so many on by their likeness to so many of them
MOST_CHANGED = 0.2  # of the rows: beyond, a new index is better and hardly dearer
SAMPLE_A_LIST, LEAST_SAMPLE = 64, 2**16  # rows that lists, and product quantisers, learn from
PARTED, SAMPLE_A_PARTED_LIST = 1024, 40  # centres, from so many on, are looked for in parts; learning from so many
SLACK = 1.5  # inverted lists grow by doubling
MOST_IN_FACTORY, MOST_LINKS = 10**7, 512  # in a factory string, and of a graph's node: FAISS itself does not look
HELD_OUT_QUERIES, SINGLE_QUERIES = 1000, 20
LEAST_PROBES = 4  # lists; doubled until the recall is reached
GRAPH_EFFORTS = (16, 32, 64, 128, 256, 512)  # efSearch
RECALL_AT = 10
WRITTEN_AT_ONCE = 2**20  # bytes


@dataclass(frozen=True)
class IndexOptions:
    """How the index is built.

    Attributes
    ----------
    kind : str
        ``auto``, ``flat`` (exact), ``hnsw``, ``ivf``, ``ivfpq``, or any FAISS factory string.
    metric : {"cosine", "l2"}
    min_recall : float
        Below this recall@10 the search effort is raised, then another index taken. 0 keeps any index.
    max_memory : int, optional
        Bytes that an index chosen by ``auto`` may hold; by default half of the machine's memory.
    seed : int
        Draws the held-out queries.
    """

    kind: str = "auto"
    metric: str = "cosine"
    min_recall: float = 0.95
    max_memory: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        if not 0 <= self.min_recall <= 1:
            raise AesearchError(f"min-recall must lie in [0, 1], not {self.min_recall}")
        if self.max_memory is not None and self.max_memory < 1:
            raise AesearchError(f"max-memory must be above 0, not {self.max_memory}")

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
        ``kind``, ``reason``, ``recall_at_10`` with its 95 % ``recall_interval``, ``queries`` it was measured on,
        ``effort``, ``queries_per_second`` one by one and in one batch, ``seconds`` to build it, ``measuring_seconds``
        to find out all this.
    """

    index: faiss.Index
    metric: str
    figures: dict[str, Any]

    def search(
        self, queries: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Nearest rows of each query, nearest first.

        Parameters
        ----------
        queries : (m, d) float32
        k : int
            At most the number of rows.
        among : (p,) int64, optional
            The only rows that may be found, rising. The fewer they are, the more thorough the search.

        Returns
        -------
        rows (m, k) int64, distances (m, k) float32
            Row -1 where an approximate index, or one of ``among`` few rows, found fewer than k.
        """
        if queries.ndim != 2 or queries.shape[1] != self.index.d:
            raise ValueError(f"queries of shape {queries.shape} for an index of dimension {self.index.d}")
        if not 0 < k <= self.index.ntotal:
            raise ValueError(f"k = {k} for {self.index.ntotal} rows")
        vectors = prepare(queries, self.metric)
        if among is None and not self.tombstones:
            squared, rows = np.empty((len(vectors), k), np.float32), np.empty((len(vectors), k), np.int64)
            order = _by_neighbourhood(vectors)
            squared[order], rows[order] = self.index.search(vectors[order], k)
        else:
            # The selector must outlive the search: FAISS keeps no hold of it.
            selector, share = self._selector(among)
            try:
                squared, rows = self.index.search(vectors, k, params=_parameters(self.index, selector, share, k))
            except RuntimeError as error:
                raise AesearchError("this kind of index cannot search among some of its rows: take another") from error
        return rows, from_squared(np.where(rows < 0, np.inf, squared), self.metric)

    @cached_property
    def tombstones(self) -> int:
        """Vectors of a graph whose rows are gone: they are passed over."""
        import faiss

        if not isinstance(self.index, faiss.IndexIDMap):
            return 0
        return int((faiss.vector_to_array(self.index.id_map) < 0).sum())

    def _selector(self, among: NDArray[np.int64] | None) -> tuple[faiss.IDSelector, float]:
        """What lets those rows pass, and the share of all that they are."""
        import faiss

        if among is None:
            return faiss.IDSelectorRange(0, 2**62), 1 - self.tombstones / self.index.ntotal
        passing = np.zeros(max(self.index.ntotal, int(among.max(initial=0)) + 1), dtype=bool)
        passing[among] = True
        made: Any = faiss  # its stubs know nothing of arrays
        selector = made.IDSelectorBitmap(np.packbits(passing, bitorder="little"))
        return selector, max(len(among), 1) / self.index.ntotal

    def save(self, path: Path) -> None:
        """Write the FAISS file, whole or not at all."""
        import faiss

        vector = 4 * self.index.d if self.index.is_trained and _graph(self.index) else self.index.sa_code_size()
        with replacing(path, self.index.ntotal * vector) as temporary, temporary.open("wb") as file:
            made: Any = faiss  # its stubs know nothing of it; writing itself, FAISS overlooks that a disk is full
            faiss.write_index(self.index, made.PyCallbackIOWriter(file.write, WRITTEN_AT_ONCE))


def load_index(path: Path, metric: str, rows: int, dim: int) -> SearchIndex:
    """Open an index, mapped into memory where FAISS can; ``AesearchError`` if it is damaged or of another shape."""
    import faiss

    remedy = f"run {command_for('build-index', path.parent)}"
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise AesearchError(f"{path} is no index, or is damaged: {remedy}") from error
    loaded = SearchIndex(index, metric, {})
    if (index.ntotal - loaded.tombstones, index.d) != (rows, dim):
        raise AesearchError(f"{path} does not fit the features: {remedy}")
    return loaded


def bring_along(
    path: Path, metric: str, came_from: NDArray[np.int64], features: Rows, *, before: int, changed: int = 0
) -> SearchIndex | None:
    """Give an index its rows' new numbers, take out those that are gone, add new ones.

    Parameters
    ----------
    came_from : (n,) int64
        Row before of each row now, -1 for a new one.
    features : (n, d) float32, or what gives such blocks when sliced
        Of the rows now.
    before : int
        Rows before.
    changed : int
        Rows added or removed by earlier updates, since it was built.

    Returns
    -------
    SearchIndex or None
        None where building it anew is cheaper, or the index is damaged, or of a kind that cannot be changed.
    """
    import faiss

    try:
        index = faiss.read_index(str(path))
    except RuntimeError:
        return None
    kept = np.flatnonzero(came_from >= 0)
    added = np.flatnonzero(came_from < 0)
    known, fits = index.ntotal, index.ntotal - SearchIndex(index, metric, {}).tombstones == before
    changed += len(added) + before - len(kept)
    if isinstance(index, faiss.IndexFlat) or not fits or changed > MOST_CHANGED * before:
        return None
    number = np.full(known + 1, -1, np.int64)  # the last one serves rows that were gone before
    number[came_from[kept]] = kept
    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        index.remove_ids(faiss.IDSelectorBatch(np.flatnonzero(number[:known] < 0)))
        lists = faiss.downcast_InvertedLists(faiss.downcast_index(ivf).invlists)  # type: ignore[attr-defined]
        for n in range(lists.nlist):
            if size := lists.list_size(n):
                ids = faiss.rev_swig_ptr(lists.get_ids(n), size)
                ids[:] = number[ids]
    elif isinstance(index, faiss.IndexIDMap2) and _graph(index) is not None:
        faiss.copy_array_to_vector(number[faiss.vector_to_array(index.id_map)], index.id_map)
        index.construct_rev_map()
    else:
        return None
    if len(added):
        index.add_with_ids(prepare(gather(features, added), metric), added)
    return SearchIndex(index, metric, {})


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


def most_rows(dim: int) -> int:
    """How many vectors of so many numbers an index is best given or asked at once."""
    return max(1, min(MOST_ROWS, MOST_NUMBERS // dim))


def choose_factory(kind: str, rows: int, dim: int, memory: int) -> tuple[str, str]:
    """FAISS factory string, with the reason in a few words.

    Parameters
    ----------
    memory : int
        Bytes that one chosen by ``auto`` may hold while it is built.
    """
    lists = max(1, min(int(LISTS * math.sqrt(rows)), rows // 44))  # FAISS wants 39 training points a list, 10% held out
    parted = f"IVF{lists}"
    if rows > LONGEST_LIST * lists:  # so many that a graph finds them
        lists = rows // LONGEST_LIST
        parted = f"IVF{lists}_HNSW32"
    codes = next(m for m in (32, 16, 8, 4, 2, 1) if dim % m == 0 and m <= dim)
    named = {"flat": "Flat", "hnsw": "HNSW32", "ivf": f"{parted},Flat", "ivfpq": f"{parted},PQ{codes}x8np"}
    if kind != "auto":
        return named.get(kind, kind), "as asked"
    if rows * dim <= FLAT_MOST_NUMBERS and 4 * dim * rows <= memory:
        return "Flat", "exact search is quick at this size"
    numbers = {f"{parted},Flat": 4 * dim, f"{parted},SQ8": dim, f"{parted},PQ{codes}x8np": codes}  # bytes of a vector
    learned_from = 2 * 4 * dim * SAMPLE_A_LIST * lists  # as it is read, and prepared
    best, *_, smallest = numbers
    fits = (f for f, size in numbers.items() if max(SLACK * (size + 8) * rows, learned_from) <= memory)
    chosen = next(fits, smallest)
    if chosen != best:
        return chosen, f"{best} would take more than {memory / 1e9:.1f} GB of memory"
    return chosen, "too many rows for quick exact search"


def least_bytes(options: IndexOptions, rows: int, dim: int) -> int:
    """How large such an index will be, at least, as far as that can be told beforehand."""
    factory, _ = choose_factory(options.kind, rows, dim, options.max_memory or memory_at_hand())
    return 4 * rows * dim if re.fullmatch(r"(IVF\d+(_HNSW32)?,)?Flat|HNSW\d+", factory) else 0


def _make(factory: str, dim: int) -> faiss.Index:
    """Make an empty index; one that cannot take row numbers itself is wrapped."""
    import faiss

    numbers = [int(number[:9]) for number in re.findall(r"[0-9]+", factory)]
    graph = re.search(r"HNSW([0-9]+)", factory)
    if max(numbers, default=0) > MOST_IN_FACTORY or (graph and not 2 <= int(graph[1][:9]) <= MOST_LINKS):
        raise AesearchError(f"index {factory!r} has numbers that FAISS cannot do with")
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
        raise AesearchError(
            f"index {factory!r}: FAISS may abort over lists of lists; IVF20000_HNSW32,… is what it can do"
        )
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


def _graph(index: faiss.Index) -> faiss.IndexHNSW | None:
    """The graph in an index, if that is what searches it."""
    import faiss

    while isinstance(index, faiss.IndexIDMap | faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index if isinstance(index, faiss.IndexHNSW) else None


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
        for start, block in self._blocks("index", most_rows(dim) if _graph(index) else None):
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


def _by_neighbourhood(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """An order of many queries (n, d) in which like follows like; as they are where there are few.

    One after the other looks at the same rows then, which stay in the processor's cache.
    """
    import faiss

    if len(vectors) < WORTH_SORTING:
        return np.arange(len(vectors))
    some = np.ascontiguousarray(vectors[:: len(vectors) // NEIGHBOURHOODS])
    return np.argsort(faiss.knn(vectors, some, 1)[1][:, 0], kind="stable")


def _parameters(index: faiss.Index, selector: faiss.IDSelector, share: float, k: int) -> faiss.SearchParameters:
    """How to search for k among selected rows: the fewer they are of all, the harder."""
    import faiss

    made: Any = faiss  # its stubs know nothing of these parameters
    if isinstance(index, faiss.IndexPreTransform):
        inner = faiss.downcast_index(index.index)
        return made.SearchParametersPreTransform(index_params=_parameters(inner, selector, share, k))
    if isinstance(index, faiss.IndexIVF):
        probes = min(index.nlist, math.ceil(index.nprobe / share))
        return made.SearchParametersIVF(sel=selector, nprobe=probes)
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexIDMap) else index
    if isinstance(inner, faiss.IndexHNSW):
        effort = min(index.ntotal, math.ceil(max(inner.hnsw.efSearch, k) / share))
        return made.SearchParametersHNSW(sel=selector, efSearch=effort)
    return made.SearchParameters(sel=selector)


def _efforts(index: faiss.Index) -> list[dict[str, int]]:
    """Settings to try, from quick to thorough; none for an index without such a setting."""
    import faiss

    ivf = faiss.try_extract_index_ivf(index)
    if ivf is not None:
        lists = int(faiss.downcast_index(ivf).nlist)  # type: ignore[attr-defined]
        steps = itertools.takewhile(lambda v: v < lists, (LEAST_PROBES << n for n in itertools.count()))
        return [{"nprobe": v} for v in [*steps, lists]]
    return [] if _graph(index) is None else [{"efSearch": v} for v in GRAPH_EFFORTS]


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
