"""What a finished training is worth, judged on images it never saw."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.autoencoders import to_float
from aesearch.invariance import held_out_batches
from aesearch.training import Training

logger = logging.getLogger(__name__)

DEAD_SPREAD = 1e-3  # a latent number that varies less than this share of the median one carries nothing
FEWEST_TO_VARY = 20  # held-out images that show what varies; of fewer, training images help


def examine(training: Training, sample: NDArray[np.uint8], held_out: NDArray[np.uint8]) -> dict[str, Any]:
    """Judge a trained autoencoder on held-out images and warn, in one line each, of what is wrong.

    Parameters
    ----------
    sample, held_out : (n, c, h, w) uint8
        Training images that PCA may learn from, and images neither has seen.

    Returns
    -------
    dict
        ``reconstruction_mse`` and ``pca_mse`` of untouched images, ``task_mse`` and ``pca_task_mse``: error against
        the untouched image from the transformed one, each for the network and for PCA of the same size
        (None where there are too few images for that PCA); ``dead_latents``.
    """
    import torch

    device = next(training.model.parameters()).device
    size = training.spec.latent_dim
    pca = _fit_pca(sample, size)
    squared = {"reconstruction": 0.0, "task": 0.0, "pca": 0.0, "pca_task": 0.0}
    latents = []
    with torch.inference_mode():
        encoder, decoder = training.model["encoder"], training.model["decoder"]
        for inputs, targets in held_out_batches(
            held_out, training.recipe.invariance, training.recipe.batch_size, device
        ):
            latents.append(encoder(targets))
            squared["reconstruction"] += float((decoder(latents[-1]) - targets).square().sum())
            upright = encoder(inputs)
            upright[:, training.spec.feature_dim :] = 0
            squared["task"] += float((decoder(upright) - targets).square().sum())
            if pca is not None:
                flat, wanted = inputs.flatten(1).cpu().numpy(), targets.flatten(1).cpu().numpy()
                squared["pca"] += float(np.square(pca(wanted) - wanted).sum())
                squared["pca_task"] += float(np.square(pca(flat) - wanted).sum())
        if len(held_out) < FEWEST_TO_VARY:
            latents.append(encoder(to_float(torch.from_numpy(sample[:FEWEST_TO_VARY]).to(device))))
    error: dict[str, float | None] = {name: total / held_out.size for name, total in squared.items()}
    if pca is None:
        error |= {"pca": None, "pca_task": None}
    dead = _count_dead(torch.cat(latents).cpu().numpy())
    _warn(training, dead, error)
    return {
        "reconstruction_mse": error["reconstruction"],
        "pca_mse": error["pca"],
        "task_mse": error["task"],
        "pca_task_mse": error["pca_task"],
        "dead_latents": dead,
    }


def _count_dead(latents: NDArray[np.float32]) -> int:
    """How many of the numbers of (n, d) latents never vary; of two images of one kind none is said to."""
    if len(latents) <= 2:
        return 0
    spread = latents.std(axis=0, dtype=np.float64)
    return int((spread <= max(DEAD_SPREAD * float(np.median(spread)), 1e-7)).sum())


def _warn(training: Training, dead: int, error: dict[str, float | None]) -> None:
    size = training.spec.latent_dim
    if dead == size:
        logger.warning("the latent is dead, all images get the same features: lower --learning-rate or change --seed")
    elif dead:
        logger.warning("%d of %d latent numbers never vary: try --latent-dim %d", dead, size, size - dead)
    judged = [("task", "pca_task")]
    if training.spec.style_dim:  # without one it never learned to rebuild untouched images
        judged.append(("reconstruction", "pca"))
    for own, baseline in judged:
        ours, free = error[own], error[baseline]
        if ours is not None and free is not None and ours > free:
            logger.warning(
                "it reconstructs worse (%.5f) than PCA of its own size (%.5f): train longer, --epochs %d or more",
                ours,
                free,
                2 * training.recipe.epochs,
            )
            return


def _fit_pca(sample: NDArray[np.uint8], size: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """Rebuild flat [0, 1] images from as many principal components; None if the sample has too few rows."""
    from sklearn.decomposition import PCA

    numbers = sample[0].size
    rows = min(len(sample), 5000, max(4 * size, 50_000_000 // numbers))
    flat = sample[:rows].reshape(rows, numbers).astype(np.float32) / 255
    if size >= min(flat.shape):
        return None
    pca = PCA(size, svd_solver="covariance_eigh" if flat.shape[1] <= 2000 else "randomized", random_state=0).fit(flat)
    return lambda images: np.asarray(pca.inverse_transform(pca.transform(images)), dtype=np.float32)
