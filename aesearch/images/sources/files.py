"""Image files as a source."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.images.decode import NOTHING, ImageFacts, Preprocessing, Tally, UnreadableImageError, describe, thumbnail
from aesearch.images.sources.base import Batch, Source
from aesearch.images.worker_processes import Outcome, Readers, cores, read_file, read_images
from aesearch.progress import counted

FILES_AT_ONCE = 64  # that a thread or a process decodes before it asks for more
SMALL_BYTES = 4096  # files up to here, in the mean, are decoded so quickly that threads hinder one another …
WAITING = 1e-3  # … unless one takes that many seconds all the same, as over a network
WORTH_READERS = 0.25  # seconds of reading after which processes take over, …
MANY = 64  # … asked for at once


class FileSource(Source):
    """Image files, by path."""

    def __init__(self, name: str, paths: list[Path], ids: list[str], labels: list[str], splits: list[str]) -> None:
        super().__init__(name, ids, labels, splits)
        self._paths = paths
        self._process = 0
        self._begin()

    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Decode files."""
        paths = [str(self._paths[p]) for p in positions.tolist()]
        images = np.empty((len(paths), *preprocessing.shape), dtype=np.uint8)
        outcomes = self._read(paths, preprocessing, images)
        good = np.array([not reason for _, reason, _ in outcomes], dtype=bool)
        skipped = [(int(p), reason) for p, (_, reason, _) in zip(positions, outcomes, strict=True) if reason]
        tally = sum((Tally(*counted) for _, _, counted in outcomes if counted), NOTHING)
        if skipped:
            images = images[good]
        return Batch(positions[good], images, [digest for digest, _, _ in outcomes if digest], skipped, tally)

    def thumbnails(self, positions: Sequence[int], side: int, like: Preprocessing) -> list[NDArray[np.uint8] | None]:
        """As `Source.thumbnails`."""
        self._begin()

        def one(position: int) -> NDArray[np.uint8] | None:
            try:
                return thumbnail(read_file(self._paths[position]), side, like)
            except UnreadableImageError:
                return None

        return list(self._threads.map(one, positions))

    def _begin(self) -> None:
        """Have threads, and readers later on, that are this process's own: those of one it was forked from are not."""
        if self._process != os.getpid():
            self._threads = ThreadPoolExecutor(cores(), thread_name_prefix="decode")
            self._readers: Readers | None = None
            self._spent = 0.0  # seconds of reading
            self._process = os.getpid()  # the last: another thread looks at it

    def _read(self, paths: list[str], preprocessing: Preprocessing, images: NDArray[np.uint8]) -> list[Outcome]:
        """As `read_images`: by this thread, by one a core, or by processes once they are worth their start."""
        self._begin()
        began = time.perf_counter()
        if self._readers is None and self._spent > WORTH_READERS and len(paths) >= MANY:
            self._readers = Readers()
        readers = self._readers if self._readers and self._readers.ready else None
        read = readers.read if readers else read_images

        def some(part: slice) -> list[Outcome]:
            return read(paths[part], preprocessing, images[part])

        size = max(1, min(FILES_AT_ONCE, len(paths) // (4 * cores())))
        parts = [slice(start, start + size) for start in range(0, len(paths), size)]
        done: list[Outcome] = []
        slow = 0 if not readers and _are_small(paths) else 2
        while parts and slow < 2:
            part, started = parts.pop(0), time.perf_counter()
            done += some(part)
            slow = slow + 1 if time.perf_counter() - started > WAITING * size else 0
        done += itertools.chain.from_iterable(self._threads.map(some, parts))
        self._spent += time.perf_counter() - began
        return done

    def facts(self, position: int) -> ImageFacts:
        """As `Source.facts`."""
        return describe(read_file(self._paths[position]))

    def path(self, position: int) -> Path:
        """Where the file lies."""
        return self._paths[position]

    @cached_property
    def stamps(self) -> NDArray[np.int64]:
        """As `Source.stamps`."""
        stamps = np.full((len(self), 2), -1, np.int64)
        for position, path in enumerate(counted(self._paths, "look at files", "file", len(self._paths))):
            with contextlib.suppress(OSError):
                status = path.stat()
                stamps[position] = status.st_size, status.st_mtime_ns
        return stamps

    def _stamps(self) -> Iterator[str]:
        for size, changed in self.stamps.tolist():
            yield f"{size} {changed}" if size >= 0 else "gone"


def _are_small(paths: Sequence[str]) -> bool:
    """Whether these files are, in the mean of some of them."""
    sizes = [0]
    for path in paths[:: max(1, len(paths) // FILES_AT_ONCE)]:
        with contextlib.suppress(OSError, ValueError):
            sizes.append(Path(path).stat().st_size)
    return sum(sizes) <= SMALL_BYTES * len(sizes)
