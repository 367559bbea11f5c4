"""Maps against masks, and what finds faults without training anything."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from aesearch.anomalies.localisation import at_size, pixel_auroc, region_overlap
from aesearch.anomalies.patch_bank import PatchBank


def test_a_map_that_is_the_mask_is_perfect_and_chance_is_chance():
    generator = np.random.default_rng(0)
    masks = [np.zeros((20, 30), bool) for _ in range(4)]
    masks[1][3:6, 4:9] = masks[1][15, 20] = masks[3][0, :5] = True
    perfect = [mask.astype(np.float32) for mask in masks]
    assert pixel_auroc(perfect, masks) == 1 and region_overlap(perfect, masks) > 0.99
    noise = [generator.random((200, 300)).astype(np.float32) for _ in masks]
    large = [mask.repeat(10, 0).repeat(10, 1) for mask in masks]
    assert pixel_auroc(noise, large) == pytest.approx(0.5, abs=0.02)
    assert region_overlap(noise, large) == pytest.approx(0.15, abs=0.03)  # as much of each as of what is sound
    assert np.isnan(region_overlap(perfect[:1], masks[:1])) and np.isnan(pixel_auroc(perfect[:1], masks[:1]))


def test_each_region_counts_alike_whatever_its_size():
    """A large fault is marked, a small one is not: nearly all pixels are found, and half of the regions."""
    mask = np.zeros((100, 100), bool)
    mask[10:60, 10:60] = mask[90:92, 90:92] = True
    heat = np.where(mask, 1, 0).astype(np.float32) + np.random.default_rng(0).random((100, 100), np.float32) / 10
    heat[90:92, 90:92] = -1
    assert pixel_auroc([heat], [mask]) > 0.99
    assert region_overlap([heat], [mask]) == pytest.approx(0.5, abs=0.01)


def test_a_map_is_brought_to_the_size_of_its_mask():
    heat = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert at_size(heat, (30, 40)).shape == (30, 40) and at_size(heat, (3, 4)) == pytest.approx(heat)


def test_a_patch_bank_finds_a_foreign_patch_and_where_it_is():
    generator = np.random.default_rng(0)
    light = np.linspace(60, 180, 64)[None, None, None] * generator.uniform(0.7, 1, (90, 1, 1, 1))
    images = np.clip(light + generator.normal(0, 6, (90, 1, 64, 64)), 0, 255).astype(np.uint8)
    images[70:, :, 20:30, 40:50] = generator.integers(0, 2, (20, 1, 10, 10), dtype=np.uint8) * 120 + 40
    bank = PatchBank.learn(images[:50])
    maps = bank.maps(images[50:])
    assert maps.shape == (40, 15, 15) and len(bank.bank) == 10_000
    assert roc_auc_score(np.arange(40) >= 20, bank.scores(maps)) == 1
    assert {tuple(np.array(np.unravel_index(one.argmax(), one.shape)) // 3) for one in maps[20:]} <= {
        (1, 3),
        (2, 3),
        (1, 2),
        (2, 2),
    }
