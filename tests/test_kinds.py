"""Whether a collection is of clear kinds: digits are, pieces of photographs and textures are not."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_sample_image

from aesearch.anomalies.kinds import FEWEST_OTHERS, are_of_kinds
from aesearch.anomalies.shapes import measure_shapes
from aesearch.baselines import principal_components
from aesearch.images.numbers import raw_pixels


def described(images, known):
    """Principal components of pixels, and shapes, of those to compare with and of the others."""
    raw, shapes = raw_pixels(images), measure_shapes(images)
    return [*zip(principal_components(raw[:known], raw[known:], 30), (shapes[:known], shapes[known:]), strict=True)]


@pytest.fixture(scope="module")
def larger_digits():
    images, labels = load_digits(return_X_y=True)
    return np.kron(images.reshape(-1, 1, 8, 8) * 15.9, np.ones((1, 1, 3, 3))).astype(np.uint8), labels


def test_digits_are_of_kinds(larger_digits):
    images, _ = larger_digits
    assert are_of_kinds(*described(images, 1500))


def test_pieces_of_a_photograph_are_not():
    town, draw = load_sample_image("china.jpg").mean(axis=2).astype(np.uint8), np.random.default_rng(0)
    places = draw.integers((0, 0), (403, 616), (800, 2))
    pieces = np.stack([town[None, y : y + 24, x : x + 24] for y, x in places])
    assert not are_of_kinds(*described(pieces, 600))


def test_textures_are_not_and_few_images_tell_nothing(larger_digits):
    textures = np.random.default_rng(0).integers(0, 255, (700, 1, 24, 24), dtype=np.uint8)
    assert not are_of_kinds(*described(textures, 500))
    known, new = described(larger_digits[0], 1500)
    assert not are_of_kinds(known, tuple(part[: FEWEST_OTHERS - 1] for part in new))
