"""One image file to one uint8 array, the same way wherever an image comes in."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError
from aesearch.images.formats import (
    LARGEST,
    TIFFS,
    Values,
    deep_png,
    deep_ppm,
    deep_tiff,
    name_format,
    open_tiff,
    read_fits,
    tiffs_no_data,
    values_of,
)
from aesearch.images.formats import UnreadableImageError as UnreadableImageError

if TYPE_CHECKING:
    from PIL import Image

MAX_PIXELS = 178_956_970  # beyond this a small file can fill the memory: Pillow's own error limit
MAX_SLOW_PIXELS = 2**24  # of the formats that Pillow decodes pixel by pixel, in Python
MAX_FILE_BYTES = 2**30
MOST_SCANS = 50  # of a JPEG: each goes over all its pixels, and may take some bytes of the file only
MOST_SIDE = 4096  # pixels of an encoder's input
LARGEST_SIDE = 64  # longer medians are reduced to this unless --image-size says otherwise
GREY_TOLERANCE = 3  # levels of 255 that JPEG's chroma may differ in a picture that is grey

# Raster formats only: EPS and WMF start other programs.
FORMATS = tuple(
    "AVIF BLP BMP DDS DIB GIF ICNS ICO IM JPEG JPEG2000 MSP PCX PNG PPM PSD QOI SGI SPIDER SUN TGA TIFF WEBP".split()
)
ONE_PICTURE = ("MPO", "PSD", "ICO", "ICNS")  # whose other frames are previews, layers, sizes of it
DEEP_MODES = ("I", "F")  # and "I;16…": more than 8 bits a pixel
TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
SIDEWAYS = (2, 4, 5, 6)  # ROTATE_90, ROTATE_270, TRANSPOSE, TRANSVERSE swap height and width
DRAFT_FACTOR, DRAFT_BOX, FULL_SIZE = 2, "aesearch_box", "aesearch_size"
HEAD, SMALL_TIFF = 4096, 2**20  # bytes that name a format; TIFFs of which no header is asked
JPEG, TURNED = b"\xff\xd8\xff", (b"Exif\0\0", b"tiff:Orientation")  # what may say how a picture lies: EXIF, XMP
SCAN, SMALL_JPEG = b"\xff\xda", 2**16
FITS = b"SIMPLE  ="
STRIPS = (273, 324)  # TIFF's tags of where its strips or tiles lie
BIT_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
LOOKED_AT = 2**20  # values of an image from which its levels are told
TAIL = 1e-3  # of an image's values may lie beyond its levels at either end, …
FEW = 20  # … and one of so many images beyond the scale of a collection
WORTH_SAYING = 0.01  # of the values of a single image, outside the scale
AT_ONCE = 2**22  # values scaled at once
MOST_WEIGHED = 256  # pixels a side of an image whose visible parts are weighed against papers
PAPERS = (255, 0, 128)  # grey levels that transparency may be laid on, the first where others are no better


@dataclass(frozen=True)
class Preprocessing:
    """How any image becomes the network's input; kept with the encoder.

    Attributes
    ----------
    height, width : int
        Pixels; images of another size are resized to it, stretched if need be.
    channels : int
        1 (grey) or 3 (RGB).
    black, white : float
        The integers that become 0 and 255, in images deeper than 8 bits. Without ``black``, in encoders of earlier
        versions, integers and floats are scaled by ``white`` alone, and colours by their bit depth.
    float_black, float_white : float
        The floats that do.
    paper : int
        The grey level that transparency is laid on.
    """

    height: int
    width: int
    channels: int
    white: float = 65535.0
    black: float | None = None
    float_black: float = 0.0
    float_white: float = 1.0
    paper: int = 255

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image: (channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def pixels(self) -> int:
        """Numbers in one image."""
        return self.channels * self.height * self.width

    def __str__(self) -> str:
        return f"{self.height}x{self.width} {'grey' if self.channels == 1 else 'RGB'}"

    def scales(self) -> str:
        """The scale of images deeper than 8 bits, in words."""
        if self.black is None:
            return f"0 to {self.white:,.7g}"
        floats = f"{self.float_black:,.7g} to {self.float_white:,.7g} of floats"
        return f"{self.black:,.7g} to {self.white:,.7g} of integers, {floats}"

    def scale(self, dtype: np.dtype[Any]) -> tuple[float, float]:
        """Black and white of images whose values are of that type."""
        if self.black is None:
            return 0.0, self.white
        return (self.float_black, self.float_white) if dtype.kind == "f" else (self.black, self.white)


def larger_side(preprocessing: Preprocessing, native: tuple[int, int], longest: int) -> Preprocessing:
    """The same for images of another size: their own, ``native``, but the longer side at most so many pixels."""
    scale = min(1.0, longest / max(native))
    height, width = (max(1, round(side * scale)) for side in native)
    return dataclasses.replace(preprocessing, height=height, width=width)


@dataclass(frozen=True)
class Levels:
    """The lowest and the highest value of an image deeper than 8 bits, but for a thousandth of them at either end."""

    low: float
    high: float
    floats: bool


@dataclass(frozen=True)
class Tally:
    """What decoding left out, counted over images.

    Attributes
    ----------
    several : int
        Files of several pages, planes or frames, of which the first was taken.
    deep, clipped : int
        Images deeper than 8 bits, and those of them with values outside the collection's scale.
    values, outside : int
        Values of the deep images, and those of them outside the scale.
    """

    several: int = 0
    deep: int = 0
    clipped: int = 0
    values: int = 0
    outside: int = 0

    def lines(self, preprocessing: Preprocessing) -> list[str]:
        """What is to be said of it."""
        said = []
        if self.several:
            said.append(f"{self.several:,} files have several pages, planes or frames: of each the first is taken")
        if self.clipped:
            images, share = f"{self.clipped:,} of {self.deep:,} images deeper than 8 bits", self.outside / self.values
            scale = f"the collection's scale ({preprocessing.scales()})"
            said.append(f"{images} have values outside {scale}, {100 * share:.2g} % of all: these are clipped")
        return said

    def of_one(self, preprocessing: Preprocessing) -> list[str]:
        """What is to be said of it, where it is of one image that is asked about."""
        said = ["it has several pages, planes or frames: the first is taken"] if self.several else []
        if self.outside > WORTH_SAYING * self.values:
            share = f"{self.outside / self.values:.0%} of its values lie outside the collection's scale"
            said.append(f"{share} ({preprocessing.scales()}) and are clipped")
        return said

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


NOTHING = Tally()


@dataclass(frozen=True)
class ImageFacts:
    """What one image tells about the preprocessing its collection needs."""

    height: int
    width: int
    grey: bool
    levels: Levels | None = None  # of images deeper than 8 bits
    contrasts: tuple[float, ...] | None = None  # of the visible pixels to each of PAPERS, where some are transparent


def decode(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode the bytes of an image file: the pixels that `decode_counting` gives."""
    return decode_counting(data, preprocessing)[0]


