"""One image file to one uint8 array, the same way wherever an image comes in."""

from __future__ import annotations

import dataclasses
import io
import math
import statistics
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError

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
    "AVIF BLP BMP DDS DIB FITS GIF ICNS ICO IM JPEG JPEG2000 MSP PCX PNG PPM PSD QOI SGI SPIDER SUN TGA TIFF "
    "WEBP".split()
)
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
DRAFT_FACTOR, DRAFT_BOX = 2, "aesearch_box"
JPEG, TURNED = b"\xff\xd8\xff", (b"Exif\0\0", b"tiff:Orientation")  # what may say how a picture lies: EXIF, XMP
SCAN = b"\xff\xda"
STRIPS = (273, 324)  # TIFF's tags of where its strips or tiles lie
BIT_DEPTHS = (8, 10, 12, 14, 16, 24, 32)


class UnreadableImageError(Exception):
    """Why one file gives no image; becomes a line of ``skipped.csv``."""


@dataclass(frozen=True)
class Preprocessing:
    """How any image becomes the network's input; kept with the encoder.

    Attributes
    ----------
    height, width : int
        Pixels; images of another size are resized to it, stretched if need be.
    channels : int
        1 (grey) or 3 (RGB).
    white : float
        The value that counts as full brightness in images deeper than 8 bits.
    """

    height: int
    width: int
    channels: int
    white: float = 65535.0

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


@dataclass(frozen=True)
class ImageFacts:
    """What one image tells about the preprocessing its collection needs."""

    height: int
    width: int
    grey: bool
    peak: float | None = None  # largest value, of images deeper than 8 bits


def decode(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """Decode the bytes of an image file.

    Returns
    -------
    (channels, height, width) uint8

    Raises
    ------
    UnreadableImageError
        No image, broken, larger than ``MAX_PIXELS``, or a JPEG of more than ``MOST_SCANS`` scans.
    """
    plain = _plain_jpeg(data, preprocessing)
    if plain is not None:
        return plain
    from PIL import Image

    image = _open(data, preprocessing)
    turn = _turn(image)
    lying = preprocessing if turn not in SIDEWAYS else on_its_side(preprocessing)
    pixels = fit(image, lying, box=image.info.get(DRAFT_BOX))
    if turn is None:
        return pixels
    upright = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).transpose(turn)
    return fit(upright, preprocessing)


def thumbnail(data: bytes, side: int, channels: int, white: float) -> NDArray[np.uint8]:
    """Decode the bytes of an image file to look at: in its own shape, its longer side at most ``side`` pixels.

    Returns
    -------
    (channels, height, width) uint8

    Raises
    ------
    UnreadableImageError
        As `decode`.
    """
    image = _open(data, Preprocessing(side, side, channels, white))
    pixels = shrink(image, side, channels, white)
    turn = _turn(image)
    if turn is None:
        return pixels
    from PIL import Image

    upright = Image.fromarray(pixels[0] if channels == 1 else pixels.transpose(1, 2, 0)).transpose(turn)
    return shrink(upright, side, channels, white)


def shrink(image: Image.Image, side: int, channels: int, white: float) -> NDArray[np.uint8]:
    """An opened image in its own shape, its longer side at most ``side`` pixels: (channels, height, width) uint8."""
    box = image.info.get(DRAFT_BOX)
    width, height = box[2:] if box else image.size
    scale = min(1.0, side / max(width, height))
    return fit(image, Preprocessing(max(1, round(height * scale)), max(1, round(width * scale)), channels, white), box)


def _plain_jpeg(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8] | None:
    """Decode a JPEG of the common kind, some times quicker than Pillow; None for all others, and broken ones.

    Which way a file takes depends on its bytes alone, so that one image always gives the same pixels.
    """
    if not data.startswith(JPEG) or TURNED[0] in data or TURNED[1] in data or _scans(data) > MOST_SCANS:
        return None
    import simplejpeg

    grey, height, width = preprocessing.channels == 1, preprocessing.height, preprocessing.width
    try:
        full_height, full_width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("Gray", "YCbCr") or full_height * full_width > MAX_PIXELS:
            return None
        side = 0 if (full_height, full_width) == (height, width) else DRAFT_FACTOR * max(height, width)
        pixels = simplejpeg.decode_jpeg(data, "GRAY" if grey else "RGB", min_height=side, min_width=side)
    except ValueError:  # broken: Pillow says how
        return None
    if not side:
        return pixels.transpose(2, 0, 1)
    from PIL import Image

    # Scaled sizes round up: the picture may end within the last pixel.
    eighths = next((n for n in range(8, 0, -1) if _scaled(full_height, full_width, n) == pixels.shape[:2]), 8)
    image = Image.fromarray(pixels[..., 0] if grey else pixels)
    return fit(image, preprocessing, box=(0, 0, full_width * eighths / 8, full_height * eighths / 8))


def _scans(data: bytes) -> int:
    """Scans of a JPEG, or more than it has as long as these are few: one byte is counted quicker than two."""
    few = data.count(SCAN[:1])
    return few if few <= MOST_SCANS else data.count(SCAN)


