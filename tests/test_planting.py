"""Planted faults, and the network that learns from them to find others."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from aesearch.anomalies.finder import LARGEST, SHARES, FaultFinder, most_faulty
from aesearch.anomalies.planting import plant_faults
from aesearch.images.decode import Preprocessing, larger_side
from aesearch.network.autoencoder import pick_device


def textures(count: int, side: int = 64, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Brushed metal: (count, channels, side, side) uint8."""
    generator = np.random.default_rng(seed)
    fine = generator.normal(0, 12, (count, channels, side, side)) + generator.normal(0, 12, (count, channels, side, 1))
    light = np.linspace(-1, 1, side)[None, None, None] * generator.normal(0, 20, (count, 1, 1, 1))
    return np.clip(128 + light + fine, 0, 255).astype(np.uint8)


def scratched(images: np.ndarray, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Each with one thin line, drawn in another way than those learned from; and where it is."""
    generator = np.random.default_rng(seed)
    changed, masks = images.copy(), np.zeros((len(images), *images.shape[2:]), bool)
    for image, mask in zip(changed, masks, strict=True):
        canvas = Image.new("1", mask.shape[::-1])
        ImageDraw.Draw(canvas).line((generator.uniform(0.1, 0.9, 4) * len(mask)).tolist(), fill=1)
        mask |= np.asarray(canvas)
        image[:, mask] = 240
    return changed, masks


@pytest.mark.parametrize(("height", "width", "channels"), [(48, 48, 1), (40, 24, 3), (8, 8, 1), (3, 2, 1)])
def test_planted_faults_lie_where_the_mask_says(height, width, channels):
    images = np.full((60, channels, height, width), 128, np.uint8)
    images[30:] = np.random.default_rng(0).integers(0, 255, images[30:].shape)
    changed, masks = plant_faults(images, np.random.default_rng(0))
    assert changed.shape == images.shape and changed.dtype == np.float32
    assert changed.min() >= 0 and changed.max() <= 1
    assert masks.shape == (60, height, width) and masks.any(axis=(1, 2)).mean() > 0.2
    for image, mask in zip(changed, masks, strict=True):
        if not mask.any() and len(np.unique(image)) <= 1:  # other light, and nothing else
            assert np.ptp(image) == 0


def test_the_same_seed_plants_the_same_faults():
    images = textures(20)
    first, second = (plant_faults(images, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])


def test_images_are_read_for_the_finder_as_large_as_they_are_up_to_a_bound():
    usual = Preprocessing(64, 48, 3, paper=7)
    assert larger_side(usual, (100, 80), LARGEST) == Preprocessing(100, 80, 3, paper=7)
    assert larger_side(usual, (1024, 512), LARGEST).shape == (3, 256, 128)
    assert larger_side(usual, (5000, 3), LARGEST).shape == (3, 256, 1)


@pytest.fixture(scope="module")
def finder() -> FaultFinder:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("aesearch.anomalies.finder.MOST_STEPS", 250)
        return FaultFinder.learn(textures(150), Preprocessing(64, 64, 1), pick_device("cpu"))


def test_it_finds_scratches_that_it_has_never_seen_and_where_they_are(finder):
    sound = textures(40, seed=5)
    faulty, masks = scratched(textures(40, seed=6))
    seen = list(finder.look(np.concatenate([sound, faulty])))
    maps = np.concatenate([some.marks for some in seen])
    assert [one.shape[1:] for one in seen[0].numbers] == [(160,)] and maps.shape == (80, 32, 32)
    assert seen[0].local[0].shape[1:] == (128, 16, 16)
    assert roc_auc_score(np.arange(80) >= 40, maps.max(axis=(1, 2))) > 0.95
    places = masks.reshape(40, 32, 2, 32, 2).any(axis=(2, 4))
    assert roc_auc_score(places.ravel(), maps[40:].ravel()) > 0.95


def test_it_is_kept_as_arrays_and_sees_one_image_as_among_many(finder):
    images = textures(5, seed=7)
    again = FaultFinder(finder.preprocessing, finder.weights, pick_device("cpu"))
    (many,) = finder.look(images)
    (one,) = again.look(images[2:3])
    assert np.allclose(one.numbers[0], many.numbers[0][2:3], atol=1e-4)
    assert np.allclose(one.marks, many.marks[2:3], atol=1e-3)
    assert np.allclose(one.local[0], many.local[0][2:3], atol=1e-3)


def test_its_map_is_of_the_scales_that_tell_faults_best(finder):
    """Fine scratches are seen in detail; as a whole, noise that is reduced with them is all that is left."""
    sound = textures(30, 160, seed=8)
    faulty = scratched(textures(30, 160, seed=9))[0]
    large = FaultFinder(Preprocessing(160, 160, 1), finder.weights, pick_device("cpu"))

    def auroc(one):
        return roc_auc_score(np.arange(60) >= 30, most_faulty(one.maps(np.concatenate([sound, faulty]))))

    settled = large.settle(sound, faulty)
    found = {
        share: auroc(FaultFinder(large.preprocessing, large.weights, pick_device("cpu"), share)) for share in SHARES
    }
    assert found[settled.detailed] == auroc(settled) == max(found.values())
    assert finder.settle(textures(4), textures(4)) is finder  # small images have one scale
