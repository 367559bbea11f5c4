"""How odd images are to a collection, by one of the scores, batch by batch."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.combining import Measured, Scored, Usual
from aesearch.anomalies.facts import UsualFacts, measure_facts
from aesearch.anomalies.finder import LARGEST, FaultFinder
from aesearch.anomalies.kinds import are_of_kinds
from aesearch.anomalies.normality import Normality
from aesearch.anomalies.planting import plant_faults
from aesearch.anomalies.ranking import neighbour_distance
from aesearch.anomalies.shapes import measure_shapes
from aesearch.anomalies.thresholds import FOLDS
from aesearch.anomalies.usual import SAMPLED, UsualLooks, UsualNumbers, UsualTexture, pixels_of, sampled
from aesearch.errors import AesearchError, SourceError, StaleArtifactError
from aesearch.images.batches import in_order, load, read_batches
from aesearch.images.decode import Preprocessing, larger_side
from aesearch.images.grouping import most_mates
from aesearch.images.resize import resized
from aesearch.images.sources.base import Batch, Source
from aesearch.network.autoencoder import Autoencoder
from aesearch.progress import step

logger = logging.getLogger(__name__)

Search = Callable[[NDArray[np.float32], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
AT_ONCE = 4096  # images at most: of each there are some thousand numbers
PIXELS_AT_ONCE = 2**24
NEAREST_AT_ONCE = 2**22  # that are looked for
MOST_LEARNED, LEARNED_BYTES = 4000, 2**28  # images that tell what is usual, and the memory they may take
FEWEST_NEW = 20  # images not trained on that tell what is usual
PLANTED = 200  # images with a fault, and as many without, that tell how far the parts are heard
MOST_TIMES, PLANTED_AT_ONCE = 5, 50  # that faults are planted in one image; images
BOTH = ("combined", "patches")


@dataclass(frozen=True, eq=False)
class Scorer:
    """One score of a collection.

    Attributes
    ----------
    score : str
        One of `aesearch.anomalies.names.SCORES`.
    autoencoder : Autoencoder
    search : callable
        From features (n, dim) and k to the rows and distances, (n, k) each, of the nearest in the collection.
    neighbours : int
        To how many of them the mean distance is measured.
    units : (rows,) int64
        Of each row, as `aesearch.images.grouping.units_of` numbers them.
    normality : Normality, optional
        What ``nap`` needs: how what the network does with normal images is spread.
    usual : Usual, optional
        What ``combined`` and ``patches`` need.
    """

    score: str
    autoencoder: Autoencoder
    search: Search
    neighbours: int
    units: NDArray[np.int64]
    normality: Normality | None = None
    usual: Usual | None = None

    @property
    def detailed(self) -> Preprocessing | None:
        """How images are read a second time, for the finder."""
        return None if self.usual is None else self.usual.finder.preprocessing

    def of_images(self, images: NDArray[np.uint8], detailed: NDArray[np.uint8]) -> Scored:
        """Score new images (n, channels, height, width), read as the encoder and as the finder takes them."""
        if self.usual is not None:
            return self.usual.judge(self.measure(images, detailed), self.score)
        if self.normality is not None:
            scores = self.normality.distance(self.autoencoder.hidden_differences(images))
        else:
            latents, errors = self.autoencoder.encode_and_score(images)
            scores = errors if self.score == "reconstruction" else self.far(self._features(latents))
        return Scored.of_one_part(scores)

    def measure(
        self, images: NDArray[np.uint8], detailed: NDArray[np.uint8], own: NDArray[np.int64] | None = None
    ) -> Measured:
        """What the parts of ``combined`` say; ``own`` are the units of the images, if they are of the collection."""
        assert self.usual is not None
        latents = self.autoencoder.encode_latents(images)
        features = self._features(latents)
        looks = looks_of(self.autoencoder, features)
        return self.usual.measure(images, detailed, looks, self.far(features, own), own)

    def far(self, features: NDArray[np.float32], own: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Mean distances to the nearest features of the collection, (n,) float32.

        ``own`` are the units of what the features are of, if that is in the collection.
        """
        parts = [np.empty(0, np.float32)]
        wanted = self.neighbours + (0 if own is None else most_mates(self.units))
        size = NEAREST_AT_ONCE // wanted
        for start in range(0, len(features), size):
            part = slice(start, start + size)
            mine = None if own is None else own[part]
            rows, distances = self.search(features[part], wanted)
            units = np.where(rows < 0, -1, self.units[rows])
            parts.append(neighbour_distance(units, distances, self.neighbours, mine))
        return np.concatenate(parts)

    def of_source(self, source: Source, *, progress: bool = False) -> tuple[Scored, NDArray[np.int64]]:
        """Scores of a source's readable images, and their positions.

        Raises
        ------
        AesearchError
            Not one image could be read.
        """
        found, places, skipped = [], [], list(source.listing_skips)
        everything = np.arange(len(source))
        for batch, detailed in read_in_order(source, everything, self.autoencoder, "score", progress, self.detailed):
            if len(batch.images):
                found.append(self.of_images(batch.images, detailed))
                places.append(batch.positions)
            skipped += [(source.ids[p], reason) for p, reason in batch.skipped]
        if skipped:
            logger.warning("%d files gave no image, the first: %s: %s", len(skipped), *skipped[0])
        if not found:
            raise AesearchError(f"no usable image in {source.name}")
        return Scored.join(found), np.concatenate(places)

    def _features(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        return latents[:, : self.autoencoder.spec.feature_dim]


def looks_of(autoencoder: Autoencoder, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers of features that say what an image is made of: likenesses to patches, where there are such."""
    return features[:, : autoencoder.spec.patch_dim or None]


def learn_normality(
    blank: Scorer, source: Source, positions: NDArray[np.int64], trained: NDArray[np.bool_], *, progress: bool = False
) -> tuple[Normality, Scored]:
    """Learn from a collection's own images what ``nap`` needs, and score them; arguments as of `learn_usual`."""
    learned = trained if trained.any() else np.ones(len(trained), dtype=bool)
    autoencoder = blank.autoencoder
    batches = read_in_order(source, positions[learned], autoencoder, "learn", progress)
    seen = (autoencoder.hidden_differences(batch.images) for batch, _ in batches if len(batch.images))
    normality = Normality.learn(seen)
    scores = np.full(len(positions), np.nan, np.float32)
    row_of = _rows_of(source, positions)
    for batch, _ in read_in_order(source, positions, autoencoder, "score", progress):
        if len(batch.images):
            rows = row_of[batch.positions]
            numbers = autoencoder.hidden_differences(batch.images)
            scores[rows] = normality.distance(numbers, learned[rows])
    _check_read(scores)
    return normality, Scored.of_one_part(scores)


def learn_usual(
    blank: Scorer,
    source: Source,
    positions: NDArray[np.int64],
    trained: NDArray[np.bool_],
    usual: NDArray[np.bool_],
    native: tuple[int, int],
    *,
    progress: bool = False,
) -> tuple[Usual, dict[str, Scored]]:
    """Learn from a collection's own images what ``combined`` and ``patches`` need, and score them.

    Parameters
    ----------
    blank : Scorer
        Of nothing learned.
    positions : (n,) int64
        Where in the source the images of each row are.
    trained, usual : (n,) bool
        Which rows the encoder was trained on, which count as normal; and which others tell what is usual of new images.
    native : (height, width)
        Of the images as they are.

    Returns
    -------
    Usual
    dict
        The rows, by each of the two scores.

    Raises
    ------
    StaleArtifactError
        An image could not be read.
    """
    blank.search(np.zeros((1, blank.autoencoder.spec.feature_dim), np.float32), 1)  # no index: say so first
    learned = trained if trained.any() else np.ones(len(trained), dtype=bool)
    few = usual.sum() < FEWEST_NEW
    told_apart = not few and trained.any()  # what tells from what is told
    known, features = _learned(blank, source, positions, np.flatnonzero(learned), native, progress)
    told_by = np.flatnonzero(learned if few else usual)
    scorer = _weighed(replace(blank, usual=known), source, positions, told_by, features if told_apart else None)
    assert scorer.usual is not None
    measured = Measured.none(len(positions), len(scorer.usual.parts))
    row_of = _rows_of(source, positions)
    for batch, detailed in read_in_order(source, positions, blank.autoencoder, "score", progress, scorer.detailed):
        if len(batch.images):
            rows = row_of[batch.positions]
            measured.put(rows, scorer.measure(batch.images, detailed, blank.units[rows]))
    _check_read(measured.oddness)
    if few:
        settled = scorer.usual.settle(measured)
        return settled, {score: settled.judge(measured, score) for score in BOTH}
    settled = scorer.usual.settle(measured.of(usual))
    found = {score: settled.judge(measured, score) for score in BOTH}
    for fresh in _folds(np.flatnonzero(usual), blank.units):  # by what others say, as new images are
        others = scorer.usual.settle(measured.of(usual & ~fresh))
        for score, scored in found.items():
            scored.scores[fresh] = others.judge(measured.of(fresh), score).scores
    return settled, found


def _folds(rows: NDArray[np.int64], units: NDArray[np.int64]) -> Iterator[NDArray[np.bool_]]:
    """Which of all rows are in each tenth of some of them, those of a unit together."""
    fold = np.unique(units[rows], return_inverse=True)[1] % FOLDS
    for number in np.unique(fold):
        part = np.zeros(len(units), dtype=bool)
        part[rows[fold == number]] = True
        if not part[rows].all():
            yield part


def _learned(
    blank: Scorer,
    source: Source,
    positions: NDArray[np.int64],
    rows: NDArray[np.int64],
    native: tuple[int, int],
    progress: bool,
) -> tuple[Usual, NDArray[np.float32]]:
    """From some of those rows, which are normal; and their features, (n, dim)."""
    autoencoder, detailed = blank.autoencoder, larger_side(blank.autoencoder.spec.preprocessing, native, LARGEST)
    pixels = detailed.pixels + autoencoder.spec.preprocessing.pixels
    rows = _some(rows, min(MOST_LEARNED, LEARNED_BYTES // pixels))
    images = _load(source, positions[rows], autoencoder.spec.preprocessing, False)
    larger_ones = _load(source, positions[rows], detailed, progress)
    finder = FaultFinder.learn(larger_ones, detailed, autoencoder.device, progress=progress)
    units = blank.units[rows]
    as_a_whole, in_detail = _of_scales(finder, larger_ones, units)
    features = autoencoder.encode(images)
    looks = looks_of(autoencoder, features)
    usual = Usual(
        finder,
        UsualFacts.learn(measure_facts(images)),
        UsualLooks.learn(pixels_of(images), looks, units),
        UsualLooks.learn(measure_shapes(images), looks, units),
        *as_a_whole,
        *in_detail,
    )
    return usual, features


def _of_scales(
    finder: FaultFinder, images: NDArray[np.uint8], units: NDArray[np.int64]
) -> tuple[tuple[UsualNumbers, UsualTexture], tuple[UsualNumbers, UsualTexture] | tuple[None, None]]:
    """What the finder sees of normal images as a whole and, unless they are small, in detail."""
    draw = np.random.default_rng(0)
    each = math.ceil(SAMPLED / len(images))
    found = [
        [(numbers, sampled(local, each, draw)) for numbers, local in zip(seen.numbers, seen.local, strict=True)]
        for seen in finder.look(images)
    ]
    usual = []
    for of_scale in zip(*found, strict=True):
        numbers, places = (np.concatenate(parts) for parts in zip(*of_scale, strict=True))
        of_places = np.repeat(units, len(places) // len(units))
        usual.append((UsualNumbers.learn(numbers, units), UsualTexture.learn(places, of_places)))
    return usual[0], usual[1] if len(usual) > 1 else (None, None)


def _weighed(
    scorer: Scorer,
    source: Source,
    positions: NDArray[np.int64],
    rows: NDArray[np.int64],
    features: NDArray[np.float32] | None,
) -> Scorer:
    """With a finder and weights that tell faults planted in some of those rows best.

    And whether the images are of kinds, if there are ``features`` of others that were learned from.
    """
    assert scorer.usual is not None and scorer.detailed is not None
    rows = _some(rows, min(PLANTED, LEARNED_BYTES // scorer.detailed.pixels))
    sound = _load(source, positions[rows], scorer.detailed, False)
    draw, times = np.random.default_rng(0), min(MOST_TIMES, math.ceil(PLANTED / len(rows)))
    parts = [sound[part] for part in in_order(0, len(sound), PLANTED_AT_ONCE)] * times
    faulty = np.concatenate([np.rint(255 * plant_faults(part, draw)[0]).astype(np.uint8) for part in parts])
    scorer = replace(scorer, usual=replace(scorer.usual, finder=scorer.usual.finder.settle(sound, faulty)))
    assert scorer.usual is not None
    own = [np.resize(scorer.units[rows], len(images)) for images in (sound, faulty)]
    weighed = scorer.usual.weigh(_measured(scorer, sound, own[0]), _measured(scorer, faulty, own[1]))
    kinds = False
    if features is not None:
        described = [
            (scorer.autoencoder.encode(images), measure_shapes(images)) for images, _, _ in _as_read(scorer, sound)
        ]
        of_sound = [np.concatenate(numbers) for numbers in zip(*described, strict=True)]
        kinds = are_of_kinds((features, weighed.shapes.vectors.astype(np.float32)), (of_sound[0], of_sound[1]))
    return replace(scorer, usual=replace(weighed, of_kinds=np.array([kinds])))


def _measured(scorer: Scorer, detailed: NDArray[np.uint8], own: NDArray[np.int64]) -> Measured:
    """Of images as the finder reads them."""
    assert scorer.usual is not None
    found = Measured.none(len(detailed), len(scorer.usual.parts))
    for images, larger_ones, rows in _as_read(scorer, detailed):
        found.put(rows, scorer.measure(images, larger_ones, own[rows]))
    return found


def _as_read(
    scorer: Scorer, detailed: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]]:
    """Images as the encoder and as the finder reads them, some at a time, and which they are."""
    wanted = scorer.autoencoder.spec.preprocessing
    for rows in in_order(0, len(detailed), max(1, PIXELS_AT_ONCE // max(detailed[0].size, math.prod(wanted.shape)))):
        yield resized(detailed[rows], wanted.height, wanted.width), detailed[rows], rows


def _some(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(0).permutation(rows)[: max(FEWEST_NEW, most)])


def _load(
    source: Source, positions: NDArray[np.int64], preprocessing: Preprocessing, progress: bool
) -> NDArray[np.uint8]:
    try:
        images = load(source, positions, preprocessing, progress=progress)
    except SourceError as error:
        raise _gone() from error
    if len(images) != len(positions):
        raise _gone()
    return images


def _rows_of(source: Source, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    row_of = np.full(len(source), -1)
    row_of[positions] = np.arange(len(positions))
    return row_of


def _check_read(scores: NDArray[np.float32]) -> None:
    if np.isnan(scores).any():
        raise _gone()


def _gone() -> StaleArtifactError:
    return StaleArtifactError("some images can no longer be read: extract them again, or take another --score")


def read_in_order(
    source: Source,
    positions: NDArray[np.int64],
    autoencoder: Autoencoder,
    doing: str,
    progress: bool,
    detailed: Preprocessing | None = None,
) -> Iterator[tuple[Batch, NDArray[np.uint8]]]:
    """Images of those positions as the autoencoder takes them, some at a time, under a progress bar.

    Beside them the same as ``detailed`` has them; without it, or where that is the same, the very same.
    """
    usual = autoencoder.spec.preprocessing
    size = min(AT_ONCE, autoencoder.reading_size)
    again = detailed is not None and detailed != usual
    if again:
        assert detailed is not None
        size = max(1, min(size, PIXELS_AT_ONCE // detailed.pixels))
    groups = [positions[g] for g in in_order(0, len(positions), size)]
    with step(doing, len(positions), progress=progress) as bar:
        larger_ones = read_batches(source, detailed, groups) if again and detailed is not None else None
        for batch in read_batches(source, usual, groups):
            yield _both(batch, next(larger_ones)) if larger_ones is not None else (batch, batch.images)
            bar.update(len(batch.positions) + len(batch.skipped))


def _both(batch: Batch, other: Batch) -> tuple[Batch, NDArray[np.uint8]]:
    """What could be read both times."""
    if np.array_equal(batch.positions, other.positions):
        return batch, other.images
    _, mine, its = np.intersect1d(batch.positions, other.positions, return_indices=True)
    hashes = [batch.hashes[place] for place in mine]
    return replace(batch, positions=batch.positions[mine], images=batch.images[mine], hashes=hashes), other.images[its]
