"""Thresholds and p-values learned from normal images alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError

TINY, LEAST_RISE = 1e-12, 0.02
KNOTS = (0.0, 0.2, 0.5, 0.8, 0.95)  # shares of normal images; beyond the last their tail is taken to be exponential
FOLDS = 10  # of normal images: what a threshold does is measured on each by the others
MOST_NEEDED = 1e12  # images, that a message names


@dataclass(frozen=True, eq=False)
class Alarms:
    """A threshold for a false-alarm rate, learned from normal images alone.

    Attributes
    ----------
    threshold : float
        An image is odd if its score is larger.
    asked, measured : float
        The false-alarm rate asked for, and that on normal images by a threshold learned from others.
    normal : (n,) float32
        Scores it was learned from, rising.
    """

    threshold: float
    asked: float
    measured: float
    normal: NDArray[np.float32]

    @property
    def learned_from(self) -> int:
        """Images."""
        return len(self.normal)

    def p_values(self, scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """Conformal p-value of each score: the share of normal images at least as odd, the image itself among them."""
        as_odd = self.learned_from - np.searchsorted(self.normal, scores, side="left")
        return np.asarray((as_odd + 1) / (self.learned_from + 1), dtype=np.float64)

    @property
    def least_p_value(self) -> float:
        """That of an image odder than all it was learned from: of so few no smaller one can be told."""
        return 1 / (self.learned_from + 1)

    def p_text(self, p_value: float) -> str:
        """A p-value in two digits; the least one, rounded up, as a bound: ``≤ 0.02``."""
        if p_value > self.least_p_value * (1 + TINY):
            return f"{p_value:.2g}"
        unit = 10.0 ** (math.floor(math.log10(p_value)) - 1)
        return f"≤ {math.ceil(p_value / unit * (1 - TINY)) * unit:.2g}"

    def to_json(self) -> dict[str, float]:
        """As ``aesearch anomalies --json`` gives it."""
        names = ("threshold", "asked", "measured", "learned_from", "least_p_value")
        return {name: getattr(self, name) for name in names}


def learn_threshold(
    normal: NDArray[np.float32], rate: float, seed: int = 0, units: NDArray[np.int64] | None = None
) -> Alarms:
    """Threshold that a new normal image exceeds with at most that probability (split conformal, Vovk et al. 2005).

    What it does is measured on each tenth of the scores, drawn at random, by the threshold that the others give. The
    images must not be ones the encoder was trained on, which have lower scores than new ones.

    Parameters
    ----------
    normal : (n,) float32
        Scores of normal images.
    rate : float
        Between 0 and 1.
    units : (n,) int64, optional
        Images of the same number belong together: all of them are in one tenth.

    Raises
    ------
    AesearchError
        Too few images for so low a rate.
    """
    if not 0 < rate < 1:
        raise AesearchError(f"--false-alarms must lie between 0 and 1, not {rate:g}")
    if _place(len(normal), rate) > len(normal) or len(normal) < 2:
        needed = max(2, math.ceil(min(1 / rate, MOST_NEEDED)) - 1)
        raise AesearchError(
            f"a false-alarm rate of {rate:g} needs {needed} normal images the encoder was not trained on, "
            f"there are {len(normal)}: ask for a higher rate"
        )
    order = np.random.default_rng(seed).permutation(len(normal))
    of = np.arange(len(normal)) if units is None else np.asarray(units)
    _, first, unit = np.unique(of[order], return_index=True, return_inverse=True)
    fold = np.argsort(np.argsort(first))[unit] % FOLDS  # of the units in the order in which they come
    shuffled = normal[order]
    parts = [(shuffled[fold == number], shuffled[fold != number]) for number in range(FOLDS)]
    above = sum(int((fresh > _threshold(others, rate)).sum()) for fresh, others in parts)
    return Alarms(_threshold(normal, rate), rate, above / len(normal), np.sort(normal))


def _threshold(normal: NDArray[np.float32], rate: float) -> float:
    """The highest score where there are too few of them for the rate."""
    return float(np.sort(normal)[min(_place(len(normal), rate), len(normal)) - 1]) if len(normal) else math.inf


def _place(count: int, rate: float) -> int:
    """Which of so many rising scores, counted from 1, is the threshold."""
    return max(1, math.ceil((count + 1) * (1 - rate) * (1 - TINY)))


def learn_scales(oddness: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a fifth, half, four fifths and 95 % of normal images lie below in each column: (5, p) float32.

    Parameters
    ----------
    oddness : (n, p) float32
        Several measures of normal images, on scales without ends. The first row is of the least.
    """
    return np.quantile(oddness, KNOTS, axis=0).astype(np.float32)


def alarms_of(oddness: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """How alarming each measure is: -ln of its conformal p-value, (n, p) float32; their sum is Fisher's (1925).

    The p-value is the share of normal images that are at least as odd (Vovk et al. 2005). Between the shares that
    `learn_scales` knows it is interpolated. Beyond 95 % its logarithm falls as it does from 80 %, as that of an
    exponential tail, so that few odd images among the normal ones change nothing.
    """
    levels = -np.log1p(-np.array(KNOTS))
    alarms = np.empty(oddness.shape, np.float32)
    for column, knots in enumerate(scales.T.astype(np.float64)):
        rise = max(knots[-1] - knots[-2], LEAST_RISE) / (levels[-1] - levels[-2])
        inside = np.interp(oddness[:, column], knots, levels)
        alarms[:, column] = inside + np.maximum(oddness[:, column] - knots[-1], 0) / rise
    return alarms


def logarithm(measures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of what is not negative: a scale without ends."""
    return np.log(np.maximum(measures, np.float32(TINY)))
