"""What is usual of normal images: how near the nearest others are, by one kind of numbers or another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies import logarithm, neighbour_distance
from aesearch.baselines import raw_pixels, standardised
from aesearch.distances import exact_neighbours
from aesearch.grouping import most_mates

NEAREST, NEAREST_OF_LOOKS = 10, 5
COMPONENTS = 64  # that numbers are brought to
LEAST_SPREAD = 1e-3  # share of the largest deviation that is added to each
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class UsualNumbers:
    """Numbers of normal images, as principal components divided by the root of their deviation.

    Attributes
    ----------
    mean, matrix : (d,), (d, m) float32
        From numbers to components.
    vectors : (n, m) float32
    units : (n,) int64
        Of the images, as `aesearch.grouping.units_of` numbers them.
    """

    mean: Floats
    matrix: Floats
    vectors: Floats
    units: NDArray[np.int64]

    @classmethod
    def learn(cls, numbers: Floats, units: NDArray[np.int64]) -> UsualNumbers:
        """From numbers (n, d) of normal images of those units."""
        mean = numbers.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov((numbers - mean).T.astype(np.float64), ddof=0))
        most = slice(-min(COMPONENTS, *numbers.shape), None)
        spread = np.sqrt(variances[most].clip(min=0))
        scale = 1 / np.sqrt(spread + LEAST_SPREAD * spread.max(initial=0) + 1e-12)
        matrix = (axes[:, most] * scale).astype(np.float32)
        return cls(mean, matrix, (numbers - mean) @ matrix, units)

    def oddness(self, numbers: Floats, own: NDArray[np.int64] | None = None) -> Floats:
        """Logarithm of the mean distance to the ten nearest, (n,) float32; those of the ``own`` units do not count."""
        components = np.asarray((numbers - self.mean) @ self.matrix, np.float32)
        return log_distance(components, self.vectors, self.units, NEAREST, own)


@dataclass(frozen=True, eq=False)
class UsualLooks:
    """How normal images look, by one kind of numbers, and how far from others an image may be that is made of the same.

    Images of a rich texture are far from all others, faulty or not. So of the logarithm of the distance is taken what a
    ridge regression on features expects.

    Attributes
    ----------
    vectors : (n, d) float16
    units : (n,) int64
        Of the images, as `aesearch.grouping.units_of` numbers them.
    weights, expected : (f,), (1,) float32
        Of the regression.
    """

    vectors: NDArray[np.float16]
    units: NDArray[np.int64]
    weights: Floats
    expected: Floats

    @classmethod
    def learn(cls, vectors: Floats, features: Floats, units: NDArray[np.int64]) -> UsualLooks:
        """From numbers of normal images (n, d), and their features (n, f)."""
        from sklearn.linear_model import Ridge

        known = vectors.astype(np.float16)
        plain = cls(known, units, np.zeros(features.shape[1], np.float32), np.zeros(1, np.float32))
        far = plain.oddness(vectors, features, units)
        found = Ridge(alpha=len(far) * float(features.var(axis=0).mean()) + 1e-9).fit(features, far)
        return cls(known, units, found.coef_.astype(np.float32), np.full(1, found.intercept_, np.float32))

    def oddness(self, vectors: Floats, features: Floats, own: NDArray[np.int64] | None = None) -> Floats:
        """Logarithm of the mean distance to the five nearest, less what is expected: (n,) float32."""
        far = log_distance(vectors, self.vectors.astype(np.float32), self.units, NEAREST_OF_LOOKS, own)
        return far - features @ self.weights - self.expected[0]


def pixels_of(images: NDArray[np.uint8]) -> Floats:
    """Grey levels of images (n, channels, height, width), of each brought to mean 0 and deviation 1: (n, d) float32."""
    return standardised(255 * raw_pixels(images))


def log_distance(
    vectors: Floats, base: Floats, units: NDArray[np.int64], k: int, own: NDArray[np.int64] | None
) -> Floats:
    """Logarithm of the mean distance of vectors (m, d) to the k nearest of (n, d), (m,) float32.

    Those of the ``own`` units do not count.
    """
    mates = 0 if own is None else most_mates(units)
    places, distances = exact_neighbours(base, vectors, min(len(base), k + mates), "l2")
    return logarithm(neighbour_distance(units[places], distances, k, own))
