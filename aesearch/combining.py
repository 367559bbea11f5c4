"""The parts of ``combined`` and ``patches``: what each says of images, how far it is heard, and what all say together.

How far a part is heard is found out on faults planted in normal images that nothing was trained on, which also are
mirrored and put in other light: by how well it tells them from the same images as they are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies import (
    LEAST_RISE,
    OF_KINDS,
    OF_PATCHES,
    PARTS,
    REASONS,
    SCALES,
    alarms_of,
    learn_scales,
    logarithm,
)
from aesearch.decoding import Preprocessing
from aesearch.facts import UsualFacts, measure_facts
from aesearch.finder import FaultFinder, most_faulty
from aesearch.shapes import measure_shapes
from aesearch.usual import UsualLooks, UsualNumbers, pixels_of

UNLIKELY = 5  # times their p-values, what is less to be expected counts
RARE = math.log(100)  # alarm of one normal image in 100
LEAST_SKILL = 0.1  # that a part has; 1 is that of one that tells all planted faults
USUAL = {
    "facts": UsualFacts,
    "pixels": UsualLooks,
    "shapes": UsualLooks,
    "whole": UsualNumbers,
    "details": UsualNumbers,
}  # of what is usual, by part


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
    pixels, shapes : UsualLooks
    whole, details : UsualNumbers
        What the finder sees of images as a whole, and in detail; none of details of small images.
    weights : (p,) float32, optional
        Of the parts' alarms in their sum.
    scales, sums : (5, p), (5, 5) float32, optional
        Of the parts, and of the sums of their alarms: weighed, of all and of those that ``patches`` counts; without
        weights, of all, of the others, and of neighbours and shapes. As `learn_scales` gives them.
    of_kinds : (1,) bool, optional
        Whether the images are of clear kinds, and one of a new kind is what is to be expected.
    """

    finder: FaultFinder
    facts: UsualFacts
    pixels: UsualLooks
    shapes: UsualLooks
    whole: UsualNumbers
    details: UsualNumbers | None = None
    weights: NDArray[np.float32] | None = None
    scales: NDArray[np.float32] | None = None
    sums: NDArray[np.float32] | None = None
    of_kinds: NDArray[np.bool_] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of those that there are."""
        return tuple(part for part in PARTS if part != "details" or self.details is not None)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it, to be kept."""
        kept: dict[str, NDArray[Any]] = {f"finder_{name}": value for name, value in self.finder.weights.items()}
        kept["detailed"] = np.array([self.finder.detailed], np.float32)
        for name in USUAL:
            if (one := getattr(self, name)) is not None:
                kept |= {f"{name}_{field}": value for field, value in vars(one).items()}
        learned = {name: getattr(self, name) for name in SCALES if getattr(self, name) is not None}
        return kept | learned

    @classmethod
    def from_arrays(cls, kept: Mapping[str, NDArray[Any]], preprocessing: Preprocessing, device: Any) -> Usual:
        """Read back what `arrays` gave; ``preprocessing`` is the finder's."""
        weights = {name.removeprefix("finder_"): kept[name] for name in kept if name.startswith("finder_")}
        found: dict[str, Any] = {}
        for name, kind in USUAL.items():
            fields = [field.name for field in dataclasses.fields(kind)]
            there = f"{name}_{fields[0]}" in kept
            found[name] = kind(*(kept[f"{name}_{field}"] for field in fields)) if there else None
        finder = FaultFinder(preprocessing, weights, device, float(kept["detailed"][0]))
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
        said = {
            "neighbours": logarithm(far),
            "pixels": self.pixels.oddness(pixels_of(images), features, own),
            "shapes": self.shapes.oddness(measure_shapes(images), features, own),
            "places": most_faulty(maps),
            "whole": self.whole.oddness(numbers[0], own),
            "facts": logarithm(self.facts.distance(facts)),
        }
        if self.details is not None:
            said["details"] = self.details.oddness(numbers[1], own)
        height, width = maps.shape[1:]
        down, across = np.unravel_index(maps.reshape(len(maps), -1).argmax(axis=1), (height, width))
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

    def weigh(self, sound: Measured, faulty: Measured) -> Usual:
        """With weights by how well each part tells images with faults from sound ones: what its AUROC is above chance.

        That is squared, so that parts that see little are hardly heard, however many they are.
        """
        from sklearn.metrics import roc_auc_score

        odd = np.repeat([False, True], [len(sound.oddness), len(faulty.oddness)])
        said = np.concatenate([sound.oddness, faulty.oddness])
        skills = np.array([2 * roc_auc_score(odd, column) - 1 for column in said.T])
        return replace(self, weights=np.square(np.maximum(skills, LEAST_SKILL)).astype(np.float32))

    @property
    def looks_for_kinds(self) -> bool:
        """Whether an image of a new kind is what is to be expected."""
        return self.of_kinds is not None and bool(self.of_kinds[0])

    def heard(self) -> dict[str, float]:
        """Weight of each part, the largest first."""
        assert self.weights is not None
        order = np.argsort(-self.weights, kind="stable")
        return {self.parts[place]: round(float(self.weights[place]), 3) for place in order}

    def settle(self, measured: Measured) -> Usual:
        """With the scales that normal images give, which nothing was learned from."""
        scaled = replace(self, scales=learn_scales(measured.oddness))
        return replace(scaled, sums=learn_scales(scaled._sums(measured)))

    def judge(self, measured: Measured, score: str) -> Scored:
        """Scores by ``combined`` or ``patches``, and the part that added most, or what is wrong with a bad frame.

        The alarms of the parts are summed (Fisher's method), each times its weight, and the sum is an alarm again. What
        is odd in another way than planted faults are, parts of little weight may see: so the sum without weights is
        heard, too, its p-value times 5. So is that of the parts that ``patches`` leaves out, as the finder is silent of
        blank frames. Where images are of clear kinds, neighbours and shapes tell a new kind: their sum is heard as it
        is, and the others have their p-values times 5.
        """
        assert self.sums is not None and self.weights is not None
        alarms, local = self._alarms(measured), np.isin(self.parts, OF_PATCHES)
        weighed, finder, plain, others, near = alarms_of(self._sums(measured), self.sums).T
        if score == "combined":
            less, new = math.log(UNLIKELY), self.looks_for_kinds
            heard = [weighed - less * new, plain - less, others - less, *[near] * new]
            speaker = np.argmax(heard, axis=0)
            sums = np.stack(self._weights())[[0, 2, 3, 4]]
            scores, added = np.max(heard, axis=0).astype(np.float32), alarms * sums[speaker]
            by_facts, by_finder = alarms[:, -1], (alarms * local).max(axis=1)
            bad_frame = np.isin(speaker, (1, 2)) & (by_facts > np.maximum(by_finder, RARE))
            added[bad_frame, -1] = np.inf  # of all parts facts say best what is wrong
        else:
            scores, added = finder, np.where(local, alarms * self.weights, -1)
        loudest = np.array([PARTS.index(part) for part in self.parts])[added.argmax(axis=1)]
        why = np.where(loudest < len(REASONS), loudest, len(REASONS) + measured.strangest)
        return Scored(scores, why.astype(np.int16), measured.where)

    def _sums(self, measured: Measured) -> NDArray[np.float32]:
        return self._alarms(measured) @ np.stack(self._weights(), axis=1)

    def _weights(self) -> list[NDArray[np.float32]]:
        """Of the parts in each of the sums."""
        assert self.weights is not None
        local, near = np.isin(self.parts, OF_PATCHES), np.isin(self.parts, OF_KINDS)
        sums = [self.weights, self.weights * local, np.ones_like(self.weights), ~local, near]
        return [np.asarray(one, np.float32) for one in sums]

    def _alarms(self, measured: Measured) -> NDArray[np.float32]:
        assert self.scales is not None
        return alarms_of(measured.oddness, self.scales)
