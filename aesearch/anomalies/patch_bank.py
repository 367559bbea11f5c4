"""What finds faults on surfaces without training anything: patches, held against those of normal images.

Whitened patches of images without slow light, in their principal components, and the distance to the nearest of some
thousand patches of normal images; compare Roth et al. 2022 ("Towards total recall in industrial anomaly detection"),
where a pretrained network gives the patches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import mean_of_largest
from aesearch.images.resize import shrunk
from aesearch.vectors.distances import exact_neighbours

Floats = NDArray[np.float32]

SIDE = 96  # pixels of the images' longer side
PATCH, STRIDE = 8, 4
COMPONENTS, BANK, NEAREST = 24, 10_000, 3
SLOW = 1 / 16  # of the longer side: slower light is no fault
FLOOR = 0.01  # of the contrast, and of the largest variance
SMOOTH = 1.0  # patches
TOP = 0.05  # share of a map that counts
AT_ONCE = 32


@dataclass(frozen=True, eq=False)
class PatchBank:
    """Patches of normal images.

    Attributes
    ----------
    mean, matrix : (d,), (d, m) float32
        From a patch to its whitened components.
    bank : (n, m) float32
    """

    mean: Floats
    matrix: Floats
    bank: Floats

    @classmethod
    def learn(cls, images: NDArray[np.uint8], seed: int = 0) -> PatchBank:
        """From normal images (n, channels, height, width)."""
        draw = np.random.default_rng(seed)
        each = max(1, -(-4 * BANK // len(images)))
        drawn = [of[draw.integers(0, len(of), each)] for patches, _ in _patches(images) for of in patches]
        sample = np.concatenate(drawn)
        mean = sample.mean(axis=0)
        variances, axes = np.linalg.eigh(np.cov((sample - mean).T))
        variances, axes = variances[::-1][:COMPONENTS], axes[:, ::-1][:, :COMPONENTS]
        matrix = (axes / np.sqrt(variances + FLOOR * variances[0] + 1e-12)).astype(np.float32)
        chosen = sample[draw.permutation(len(sample))[:BANK]]
        return cls(mean, matrix, (chosen - mean) @ matrix)

    def maps(self, images: NDArray[np.uint8]) -> Floats:
        """How unlike those of normal images the patch at each place is: (n, height, width) float32."""
        from scipy import ndimage

        found = []
        for patches, shape in _patches(images):
            vectors = np.asarray((patches.reshape(-1, patches.shape[-1]) - self.mean) @ self.matrix, np.float32)
            distances = exact_neighbours(self.bank, vectors, min(NEAREST, len(self.bank)), "l2")[1].mean(axis=1)
            found += [ndimage.gaussian_filter(one, SMOOTH) for one in distances.reshape(len(patches), *shape)]
        return np.stack(found)

    @staticmethod
    def scores(maps: Floats) -> Floats:
        """Mean of the oddest twentieth of each map, (n,) float32."""
        return mean_of_largest(maps, TOP)


def _patches(images: NDArray[np.uint8]) -> Iterator[tuple[Floats, tuple[int, int]]]:
    """Of some images at a time, all their patches, (n, places, d) float32, and how many places down and across."""
    for start in range(0, len(images), AT_ONCE):
        levelled = _levelled(images[start : start + AT_ONCE])
        side = min(PATCH, *levelled.shape[2:])
        windows = np.lib.stride_tricks.sliding_window_view(levelled, (side, side), axis=(2, 3))[
            :, :, ::STRIDE, ::STRIDE
        ]
        down, across = windows.shape[2:4]
        flat = windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(windows), down * across, -1)
        yield np.ascontiguousarray(flat), (down, across)


def _levelled(images: NDArray[np.uint8]) -> Floats:
    """Reduced, without slow light, at a standard contrast."""
    from scipy import ndimage

    small = shrunk(images, SIDE) / np.float32(255)
    sigma = SLOW * max(small.shape[2:])
    fine = small - ndimage.gaussian_filter(small, (0, 0, sigma, sigma), mode="nearest")
    return np.asarray(fine / (fine.std(axis=(1, 2, 3), keepdims=True) + FLOOR), np.float32)
