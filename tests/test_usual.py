"""What is usual of normal images."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from aesearch.anomalies.usual import NEAREST, UsualLooks, UsualNumbers, UsualTexture, pixels_of, sampled


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


def places(images: int, seed: int) -> torch.Tensor:
    """Local features (images, 20, 6, 5): of each place one of three textures, and noise."""
    draw = np.random.default_rng(seed)
    middles = 5 * np.random.default_rng(99).normal(size=(3, 20))
    seen = middles[draw.integers(3, size=(images, 6, 5))] + draw.normal(size=(images, 6, 5, 20))
    return torch.from_numpy(seen.transpose(0, 3, 1, 2).astype(np.float32))


def test_one_place_of_another_texture_makes_an_image_odd():
    local = places(40, seed=0)
    usual = UsualTexture.learn(sampled(local, 20, np.random.default_rng(0)), np.repeat(np.arange(40), 20))
    assert usual.bank.shape == (2, 400, 20)
    new = places(40, seed=1)
    new[:20, :, 2, 3] += 5 * torch.from_numpy(np.random.default_rng(2).normal(size=(20, 20)).astype(np.float32))
    assert roc_auc_score(np.arange(40) < 20, usual.oddness(new)) > 0.99


def test_images_of_the_collection_look_no_more_usual_than_new_ones():
    local, new = places(120, seed=0), places(120, seed=1)
    units = np.arange(120)
    usual = UsualTexture.learn(sampled(local, 30, np.random.default_rng(0)), np.repeat(units, 30))
    assert roc_auc_score(np.arange(240) >= 120, np.r_[usual.oddness(local), usual.oddness(new)]) > 0.95
    fair = roc_auc_score(np.arange(240) >= 120, np.r_[usual.oddness(local, units), usual.oddness(new)])
    assert abs(fair - 0.5) < 0.1


def test_textures_of_few_images():
    local = places(2, seed=0)
    for count in (1, 2):
        units = np.repeat(np.arange(count), 30)
        usual = UsualTexture.learn(sampled(local[:count], 50, np.random.default_rng(0)), units)
        assert np.isfinite(usual.oddness(local)).all() and np.isfinite(usual.oddness(local, np.arange(2))).all()
