"""What the encoder learns to ignore: random changes of an image that it has to undo."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.autoencoders import to_float

if TYPE_CHECKING:
    import torch

# Largest random change of each kind: rotation in degrees, shift as a share of the side, scale, shear.
INVARIANCES: dict[str, tuple[float, float, float, float] | None] = {
    "none": None,
    "light": (10.0, 0.07, 0.10, 0.15),
    "strong": (20.0, 0.10, 0.20, 0.30),
}
UNTOUCHED_SHARE = 0.15  # resampling blurs: without sharp images among its inputs the network rebuilds those badly


def transform(
    images: torch.Tensor, invariance: str, generator: torch.Generator, untouched: float = UNTOUCHED_SHARE
) -> torch.Tensor:
    """Rotate, shift, scale and shear each image at random; what comes in from outside is mirrored.

    Parameters
    ----------
    images : (n, c, h, w) float32
    invariance : str
        A key of ``INVARIANCES``; with ``none`` the images come back as they are.
    generator : torch.Generator
        On the CPU, so that every device draws the same.
    untouched : float
        Share of the images that stay as they are.
    """
    import torch
    from torch.nn import functional

    ranges = INVARIANCES[invariance]
    if ranges is None:
        return images
    draws = torch.rand(len(images), 5, generator=generator) * 2 - 1  # in [-1, 1]
    draws[torch.rand(len(images), generator=generator) < untouched] = 0
    degrees, shift, scale, shear = ranges
    angle = draws[:, 0] * math.radians(degrees)
    size = 1 + draws[:, 1] * scale
    slant = draws[:, 2] * shear
    cos, sin = angle.cos() * size, angle.sin() * size
    aspect = images.shape[-1] / images.shape[-2]  # grid_sample's axes run from -1 to 1 whatever the shape
    rows = [
        torch.stack([cos, (cos * slant - sin) / aspect, draws[:, 3] * shift * 2], dim=1),
        torch.stack([sin * aspect, sin * slant + cos, draws[:, 4] * shift * 2], dim=1),
    ]
    matrices = torch.stack(rows, dim=1).to(images.device)  # (n, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last)


def held_out_batches(
    held_out: NDArray[np.uint8], invariance: str, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the held-out (inputs, targets), transformed the same way every time."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(held_out), 512):
        targets = to_float(torch.from_numpy(held_out[start : start + 512]).to(device))
        yield transform(targets, invariance, generator), targets
