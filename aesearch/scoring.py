"""How odd images are to a collection, by one of the scores, batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies import REASONS, Normality, alarms_of, learn_scales, neighbour_distance
from aesearch.autoencoders import Autoencoder
from aesearch.batches import in_order, read_batches
from aesearch.errors import AesearchError, StaleArtifactError
from aesearch.facts import UsualFacts, measure_facts
from aesearch.progress import step
from aesearch.sources import Batch, Source

logger = logging.getLogger(__name__)

Search = Callable[[NDArray[np.float32], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
AT_ONCE = 4096  # images at most: of each there are some thousand numbers
NEAREST_AT_ONCE = 2**22  # that are looked for
MOST_FACTS = 100_000  # images whose low-level facts are kept to learn what is usual
FEWEST_NEW = 20  # images not trained on that tell what is usual


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of images.

    Attributes
    ----------
    scores : (n,) float32
        Larger is odder.
    why : (n,) int16
        What made each so, as `aesearch.anomalies.explain` takes it; -1 for scores that have one part.
    """

    scores: NDArray[np.float32]
    why: NDArray[np.int16]


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
    neighbours : tuple of int
        To how many of them the mean distance is measured, the largest number last.
    normality : Normality, optional
        What ``nap`` and ``combined`` need: how what the network does with normal images is spread.
    usual_facts : UsualFacts, optional
        What ``combined`` needs besides, of the images' low-level facts.
    scales : (5, 4) float32, optional
        What ``combined`` needs at last: `learn_scales` of its measures.
    """

    score: str
    autoencoder: Autoencoder
    search: Search
    neighbours: tuple[int, ...]
    normality: Normality | None = None
    usual_facts: UsualFacts | None = None
    scales: NDArray[np.float32] | None = None

    def of_images(self, images: NDArray[np.uint8]) -> Scored:
        """Score new images (n, channels, height, width)."""
        return self.of_measures(*self.measure(images))

    def of_measures(self, measures: NDArray[np.float32], strangest: NDArray[np.int64]) -> Scored:
        """Scores from what `measure` gives: of several measures the most alarming one."""
        if self.scales is None:
            return Scored(measures[:, 0], np.full(len(measures), -1, np.int16))
        alarms = alarms_of(measures, self.scales)
        why = alarms.argmax(axis=1)
        why = np.where(why < len(REASONS), why, len(REASONS) + strangest)
        return Scored(alarms.max(axis=1), why.astype(np.int16))

    def measure(
        self, images: NDArray[np.uint8], own: NDArray[np.int64] | None = None, learned: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """One column, or those that are combined, (n, 1 or 4) float32; and of each image the strangest fact (n,).

        ``own`` are the rows the images have in the collection, if any, ``learned`` says which of them ``normality`` was
        learned from.
        """
        none = np.zeros(len(images), np.int64)
        if self.normality is None:
            latents, errors = self.autoencoder.encode_and_score(images)
            return errors[:, None] if self.score == "reconstruction" else self.far(self._features(latents), own), none
        if self.score == "nap":
            return self.normality.distance(self.autoencoder.hidden_differences(images), learned)[:, None], none
        assert self.usual_facts is not None
        latents, around = self.autoencoder.activations(images)
        facts = measure_facts(images)
        columns = [self.far(self._features(latents), own), self.normality.distance(around, learned)]
        return np.column_stack([*columns, self.usual_facts.distance(facts)]), self.usual_facts.strangest(facts)

    def far(self, features: NDArray[np.float32], own: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Mean distances to the nearest features of the collection, (n, len(neighbours)) float32.

        ``own`` are the rows that the features are of, if any.
        """
        parts = [np.empty((0, len(self.neighbours)), np.float32)]
        themselves = int(own is not None)
        size = NEAREST_AT_ONCE // (self.neighbours[-1] + themselves)
        for start in range(0, len(features), size):
            part = slice(start, start + size)
            mine = None if own is None else own[part]
            rows, distances = self.search(features[part], self.neighbours[-1] + themselves)
            nearest = [k + themselves for k in self.neighbours]
            parts.append(np.column_stack([neighbour_distance(rows[:, :k], distances[:, :k], mine) for k in nearest]))
        return np.concatenate(parts)

    def of_source(self, source: Source, *, progress: bool = False) -> tuple[Scored, NDArray[np.int64]]:
        """Scores of a source's readable images, and their positions.

        Raises
        ------
        AesearchError
            Not one image could be read.
        """
        found, places, skipped = [], [], list(source.listing_skips)
        for batch in read_in_order(source, np.arange(len(source)), self.autoencoder, "score", progress):
            if len(batch.images):
                found.append(self.of_images(batch.images))
                places.append(batch.positions)
            skipped += [(source.ids[p], reason) for p, reason in batch.skipped]
        if skipped:
            logger.warning("%d files gave no image, the first: %s: %s", len(skipped), *skipped[0])
        if not found:
            raise AesearchError(f"no usable image in {source.name}")
        scored = Scored(np.concatenate([one.scores for one in found]), np.concatenate([one.why for one in found]))
        return scored, np.concatenate(places)

    def _features(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return latents[:, : self.autoencoder.spec.feature_dim]


def learn_scorer(
    blank: Scorer,
    source: Source,
    positions: NDArray[np.int64],
    trained: NDArray[np.bool_],
    usual: NDArray[np.bool_],
    *,
    progress: bool = False,
) -> tuple[Scorer, Scored]:
    """Learn from a collection's own images what ``nap`` or ``combined`` needs, and score them.

    Parameters
    ----------
    blank : Scorer
        Of nothing learned.
    positions : (n,) int64
        Where in the source the images of each row are.
    trained, usual : (n,) bool
        Which rows the encoder was trained on, which count as normal; and which others tell what is usual of new images.

    Returns
    -------
    Scorer
    Scored
        The rows.

    Raises
    ------
    StaleArtifactError
        An image could not be read.
    """
    if blank.score == "combined":
        blank.search(np.zeros((1, blank.autoencoder.spec.feature_dim), np.float32), 1)  # no index: say so first
    learned = trained if trained.any() else np.ones(len(trained), dtype=bool)
    batches = read_in_order(source, positions[learned], blank.autoencoder, "learn", progress)
    thinned = max(1, int(learned.sum()) // MOST_FACTS)
    scorer = _learned(blank, (batch.images for batch in batches if len(batch.images)), thinned)
    width = 1 if blank.score == "nap" else len(blank.neighbours) + 2
    measures, strangest = np.full((len(positions), width), np.nan, np.float32), np.zeros(len(positions), np.int64)
    row_of = np.full(len(source), -1)
    row_of[positions] = np.arange(len(positions))
    for batch in read_in_order(source, positions, blank.autoencoder, "score", progress):
        if len(batch.images):
            rows = row_of[batch.positions]
            measures[rows], strangest[rows] = scorer.measure(batch.images, rows, learned[rows])
    if np.isnan(measures).any():
        raise StaleArtifactError("some images can no longer be read: extract them again, or take another --score")
    if blank.score == "combined":
        scorer = replace(scorer, scales=learn_scales(measures[usual] if usual.sum() >= FEWEST_NEW else measures))
    return scorer, scorer.of_measures(measures, strangest)


def _learned(blank: Scorer, batches: Iterator[NDArray[np.uint8]], thinned: int) -> Scorer:
    """With what is usual of normal images, some (n, channels, height, width) at a time; facts of one in ``thinned``."""
    if blank.score == "nap":
        return replace(blank, normality=Normality.learn(map(blank.autoencoder.hidden_differences, batches)))
    facts: list[NDArray[np.float32]] = []

    def around(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        facts.append(measure_facts(images[::thinned]))
        return blank.autoencoder.activations(images)[1]

    normality = Normality.learn(map(around, batches))
    return replace(blank, normality=normality, usual_facts=UsualFacts.learn(np.concatenate(facts)))


def read_in_order(
    source: Source, positions: NDArray[np.int64], autoencoder: Autoencoder, doing: str, progress: bool
) -> Iterator[Batch]:
    """Images of those positions as the autoencoder takes them, some at a time, under a progress bar."""
    groups = [positions[g] for g in in_order(0, len(positions), min(AT_ONCE, autoencoder.reading_size))]
    with step(doing, len(positions), progress=progress) as bar:
        for batch in read_batches(source, autoencoder.spec.preprocessing, groups):
            yield batch
            bar.update(len(batch.positions) + len(batch.skipped))
