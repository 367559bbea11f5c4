"""What an encoder learns without training: patches to compare with, how to average them, principal components.

Images are likened to patches drawn from the collection, as in Coates, Lee & Ng 2011 ("An analysis of single-layer
networks in unsupervised feature learning") and Thiry et al. 2021 ("The unreasonable effectiveness of patches in deep
convolutional kernels methods"). Where it matters what lies where the likenesses are averaged by fields, after the
smoothest directions of them have been taken and scaled to length 1 at each place, as in Chen et al. 2022 ("Minimalistic
unsupervised representation learning with the sparse manifold transform"). The result is whitened by half: each
principal component is divided by the root of its deviation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.network.architectures import AutoencoderSpec, build_autoencoder
from aesearch.network.autoencoder import to_float
from aesearch.vectors.distances import exact_neighbours

if TYPE_CHECKING:
    import torch
    from torch import nn

DRAWN_FROM, DRAWN = 400, 40_000  # images that patches are drawn from, and patches that say how to whiten
FEWEST_GREYS = 2.0  # of 255, a patch's deviation: a plainer one is nothing to compare with
CONTRAST_FLOOR = 10 / 255  # added to deviations before whitening is learned
WHITENING, SMOOTHING = 0.1, 1e-3  # shares of the mean variance added to each
ROUNDING = 1e-6  # variance of likenesses that may be rounding
KEPT, LEAST_SPREAD = 1e-6, 1e-3  # share of the largest variance that a component needs; deviations that are scaled to 1
FLOOR = 0.02  # of the median length of whitened patches
LEAST_LEVELS = 0.5  # of 255: a deviation that is rounding
LOOKED_AT = 8_000_000  # pixels of the images that the averages are learned from, at most
FEWEST_COMPARED, MOST_COMPARED = 50, 2000  # images that tell whether fields are better
COMPARED = 10  # neighbours of each
CLEARLY = 2.0  # standard errors
COMPONENTS_OF = 50_000_000  # pixels, and channels, of the images that principal components are learned from, at most
AT_ONCE, AT_ONCE_ON_A_CPU = 400_000, 16_384  # pixels; a CPU's cache should hold the likenesses of them


def fit_components(model: nn.ModuleDict, spec: AutoencoderSpec, sample: NDArray[np.uint8], seed: int) -> None:
    """Set the principal components of a ``pooled`` network, that keep how an image looks, in place.

    Parameters
    ----------
    model : nn.ModuleDict
        As `aesearch.network.architectures.build_autoencoder` makes it.
    sample : (n, channels, height, width) uint8
        Images of the collection.
    seed : int
        Of the drawing of those that are looked at.
    """
    import torch

    flat = _shuffled(sample, seed, max(DRAWN_FROM, COMPONENTS_OF // sample[0].size))
    with torch.no_grad():
        _set_components(_branch(model, -1)[1], _inverse(model), flat, _device(model), spec.style_dim)
        if spec.widths:
            silence(model)
    for layer in _linear_parts(model, spec):
        layer.requires_grad_(False)


def fit_patches(model: nn.ModuleDict, spec: AutoencoderSpec, sample: NDArray[np.uint8], seed: int) -> None:
    """Draw patches, and set the matrix behind the likenesses to them, in place; arguments as of `fit_components`."""
    if spec.patch_dim:
        few = _shuffled(sample, seed, max(DRAWN_FROM, LOOKED_AT // sample[0].size))
        _fit_branch(_branch(model, 0), few, seed, _device(model))


def choose_patches(
    model: nn.ModuleDict, spec: AutoencoderSpec, sample: NDArray[np.uint8], seed: int
) -> AutoencoderSpec:
    """As `fit_patches`; if it is better without fields, then so. What the network is in the end.

    An image has neighbours by the rest of the network, too, which learned them from its changes, or by its pixels if
    nothing was trained. Patches by fields are taken if theirs are clearly more often the same ones. Few images tell
    nothing, and have fields.
    """
    import torch

    fit_patches(model, spec, sample, seed)
    if not spec.patch_dim or spec.fields == 1 or len(sample) < FEWEST_COMPARED:
        return spec
    whole, device = dataclasses.replace(spec, fields=1), _device(model)
    other = build_autoencoder(whole).to(device).eval()
    fit_patches(other, whole, sample, seed)
    few = _shuffled(sample, seed, MOST_COMPARED)

    def neighbours(branch: Any) -> NDArray[np.int64]:
        with torch.no_grad():
            vectors = _gathered(branch, few, device).cpu().numpy()
        return exact_neighbours(vectors, vectors, COMPARED + 1, "l2")[0][:, 1:]

    known = neighbours(_branch(model, -2) if spec.widths else _branch(model, -1))
    same = [_common(known, neighbours(_branch(one, 0))) for one in (model, other)]
    more = same[0] - same[1]
    if more.mean() > CLEARLY * more.std() / math.sqrt(len(more)):
        return spec
    _branches(model)[0] = _branch(other, 0).requires_grad_(False)
    return whole


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the numbers in each row are in that of the other, (n,)."""
    return np.asarray((one[:, :, None] == other[:, None, :]).sum(axis=(1, 2)))


