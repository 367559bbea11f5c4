"""How much of the labels a linear model reads off the features; which labels it doubts."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError
from aesearch.files.arrays import read_arrays, write_arrays
from aesearch.images.grouping import whole_units
from aesearch.vectors.distances import exact_neighbours

HOLD_OUT_SHARE = 0.2
NEIGHBOURS = 10
FOLDS = 5
# Below either of these a probe's doubts say more of the features than of the labels: of as many first doubts as there
# were wrong labels planted (5 %), fewer than a quarter were among them (digits with noise, CIFAR-10).
LEAST_ACCURACY = 0.6
LEAST_GAIN = 0.25  # of what always saying the commonest label leaves wrong
UNSURE = 0.6  # a probability below which a half to two thirds of the answers were wrong
HOTTEST = 20.0  # temperature
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)  # C of logistic regression: one over the weight of the penalty
CHOSEN_ON = 5000  # rows at most
LEAST_CHANCE = 1e-9  # that a logarithm is taken of


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Multinomial logistic regression on features.

    Attributes
    ----------
    classes : list of c str
    weights, bias : (c, d) and (c,) float32
    """

    classes: list[str]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    def predict_probabilities(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, c) float32, rows summing to 1, of features (n, d)."""
        logits = features @ self.weights.T + self.bias  # (n, c)
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True), dtype=np.float32)

    def save(self, path: Path, store_fingerprint: str) -> None:
        """Write as HDF5: ``classes``, ``weights``, ``bias``."""
        arrays = {"classes": self.classes, "weights": self.weights, "bias": self.bias}
        write_arrays(path, arrays, {"store_fingerprint": store_fingerprint})

    @classmethod
    def load(cls, path: Path) -> LinearProbe:
        """Read what `save` wrote."""
        found = read_arrays(path)
        return cls([c.decode() for c in found["classes"]], found["weights"], found["bias"])

    def tempered(
        self, vectors: NDArray[np.float32], targets: NDArray[np.int64], classes: NDArray[np.str_]
    ) -> LinearProbe:
        """The same answers, no surer than they are right on rows not seen: temperature scaling (Guo et al. 2017).

        Parameters
        ----------
        vectors : (n, d) float32
        targets : (n,) int64
            Positions in ``classes``; rows of labels that the probe does not know are left out.
        classes : (c,) str
        """
        from scipy.optimize import minimize_scalar

        place = {name: number for number, name in enumerate(self.classes)}
        own = np.array([place.get(str(name), -1) for name in classes])[targets]
        logits = (vectors @ self.weights.T + self.bias)[own >= 0].astype(np.float64)
        own = own[own >= 0]
        if not len(own):
            return self

        def surprise(log_temperature: float) -> float:
            scaled = logits / np.exp(log_temperature)
            scaled -= scaled.max(axis=1, keepdims=True)
            return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(own)), own]).mean())

        found = minimize_scalar(surprise, bounds=(0, np.log(HOTTEST)), method="bounded")
        temperature = np.float32(np.exp(found.x)) if surprise(float(found.x)) < surprise(0.0) else np.float32(1)
        return LinearProbe(self.classes, self.weights / temperature, self.bias / temperature)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What the probe measured.

    Attributes
    ----------
    train_rows, test_rows : int
    linear_accuracy, knn_accuracy : float
        On the test rows; the second by vote of the 10 nearest training rows.
    per_class : dict
        ``precision``, ``recall``, ``test_rows`` of the linear probe by label.
    suspicious : list of (row, predicted label, confidence)
        Rows of all splits whose label a probe that never saw them contradicts, surest first; none where fewer than
        two labels have two rows, or they are withheld.
    model : LinearProbe
        Trained on the training rows; the test rows say how sure it may be.
    withheld : str
        Why no label is doubted though labels were looked at: the probe is too often wrong itself. Else empty.
    free : dict
        On a sample, accuracies of the features beside those of raw pixels, principal components and patches, see
        `aesearch.baselines.compare_with_free`; empty where the images cannot be read.
    """

    train_rows: int
    test_rows: int
    linear_accuracy: float
    knn_accuracy: float
    per_class: dict[str, dict[str, float]]
    suspicious: list[tuple[int, str, float]]
    model: LinearProbe
    withheld: str = ""
    free: dict[str, dict[str, float]] = field(default_factory=dict)


