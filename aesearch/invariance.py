"""What the encoder learns to ignore: random changes of an image that it has to undo."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.autoencoders import to_float
from aesearch.distances import exact_neighbours

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Changes:
    """Largest random change of each kind.

    Attributes
    ----------
    rotation : float
        Degrees.
    shift, bend : float
        Shares of the side; of ``bend``, how far each of 4×4 points moves, one standard deviation.
    scale, shear : float
    swell : float
        Share of the side by which what is bright grows, or shrinks.
    """

    rotation: float
    shift: float
    scale: float
    shear: float
    bend: float
    swell: float


INVARIANCES: dict[str, Changes | None] = {
    "none": None,
    "light": Changes(10.0, 0.07, 0.10, 0.15, 0.025, 0.0125),
    "strong": Changes(20.0, 0.10, 0.20, 0.30, 0.05, 0.025),
}
BENT_AT = 4  # points a side that move on their own
FARTHEST = 2.0  # times the usual distance from the collection that changed images may have
COPY = 1e-4  # of the largest distance: nearer images are the same
COMPONENTS, JUDGED_ON, FEWEST_JUDGED = 32, 1000, 20
JUDGED_NUMBERS = 25_000_000  # pixels of the sample at most
UNTOUCHED_SHARE = 0.15  # resampling blurs: without sharp images among its inputs the network rebuilds those badly


def transform(
    images: torch.Tensor, invariance: str, generator: torch.Generator, untouched: float = UNTOUCHED_SHARE
) -> torch.Tensor:
    """Rotate, shift, scale, shear and bend each image at random; what comes in from outside is mirrored.

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

    most = INVARIANCES[invariance]
    if most is None:
        return images
    n, (height, width) = len(images), images.shape[-2:]
    still = torch.rand(n, generator=generator) < untouched
    draws = torch.rand(n, 5, generator=generator) * 2 - 1  # in [-1, 1]
    draws[still] = 0
    angle = draws[:, 0] * math.radians(most.rotation)
    size = 1 + draws[:, 1] * most.scale
    slant = draws[:, 2] * most.shear
    cos, sin = angle.cos() * size, angle.sin() * size
    aspect = width / height  # grid_sample's axes run from -1 to 1 whatever the shape
    rows = [
        torch.stack([cos, (cos * slant - sin) / aspect, draws[:, 3] * most.shift * 2], dim=1),
        torch.stack([sin * aspect, sin * slant + cos, draws[:, 4] * most.shift * 2], dim=1),
    ]
    matrices = torch.stack(rows, dim=1).to(images.device)  # (n, 2, 3)
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    points = torch.randn(n, 2, BENT_AT**2, generator=generator) * most.bend * 2
    points[still] = 0
    bending = points.to(images.device) @ _smooth(height, width).to(images.device)  # (n, 2, h·w)
    grid = grid + bending.view(n, 2, height, width).permute(0, 2, 3, 1)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    swell = most.swell * max(height, width) * (torch.rand(n, 1, 1, 1, generator=generator) * 2 - 1)
    swell[still] = 0
    moved = _swollen(moved, swell.to(images.device), math.ceil(most.swell * max(height, width)))
    return moved.contiguous(memory_format=torch.channels_last)


def _swollen(images: torch.Tensor, pixels: torch.Tensor, radius: int) -> torch.Tensor:
    """Let what is bright grow by so many pixels, (n, 1, 1, 1), or shrink: part of the way to the largest around."""
    if not radius:
        return images
    larger = _largest(images, radius) - images
    smaller = images + _largest(-images, radius)
    return images + (pixels.clamp(min=0) * larger + pixels.clamp(max=0) * smaller) / radius


def _largest(images: torch.Tensor, radius: int) -> torch.Tensor:
    """Largest of the (2 · radius + 1)² pixels around each; max pooling does the same, on a CPU far slower."""
    import torch
    from torch.nn import functional

    size = 2 * radius + 1
    largest = functional.pad(images, (radius,) * 4, mode="replicate")
    for axis in (2, 3):
        kept = largest.shape[axis] - size + 1
        largest = functools.reduce(torch.maximum, (largest.narrow(axis, k, kept) for k in range(size)))
    return largest


def choose_invariance(sample: NDArray[np.uint8], held_out: NDArray[np.uint8]) -> tuple[str, dict[str, float]]:
    """The strongest changes that leave images where the collection has others; no label is looked at.

    Where a change takes an image far from all others, the collection shows that this does not happen to its
    images (parts that always lie the same way, say), and a network that ignored it would miss it where it does.

    Parameters
    ----------
    sample, held_out : (n, c, h, w) uint8
        Images of the collection, and others of it that are changed; distances are between 32 principal components.

    Returns
    -------
    str
        A key of ``INVARIANCES``; ``strong`` where fewer than 20 images that are no copies tell nothing.
    dict
        For each kind of change the median distance of changed images to their nearest one, over that of unchanged ones.
    """
    import torch
    from sklearn.decomposition import PCA

    most = max(COMPONENTS, JUDGED_NUMBERS // sample[0].size)
    sample, held_out = sample[:most], held_out[: min(most, JUDGED_ON)]
    if min(len(sample), len(held_out)) < FEWEST_JUDGED or (sample == sample[0]).all():
        return "strong", {}
    flat = to_float(torch.from_numpy(sample)).flatten(1).numpy()
    pca = PCA(min(COMPONENTS, *flat.shape), svd_solver="randomized", random_state=0).fit(flat)
    base = pca.transform(flat).astype(np.float32)

    def distances(invariance: str) -> NDArray[np.float32]:
        changed = transform(
            to_float(torch.from_numpy(held_out)), invariance, torch.Generator().manual_seed(0), untouched=0
        )
        placed = pca.transform(changed.flatten(1).numpy()).astype(np.float32)
        return exact_neighbours(base, placed, 1, "l2")[1][:, 0]

    unchanged = distances("none")
    single = unchanged > COPY * unchanged.max()  # a copy of another image does not tell how far others usually are
    if single.sum() < FEWEST_JUDGED:
        return "strong", {}
    usual = float(np.median(unchanged[single]))
    ratios = {name: float(np.median(distances(name)[single])) / usual for name in INVARIANCES if name != "none"}
    chosen = "none"
    for name, ratio in ratios.items():
        if ratio <= FARTHEST:
            chosen = name
    return chosen, ratios


@functools.lru_cache(maxsize=4)
def _smooth(height: int, width: int) -> torch.Tensor:
    """(16, h·w): how far each pixel moves with each of 4×4 points, bicubic in between."""
    import torch
    from torch.nn import functional

    points = torch.eye(BENT_AT**2).view(-1, 1, BENT_AT, BENT_AT)
    return functional.interpolate(points, size=(height, width), mode="bicubic", align_corners=False).flatten(1)


def held_out_batches(
    held_out: NDArray[np.uint8], invariance: str, size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the held-out (inputs, targets), ``size`` at a time, transformed the same way every time."""
    import torch

    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(held_out), size):
        targets = to_float(torch.from_numpy(held_out[start : start + size]).to(device))
        yield transform(targets, invariance, generator), targets
