"""How the parts of ``combined`` and ``patches`` are put together, and what held-out images are set against."""

import numpy as np

from aesearch.anomalies.combining import BY_CHANCE, LEAST_OF_FACTS, LEAST_WEIGHT, Measured
from aesearch.anomalies.names import OF_PATCHES
from aesearch.anomalies.ranking import part_of
from aesearch.anomalies.scorer import _folds
from aesearch.images.grouping import highest_of, oddest_of


def test_combined_hears_every_part_and_patches_those_of_the_finder(digits):
    """By hand: medians but for one part that is far beyond all normal images."""
    usual = digits._anomaly_scores.scorer("combined").usual
    oddness = np.repeat(usual.scales[2:3], 1 + len(usual.parts), axis=0)
    for place in range(len(usual.parts)):
        oddness[1 + place, place] = usual.scales[-1, place] + 30 * (usual.scales[-1, place] - usual.scales[-2, place])
    count = len(oddness)
    measured = Measured(oddness, np.zeros(count, np.int64), np.zeros((count, 2), np.float32))
    combined, patches = (usual.judge(measured, score) for score in ("combined", "patches"))
    assert [part_of(why) for why in combined.why[1:]] == list(usual.parts)
    assert (combined.scores[1:] > combined.scores[0] + 3).all()
    local = np.isin(usual.parts, OF_PATCHES)
    assert (patches.scores[1:][local] > patches.scores[0] + 1).all()
    assert np.allclose(patches.scores[1:][~local], patches.scores[0])


def test_parts_are_heard_as_well_as_they_tell_planted_faults(digits):
    """By hand: one part tells all of them, one half of them, the others none."""
    usual = digits._anomaly_scores.scorer("combined").usual
    count = len(usual.parts)
    draw = np.random.default_rng(0)
    sound, faulty = draw.normal(size=(2, 400, count)).astype(np.float32)
    faulty[:, 0] += 20
    faulty[:200, 1] += 20
    both = [Measured(one, np.zeros(400, np.int64), np.zeros((400, 2), np.float32)) for one in (sound, faulty)]
    weights = usual.weigh(*both).weights
    assert weights[0] == 1 and abs(weights[1] - 0.5) < 0.06
    assert np.allclose(weights[2:-1], LEAST_WEIGHT, atol=0.02) and weights[-1] == LEAST_OF_FACTS
    assert [*digits.manifest.artifacts["combined"]["figures"]["weights"].values()] == sorted(usual.heard().values())[
        ::-1
    ]
    assert usual.weights.shape == (count,) and (usual.weights >= LEAST_WEIGHT).all() and usual.weights.max() > 0.1


def test_what_looks_at_all_of_an_image_has_a_handicap_where_places_tell_faults_better(digits):
    usual = digits._anomaly_scores.scorer("combined").usual
    draw = np.random.default_rng(0)

    def weighed(*parts):
        sound, faulty = draw.normal(size=(2, 400, len(usual.parts))).astype(np.float32)
        faulty[:, [usual.parts.index(part) for part in parts]] += 20
        return usual.weigh(
            *(Measured(x, np.zeros(400, np.int64), np.zeros((400, 2), np.float32)) for x in (sound, faulty))
        )

    both, small, large = weighed("places", "whole"), weighed("places"), weighed("whole")
    assert (both.handicaps == 0).all() and (large.handicaps == 0).all() and (small.handicaps > 1).all()
    assert small.handicaps.max() <= 2 * np.log(1 / LEAST_WEIGHT / BY_CHANCE) + 1e-5


def test_held_out_rows_are_scored_in_tenths_that_part_no_unit():
    units = np.r_[np.arange(40), np.repeat([90, 91], 5)]
    rows = np.flatnonzero(np.arange(50) % 7 != 3)
    parts = np.array([*_folds(rows, units)])
    assert parts.shape == (10, 50) and (parts[:, rows].sum(axis=0) == 1).all() and parts.sum() == len(rows)
    for unit in (90, 91):
        assert (parts[:, (units == unit) & np.isin(np.arange(50), rows)].any(axis=1)).sum() == 1
    assert [*_folds(np.array([3]), units)] == []


def test_of_each_unit_the_oddest_and_how_odd_it_is():
    units, scores = np.array([7, 2, 7, 2, 5]), np.array([1, 4, 3, 4, 0], np.float32)
    assert oddest_of(units, scores).tolist() == [1, 2, 4]
    assert highest_of(units, scores).tolist() == [3, 4, 0]
