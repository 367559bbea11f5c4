"""Images as rows of numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RAW_SIDE = 32  # pixels: larger images are averaged to fewer


def raw_pixels(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels in [0, 1] of images (n, channels, height, width), averaged to 32 a side at most: (n, d) float32."""
    height, width = images.shape[2:]
    factor = max(1, round(max(height, width) / RAW_SIDE))
    rows, columns = height // factor * factor, width // factor * factor
    if not rows or not columns:
        rows, columns, factor = height, width, 1
    cut = images[:, :, :rows, :columns]
    shape = (*images.shape[:2], rows // factor, factor, columns // factor, factor)
    return np.asarray(cut.reshape(shape).mean(axis=(3, 5), dtype=np.float32).reshape(len(images), -1) / 255, np.float32)


def standardised(images: NDArray[np.generic]) -> NDArray[np.float32]:
    """Grey levels (n, ...) of each image brought to mean 0 and deviation 1: (n, d) float32."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    return np.asarray((flat - flat.mean(axis=1, keepdims=True)) / (flat.std(axis=1, keepdims=True) + 1), np.float32)
