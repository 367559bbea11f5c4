"""A network that learns to find planted faults, to show where real ones are and how far an image is from sound ones.

It reads images larger than the encoder does, whole and in detail. What it says of each place is a map of faults; the
means of its layers are numbers by which images with faults lie far from sound ones, as in Li et al. 2021 ("CutPaste").
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import mean_of_largest
from aesearch.anomalies.planting import plant_faults
from aesearch.images.decode import Preprocessing
from aesearch.images.resize import reduced, shrunk
from aesearch.progress import step

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float32]
Planted = tuple[Floats, NDArray[np.bool_]]

LARGEST, WHOLE = 256, 128  # pixels of the longer side: to look at in detail, and to see the image as a whole
WIDTHS = (16, 32, 64, 64)  # channels of its stages, each of half the places of the one before
MOST_STEPS, FEWEST_STEPS, SHOWN = 3000, 200, 100  # of training; times an image is shown, where that is between
BATCH, RATE, DECAY = 16, 3e-3, 1e-3
FOCUS, OVERLAP = 5.0, 0.3  # weights of the two losses
SLOW = 1 / 16  # of the longer side of a whole image: slower light is no fault
SMOOTH = 1.0  # places, of the map
SHARES = (0.5, 1.0)  # of details in the map; at a tie the first is taken
TOP = 0.002  # share of a map's places, those that look most faulty, that count
AT_ONCE, AT_ONCE_ON_A_CPU = 2**22, 2**19  # pixels


@dataclass(frozen=True, eq=False)
class Seen:
    """What the finder sees in some images.

    Attributes
    ----------
    rows : slice
        Which of the images.
    numbers : list of (n, d) float32
        Means of the network's layers over each image, seen as a whole and, unless it is small, in detail.
    marks : (n, height, width) float32
        How likely each place, a square of two by two pixels, is part of a fault, as log-odds.
    local : list of (n, f, height, width) float32, on the finder's device
        By the same scales, features of each place, a square of four by four pixels.
    """

    rows: slice
    numbers: list[Floats]
    marks: Floats
    local: list[torch.Tensor]


class FaultFinder:
    """The trained network on one device.

    Attributes
    ----------
    preprocessing : Preprocessing
        How it reads images.
    weights : dict of array
        Of the network, by name.
    detailed : float
        Share of what is seen in detail in the map of faults; the rest is of the image as a whole.
    """

    def __init__(
        self,
        preprocessing: Preprocessing,
        weights: dict[str, NDArray[Any]],
        device: torch.device,
        detailed: float = 0.5,
    ) -> None:
        import torch

        from aesearch.network.layers import FaultNet

        self.preprocessing, self.weights, self.detailed, self._device = preprocessing, weights, detailed, device
        net = FaultNet(preprocessing.channels, WIDTHS)
        known = {name: torch.from_numpy(np.asarray(value)) for name, value in weights.items()}
        net.load_state_dict(net.state_dict() | known)
        self._net = net.eval().to(device).to(memory_format=torch.channels_last)

    @classmethod
    def learn(
        cls,
        images: NDArray[np.uint8],
        preprocessing: Preprocessing,
        device: torch.device,
        *,
        seed: int = 0,
        progress: bool = False,
    ) -> FaultFinder:
        """Train it on faults planted in normal images, (n, channels, height, width)."""
        import torch

        from aesearch.network.layers import FaultNet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = FaultNet(preprocessing.channels, WIDTHS).to(device).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=DECAY)
        steps = min(max(FEWEST_STEPS, SHOWN * len(images) // BATCH), MOST_STEPS)
        course = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.15)
        with step("plant", steps, unit="step", progress=progress) as bar:
            for changed, masks in _planted(images, steps, seed):
                found = net(_levelled(torch.from_numpy(changed).to(device)))
                optimizer.zero_grad()
                _loss(found, torch.from_numpy(masks).to(device)).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                course.step()
                bar.update()
        weights = {name: value.cpu().numpy() for name, value in net.state_dict().items() if value.ndim}
        return cls(preprocessing, weights, device)

    def look(self, images: NDArray[np.uint8]) -> Iterator[Seen]:
        """What it sees in images (n, channels, height, width) uint8, of some at a time."""
        import torch

        for rows, part in self._parts(images):
            with torch.inference_mode():
                seen = self._seen(part)
                marks = _map([found for _, found, _ in seen], self.detailed)
                numbers = [means.cpu().numpy() for means, _, _ in seen]
            yield Seen(rows, numbers, marks.cpu().numpy(), [local for _, _, local in seen])

    def maps(self, images: NDArray[np.uint8]) -> Floats:
        """Where faults are in images: (n, height, width) float32, as of `Seen`."""
        return np.concatenate([seen.marks for seen in self.look(images)])

    def settle(self, sound: NDArray[np.uint8], faulty: NDArray[np.uint8]) -> FaultFinder:
        """With the map that tells images with faults best from sound ones: of both scales, or of details alone."""
        import torch
        from sklearn.metrics import roc_auc_score

        highest: dict[float, list[Floats]] = {share: [] for share in SHARES}
        with torch.inference_mode():
            for _, part in itertools.chain(self._parts(sound), self._parts(faulty)):
                marks = [found for _, found, _ in self._seen(part)]
                if len(marks) == 1:
                    return self
                for share, found in highest.items():
                    found.append(most_faulty(_map(marks, share).cpu().numpy()))
        odd = np.arange(len(sound) + len(faulty)) >= len(sound)
        best = max(SHARES, key=lambda share: roc_auc_score(odd, np.concatenate(highest[share])))
        return FaultFinder(self.preprocessing, self.weights, self._device, best)

    def _seen(self, part: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Of each scale the means of the layers, the log-odds of faults, and local features."""
        return [self._net.describe(_levelled(scaled.to(self._device))) for scaled in _scales(part)]

    def _parts(self, images: NDArray[np.uint8]) -> Iterator[tuple[slice, torch.Tensor]]:
        import torch

        pixels = AT_ONCE_ON_A_CPU if self._device.type == "cpu" else AT_ONCE
        size = max(1, pixels // (images.shape[2] * images.shape[3]))
        for start in range(0, len(images), size):
            yield slice(start, start + size), torch.from_numpy(images[start : start + size]).float() / 255


def most_faulty(maps: Floats) -> Floats:
    """The mean of those places of each map (n, height, width) that look most faulty: (n,) float32."""
    return mean_of_largest(maps, TOP)


def _map(marks: list[torch.Tensor], detailed: float) -> torch.Tensor:
    """One smooth map of faults, at the size of the finest, of those of one scale or two."""
    from torch.nn.functional import interpolate

    if len(marks) == 1:
        return _blurred(marks[0], SMOOTH)[:, 0]
    whole = interpolate(marks[0], marks[1].shape[2:], mode="bilinear", align_corners=False)
    return _blurred(whole.lerp(marks[1], detailed), SMOOTH)[:, 0]


def _planted(images: NDArray[np.uint8], steps: int, seed: int) -> Iterator[Planted]:
    """Batches to learn from, the next while the network learns from one: by turns of whole images and of details."""
    draw = np.random.default_rng(seed)
    small = shrunk(images, WHOLE)

    def batch() -> Planted:
        sized = small if draw.random() < 0.5 else images
        down, across = (draw.integers(max(0, length - WHOLE) + 1) for length in sized.shape[2:])
        crops = sized[:, :, down : down + WHOLE, across : across + WHOLE]
        return plant_faults(crops[draw.integers(len(crops), size=BATCH)], draw)

    with ThreadPoolExecutor(1, thread_name_prefix="plant") as planter:
        waiting = planter.submit(batch)
        for number in range(steps):
            ready = waiting.result()
            if number + 1 < steps:
                waiting = planter.submit(batch)
            yield ready


def _scales(images: torch.Tensor) -> list[torch.Tensor]:
    """Images in [0, 1] as a whole, and in detail; made on the CPU, as not every device can reduce images smoothly."""
    return [images] if max(images.shape[2:]) <= WHOLE else [reduced(images, WHOLE), images]


def _levelled(images: torch.Tensor) -> torch.Tensor:
    """What the network gets: images at a standard contrast, and the same without slow light, (n, 2 c, h, w)."""
    import torch

    fine = images - _blurred(images, SLOW * min(WHOLE, max(images.shape[2:])))
    both = [
        (images - images.mean((1, 2, 3), keepdim=True)) / (images.std((1, 2, 3), keepdim=True, correction=0) + 0.02),
        fine / (fine.std((1, 2, 3), keepdim=True, correction=0) + 0.01),
    ]
    return torch.cat(both, dim=1).contiguous(memory_format=torch.channels_last)


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur; the border is continued."""
    import torch
    from torch.nn import functional

    reach, channels = max(1, math.ceil(3 * sigma)), images.shape[1]
    bell = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=images.device) / sigma) ** 2)
    bell = (bell / bell.sum()).expand(channels, 1, 1, -1)
    padded = functional.pad(images, (reach, reach, reach, reach), mode="replicate")
    across = functional.conv2d(padded, bell, groups=channels)
    return functional.conv2d(across, bell.transpose(2, 3), groups=channels)


def _loss(found: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Focal loss (Lin et al. 2017), and what found and planted faults do not overlap (Milletari et al. 2016)."""
    from torch.nn import functional

    there = functional.max_pool2d(masks[:, None].float(), 2, ceil_mode=True)
    chances = found.sigmoid()
    each = functional.binary_cross_entropy_with_logits(found, there, reduction="none")
    focal = (each * (chances - there).abs().square()).mean()
    overlap = (2 * (chances * there).sum() + 1) / (chances.sum() + there.sum() + 1)
    return FOCUS * focal + OVERLAP * (1 - overlap)
