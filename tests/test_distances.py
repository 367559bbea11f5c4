"""What a metric means, against plain NumPy."""

import numpy as np
import pytest

from aesearch.vectors.distances import exact_neighbours, prepare


def plain(base, queries, metric):
    if metric == "l2":
        return np.linalg.norm(queries[:, None] - base[None], axis=-1)
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (queries, base)]
    return 1 - unit[0] @ unit[1].T


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_agree_with_plain_numpy(metric):
    generator = np.random.default_rng(0)
    base = generator.normal(size=(300, 7)).astype(np.float32)
    queries = generator.normal(size=(20, 7)).astype(np.float32)
    rows, distances = exact_neighbours(base, queries, 12, metric)
    table = plain(base.astype(np.float64), queries.astype(np.float64), metric)
    assert np.array_equal(rows, np.argsort(table, axis=1)[:, :12])
    assert np.allclose(distances, np.sort(table, axis=1)[:, :12], atol=1e-5)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_vector_is_its_own_nearest_at_distance_zero(metric):
    base = np.random.default_rng(1).normal(size=(50, 5)).astype(np.float32) * 100
    rows, distances = exact_neighbours(base, base, 1, metric)
    assert rows[:, 0].tolist() == list(range(50))
    assert (distances >= 0).all() and distances.max() < (1e-6 if metric == "cosine" else 0.1)


def test_cosine_ignores_length_and_spans_zero_to_two():
    base = np.array([[1, 0], [0, 3], [-5, 0]], dtype=np.float32)
    _, distances = exact_neighbours(base, np.array([[7, 0]], dtype=np.float32), 3, "cosine")
    assert np.allclose(distances, [[0, 1, 2]])


def test_a_zero_vector_stays_finite():
    assert np.isfinite(prepare(np.zeros((2, 3), np.float32), "cosine")).all()


def test_wrong_arguments_name_the_numbers():
    base = np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="k = 4 for 3 rows"):
        exact_neighbours(base, base, 4, "l2")
    with pytest.raises(ValueError, match="manhattan"):
        prepare(base, "manhattan")