def probe(
    features: NDArray[np.float32],
    labels: list[str],
    splits: list[str] | None = None,
    *,
    units: NDArray[np.int64] | None = None,
    metric: str = "l2",
    doubts: bool = True,
    seed: int = 0,
) -> ProbeResult:
    """Train a linear probe and measure it.

    Parameters
    ----------
    features : (n, d) float32
    labels : list of n str
        Rows with an empty label are left out.
    splits : list of n str, optional
        If both ``train`` and ``test`` occur they are used; otherwise a fifth of each class is held out.
    units : (n,) int64, optional
        Rows of the same number belong together: where rows are parted here, all of them are on one side.
    metric : {"cosine", "l2"}
        For the nearest-neighbour vote.
    doubts : bool
        Whether to look for suspicious labels too, which takes five more probes. They are withheld where these probes
        are right on fewer than 60 % of the rows, or hardly more often than by always saying the commonest label.

    Raises
    ------
    AesearchError
        Fewer than two labels, or nothing to test on.
    """
    known, classes, targets, train, test = divide(labels, splits, seed, units)
    vectors = features[known]
    units = known if units is None else units[known]
    strength = choose_strength(vectors[train], targets[train], seed, units[train])
    model = fit_linear(vectors[train], targets[train], classes, strength)
    predicted = np.array(model.classes)[model.predict_probabilities(vectors[test]).argmax(axis=1)]
    truth = classes[targets[test]]
    doubted = _doubts(vectors, targets, strength, seed, units) if doubts else []
    withheld = _why_withheld(1 - len(doubted) / len(targets), float(np.bincount(targets).max() / len(targets)))
    return ProbeResult(
        train_rows=len(train),
        test_rows=len(test),
        linear_accuracy=float((predicted == truth).mean()),
        knn_accuracy=knn_accuracy(vectors[train], targets[train], vectors[test], targets[test], metric),
        per_class={str(c): _class_figures(predicted, truth, c) for c in classes},
        suspicious=[] if withheld else [(int(known[r]), str(classes[p]), c) for r, p, c in doubted],
        model=model.tempered(vectors[test], targets[test], classes),
        withheld=withheld,
    )


def divide(
    labels: list[str], splits: list[str] | None, seed: int, units: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.str_], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """What a probe learns from and is tested on; see `probe`.

    Returns
    -------
    (n,) int64, (c,) str, (n,) int64
        Rows with a label, the labels there are, and which of them each row has.
    (m,) and (k,) int64
        Positions among those rows to learn from, and to test on.
    """
    names, parts = np.array(labels, dtype=str), np.array(splits or [""] * len(labels), dtype=str)
    known = np.flatnonzero(names != "")
    classes, targets = np.unique(names[known], return_inverse=True)
    if len(classes) < 2:
        raise AesearchError(
            f"a probe needs at least two labels, these images have {len(classes) or 'none'}: "
            "label them by sub-folder (--labels folder) or by a table's label column"
        )
    parts = parts[known]
    if {"train", "test"} <= set(parts):
        train, test = np.flatnonzero(parts == "train"), np.flatnonzero(parts == "test")
    else:
        train, test = _hold_out(targets, seed, known if units is None else units[known])
    if len(test) == 0 or len(np.unique(targets[train])) < 2:
        raise AesearchError("too few images of each label to hold some out for a test")
    return known, classes, targets, train, test


def _why_withheld(accuracy: float, commonest: float) -> str:
    """Why doubts of probes that are right on this share of rows say little, empty where they say something."""
    if accuracy >= LEAST_ACCURACY and 1 - accuracy <= (1 - LEAST_GAIN) * (1 - commonest):
        return ""
    return (
        f"a probe is right on {accuracy:.0%} of images it has not seen, always the commonest label on {commonest:.0%}: "
        "too few for its doubts to say anything of the labels"
    )


def knn_accuracy(
    train: NDArray[np.float32],
    train_targets: NDArray[np.int64],
    test: NDArray[np.float32],
    test_targets: NDArray[np.int64],
    metric: str,
    k: int = NEIGHBOURS,
) -> float:
    """Share of test rows whose label wins the vote of their k nearest training rows; ties to the lower class."""
    rows, _ = exact_neighbours(train, test, min(k, len(train)), metric)
    votes = np.zeros((len(test), int(max(train_targets.max(), test_targets.max())) + 1), dtype=np.int32)
    np.add.at(votes, (np.arange(len(test))[:, None], train_targets[rows]), 1)
    return float((votes.argmax(axis=1) == test_targets).mean())


