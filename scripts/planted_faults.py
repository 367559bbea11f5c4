"""Faults planted in sound images at their own size, with masks: a scratch, a blot, a foreign patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

KINDS = ("scratch", "blot", "foreign patch")
BLOT = 0.03  # diameter, share of the longer side
LEAST_CHANGE = 40  # grey levels of a scratch, where white or black are near


@dataclass(frozen=True, eq=False)
class Faulty:
    """Images with one fault each: (n, height, width[, 3]) uint8, masks (n, height, width) bool, and its kind."""

    images: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    kinds: NDArray[np.str_]


def plant(images: NDArray[np.uint8], foreign: NDArray[np.uint8], draw: np.random.Generator) -> Faulty:
    """Give each a fault, the kinds by turns; patches come from ``foreign`` images of as many channels."""
    found = []
    for number, image in enumerate(images):
        kind = KINDS[number % len(KINDS)]
        if kind == "foreign patch":
            found.append((*_foreign_patch(image, foreign[draw.integers(len(foreign))], draw), kind))
        else:
            found.append((*(_scratch if kind == "scratch" else _blot)(image, draw), kind))
    changed, masks, kinds = zip(*found, strict=True)
    return Faulty(np.stack(changed), np.stack(masks), np.array(kinds))


def _scratch(image: NDArray[np.uint8], draw: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """One pixel wide, 15 to 40 % of the side long, slightly bent, 60 to 110 grey levels brighter or darker."""
    height, width = image.shape[:2]
    length, angle = draw.uniform(0.15, 0.4) * max(height, width), draw.uniform(0, np.pi)
    along = length * np.linspace(-0.5, 0.5, 4)
    across = draw.uniform(0.2, 0.8) * width + along * np.cos(angle) + draw.normal(0, 0.02 * length, 4)
    down = draw.uniform(0.2, 0.8) * height + along * np.sin(angle) + draw.normal(0, 0.02 * length, 4)
    canvas = Image.new("L", (width, height))
    ImageDraw.Draw(canvas).line(list(zip(across.tolist(), down.tolist(), strict=True)), fill=255, width=1)
    mask = np.asarray(canvas) > 0
    level = image[mask].mean() if mask.any() else 128.0
    to = np.clip(level + draw.choice([-1, 1]) * draw.uniform(60, 110), 0, 255)
    if abs(to - level) < LEAST_CHANGE:
        to = 255 - to
    changed = image.copy()
    changed[mask] = round(float(to))
    return changed, mask


def _blot(image: NDArray[np.uint8], draw: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A ragged spot of 3 % of the longer side, 50 to 100 grey levels darker, or brighter on dark ground."""
    height, width = image.shape[:2]
    radius = BLOT * max(height, width) / 2
    y, x = np.mgrid[:height, :width]
    y, x = y - draw.uniform(0.1, 0.9) * height, x - draw.uniform(0.1, 0.9) * width
    edge = radius * (1 + 0.25 * np.sin(3 * np.arctan2(y, x) + draw.uniform(0, 2 * np.pi)))
    distance = np.hypot(x, y)
    mask = distance <= np.maximum(edge, 0.8)
    level = image[mask].mean()
    to = level - draw.uniform(50, 100) if level > 120 else level + draw.uniform(50, 100)
    weight = np.clip(1.5 - (distance - edge), 0, 1).reshape(height, width, *[1] * (image.ndim - 2))
    return np.clip(np.rint(image * (1 - weight) + to * weight), 0, 255).astype(np.uint8), mask


def _foreign_patch(
    image: NDArray[np.uint8], other: NDArray[np.uint8], draw: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A square of 8 to 16 % of the longer side."""
    height, width = image.shape[:2]
    side = max(3, round(draw.uniform(0.08, 0.16) * max(height, width)))
    top, left = draw.integers(0, height - side), draw.integers(0, width - side)
    its_top, its_left = draw.integers(0, other.shape[0] - side), draw.integers(0, other.shape[1] - side)
    changed, mask = image.copy(), np.zeros((height, width), dtype=bool)
    changed[top : top + side, left : left + side] = other[its_top : its_top + side, its_left : its_left + side]
    mask[top : top + side, left : left + side] = True
    return changed, mask
