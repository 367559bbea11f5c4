"""Bringing an index up to date with changed rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.index.search import SearchIndex, graph_in
from aesearch.vectors.distances import Rows, gather, prepare

MOST_CHANGED = 0.2  # of the rows: beyond, a new index is better and hardly dearer


def update_index(
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
    elif isinstance(index, faiss.IndexIDMap2) and graph_in(index) is not None:
        faiss.copy_array_to_vector(number[faiss.vector_to_array(index.id_map)], index.id_map)
        index.construct_rev_map()
    else:
        return None
    if len(added):
        index.add_with_ids(prepare(gather(features, added), metric), added)
    return SearchIndex(index, metric, {})
