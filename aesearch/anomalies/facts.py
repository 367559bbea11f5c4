"""Low-level facts of images, which together tell bad frames: blank, noise, saturated, half lost, foreign."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.vectors.distances import mahalanobis, principal_directions

# What each tells where it is low, and where it is high; of several that are as extreme the first one speaks.
FACTS = {
    "contrast": ("nearly blank", "very high contrast"),
    "lost": ("no even rows", "part of it is one value"),
    "grain": ("very smooth", "noise"),
    "blocks": ("edges everywhere", "coarse blocks"),
    "one_value": ("no dominant value", "much of it is one value"),
    "bright": ("nothing bright", "overexposed"),
    "dark": ("nothing dark", "underexposed"),
    "colour": ("no colour", "a strong colour cast"),
    "sharpness": ("blurred", "very sharp"),
    "flat": ("no even areas", "large even areas"),
    "entropy": ("few grey levels", "many grey levels"),
    "brightness": ("very dark", "very bright"),
}
BINS = 32  # of the histogram
NEARLY = 2  # grey levels apart: the same value
CLIPPED = 4  # grey levels from black or white
LEVEL = 1 / 255
RESOLUTION = 0.01  # of a share
LEAST_SPREAD = 0.1
FARTHEST = 8.0  # spreads from the median that count
EXTREME, TRIMMED = 0.01, 3  # share of the images that tell nothing of what is usual, and times that it is learned


def measure_facts(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Facts of images, each on a scale without ends: (n, 12) float32, in the order of ``FACTS``.

    Parameters
    ----------
    images : (n, channels, height, width) uint8

    Notes
    -----
    Logarithms of contrast (standard deviation), of differences between neighbours over those between pixels two apart
    (grain) or over the contrast (sharpness), and of the colour cast; log-odds of shares: pixels in rows or columns of
    one value (lost), differences in the strongest quarter of rows or columns (blocks), pixels in the fullest of 32
    bins, nearly white, nearly black, like their neighbours (flat), and the mean brightness; entropy in bits.
    """
    n, channels, height, width = images.shape
    grey = images.astype(np.float32).mean(axis=1)
    right, below = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    contrast = grey.std(axis=(1, 2)) / 255
    near = _root_mean_square(right, below)
    far = _root_mean_square(grey[..., 2:] - grey[..., :-2], grey[:, 2:] - grey[:, :-2])
    means = _mean(images.reshape(n * channels, -1)).reshape(n, channels)
    shares = _histograms(grey) / (height * width)
    even = [np.ptp(grey, axis=axis) <= NEARLY for axis in (2, 1)]
    found = {
        "contrast": np.log(contrast + LEVEL),
        "lost": _odds(np.maximum(_mean(even[0]), _mean(even[1]))),
        "grain": np.log((near + LEVEL) / (far + LEVEL)),
        "blocks": _odds(np.minimum(_in_a_quarter(right.sum(axis=1)), _in_a_quarter(below.sum(axis=2)))),
        "one_value": _odds(shares.max(axis=1)),
        "bright": _odds(_mean(grey >= 255 - CLIPPED)),
        "dark": _odds(_mean(grey <= CLIPPED)),
        "colour": np.log(np.ptp(means, axis=1) / 255 + RESOLUTION),
        "sharpness": np.log((near + LEVEL) / (contrast + LEVEL)),
        "flat": _odds((_mean(right <= NEARLY) + _mean(below <= NEARLY)) / 2),
        "entropy": -(shares * np.log2(np.maximum(shares, 1e-12))).sum(axis=1),
        "brightness": _odds(_mean(grey) / 255),
    }
    return np.stack([found[name] for name in FACTS], axis=1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class UsualFacts:
    """What is usual of the facts in a collection; bad frames among its images hardly change it.

    Attributes
    ----------
    centre, spread : (m,) float32
        Median of each fact, and half of what lies between its 16th and 84th percentile.
    mean, directions : (m,), (m, m) float32
        Of the facts in spreads from the centre: as `aesearch.vectors.distances.mahalanobis` takes them.
    """

    centre: NDArray[np.float32]
    spread: NDArray[np.float32]
    mean: NDArray[np.float32]
    directions: NDArray[np.float32]

    @classmethod
    def learn(cls, facts: NDArray[np.float32]) -> UsualFacts:
        """From the facts (n, m) of a collection's images."""
        low, centre, high = np.quantile(facts, [0.16, 0.5, 0.84], axis=0).astype(np.float32)
        spread = np.maximum((high - low) / 2, np.float32(LEAST_SPREAD))
        scaled = np.clip((facts - centre) / spread, -FARTHEST, FARTHEST).astype(np.float64)
        kept = scaled
        for _ in range(TRIMMED):  # bad frames among the images would make others like them usual
            mean = kept.mean(axis=0)
            directions = principal_directions(kept.T @ kept / len(kept) - np.outer(mean, mean))
            far = mahalanobis(scaled.astype(np.float32), mean.astype(np.float32), directions)
            kept = scaled[far <= np.quantile(far, 1 - EXTREME)]
        return cls(centre, spread, mean.astype(np.float32), directions)

    def distance(self, facts: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squared Mahalanobis distance of facts from the usual ones, (n,) float32."""
        return mahalanobis(self._scaled(facts), self.mean, self.directions)

    def strangest(self, facts: NDArray[np.float32]) -> NDArray[np.int64]:
        """Which fact of each image is the most extreme, (n,): twice its place in ``FACTS``, one more where high."""
        scaled = self._scaled(facts)
        place = np.abs(scaled).argmax(axis=1)
        return 2 * place + (scaled[np.arange(len(scaled)), place] > 0)

    def _scaled(self, facts: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.clip((facts - self.centre) / self.spread, -FARTHEST, FARTHEST)


def _mean(maps: NDArray[np.generic]) -> NDArray[np.float32]:
    """Of each of n, (n,); 0 of nothing."""
    flat = maps.reshape(len(maps), -1)
    return np.asarray(flat.sum(axis=1, dtype=np.float32) / np.float32(max(1, flat.shape[1])))


def _root_mean_square(*differences: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of differences along both axes, on the [0, 1] scale; 0 where an image is too small for any."""
    return np.asarray(np.sqrt(sum(_mean(np.square(one)) for one in differences) / len(differences)) / 255)


def _in_a_quarter(profiles: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of each row's sum that its largest quarter makes up; 1 of nothing."""
    ranked = np.sort(profiles, axis=1)
    quarter = max(1, ranked.shape[1] // 4) if ranked.shape[1] else 0
    return (ranked[:, -quarter:].sum(axis=1) + LEVEL) / (ranked.sum(axis=1) + LEVEL)


def _odds(shares: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.asarray(np.log((shares + RESOLUTION) / (1 - shares + RESOLUTION)), dtype=np.float32)


def _histograms(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many pixels of each image fall into each of the bins, (n, BINS)."""
    flat = (grey.reshape(len(grey), -1) * (BINS / 256)).astype(np.int64)
    flat += np.arange(len(grey))[:, None] * BINS
    return np.bincount(flat.ravel(), minlength=len(grey) * BINS).reshape(len(grey), BINS).astype(np.float32)
