"""What is usual of normal images: how near the nearest others are, by one kind of numbers or another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import mean_of_largest
from aesearch.anomalies.ranking import neighbour_distance
from aesearch.anomalies.thresholds import logarithm
from aesearch.images.grouping import most_mates
from aesearch.images.numbers import raw_pixels, standardised
from aesearch.vectors.distances import exact_neighbours

if TYPE_CHECKING:
    import torch

NEAREST, NEAREST_OF_LOOKS = 10, 5
COMPONENTS = 64  # that numbers are brought to
LEAST_SPREAD = 1e-3  # share of the largest deviation that is added to each
SAMPLED, BANK = 40_000, 2000  # places of all images to learn from; of each half that are kept
LOCAL_COMPONENTS, LEAST_SPREAD_OF_LOCAL = 32, 1e-2
TOP_PLACES = 0.01  # share of an image's places, those that are farthest, that count
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
        Of the images, as `aesearch.images.grouping.units_of` numbers them.
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
        Of the images, as `aesearch.images.grouping.units_of` numbers them.
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


@dataclass(frozen=True, eq=False)
class UsualTexture:
    """What places of normal images look like: some thousand of their local features.

    Compare Roth et al. 2022 ("Towards total recall in industrial anomaly detection"), where a pretrained network gives
    the features; here it is one that learned to find planted faults. The images are in two halves, and a new one is as
    far from both: so one of the collection itself can be held against the half that it is not in.

    Attributes
    ----------
    mean, matrix : (f,), (f, m) float32
        From local features to principal components of what is left when each has deviation 1.
    bank : (2, n, m) float32
        Of places of the images of each half.
    units : (u,) int64
        Of the images of the first half, as `aesearch.images.grouping.units_of` numbers them.
    others : (v,) int64
        Of those of the second.
    """

    mean: Floats
    matrix: Floats
    bank: Floats
    units: NDArray[np.int64]
    others: NDArray[np.int64]

    @classmethod
    def learn(cls, local: Floats, units: NDArray[np.int64]) -> UsualTexture:
        """From local features (n, f) of places, and the unit of the image of each."""
        mean, spread = local.mean(axis=0), local.std(axis=0) + LEAST_SPREAD_OF_LOCAL
        level = (local - mean) / spread
        axes = np.linalg.eigh(np.cov(level.T.astype(np.float64), ddof=0))[1][:, -LOCAL_COMPONENTS:]
        matrix = (axes / spread[:, None]).astype(np.float32)
        number = np.unique(units, return_inverse=True)[1]
        halves = [number % 2 == half for half in (0, 1)]
        if not halves[1].any():
            halves[1] = halves[0]
        draw = np.random.default_rng(0)
        components = (local - mean) @ matrix
        size = min(BANK, *(int(half.sum()) for half in halves))
        bank = [components[np.sort(draw.permutation(np.flatnonzero(half))[:size])] for half in halves]
        first, second = (np.unique(units[half]) for half in halves)
        return cls(mean, matrix, np.stack(bank), first, second)

    def oddness(self, local: torch.Tensor, own: NDArray[np.int64] | None = None) -> Floats:
        """Logarithm of the distance of those places that are farthest from all of the bank, (n,) float32.

        Of images with local features (n, f, height, width); of those of the ``own`` units, if they are in the bank,
        from those of the other half.
        """
        places = self._components(local)
        far = [exact_neighbours(half, places, 1, "l2")[1].reshape(len(local), -1) for half in self.bank]
        if own is not None:
            inside = [np.isin(own, units)[:, None] for units in (self.units, self.others)]
            far = [np.where(inside[0] & ~inside[1], far[1], far[0]), np.where(inside[1] & ~inside[0], far[0], far[1])]
        return logarithm(mean_of_largest(np.mean(far, axis=0, dtype=np.float32), TOP_PLACES))

    def _components(self, local: torch.Tensor) -> Floats:
        """Of each place, (places, m) float32."""
        import torch

        mean, matrix = (torch.from_numpy(one).to(local.device) for one in (self.mean, self.matrix))
        with torch.inference_mode():
            return ((local.permute(0, 2, 3, 1).reshape(-1, local.shape[1]) - mean) @ matrix).cpu().numpy()


def sampled(local: torch.Tensor, each: int, draw: np.random.Generator) -> Floats:
    """Local features of that many places of each image, or of all, (n, f) float32, those of an image together."""
    import torch

    flat = local.flatten(2).transpose(1, 2)
    count = min(each, flat.shape[1])
    places = np.stack([draw.choice(flat.shape[1], count, replace=False) for _ in range(len(flat))])
    rows = torch.arange(len(flat), device=local.device)[:, None]
    return flat[rows, torch.from_numpy(places).to(local.device)].reshape(-1, flat.shape[2]).cpu().numpy()


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
