"""The odd ones out: images ranked by a score, and how well the score tells them apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.facts import FACTS
from aesearch.anomalies.names import PARTS, REASONS
from aesearch.errors import AesearchError, did_you_mean


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
        raise AesearchError(f"every image has the label {normal_label!r}: AUROC needs images with other labels")
    return float(roc_auc_score(odd, scores[known]))


def _some(names: NDArray[np.str_]) -> str:
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")


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


def explain(why: int) -> str:
    """A number that `Scorer` gives, in words: the part of ``combined`` that spoke loudest, or the fact."""
    if why < len(REASONS):
        return REASONS[why] if why >= 0 else ""
    place, high = divmod(why - len(REASONS), 2)
    return list(FACTS.values())[place][high]


def part_of(why: int) -> str:
    """Which of ``PARTS`` spoke loudest."""
    return PARTS[min(why, len(REASONS))] if why >= 0 else ""
