"""How odd images are to a collection, by one of the scores, batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies import NEIGHBOURS, Normality, neighbour_distance
from aesearch.autoencoders import Autoencoder
from aesearch.batches import in_order, read_batches
from aesearch.errors import AesearchError
from aesearch.sources import Batch, Source

logger = logging.getLogger(__name__)

Search = Callable[[NDArray[np.float32], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
SEARCHED = 4096  # queries at once


@dataclass(frozen=True, eq=False)
class Scorer:
    """One score of a collection.

    Attributes
    ----------
    score : str
        One of `aesearch.anomalies.SCORES`.
    autoencoder : Autoencoder
    search : callable
        From features (n, dim) and k to the rows and distances, (n, k) each, of the nearest in the collection.
    normality : Normality, optional
        What ``nap`` needs.
    """

    score: str
    autoencoder: Autoencoder
    search: Search
    normality: Normality | None = None

    def of_images(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores (n,) float32 of new images (n, channels, height, width)."""
        if self.normality is not None:
            return self.normality.score(self.autoencoder.hidden_differences(images))
        latents, errors = self.autoencoder.encode_and_score(images)
        return self.of_features(latents[:, : self.autoencoder.spec.feature_dim], errors)

    def of_features(
        self, features: NDArray[np.float32], errors: NDArray[np.float32], own: NDArray[np.int64] | None = None
    ) -> NDArray[np.float32]:
        """Scores (n,) float32 from features and reconstruction errors; ``own`` are the rows they are of, if any."""
        if self.score == "reconstruction":
            return errors
        parts = [errors[:0]]
        for start in range(0, len(features), SEARCHED):
            part = slice(start, start + SEARCHED)
            rows, distances = self.search(features[part], NEIGHBOURS + 1)
            parts.append(neighbour_distance(rows, distances, None if own is None else own[part]))
        far = np.concatenate(parts)
        return far if self.score == "neighbours" else errors * far

    def of_source(self, source: Source, *, progress: bool = False) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores of a source's readable images, and their positions.

        Raises
        ------
        AesearchError
            Not one image could be read.
        """
        scores, places, skipped = [], [], list(source.listing_skips)
        for batch in read_in_order(source, np.arange(len(source)), self.autoencoder, "score", progress):
            scores.append(self.of_images(batch.images) if len(batch.images) else np.empty(0, np.float32))
            places.append(batch.positions)
            skipped += [(source.ids[p], reason) for p, reason in batch.skipped]
        if skipped:
            logger.warning("%d files gave no image, the first: %s: %s", len(skipped), *skipped[0])
        if not sum(map(len, places)):
            raise AesearchError(f"no usable image in {source.name}")
        return np.concatenate(scores), np.concatenate(places)


def learn_normality(
    source: Source, positions: NDArray[np.int64], autoencoder: Autoencoder, *, progress: bool = False
) -> Normality:
    """What the autoencoder loses of those images, which count as normal."""
    batches = read_in_order(source, positions, autoencoder, "learn", progress)
    return Normality.learn(autoencoder.hidden_differences(b.images) for b in batches if len(b.images))


def read_in_order(
    source: Source, positions: NDArray[np.int64], autoencoder: Autoencoder, doing: str, progress: bool
) -> Iterator[Batch]:
    """Images of those positions as the autoencoder takes them, some at a time, under a progress bar."""
    from tqdm.auto import tqdm

    groups = [positions[g] for g in in_order(0, len(positions), autoencoder.reading_size)]
    disable = None if progress else True
    with tqdm(total=len(positions), desc=doing, unit="img", unit_scale=True, disable=disable) as bar:
        for batch in read_batches(source, autoencoder.spec.preprocessing, groups):
            yield batch
            bar.update(len(batch.positions) + len(batch.skipped))
