"""Small pictures of many images, laid out on few sheets: for pages that show them all."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHEET_SIDE = 2048  # pixels
SIDES = (
    (3000, 64),
    (20_000, 48),
)  # of so many images at most, pixels of a thumbnail's longer side; of more, LEAST_SIDE
LEAST_SIDE = 32
QUALITY = 72  # as WebP
NONE = -1


@dataclass(frozen=True, eq=False)
class Atlas:
    """Thumbnails on sheets, each with as many square places across as down, row after row.

    Attributes
    ----------
    side : int
        Pixels of a place, and of a thumbnail's longer side at most.
    places : (n,) int64
        Where each image's thumbnail lies, counted over all sheets; -1 where there is none.
    sizes : (places, 2) uint8
        Width and height of what lies there, at the top left of its place; 0 where nothing does.
    sheets : list of bytes
        WebP.
    """

    side: int
    places: NDArray[np.int64]
    sizes: NDArray[np.uint8]
    sheets: list[bytes]

    @property
    def across(self) -> int:
        """Places side by side on a sheet."""
        return SHEET_SIDE // self.side

    def extended(
        self, places: NDArray[np.int64], rows: NDArray[np.int64], thumbnails: Iterable[Sequence[Any]]
    ) -> Atlas:
        """Other images in the same places, and more of them, on further sheets.

        Parameters
        ----------
        places : (m,) int64
            Of the images there are now, -1 for those without one.
        rows : (r,) int64
            Which of them get one now.
        thumbnails
            Theirs, (channels, height, width) uint8 of at most `side` pixels or None, some at a time.
        """
        begin = len(self.sheets) * self.across**2
        places, sizes, sheets, number = places.copy(), [], list(self.sheets), 0
        sheet = _Sheet(self.side, self.across)
        for some in thumbnails:
            for picture in some:
                sizes.append(sheet.put(number % self.across**2, picture))
                places[rows[number]] = begin + number if picture is not None else NONE
                number += 1
                if number % self.across**2 == 0:
                    sheets.append(sheet.finish(self.across**2))
        if number % self.across**2:
            sheets.append(sheet.finish(number % self.across**2))
        sizes += [(0, 0)] * (len(sheets) * self.across**2 - begin - number)
        added = np.array(sizes, np.uint8).reshape(-1, 2)
        return Atlas(self.side, places, np.concatenate([self.sizes, added]), sheets)

    def arrays(self) -> dict[str, Any]:
        """For a file; `from_arrays` reads them."""
        ends = np.cumsum([len(sheet) for sheet in self.sheets], dtype=np.int64)
        data = np.frombuffer(b"".join(self.sheets), np.uint8)
        return {"side": np.array([self.side]), "place": self.places, "size": self.sizes, "end": ends, "sheets": data}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Atlas:
        """What `arrays` gave."""
        ends, data = arrays["end"].tolist(), arrays["sheets"].tobytes()
        sheets = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        return cls(int(arrays["side"][0]), arrays["place"], arrays["size"], sheets)


def empty_atlas(count: int) -> Atlas:
    """For so many images, none of which has its thumbnail yet."""
    side = next((side for most, side in SIDES if count <= most), LEAST_SIDE)
    return Atlas(side, np.full(count, NONE, np.int64), np.empty((0, 2), np.uint8), [])


class _Sheet:
    """The sheet that is being filled."""

    def __init__(self, side: int, across: int) -> None:
        self._side, self._across = side, across
        self._pixels = np.full((side * across, side * across, 3), 255, np.uint8)

    def put(self, place: int, picture: NDArray[np.uint8] | None) -> tuple[int, int]:
        """Lay a picture (channels, height, width) down; its width and height."""
        if picture is None:
            return 0, 0
        top, left = place // self._across * self._side, place % self._across * self._side
        _, height, width = picture.shape
        self._pixels[top : top + height, left : left + width] = picture.transpose(1, 2, 0)
        return width, height

    def finish(self, used: int) -> bytes:
        """As WebP, without the rows that nothing lies in; begin another."""
        from PIL import Image

        buffer = io.BytesIO()
        Image.fromarray(self._pixels[: -(-used // self._across) * self._side]).save(buffer, "WEBP", quality=QUALITY)
        self._pixels[:] = 255
        return buffer.getvalue()
