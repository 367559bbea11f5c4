"""Searching an index, and reading it from disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError
from aesearch.files.atomic import replacing
from aesearch.files.naming import command_for
from aesearch.vectors.distances import from_squared, prepare

if TYPE_CHECKING:
    import faiss


WORTH_SORTING, NEIGHBOURHOODS = 2**14, 2**11  # queries, from so many on by their likeness to so many of them
RECALL_AT = 10
WRITTEN_AT_ONCE = 2**20  # bytes


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
                raise AesearchError("this kind of index cannot search a subset of its rows: use another") from error
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

        vector = 4 * self.index.d if self.index.is_trained and graph_in(self.index) else self.index.sa_code_size()
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


def graph_in(index: faiss.Index) -> faiss.IndexHNSW | None:
    """The graph in an index, if that is what searches it."""
    import faiss

    while isinstance(index, faiss.IndexIDMap | faiss.IndexPreTransform):
        index = faiss.downcast_index(index.index)
    return index if isinstance(index, faiss.IndexHNSW) else None


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
