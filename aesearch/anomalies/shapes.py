"""Shapes in images, as gradients by field and direction: what changes little if a line is a little thicker or moved."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from aesearch.images.resize import shrunk

SIDE = 32  # pixels of the longer side: larger images are averaged
FIELDS, DIRECTIONS = 7, 8  # a side, and around the clock
LEAST = 1e-6  # length of what has no gradient

Floats = NDArray[np.float32]


def measure_shapes(images: NDArray[np.uint8]) -> Floats:
    """Histograms of oriented gradients (Dalal & Triggs 2005), their roots scaled to length 1: (n, 392) float32.

    Parameters
    ----------
    images : (n, channels, height, width) uint8
    """
    grey = shrunk(images, SIDE).mean(axis=1, dtype=np.float32) / 255
    framed = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = framed[:, 1:-1, 2:] - framed[:, 1:-1, :-2], framed[:, 2:, 1:-1] - framed[:, :-2, 1:-1]
    strength = np.hypot(across, down)
    direction = np.arctan2(down, across) * (DIRECTIONS / (2 * math.pi))
    rows, columns = (_fields(side) for side in grey.shape[1:])
    found = np.empty((len(images), DIRECTIONS, FIELDS, FIELDS), np.float32)
    for number in range(DIRECTIONS):
        away = np.abs((direction - number + DIRECTIONS / 2) % DIRECTIONS - DIRECTIONS / 2)
        found[:, number] = rows @ (strength * np.maximum(1 - away, 0)) @ columns.T
    roots = np.sqrt(found.reshape(len(images), -1))
    return np.asarray(roots / (np.linalg.norm(roots, axis=1, keepdims=True) + LEAST), np.float32)


def _fields(side: int) -> Floats:
    """Weights of pixels in each of the fields along a side, (fields, side): bells that lie over one another."""
    width = side / FIELDS
    centres = (np.arange(FIELDS) + 0.5) * width - 0.5
    weights = np.exp(-0.5 * ((np.arange(side) - centres[:, None]) / max(width / 2, 0.5)) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)
