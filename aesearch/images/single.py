"""Single images as an encoder or a person wants them: from a file, an array, or a place in a source."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, StaleArtifactError
from aesearch.images.decode import (
    Preprocessing,
    UnreadableImageError,
    decode_counting,
    fit,
    larger_side,
    on_its_side,
    scale_to_uint8,
    shrink,
    thumbnail,
)
from aesearch.images.orientation import is_turned, orient
from aesearch.images.sources.base import Source
from aesearch.images.tiles import MARK, Box, Tiling, cut_out, cut_tiles
from aesearch.images.worker_processes import read_file

if TYPE_CHECKING:
    from PIL import Image


logger = logging.getLogger(__name__)

SEEN_SIDE = 448  # pixels of the longer side of a piece that was cut out, to look at


@dataclass(frozen=True, eq=False)
class Read:
    """An image that `read` has read already: (channels, height, width) uint8; and what it was read from."""

    pixels: NDArray[np.uint8]
    preprocessing: Preprocessing
    image: ImageLike
    name: str = "image"


ImageLike = Union[str, os.PathLike[str], bytes, NDArray[Any], "Image.Image", Read]


def read(image: ImageLike, preprocessing: Preprocessing) -> Read:
    """Read an image before it is asked about, which is what takes long; raises as `read_image`."""
    return Read(read_image(image, preprocessing), preprocessing, image, name_of(image))


def read_oriented(
    image: ImageLike, preprocessing: Preprocessing, orientations: Sequence[str]
) -> list[NDArray[np.uint8]]:
    """One image in several orientations, each (channels, height, width) uint8; raises as `read_image`."""
    seen: dict[Preprocessing, NDArray[np.uint8]] = {}
    found = []
    for orientation in orientations:
        wanted = on_its_side(preprocessing) if is_turned(orientation) else preprocessing
        if wanted not in seen:
            seen[wanted] = read_image(image, wanted)
        found.append(orient(seen[wanted], orientation))
    return found


def read_image(image: ImageLike, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """One image (channels, height, width) uint8.

    It may be a file's path, a file's bytes, a Pillow image, or an array (height, width[, 1, 3 or 4]) of bool, of
    integers, which beyond 8 bits are scaled as the collection's are, or of floats in [0, 1].

    Raises
    ------
    AesearchError
        The file gives no image, or the array is not one.
    """
    if isinstance(image, Read):
        if preprocessing not in (image.preprocessing, on_its_side(image.preprocessing)):
            raise StaleArtifactError("the encoder has changed since the image was read")
        return image.pixels if preprocessing == image.preprocessing else read_image(image.image, preprocessing)
    if not isinstance(image, str | os.PathLike | bytes):
        return fit(_opened(image, preprocessing), preprocessing)

    def work(data: bytes) -> NDArray[np.uint8]:
        pixels, tally = decode_counting(data, preprocessing)
        for line in tally.of_one(preprocessing):
            logger.warning("%s: %s", name_of(image), line)
        return pixels

    return _from_file(image, work)


def crop(image: ImageLike, box: Box, preprocessing: Preprocessing) -> Read:
    """A box of an image, left, top, width and height in pixels, read as one of its own; raises as `read_image`."""
    image = image.image if isinstance(image, Read) else image
    name = f"{name_of(image)}{MARK}{','.join(map(str, box))}"
    if isinstance(image, str | os.PathLike | bytes):
        cut = _from_file(image, lambda data: cut_out(data, box, preprocessing))
        seen = _from_file(
            image, lambda data: cut_out(data, box, larger_side(preprocessing, (box[3], box[2]), SEEN_SIDE))
        )
        return Read(cut, preprocessing, _piece(seen), name)
    left, top, width, height = box
    whole = _opened(image, preprocessing)
    if left >= whole.width or top >= whole.height:
        raise AesearchError(f"{name}: the box lies outside its {whole.width} x {whole.height} pixels")
    piece = whole.crop((left, top, min(left + width, whole.width), min(top + height, whole.height)))
    return Read(fit(piece, preprocessing), preprocessing, piece, name)


def _piece(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(channels, height, width) as arrays of images are given."""
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def read_tiles(image: ImageLike, tiling: Tiling, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    """All tiles of a picture, (n, channels, height, width) uint8; of one that is no larger than a tile, itself.

    What it may be, and what is raised, as `read_image`.
    """
    image = image.image if isinstance(image, Read) else image
    if isinstance(image, str | os.PathLike | bytes):
        return _from_file(image, lambda data: cut_tiles(data, tiling, preprocessing))
    whole = _opened(image, preprocessing)
    boxes = tiling.boxes(whole.height, whole.width)
    pieces = (whole.crop((left, top, left + width, top + height)) for left, top, width, height in boxes)
    return np.stack([fit(piece, preprocessing) for piece in pieces])


def look_at(image: ImageLike, side: int, like: Preprocessing) -> NDArray[np.uint8]:
    """One image to look at, as `Source.thumbnails` gives them; what it may be, and what is raised, as `read_image`."""
    if isinstance(image, Read):
        return image.pixels
    if not isinstance(image, str | os.PathLike | bytes):
        return shrink(_opened(image, like), side, like)
    return _from_file(image, lambda data: thumbnail(data, side, like))


def several(images: Any) -> list[ImageLike]:
    """Images as a list, also where one alone was given; ``AesearchError`` for what is none."""
    if isinstance(images, str | os.PathLike | bytes | Read) or _is_pillow(images):
        return [images]
    if isinstance(images, np.ndarray) and images.ndim == 2:
        return [images]
    if not isinstance(images, np.ndarray | Sequence):
        raise AesearchError(f"give images: paths, bytes, Pillow images or arrays, not {images!r:.80}")
    return list(images)


def _is_pillow(image: object) -> bool:
    pillow = sys.modules.get("PIL.Image")  # what was never imported, has made nothing
    return pillow is not None and isinstance(image, pillow.Image)


def _opened(image: Any, preprocessing: Preprocessing) -> Image.Image:
    """A Pillow image, upright, of one or of an array."""
    if isinstance(image, np.ndarray):
        return _from_array(image, preprocessing)
    if not _is_pillow(image):
        raise AesearchError(
            f"an image is a path, a file's bytes, a Pillow image or an array, not {type(image).__name__}"
        )
    from PIL import ImageOps

    try:
        upright: Image.Image = ImageOps.exif_transpose(image)
        upright.load()
        return upright
    except Exception as error:  # the file behind it is read only now; its plugins raise nearly anything
        raise AesearchError(f"{name_of(image)}: broken image: {error}") from None


def _from_array(image: NDArray[Any], preprocessing: Preprocessing) -> Image.Image:
    """A Pillow image of an array; integers beyond 8 bits are scaled as the collection's are."""
    from PIL import Image

    if image.dtype.kind == "b":
        image = image.astype(np.uint8) * np.uint8(255)
    if (
        image.dtype.kind not in "uif"
        or image.ndim not in (2, 3)
        or 0 in image.shape
        or (image.ndim == 3 and image.shape[2] not in (1, 3, 4))
    ):
        raise AesearchError(
            f"an array image is (height, width[, 1, 3 or 4]), integers or floats, not {image.dtype} {image.shape}"
        )
    if image.dtype.kind == "f":
        if not (image.min() >= 0 and image.max() <= 1):
            raise AesearchError("an array image of floats has values outside [0, 1], or NaN")
        image = np.rint(image * 255).astype(np.uint8)
    elif image.dtype != np.uint8:
        image = scale_to_uint8(image, preprocessing)[0]
    return Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)


def _from_file(image: str | os.PathLike[str] | bytes, work: Callable[[bytes], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    try:
        return work(image if isinstance(image, bytes) else read_file(Path(image)))
    except UnreadableImageError as error:
        raise AesearchError(f"{name_of(image)}: {error}") from None


def name_of(image: ImageLike) -> str:
    """A file's path, or what else was given."""
    if isinstance(image, np.ndarray):
        return "array"
    if isinstance(image, Read):
        return image.name
    if isinstance(image, str | os.PathLike):
        return os.fspath(image)
    return str(getattr(image, "filename", "") or "image")


def blank(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A light grey picture in place of one that is gone."""
    return np.full(shape, 230, dtype=np.uint8)


def read_pictures(
    source: Source, positions: Sequence[int], preprocessing: Preprocessing
) -> list[NDArray[np.uint8] | None]:
    """Images at those positions, ``None`` for -1 and for what cannot be read any more."""
    wanted = np.array(sorted({p for p in positions if p >= 0}), dtype=np.int64)
    batch = source.read(wanted, preprocessing) if len(wanted) else None
    found = dict(zip(batch.positions.tolist(), batch.images, strict=True)) if batch else {}
    return [found.get(p) for p in positions]
