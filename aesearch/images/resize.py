"""Whole batches of images made smaller, smoothly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


def shrunk(images: NDArray[np.uint8], longest: int) -> NDArray[np.uint8]:
    """Images (n, channels, height, width) whose longer side has so many pixels at most; small ones as they are."""
    import torch

    if max(images.shape[2:]) <= longest:
        return images
    parts = (torch.from_numpy(images[start : start + 64]) / 255 for start in range(0, len(images), 64))
    return np.concatenate([(reduced(part, longest) * 255).round().to(torch.uint8).numpy() for part in parts])


def reduced(images: torch.Tensor, longest: int) -> torch.Tensor:
    """Images (n, channels, height, width), floats, whose longer side gets so many pixels, averaged."""
    height, width = (max(1, round(side * longest / max(images.shape[2:]))) for side in images.shape[2:])
    return _at_size(images, height, width)


def resized(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Images (n, channels, height, width) at another size, averaged where that is smaller."""
    import torch

    if images.shape[2:] == (height, width):
        return images
    return _at_size(torch.from_numpy(images).float(), height, width).round().to(torch.uint8).numpy()


def _at_size(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    from torch.nn import functional

    return functional.interpolate(images, (height, width), mode="bilinear", antialias=True, align_corners=False)
