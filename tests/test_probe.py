"""The probe against scikit-learn, and labels that were swapped on purpose."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from aesearch.errors import AesearchError
from aesearch.probe import STRENGTHS, UNSURE, LinearProbe, choose_strength, fit_linear, knn_accuracy, probe


@pytest.fixture(scope="module")
def points(digit_images):
    return digit_images.reshape(len(digit_images), -1).astype(np.float32) / 255


def test_given_splits_are_used(points, digit_labels):
    splits = ["train"] * 1200 + ["test"] * 500 + [""] * 97
    result = probe(points, digit_labels, splits)
    assert (result.train_rows, result.test_rows) == (1200, 500)
    assert result.linear_accuracy > 0.9
    nearest = KNeighborsClassifier(10, algorithm="brute").fit(points[:1200], digit_labels[:1200])
    assert result.knn_accuracy == pytest.approx(nearest.score(points[1200:1700], digit_labels[1200:1700]), abs=0.005)


def test_without_splits_a_fifth_of_each_class_is_held_out(points, digit_labels):
    result = probe(points, digit_labels)
    assert result.test_rows == sum(digit_labels.count(c) // 5 for c in set(digit_labels))
    recalls = [f["recall"] * f["test_rows"] for f in result.per_class.values()]
    assert sum(recalls) / result.test_rows == pytest.approx(result.linear_accuracy)


def test_swapped_labels_are_the_first_doubted(points, digit_labels):
    labels = list(digit_labels)
    swapped = list(range(0, 1797, 90))
    for row in swapped:
        labels[row] = str((int(labels[row]) + 3) % 10)
    doubted = [row for row, _, _ in probe(points, labels).suspicious]
    assert len(set(doubted[:25]) & set(swapped)) >= 0.8 * len(swapped)
    predicted = {row: name for row, name, _ in probe(points, labels).suspicious}
    assert np.mean([predicted.get(row) == digit_labels[row] for row in swapped]) > 0.8


@pytest.mark.parametrize("classes", [2, 3])
def test_a_saved_probe_answers_the_same(tmp_path, points, digit_labels, classes):
    rows = [i for i, label in enumerate(digit_labels) if int(label) < classes]
    model = probe(points[rows], [digit_labels[i] for i in rows]).model
    model.save(tmp_path / "probe.h5", "fingerprint")
    again = LinearProbe.load(tmp_path / "probe.h5")
    chances = again.predict_probabilities(points[rows])
    assert np.array_equal(again.weights, model.weights) and np.array_equal(again.bias, model.bias)
    assert np.allclose(chances, model.predict_probabilities(points[rows]), atol=1e-6)
    assert np.allclose(chances.sum(axis=1), 1, atol=1e-5)
    named = np.array(again.classes)[chances.argmax(axis=1)]
    assert (named == np.array([digit_labels[i] for i in rows])).mean() > 0.97


def test_unlabelled_rows_are_left_out(points, digit_labels):
    labels = [label if i % 2 else "" for i, label in enumerate(digit_labels)]
    result = probe(points, labels)
    assert result.train_rows + result.test_rows == 898
    assert all(row % 2 for row, _, _ in result.suspicious)


def test_a_class_of_one_image_does_not_stop_it(points, digit_labels):
    labels = ["rare", *digit_labels[1:]]
    assert probe(points, labels).per_class["rare"]["test_rows"] == 0


def test_labels_with_nothing_to_compare_give_no_doubts(points):
    assert probe(points, ["defect", *["ok"] * (len(points) - 1)]).suspicious == []
    splits = ["train", "train", "test"]
    assert probe(np.eye(3, dtype=np.float32), ["a", "b", "c"], splits).suspicious == []


def test_the_vote_is_by_majority():
    train = np.array([[0.0], [0.1], [0.2], [9.0]], np.float32)
    assert knn_accuracy(train, np.array([0, 1, 1, 0]), np.array([[0.0]], np.float32), np.array([1]), "l2", k=3) == 1.0


@pytest.mark.parametrize(("labels", "message"), [(["a"] * 9, "at least two labels"), ([""] * 9, "have none")])
def test_too_few_labels_are_one_line(labels, message):
    with pytest.raises(AesearchError, match=message):
        probe(np.eye(9, dtype=np.float32), labels)


def test_one_image_of_each_label_is_too_few():
    with pytest.raises(AesearchError, match="too few"):
        probe(np.eye(3, dtype=np.float32), ["a", "b", "c"])


def test_a_poor_probe_doubts_nothing_and_says_why(points, digit_labels):
    generator = np.random.default_rng(0)
    shuffled = probe(points, generator.permutation(digit_labels).tolist())
    assert shuffled.suspicious == [] and "is right on" in shuffled.withheld
    blurred = points + generator.normal(0, 1.2, points.shape).astype(np.float32)  # right on a third
    assert probe(blurred, digit_labels).withheld
    assert probe(points, digit_labels).withheld == ""
    assert probe(points, generator.permutation(digit_labels).tolist(), doubts=False).withheld == ""


def test_always_saying_the_commonest_label_doubts_nothing(points):
    rare = ["odd" if row % 25 == 0 else "usual" for row in range(len(points))]  # nothing of it can be seen
    assert "always the commonest label on 96%" in probe(points, rare).withheld


def test_a_probe_is_no_surer_than_it_is_right(points, digit_labels):
    noisy = points + np.random.default_rng(0).normal(0, 0.5, points.shape).astype(np.float32)
    result = probe(noisy[:900], digit_labels[:900])
    chances = result.model.predict_probabilities(noisy[900:])
    right = np.array(result.model.classes)[chances.argmax(axis=1)] == np.array(digit_labels[900:])
    sure = chances.max(axis=1)
    assert abs(sure.mean() - right.mean()) < 0.06  # without the temperature it is .16 surer
    assert right[sure >= UNSURE].mean() > 0.7 > right[sure < UNSURE].mean() + 0.15


def test_wrong_labels_ask_for_a_stronger_penalty(points, digit_labels):
    draw, right = np.random.default_rng(0), np.array(digit_labels, np.int64)
    wrong = np.where(draw.random(len(right)) < 0.3, draw.integers(0, 10, len(right)), right)
    chosen = [choose_strength(points[:600], targets[:600], 0) for targets in (right, wrong)]
    assert chosen[1] < chosen[0] and set(chosen) <= set(STRENGTHS)
    fixed = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(points[:600], wrong[:600])
    found = fit_linear(points[:600], wrong[:600], np.arange(10).astype(str))
    accuracy = (found.predict_probabilities(points[600:]).argmax(axis=1) == right[600:]).mean()
    assert accuracy > fixed.score(points[600:], right[600:]) + 0.02


@pytest.mark.parametrize("targets", [[0, 1], [0, 0, 0, 1], [3, 3, 3, 3, 5, 5], [0, 1, 2, 3]])
def test_rows_too_few_to_choose_a_penalty_are_fitted_all_the_same(targets):
    vectors = np.random.default_rng(0).normal(size=(len(targets), 3)).astype(np.float32)
    model = fit_linear(vectors, np.array(targets), np.array(list("abcdef")))
    assert model.classes == [list("abcdef")[t] for t in sorted(set(targets))]
