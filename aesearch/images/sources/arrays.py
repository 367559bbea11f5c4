"""Arrays as a source."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
    describe_image,
    describe_values,
    fit,
    scale_to_uint8,
)
from aesearch.images.formats import values_of
from aesearch.images.sources.base import Batch, RowHashes, Source


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
