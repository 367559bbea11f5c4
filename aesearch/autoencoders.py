"""The architectures, by name; how an autoencoder is saved and loaded."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.atomic import replacing
from aesearch.decoding import Preprocessing, halvings
from aesearch.errors import AesearchError, CollectionNotFoundError

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT_VERSION = 1
READ_BYTES = 2**24
ARCHITECTURES = ("conv", "conv-pool")
FIRST_WIDTH, LAST_WIDTH = 16, 64


@dataclass(frozen=True)
class AutoencoderSpec:
    """Everything that says which network it is; stored as JSON beside the weights.

    Attributes
    ----------
    arch : str
        One of ``ARCHITECTURES``.
    latent_dim : int
        Numbers in one feature vector.
    widths : tuple of int
        Channels after each halving of the image, first to last.
    preprocessing : Preprocessing
        What every image goes through first.
    """

    arch: str
    latent_dim: int
    widths: tuple[int, ...]
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise AesearchError(f"no architecture {self.arch!r}; there is: {', '.join(ARCHITECTURES)}")
        if self.latent_dim < 1 or not self.widths or min(self.widths) < 1:
            raise AesearchError(f"latent size {self.latent_dim} and widths {self.widths} must be 1 or more")

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> AutoencoderSpec:
        """Read back what `to_json` wrote."""
        return cls(
            arch=document["arch"],
            latent_dim=document["latent_dim"],
            widths=tuple(document["widths"]),
            preprocessing=Preprocessing(**document["preprocessing"]),
        )


def default_latent_dim(preprocessing: Preprocessing) -> int:
    """64, or less for tiny images: half the pixels, as a power of two."""
    return int(2 ** round(math.log2(min(64, max(2, preprocessing.pixels / 2)))))


def default_widths(arch: str, preprocessing: Preprocessing) -> tuple[int, ...]:
    """16, 32, 64, 64, … channels for ``conv``, one for each halving down to about 4×4."""
    if arch == "conv-pool":
        return 16, 32
    stages = halvings(preprocessing.height, preprocessing.width)
    return (*(min(FIRST_WIDTH * 2**i, LAST_WIDTH) for i in range(stages - 1)), LAST_WIDTH)


def build_autoencoder(spec: AutoencoderSpec) -> nn.ModuleDict:
    """Make the network, its weights drawn from torch's global generator.

    Returns
    -------
    nn.ModuleDict
        With ``encoder``: (n, c, h, w) float32 in [0, 1] to (n, latent_dim), and ``decoder``: back again.
    """
    from torch import nn

    encoder, decoder = {"conv": _conv, "conv-pool": _conv_pool}[spec.arch](spec)
    return nn.ModuleDict({"encoder": encoder, "decoder": decoder})


def _conv(spec: AutoencoderSpec) -> tuple[nn.Module, nn.Module]:
    """Stride-2 3×3 convolutions with batch norm, one linear layer to the latent; back with half the channels.

    The last two halvings are undone at once, as sub-pixels (Shi et al. 2016): on a CPU transposed
    convolutions to few channels and batch norm of the largest maps would take most of the time.
    """
    from torch import nn

    channels, height, width = spec.preprocessing.shape
    sizes = [(height, width)]
    for _ in spec.widths:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    bottom = (spec.widths[-1], *sizes[-1])

    down: list[nn.Module] = [nn.Conv2d(channels, spec.widths[0], 3, 2, 1), nn.ReLU(inplace=True)]
    for before, after in itertools.pairwise(spec.widths):
        down += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(bottom), spec.latent_dim))

    up: list[nn.Module] = [
        nn.Linear(spec.latent_dim, math.prod(bottom)),
        nn.Unflatten(1, bottom),
        nn.ReLU(inplace=True),
    ]
    at_once = min(2, len(spec.widths))
    hidden = [max(8, w // 2) for w in spec.widths[-2 : at_once - 2 : -1]]
    for stage, (before, after) in enumerate(itertools.pairwise((spec.widths[-1], *hidden))):
        small, large = sizes[-1 - stage], sizes[-2 - stage]
        padding = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
        up.append(nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=padding, bias=False))
        up += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    share, (rows, columns) = 2**at_once, sizes[at_once]
    up += [nn.Conv2d((spec.widths[-1], *hidden)[-1], channels * share**2, 3, padding=1), nn.PixelShuffle(share)]
    up += [_crop(share * rows, share * columns, height, width), nn.Sigmoid()]
    return encoder, nn.Sequential(*up)


def _crop(height: int, width: int, to_height: int, to_width: int) -> nn.Module:
    """Cut rows below and columns to the right that an image of an odd size does not have."""
    from torch import nn

    return nn.ZeroPad2d((0, to_width - width, 0, to_height - height))


def _conv_pool(spec: AutoencoderSpec) -> tuple[nn.Module, nn.Module]:
    """Build the network of most tutorials: 3×3 convolutions, max pooling, a linear layer with ReLU; mirrored back."""
    from torch import nn

    channels, height, width = spec.preprocessing.shape
    down: list[nn.Module] = []
    for before, after in itertools.pairwise((channels, *spec.widths)):
        down += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True)]
    share = 2 ** len(spec.widths)
    bottom = (spec.widths[-1], math.ceil(height / share), math.ceil(width / share))
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(math.prod(bottom), spec.latent_dim), nn.ReLU(inplace=True))
    up: list[nn.Module] = [
        nn.Linear(spec.latent_dim, math.prod(bottom)),
        nn.ReLU(inplace=True),
        nn.Unflatten(1, bottom),
    ]
    for before, after in itertools.pairwise((*spec.widths[::-1], channels)):
        up += [nn.ConvTranspose2d(before, after, 2, 2), nn.ReLU(inplace=True)]
    up[-1:] = [_crop(share * bottom[1], share * bottom[2], height, width), nn.Sigmoid()]
    return encoder, nn.Sequential(*up)


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the network."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def save_autoencoder(path: Path, model: nn.ModuleDict, spec: AutoencoderSpec) -> None:
    """Write weights and architecture as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    document = {"format_version": FORMAT_VERSION, "spec": spec.to_json()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"aesearch": json.dumps(document)})


