"""Ranking and AUROC with answers worked out by hand."""

import numpy as np
import pytest

from aesearch.anomalies.error_maps import worst_regions
from aesearch.anomalies.facts import FACTS
from aesearch.anomalies.names import OF_PATCHES, PARTS, REASONS
from aesearch.anomalies.normality import Normality
from aesearch.anomalies.ranking import explain, measure_auroc, neighbour_distance, part_of, rank
from aesearch.anomalies.thresholds import alarms_of, learn_scales, learn_threshold
from aesearch.errors import AesearchError

SCORES = np.array([0.1, 0.9, 0.5, 0.5, 0.2], dtype=np.float32)


def test_the_oddest_come_first_and_ties_in_row_order():
    ranking = rank(SCORES, top=4)
    assert ranking.rows.tolist() == [1, 2, 3, 4]
    assert ranking.scores.tolist() == pytest.approx([0.9, 0.5, 0.5, 0.2])
    assert ranking.scored == 5 and ranking.auroc is None
    assert rank(SCORES, top=99).rows.tolist() == [1, 2, 3, 4, 0]


def test_auroc_is_the_share_of_pairs_in_order():
    labels = ["ok", "odd", "ok", "odd", ""]
    # Pairs (odd, ok): .9>.1, .9>.5, .5>.1 and one tie of .5 with .5, which counts half; row 4 has no label.
    assert measure_auroc(SCORES, labels, "ok") == pytest.approx(3.5 / 4)
    assert rank(SCORES, labels=labels, normal_label="ok").auroc == pytest.approx(3.5 / 4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([""] * 5, "needs labels"), (["x"] * 5, "no image has the label 'ok'"), (["ok"] * 5, "every image")],
)
def test_an_auroc_without_two_sides_is_one_line(labels, message):
    with pytest.raises(AesearchError, match=message):
        measure_auroc(SCORES, labels, "ok")


def test_the_distance_to_neighbours_leaves_the_image_itself_out():
    rows = np.array([[0, 4, 7], [3, 1, 5], [8, 9, 6]])
    distances = np.array([[0, 2, 4], [1, 1, 2], [1, 2, 9]], np.float32)
    # Row 2 is not among its own neighbours: the farthest of three does not count.
    assert neighbour_distance(rows, distances, 2, np.array([0, 1, 2])).tolist() == [3, 1.5, 1.5]
    assert neighbour_distance(rows, distances, 3).tolist() == [2, pytest.approx(4 / 3), 4]
    assert neighbour_distance(np.array([[3, -1, -1]]), np.array([[2, 9e9, 9e9]], np.float32), 3).tolist() == [2]


def test_normality_is_the_mahalanobis_distance_from_the_mean():
    generator = np.random.default_rng(0)
    normal = (generator.normal(size=(500, 6)) @ (np.eye(6) + generator.uniform(size=(6, 6)) / 6) + 3).astype(np.float32)
    learned = Normality.learn(np.array_split(normal, 7))
    new = generator.normal(size=(20, 6)).astype(np.float32) * 5
    covariance = np.cov(normal.T, ddof=0)
    inverse = np.linalg.inv(covariance + 0.1 * np.trace(covariance) / 6 * np.eye(6))
    centred = new - normal.mean(axis=0)
    assert np.allclose(learned.distance(new), np.einsum("ni,ij,nj->n", centred, inverse, centred), rtol=1e-3)
    assert learned.learned_from == 500


def test_an_image_learned_from_counts_as_if_it_had_not_been():
    normal = np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32)
    normal[7] *= 3
    as_if = Normality.learn([normal]).distance(normal, np.ones(60, bool))
    without = [Normality.learn([np.delete(normal, n, axis=0)]).distance(normal[n : n + 1])[0] for n in range(60)]
    own = Normality.learn([normal]).distance(normal)
    assert np.abs(as_if / without - 1).mean() < 0.25 * np.abs(own / without - 1).mean()
    assert as_if.argmax() == 7


def test_normality_of_images_all_alike_is_no_division_by_zero():
    alike = Normality.learn([np.ones((3, 4), np.float32)])
    assert alike.distance(np.ones((2, 4), np.float32)).tolist() == [0, 0]
    assert alike.distance(np.zeros((1, 4), np.float32))[0] > 1e6


