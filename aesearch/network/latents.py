"""Points of the latent space to decode: random ones, a path between two, a plane."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError


def read_points(given: str | NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Read points (n, dim) float32 from a ``.npy`` or ``.csv`` file, from text like ``0.5,1;-1,2``, or an array.

    Raises
    ------
    AesearchError
        They cannot be read, are not finite, or have another number of numbers.
    """
    text = given if isinstance(given, str) else "an array"
    try:
        path = Path(text)
        if not isinstance(given, str):
            points = np.asarray(given, dtype=np.float32)
        elif path.suffix.lower() == ".npy":
            points = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".csv":
            points = np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float32)
        else:
            points = np.array([[float(number) for number in point.split(",")] for point in text.split(";")])
        points = np.atleast_2d(points.astype(np.float32))
    except (OSError, EOFError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise AesearchError(f"cannot read points from {text!r}: {' '.join(str(error).split())}") from None
    if points.ndim != 2 or points.shape[1] != dim or not np.isfinite(points).all():
        raise AesearchError(f"points have {dim} finite numbers each here; {text!r} gives an array {points.shape}")
    return points


def sample(features: NDArray[np.float32], n: int, seed: int = 0) -> NDArray[np.float32]:
    """Draw n latents, each number from a normal distribution with the mean and spread it has in the data.

    Parameters
    ----------
    features : (rows, d) float32

    Returns
    -------
    (n, d) float32
    """
    drawn = np.random.default_rng(seed).standard_normal((n, features.shape[1]), dtype=np.float32)
    return drawn * features.std(axis=0) + features.mean(axis=0)


def between(start: NDArray[np.float32], end: NDArray[np.float32], steps: int) -> NDArray[np.float32]:
    """Points on the straight line from one latent (d,) to another, both ends included: (steps, d) float32."""
    if steps < 2:
        raise AesearchError(f"--steps must be 2 or more, not {steps}")
    share = np.linspace(0, 1, steps, dtype=np.float32)[:, None]
    return start * (1 - share) + end * share


def plane(features: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """A grid over the part of a two-number latent space where the data lie, (side * side, 2) float32.

    Rows from the top down, each from left to right; the 1st to the 99th percentile of either number.

    Raises
    ------
    AesearchError
        The latents have not two numbers.
    """
    if features.shape[1] != 2:
        raise AesearchError(f"a plane needs an encoder with --latent-dim 2; this one has {features.shape[1]} numbers")
    low, high = np.percentile(features, [1, 99], axis=0)
    across, down = np.meshgrid(np.linspace(low[0], high[0], side), np.linspace(high[1], low[1], side))
    return np.stack([across.ravel(), down.ravel()], axis=1).astype(np.float32)
