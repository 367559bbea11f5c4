"""Shapes: gradients by field and direction."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from aesearch.anomalies.shapes import DIRECTIONS, FIELDS, measure_shapes
from aesearch.images.numbers import raw_pixels
from aesearch.images.resize import resized, shrunk
from aesearch.vectors.distances import exact_neighbours


@pytest.mark.parametrize("shape", [(28, 28), (8, 8), (1, 1), (3, 200), (300, 40)])
def test_any_size_has_as_many_numbers_of_length_one_or_none(shape):
    images = np.random.default_rng(0).integers(0, 255, (5, 3, *shape), dtype=np.uint8)
    images[0] = 128
    found = measure_shapes(images)
    assert found.shape == (5, DIRECTIONS * FIELDS**2) and found.dtype == np.float32
    assert not found[0].any()
    assert shape == (1, 1) or np.allclose(np.linalg.norm(found[1:], axis=1), 1, atol=1e-3)


def test_an_edge_is_where_and_as_it_is():
    """Bright on the right: gradients point to the right, in the column of fields in the middle."""
    image = np.zeros((1, 1, 28, 28), np.uint8)
    image[..., 14:] = 200
    right, up_side_down, left = (measure_shapes(one)[0] for one in (image, image[:, :, ::-1], 255 - image))
    by_field = right.reshape(DIRECTIONS, FIELDS, FIELDS)
    assert by_field.sum(axis=(1, 2)).argmax() == 0 and by_field[1:].max() < 1e-3
    assert by_field[0].sum(axis=0).argmax() == FIELDS // 2
    assert (
        np.allclose(right, up_side_down) and left.reshape(by_field.shape).sum(axis=(1, 2)).argmax() == DIRECTIONS // 2
    )
    assert np.allclose(right, measure_shapes(image // 2)[0], atol=1e-3)  # light changes nothing


def test_one_digit_is_told_from_others_better_than_by_pixels():
    images, labels = load_digits(return_X_y=True)
    images = np.kron((images.reshape(-1, 1, 8, 8) * 15.9), np.ones((1, 1, 3, 3))).astype(np.uint8)
    eights = np.flatnonzero(labels == 8)
    judged = np.setdiff1d(np.arange(len(labels)), eights[:100])

    def auroc(numbers):
        far = exact_neighbours(numbers[eights[:100]], numbers[judged], 5, "l2")[1].mean(axis=1)
        return roc_auc_score(labels[judged] != 8, far)

    assert auroc(measure_shapes(images)) > max(0.97, auroc(raw_pixels(images)))


def test_images_are_made_smaller_in_one_way():
    images = np.random.default_rng(0).integers(0, 255, (3, 3, 60, 40), dtype=np.uint8)
    assert np.abs(resized(images, 30, 20).astype(int) - shrunk(images, 30)).max() <= 1
    assert resized(images, 60, 40) is images and resized(images, 61, 7).shape == (3, 3, 61, 7)
