"""Which way an image lies: the eight ways there are, and which of them mean nothing in a collection."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from aesearch.vectors.distances import exact_neighbours

UPRIGHT = "as it is"
# Quarter turns against the clock, and whether the image is mirrored before.
ORIENTATIONS: dict[str, tuple[int, bool]] = {
    UPRIGHT: (0, False),
    "mirrored": (0, True),
    "upside down": (2, False),
    "flipped": (2, True),
    "turned left": (1, False),
    "turned right": (3, False),
    "mirrored, turned left": (1, True),
    "mirrored, turned right": (3, True),
}
FEWEST, MOST = 200, 2000  # images that are compared
COMPONENTS = 32
OFTEN = 0.55  # of the images lie farther from others when turned: less often, turning means nothing
AVERAGED = 0.7  # of the images lie farther when mirrored: less often, features may be averaged over both
ERRORS = 1.0  # standard errors that the share may lie above it by chance


def is_turned(orientation: str) -> bool:
    """Whether height and width change places."""
    return ORIENTATIONS[orientation][0] % 2 == 1


def orient(images: NDArray[np.uint8], orientation: str) -> NDArray[np.uint8]:
    """Mirror and turn images (…, height, width)."""
    turns, mirrored = ORIENTATIONS[orientation]
    return np.ascontiguousarray(np.rot90(images[..., ::-1] if mirrored else images, turns, (-2, -1)))


def measure_orientations(images: NDArray[np.uint8]) -> dict[str, float]:
    """How often an image lies farther from all others when it is mirrored or turned than as it is; no label is read.

    About 0.5 where a collection holds its images in that orientation as often as upright, near 1 where it never does.

    Parameters
    ----------
    images : (n, channels, height, width) uint8
        Distances are between 32 principal components of the pixels, from each half of the images to the other.

    Returns
    -------
    dict
        By orientation; empty for fewer than 200 images. Without quarter turns where images are not square.
    """
    images = images[:MOST]
    if len(images) < FEWEST:
        return {}
    halves = _Half(images[::2]), _Half(images[1::2])

    def distances(orientation: str) -> NDArray[np.float32]:
        return np.concatenate([halves[0].to(halves[1], orientation), halves[1].to(halves[0], orientation)])

    upright, farther = distances(UPRIGHT), {}
    for orientation in [o for o in ORIENTATIONS if o != UPRIGHT]:
        if is_turned(orientation) and images.shape[-1] != images.shape[-2]:
            continue
        changed = distances(orientation)
        farther[orientation] = float((changed > upright).mean() + (changed == upright).mean() / 2)
    return farther


def without_meaning(farther: dict[str, float], images: int) -> list[str]:
    """Orientations that mean nothing, by what `measure_orientations` found on so many images."""
    error = math.sqrt(0.25 / max(1, min(images, MOST)))
    return [orientation for orientation, share in farther.items() if share - ERRORS * error < OFTEN]


def to_average(farther: dict[str, float], *, has_top: bool) -> str:
    """Over which mirror images an image's features may be averaged: "mirrored", "flipped", "both", or none, "".

    Less is asked than of an orientation that means nothing: such images need not be frequent, only not foreign. Of
    images that have a top and a bottom one alone is taken.
    """
    found = [way for way in ("mirrored", "flipped") if farther.get(way, 1.0) < AVERAGED]
    return "both" if len(found) == 2 and not has_top else min(found, key=lambda way: farther[way], default="")


def apart(orientations: Iterable[str], mirror: str) -> list[str]:
    """Those orientations that features averaged over a mirror image, named as in `to_average`, can tell apart."""
    same = (UPRIGHT, "mirrored", "flipped", "upside down") if mirror == "both" else (UPRIGHT, mirror or UPRIGHT)
    corners = np.arange(4, dtype=np.uint8).reshape(2, 2)
    first: dict[bytes, str] = {}
    for orientation in orientations:
        alike = min(orient(orient(corners, orientation), way).tobytes() for way in same)
        first.setdefault(alike, orientation)
    return list(first.values())


class _Half:
    """Images, and the principal components of them alone: those of the other half are as new as turned ones are."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        from sklearn.decomposition import PCA

        self.images = images
        flat = images.reshape(len(images), -1).astype(np.float32)
        self.pca = PCA(min(COMPONENTS, *flat.shape), svd_solver="randomized", random_state=0).fit(flat)
        self.placed = self.place(images)

    def place(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Components of images, (n, 32) float32."""
        flat = images.reshape(len(images), -1).astype(np.float32)
        return np.asarray(self.pca.transform(flat), dtype=np.float32)

    def to(self, other: _Half, orientation: str) -> NDArray[np.float32]:
        """How far each image of the other half, so oriented, lies from the nearest here."""
        return exact_neighbours(self.placed, self.place(orient(other.images, orientation)), 1, "l2")[1][:, 0]
