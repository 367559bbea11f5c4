"""What a collection answers: neighbours, anomalies and duplicates, with their ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.ranking import explain, part_of
from aesearch.anomalies.thresholds import Alarms


@dataclass(frozen=True, eq=False)
class Hits:
    """Nearest neighbours of one query, nearest first.

    Attributes
    ----------
    query : str
        The file, or the id of the row that was asked for.
    rows : (k,) int64
    ids, labels : list of k str
    distances : (k,) float32
        In the collection's metric; smaller is nearer.
    orientations : list of k str, or None
        How the query was oriented when it was nearest to each, if it was asked in several ways.
    """

    query: str
    rows: NDArray[np.int64]
    ids: list[str]
    labels: list[str]
    distances: NDArray[np.float32]
    orientations: list[str] | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``aesearch query --json`` gives it."""
        hits = _ranked(self.rows, self.ids, self.labels, self.distances, "distance")
        for hit, orientation in zip(hits, self.orientations or [], strict=False):
            hit["orientation"] = orientation
        return {"query": self.query, "hits": hits}

    def without(self, row: int, k: int) -> Hits:
        """The first k hits that are not that row."""
        keep = np.flatnonzero(self.rows != row)[:k]
        ids, labels = [self.ids[i] for i in keep], [self.labels[i] for i in keep]
        ways = None if self.orientations is None else [self.orientations[i] for i in keep]
        return Hits(self.query, self.rows[keep], ids, labels, self.distances[keep], ways)


@dataclass(frozen=True, eq=False)
class Anomalies:
    """The oddest images, oddest first.

    Attributes
    ----------
    rows : (top,) int64
        Rows of the collection, or positions in the source that was scored.
    ids, labels : list of str
    scores : (top,) float32
        Larger is odder.
    scored : int
    auroc : float or None
    alarms : Alarms or None
        The threshold, where a false-alarm rate was asked for; it gives p-values too.
    flagged : int
        How many of those scored lie above it.
    why : list of int
        What made each odd by ``combined`` or ``patches``, as `aesearch.anomalies.ranking.explain` puts it in words;
        -1 by the other scores.
    where : (top, 2) float32
        By those two: the place that looks most faulty, from the left and from the top, in shares of width and height;
        else NaN.
    by : str
        The score.
    tiles : list of str
        Where pictures of tiles are ranked, of each the oddest tile, whose score and row it has; ``where`` is in the
        picture. Else empty.
    """

    rows: NDArray[np.int64]
    ids: list[str]
    labels: list[str]
    scores: NDArray[np.float32]
    scored: int
    auroc: float | None
    alarms: Alarms | None = None
    flagged: int = 0
    why: Sequence[int] = ()
    where: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 2), np.float32))
    by: str = ""
    tiles: Sequence[str] = ()

    @property
    def reasons(self) -> list[str]:
        """Why each is odd, in words; empty where the score has one part."""
        return [explain(one) for one in self.why]

    def to_json(self) -> list[dict[str, Any]]:
        """As ``aesearch anomalies --json`` lists them."""
        listed = _ranked(self.rows, self.ids, self.labels, self.scores, "score")
        for one, why, where in zip(listed, self.why, self.where, strict=False):
            if why >= 0:
                one |= {"part": part_of(why), "why": explain(why), "where": [round(float(side), 3) for side in where]}
        for one, tile in zip(listed, self.tiles, strict=False):
            one["tile"] = tile
        if self.alarms:
            for one, p_value in zip(listed, self.alarms.p_values(self.scores), strict=True):
                one["p_value"] = float(p_value)
        return listed


class _Answer(NamedTuple):
    label: str
    probability: float


class Classified(_Answer):
    """The probe's answer for one image: the pair (label, probability), and beside it how sure that is.

    Attributes
    ----------
    second, second_probability : str, float
        The next likely label.
    unsure : bool
        The probability is below 0.6: such answers are wrong about as often as they are right.
    """

    second: str
    second_probability: float
    unsure: bool

    @classmethod
    def of(cls, classes: list[str], chances: NDArray[np.float32], least: float) -> Classified:
        """From the probabilities (c,) of two classes or more."""
        first, second = np.argsort(-chances, kind="stable")[:2].tolist()
        answer = cls(classes[first], float(chances[first]))
        answer.second, answer.second_probability = classes[second], float(chances[second])
        answer.unsure = answer.probability < least
        return answer

    def to_json(self) -> dict[str, Any]:
        """As ``aesearch classify --json`` gives it."""
        names = ("label", "probability", "second", "second_probability", "unsure")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Images that are there more than once, or nearly; the largest group first.

    Attributes
    ----------
    threshold : float
        Largest distance of two images that are put together, in the collection's metric.
    rows : list of (m,) int64
    ids : list of list of m str
    exact : list of bool
        Whether all images of a group are the same, byte for byte.
    found : float or None
        Share of the pairs within the threshold that exact search finds for a sample, and this found to be near.
    pixel_distances : list of float or None
        Of each group the largest pixel distance from one image to the next, as a share of their contrast; 0 for exact
        copies, None where it is not known.
    rejected : int
        Pairs within the threshold whose pixels show that they are not the same.
    """

    threshold: float
    rows: list[NDArray[np.int64]]
    ids: list[list[str]]
    exact: list[bool]
    found: float | None
    pixel_distances: list[float | None]
    rejected: int

    def to_json(self) -> dict[str, Any]:
        """As ``aesearch duplicates --json`` gives it."""
        groups = [
            [{"row": int(row), "id": id} for row, id in zip(rows, ids, strict=True)]
            for rows, ids in zip(self.rows, self.ids, strict=True)
        ]
        more = {name: getattr(self, name) for name in ("exact", "found", "pixel_distances", "rejected")}
        return {"threshold": self.threshold, "groups": groups, **more}

    def kind(self, group: int) -> str:
        """What a group is, in words: exact, or near and how far its pixels differ."""
        far = self.pixel_distances[group]
        return "exact" if self.exact[group] else "near" if far is None else f"near, pixels {far:.2f}"


def _ranked(
    rows: NDArray[np.int64], ids: list[str], labels: list[str], values: NDArray[np.float32], name: str
) -> list[dict[str, Any]]:
    return [
        {"rank": n, "row": int(row), "id": id, "label": label, name: float(value)}
        for n, (row, id, label, value) in enumerate(zip(rows, ids, labels, values, strict=True), 1)
    ]


@dataclass(frozen=True)
class Run:
    """One latent size: losses after each epoch, on training and on held-out images; figures of the finished network.

    ``test_mse`` is the mean squared error per pixel on the [0, 1] scale over the split ``test``, else over the
    held-out images; the accuracies, where there are labels, are those of `Collection.probe`.
    """

    latent_dim: int
    parameters: int
    train_loss: list[float]
    test_loss: list[float]
    test_mse: float
    knn_accuracy: float | None
    linear_accuracy: float | None


@dataclass(frozen=True)
class Sweep:
    """All runs, smallest latent first, and the size to take with the reason."""

    arch: str
    loss: str
    epochs: int
    runs: list[Run]
    recommended: int
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As a document for JSON."""
        return asdict(self)
