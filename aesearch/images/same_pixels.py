"""Whether two images show the same, told by their pixels: what differs when JPEG, size and framing are allowed for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from aesearch.images.decode import Preprocessing
from aesearch.images.sources.base import Source
from aesearch.progress import step

SIDE = 64  # pixels of the longer side at which images are compared, at most
# Of copies of JPEG quality 60 to 90 at least 95 in 100 lie below (CIFAR-10, steel, MNIST), of halved ones half of the
# CIFAR-10 and nearly all others; of MNIST's images, each with the one of nearest pixels, fewer than 1 in 100, of
# CIFAR-10 fewer than 1 in 1,000, of gauges with other needles none.
SAME = 0.4
FULL_SIDE = 24  # smaller images have fewer pixels to tell by, and moving explains more of what differs
SMOOTH = 0.7  # pixels, before comparing
WINDOW = 1 / 16  # of the longer side, over which what differs is averaged
LEAST_CONTRAST = 8.0  # levels of 255 that count as contrast in images that have less
MOST_MOVED = 1.5  # pixels
READ_AT_ONCE, COMPARED_AT_ONCE = 1024, 64  # pairs


def most_different(shape: tuple[int, ...]) -> float:
    """Largest `pixel_distances` of two images (…, height, width) that are the same to the eye."""
    return SAME * min(1.0, max(shape[-2:]) / FULL_SIDE)


def pixel_distances(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """How far the worst region of each pair differs, as a share of the images' contrast.

    What a small shift, zoom or blur of one explains does not count (by least squares of the first order: Lucas & Kanade
    1981).

    Parameters
    ----------
    first, second : (n, channels, height, width) uint8

    Returns
    -------
    (n,) float32
        0 for the same pixels, about 1 where a region shows something else.
    """
    from scipy.ndimage import gaussian_filter

    n, _, height, width = first.shape
    if n == 0:
        return np.zeros(0, np.float32)
    a, b = (gaussian_filter(images.astype(np.float32), (0, 0, SMOOTH, SMOOTH)) for images in (first, second))
    difference = b - a
    down, across = (_slope((a + b) / 2, axis) for axis in (2, 3))
    blur = _slope(down, 2) + _slope(across, 3)
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32), indexing="ij"
    )
    ways = np.stack([across, down, across * x, down * y, blur], axis=1).reshape(n, 5, -1)
    squares = ways @ ways.transpose(0, 2, 1)  # (n, 5, 5)
    size = np.maximum(np.trace(squares, axis1=1, axis2=2), 1e-3)
    squares += (1e-3 * size / 5)[:, None, None] * np.eye(5, dtype=np.float32)  # flat images do not move
    amounts = np.linalg.solve(squares, ways @ difference.reshape(n, -1, 1))
    explained = ways.transpose(0, 2, 1) @ np.clip(amounts, -MOST_MOVED, MOST_MOVED)
    left = np.square(difference - explained.reshape(a.shape)).mean(axis=1)
    reach = WINDOW * max(height, width)
    worst = gaussian_filter(left, (0, reach, reach), mode="nearest").max(axis=(1, 2))
    contrast = np.sqrt((a.var(axis=(2, 3)).mean(axis=1) + b.var(axis=(2, 3)).mean(axis=1)) / 2)
    return np.asarray(np.sqrt(worst) / np.maximum(contrast, LEAST_CONTRAST), dtype=np.float32)


def _slope(images: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Change from pixel to pixel; none where there is only one."""
    return np.asarray(np.gradient(images, axis=axis) if images.shape[axis] > 1 else np.zeros_like(images))


def compared_size(native: tuple[int, int], preprocessing: Preprocessing) -> Preprocessing:
    """At which size to compare images of a median (height, width)."""
    scale = min(1.0, SIDE / max(native))
    height, width = (max(1, round(length * scale)) for length in native)
    return replace(preprocessing, height=height, width=width)


def distances_of_pairs(
    source: Source,
    places: NDArray[np.int64],
    pairs: NDArray[np.int64],
    preprocessing: Preprocessing,
    *,
    progress: bool = False,
) -> NDArray[np.float32]:
    """`pixel_distances` of pairs of rows, some read at a time; NaN where an image cannot be read.

    Parameters
    ----------
    places : (rows,) int64
        Where in the source each row's image stands, -1 where it no longer does.
    pairs : (p, 2) int64
        Rows; those of one image after the other are read once.
    """
    found = np.full(len(pairs), np.nan, np.float32)
    with step("compare pixels", len(pairs), unit="pair", progress=progress) as bar:
        for start in range(0, len(pairs), READ_AT_ONCE):
            part = places[pairs[start : start + READ_AT_ONCE]]  # (m, 2)
            batch = source.read(np.unique(part[part >= 0]), preprocessing)
            at = np.searchsorted(batch.positions, part)
            at[at == len(batch.positions)] = 0
            there = np.flatnonzero((batch.positions[at] == part).all(axis=1)) if len(batch.positions) else at[:0, 0]
            for first in range(0, len(there), COMPARED_AT_ONCE):
                some = there[first : first + COMPARED_AT_ONCE]
                found[start + some] = pixel_distances(*(batch.images[at[some, side]] for side in (0, 1)))
            bar.update(len(part))
    return found