def load_autoencoder(path: Path) -> tuple[nn.ModuleDict, AutoencoderSpec]:
    """Read what `save_autoencoder` wrote; runs no code from the file.

    Raises
    ------
    AesearchError
        The file is absent, damaged, of another format, or its weights do not fit its architecture.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CollectionNotFoundError(f"there is no encoder at {path}: run aesearch train")
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["aesearch"])
            weights = {name: file.get_tensor(name) for name in file.keys()}
        if document["format_version"] != FORMAT_VERSION:
            raise AesearchError(f"{path} has format {document['format_version']}; this aesearch reads {FORMAT_VERSION}")
        spec = AutoencoderSpec.from_json(document["spec"])
        model = build_autoencoder(spec)
        model.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise AesearchError(f"{path} is no encoder of aesearch, or is damaged: run aesearch train") from error
    return model, spec


def pick_device(name: str = "auto") -> torch.device:
    """``auto``: CUDA, else Apple's MPS, else the CPU. ``AesearchError`` if the named one is not there."""
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AesearchError(f"device {name!r} is not available here: try --device auto or cpu") from error
    return device


class Autoencoder:
    """A trained network, ready for uint8 images on one device.

    Methods take and return NumPy arrays of any length and work on ``batch_size`` images at once. Batches of
    different sizes give the same numbers up to float32 rounding.

    Attributes
    ----------
    spec : AutoencoderSpec
    device : torch.device
    batch_size : int
        May be set; at first what suits the device: on a CPU what its caches hold, on a GPU much more.
    """

    def __init__(self, model: nn.ModuleDict, spec: AutoencoderSpec, device: str = "auto") -> None:
        from torch import nn

        self.spec = spec
        self.device = pick_device(device)
        area = spec.preprocessing.height * spec.preprocessing.width
        on_cpu = self.device.type == "cpu"
        self.batch_size = min(256, max(16, 2**18 // area)) if on_cpu else min(8192, max(64, 2**22 // area))
        folded = nn.ModuleDict({name: _prepare(part) for name, part in model.eval().items()})
        self._model = on_device(folded, self.device)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Autoencoder:
        """Read an ``encoder.safetensors``; raises as `load_autoencoder`."""
        return cls(*load_autoencoder(path), device=device)

    @property
    def reading_size(self) -> int:
        """Images worth reading at once: whole batches, about 16 MB of them."""
        return self.batch_size * max(1, READ_BYTES // self.spec.preprocessing.pixels // self.batch_size)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (n, latent_dim) float32 of images (n, channels, height, width) uint8."""
        import torch

        with torch.inference_mode():
            return _joined([self._model["encoder"](inputs) for inputs in self._batches(images)])

    def encode_and_score(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features (n, latent_dim), and the mean squared error per pixel on the [0, 1] scale (n,)."""
        import torch

        features, errors = [], []
        with torch.inference_mode():
            for inputs in self._batches(images):
                features.append(self._model["encoder"](inputs))
                errors.append((self._model["decoder"](features[-1]) - inputs).square().mean(dim=(1, 2, 3)))
            return _joined(features), _joined(errors)

    def decode(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (n, channels, height, width) float32 in [0, 1] from features (n, latent_dim)."""
        import torch

        with torch.inference_mode():
            latent = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(self.device)
            images: NDArray[np.float32] = self._model["decoder"](latent).contiguous().cpu().numpy()
        return images

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[torch.Tensor]:
        import torch

        if images.shape[1:] != self.spec.preprocessing.shape or images.dtype != np.uint8:
            raise ValueError(
                f"images are {images.dtype} {images.shape[1:]}, the encoder takes uint8 {self.spec.preprocessing.shape}"
            )
        whole = torch.from_numpy(np.ascontiguousarray(images))
        for start in range(0, len(whole), self.batch_size):
            yield to_float(whole[start : start + self.batch_size].to(self.device))


def _joined(parts: list[torch.Tensor]) -> NDArray[np.float32]:
    import torch

    joined: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return joined


def on_device(model: nn.ModuleDict, device: torch.device) -> nn.ModuleDict:
    """Move a network, its convolutions laid out channels last."""
    import torch

    moved: nn.ModuleDict = model.to(device).to(memory_format=torch.channels_last)
    return moved


def to_float(images: torch.Tensor) -> torch.Tensor:
    """Scale (n, c, h, w) uint8 to float32 in [0, 1], channels last in memory."""
    import torch

    return images.to(dtype=torch.float32, memory_format=torch.channels_last).div_(255)


def _prepare(layers: nn.Module) -> nn.Sequential:
    """Rewrite a trained network for quick inference; it gives the same numbers up to rounding."""
    from torch import nn
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    prepared: list[nn.Module] = []
    for layer in layers.children():
        if isinstance(layer, nn.BatchNorm2d):
            before: Any = prepared.pop()
            layer = fuse_conv_bn_eval(before, layer, transpose=isinstance(before, nn.ConvTranspose2d))
        prepared.append(layer)
    return nn.Sequential(*prepared)