def _shuffled(sample: NDArray[np.uint8], seed: int, most: int) -> NDArray[np.uint8]:
    return sample[np.random.default_rng(seed).permutation(len(sample))[:most]]


def _fit_branch(branch: Any, few: NDArray[np.uint8], seed: int, device: torch.device) -> None:
    import torch

    codes, *between, _, _ = _averaged(branch)
    with torch.no_grad():
        _draw_patches(codes, few, seed)
        if between:
            _smoothest(codes, between[0], few, device)
        whiten(branch[-2], _gathered(branch[:-2], few, device))


def _gathered(layers: Any, images: NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """What layers give for all images, (n, d).

    It goes to one place: small results kept between large ones that are dropped would scatter the memory.
    """
    import torch

    gathered, done = torch.empty(0), 0
    for part in batches(images, device):
        found = layers(part)
        if not done:
            gathered = torch.empty(len(images), *found.shape[1:], device=device)
        gathered[done : done + len(found)] = found
        done += len(found)
    return gathered


def silence(model: Any) -> None:
    """Let the decoder's convolutions, which add to what the components give back, give 0 whatever they get."""
    import torch

    last = [layer for layer in model["decoder"][1].branches[1] if hasattr(layer, "weight")][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.zero_()


def trunk(model: nn.ModuleDict) -> nn.Sequential:
    """The part of the network that is trained to find an image's changed self among others."""
    trained: nn.Sequential = _averaged(_branch(model, -2))
    return trained


def numbers_of_trunk(model: nn.ModuleDict) -> int:
    """How many numbers an image has after that part."""
    return int(_branch(model, -2)[-2].in_features)


def style_part(model: nn.ModuleDict) -> nn.Module:
    """The part that keeps how an image looks."""
    kept: nn.Module = _branch(model, -1)
    return kept


def settle_trunk(model: nn.ModuleDict, sample: NDArray[np.uint8]) -> None:
    """Set the matrix behind the trained part: its principal components, whitened by half."""
    import torch

    few, device = sample[: max(DRAWN_FROM, LOOKED_AT // sample[0].size)], _device(model)
    with torch.no_grad():
        branch = _branch(model, -2)
        whiten(branch[-2], _gathered(branch[:-2], few, device))


def _branch(model: Any, number: int) -> Any:
    return _branches(model)[number]


def _branches(model: Any) -> Any:
    return model["encoder"][-1].branches


def _averaged(branch: Any) -> Any:
    """The layers of a branch before its matrix, without what averages over mirror images."""
    layers = branch[:-2]
    while hasattr(layers[0], "layers"):
        layers = layers[0].layers
    return layers


def _linear_parts(model: nn.ModuleDict, spec: AutoencoderSpec) -> Iterator[Any]:
    """What no step changes: from pixels to components, and back; patches and the last matrices are set at the end."""
    yield _branch(model, -1)[1]
    yield _inverse(model)
    if spec.patch_dim:
        yield _branch(model, 0)
    if spec.widths:
        yield _branch(model, -2)[-2]


def _device(model: Any) -> torch.device:
    device: torch.device = next(model.parameters()).device
    return device


def _inverse(model: Any) -> Any:
    return model["decoder"][1].branches[0][0]


def most_at_once(images: NDArray[np.uint8], device: torch.device) -> int:
    """Of how many images (n, channels, height, width) the likenesses to patches fit the memory."""
    pixels = AT_ONCE_ON_A_CPU if device.type == "cpu" else AT_ONCE
    return int(max(1, pixels // (images.shape[2] * images.shape[3])))


def batches(images: NDArray[np.uint8], device: torch.device) -> Iterator[torch.Tensor]:
    """Yield images as the network takes them, so many at a time that the likenesses to patches fit the memory."""
    import torch

    size = most_at_once(images, device)
    for start in range(0, len(images), size):
        yield to_float(torch.from_numpy(images[start : start + size]).to(device))


def _draw_patches(codes: Any, sample: NDArray[np.uint8], seed: int) -> None:
    """Draw patches, learn to whiten them, and take some, of length 1, to compare with."""
    import torch
    from torch.nn import functional

    atoms, (channels, side, _) = codes.atoms.shape[0], codes.filters.shape[1:]
    draw = np.random.default_rng(seed)
    images = torch.from_numpy(sample[:DRAWN_FROM]).float() / 255
    each = math.ceil(DRAWN / len(images))
    rows = torch.from_numpy(draw.integers(0, images.shape[2] - side + 1, (len(images), each)))
    columns = torch.from_numpy(draw.integers(0, images.shape[3] - side + 1, (len(images), each)))
    patches = (
        images.unfold(2, side, 1)
        .unfold(3, side, 1)[torch.arange(len(images))[:, None], :, rows, columns]
        .reshape(-1, channels * side**2)
    )
    patches = patches[torch.from_numpy(draw.permutation(len(patches)))]
    patches = patches - patches.mean(dim=1, keepdim=True)
    deviations = patches.std(dim=1, keepdim=True, correction=0)
    levelled = patches / (deviations + CONTRAST_FLOOR)
    values, vectors = torch.linalg.eigh((levelled.T @ levelled / len(levelled)).double())
    matrix = (vectors * (values.clamp(min=0) + WHITENING * values.mean() + 1e-12).rsqrt()) @ vectors.T
    matrix = (matrix - matrix.mean(dim=1, keepdim=True)).float()  # of a patch as it is, its mean too
    contrasted = torch.nonzero(deviations[:, 0] > FEWEST_GREYS / 255)[:, 0]
    chosen = contrasted if len(contrasted) else torch.arange(len(patches))
    whitened = patches[chosen.repeat(math.ceil(atoms / len(chosen)))[:atoms]] @ matrix.T
    lengths = (patches[chosen] @ matrix.T).norm(dim=1)
    of_a_level = lengths / deviations[chosen, 0].clamp(min=1e-6) / 255
    codes.filters.copy_(matrix.view(codes.filters.shape))
    codes.atoms.copy_(functional.normalize(whitened, dim=1)[:, :, None, None])
    codes.floor.fill_(max(FLOOR * float(lengths.median()), LEAST_LEVELS * float(of_a_level.median()), 1e-6))


def _smoothest(codes: Any, embedding: Any, images: NDArray[np.uint8], device: torch.device) -> None:
    """Set the embedding to the directions of the likenesses that change least from place to place, for their spread."""
    import torch

    atoms = codes.atoms.shape[0]
    spread, steps = (torch.zeros(atoms, atoms, dtype=torch.float64, device=device) for _ in range(2))
    total, places, pairs = torch.zeros(atoms, dtype=torch.float64, device=device), 0, 0
    for part in batches(images, device):
        likeness = codes(part).permute(0, 2, 3, 1)
        flat = likeness.reshape(-1, atoms)
        spread += flat.T @ flat
        total += flat.sum(dim=0)
        places += len(flat)
        for one, other in ((likeness[:, 1:], likeness[:, :-1]), (likeness[:, :, 1:], likeness[:, :, :-1])):
            difference = (one - other).reshape(-1, atoms)
            steps += difference.T @ difference
            pairs += len(difference)
    mean = total / places
    spread = spread / places - mean[:, None] * mean
    # As much noise to each, or directions in which nothing varies would change least of all.
    noise = (SMOOTHING * spread.diagonal().mean() + ROUNDING) * torch.eye(atoms, device=device)
    values, vectors = torch.linalg.eigh(spread + noise)
    whitening = vectors * values.rsqrt()
    _, directions = torch.linalg.eigh(whitening.T @ (steps / max(1, pairs) + 2 * noise) @ whitening)
    numbers = embedding.out_channels
    matrix = (whitening @ directions[:, :numbers]).T / math.sqrt(numbers)  # each of variance 1: of length 1 together
    embedding.weight.copy_(matrix[:, :, None, None])
    embedding.bias.copy_(-matrix @ mean)


def whiten(layer: Any, vectors: torch.Tensor) -> None:
    """Set a linear layer to the principal components of (n, d) vectors, each over the root of its deviation.

    Of components that so few vectors do not have the layer gives 0.
    """
    mean, components, deviations = _components(vectors, layer.out_features)
    matrix = components / deviations.sqrt()[:, None]
    matrix = matrix / deviations.sum().clamp(min=LEAST_SPREAD).sqrt()  # their usual length is 1
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[: len(matrix)] = matrix
    layer.bias[: len(matrix)] = -matrix @ mean


def _set_components(straight: Any, inverse: Any, images: NDArray[np.uint8], device: torch.device, most: int) -> None:
    """Set the last so many outputs of a layer to images' principal components, and another layer to their inverse."""
    import torch

    flat = torch.cat([part.flatten(1) for part in batches(images, device)])
    mean, components, _ = _components(flat, most)
    first = straight.out_features - most
    for parameter in (straight.weight, straight.bias, inverse.weight):
        parameter.zero_()
    straight.weight[first : first + len(components)] = components
    straight.bias[first : first + len(components)] = -components @ mean
    inverse.weight[:, first : first + len(components)] = components.T
    inverse.bias.copy_(mean)


def _components(vectors: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Mean (d,), principal components (k, d) and their deviations (k,) of (n, d) vectors, k at most as asked for."""
    import torch
    from sklearn.utils.extmath import randomized_svd

    mean = vectors.double().mean(dim=0)
    centred = vectors.double() - mean
    n, width = centred.shape
    if width <= 2000:
        values, found = torch.linalg.eigh(centred.T @ centred / n)
        values, found = values.flip(0)[:most], found.flip(1)[:, :most].T
    else:
        _, singular, found = randomized_svd(centred.float().cpu().numpy(), min(most, n), random_state=0, n_iter=4)
        values, found = torch.from_numpy(singular.astype(np.float64)) ** 2 / n, torch.from_numpy(found)
    kept = values > (KEPT * values[:1]).clamp(min=ROUNDING**2)
    return mean.to(vectors), found[kept].to(vectors), values[kept].sqrt().to(vectors)
