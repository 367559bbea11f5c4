"""How well faults are found on a set with known ones: of images, of pixels, of regions, each kind by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.localisation import at_size, pixel_auroc, region_overlap
from aesearch.errors import AesearchError

ALL = "all"
MASK_SIDE = 256  # pixels of the longer side at which maps are held against masks, at most
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """What one score says of the images to judge.

    Attributes
    ----------
    scores : (n,) float32
        Larger is odder.
    threshold : float
        An image is called faulty if its score is larger; learned from normal images alone.
    maps : sequence of n (height, width) float32, optional
        Where each image is odd.
    """

    scores: NDArray[np.float32]
    threshold: float
    maps: Sequence[NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Measures:
    """How well one score finds the faults of one kind, or of ``all``, among the sound images.

    Attributes
    ----------
    kind, score : str
    images : int
        Faulty ones.
    image_auroc, f1 : float
        Of images; F1 is at the threshold.
    pixel_auroc, pro : float or None
        Of pixels, and per-region overlap; None without maps or masks.
    """

    kind: str
    score: str
    images: int
    image_auroc: float
    f1: float
    pixel_auroc: float | None
    pro: float | None

    def to_json(self) -> dict[str, Any]:
        """As ``aesearch anomalies --json`` gives it."""
        return asdict(self)


def measure(
    judged: Mapping[str, Judged], labels: Sequence[str], normal: str, masks: Sequence[Mask | None]
) -> list[Measures]:
    """Measures of each kind by each score, all kinds together first.

    Parameters
    ----------
    judged : mapping
        By the name of the score.
    labels : n str
        Of the images to judge; those without are left out.
    normal : str
        The label of sound ones.
    masks : n (height, width) bool, or None
        Where the faults of each are; of a sound image None is no fault.
    """
    names = np.array(labels)
    sound, kinds = names == normal, sorted(set(labels) - {normal, ""})
    found = []
    for kind in [ALL, *kinds] if len(kinds) > 1 else kinds:
        faulty = ~sound & (names != "") if kind == ALL else names == kind
        found += [_measures(kind, score, one, sound, faulty, masks) for score, one in judged.items()]
    return found


def _measures(
    kind: str, score: str, judged: Judged, sound: Mask, faulty: Mask, masks: Sequence[Mask | None]
) -> Measures:
    from sklearn.metrics import f1_score, roc_auc_score

    shown = np.flatnonzero(sound | faulty)
    scores = judged.scores[shown]
    area = overlap = None
    masked = [row for row in shown.tolist() if sound[row] or masks[row] is not None]
    if judged.maps is not None and any(faulty[row] for row in masked):
        pairs = [_beside_mask(judged.maps[row], masks[row]) for row in masked]
        area, overlap = (
            of([one for one, _ in pairs], [mask for _, mask in pairs]) for of in (pixel_auroc, region_overlap)
        )
    return Measures(
        kind,
        score,
        int(faulty.sum()),
        float(roc_auc_score(faulty[shown], scores)),
        float(f1_score(faulty[shown], scores > judged.threshold, zero_division=0)),
        area,
        overlap,
    )


def _beside_mask(heat: NDArray[np.float32], mask: Mask | None) -> tuple[NDArray[np.float32], Mask]:
    if mask is not None:
        return at_size(np.asarray(heat, np.float32), mask.shape), mask
    scale = MASK_SIDE / max(heat.shape)
    shape = tuple(max(1, round(side * scale)) for side in heat.shape)
    return at_size(np.asarray(heat, np.float32), shape), np.zeros(shape, dtype=bool)


def no_larger(heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """A map of at most 256 pixels a side, as masks have."""
    scale = min(1.0, MASK_SIDE / max(heat.shape))
    height, width = (max(1, round(side * scale)) for side in heat.shape)
    return heat if scale == 1 else at_size(heat, (height, width))


def read_mask(path: Path) -> Mask:
    """A mask, of at most 256 pixels a side: what is not black is a fault; ``AesearchError`` if it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            grey = picture.convert("L").point(lambda level: 255 if level else 0)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise AesearchError(f"the mask {path} cannot be read: {error}") from error
    scale = MASK_SIDE / max(grey.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in grey.size)
        grey = grey.resize((width, height), Image.Resampling.BOX)
    return np.asarray(grey) > 0
