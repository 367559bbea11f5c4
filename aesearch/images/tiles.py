"""Large pictures in tiles: each tile is an image of its own, and each picture is decoded once for all of them."""

from __future__ import annotations

import itertools
import math
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, SourceError
from aesearch.images.decode import (
    MAX_PIXELS,
    NOTHING,
    ImageFacts,
    Preprocessing,
    UnreadableImageError,
    Whole,
    decode_whole,
    describe,
    larger_side,
    size_in_header,
)
from aesearch.images.sources.base import SAMPLE, Batch, Source
from aesearch.images.sources.files import FileSource
from aesearch.images.worker_processes import content_hash, cores, read_file
from aesearch.progress import counted

Box = tuple[int, int, int, int]  # left, top, width, height in pixels
MARK = "#"  # between a picture's id and a tile's box
LEAST_SIDE, MOST_SIDE = 8, 4096
DECODED_AT_ONCE = 2**26  # pixels of pictures that threads hold, beyond which one is decoded after the other
FEWEST_SAMPLED, SAMPLED_PIXELS = 24, 2**28  # pictures that tell depth and colour, more if they are small
MOST_STITCHED = 2**26  # pixels of one map


@dataclass(frozen=True)
class Tiling:
    """How pictures are cut: squares of ``side`` pixels, one every ``step``; the last ones end at the picture's edge."""

    side: int
    step: int

    @classmethod
    def parse(cls, text: str) -> Tiling:
        """``256``, or ``256,128`` for a tile every 128 pixels; `AesearchError` for anything else."""
        parts = [part.strip() for part in text.split(",")]
        numbers = [int(part) for part in parts if part.isascii() and part.isdecimal() and len(part) < 9]
        if len(numbers) == len(parts) <= 2 and LEAST_SIDE <= numbers[0] <= MOST_SIDE and 1 <= numbers[-1] <= numbers[0]:
            return cls(numbers[0], numbers[-1])
        raise AesearchError(
            f"--tiles {text!r} is not like 256 or 256,128: a side of {LEAST_SIDE} to {MOST_SIDE} pixels, and a step "
            "in pixels that is at most as large"
        )

    def __str__(self) -> str:
        return f"{self.side}" if self.step == self.side else f"{self.side},{self.step}"

    def boxes(self, height: int, width: int) -> list[Box]:
        """The tiles of a picture, line by line; one that is smaller than a tile is one tile."""
        (tops, tall), (lefts, wide) = self._along(height), self._along(width)
        return [(left, top, wide, tall) for top in tops for left in lefts]

    def _along(self, length: int) -> tuple[list[int], int]:
        if length <= self.side:
            return [0], length
        starts = list(range(0, length - self.side + 1, self.step))
        return starts + [length - self.side] * (starts[-1] + self.side < length), self.side


def tile_id(picture: str, box: Box) -> str:
    """``name.png#x,y,w,h``."""
    return f"{picture}{MARK}{','.join(map(str, box))}"


def parse_box(text: str) -> Box:
    """``x,y,w,h`` in pixels; `AesearchError` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) == 4 and all(part.isascii() and part.isdecimal() and len(part) < 9 for part in parts):
        left, top, width, height = map(int, parts)
        if width and height:
            return left, top, width, height
    raise AesearchError(f"a box is left, top, width and height in pixels, like 40,30,128,128, not {text!r}")


def picture_and_box(id: str) -> tuple[str, Box | None]:
    """The picture that a tile is of, and where it lies; None if that is no id of a tile."""
    picture, mark, box = id.rpartition(MARK)
    if mark:
        try:
            return picture, parse_box(box)
        except AesearchError:
            pass
    return id, None


def cut_out(data: bytes, box: Box, like: Preprocessing) -> NDArray[np.uint8]:
    """A box of a picture's file as ``like`` wants images, (channels, height, width) uint8.

    Raises
    ------
    UnreadableImageError
        As `aesearch.images.decode.decode`, and if the box lies outside.
    """
    whole = _decode(data, describe(data), box, like)
    left, top, width, height = box
    if left >= whole.width or top >= whole.height:
        size = f"{whole.width} x {whole.height} pixels"
        raise UnreadableImageError(f"the box {','.join(map(str, box))} lies outside its {size}")
    return whole.cut((left, top, min(width, whole.width - left), min(height, whole.height - top)), like)


def cut_tiles(data: bytes, tiling: Tiling, like: Preprocessing) -> NDArray[np.uint8]:
    """All tiles of a picture's file, (n, channels, height, width) uint8; raises as `aesearch.images.decode.decode`."""
    facts = describe(data)
    boxes = tiling.boxes(facts.height, facts.width)
    whole = _decode(data, facts, boxes[0], like)
    return np.stack([whole.cut(box, like) for box in boxes])