def _scaled(height: int, width: int, eighths: int) -> tuple[int, int]:
    return math.ceil(height * eighths / 8), math.ceil(width * eighths / 8)


def fit(
    image: Image.Image, preprocessing: Preprocessing, box: tuple[float, float, float, float] | None = None
) -> NDArray[np.uint8]:
    """Bring an opened image, or a box of it, to the preprocessing's channels and size: (c, h, w) uint8."""
    from PIL import Image

    eight_bit = _to_eight_bit(image, preprocessing.white)
    eight_bit = eight_bit.convert("L" if preprocessing.channels == 1 else "RGB")
    size = (preprocessing.width, preprocessing.height)
    if eight_bit.size != size:
        eight_bit = eight_bit.resize(size, Image.Resampling.BILINEAR, box=box)  # antialiased when it shrinks
    pixels = np.asarray(eight_bit, dtype=np.uint8)
    return pixels[None] if preprocessing.channels == 1 else pixels.transpose(2, 0, 1)


def describe(data: bytes) -> ImageFacts:
    """Size, colour and depth of an image file; ``UnreadableImageError`` as for `decode`."""
    image = _open(data, None)
    facts = describe_image(image)
    if _turn(image) in SIDEWAYS:
        return dataclasses.replace(facts, height=facts.width, width=facts.height)
    return facts


def describe_image(image: Image.Image) -> ImageFacts:
    """Size, colour and depth of an opened image."""
    width, height = image.size
    if _is_deep(image):
        with np.errstate(invalid="ignore"):
            values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0)
        return ImageFacts(height, width, True, float(values.max()))
    if image.mode in ("1", "L"):
        return ImageFacts(height, width, True)
    thumbnail = _to_eight_bit(image, 255).convert("RGB").resize((32, 32))
    colours = np.asarray(thumbnail, dtype=np.int16)
    grey = int((colours.max(-1) - colours.min(-1)).max()) <= GREY_TOLERANCE
    return ImageFacts(height, width, grey)


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
    return Preprocessing(height, width, channels, _white_level([f.peak for f in facts if f.peak is not None]))


def _white_level(peaks: Sequence[float]) -> float:
    """Full brightness of deep images: 1.0 for floats in [0, 1], else the bit depth that holds the peak."""
    peak = max(peaks, default=65535.0)
    if peak <= 1.0:
        return 1.0
    bits = next((b for b in BIT_DEPTHS if peak < 2**b), BIT_DEPTHS[-1])
    return float(2**bits - 1)


def _open(data: bytes, preprocessing: Preprocessing | None) -> Image.Image:
    """Open and decode; a JPEG at no more than twice the size needed, which changes little and saves much."""
    from PIL import Image, UnidentifiedImageError

    if not data:
        raise UnreadableImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns below its limit; the limit is checked here
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            _check_work(image, data)
            if preprocessing is not None and image.format in ("JPEG", "MPO"):
                side = DRAFT_FACTOR * max(preprocessing.height, preprocessing.width)
                if drafted := image.draft("", (side, side)):
                    image.info[DRAFT_BOX] = drafted[1]  # sizes round up: the picture may end within the last pixel
            image.load()
            return image
    except UnreadableImageError:
        raise
    except UnidentifiedImageError:
        raise UnreadableImageError("not an image that can be read") from None
    except Image.DecompressionBombError:
        raise UnreadableImageError(f"more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise UnreadableImageError("does not fit in memory") from None
    except Exception as error:  # the format plugins raise nearly anything on broken files
        raise UnreadableImageError(f"broken image: {_first_line(error)}") from None


def _check_work(image: Image.Image, data: bytes) -> None:
    """Refuse what a decoder would need too much time or memory for."""
    from PIL import Image

    slow = any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ()))
    if image.width * image.height > (most := MAX_SLOW_PIXELS if slow else MAX_PIXELS):
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


def _to_eight_bit(image: Image.Image, white: float) -> Image.Image:
    """Any mode to L or RGB; transparency is laid over white paper."""
    from PIL import Image

    if _is_deep(image):
        return Image.fromarray(scale_to_uint8(np.asarray(image), white))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(paper, image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")


def scale_to_uint8(values: NDArray[Any], white: float) -> NDArray[np.uint8]:
    """Map [0, white] to [0, 255], rounding; what lies outside is clipped, NaN becomes 0."""
    with np.errstate(invalid="ignore", over="ignore"):  # NaN of all kinds, and the largest of numbers
        scaled = np.nan_to_num(values.astype(np.float32) * np.float32(255.0 / white), posinf=255.0, neginf=0.0)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def parse_image_size(text: str) -> tuple[int, ...]:
    """``"64"`` to (64,), ``"48x64"`` to (48, 64), height first; ``SourceError`` for anything else."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isascii() and p.isdigit() and len(p) < 9 and 0 < int(p) <= MOST_SIDE for p in parts):
        raise SourceError(f"image size {text!r} is not one number (64) or HEIGHTxWIDTH (48x64), each 1 to {MOST_SIDE}")
    return tuple(int(p) for p in parts)


def halvings(height: int, width: int) -> int:
    """How many halvings bring an image down to about 4 pixels a side, at least 2."""
    return max(2, round(math.log2(math.sqrt(height * width) / 4)))