def test_alarms_are_the_share_of_normal_images_that_are_as_odd():
    """By hand: 1,001 normal images are 0 to 10; beyond 95 % of them the tail is exponential."""
    normal = (np.arange(1001) / 100).astype(np.float32)[:, None]
    scales = learn_scales(normal)
    assert np.allclose(scales[:, 0], [0, 2, 5, 8, 9.5], atol=1e-4)
    odd = np.array([[5.0], [8.0], [9.5], [11.0], [-3.0]], np.float32)
    assert np.allclose(alarms_of(odd, scales)[:, 0], -np.log([0.5, 0.2, 0.05, 0.0125, 1]), atol=1e-4)
    few_odd = np.concatenate([normal, np.full((20, 1), 1e9, np.float32)])
    assert alarms_of(odd[3:4], learn_scales(few_odd))[0, 0] > 3.5


def test_each_part_and_fact_has_its_words():
    first_fact = len(REASONS)
    words = [explain(why) for why in (-1, 0, first_fact, first_fact + 1)]
    assert words == ["", REASONS[0], "nearly blank", "very high contrast"]
    assert [part_of(why) for why in (-1, 3, first_fact, 20)] == ["", "places", "facts", "facts"]
    assert explain(len(REASONS) + 2 * len(FACTS) - 1) == "very bright"
    assert set(OF_PATCHES) < set(PARTS)


def test_boxes_lie_around_the_worst_regions_in_order():
    error_map = np.zeros((56, 112), np.float32)
    error_map[10:20, 80:100] = 1
    error_map[30:50, 10:40] = 1
    boxes = worst_regions(error_map)
    assert np.allclose(
        boxes, [(10 / 112, 30 / 56, 40 / 112, 50 / 56), (80 / 112, 10 / 56, 100 / 112, 20 / 56)], atol=0.04
    )
    assert worst_regions(np.zeros((8, 8), np.float32)) == []
    assert worst_regions(np.ones((1, 1), np.float32)) == [(0, 0, 1, 1)]


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_a_threshold_gives_the_false_alarms_asked_for(rate):
    """Over many draws, new images exceed it as often as asked, hardly more: the conformal guarantee."""
    generator = np.random.default_rng(0)
    shares = []
    for seed in range(200):
        alarms = learn_threshold(generator.gamma(2, size=400).astype(np.float32), rate, seed)
        assert (alarms.asked, alarms.learned_from) == (rate, 400)
        shares.append((generator.gamma(2, size=2000) > alarms.threshold).mean())
    assert rate - 0.01 < np.mean(shares) <= rate + 0.005


def test_a_threshold_by_hand():
    alarms = learn_threshold(np.arange(1, 21, dtype=np.float32), 0.1)
    assert alarms.threshold == 19  # ceil(21 * 0.9) = 19th of 20
    assert alarms.normal.tolist() == [*range(1, 21)] and alarms.to_json()["learned_from"] == 20
    # Of 20 normal images 20, 2 and none are at least as odd; the image itself counts.
    odd = np.array([1, 19, 99], np.float32)
    assert alarms.p_values(odd).tolist() == [pytest.approx(p / 21) for p in (21, 3, 1)]
    # Each tenth, two scores, by the other 18: ceil(19 * 0.9) = their highest; 20 is above it, and 19 if both are one.
    pair = np.random.default_rng(0).permutation(20)
    together = [set((pair[fold::10] + 1).tolist()) for fold in range(10)]
    assert alarms.measured == (0.1 if {19, 20} in together else 0.05)


def test_the_least_p_value_is_said_as_a_bound():
    """Odder than all of 50 images: that is p ≤ 0.02 whatever the score, and no smaller one can be told."""
    alarms = learn_threshold(np.arange(50, dtype=np.float32), 0.1)
    beyond = alarms.p_values(np.array([1e3, 1e6], np.float32))
    assert alarms.learned_from == 50 and beyond.tolist() == [alarms.least_p_value] * 2
    assert alarms.to_json()["least_p_value"] == pytest.approx(1 / 51)
    assert {alarms.p_text(p) for p in beyond.tolist()} == {"≤ 0.02"}
    assert alarms.p_text(2 / 51) == "0.039" and alarms.p_text(1.0) == "1"
    for rows, told in ((90, "≤ 0.011"), (2, "≤ 0.34"), (10_000, "≤ 0.0001"), (999, "≤ 0.001")):
        some = learn_threshold(np.arange(rows, dtype=np.float32), 0.9)
        assert some.p_text(some.least_p_value) == told
        assert float(told[2:]) >= some.least_p_value


@pytest.mark.parametrize(
    ("rate", "message"),
    [(0.01, "needs 99 normal images"), (5e-324, "needs 99999"), (0.0, "between 0 and 1"), (1.0, "between 0 and 1")],
)
def test_a_threshold_needs_enough_normal_images(rate, message):
    with pytest.raises(AesearchError, match=message):
        learn_threshold(np.arange(50, dtype=np.float32), rate)
