"""Whether a collection is of clear kinds, so that an image of a new kind would be told: found out without labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aesearch.usual import mean_distance

KINDS, NEAREST = 8, 5  # that are tried, each left out in turn; neighbours that images are far from
FEWEST_KNOWN, FEWEST_NEW = 200, 100  # images that tell it
TOLD = 0.85  # AUROC of a kind that is left out

Floats = NDArray[np.float32]


def are_of_kinds(known: tuple[Floats, Floats], new: tuple[Floats, Floats], seed: int = 0) -> bool:
    """Whether images of a kind that is left out would stand out, by features and by another description alike.

    The kinds are groups of the features (k-means). An image counts as new if those of its own group are left out of
    what it is compared with. Groups that are no kinds have neighbours in other groups, by one description at least.

    Parameters
    ----------
    known, new : (n, f), (n, d) float32
        Features and the other description, of the images to compare with, and of others like them.
    """
    from sklearn.cluster import KMeans
    from sklearn.metrics import roc_auc_score

    if len(known[0]) < FEWEST_KNOWN or len(new[0]) < FEWEST_NEW:
        return False
    features, of_new = (
        vectors / (np.linalg.norm(vectors, axis=1, keepdims=True) + 1e-9) for vectors in (known[0], new[0])
    )
    means = KMeans(KINDS, n_init=3, random_state=seed).fit(features)
    kinds, own = means.labels_.astype(np.int64), means.predict(of_new).astype(np.int64)
    odd = np.repeat([False, True], len(own))
    for base, vectors in ((features, of_new), (known[1], new[1])):
        far = [mean_distance(vectors, base, kinds, NEAREST, left_out) for left_out in (None, own)]
        if roc_auc_score(odd, np.concatenate(far)) < TOLD:
            return False
    return True
