"""The images of a source, some at a time: in order for extraction, at random for training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError
from aesearch.images.decode import Preprocessing
from aesearch.images.sources.base import Batch, Source
from aesearch.progress import step


def read_batches(source: Source, preprocessing: Preprocessing, groups: Iterable[NDArray[np.int64]]) -> Iterator[Batch]:
    """Read one group of positions after the other, the next while the caller works on this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="read") as reader:
        waiting = None
        for group in groups:
            following = reader.submit(source.read, group, preprocessing)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def in_order(start: int, stop: int, batch_size: int) -> list[NDArray[np.int64]]:
    """Positions start, …, stop - 1 in groups of at most batch_size."""
    return [np.arange(s, min(s + batch_size, stop)) for s in range(start, stop, batch_size)]


class StreamedImages:
    """Images that are read from their source each time they are asked for; nothing is kept."""

    def __init__(self, source: Source, positions: NDArray[np.int64], preprocessing: Preprocessing) -> None:
        self._source, self._positions, self._preprocessing = source, positions, preprocessing

    def __len__(self) -> int:
        return len(self._positions)

    def batches(self, groups: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """Images (n, channels, height, width) uint8 of each group; unreadable ones are left out."""
        positions = (self._positions[group] for group in groups)
        for batch in read_batches(self._source, self._preprocessing, positions):
            yield batch.images


class LoadedImages:
    """Images in memory as one array (n, channels, height, width) uint8."""

    def __init__(self, array: NDArray[np.uint8]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def batches(self, groups: Iterable[NDArray[np.int64]]) -> Iterator[NDArray[np.uint8]]:
        """Images of each group."""
        for group in groups:
            yield self.array[group]


Images = LoadedImages | StreamedImages


def load(
    source: Source, positions: NDArray[np.int64], preprocessing: Preprocessing, *, progress: bool = False
) -> NDArray[np.uint8]:
    """Read those positions into one array; ``SourceError`` if none of them is readable."""
    return load_readable(source, positions, preprocessing, progress=progress)[0]


def load_readable(
    source: Source, positions: NDArray[np.int64], preprocessing: Preprocessing, *, progress: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """As `load`; also the positions of what is in the array."""
    images = np.empty((len(positions), *preprocessing.shape), dtype=np.uint8)
    filled, reason, readable = 0, "", []
    with step("read", len(positions), progress=progress) as bar:
        groups = [positions[g] for g in in_order(0, len(positions), 1024)]
        for batch in read_batches(source, preprocessing, groups):
            images[filled : filled + len(batch.images)] = batch.images
            filled += len(batch.images)
            readable.append(batch.positions)
            reason = reason or (f"{source.ids[batch.skipped[0][0]]}: {batch.skipped[0][1]}" if batch.skipped else "")
            bar.update(len(batch.images) + len(batch.skipped))
    if not filled:
        raise SourceError(f"no usable image in {source.name}, the first of {len(positions)}: {reason}")
    return images[:filled], np.concatenate(readable)


def keep_only(images: NDArray[np.uint8], kept: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Those of the images, moved together in the same memory."""
    rows = np.flatnonzero(kept)
    for group in in_order(0, len(rows), 1024):
        images[group] = images[rows[group]]
    return images[: len(rows)]
