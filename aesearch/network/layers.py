"""The layers that torch lacks, each of a few operations that ONNX has too."""

from __future__ import annotations

import functools

import torch
from torch import nn

LEAST_LENGTH = 1e-2  # of vectors whose usual length is 1: nearer to 0 there is rounding, and no direction


class Scale(nn.Module):
    """``factor`` times the images, plus ``shift``: between [0, 1], in which images come and go, and [-1, 1]."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__()
        self.factor, self.shift = factor, shift

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) to others of that shape."""
        return images * self.factor + self.shift


class Clamp(nn.Module):
    """Cut to [0, 1] what lies outside; not while training, where nothing could then be learned from it."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) to others of that shape."""
        return images if self.training else images.clamp(0, 1)


class Last(nn.Module):
    """The last so many numbers of each vector."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.numbers = numbers

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (n, d) to (n, numbers)."""
        return vectors[:, -self.numbers :]


class Unit(nn.Module):
    """Divide vectors, or those at each place of (n, c, h, w) maps, by their length."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (n, d), or maps, to others of that shape."""
        return vectors / vectors.square().sum(dim=1, keepdim=True).add(LEAST_LENGTH**2).sqrt()


class PatchCodes(nn.Module):
    """How much the patch at each place is like each of some patches, only where it is more than usual: (n, k, h, w).

    Parameters
    ----------
    channels, filters, atoms : int
        Of the images, of the whitened patches, and the number of patches to compare with.
    side, stride : int
        Pixels of a patch, and from one to the next.
    sparse : float
        So many deviations above the mean of all likenesses at a place does one count.

    Notes
    -----
    The likeness is the cosine of whitened patches less their mean (Coates, Lee & Ng 2011; Thiry et al. 2021), where
    ``floor`` is added to a patch's length, so that noise on plain ground is like nothing.
    """

    filters: torch.Tensor
    atoms: torch.Tensor
    floor: torch.Tensor

    def __init__(self, channels: int, filters: int, atoms: int, side: int, stride: int, sparse: float) -> None:
        super().__init__()
        self.stride, self.sparse = stride, sparse
        self.register_buffer("filters", torch.zeros(filters, channels, side, side))
        self.register_buffer("atoms", torch.zeros(atoms, filters, 1, 1))
        self.register_buffer("floor", torch.ones(1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) to likenesses (n, k, rows, columns), none below 0."""
        from torch.nn import functional

        patches = functional.conv2d(images, self.filters, stride=self.stride)
        lengths = (patches.square().sum(dim=1, keepdim=True) + self.floor.square()).sqrt()
        patches = patches / lengths
        mean, spread, less = self.moments()
        variance = (functional.conv2d(patches, spread) * patches).sum(dim=1, keepdim=True).clamp(min=0)
        least = functional.conv2d(patches, mean) + self.sparse * variance.sqrt()
        return functional.conv2d(torch.cat([patches, least], dim=1), less).relu()

    def moments(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Three kernels of 1×1: to the mean of all likenesses, to their spread, and to likenesses less a last channel.

        All likenesses at a place fill the memory once this way, as their mean and spread follow from the patch itself.
        """
        mean = self.atoms.mean(dim=0, keepdim=True)
        flat = (self.atoms - mean).flatten(1)
        spread = (flat.T @ flat / len(flat))[:, :, None, None]
        return mean, spread, torch.cat([self.atoms, -torch.ones_like(self.atoms[:, :1])], dim=1)


class Fields(nn.Module):
    """Average maps over ``side`` × ``side`` equal fields, or over fewer where there are not as many places."""

    shares: torch.Tensor

    def __init__(self, height: int, width: int, side: int) -> None:
        super().__init__()
        self.size, self.fields = (height, width), (min(side, height), min(side, width))
        self.register_buffer("shares", _shares_of_fields(self.size, self.fields).clone(), persistent=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (n, c, h, w) to their means (n, c, fields), of other sizes than usual too."""
        size = (maps.shape[2], maps.shape[3])
        shares = self.shares if size == self.size else _shares_of_fields(size, self.fields).to(self.shares)
        return maps.flatten(2) @ shares


@functools.lru_cache(maxsize=8)
def _shares_of_fields(size: tuple[int, int], fields: tuple[int, int]) -> torch.Tensor:
    """(h · w, fields): how much of each place goes into the mean of each field."""
    with torch.inference_mode(False):  # it is kept, and may be needed in training
        rows, columns = (_shares(length, many) for length, many in zip(size, fields, strict=True))
        return torch.kron(rows, columns).T.contiguous()


def _shares(length: int, fields: int) -> torch.Tensor:
    """(fields, length): how much of each place goes into the mean of each field, in part where it lies across two."""
    edges = torch.arange(fields + 1, dtype=torch.float64, device="cpu") * length / fields
    places = torch.arange(length, dtype=torch.float64, device="cpu")
    inside = torch.minimum(edges[1:, None], places + 1) - torch.maximum(edges[:-1, None], places)
    return (inside.clamp(min=0) * fields / length).float()


class Mirrored(nn.Module):
    """The mean of what layers give for images as they are, and mirrored along an axis of (n, c, h, w)."""

    def __init__(self, layers: nn.Sequential, axis: int) -> None:
        super().__init__()
        self.layers, self.axis = layers, axis

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (n, c, h, w) to the mean of both outputs."""
        return self.join(self.layers(images), images)

    def join(self, output: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        """Average what the layers gave for images with what they give for the mirrored ones."""
        mirrored = images.flip(self.axis).contiguous(memory_format=torch.channels_last)
        return (output + self.layers(mirrored)) / 2


class Beside(nn.Module):
    """Branches that all get the same, what they give joined along the first axis, or added up."""

    def __init__(self, *branches: nn.Module, added: bool = False) -> None:
        super().__init__()
        self.branches, self.added = nn.ModuleList(branches), added

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """What all branches give, joined."""
        return self.join([branch(inputs) for branch in self.branches])

    def join(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        """Join what the branches gave, in their order."""
        return torch.stack(outputs).sum(dim=0) if self.added else torch.cat(outputs, dim=1)


class FaultNet(nn.Module):
    """Marks faults: four stages down, each of half the places, and three up, beside what went down (a U-Net).

    Parameters
    ----------
    channels : int
        Of the images, which come twice, each time levelled in another way.
    widths : four int
        Channels of the stages.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.down = nn.ModuleList(
            [
                _convolution(2 * channels, first, stride=2, side=5),
                nn.Sequential(_convolution(first, second, stride=2), _convolution(second, second)),
                nn.Sequential(_convolution(second, third, stride=2), _convolution(third, third)),
                nn.Sequential(_convolution(third, fourth, stride=2), *[_convolution(fourth, fourth) for _ in range(2)]),
            ]
        )
        self.up = nn.ModuleList(
            [
                _convolution(fourth + third, second),
                _convolution(second + second, first),
                _convolution(first + first, first),
            ]
        )
        self.mark = nn.Conv2d(first, 1, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """From (n, 2 c, h, w) to log-odds of faults, (n, 1, h / 2, w / 2)."""
        return self.describe(images)[1]

    def describe(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """From (n, 2 c, h, w) to means of the last stages, the log-odds of faults, and local features.

        Of shapes (n, d), (n, 1, h / 2, w / 2) and (n, f, h / 4, w / 4): of each place what the stages of that size, up
        and down, and the next finer and coarser say, averaged over three by three places.
        """
        stages = []
        for stage in self.down:
            images = stage(images)
            stages.append(images)
        means = torch.cat([maps.mean(dim=(2, 3)) for maps in stages[1:]], dim=1)
        risen = []
        for stage, beside in zip(self.up, stages[-2::-1], strict=True):
            wide = nn.functional.interpolate(images, beside.shape[2:], mode="nearest")
            images = stage(torch.cat([wide, beside], dim=1))
            risen.append(images)
        quarter = stages[1]
        coarser = nn.functional.interpolate(stages[2], quarter.shape[2:], mode="bilinear", align_corners=False)
        finer = nn.functional.avg_pool2d(risen[2], 2, ceil_mode=True)
        local = nn.functional.avg_pool2d(torch.cat([quarter, coarser, risen[1], finer], dim=1), 3, 1, 1)
        return means, self.mark(images), local


def _convolution(into: int, out: int, stride: int = 1, side: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(into, out, side, stride, side // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )
