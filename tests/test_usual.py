"""What is usual of normal images."""

from __future__ import annotations

import numpy as np
from sklearn.metrics import roc_auc_score

from aesearch.usual import NEAREST, UsualLooks, UsualNumbers, pixels_of


def test_a_row_is_no_neighbour_of_its_own():
    numbers = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    rows = np.arange(100, 140)
    usual = UsualNumbers.learn(numbers, rows)
    vectors = (numbers - usual.mean) @ usual.matrix
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    expected = np.log(np.sort(distances, axis=1)[:, 1 : NEAREST + 1].mean(axis=1))
    assert np.allclose(usual.oddness(numbers, rows), expected, atol=1e-3)
    assert (usual.oddness(numbers) < usual.oddness(numbers, rows)).all()


def test_few_normal_images_are_enough():
    numbers = np.ones((2, 5), np.float32)
    assert np.isfinite(UsualNumbers.learn(numbers, np.arange(2)).oddness(numbers + 1)).all()


def test_images_of_a_rich_texture_may_be_farther_from_others():
    """Smooth ones lie near one another, rough ones do not; a smooth one that is a bit rough is the odd one."""
    generator = np.random.default_rng(0)

    def smooth(count: int, spread: float) -> np.ndarray:
        ramp = np.linspace(20, 230, 16)[None, None, None] + np.zeros((count, 1, 16, 16))
        return np.clip(ramp + generator.normal(0, spread, (count, 1, 16, 16)), 0, 255).astype(np.uint8)

    rough = generator.integers(0, 255, (80, 1, 16, 16), dtype=np.uint8)
    normal = np.concatenate([smooth(80, 2), rough[:40]])
    features = np.array([[1, 0]] * 80 + [[0, 1]] * 40, np.float32)
    usual = UsualLooks.learn(pixels_of(normal), features, np.arange(120))
    new = pixels_of(np.concatenate([rough[40:], smooth(40, 30)]))
    said = usual.oddness(new, np.array([[0, 1]] * 40 + [[1, 0]] * 40, np.float32))
    plain = UsualLooks(usual.vectors, usual.units, 0 * usual.weights, 0 * usual.expected)
    odd = np.arange(80) >= 40
    assert roc_auc_score(odd, plain.oddness(new, np.zeros((80, 2), np.float32))) == 0
    assert roc_auc_score(odd, said) > 0.95
