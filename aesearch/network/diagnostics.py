"""What a finished training is worth, judged on images it never saw."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.network.architectures import architecture
from aesearch.network.augmentation import held_out_batches
from aesearch.network.autoencoder import to_float
from aesearch.network.patches import most_at_once
from aesearch.network.training import STARTED, Training

logger = logging.getLogger(__name__)

WORSE = 1.01  # times the error of PCA: nearer to it is as good
DEAD_SPREAD = 1e-3  # a latent number that varies less than this share of the median one carries nothing
ALIKE = (0.5 / 255) ** 2  # of images that differ less from their mean there is nothing to learn
FAR_OFF = 3  # times the usual learning rate, or less than a third of it
NO_GAIN = 0.9  # of the mean image's error: with more left, PCA has found next to nothing
HARDLY = "PCA explains hardly any variance either, as with noise. If there is structure, try a larger --latent-dim"
FEW_EPOCHS = 5  # tell nothing of which was best
EARLY, BY_HEART = 0.75, 0.7  # best epoch of all; training loss of the held-out one
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
    undoes = training.spec.rebuilt_from == training.spec.latent_dim  # else features are no part of a picture
    size = training.spec.latent_dim
    pca = _fit_pca(sample, training.spec.rebuilt_from)
    squared = {"reconstruction": 0.0, "task": 0.0, "pca": 0.0, "pca_task": 0.0}
    known = sample[: len(held_out)]
    latents, done = np.empty((len(held_out), size), np.float32), 0  # small tensors that are kept scatter the memory
    with torch.inference_mode():
        encoder, decoder = training.model["encoder"], training.model["decoder"]
        batch = min(training.recipe.batch_size, most_at_once(held_out, device))
        for inputs, targets in held_out_batches(held_out, training.recipe.invariance, batch, device):
            found = encoder(targets)
            latents[done : done + len(found)] = found.cpu().numpy()
            done += len(found)
            squared["reconstruction"] += float((decoder(found) - targets).square().sum())
            upright = encoder(inputs) if undoes else found
            if undoes:
                upright[:, training.spec.feature_dim :] = 0
            squared["task"] += float((decoder(upright) - targets).square().sum())
            if pca is not None:
                wanted = targets.flatten(1).cpu().numpy()
                flat = inputs.flatten(1).cpu().numpy() if undoes else wanted
                squared["pca"] += float(np.square(pca(wanted) - wanted).sum())
                squared["pca_task"] += float(np.square(pca(flat) - wanted).sum())
        on_known = sum(
            float((decoder(encoder(images)) - images).square().sum())
            for images, _ in held_out_batches(known, "none", batch, device)
        )
        if len(held_out) < FEWEST_TO_VARY:
            more = encoder(to_float(torch.from_numpy(sample[:FEWEST_TO_VARY]).to(device)))
            latents = np.concatenate([latents, more.cpu().numpy()])
    error: dict[str, float | None] = {name: total / held_out.size for name, total in squared.items()}
    error["known"] = on_known / known.size
    if pca is None:
        error |= {"pca": None, "pca_task": None}
    # Images may have fewer components than a style has room for: that is no fault.
    learned = size if undoes else training.spec.feature_dim
    dead = _count_dead(latents[:, :learned])
    for advice in advise(training, dead, error, _error_of_the_mean(sample, held_out)):
        logger.warning("%s", advice)
    if said := _on_pictures(training, error):
        logger.info("%s", said)
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


def _error_of_the_mean(sample: NDArray[np.uint8], held_out: NDArray[np.uint8]) -> float:
    """Mean squared error, on the [0, 1] scale, of answering held-out images with the mean of the sample."""
    mean = sample.mean(axis=0, dtype=np.float64)
    return float(np.mean([np.square(image - mean).mean() for image in held_out])) / 255**2


def advise(training: Training, dead: int, error: dict[str, float | None], of_the_mean: float) -> list[str]:
    """What is wrong with a training, one line each, and what to do, by what its figures say is the cause.

    Parameters
    ----------
    dead : int
        Latent numbers that never vary.
    error : dict
        ``reconstruction``, ``task``, ``pca``, ``pca_task``, as `examine` gives them; ``known``: that of images
        trained on.
    of_the_mean : float
        Mean squared error of answering every held-out image with the mean one.
    """
    size = training.spec.latent_dim
    if of_the_mean < ALIKE:
        return [f"the images are all alike, {255 * of_the_mean**0.5:.2g} of 255 grey levels from their mean: there is "
                "nothing to tell them apart by. See what is in them, and how it was scaled"]  # fmt: skip
    if dead == size:
        return [f"the latent is dead, all images get the same features: {_why_nothing(training, error, of_the_mean)}"]
    ours = error["task"]
    if ours is not None and ours > STARTED * of_the_mean:
        return [f"its reconstructions are no better than the mean image: {_why_nothing(training, error, of_the_mean)}"]
    said = [f"{dead} of {size} latent numbers never vary: try --latent-dim {size - dead}"] if dead else []
    mine, free = error["task"], error["pca_task"]
    if mine is not None and free is not None and mine > WORSE * free:
        why = HARDLY if free > NO_GAIN * of_the_mean else _why(training, error)
        said.append(f"it reconstructs worse ({mine:.5f}) than PCA of its own size ({free:.5f}): {why}")
    return said


def _on_pictures(training: Training, error: dict[str, float | None]) -> str:
    """A line for features that are better than PCA's, beside pictures that are not; empty for all others.

    Without a style the network never learned to rebuild untouched images.
    """
    own, free, task, free_task = (error[name] for name in ("reconstruction", "pca", "task", "pca_task"))
    if own is None or free is None or task is None or free_task is None:
        return ""
    if not training.spec.style_dim or own <= free or task > free_task:
        return ""
    return (
        f"it undoes augmentation better ({task:.5f}) than PCA of the same size ({free_task:.5f}), as search and groups "
        f"need, but reconstructs pictures less exactly ({own:.5f}, {free:.5f}): {_why(training, error)}"
    )


def _rate_advice(training: Training) -> str:
    """What to do about a learning rate that is far from the one usual for the network."""
    rate, usual = training.recipe.learning_rate, architecture(training.spec.arch).recipe.learning_rate
    if usual / FAR_OFF <= rate <= usual * FAR_OFF:
        return ""
    return f"{'lower' if rate > usual else 'raise'} --learning-rate (now {rate:g}, usually {usual:g})"


def _why_nothing(training: Training, error: dict[str, float | None], of_the_mean: float) -> str:
    """Why a network has learned nothing, and what to do."""
    if advice := _rate_advice(training):
        return advice
    free = error["pca_task"]
    if free is not None and free > NO_GAIN * of_the_mean:
        return HARDLY
    if len(training.history) < FEW_EPOCHS:
        return f"train longer, --epochs {2 * FEW_EPOCHS} or more"
    return "change --seed, or take another --arch"


def _why(training: Training, error: dict[str, float | None]) -> str:
    """Why a network reconstructs badly, and what to do: a wrong rate, images known by heart, too few epochs."""
    if advice := _rate_advice(training):
        return advice
    history, epochs = training.history, len(training.history)
    if not history:
        return "nothing was trained: --effort normal"
    best = min(history, key=lambda epoch: epoch.held_out_loss)
    early = epochs >= FEW_EPOCHS and best.epoch <= EARLY * epochs
    known, new = error["known"], error["reconstruction"]
    if early or (known is not None and new is not None and known < BY_HEART * new):
        return (
            f"it overfits (epoch {best.epoch} of {epochs} was best, training error {known:.5f}, and {new:.5f} "
            "for images held out). More images help, more epochs do not"
        )
    return f"train longer, --epochs {2 * training.recipe.epochs} or more (epoch {best.epoch} of {epochs} was best)"


def _fit_pca(sample: NDArray[np.uint8], size: int) -> Callable[[NDArray[np.float32]], NDArray[np.float32]] | None:
    """Rebuild flat [0, 1] images from as many principal components; None if the sample has too few rows."""
    from sklearn.decomposition import PCA

    numbers = sample[0].size
    rows = min(len(sample), 5000, max(4 * size, 50_000_000 // numbers))
    flat = sample[:rows].reshape(rows, numbers).astype(np.float32) / 255
    if size >= min(flat.shape):
        return None
    pca = PCA(size, svd_solver="covariance_eigh" if flat.shape[1] <= 2000 else "randomized", random_state=0)
    with np.errstate(invalid="ignore"):  # images all alike have no variance to take shares of
        pca.fit(flat)
    return lambda images: np.asarray(pca.inverse_transform(pca.transform(images)), dtype=np.float32)
