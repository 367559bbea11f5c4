"""What a source of images is."""

from __future__ import annotations

import abc
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError
from aesearch.images.decode import NOTHING, ImageFacts, Preprocessing, Tally, UnreadableImageError
from aesearch.images.worker_processes import content_hash
from aesearch.progress import counted

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


class RowHashes(Sequence[str]):
    """Content hashes of an array's rows, worked out when they are asked for."""

    def __init__(self, rows: NDArray[Any]) -> None:
        self._rows = np.ascontiguousarray(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return content_hash(self._rows[index])
