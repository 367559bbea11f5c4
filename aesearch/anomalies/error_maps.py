"""Where in an image the reconstruction is worst."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BLUR = 1 / 28  # of the longer side: single pixels are no region
MOST_REGIONS = 3


def error_map(original: NDArray[np.uint8], rebuilt: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where an image (channels, height, width) differs from its reconstruction: (height, width) float32.

    Squared differences on the [0, 1] scale, over the channels their mean.
    """
    return np.asarray(np.square(original / np.float32(255) - rebuilt).mean(axis=0), dtype=np.float32)


def reconstruction_error(original: NDArray[np.uint8], rebuilt: NDArray[np.float32]) -> float:
    """Mean squared error per pixel on the [0, 1] scale."""
    return float(error_map(original, rebuilt).mean())


def mean_of_largest(maps: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """The mean of so many of the largest values of each map (n, ...), one at least: (n,) float32."""
    flat = maps.reshape(len(maps), -1)
    top = max(1, round(share * flat.shape[1]))
    return np.asarray(np.partition(flat, -top, axis=1)[:, -top:].mean(axis=1), np.float32)


def worst_regions(error_map: NDArray[np.float32], side: float | None = None) -> list[tuple[float, float, float, float]]:
    """Boxes around where the error lies, the worst first, at most three.

    A region is what stays together above half the peak of the smoothed map.

    Parameters
    ----------
    error_map : (height, width) float32
        Error of each pixel.
    side : float, optional
        Pixels by which it is told how large a region is at least, by default the map's longer side.

    Returns
    -------
    list of (left, top, right, bottom)
        As shares of width and height, so that they hold for the image at any size; empty without any error.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(error_map.astype(np.float64), BLUR * (side or max(error_map.shape)))
    if not smooth.max() > 0:
        return []
    regions, count = ndimage.label(smooth >= smooth.max() / 2)
    weights = ndimage.sum_labels(smooth, regions, np.arange(1, count + 1))
    boxes = ndimage.find_objects(regions)
    height, width = error_map.shape
    worst = np.argsort(-weights, kind="stable")[:MOST_REGIONS]
    return [
        (x.start / width, y.start / height, x.stop / width, y.stop / height)
        for y, x in (boxes[number] for number in worst)
    ]
