"""What normal images lose in each layer of the encoder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.vectors.distances import mahalanobis, principal_directions

MOST_LEVERAGE = 0.99  # of one image on the directions learned from it


@dataclass(frozen=True, eq=False)
class Normality:
    """How numbers that tell something about normal images are spread: mean and covariance.

    Attributes
    ----------
    mean : (m,) float32
    directions : (m, m) float32
        As `aesearch.vectors.distances.principal_directions` gives them.
    learned_from : int
        Images.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]
    learned_from: int

    @classmethod
    def learn(cls, blocks: Iterable[NDArray[np.float32]]) -> Normality:
        """From numbers of normal images, some (n, m) at a time; only their covariance is kept."""
        count = 0
        total: NDArray[np.float64] | float = 0.0
        squares: NDArray[np.float64] | float = 0.0
        for block in blocks:
            exact = block.astype(np.float64)
            count, total, squares = count + len(block), total + exact.sum(axis=0), squares + exact.T @ exact
        mean = np.asarray(total / max(count, 1))
        covariance = squares / max(count, 1) - np.outer(mean, mean)
        return cls(mean.astype(np.float32), principal_directions(covariance), count)

    def distance(self, numbers: NDArray[np.float32], learned: NDArray[np.bool_] | None = None) -> NDArray[np.float32]:
        """Squared Mahalanobis distance from the mean, (n,) float32.

        Of images it was ``learned`` from, as if it had not been: they would seem more normal than they are.
        """
        squares = mahalanobis(numbers, self.mean, self.directions)
        if learned is not None:
            share = np.minimum(squares / max(1, self.learned_from), MOST_LEVERAGE)
            squares = np.where(learned, squares / (1 - share), squares)
        return np.asarray(squares, dtype=np.float32)