def decode_counting(data: bytes, preprocessing: Preprocessing) -> tuple[NDArray[np.uint8], Tally]:
    """Decode the bytes of an image file.

    Returns
    -------
    (channels, height, width) uint8, and what was left out

    Raises
    ------
    UnreadableImageError
        No image, broken, larger than ``MAX_PIXELS``, or a JPEG of more than ``MOST_SCANS`` scans.
    """
    plain = _plain_jpeg(data, preprocessing)
    if plain is not None:
        return plain, NOTHING
    from PIL import Image

    image, turn, tally = _open(data, preprocessing)
    lying = preprocessing if turn not in SIDEWAYS else on_its_side(preprocessing)
    pixels = fit(image, lying, box=image.info.get(DRAFT_BOX))
    if turn is None:
        return pixels, tally
    upright = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).transpose(turn)
    return fit(upright, preprocessing), tally


@dataclass(frozen=True, eq=False)
class Whole:
    """A decoded picture, upright and of 8 bits, that pieces are cut from.

    Attributes
    ----------
    image : Pillow image, L or RGB
    scale : float
        Pixels of it for one of the file's: a JPEG is decoded no finer than is needed.
    height, width : int
        In the file's pixels.
    tally : Tally
    """

    image: Image.Image
    scale: float
    height: int
    width: int
    tally: Tally
    _sheets: dict[tuple[int, ...], NDArray[np.uint8] | None] = field(default_factory=dict)

    def cut(self, box: tuple[int, int, int, int], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """A box, left, top, width and height in the file's pixels, as the preprocessing wants it: (c, h, w) uint8.

        Pixels at its edge are means of what lies beyond it, too. So where its corner is that of a pixel of the whole
        picture so reduced, the second box and all others are cut from that, which is quicker.
        """
        left, top, width, height = box
        wide, high = preprocessing.width, preprocessing.height
        whole_pixels = left * wide % width == top * high % height == 0
        is_reduced = wide <= width and high <= height and (wide, high) != (width, height)
        reduction = wide, width, high, height
        if not whole_pixels or not is_reduced or reduction not in self._sheets:
            self._sheets.setdefault(reduction, None)
            return self._resized(box, (wide, high))
        sheet = self._sheets[reduction]
        if sheet is None:
            size = self.width * wide // width, self.height * high // height
            sheet = self._resized((0, 0, size[0] * width / wide, size[1] * height / high), size)
            self._sheets[reduction] = sheet
        x, y = left * wide // width, top * high // height
        return sheet[:, y : y + high, x : x + wide].copy()

    def _resized(self, box: tuple[float, float, float, float], size: tuple[int, int]) -> NDArray[np.uint8]:
        """A box in the file's pixels at some size, (width, height)."""
        from PIL import Image

        left, top, width, height = (self.scale * float(length) for length in box)
        place = left, top, min(left + width, self.image.width), min(top + height, self.image.height)
        pixels = np.asarray(self.image.resize(size, Image.Resampling.BILINEAR, box=place), dtype=np.uint8)
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decode_whole(data: bytes, like: Preprocessing) -> Whole:
    """Decode the bytes of an image file for pieces of it.

    Parameters
    ----------
    like : Preprocessing
        ``height`` and ``width`` are those that the whole picture is needed at.

    Raises
    ------
    UnreadableImageError
        As `decode`.
    """
    from PIL import Image

    needed = DRAFT_FACTOR * like.height, DRAFT_FACTOR * like.width
    plain = _decode_plain_jpeg(data, like, needed)
    if plain is not None:
        pixels, eighths, (height, width) = plain
        picture = Image.fromarray(pixels[..., 0] if like.channels == 1 else pixels)
        return Whole(picture, eighths / 8, height, width, NOTHING)
    image, turn, tally = _open(data, like, needed)
    width, height = image.info.get(FULL_SIZE, image.size)
    box = image.info.get(DRAFT_BOX)
    picture = _on_paper(image, like.paper).convert("L" if like.channels == 1 else "RGB")
    if turn is not None:
        picture = picture.transpose(turn)
        height, width = (width, height) if turn in SIDEWAYS else (height, width)
    return Whole(picture, box[2] / image.info[FULL_SIZE][0] if box else 1.0, height, width, tally)


def size_in_header(path: Path) -> tuple[int, int]:
    """Height and width of an image file, upright; nothing is decoded where its header says them.

    Raises
    ------
    UnreadableImageError
        As `decode`, as far as the header shows it.
    """
    from PIL import Image

    with path.open("rb") as file:
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith(FITS) or (head[:4] in TIFFS and path.stat().st_size <= SMALL_TIFF):
            facts = describe(file.read())
            return facts.height, facts.width
        with _as_unreadable(head):
            image = open_tiff(file) if head[:4] in TIFFS else Image.open(file, formats=FORMATS)
            known = image.format != "PNG" or "exif" in image.info  # or else asking for it decodes a PNG
            turn = _turn(image) if known and head[:4] not in TIFFS else None
            width, height = image.size
    return (width, height) if turn in SIDEWAYS else (height, width)


def thumbnail(data: bytes, side: int, like: Preprocessing) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to look at: in its own shape, its longer side at most ``side`` pixels.

    Returns
    -------
    (channels, height, width) uint8

    Raises
    ------
    UnreadableImageError
        As `decode`.
    """
    image, turn, _ = _open(data, dataclasses.replace(like, height=side, width=side))
    pixels = shrink(image, side, like)
    if turn is None:
        return pixels
    from PIL import Image

    upright = Image.fromarray(pixels[0] if like.channels == 1 else pixels.transpose(1, 2, 0)).transpose(turn)
    return shrink(upright, side, like)


def shrink(image: Image.Image, side: int, like: Preprocessing) -> NDArray[np.uint8]:
    """An opened image in its own shape, its longer side at most ``side`` pixels: (channels, height, width) uint8."""
    box = image.info.get(DRAFT_BOX)
    width, height = box[2:] if box else image.size
    scale = min(1.0, side / max(width, height))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    return fit(image, dataclasses.replace(like, height=height, width=width), box)


def _plain_jpeg(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8] | None:
    """A JPEG of the common kind as `decode` gives it; None for all others, and broken ones.

    Which way a file takes depends on its bytes alone, so that one image always gives the same pixels.
    """
    decoded = _decode_plain_jpeg(data, preprocessing)
    if decoded is None:
        return None
    pixels, eighths, (height, width) = decoded
    if (height, width) == (preprocessing.height, preprocessing.width):
        return pixels.transpose(2, 0, 1)
    from PIL import Image

    # Scaled sizes round up: the picture may end within the last pixel.
    image = Image.fromarray(pixels[..., 0] if preprocessing.channels == 1 else pixels)
    return fit(image, preprocessing, box=(0, 0, width * eighths / 8, height * eighths / 8))


def _decode_plain_jpeg(
    data: bytes, preprocessing: Preprocessing, needed: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], int, tuple[int, int]] | None:
    """Some times quicker than Pillow: (h, w, c) uint8 at so many eighths of its size, and that, (height, width).

    ``needed`` is how high and how wide it has to be; by default both twice the longer side that is wanted.
    """
    if not data.startswith(JPEG) or TURNED[0] in data or TURNED[1] in data or _scans(data) > MOST_SCANS:
        return None
    import simplejpeg

    grey, height, width = preprocessing.channels == 1, preprocessing.height, preprocessing.width
    try:
        full_height, full_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("Gray", "YCbCr") or full_height * full_width > MAX_PIXELS:
            return None
        high, wide = needed or _needed(preprocessing)
        if (full_height, full_width) == (height, width):
            high, wide = 0, 0
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", min_height=high, min_width=wide)
    except ValueError:  # broken: Pillow says how
        return None
    eighths = next((n for n in range(8, 0, -1) if _scaled(full_height, full_width, n) == pixels.shape[:2]), 8)
    return pixels, eighths, (full_height, full_width)


def _needed(preprocessing: Preprocessing) -> tuple[int, int]:
    """Height and width that a JPEG is decoded at, at least: little more changes little, and saves much."""
    side = DRAFT_FACTOR * max(preprocessing.height, preprocessing.width)
    return side, side


def _scans(data: bytes) -> int:
    """Scans of a JPEG, or more than it has as long as these are few: in small files one byte is counted quicker."""
    few = data.count(SCAN[:1]) if len(data) < SMALL_JPEG else MOST_SCANS + 1
    return few if few <= MOST_SCANS else data.count(SCAN)


def _scaled(height: int, width: int, eighths: int) -> tuple[int, int]:
    return math.ceil(height * eighths / 8), math.ceil(width * eighths / 8)


def fit(
    image: Image.Image, preprocessing: Preprocessing, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Bring an opened image, or a box of it, to the preprocessing's channels and size: (c, h, w) uint8."""
    from PIL import Image

    eight_bit = _on_paper(image, preprocessing.paper)
    eight_bit = eight_bit.convert("L" if preprocessing.channels == 1 else "RGB")
    size = (preprocessing.width, preprocessing.height)
    if eight_bit.size != size:
        eight_bit = eight_bit.resize(size, Image.Resampling.BILINEAR, box=box)  # antialiased when it shrinks
    pixels = np.asarray(eight_bit, dtype=np.uint8)
    return pixels[None] if preprocessing.channels == 1 else pixels.transpose(2, 0, 1)


def describe(data: bytes) -> ImageFacts:
    """Size, colour and depth of an image file; ``UnreadableImageError`` as for `decode`."""
    opened = _read(data, None)
    facts = describe_image(opened.what) if not isinstance(opened.what, Values) else describe_values(opened.what)
    if opened.turn in SIDEWAYS:
        return dataclasses.replace(facts, height=facts.width, width=facts.height)
    return facts


def describe_values(values: Values) -> ImageFacts:
    """Size, colour and levels of an image deeper than 8 bits."""
    levels = levels_of(values)
    own = Preprocessing(1, 1, 3, black=0.0)
    if levels:  # colour and contrast are judged in the image's own scale
        black, white = _scale([levels], (0.0, 1.0))
        own = dataclasses.replace(own, black=black, white=white, float_black=black, float_white=white)
    return dataclasses.replace(describe_image(to_picture(values, own)[0]), levels=levels)


def levels_of(values: Values) -> Levels | None:
    """Levels of an image; None if all of it is missing."""
    found = values.whole.reshape(-1)
    if not len(found):
        return None
    found = found[:: -(-len(found) // LOOKED_AT)]
    out = int(TAIL * len(found))
    ordered = np.partition(found, (out, len(found) - 1 - out))
    return Levels(float(ordered[out]), float(ordered[-1 - out]), found.dtype.kind == "f")


def describe_image(image: Image.Image) -> ImageFacts:
    """Size and colour of an opened image of 8 bits."""
    width, height = image.size
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return ImageFacts(height, width, True)
    thumbnail = _on_paper(image, PAPERS[0]).convert("RGB").resize((32, 32))
    colours = np.asarray(thumbnail, dtype=np.int16)
    grey = int((colours.max(-1) - colours.min(-1)).max()) <= GREY_TOLERANCE
    return ImageFacts(height, width, grey, contrasts=_contrasts(image))


def _contrasts(image: Image.Image) -> tuple[float, ...] | None:
    """How far the visible pixels are from each of ``PAPERS``, in the mean; None if none, or all, are visible."""
    from PIL import Image

    if not _has_alpha(image):
        return None
    small = image.resize((min(image.width, MOST_WEIGHED), min(image.height, MOST_WEIGHED)), Image.Resampling.NEAREST)
    pixels = np.asarray(small.convert("RGBA"))
    alpha = pixels[..., 3].astype(np.float64)
    if alpha.min() == 255 or not (total := alpha.sum()):
        return None
    light = pixels[..., :3] @ np.array([0.299, 0.587, 0.114])
    return tuple(float((np.abs(light - paper) * alpha).sum() / total) for paper in PAPERS)


def choose_preprocessing(
    facts: Sequence[ImageFacts],
    *,
    image_size: tuple[int, ...] | None = None,
    channels: int | None = None,
    largest: int | None = LARGEST_SIDE,
) -> Preprocessing:
    """Choose size, channels and white level from a sample of a source.

    Parameters
    ----------
    facts : sequence of ImageFacts
        At least one.
    image_size : (side,) or (height, width), optional
        With one number, the longer side of the median shape gets that many pixels. By default the
        median size, its longer side at most ``largest``.
    channels : 1 or 3, optional
        By default 1 if every sampled image is grey.
    largest : int, optional
        None for no bound.
    """
    height = statistics.median_low(f.height for f in facts)
    width = statistics.median_low(f.width for f in facts)
    if image_size is not None and len(image_size) == 2:
        height, width = image_size
    else:
        longest = max(height, width)
        side = image_size[0] if image_size else min(longest, largest or longest)
        height, width = max(1, round(height * side / longest)), max(1, round(width * side / longest))
    if channels is None:
        channels = 1 if all(f.grey for f in facts) else 3
    found = [f.levels for f in facts if f.levels]
    black, white = _scale([levels for levels in found if not levels.floats], (0.0, 65535.0))
    float_black, float_white = _scale([levels for levels in found if levels.floats], (0.0, 1.0))
    paper = _paper([f.contrasts for f in facts if f.contrasts])
    return Preprocessing(height, width, channels, white, black, float_black, float_white, paper)


def describe_choice(facts: Sequence[ImageFacts], chosen: Preprocessing) -> list[str]:
    """What is to be said of the values of a sample, a line each: the scale of deep images, the paper."""
    lines = []
    deep = [f.levels.floats for f in facts if f.levels]
    for floats, kind in ((False, "integers"), (True, "floats")):
        if count := deep.count(floats):
            black, white = (chosen.float_black, chosen.float_white) if floats else (chosen.black, chosen.white)
            looked_at = f"{count:,} of {len(facts):,} images looked at are {kind} of more than 8 bits"
            lines.append(f"{looked_at}: {black:,.7g} to {white:,.7g} is black to white in the whole collection")
    if any(f.contrasts for f in facts):
        paper = {255: "white", 0: "black"}.get(chosen.paper, f"grey {chosen.paper}")
        lines.append(f"transparent pixels become {paper}, to contrast with the visible ones")
    return lines


def _scale(levels: Sequence[Levels], otherwise: tuple[float, float]) -> tuple[float, float]:
    """The values that become black and white, by the levels of images of one kind, but for few of them."""
    if not levels:
        return otherwise
    out = (len(levels) + FEW // 2) // FEW
    low, high = sorted(one.low for one in levels)[out], sorted(one.high for one in levels)[-1 - out]
    for full in (1.0, 255.0) if levels[0].floats else (255.0,):
        if low >= -full / 20 and full / 4 <= high <= (1.1 * full if levels[0].floats else full):
            return 0.0, full
    if -high / 20 <= low <= high / 8:
        low = 0.0
    if low >= high:  # of one value: 0 is another
        low, high = min(low, 0.0), max(high, 0.0)
    full = next((2.0**bits - 1 for bits in BIT_DEPTHS if high < 2**bits), high)
    if low == 0 and high >= 0.9 * full:
        high = full
    return low, high if high > low else low + 1


def _paper(contrasts: Sequence[tuple[float, ...]]) -> int:
    """Which of ``PAPERS`` the visible pixels are to be seen on, in all images but few."""
    if not contrasts:
        return PAPERS[0]
    least = np.sort(np.array(contrasts), axis=0)[len(contrasts) // FEW]
    return PAPERS[int(np.argmax(least))]


@dataclass(frozen=True, eq=False)
class _Opened:
    """What a file gives, whether it has other pictures, and what makes this one upright."""

    what: Image.Image | Values
    several: bool
    turn: Image.Transpose | None = None


def _open(
    data: bytes, preprocessing: Preprocessing, needed: tuple[int, int] | None = None
) -> tuple[Image.Image, Image.Transpose | None, Tally]:
    """Decode to 8 bits a channel; also what makes it upright, and what was left out."""
    opened = _read(data, needed or _needed(preprocessing))
    values, several = opened.what, int(opened.several)
    if not isinstance(values, Values):
        return values, opened.turn, Tally(several) if several else NOTHING
    picture, outside = to_picture(values, preprocessing)
    return picture, opened.turn, Tally(several, 1, int(outside > 0), int(values.whole.size), outside)


def _read(data: bytes, needed: tuple[int, int] | None) -> _Opened:
    """Decode; a JPEG no finer than is needed, (height, width)."""
    if not data:
        raise UnreadableImageError("empty file")
    with _as_unreadable(data):
        return _read_fits(data) if data.startswith(FITS) else _read_by_pillow(data, needed)


@contextlib.contextmanager
def _as_unreadable(data: bytes) -> Iterator[None]:
    """Whatever is raised as `UnreadableImageError`, with what the file is by its first bytes."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns below its limit; the limit is checked here
            yield
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError(name_format(data)) from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableImageError("does not fit in memory") from None
    except Exception as error:  # the format plugins raise nearly anything on broken files
        unknown = isinstance(error, SyntaxError) and data[:4] in TIFFS
        reason = name_format(data) if unknown else f"broken image: {_first_line(error)}"
        raise UnreadableImageError(reason) from None


def _read_by_pillow(data: bytes, needed: tuple[int, int] | None) -> _Opened:
    from PIL import Image

    is_tiff = data[:4] in TIFFS
    image = open_tiff(io.BytesIO(data)) if is_tiff else Image.open(io.BytesIO(data), formats=FORMATS)
    _check_work(image, data)
    if needed is not None and image.format in ("JPEG", "MPO"):
        full = image.size
        if drafted := image.draft("", needed[::-1]):
            image.info[FULL_SIZE] = full
            image.info[DRAFT_BOX] = drafted[1]  # sizes round up: the picture may end within the last pixel
    several = _has_others(image, data)
    values = deep_tiff(data, image) if is_tiff else deep_png(data, image) or deep_ppm(data, image)
    if values is None:
        image.load()
        values = _values_in(image) if _is_deep(image) else None
    return _Opened(values or image, several, None if is_tiff else _turn(image))  # a TIFF is upright once loaded


def _read_fits(data: bytes) -> _Opened:
    from PIL import Image

    values, several = read_fits(data, MAX_PIXELS)
    plain = values.pixels.dtype == np.uint8 and values.missing is None
    return _Opened(Image.fromarray(np.ascontiguousarray(values.pixels)) if plain else values, several)


def _has_others(image: Image.Image, data: bytes) -> bool:
    """Whether a file has other pictures than the one that is taken."""
    from PIL import Image

    if image.format in ONE_PICTURE:
        return False
    if image.format != "GIF":
        return bool(getattr(image, "is_animated", False))
    with contextlib.suppress(Exception):  # looks at the next frame, which may be broken beside a good one
        return bool(getattr(Image.open(io.BytesIO(data), formats=["GIF"]), "is_animated", False))
    return False


def _values_in(image: Image.Image) -> Values:
    """Values of a loaded image of one of Pillow's deep modes."""
    pixels, transparent = np.asarray(image), image.info.get("transparency")
    if isinstance(transparent, int):
        return Values(pixels, alpha=np.where(pixels == transparent, 0, 255).astype(np.uint8))
    return values_of(pixels, tiffs_no_data(getattr(image, "tag_v2", {})))


def _check_work(image: Image.Image, data: bytes) -> None:
    """Refuse what a decoder would need too much time or memory for."""
    from PIL import Image

    tiles = getattr(image, "tile", ())
    most = MAX_SLOW_PIXELS if any(tile[0] in Image.DECODERS for tile in tiles) else MAX_PIXELS
    if image.mode in ("RGB", "RGBA") and (getattr(image, "samples", None) or ";16" in str(tiles[:1])):
        most //= 2  # of up to 8 bytes
    if image.width * image.height > most:
        raise UnreadableImageError(f"{image.width} x {image.height} pixels, more than {most:,}")
    if image.format in ("JPEG", "MPO") or "jpeg" in str(image.info.get("compression")):
        tags = getattr(image, "tag_v2", {})
        jpegs = max(1, *(len(tags.get(tag, ())) for tag in STRIPS))  # that the picture is put together from
        if data.count(SCAN) > MOST_SCANS * jpegs:
            raise UnreadableImageError(f"JPEG of more than {MOST_SCANS} scans")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright, by its EXIF orientation (TIFFs are upright once loaded)."""
    from PIL import Image

    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF beside a good picture
        return None
    name = TURNS.get(orientation)
    return Image.Transpose[name] if name else None


def on_its_side(preprocessing: Preprocessing) -> Preprocessing:
    """The same with height and width exchanged."""
    return dataclasses.replace(preprocessing, height=preprocessing.width, width=preprocessing.height)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _is_deep(image: Image.Image) -> bool:
    return image.mode in DEEP_MODES or image.mode.startswith("I;16")


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _on_paper(image: Image.Image, paper: int) -> Image.Image:
    """Any mode of 8 bits to L or RGB; transparency is laid over a grey level."""
    from PIL import Image

    if _has_alpha(image):
        image = image.convert("RGBA")
        sheet = Image.new("RGBA", image.size, (paper, paper, paper, 255))
        return Image.alpha_composite(sheet, image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def to_picture(values: Values, preprocessing: Preprocessing) -> tuple[Image.Image, int]:
    """An image deeper than 8 bits as one of 8, and how many of its values lie outside the scale."""
    from PIL import Image

    pixels, outside = scale_to_uint8(values.pixels, preprocessing, values.missing)
    if preprocessing.black is None and values.pixels.ndim == 3:
        pixels = (values.pixels >> 8).astype(np.uint8)  # as encoders of earlier versions saw colours
    picture = Image.fromarray(pixels)
    if values.alpha is not None:
        picture = picture.convert("RGB")
        picture.putalpha(Image.fromarray(values.alpha))
    return picture, int(outside.sum())


def scale_to_uint8(
    values: NDArray[Any], preprocessing: Preprocessing, missing: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Map black to 0 and white to 255, rounding; what lies outside is clipped, what is missing becomes 0.

    Parameters
    ----------
    values : (n, …) integers or floats
    missing : (n, m) bool, optional
        Of the first two axes.

    Returns
    -------
    (n, …) uint8, and how many values of each of the n lie outside, (n,) int64
    """
    black, white = preprocessing.scale(values.dtype)
    exact = values.dtype.itemsize <= (4 if values.dtype.kind == "f" or preprocessing.black is None else 2)
    kept: Any = np.float32 if exact else np.float64
    scaled, outside = np.empty(values.shape, np.uint8), np.zeros(len(values), np.int64)
    rows = max(1, AT_ONCE // max(1, values[:1].size))
    for begin in range(0, len(values), rows):
        some = values[begin : begin + rows]
        with np.errstate(invalid="ignore"):
            good = np.abs(some) < LARGEST if some.dtype.kind == "f" else np.ones(some.shape, dtype=bool)
        if missing is not None:
            good &= ~missing[begin : begin + rows].reshape(*some.shape[:2], *[1] * (some.ndim - 2))
        beyond = ((some < black) | (some > white)) & good
        outside[begin : begin + rows] = np.count_nonzero(beyond.reshape(len(some), -1), axis=1)
        with np.errstate(invalid="ignore", over="ignore"):  # NaN of all kinds, and the largest of numbers
            bright = (some.astype(kept) - kept(black)) * kept(255.0 / (white - black))
            bright = np.nan_to_num(bright, posinf=255.0, neginf=0.0)
        bright = np.clip(np.rint(bright), 0, 255)
        if preprocessing.black is not None:
            bright[~good] = 0
        scaled[begin : begin + rows] = bright
    return scaled, outside


def parse_image_size(text: str) -> tuple[int, ...]:
    """``"64"`` to (64,), ``"48x64"`` to (48, 64), height first; ``SourceError`` for anything else."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() and len(p) < 9 and 0 < int(p) <= MOST_SIDE for p in parts):
        raise SourceError(f"image size {text!r} is not one number (64) or HEIGHTxWIDTH (48x64), each 1 to {MOST_SIDE}")
    return tuple(int(p) for p in parts)


def halvings(height: int, width: int) -> int:
    """How many halvings bring an image down to about 4 pixels a side, at least 2."""
    return max(2, round(math.log2(math.sqrt(height * width) / 4)))
