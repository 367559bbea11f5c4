"""The odd ones out: images ranked by a score, and how well the score tells them apart."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.facts import FACTS
from aesearch.errors import AesearchError, did_you_mean
from aesearch.vectors.distances import mahalanobis, principal_directions

SCORES = ("combined", "patches", "reconstruction", "nap", "neighbours")
NEIGHBOURS = 5
BLUR = 1 / 28  # of the longer side: single pixels are no region
MOST_REGIONS = 3
MOST_LEVERAGE = 0.99  # of one image on the directions learned from it
TINY, LEAST_RISE = 1e-12, 0.02
# What ``combined`` puts together, and why an image is odd by each; of facts one of `facts.FACTS` says it.
PARTS = ("neighbours", "pixels", "shapes", "places", "texture", "fine_texture", "whole", "details", "facts")
SCALES = ("weights", "scales", "sums", "of_kinds")  # how the parts are put together
OF_PLACES = ("places", "texture", "fine_texture")  # those that look for a place that is odd
OF_PATCHES = (*OF_PLACES, "whole", "details")  # those that ``patches`` puts together
IN_DETAIL = ("fine_texture", "details")  # those that small images have not
OF_KINDS = ("neighbours", "shapes")  # those that tell a new kind
REASONS = (
    "far from its neighbours",
    "unusual pixels",
    "unusual shapes",
    "a place looks faulty",
    "unusual texture",
    "unusual fine texture",
    "unusual as a whole",
    "unusual in detail",
)
KNOTS = (0.0, 0.2, 0.5, 0.8, 0.95)  # shares of normal images; beyond the last their tail is taken to be exponential
FOLDS = 10  # of normal images: what a threshold does is measured on each by the others
MOST_NEEDED = 1e12  # images, that a message names


@dataclass(frozen=True, eq=False)
class Ranking:
    """The oddest rows.

    Attributes
    ----------
    rows : (top,) int64
        Oddest first; equal scores in row order.
    scores : (top,) float32
        Larger is odder.
    scored : int
        How many rows were ranked.
    auroc : float or None
        Area under the ROC curve of the score for telling images of other labels from the normal one.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    scored: int
    auroc: float | None = None


def rank(
    scores: NDArray[np.float32], *, top: int = 50, labels: list[str] | None = None, normal_label: str | None = None
) -> Ranking:
    """Rank images by how odd they are.

    Parameters
    ----------
    scores : (n,) float32
        Larger is odder; for example the mean squared reconstruction error per pixel.
    top : int
        How many to return.
    labels : list of n str, optional
        With ``normal_label``, what the AUROC is measured against; unlabelled rows are left out of it.

    Raises
    ------
    AesearchError
        No image, or no other image, has the normal label.
    """
    order = np.argsort(-scores, kind="stable")[:top]
    auroc = None if normal_label is None else measure_auroc(scores, labels or [""] * len(scores), normal_label)
    return Ranking(order, scores[order], len(scores), auroc)


def measure_auroc(scores: NDArray[np.float32], labels: list[str], normal_label: str) -> float:
    """AUROC of the scores for telling other labels (odd) from the normal one; 0.5 is chance, 1 perfect."""
    from sklearn.metrics import roc_auc_score

    names = np.array(labels, dtype=str)
    known = names != ""
    if not known.any():
        raise AesearchError(
            "--normal-label needs labels, and these images have none (--labels folder takes sub-folders)"
        )
    odd = names[known] != normal_label
    if odd.all():
        there = np.unique(names[known])
        hint = did_you_mean(normal_label, there.tolist())
        raise AesearchError(f"no image has the label {normal_label!r}; there is: {_some(there)}{hint}")
    if not odd.any():
        raise AesearchError(f"every image has the label {normal_label!r}: there is nothing odd to measure with")
    return float(roc_auc_score(odd, scores[known]))


def _some(names: NDArray[np.str_]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


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


def neighbour_distance(
    units: NDArray[np.int64], distances: NDArray[np.float32], k: int, own: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Mean distance to the k nearest rows of a collection (Angiulli & Pizzuti 2002), (n,) float32; larger is odder.

    Parameters
    ----------
    units, distances : (n, m)
        Of the nearest, as an index gives them, which unit each is of, as `aesearch.images.grouping.units_of` numbers
        them; -1 where there is none.
    own : (n,) int64, optional
        Units of the images: what is of the same does not count. Where all are, the distance to the farthest is taken.
    """
    keep = units >= 0
    if own is not None:
        keep &= units != own[:, None]
    keep &= keep.cumsum(axis=1) <= k
    counted = np.where(keep, distances, 0).sum(axis=1) / np.maximum(keep.sum(axis=1), 1)
    farthest = np.where(units >= 0, distances, 0).max(axis=1, initial=0)
    return np.asarray(np.where(keep.any(axis=1), counted, farthest), dtype=np.float32)


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


def explain(why: int) -> str:
    """A number that `Scorer` gives, in words: the part of ``combined`` that spoke loudest, or the fact."""
    if why < len(REASONS):
        return REASONS[why] if why >= 0 else ""
    place, high = divmod(why - len(REASONS), 2)
    return list(FACTS.values())[place][high]


def part_of(why: int) -> str:
    """Which of ``PARTS`` spoke loudest."""
    return PARTS[min(why, len(REASONS))] if why >= 0 else ""


def error_map(original: NDArray[np.uint8], rebuilt: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where an image (channels, height, width) differs from its reconstruction: (height, width) float32.

    Squared differences on the [0, 1] scale, over the channels their mean.
    """
    return np.asarray(np.square(original / np.float32(255) - rebuilt).mean(axis=0), dtype=np.float32)


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
