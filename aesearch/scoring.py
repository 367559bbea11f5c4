"""How odd images are to a collection, by one of the scores, batch by batch."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies import (
    FOLDS,
    LEAST_RISE,
    OF_PATCHES,
    PARTS,
    REASONS,
    SCALES,
    Normality,
    alarms_of,
    learn_scales,
    logarithm,
    neighbour_distance,
)
from aesearch.autoencoders import Autoencoder
from aesearch.batches import in_order, load, read_batches
from aesearch.decoding import Preprocessing, larger_side
from aesearch.errors import AesearchError, SourceError, StaleArtifactError
from aesearch.facts import UsualFacts, measure_facts
from aesearch.finder import LARGEST, FaultFinder
from aesearch.grouping import most_mates
from aesearch.progress import step
from aesearch.sources import Batch, Source
from aesearch.usual import UsualNumbers, UsualPixels

logger = logging.getLogger(__name__)

Search = Callable[[NDArray[np.float32], int], tuple[NDArray[np.int64], NDArray[np.float32]]]
AT_ONCE = 4096  # images at most: of each there are some thousand numbers
PIXELS_AT_ONCE = 2**24
NEAREST_AT_ONCE = 2**22  # that are looked for
MOST_LEARNED, LEARNED_BYTES = 4000, 2**28  # images that tell what is usual, and the memory they may take
FEWEST_NEW = 20  # images not trained on that tell what is usual
TOP = 0.002  # share of a map's places, those that look most faulty, that count
ALONE = 2  # times their p-value, the parts that ``patches`` leaves out count without it
BOTH = ("combined", "patches")
FOLDED = {"facts": UsualFacts, "pixels": UsualPixels, "whole": UsualNumbers, "details": UsualNumbers}


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of images.

    Attributes
    ----------
    scores : (n,) float32
        Larger is odder.
    why : (n,) int16
        What made each so, as `aesearch.anomalies.explain` takes it; -1 for scores that have one part.
    where : (n, 2) float32
        The place that looks most faulty, from the left and from the top, as shares of width and height; NaN for scores
        that look at no places.
    """

    scores: NDArray[np.float32]
    why: NDArray[np.int16]
    where: NDArray[np.float32]

    @classmethod
    def of_one_part(cls, scores: NDArray[np.float32]) -> Scored:
        """By a score that tells no more."""
        return cls(scores, np.full(len(scores), -1, np.int16), np.full((len(scores), 2), np.nan, np.float32))

    @classmethod
    def join(cls, found: Sequence[Scored]) -> Scored:
        """Of all images of some batches."""
        return cls(*(np.concatenate([getattr(one, name) for one in found]) for name in ("scores", "why", "where")))


@dataclass(frozen=True, eq=False)
class Measured:
    """What the parts of ``combined`` say of images.

    Attributes
    ----------
    oddness : (n, p) float32
        On scales without ends, larger is odder; a column for each of `Usual.parts`.
    strangest : (n,) int64
        The strangest fact of each.
    where : (n, 2) float32
        The place that looks most faulty, as of `Scored`.
    """

    oddness: NDArray[np.float32]
    strangest: NDArray[np.int64]
    where: NDArray[np.float32]

    @classmethod
    def none(cls, images: int, parts: int) -> Measured:
        """Of images yet to be measured."""
        unknown = [np.full((images, width), np.nan, np.float32) for width in (parts, 2)]
        return cls(unknown[0], np.zeros(images, np.int64), unknown[1])

    def of(self, rows: NDArray[np.bool_]) -> Measured:
        """Of some of the images."""
        return Measured(*(values[rows] for values in vars(self).values()))

    def put(self, rows: NDArray[np.int64], measured: Measured) -> None:
        """Fill in some rows."""
        for name, values in vars(measured).items():
            getattr(self, name)[rows] = values


