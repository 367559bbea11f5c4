"""How well maps show where faults are, against masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Maps = Sequence[NDArray[np.float32]]
Masks = Sequence[NDArray[np.bool_]]

MOST_PIXELS = 2_000_000  # looked at; more are drawn from at random
MOST_FALSE, LEVELS = 0.3, 200  # share of sound pixels up to which overlaps count, and thresholds up to there


def at_size(heat_map: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A map (height, width) at the size of its mask."""
    from PIL import Image

    height, width = shape
    return np.asarray(Image.fromarray(heat_map).resize((width, height), Image.Resampling.BILINEAR))


def pixel_auroc(maps: Maps, masks: Masks, seed: int = 0) -> float:
    """AUROC of all pixels for telling faulty ones from sound ones.

    Parameters
    ----------
    maps : sequence of (height, width) float32
        Of sound and faulty images, larger is odder.
    masks : sequence of (height, width) bool
        Where the faults of each are.
    """
    from sklearn.metrics import roc_auc_score

    scores, faulty = (np.concatenate([one.ravel() for one in many]) for many in (maps, masks))
    if len(scores) > MOST_PIXELS:
        drawn = np.random.default_rng(seed).choice(len(scores), MOST_PIXELS, replace=False)
        scores, faulty = scores[drawn], faulty[drawn]
    return float(roc_auc_score(faulty, scores)) if faulty.any() and not faulty.all() else float("nan")


def region_overlap(maps: Maps, masks: Masks) -> float:
    """Per-region overlap (PRO: Bergmann et al. 2020): how much of each fault is marked, whatever its size.

    The mean over connected faults, integrated over thresholds at which up to 30 % of the sound pixels are marked, as a
    share of what is possible. NaN without any fault. Arguments as of `pixel_auroc`.
    """
    from scipy import ndimage

    sound = np.sort(np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)]))
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        numbered, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [np.sort(one[numbered == number]) for number in range(1, count + 1)]
    if not regions or not len(sound):
        return float("nan")
    allowed = np.linspace(0, MOST_FALSE, LEVELS)
    thresholds = np.quantile(sound, 1 - allowed)
    marked = 1 - np.searchsorted(sound, thresholds, side="right") / len(sound)
    overlap = np.mean([1 - np.searchsorted(r, thresholds, side="right") / len(r) for r in regions], axis=0)
    last = np.flatnonzero(np.diff(marked, append=2) > 0)  # of thresholds that mark as much, and all for the end
    reached = np.interp(allowed, [*marked[last], 1], [*overlap[last], 1])
    return float(np.trapezoid(reached, allowed) / MOST_FALSE)
