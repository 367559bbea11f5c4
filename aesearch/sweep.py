"""One autoencoder per latent size, compared on images they never saw."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.facade import Collection
from aesearch.collection.results import Run, Sweep
from aesearch.errors import AesearchError
from aesearch.files.atomic import replacing
from aesearch.network.architectures import LEAST_TO_PART, AutoencoderSpec, Recipe
from aesearch.network.history import HISTORY, read_history
from aesearch.network.options import loss_name

logger = logging.getLogger(__name__)

SWEEP, CURVES, RECONSTRUCTIONS = "sweep.json", "sweep.png", "sweep-reconstructions.png"
SHOWN = 10  # images in the picture
ENOUGH_ACCURACY = 0.005  # of the best k-nearest-neighbour accuracy
LITTLE_GAIN = 0.2  # of the error, for twice the numbers
USUAL = "conv"  # network: what pooled searches by is no part of what it rebuilds, so its errors tell nothing of it


def sweep(
    source: str,
    folder: str | Path,
    latent_dims: Sequence[int],
    *,
    labels: str | None = None,
    data_dir: str | None = None,
    group: str | None = None,
    tiles: str | None = None,
    device: str = "auto",
    progress: bool = True,
    overwrite: bool = False,
    **training: Any,
) -> Sweep:
    """Train one autoencoder per latent size and compare them.

    Each is a collection of its own, ``<folder>/latent-<size>``, and can be searched; run again, those that are
    there are used. The figures go to ``sweep.json``, the pictures to ``sweep.png`` and ``sweep-reconstructions.png``.

    Parameters
    ----------
    source, labels, data_dir, group, tiles, device, overwrite, **training
        As `Collection.build` takes them, but that ``arch`` is ``conv`` unless given.
    latent_dims : sequence of int

    Raises
    ------
    AesearchError
        No sizes, or whatever `Collection.build` raises.
    """
    from aesearch.drawing.figures import save_picture
    from aesearch.report.sheets import draw_sweep, draw_sweep_reconstructions

    sizes = sorted(set(latent_dims))
    if not sizes:
        raise AesearchError("a sweep needs latent sizes: --latent-dims 2,5,10,20,50")
    training = {"arch": USUAL, **training}
    if sizes[0] < LEAST_TO_PART and training.get("invariance") is None:
        training = {**training, "invariance": "none"}  # or the smaller ones alone would learn so: no comparison
        logger.info("invariance none for all: latents smaller than %d have no room for a style part", LEAST_TO_PART)
    collections = [
        Collection.build(
            source,
            Path(folder) / f"latent-{size}",
            labels=labels,
            data_dir=data_dir,
            group=group,
            tiles=tiles,
            device=device,
            progress=progress,
            overwrite=overwrite,
            **{**training, "latent_dim": size},
        )
        for size in sizes
    ]
    runs = [_measure(collection) for collection in collections]
    made = collections[0].manifest.artifacts["encoder"]["parameters"]
    spec, recipe = AutoencoderSpec.from_json(made["spec"]), Recipe(**made["recipe"])
    found = Sweep(spec.arch, loss_name(spec, recipe), recipe.epochs, runs, *recommend(runs))
    with replacing(Path(folder) / SWEEP) as temporary:
        temporary.write_text(json.dumps(found.to_json(), indent=1), encoding="utf-8")
    save_picture(draw_sweep(found), Path(folder) / CURVES)
    rows = _unseen_rows(collections[0])
    shown = rows[np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int)].tolist()
    save_picture(draw_sweep_reconstructions(collections, sizes, shown), Path(folder) / RECONSTRUCTIONS)
    return found


def recommend(runs: Sequence[Run]) -> tuple[int, str]:
    """Latent size to take, and why.

    With labels, the smallest whose nearest neighbours are about as good as the best ones'; without, the one
    beyond which twice the numbers bring little.
    """
    accuracies = [run.knn_accuracy for run in runs]
    if all(a is not None for a in accuracies):
        best = max(a for a in accuracies if a is not None)
        for run in runs:
            if run.knn_accuracy is not None and run.knn_accuracy >= best - ENOUGH_ACCURACY:
                return run.latent_dim, (
                    f"the smallest with a nearest-neighbour accuracy within {ENOUGH_ACCURACY} of the best, {best:.4f}"
                )
    for run, larger in itertools.pairwise(runs):
        doublings = math.log2(larger.latent_dim / run.latent_dim)
        gain = 1 - (larger.test_mse / max(run.test_mse, 1e-12)) ** (1 / doublings)
        if gain < LITTLE_GAIN:
            return run.latent_dim, f"doubling it lowers the error by only {max(gain, 0):.0%}"
    return runs[-1].latent_dim, "the error still falls at the largest size: try larger ones too"


def _measure(collection: Collection) -> Run:
    encoder = collection.manifest.artifacts["encoder"]
    history = read_history(collection.manifest.path("encoder", HISTORY))
    result = None
    with contextlib.suppress(AesearchError):  # too few labels to measure with
        result = collection.probe(doubts=False)
    return Run(
        latent_dim=encoder["parameters"]["spec"]["latent_dim"],
        parameters=encoder["figures"]["parameters"],
        train_loss=[epoch.train_loss for epoch in history],
        test_loss=[epoch.held_out_loss for epoch in history],
        test_mse=float(collection.store.reconstruction_errors()[_unseen_rows(collection)].mean()),
        knn_accuracy=result.knn_accuracy if result else None,
        linear_accuracy=result.linear_accuracy if result else None,
    )


def _unseen_rows(collection: Collection) -> NDArray[np.int64]:
    """Rows held out of training, of the split ``test`` if there are any; all of them where a handful trained on all."""
    held_out = collection.store.held_out()
    test = held_out & (np.array(collection.splits()) == "test")
    unseen = np.flatnonzero(test if test.any() else held_out)
    return unseen if len(unseen) else np.arange(collection.store.rows)
