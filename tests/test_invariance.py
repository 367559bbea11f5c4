"""What to undo is chosen by the images."""

import numpy as np
import pytest
import torch

from aesearch.network.augmentation import choose_invariance, transform
from aesearch.network.autoencoder import to_float


def parts(count):
    """Bright bars on a noisy ground, all lying alike; (count, 1, 24, 24) uint8."""
    noise = np.random.default_rng(0).normal(60, 8, (count, 1, 24, 24))
    noise[:, :, 8:16, 4:20] += 120
    return noise.clip(0, 255).astype(np.uint8)


def test_handwriting_is_changed_strongly(digit_images):
    order = np.random.default_rng(0).permutation(len(digit_images))
    images = digit_images[order, None]
    chosen, ratios = choose_invariance(images[300:], images[:300])
    assert chosen == "strong" and 1 < ratios["light"] < ratios["strong"] < 2


def test_parts_that_always_lie_alike_are_not_changed():
    images = parts(600)
    chosen, ratios = choose_invariance(images[100:], images[:100])
    assert chosen == "none" and 2 < ratios["light"] < ratios["strong"]


@pytest.mark.parametrize("invariance", ["light", "strong"])
def test_parts_that_lie_about_are_changed_as_much_or_more(invariance):
    about = transform(to_float(torch.from_numpy(parts(2000))), invariance, torch.Generator().manual_seed(1), 0)
    images = (about * 255).contiguous().numpy().astype(np.uint8)
    assert choose_invariance(images[300:], images[:300])[0] in ("strong", invariance)


@pytest.mark.parametrize("count", [1, 30])
def test_too_few_images_to_judge_are_changed_strongly(count):
    assert choose_invariance(parts(count), parts(count)[:19]) == ("strong", {})


def test_images_all_alike_cannot_be_judged():
    images = np.full((60, 3, 8, 8), 7, np.uint8)
    assert choose_invariance(images[30:], images[:30]) == ("strong", {})


def test_copies_do_not_make_the_usual_distance_nothing():
    images = parts(600)
    single, ratios = choose_invariance(images[100:], images[:100])
    copied, again = choose_invariance(np.concatenate([images[100:], images[30:100]]), images[:100])
    assert copied == single == "none"
    assert again == pytest.approx(ratios, rel=0.3)
