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

from aesearch.anomalies.facts import UsualFacts, measure_facts
from aesearch.anomalies.finder import FaultFinder, Seen, most_faulty
from aesearch.anomalies.names import IN_DETAIL, OF_KINDS, OF_PATCHES, OF_PLACES, PARTS, REASONS, SCALES
from aesearch.anomalies.shapes import measure_shapes
from aesearch.anomalies.thresholds import LEAST_RISE, alarms_of, learn_scales, logarithm
from aesearch.anomalies.usual import UsualLooks, UsualNumbers, UsualTexture, pixels_of
from aesearch.images.decode import Preprocessing

Floats = NDArray[np.float32]
UNLIKELY = 5  # times their p-values, faults count where a new kind is to be expected
RARE = math.log(100)  # alarm of one normal image in 100
BY_CHANCE = 1.2  # times as well as the others, places may tell planted faults
LEAST_WEIGHT, LEAST_OF_FACTS = 0.1, 0.5  # 1 is that of a part that tells all planted faults
USUAL = {
    "facts": UsualFacts,
    "pixels": UsualLooks,
    "shapes": UsualLooks,
    "texture": UsualTexture,
    "fine_texture": UsualTexture,
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
        What made each so, as `aesearch.anomalies.ranking.explain` takes it; -1 for scores that have one part.
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
    whole, texture : UsualNumbers, UsualTexture
        What the finder sees of images as a whole, and at their places.
    details, fine_texture : UsualNumbers, UsualTexture, optional
        The same in detail; none of small images.
    weights : (p,) float32, optional
        Of the parts' alarms in sums.
    handicaps : (2,) float32, optional
        What is taken from the alarms of the second and the third of the sums.
    scales, sums : (5, p), (5, 4) float32, optional
        Of the parts, and of sums of their alarms: of the parts that look at places, of the others, of those others that
        are of the finder, and of neighbours and shapes. As `learn_scales` gives them.
    of_kinds : (1,) bool, optional
        Whether the images are of clear kinds, and one of a new kind is what is to be expected.
    """

    finder: FaultFinder
    facts: UsualFacts
    pixels: UsualLooks
    shapes: UsualLooks
    whole: UsualNumbers
    texture: UsualTexture
    details: UsualNumbers | None = None
    fine_texture: UsualTexture | None = None
    weights: NDArray[np.float32] | None = None
    handicaps: NDArray[np.float32] | None = None
    scales: NDArray[np.float32] | None = None
    sums: NDArray[np.float32] | None = None
    of_kinds: NDArray[np.bool_] | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of those that there are."""
        return tuple(part for part in PARTS if part not in IN_DETAIL or self.details is not None)

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
        found = [self._seen(seen, own) for seen in self.finder.look(detailed)]
        said = {name: np.concatenate([of_some[name] for of_some, _ in found]) for name in found[0][0]}
        said |= {
            "neighbours": logarithm(far),
            "pixels": self.pixels.oddness(pixels_of(images), features, own),
            "shapes": self.shapes.oddness(measure_shapes(images), features, own),
            "facts": logarithm(self.facts.distance(facts)),
        }
        oddness = np.column_stack([said[part] for part in self.parts]).astype(np.float32)
        return Measured(oddness, self.facts.strangest(facts), np.concatenate([where for _, where in found]))

    def _seen(self, seen: Seen, own: NDArray[np.int64] | None) -> tuple[dict[str, Floats], Floats]:
        """What the parts of the finder say of some images, and where they look most faulty."""
        own = None if own is None else own[seen.rows]
        said = {
            "places": most_faulty(seen.marks),
            "texture": self.texture.oddness(seen.local[0], own),
            "whole": self.whole.oddness(seen.numbers[0], own),
        }
        if self.details is not None and self.fine_texture is not None:
            said["fine_texture"] = self.fine_texture.oddness(seen.local[1], own)
            said["details"] = self.details.oddness(seen.numbers[1], own)
        height, width = seen.marks.shape[1:]
        down, across = np.unravel_index(seen.marks.reshape(len(seen.marks), -1).argmax(axis=1), (height, width))
        where = np.column_stack([(across + 0.5) / width, (down + 0.5) / height]).astype(np.float32)
        return said, where

    def heat_maps(self, detailed: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where faults are, (n, height, width) float32: 1 is drawn brightest.

        0 or less is what half of the normal images have where they look most faulty; 1 is twice as far from it as what
        1 in 20 of them has there.
        """
        assert self.scales is not None
        usual, rare = self.scales[[2, -1], self.parts.index("places")]
        return (self.finder.maps(detailed) - usual) / max(2 * (rare - usual), np.float32(LEAST_RISE))

    def weigh(self, sound: Measured, faulty: Measured) -> Usual:
        """With weights by how well each part tells images with faults from sound ones: twice its AUROC, less 1.

        Facts have half of the most that there is, at least: they are for bad frames, which those faults are not.
        """
        from sklearn.metrics import roc_auc_score

        odd = np.repeat([False, True], [len(sound.oddness), len(faulty.oddness)])
        said = np.concatenate([sound.oddness, faulty.oddness])
        skills = np.array([2 * roc_auc_score(odd, column) - 1 for column in said.T])
        least = np.where(np.array(self.parts) == "facts", LEAST_OF_FACTS, LEAST_WEIGHT)
        weighed = replace(self, weights=np.maximum(skills, least).astype(np.float32))
        return replace(weighed, handicaps=weighed._handicaps(sound, faulty))

    def _handicaps(self, sound: Measured, faulty: Measured) -> Floats:
        """By how much the sums of parts that look at all of an image tell faults worse than that of places, (2,).

        It is taken from their alarms: 2 ln of how many times better places tell them, beyond what may be chance.
        """
        from sklearn.metrics import roc_auc_score

        scaled = replace(self, scales=learn_scales(sound.oddness))
        odd = np.repeat([False, True], [len(sound.oddness), len(faulty.oddness)])
        sums = np.concatenate([scaled._sums(sound), scaled._sums(faulty)])
        skills = [max(LEAST_WEIGHT, 2 * roc_auc_score(odd, column) - 1) for column in sums.T[:3]]
        times = skills[0] / np.array(skills[1:])
        return np.asarray(2 * np.log(np.maximum(1, times / BY_CHANCE)), np.float32)

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

        The alarms of some parts are summed (Fisher's method), each times its weight, and the sum is an alarm again; of
        two such sums the larger one counts. One is of the parts that look at places, as a small fault leaves most of an
        image as it was. The other is of the parts that look at all of it, for ``patches`` those of the finder alone; it
        has a handicap where these tell planted faults clearly worse.
        Where images are of clear kinds, neighbours and shapes tell a new kind: ``combined`` hears their sum as it is,
        too, and the others have their p-values times 5.
        """
        assert self.sums is not None and self.handicaps is not None
        alarms = self._alarms(measured)
        small, large, by_finder, near = alarms_of(self._sums(measured), self.sums).T
        large, by_finder = large - self.handicaps[0], by_finder - self.handicaps[1]
        places, others, of_finder, of_kinds = self._weights()
        heard, weights = [small, by_finder], [places, of_finder]
        if score == "combined":
            less = math.log(UNLIKELY) * self.looks_for_kinds
            heard, weights = [small - less, large - less], [places, others]
            if self.looks_for_kinds:
                heard, weights = [*heard, near], [*weights, of_kinds]
        speaker = np.argmax(heard, axis=0)
        scores, added = np.max(heard, axis=0).astype(np.float32), alarms * np.stack(weights)[speaker]
        if score == "combined":  # of all parts facts say best what is wrong with a bad frame
            loud = alarms[:, np.isin(self.parts, OF_PATCHES)].max(axis=1)
            added[(speaker == 1) & (alarms[:, -1] > np.maximum(loud, RARE)), -1] = np.inf
        loudest = np.array([PARTS.index(part) for part in self.parts])[added.argmax(axis=1)]
        why = np.where(loudest < len(REASONS), loudest, len(REASONS) + measured.strangest)
        return Scored(scores, why.astype(np.int16), measured.where)

    def _sums(self, measured: Measured) -> NDArray[np.float32]:
        return self._alarms(measured) @ np.stack(self._weights(), axis=1)

    def _weights(self) -> list[Floats]:
        """Of the parts in each of the sums."""
        assert self.weights is not None
        places, of_finder, near = (np.isin(self.parts, some) for some in (OF_PLACES, OF_PATCHES, OF_KINDS))
        sums = [self.weights * places, self.weights * ~places, self.weights * (of_finder & ~places), near]
        return [np.asarray(one, np.float32) for one in sums]

    def _alarms(self, measured: Measured) -> NDArray[np.float32]:
        assert self.scales is not None
        return alarms_of(measured.oddness, self.scales)
