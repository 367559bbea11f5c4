"""What the encoder learns to ignore: random changes of an image that it has to undo."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.images.orientation import ORIENTATIONS
from aesearch.network.autoencoder import to_float
from aesearch.vectors.distances import exact_neighbours

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Changes:
    """Largest random change of each kind.

    Attributes
    ----------
    rotation : float
        Degrees.
    shift, elastic : float
        Shares of the side; of ``elastic``, how far each of 4×4 points moves, one standard deviation.
    scale, shear : float
    dilate : float
        Share of the side by which what is bright grows, or shrinks.
    crop : float
        Share of the area that is left, at least; the rest is cut off.
    light : float
        Of brightness and contrast, in factors of e.
    colour : float
        How much of the other channels goes into each, one standard deviation.
    grey, blur : float
        Shares of the images that lose their colour, that are blurred.
    noise : float
        Of [0, 1].
    """

    rotation: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    elastic: float = 0.0
    dilate: float = 0.0
    crop: float = 1.0
    light: float = 0.0
    colour: float = 0.0
    grey: float = 0.0
    blur: float = 0.0
    noise: float = 0.0


INVARIANCES: dict[str, Changes | None] = {
    "none": None,
    "light": Changes(10.0, 0.07, 0.10, 0.15, 0.025, 0.0125),
    "strong": Changes(20.0, 0.10, 0.20, 0.30, 0.05, 0.025),
    "drawn": Changes(15.0, 0.05, 0.10, 0.15, 0.03, crop=0.7, light=0.4, blur=0.5, noise=0.03),
    "pictures": Changes(crop=0.3, light=0.4, colour=0.15, grey=0.2, blur=0.5, noise=0.03),
}
DRAWN = ("light", "strong")  # of what is drawn on a ground, from the least to the most
LONGEST_CROP = 4 / 3  # of its sides, where the image is square
COLOURS, LEAST_SUM = 3, 0.3  # channels; that a mix of them keeps
BENT_AT = 4  # points a side that move on their own
FARTHEST = 2.0  # times the usual distance from the collection that changed images may have
COPY = 1e-4  # of the largest distance: nearer images are the same
COMPONENTS, JUDGED_ON, FEWEST_JUDGED = 32, 1000, 20
JUDGED_NUMBERS = 25_000_000  # pixels of the sample at most
GROUND_IMAGES, GROUND_LEVELS = 1000, 3  # looked at for a common ground, and how far it may vary, of 255
GROUND_SHARE = 0.35  # of all pixels: digits .48, MNIST .82, pen strokes .88; photographs .05 to .2
UNTOUCHED_SHARE = 0.15  # resampling blurs: without sharp images among its inputs the network rebuilds those badly


def transform(
    images: torch.Tensor,
    invariance: str,
    generator: torch.Generator,
    untouched: float = UNTOUCHED_SHARE,
    orientations: Sequence[str] = (),
    side: float = 1.0,
) -> torch.Tensor:
    """Change each image at random, in place and shape and, with ``pictures``, in light and colour.

    What comes in from outside is mirrored.

    Parameters
    ----------
    images : (n, c, h, w) float32
    invariance : str
        A key of ``INVARIANCES``; with ``none`` the images come back as they are.
    generator : torch.Generator
        On the CPU, so that every device draws the same.
    untouched : float
        Share of the images that stay as they are, but for their size.
    orientations : sequence of str
        Keys of ``aesearch.images.orientation.ORIENTATIONS`` that are as good as upright.
    side : float
        Sides of what is given back, as a share of the images', rounded; not with ``none``.

    Returns
    -------
    (n, c, h · side, w · side) float32
    """
    import torch
    from torch.nn import functional

    most = INVARIANCES[invariance]
    if most is None:
        return images
    n, (height, width) = len(images), (max(1, round(length * side)) for length in images.shape[-2:])
    still = torch.rand(n, generator=generator) < untouched
    matrices = _placing(n, height, width, most, generator, still)
    if orientations:
        matrices = _turning(n, orientations, generator, still) @ matrices
    grid = functional.affine_grid(matrices.to(images.device), [*images.shape[:2], height, width], align_corners=False)
    if most.elastic:
        points = torch.randn(n, 2, BENT_AT**2, generator=generator) * most.elastic * 2
        points[still] = 0
        bending = points.to(images.device) @ _smooth(height, width).to(images.device)  # (n, 2, h·w)
        grid = grid + bending.view(n, 2, height, width).permute(0, 2, 3, 1)
    moved = functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    if most.dilate:
        dilate = most.dilate * max(height, width) * (torch.rand(n, 1, 1, 1, generator=generator) * 2 - 1)
        dilate[still] = 0
        moved = _dilated(moved, dilate.to(images.device), math.ceil(most.dilate * max(height, width)))
    if most.light:
        moved = _relit(moved, most, generator, still)
    return moved.contiguous(memory_format=torch.channels_last)


def _placing(
    n: int, height: int, width: int, most: Changes, generator: torch.Generator, still: torch.Tensor
) -> torch.Tensor:
    """(n, 2, 3): where in its image each place of a changed one is looked up, on axes from -1 to 1."""
    import torch

    draws = torch.rand(n, 5, generator=generator) * 2 - 1  # in [-1, 1]
    draws[still] = 0
    angle = draws[:, 0] * math.radians(most.rotation)
    size = 1 + draws[:, 1] * most.scale
    slant = draws[:, 2] * most.shear
    cos, sin = angle.cos() * size, angle.sin() * size
    aspect = width / height  # the axes run from -1 to 1 whatever the shape
    rows = [
        torch.stack([cos, (cos * slant - sin) / aspect, draws[:, 3] * most.shift * 2], dim=1),
        torch.stack([sin * aspect, sin * slant + cos, draws[:, 4] * most.shift * 2], dim=1),
    ]
    matrices = torch.stack(rows, dim=1)
    if most.crop < 1:
        left = most.crop + (1 - most.crop) * torch.rand(n, generator=generator)
        longer = torch.exp((torch.rand(n, generator=generator) - 0.5) * math.log(LONGEST_CROP))
        sides = torch.stack([left.sqrt() * longer, left.sqrt() / longer], dim=1).clamp(max=1)  # (n, 2)
        middle = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - sides)
        sides[still], middle[still] = 1, 0
        matrices = sides[:, :, None] * matrices
        matrices[:, :, 2] += middle
    return matrices


def _turning(n: int, orientations: Sequence[str], generator: torch.Generator, still: torch.Tensor) -> torch.Tensor:
    """(n, 2, 2): each image as it is or in one of these orientations."""
    import torch

    ways = [(0, False), *(ORIENTATIONS[name] for name in orientations)]
    turns = [torch.linalg.matrix_power(torch.tensor([[0.0, -1.0], [1.0, 0.0]]), quarter) for quarter, _ in ways]
    mirrors = [torch.diag(torch.tensor([-1.0 if mirrored else 1.0, 1.0])) for _, mirrored in ways]
    chosen = torch.randint(len(ways), (n,), generator=generator)
    chosen[still] = 0
    return torch.stack([mirror @ turn for turn, mirror in zip(turns, mirrors, strict=True)])[chosen]


def _relit(images: torch.Tensor, most: Changes, generator: torch.Generator, still: torch.Tensor) -> torch.Tensor:
    """Blur, change contrast and brightness, mix the channels, take the colour away, add noise."""
    import torch
    from torch.nn import functional

    n, channels = images.shape[:2]
    draws = torch.rand(n, 7, generator=generator)
    either = (draws[:, :3] * 2 - 1) * most.light  # contrast, brightness as a factor and as a sum
    blurred = (draws[:, 3] < most.blur) * draws[:, 4]
    grey, rough = draws[:, 5] < most.grey, draws[:, 6] * most.noise
    either[still], blurred[still], grey[still], rough[still] = 0, 0, False, 0

    def each(values: torch.Tensor) -> torch.Tensor:
        return values.view(n, 1, 1, 1).to(images.device)

    if min(images.shape[-2:]) > 2:
        line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
        kernel = (line[:, None] * line).expand(channels, 1, 5, 5)
        smooth = functional.conv2d(functional.pad(images, (2,) * 4, mode="reflect"), kernel, groups=channels)
        images = images + each(blurred) * (smooth - images)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    images = (images - mean) * each(torch.exp(1.5 * either[:, 0])) + mean
    images = images * each(torch.exp(either[:, 1])) + each(either[:, 2] / 4)
    if channels == COLOURS:
        mixing = torch.eye(COLOURS) + torch.randn(n, COLOURS, COLOURS, generator=generator) * most.colour
        mixing = mixing / mixing.sum(dim=2, keepdim=True).clamp(min=LEAST_SUM)
        mixing[grey] = 1 / COLOURS
        mixing[still] = torch.eye(COLOURS)
        images = (mixing.to(images.device) @ images.flatten(2)).view(images.shape)
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + each(rough) * noise).clamp(0, 1)


def _dilated(images: torch.Tensor, pixels: torch.Tensor, radius: int) -> torch.Tensor:
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
    ratios = {name: float(np.median(distances(name)[single])) / usual for name in DRAWN}
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
    held_out: NDArray[np.uint8],
    invariance: str,
    size: int,
    device: torch.device,
    orientations: Sequence[str] = (),
    versions: int = 1,
    side: float = 1.0,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the held-out (inputs, targets), ``size`` at a time, transformed the same way every time.

    With several ``versions`` of each image the inputs are those of all, one version after the other, of sides ``side``
    times the images'.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    for start in range(0, len(held_out), size):
        targets = to_float(torch.from_numpy(held_out[start : start + size]).to(device))
        yield changed_versions(targets, invariance, generator, UNTOUCHED_SHARE, orientations, versions, side), targets


def changed_versions(
    images: torch.Tensor,
    invariance: str,
    generator: torch.Generator,
    untouched: float,
    orientations: Sequence[str] = (),
    versions: int = 1,
    side: float = 1.0,
) -> torch.Tensor:
    """`transform` so many times, one version of all images (n, c, h, w) after the other."""
    import torch

    if versions == 1:
        return transform(images, invariance, generator, untouched, orientations, side)
    made = [transform(images, invariance, generator, untouched, orientations, side) for _ in range(versions)]
    return torch.cat(made).contiguous(memory_format=torch.channels_last)


def shares_a_ground(sample: NDArray[np.uint8]) -> bool:
    """Whether images are shapes on a plain ground, of one level in all of them, rather than pictures to the edge.

    Parameters
    ----------
    sample : (n, channels, height, width) uint8
    """
    levels = np.bincount(sample[:GROUND_IMAGES].mean(axis=1).round().astype(np.int64).ravel(), minlength=256)
    around = np.convolve(levels, np.ones(2 * GROUND_LEVELS + 1), mode="same")
    return bool(around.max() > GROUND_SHARE * levels.sum())
