"""Ranking and AUROC with answers worked out by hand."""

import numpy as np
import pytest

from aesearch.anomalies import measure_auroc, rank
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