def _hold_out(
    targets: NDArray[np.int64], seed: int, units: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A fifth of each class for the test, at least one of each class that has two, and all that belongs to it."""
    generator = np.random.default_rng(seed)
    test = []
    for target in np.unique(targets):
        rows = generator.permutation(np.flatnonzero(targets == target))
        wanted = max(int(len(rows) * HOLD_OUT_SHARE), int(len(rows) > 1))
        test.append(rows[np.isin(units[rows], whole_units(units[rows], wanted))])
    held_out = np.flatnonzero(np.isin(units, units[np.concatenate(test)]))
    return np.setdiff1d(np.arange(len(targets)), held_out), held_out


def _pipeline(strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def fit_linear(
    vectors: NDArray[np.float32],
    targets: NDArray[np.int64],
    classes: NDArray[np.str_],
    strength: float | None = None,
) -> LinearProbe:
    """Fit logistic regression on standardised features, and fold the standardising into the weights.

    Parameters
    ----------
    vectors : (n, d) float32
    targets : (n,) int64
        Positions in ``classes``; at least two different ones.
    classes : (c,) str
    strength : float, optional
        C of the regression; by default as `choose_strength` finds it.
    """
    fitted = _pipeline(strength or choose_strength(vectors, targets)).fit(vectors, targets)
    scaler, logistic = fitted[0], fitted[1]
    weights = logistic.coef_ / scaler.scale_
    bias = logistic.intercept_ - weights @ scaler.mean_
    if len(weights) == 1:  # two classes share one set of weights
        weights, bias = np.concatenate([0 * weights, weights]), np.concatenate([0 * bias, bias])
    names = [str(classes[t]) for t in logistic.classes_]
    return LinearProbe(names, weights.astype(np.float32), bias.astype(np.float32))


def _class_figures(predicted: NDArray[np.str_], truth: NDArray[np.str_], name: str) -> dict[str, float]:
    hits = int(((predicted == name) & (truth == name)).sum())
    said, there = int((predicted == name).sum()), int((truth == name).sum())
    return {
        "precision": hits / said if said else 0.0,
        "recall": hits / there if there else 0.0,
        "test_rows": there,
    }


def choose_strength(
    vectors: NDArray[np.float32], targets: NDArray[np.int64], seed: int = 0, units: NDArray[np.int64] | None = None
) -> float:
    """C of logistic regression: the first of ``STRENGTHS`` after which rows surprise more that were not fitted on.

    The surprise of a row is minus the logarithm of the probability of its label. Of too few rows the last strength.

    Parameters
    ----------
    vectors : (n, d) float32
    targets : (n,) int64
        Of up to 5,000 rows, drawn at random, each is predicted by a model of the folds it is not in.
    units : (n,) int64, optional
        Rows of the same number are in the same fold.
    """
    few = np.random.default_rng(seed).permutation(len(targets))[:CHOSEN_ON]
    vectors, targets = vectors[few], np.unique(targets[few], return_inverse=True)[1]
    units = few if units is None else units[few]
    best, least = STRENGTHS[-1], np.inf
    for strength in STRENGTHS:
        chances = _out_of_fold(vectors, targets, strength, seed, units)
        if chances is None:
            break
        surprise = -np.log(np.maximum(chances[np.arange(len(targets)), targets], LEAST_CHANCE)).mean()
        if surprise >= least:
            break
        best, least = strength, surprise
    return best


def _out_of_fold(
    vectors: NDArray[np.float32], targets: NDArray[np.int64], strength: float, seed: int, units: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Probabilities (n, c) of each row by a model of the folds it is not in; none where the rows are too few."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, cross_val_predict

    # Of each fold's rows the other folds must know two labels, or there is nothing to predict.
    alone = len(np.unique(units)) == len(units)
    of_classes = [len(np.unique(units[targets == target])) for target in np.unique(targets)]
    folds = min(FOLDS, sorted([0, 0, *of_classes])[-2])
    if folds < 2:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes rarer than the folds
        splitter = (StratifiedKFold if alone else StratifiedGroupKFold)(folds, shuffle=True, random_state=seed)
        settings = {"cv": splitter, "method": "predict_proba", "groups": units}
        chances = cross_val_predict(_pipeline(strength), vectors, targets, **settings)
    return np.asarray(chances, np.float64)


def _doubts(
    vectors: NDArray[np.float32], targets: NDArray[np.int64], strength: float, seed: int, units: NDArray[np.int64]
) -> list[tuple[int, int, float]]:
    """(row, predicted class, its probability) where an out-of-fold probe disagrees, surest first."""
    chances = _out_of_fold(vectors, targets, strength, seed, units)
    if chances is None:
        return []
    predicted = chances.argmax(axis=1)
    confidence = chances[np.arange(len(targets)), predicted]
    wrong = np.flatnonzero(predicted != targets)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")]
    return [(int(r), int(predicted[r]), float(confidence[r])) for r in wrong]
