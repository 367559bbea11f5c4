"""A source string to images: which ones, in what order, with what ids, labels and splits."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError
from aesearch.images.decode import (
    NOTHING,
    ImageFacts,
    Preprocessing,
    Tally,
    UnreadableImageError,
    describe,
    describe_image,
    describe_values,
    fit,
    scale_to_uint8,
    thumbnail,
)
from aesearch.images.formats import values_of
from aesearch.images.worker_processes import Outcome, Readers, content_hash, cores, read_file, read_images
from aesearch.progress import counted

FILES_AT_ONCE = 64  # that a thread or a process decodes before it asks for more
SMALL_BYTES = 4096  # files up to here, in the mean, are decoded so quickly that threads hinder one another …
WAITING = 1e-3  # … unless one takes that many seconds all the same, as over a network
WORTH_READERS = 0.25  # seconds of reading after which processes take over, …
MANY = 64  # … asked for at once
SAMPLE = 200  # images looked at to choose size, channels and depth


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of a source.

    Attributes
    ----------
    positions : (n,) int64
        Where in the source each image stands; positions that gave no image are missing.
    images : (n, channels, height, width) uint8
    hashes : sequence of str
        Content hash of each image's file, or of its pixels.
    skipped : list of (position, reason)
        The positions that gave no image.
    tally : Tally
        What decoding left out of the others.
    """

    positions: NDArray[np.int64]
    images: NDArray[np.uint8]
    hashes: Sequence[str]
    skipped: list[tuple[int, str]] = field(default_factory=list)
    tally: Tally = NOTHING


