"""Faults planted in normal images, and where they lie: a network learns from them to find real ones.

Scratches, blots and patches of other images, as in Li et al. 2021 ("CutPaste: self-supervised learning for anomaly
detection and localization") and Schlüter et al. 2022 ("Natural synthetic anomalies for self-supervised anomaly
detection and localization").
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SECOND = 0.3  # share of images that get a second fault
FROM_OTHERS = 0.5  # share of faults that are patches of other images
VISIBLE, INSIDE = 0.03, 0.2  # change of a pixel, and weight of the fault there, that make it part of the fault
LIGHT = 0.1  # deviation of the contrast that images are given, as their logarithm; of the brightness a third of it
SIZES_OF_BLOTS, SIZES_OF_PATCHES = (0.015, 0.3), (0.06, 0.35)  # of the longer side
CONTRASTS = (0.06, 0.6)  # of the [0, 1] scale


def plant_faults(images: NDArray[np.uint8], draw: np.random.Generator) -> tuple[Floats, Mask]:
    """Give images one fault or two, other light, and mirror them.

    Parameters
    ----------
    images : (n, channels, height, width) uint8
        Normal ones; patches are taken from one and put into another.

    Returns
    -------
    (n, channels, height, width) float32 in [0, 1], (n, height, width) bool
        The changed images, and which pixels are part of a fault.
    """
    changed = np.empty(images.shape, np.float32)
    masks = np.zeros((len(images), *images.shape[2:]), dtype=bool)
    for number, pixels in enumerate(images):
        image = _in_other_light(_mirrored(pixels, draw), draw)
        for _ in range(1 + (draw.random() < SECOND)):
            image, mask = _with_fault(image, images, draw)
            masks[number] |= mask
        changed[number] = image
    return changed, masks


def _mirrored(pixels: NDArray[np.uint8], draw: np.random.Generator) -> Floats:
    down, across = draw.choice([-1, 1], 2)
    return np.asarray(pixels[:, ::down, ::across] / np.float32(255), np.float32)


def _in_other_light(image: Floats, draw: np.random.Generator) -> Floats:
    mean = image.mean()
    light = (image - mean) * math.exp(draw.normal(0, LIGHT)) + mean + draw.normal(0, LIGHT / 3)
    return np.clip(light, 0, 1).astype(np.float32)


def _with_fault(image: Floats, images: NDArray[np.uint8], draw: np.random.Generator) -> tuple[Floats, Mask]:
    from scipy import ndimage

    shape = image.shape[1:]
    of_another = draw.random() < FROM_OTHERS
    if of_another:
        weight = _blot(shape, draw, SIZES_OF_PATCHES)
        new = _patch(image, weight, images, draw)
    else:
        weight = (
            _scratch(image.shape[1:], draw) if draw.random() < 0.5 else _blot(image.shape[1:], draw, SIZES_OF_BLOTS)
        )
        new = _of_other_brightness(image, weight, draw)
    faulty = np.clip(image * (1 - weight) + weight * new, 0, 1).astype(np.float32)
    visible = np.abs(faulty - image).max(axis=0) > VISIBLE
    if of_another:
        visible = ndimage.binary_closing(visible, iterations=2)  # where both are alike by chance
    return faulty, visible & (weight > INSIDE)


def _of_other_brightness(image: Floats, weight: Floats, draw: np.random.Generator) -> Floats:
    """Darker or brighter than what was there; some or all of its texture stays, or none."""
    there = image[:, weight > 0.3] if (weight > 0.3).any() else image.reshape(len(image), -1)
    level = there.mean(axis=1)[:, None, None]
    change = draw.choice([-1, 1]) * math.exp(draw.uniform(*np.log(CONTRASTS)))
    new = level + change * (draw.uniform(0.3, 1, level.shape) if draw.random() < 0.5 else 1)
    new = np.where((new >= 0) & (new <= 1), new, np.clip(2 * level - new, 0, 1))  # where it cannot be brighter, darker
    return np.asarray(new + (image - level) * draw.choice([0, 0, 0.5, 1]), np.float32)


def _patch(image: Floats, weight: Floats, images: NDArray[np.uint8], draw: np.random.Generator) -> Floats:
    """Another image in place of this one: shifted, perhaps turned, enlarged, inverted or of other contrast."""
    other = images[draw.integers(len(images))] / np.float32(255)
    height, width = image.shape[1:]
    if draw.random() < 0.5 and height == width:
        other = np.rot90(other, int(draw.integers(4)), (1, 2))
    other = np.roll(other[:, :: draw.choice([-1, 1])], (draw.integers(height), draw.integers(width)), (1, 2))
    kind = draw.random()
    if kind < 0.25:
        zoom = math.exp(draw.uniform(-0.7, 0.7))
        rows, columns = ((np.arange(side) * zoom).astype(int) % side for side in (height, width))
        other = other[:, rows[:, None], columns]
    elif kind < 0.4:
        other = 1 - other
    elif kind < 0.5:
        other = other.mean() + (other - other.mean()) * math.exp(draw.normal(0, 0.7))
    inside = weight > 0.5
    if draw.random() < 0.5 and inside.any():  # of the brightness of what was there, more or less
        other = other + (image[:, inside].mean() - other[:, inside].mean()) * draw.random()
    return np.asarray(other, np.float32)


def _scratch(shape: tuple[int, ...], draw: np.random.Generator) -> Floats:
    """Weight of a thin line of some bends, sharp or soft: (height, width) float32 in [0, 1]."""
    from scipy import ndimage

    height, width = shape
    length, angle = draw.uniform(0.05, 0.7) * max(shape), draw.uniform(0, math.pi)
    along = np.linspace(-0.5, 0.5, draw.integers(2, 6)) * length
    bends = draw.normal(0, 1, (2, len(along))) * draw.choice([0, 0.02, 0.08]) * length
    across = draw.uniform(0, width) + along * math.cos(angle) + bends[0]
    down = draw.uniform(0, height) + along * math.sin(angle) + bends[1]
    canvas = Image.new("L", (width, height))
    points = list(zip(across.tolist(), down.tolist(), strict=True))
    ImageDraw.Draw(canvas).line(points, fill=255, width=int(draw.choice([1, 1, 1, 2, 3])))
    line = np.asarray(canvas) / np.float32(255)
    if draw.random() < 0.5:
        line = ndimage.gaussian_filter(line, draw.uniform(0.3, 1))
        line = line / max(float(line.max()), 1e-6)
    return np.asarray(line, np.float32)


def _blot(shape: tuple[int, ...], draw: np.random.Generator, sizes: tuple[float, float]) -> Floats:
    """Weight of a spot, round, long, ragged or with corners, sharp or soft: (height, width) float32 in [0, 1]."""
    height, width = shape
    radius = max(1.0, math.exp(draw.uniform(*np.log(sizes))) * max(shape) / 2)
    long, angle = math.exp(draw.normal(0, 0.4)), draw.uniform(0, math.pi)
    reach = int(2.5 * radius * max(long, 1 / long) + 3)
    middle = draw.uniform(0, height), draw.uniform(0, width)
    top, left = (max(0, int(place) - reach) for place in middle)
    part = np.s_[top : int(middle[0]) + reach + 1, left : int(middle[1]) + reach + 1]
    weight = np.zeros((height, width), np.float32)
    y, x = np.indices(weight[part].shape)
    down, right = y + top - middle[0], x + left - middle[1]
    along = right * math.cos(angle) + down * math.sin(angle)
    across = down * math.cos(angle) - right * math.sin(angle)
    if draw.random() < 0.3:
        distance = np.maximum(np.abs(along) / long, np.abs(across) * long)
    else:
        distance = np.hypot(along / long, across * long)
    around = np.arctan2(across, along)
    waves = [draw.normal(0, 0.15) * np.sin(k * around + draw.uniform(0, 2 * math.pi)) for k in range(1, 5)]
    edge = draw.choice([0.5, 1, 0.25 * radius + 0.5])
    weight[part] = np.clip((radius * (1 + sum(waves)) - distance) / edge + 0.5, 0, 1)
    return weight
