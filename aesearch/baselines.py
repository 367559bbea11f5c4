"""What anyone gets without training anything, to hold features against: raw pixels, principal components, patches."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.patch_bank import PatchBank
from aesearch.images.decode import Preprocessing
from aesearch.images.numbers import raw_pixels, standardised
from aesearch.images.resize import shrunk
from aesearch.network.architectures import AutoencoderSpec, build_autoencoder
from aesearch.network.autoencoder import Autoencoder
from aesearch.network.patches import fit_patches
from aesearch.vectors.distances import exact_neighbours

COMPONENTS = 64
MOST_TRAIN, MOST_TEST = 1000, 500  # images that features are compared on
OURS = "features"
WHOLE_SIDE, FEW_COMPONENTS = 64, 32  # pixels of images, and principal components, by which they are odd
Targets = tuple[NDArray[np.int64], NDArray[np.int64]]
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def free_features(train: NDArray[np.uint8], test: NDArray[np.uint8], fields: int = 1, seed: int = 0) -> dict[str, Pair]:
    """Features of images by name, of those to learn from and of those to test on; no label is read.

    Parameters
    ----------
    train, test : (n, channels, height, width) uint8
    fields : int
        Patches are averaged over so many fields a side.

    Returns
    -------
    dict
        Of each name two arrays, (n, d) float32.
    """
    raw = raw_pixels(train), raw_pixels(test)
    return {
        "raw pixels": raw,
        f"PCA-{COMPONENTS}": principal_components(*raw),
        "patches": patches(train, test, fields, seed),
    }


def principal_components(train: NDArray[np.float32], test: NDArray[np.float32], size: int = COMPONENTS) -> Pair:
    """The first principal components, as they are."""
    from sklearn.decomposition import PCA

    pca = PCA(min(size, *train.shape), svd_solver="randomized", random_state=0).fit(train)
    return np.asarray(pca.transform(train), np.float32), np.asarray(pca.transform(test), np.float32)


def patches(train: NDArray[np.uint8], test: NDArray[np.uint8], fields: int, seed: int = 0) -> Pair:
    """What `aesearch.network.patches` finds in closed form, of the images alone, without mirror images."""
    channels, height, width = train.shape[1:]
    spec = AutoencoderSpec.choose(
        "pooled", Preprocessing(height, width, channels), widths=(), rows=len(train), fields=fields
    )
    model = build_autoencoder(spec)
    fit_patches(model, spec, train, seed)
    autoencoder = Autoencoder(model, spec, "cpu")
    return autoencoder.encode(train), autoencoder.encode(test)


def compare_with_free(
    features: Pair, images: tuple[NDArray[np.uint8], NDArray[np.uint8]], targets: Targets, metric: str, fields: int = 1
) -> dict[str, dict[str, float]]:
    """Accuracy of a linear probe, and of the 10 nearest neighbours, on features and on what trains nothing.

    Parameters
    ----------
    features, images, targets : pairs
        Of images to learn from and to test on: (n, d) float32, (n, channels, height, width) uint8, (n,) int64.
    metric : {"cosine", "l2"}
        For the neighbours among features; those of the others are by cosine.

    Returns
    -------
    dict
        ``linear_accuracy`` and ``knn_accuracy`` by name, those of the features under ``features``.
    """
    from aesearch.probe import fit_linear, knn_accuracy

    known, test_targets = targets
    names = np.arange(int(max(known.max(), test_targets.max())) + 1).astype(str)
    found = {}
    for name, (train, test) in {OURS: features, **free_features(*images, fields)}.items():
        model = fit_linear(train, known, names)
        right = np.array(model.classes)[model.predict_probabilities(test).argmax(axis=1)] == names[test_targets]
        nearest = knn_accuracy(train, known, test, test_targets, metric if name == OURS else "cosine")
        found[name] = {"linear_accuracy": float(right.mean()), "knn_accuracy": nearest}
    return found


def judge(found: dict[str, dict[str, float]]) -> str:
    """One line on what `compare_with_free` found: which is best, and what to do where it is not the features.

    What is better by less than the standard error of a difference, of 500 test images, is as good.
    """
    best = {kind: max(found, key=lambda name: found[name][kind]) for kind in ("knn_accuracy", "linear_accuracy")}
    lost = {kind: name for kind, name in best.items() if _is_better(found[name][kind], found[OURS][kind])}
    if not lost:
        return "the features are best, or as good as the best"
    told = {"knn_accuracy": "10 nearest neighbours", "linear_accuracy": "a linear probe"}
    parts = [f"{name} for {told[kind]} ({found[name][kind]:.3f}, the features {found[OURS][kind]:.3f})"
             for kind, name in lost.items()]  # fmt: skip
    return f"better than the features: {' and '.join(parts)}. Train longer, --effort thorough, or on more images"


def free_scores(
    train: NDArray[np.uint8], new: NDArray[np.uint8]
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float32] | None]]:
    """How odd new images are by what trains nothing, and where: scores (m,), maps (m, height, width) or None, by name.

    Parameters
    ----------
    train, new : (n, channels, height, width), (m, channels, height, width) uint8
        Normal images to learn from, and those to judge.
    """
    from sklearn.decomposition import PCA

    flat, flat_new = (standardised(shrunk(images, WHOLE_SIDE)) for images in (train, new))
    pca = PCA(min(FEW_COMPONENTS, *flat.shape), svd_solver="randomized", random_state=0).fit(flat)
    errors = np.square(pca.inverse_transform(pca.transform(flat_new)) - flat_new).mean(axis=1)
    maps = (bank := PatchBank.learn(train)).maps(new)
    return {
        "raw 1-NN": (exact_neighbours(flat, flat_new, 1, "l2")[1][:, 0], None),
        "PCA error": (errors.astype(np.float32), None),
        "patch bank": (bank.scores(maps), maps),
    }


def _is_better(accuracy: float, than: float) -> bool:
    noise = np.sqrt((accuracy * (1 - accuracy) + than * (1 - than)) / MOST_TEST)
    return accuracy - than > noise