class Source(abc.ABC):
    """Images in a fixed order; nothing is decoded before it is asked for.

    Attributes
    ----------
    name : str
    opening : dict
        What opens the same source again, from any working folder.
    ids, labels, splits : list of str
        One per image; labels and splits are empty strings where there are none.
    listing_skips : list of (id, reason)
        What was listed but cannot be a row, found before decoding.
    notes : list of str
        What people must know of how it was found, a line each.
    masks : dict of id to Path
        Files that say where in an image its faults are, of an inspection set.
    groups : list of str
        Images of the same name belong together, as exposures of one part do; empty for one that is alone.
    """

    def __init__(self, name: str, ids: list[str], labels: list[str], splits: list[str]) -> None:
        if not len(ids) == len(labels) == len(splits):
            raise ValueError(f"{len(ids)} ids, {len(labels)} labels, {len(splits)} splits")
        if not ids:
            raise SourceError(f"there is no image in {name}")
        self.name, self.ids, self.labels, self.splits = name, ids, labels, splits
        self.opening: dict[str, Any] = {"name": name}
        self.listing_skips: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.masks: dict[str, Path] = {}
        self.groups = [""] * len(ids)

    def __len__(self) -> int:
        return len(self.ids)

    def texts(self, name: str, positions: NDArray[np.int64]) -> list[str]:
        """``id``, ``label``, ``split`` or ``group`` of the images at those positions."""
        values = {"id": self.ids, "label": self.labels, "split": self.splits, "group": self.groups}[name]
        return [values[p] for p in positions]

    @abc.abstractmethod
    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Decode the images at those positions, in that order."""

    @abc.abstractmethod
    def thumbnails(self, positions: Sequence[int], side: int, like: Preprocessing) -> list[NDArray[np.uint8] | None]:
        """Images to look at, each in its own shape, (channels, height, width) uint8; None for what cannot be read.

        Parameters
        ----------
        side : int
            Pixels of the longer side, at most; smaller images stay as they are.
        like : Preprocessing
            Gives channels, the scale of deep images and the paper.
        """

    @abc.abstractmethod
    def facts(self, position: int) -> ImageFacts:
        """Size, colour and depth of one image; ``UnreadableImageError`` if it cannot be read."""

    @abc.abstractmethod
    def _stamps(self) -> Iterator[str]:
        """What changes when the images do."""

    @cached_property
    def stamps(self) -> NDArray[np.int64]:
        """Size in bytes and time of change in ns of each image's file, (n, 2) int64; -1 where there is none."""
        return np.full((len(self), 2), -1, np.int64)

    @cached_property
    def fingerprint(self) -> str:
        """Changes when files are added, removed, resized or touched; nothing is decoded."""
        digest = hashlib.blake2b(digest_size=16)
        groups = self.groups if any(self.groups) else []
        for values in (self.ids, self.labels, self.splits, groups, self._stamps()):
            for value in values:
                digest.update(value.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()

    def sample_facts(self) -> list[ImageFacts]:
        """Facts of up to ``SAMPLE`` readable images, evenly spread; ``SourceError`` if none is readable."""
        facts, reason = [], ""
        chosen = np.unique(np.linspace(0, len(self) - 1, SAMPLE).astype(int))
        for position in counted(chosen, "sample", "img", len(chosen)):
            try:
                facts.append(self.facts(int(position)))
            except UnreadableImageError as error:
                reason = reason or f"{self.ids[position]}: {error}"
        if facts:
            return facts
        for position in range(len(self)):  # the sample was unlucky: any readable image will do
            with contextlib.suppress(UnreadableImageError):
                return [self.facts(position)]
        raise SourceError(f"no usable image in {self.name}, the first of {len(self)}: {reason}")

    def positions_of(self, splits: Sequence[str]) -> NDArray[np.int64]:
        """Positions of the images in any of those splits."""
        return np.flatnonzero(np.isin(self.splits, list(splits)))


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


class ArraySource(Source):
    """Images of one shape in an array, read a slice at a time.

    Parameters
    ----------
    read_rows : callable
        Sorted positions (n,) int64 to (n, h, w) or (n, h, w, c), integers, bool, or float in [0, 1].
    shape : tuple of int
        Shape of one image: (h, w) or (h, w, c).
    stamp : str
        What changes when the array does.
    """

    def __init__(
        self,
        name: str,
        read_rows: Callable[[NDArray[np.int64]], NDArray[Any]],
        shape: tuple[int, ...],
        ids: list[str],
        labels: list[str],
        splits: list[str],
        stamp: str,
    ) -> None:
        super().__init__(name, ids, labels, splits)
        if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            raise SourceError(
                f"{name} holds arrays of shape {shape}: images are (height, width) or (height, width, 1, 3 or 4)"
            )
        self._read_rows, self._shape, self._stamp = read_rows, shape, stamp

    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Read rows; where size and channels fit already, the whole batch at once."""
        raw = self._read_in_order(positions)
        reasons = self._unusable(raw)
        good = np.array([not r for r in reasons], dtype=bool)
        if not good.all():
            raw = raw[good]
        pixels, tally = self._to_uint8(raw, preprocessing)
        images = self._arrange(pixels, preprocessing)
        skipped = [(int(p), r) for p, r in zip(positions, reasons, strict=True) if r]
        return Batch(positions[good], images, RowHashes(raw), skipped, tally)

    def thumbnails(self, positions: Sequence[int], side: int, like: Preprocessing) -> list[NDArray[np.uint8] | None]:
        """As `Source.thumbnails`."""
        scale = min(1.0, side / max(self._shape[:2]))
        height, width = (max(1, round(length * scale)) for length in self._shape[:2])
        wanted = np.unique(np.asarray(positions, dtype=np.int64))
        batch = self.read(wanted, replace(like, height=height, width=width))
        found = dict(zip(batch.positions.tolist(), batch.images, strict=True))
        return [found.get(int(position)) for position in positions]

    def _read_in_order(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Rows in the order asked for, though files are read forwards; `SourceError` if the file has changed."""
        order = np.argsort(positions, kind="stable")
        try:
            rows = self._read_rows(positions[order])
        except (OSError, ValueError, KeyError, IndexError, EOFError) as error:
            raise SourceError(f"{self.name} is gone, or has changed: run the same command again") from error
        if rows.shape != (len(positions), *self._shape):
            raise SourceError(f"{self.name} has changed: run the same command again")
        return rows if (np.diff(order) > 0).all() else rows[np.argsort(order)]

    def facts(self, position: int) -> ImageFacts:
        """As `Source.facts`."""
        raw = self._read_in_order(np.array([position]))
        if reason := self._unusable(raw)[0]:
            raise UnreadableImageError(reason)
        if raw.dtype == np.uint8 or raw.dtype.kind in "bf":
            return describe_image(_to_pillow(self._to_uint8(raw, Preprocessing(1, 1, 1))[0][0]))
        image = raw[0, ..., :3] if raw.ndim == 4 else raw[0]
        return describe_values(values_of(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))

    def _stamps(self) -> Iterator[str]:
        yield self._stamp

    def _unusable(self, raw: NDArray[Any]) -> list[str]:
        """Reason for each row that cannot be an image, empty where it can."""
        if raw.dtype.kind in "bu":
            return [""] * len(raw)
        if raw.dtype.kind == "i":
            negative = raw.min(axis=tuple(range(1, raw.ndim)), initial=0) < 0
            return ["has negative values" if n else "" for n in negative]
        if raw.dtype.kind != "f":
            raise SourceError(f"{self.name} holds {raw.dtype} values: images are integers, or floats in [0, 1]")
        axes = tuple(range(1, raw.ndim))
        finite = np.isfinite(raw).all(axis=axes)
        inside = (raw.min(axis=axes) >= 0) & (raw.max(axis=axes) <= 1)
        return [
            "" if ok else "has values outside [0, 1]" if whole else "has values that are not finite"
            for whole, ok in zip(finite, finite & inside, strict=True)
        ]

    def _to_uint8(self, raw: NDArray[Any], preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], Tally]:
        """Scale rows to 8 bits, and count what lies outside the scale."""
        if raw.dtype == np.uint8:
            return raw, NOTHING
        whole = Preprocessing(1, 1, 1, white=float(np.iinfo(raw.dtype).max) if raw.dtype.kind in "ui" else 1.0)
        if raw.dtype.kind in "bf":
            return scale_to_uint8(raw, whole)[0], NOTHING
        pixels, outside = scale_to_uint8(raw, preprocessing)
        if raw.ndim == 4 and raw.shape[3] == 4 and preprocessing.black is not None:
            colours = np.ascontiguousarray(raw[..., :3])
            outside = scale_to_uint8(colours, preprocessing)[1]
            pixels[..., 3] = scale_to_uint8(raw[..., 3], whole)[0]
        return pixels, Tally(0, len(raw), int(np.count_nonzero(outside)), raw.size, int(outside.sum()))

    def _arrange(self, pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """(n, h, w) or (n, h, w, c) to (n, channels, height, width)."""
        stacked = pixels[..., None] if pixels.ndim == 3 else pixels
        if stacked.shape[1:] == (preprocessing.height, preprocessing.width, preprocessing.channels):
            return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))
        images = np.empty((len(pixels), *preprocessing.shape), dtype=np.uint8)
        for row, image in enumerate(pixels):
            images[row] = fit(_to_pillow(image), preprocessing)
        return images


def _to_pillow(pixels: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


class RowHashes(Sequence[str]):
    """Content hashes of an array's rows, worked out when they are asked for."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = np.ascontiguousarray(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return content_hash(self._rows[index])