@dataclass(frozen=True, eq=False)
class Usual:
    """What is usual of a collection's images, which ``combined`` and ``patches`` hold others against.

    Attributes
    ----------
    finder : FaultFinder
    facts : UsualFacts
    pixels : UsualPixels
    whole, details : UsualNumbers
        What the finder sees of images as a whole, and in detail; none of details of small images.
    scales, sums, total : (5, p), (5, 2), (5, 1) float32, optional
        Of the parts, of the sums of the alarms of those that ``patches`` counts and of the others, and of both
        together, as `learn_scales` gives them.
    """

    finder: FaultFinder
    facts: UsualFacts
    pixels: UsualPixels
    whole: UsualNumbers
    details: UsualNumbers | None = None
    scales: NDArray[np.float32] | None = None
    sums: NDArray[np.float32] | None = None
    total: NDArray[np.float32] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of those that there are."""
        return tuple(part for part in PARTS if part != "details" or self.details is not None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, to be kept."""
        kept = {f"finder_{name}": value for name, value in self.finder.weights.items()}
        for name in FOLDED:
            if (one := getattr(self, name)) is not None:
                kept |= {f"{name}_{field}": value for field, value in vars(one).items()}
        learned = {name: getattr(self, name) for name in SCALES if getattr(self, name) is not None}
        return kept | learned

    @classmethod
    def from_arrays(cls, kept: Mapping[str, NDArray[Any]], preprocessing: Preprocessing, device: Any) -> Usual:
        """Read back what `arrays` gave; ``preprocessing`` is the finder's."""
        weights = {name.removeprefix("finder_"): kept[name] for name in kept if name.startswith("finder_")}
        found: dict[str, Any] = {}
        for name, kind in FOLDED.items():
            fields = [field.name for field in dataclasses.fields(kind)]
            there = f"{name}_{fields[0]}" in kept
            found[name] = kind(*(kept[f"{name}_{field}"] for field in fields)) if there else None
        finder = FaultFinder(preprocessing, weights, device)
        found |= {name: kept[name] for name in SCALES}
        return cls(finder, **found)

    def measure(
        self,
        images: NDArray[np.uint8],
        detailed: NDArray[np.uint8],
        features: NDArray[np.float32],
        far: NDArray[np.float32],
        own: NDArray[np.int64] | None,
    ) -> Measured:
        """What each part says of images as the encoder and as the finder reads them, and of their features.

        ``far`` (n,) is how far those are from their neighbours, ``own`` the units of the images, if they are of the
        collection.
        """
        facts = measure_facts(images)
        numbers, maps = self.finder.look(detailed)
        flat = maps.reshape(len(maps), -1)
        top = max(1, round(TOP * flat.shape[1]))
        said = {
            "neighbours": logarithm(far),
            "pixels": self.pixels.oddness(images, features, own),
            "places": np.partition(flat, -top, axis=1)[:, -top:].mean(axis=1),
            "whole": self.whole.oddness(numbers[0], own),
            "facts": logarithm(self.facts.distance(facts)),
        }
        if self.details is not None:
            said["details"] = self.details.oddness(numbers[1], own)
        height, width = maps.shape[1:]
        down, across = np.unravel_index(flat.argmax(axis=1), (height, width))
        where = np.column_stack([(across + 0.5) / width, (down + 0.5) / height]).astype(np.float32)
        oddness = np.column_stack([said[part] for part in self.parts]).astype(np.float32)
        return Measured(oddness, self.facts.strangest(facts), where)

    def heat_maps(self, detailed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where faults are, (n, height, width) float32: 1 is drawn brightest.

        0 or less is what half of the normal images have where they look most faulty; 1 is twice as far from it as what
        1 in 20 of them has there.
        """
        assert self.scales is not None
        usual, rare = self.scales[[2, -1], self.parts.index("places")]
        return (self.finder.look(detailed)[1] - usual) / max(2 * (rare - usual), np.float32(LEAST_RISE))

    def settle(self, measured: Measured) -> Usual:
        """With the scales that normal images give, which nothing was learned from."""
        scaled = replace(self, scales=learn_scales(measured.oddness))
        scaled = replace(scaled, sums=learn_scales(scaled._sums(measured)))
        return replace(scaled, total=learn_scales(scaled._weighed(measured)))

    def judge(self, measured: Measured, score: str) -> Scored:
        """Scores by ``combined`` or ``patches``, and the loudest part.

        Of the parts that ``patches`` counts the alarms are summed (Fisher's method), and that sum is an alarm again; so
        are those of the others. ``combined`` sums both, that of ``patches`` once for each scale that the finder has.
        Where the finder is silent, as it is of blank frames, the others are heard alone: their p-value times 2.
        """
        assert self.sums is not None and self.total is not None
        counted = [part for part in self.parts if score == "combined" or part in OF_PATCHES]
        alarms = self._alarms(measured)[:, [self.parts.index(part) for part in counted]]
        loudest = np.array([PARTS.index(part) for part in counted])[alarms.argmax(axis=1)]
        why = np.where(loudest < len(REASONS), loudest, len(REASONS) + measured.strangest)
        finder, others = alarms_of(self._sums(measured), self.sums).T
        if score == "combined":
            together = alarms_of(self._weighed(measured), self.total)[:, 0]
            scores = np.maximum(together, others - np.float32(math.log(ALONE)))
        else:
            scores = finder
        return Scored(scores, why.astype(np.int16), measured.where)

    def _weighed(self, measured: Measured) -> NDArray[np.float32]:
        assert self.sums is not None
        scales = 1 if self.details is None else 2
        weights = np.array([scales, 1], np.float32)
        return (alarms_of(self._sums(measured), self.sums) * weights).sum(axis=1, keepdims=True)

    def _sums(self, measured: Measured) -> NDArray[np.float32]:
        alarms, local = self._alarms(measured), np.isin(self.parts, OF_PATCHES)
        return np.stack([alarms[:, local].sum(axis=1), alarms[:, ~local].sum(axis=1)], axis=1)

    def _alarms(self, measured: Measured) -> NDArray[np.float32]:
        assert self.scales is not None
        return alarms_of(measured.oddness, self.scales)


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
    neighbours : int
        To how many of them the mean distance is measured.
    units : (rows,) int64
        Of each row, as `aesearch.grouping.units_of` numbers them.
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
    scorer = replace(blank, usual=_learned(blank, source, positions, np.flatnonzero(learned), native, progress))
    assert scorer.usual is not None
    measured = Measured.none(len(positions), len(scorer.usual.parts))
    row_of = _rows_of(source, positions)
    for batch, detailed in read_in_order(source, positions, blank.autoencoder, "score", progress, scorer.detailed):
        if len(batch.images):
            rows = row_of[batch.positions]
            measured.put(rows, scorer.measure(batch.images, detailed, blank.units[rows]))
    _check_read(measured.oddness)
    if usual.sum() < FEWEST_NEW:
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
) -> Usual:
    """From some of those rows, which are normal."""
    autoencoder, detailed = blank.autoencoder, larger_side(blank.autoencoder.spec.preprocessing, native, LARGEST)
    most = max(
        FEWEST_NEW, min(MOST_LEARNED, LEARNED_BYTES // (detailed.pixels + autoencoder.spec.preprocessing.pixels))
    )
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:most])
    try:
        images = load(source, positions[rows], autoencoder.spec.preprocessing)
        larger_ones = load(source, positions[rows], detailed, progress=progress)
    except SourceError as error:
        raise _gone() from error
    if not len(images) == len(larger_ones) == len(rows):
        raise _gone()
    finder = FaultFinder.learn(larger_ones, detailed, autoencoder.device, progress=progress)
    numbers, _ = finder.look(larger_ones)
    units = blank.units[rows]
    usual_numbers = [UsualNumbers.learn(of_a_scale, units) for of_a_scale in numbers]
    features = autoencoder.encode(images)
    return Usual(
        finder,
        UsualFacts.learn(measure_facts(images)),
        UsualPixels.learn(images, looks_of(autoencoder, features), units),
        usual_numbers[0],
        usual_numbers[1] if len(usual_numbers) > 1 else None,
    )


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
