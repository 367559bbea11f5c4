"""Whether a collection is of clear kinds, so that an image of a new kind would be told: found out without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aesearch.vectors.distances import exact_neighbours

KINDS, NEAREST = 8, 5  # that are tried, each left out in turn; neighbours that images are far from
FEWEST_KNOWN, FEWEST_OTHERS = 200, 100  # images that tell it
TOLD = 0.85  # AUROC of a kind that is left out

Floats = NDArray[np.float32]


def are_of_kinds(known: tuple[Floats, Floats], new: tuple[Floats, Floats], seed: int = 0) -> bool:
    """Whether images of a kind that is left out would stand out, by features and by another description alike.

    The kinds are groups of the features (k-means). An image counts as new if those of its own group are left out of
    what it is compared with. Groups that are no kinds have neighbours in other groups, by one description at least.

    Parameters
    ----------
    known, new : (n, f), (n, d) float32
        Features and the other description, of the images to compare with, and of others like them; none is in both.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import roc_auc_score

    if len(known[0]) < FEWEST_KNOWN or len(new[0]) < FEWEST_OTHERS:
        return False
    features, of_new = (
        vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9) for vectors in (known[0], new[0])
    )
    if len(np.unique(features, axis=0)) < KINDS:
        return False
    means = KMeans(KINDS, n_init=3, random_state=seed).fit(features)
    kinds, own = means.labels_, means.predict(of_new)
    odd = np.repeat([False, True], len(own))
    for base, vectors in ((features, of_new), (known[1], new[1])):
        left_out = np.empty(len(own), np.float32)
        for kind in np.unique(own):
            left_out[own == kind] = _far(base[kinds != kind], vectors[own == kind])
        if roc_auc_score(odd, np.concatenate([_far(base, vectors), left_out])) < TOLD:
            return False
    return True


def _far(base: Floats, vectors: Floats) -> Floats:
    distances = exact_neighbours(base, vectors, min(NEAREST, len(base)), "l2")[1]
    return np.asarray(distances.mean(axis=1), np.float32)