def _decode(data: bytes, size: ImageFacts, box: Box, like: Preprocessing) -> Whole:
    """A picture, no finer than is needed for such boxes of it at the size that is wanted."""
    scale = min(1.0, max(like.height / box[3], like.width / box[2]))
    height, width = (max(1, math.ceil(side * scale)) for side in (size.height, size.width))
    return decode_whole(data, replace(like, height=height, width=width))


class TileSource(Source):
    """Tiles of pictures in files.

    Attributes
    ----------
    tiling : Tiling
    pictures : FileSource
    picture_of : (n,) int64
        Which picture each tile is of.
    boxes : (n, 4) int64
        Left, top, width and height of each.
    sizes : (pictures, 2) int64
        Height and width of each picture, 0 of those that cannot be read.
    """

    def __init__(self, pictures: FileSource, tiling: Tiling) -> None:
        sizes, reasons = _sizes(pictures)
        cut = [tiling.boxes(height, width) if height else [] for height, width in sizes]
        of = np.repeat(np.arange(len(pictures)), [len(boxes) for boxes in cut]).astype(np.int64)
        boxes = [*itertools.chain.from_iterable(cut)]
        if not boxes:
            raise SourceError(f"no usable image in {pictures.name}, the first of {len(pictures)}: {reasons[0][1]}")
        ids = [tile_id(pictures.ids[picture], box) for picture, box in zip(of.tolist(), boxes, strict=True)]
        labels, splits = ([texts[picture] for picture in of.tolist()] for texts in (pictures.labels, pictures.splits))
        super().__init__(pictures.name, ids, labels, splits)
        groups = [group or id for group, id in zip(pictures.groups, pictures.ids, strict=True)]
        self.groups = [groups[picture] for picture in of.tolist()]
        self.tiling, self.pictures = tiling, pictures
        self.picture_of, self.boxes = of, np.array(boxes, np.int64)
        self.sizes = np.array(sizes, np.int64)
        self.opening = pictures.opening | {"tiles": str(tiling)}
        self.listing_skips, self.notes = [*pictures.listing_skips, *reasons], pictures.notes
        self._kept: dict[Preprocessing, tuple[int, Whole, str]] = {}  # a picture that the next tiles are of too

    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Decode each picture once, and cut its tiles."""
        images = np.empty((len(positions), *preprocessing.shape), np.uint8)
        reasons, hashes = [""] * len(positions), [""] * len(positions)
        tallies = {}

        def one(picture: int, places: NDArray[np.int64]) -> None:
            try:
                whole, digest = self._whole(picture, preprocessing, last=int(positions[places[-1]]))
            except UnreadableImageError as error:
                for place in places:
                    reasons[place] = str(error)
                return
            tallies[picture] = whole.tally
            for place in places:
                box = self._box(positions[place])
                images[place] = whole.cut(box, preprocessing)
                hashes[place] = content_hash(tile_id(digest, box).encode())

        self._each_picture(positions, one)
        good = np.array([not reason for reason in reasons], dtype=bool)
        skipped = [(int(p), reason) for p, reason in zip(positions, reasons, strict=True) if reason]
        known = [digest for digest in hashes if digest]
        tally = sum((tallies[picture] for picture in sorted(tallies)), NOTHING)
        return Batch(positions[good], images if good.all() else images[good], known, skipped, tally)

    def thumbnails(self, positions: Sequence[int], side: int, like: Preprocessing) -> list[NDArray[np.uint8] | None]:
        """As `Source.thumbnails`."""
        wanted = np.asarray(positions, np.int64)
        found: list[NDArray[np.uint8] | None] = [None] * len(wanted)

        def one(picture: int, places: NDArray[np.int64]) -> None:
            try:
                data, size = self._read_file(picture), self._size(picture)
                first = self._box(wanted[places[0]])
                whole = _decode(data, size, first, larger_side(like, (first[3], first[2]), side))
            except UnreadableImageError:
                return
            for place in places:
                box = self._box(wanted[place])
                found[place] = whole.cut(box, larger_side(like, (box[3], box[2]), side))

        self._each_picture(wanted, one)
        return found

    def in_picture(self, position: int) -> tuple[float, float, float, float]:
        """Where a tile lies in its picture: left, top, right, bottom in shares of width and height."""
        left, top, wide, tall = self._box(position)
        height, width = self.sizes[self.picture_of[position]].tolist()
        return left / width, top / height, (left + wide) / width, (top + tall) / height

    def of_picture(self, position: int) -> NDArray[np.int64]:
        """Positions of all tiles of the picture that a tile is of."""
        picture = self.picture_of[position]
        return np.arange(*np.searchsorted(self.picture_of, [picture, picture + 1]))

    def stitched(self, position: int, maps: Iterator[NDArray[np.float32]]) -> NDArray[np.float32]:
        """One map of a tile's picture at its own size, (height, width) float32, of one for each of `of_picture`.

        Where tiles lie over one another it is their mean. Of pictures beyond 64 million pixels it is smaller.
        """
        from PIL import Image

        height, width = self.sizes[self.picture_of[position]].tolist()
        shrink = math.ceil(math.sqrt(height * width / MOST_STITCHED))
        total = np.zeros((-(-height // shrink), -(-width // shrink)), np.float32)
        count = np.zeros(total.shape, np.uint8)
        for tile, one in zip(self.of_picture(position), maps, strict=True):
            left, top, wide, tall = (side // shrink for side in self._box(tile))
            size = max(1, wide), max(1, tall)
            larger = Image.fromarray(np.asarray(one, np.float32)).resize(size, Image.Resampling.BILINEAR)
            place = slice(top, top + size[1]), slice(left, left + size[0])
            total[place] += np.asarray(larger)
            count[place] += 1
        return np.asarray(total / np.maximum(count, 1), np.float32)

    def facts(self, position: int) -> ImageFacts:
        """Size of a tile; colour and depth of its picture."""
        facts = describe(self._read_file(int(self.picture_of[position])))
        _, _, width, height = self._box(position)
        return replace(facts, height=height, width=width)

    def sample_facts(self) -> list[ImageFacts]:
        """As `Source.sample_facts`, of one tile of each picture looked at: of large ones fewer, as each is decoded."""
        firsts = np.unique(self.picture_of, return_index=True)[1]
        usual = int(np.median(self.sizes.prod(axis=1)[self.picture_of[firsts]]))
        count = max(FEWEST_SAMPLED, min(SAMPLE, SAMPLED_PIXELS // usual))
        chosen = firsts[np.unique(np.linspace(0, len(firsts) - 1, count).astype(int))]
        facts, reason = [], ""
        for position in counted(chosen, "sample", "picture", len(chosen)):
            try:
                facts.append(self.facts(int(position)))
            except UnreadableImageError as error:
                reason = reason or f"{self.ids[position]}: {error}"
        if not facts:
            raise SourceError(f"no usable image in {self.name}, the first of {len(self)}: {reason}")
        return facts

    @cached_property
    def stamps(self) -> NDArray[np.int64]:
        """As `Source.stamps`: those of the tile's picture."""
        return self.pictures.stamps[self.picture_of]

    def _stamps(self) -> Iterator[str]:
        yield from self.pictures._stamps()

    def _box(self, position: int | np.int64) -> Box:
        left, top, width, height = self.boxes[position].tolist()
        return left, top, width, height

    def _size(self, picture: int) -> ImageFacts:
        height, width = self.sizes[picture].tolist()
        return ImageFacts(height, width, grey=False)

    def _read_file(self, picture: int) -> bytes:
        return read_file(self.pictures.path(picture))

    def _each_picture(self, positions: NDArray[np.int64], work: Callable[[int, NDArray[np.int64]], None]) -> None:
        """Call for each picture with the places of its tiles, by threads where pictures are not too large for that."""
        pictures, part = np.unique(self.picture_of[positions], return_inverse=True)
        order = np.argsort(part, kind="stable")
        places = np.split(order, np.flatnonzero(np.diff(part[order])) + 1) if len(order) else []
        jobs = list(zip(pictures.tolist(), places, strict=True))
        largest = int(self.sizes[pictures].prod(axis=1).max(initial=1))
        threads = min(cores(), len(jobs), max(1, DECODED_AT_ONCE // largest))
        if threads < 2:
            for job in jobs:
                work(*job)
            return
        with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
            list(pool.map(work, *zip(*jobs, strict=True)))

    def _whole(self, picture: int, preprocessing: Preprocessing, last: int) -> tuple[Whole, str]:
        """A decoded picture and its file's hash; kept if after the ``last`` tile that is wanted come more of it."""
        kept = self._kept.pop(preprocessing, None)
        if kept is not None and kept[0] == picture:
            whole, digest = kept[1:]
        else:
            data = self._read_file(picture)
            size = self._size(picture)
            whole, digest = _decode(data, size, self._box(last), preprocessing), content_hash(data)
            if (whole.height, whole.width) != (size.height, size.width):
                raise UnreadableImageError("has another size than its header says, or than before")
        if last + 1 < len(self) and self.picture_of[last + 1] == picture:
            self._kept[preprocessing] = picture, whole, digest
        return whole, digest


def _sizes(pictures: FileSource) -> tuple[list[tuple[int, int]], list[tuple[str, str]]]:
    """Height and width of each picture by its header, (0, 0) and a reason for those that have none."""

    def one(path: Path) -> tuple[int, int] | str:
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                return "not a regular file"
            height, width = size_in_header(path)
        except UnreadableImageError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return (height, width) if height * width <= MAX_PIXELS else f"more than {MAX_PIXELS:,} pixels"

    paths = [pictures.path(position) for position in range(len(pictures))]
    with ThreadPoolExecutor(cores(), thread_name_prefix="measure") as pool:
        found = list(counted(pool.map(one, paths), "measure", "picture", len(paths)))
    reasons = [(id, size) for id, size in zip(pictures.ids, found, strict=True) if isinstance(size, str)]
    return [(0, 0) if isinstance(size, str) else size for size in found], reasons
