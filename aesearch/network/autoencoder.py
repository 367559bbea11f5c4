"""A network at work: saved and loaded, on a device, from images to features and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, CollectionNotFoundError, need_torch
from aesearch.files.atomic import replacing
from aesearch.files.naming import command_for
from aesearch.network.architectures import AutoencoderSpec, build_autoencoder
from aesearch.network.onnx import PortableEncoder, translate

if TYPE_CHECKING:
    import torch
    from torch import nn

FORMAT_VERSION = 3
READ_BYTES = 2**24
DEVICES = ("cpu", "cuda", "mps")
HIDDEN_MOST = 512  # numbers of one hidden layer's maps, at most: larger ones are averaged
LIKENESSES = 8  # times the memory that an image takes without patches: what its likenesses to them fill


def save_autoencoder(path: Path, model: nn.ModuleDict, spec: AutoencoderSpec) -> None:
    """Write weights and architecture as one safetensors file, whole or not at all."""
    from safetensors.torch import save_file

    document = {"format_version": FORMAT_VERSION, "spec": spec.to_json()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path, sum(t.nbytes for t in tensors.values())) as temporary:
        save_file(tensors, temporary, metadata={"aesearch": json.dumps(document)})


def load_autoencoder(path: Path) -> tuple[nn.ModuleDict, AutoencoderSpec]:
    """Read what `save_autoencoder` wrote; runs no code from the file.

    Raises
    ------
    AesearchError
        The file is absent, damaged, of another format, or its weights do not fit its architecture.
    """
    import torch
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CollectionNotFoundError(f"there is no encoder at {path}: run {command_for('train', path.parent)}")
    try:
        with safe_open(path, framework="pt") as file:
            document = json.loads((file.metadata() or {})["aesearch"])
            weights = {name: file.get_tensor(name) for name in file.keys()}
        if document["format_version"] != FORMAT_VERSION:
            raise AesearchError(
                f"{path} has format {document['format_version']}, this aesearch reads {FORMAT_VERSION}: "
                f"build it again, {command_for('build-index SOURCE --overwrite', path.parent)}"
            )
        spec = AutoencoderSpec.from_json(document["spec"])
        with torch.device("meta"):  # of a stranger's file nothing large is made before it is known to fit
            shapes = {name: tensor.shape for name, tensor in build_autoencoder(spec).state_dict().items()}
        if shapes != {name: tensor.shape for name, tensor in weights.items()}:
            raise ValueError("weights of another network")
        model = build_autoencoder(spec)
        model.load_state_dict(weights)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        remedy = f"run {command_for('train', path.parent)}"
        raise AesearchError(f"{path} is no encoder of aesearch, or is damaged: {remedy}") from error
    return model, spec


def pick_device(name: str = "auto") -> torch.device:
    """``auto``: CUDA, else Apple's MPS, else the CPU. ``AesearchError`` if the named one is not there."""
    need_torch()
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in DEVICES:
            raise RuntimeError(f"none of {', '.join(DEVICES)}")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        there = [kind for kind in DEVICES if kind == "cpu" or getattr(torch, kind).is_available()]
        raise AesearchError(
            f"device {name!r} is not available here: --device is auto, cpu, cuda (NVIDIA), cuda:1 or mps (Apple), and "
            f"here there is {' and '.join(there)}"
        ) from error
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
        area = spec.preprocessing.height * spec.preprocessing.width * (LIKENESSES if spec.patch_dim else 1)
        on_cpu = self.device.type == "cpu"
        self.batch_size = min(256, max(8, 2**18 // area)) if on_cpu else min(8192, max(64, 2**22 // area))
        folded = nn.ModuleDict({name: _prepare(part) for name, part in model.eval().items()})
        self._model = on_device(folded, self.device)

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> Autoencoder:
        """Read an ``encoder.safetensors``; raises as `load_autoencoder`."""
        return cls(*load_autoencoder(path), device=device)

    def save_portable(self, path: Path) -> None:
        """Write the encoder as ONNX: (n, channels, height, width) uint8 to (n, latent_dim) float32."""
        model = self._as_onnx()
        with replacing(path, len(model)) as temporary:
            temporary.write_bytes(model)

    def _as_onnx(self, decoder: nn.Module | None = None) -> bytes:
        return translate(self._model["encoder"], self.spec.preprocessing, self.spec.latent_dim, decoder)

    @cached_property
    def _on_cpu(self) -> PortableEncoder:
        return PortableEncoder(self._as_onnx(), self.spec.feature_dim)

    @cached_property
    def _scoring_on_cpu(self) -> PortableEncoder:
        return PortableEncoder(self._as_onnx(self._model["decoder"]), self.spec.feature_dim)

    @property
    def reading_size(self) -> int:
        """Images worth reading at once: whole batches, about 16 MB of them."""
        return self.batch_size * max(1, READ_BYTES // self.spec.preprocessing.pixels // self.batch_size)

    def encode(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (n, feature_dim) float32 of images (n, channels, height, width) uint8."""
        return np.ascontiguousarray(self.encode_latents(images)[:, : self.spec.feature_dim])

    def encode_latents(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Latents (n, latent_dim) float32: the features, then the style, without which nothing is rebuilt in place."""
        import torch

        if self._is_long(images):
            found, encode = np.empty((len(images), self.spec.latent_dim), np.float32), self._on_cpu.encode_latents
            self._in_threads(lambda part: (encode(part),), images, found)
            return found
        with torch.inference_mode():
            return _joined([self._model["encoder"](inputs) for inputs in self._batches(images)])

    def encode_and_score(self, images: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Latents (n, latent_dim), and the mean squared error per pixel on the [0, 1] scale (n,)."""
        import torch

        if self._is_long(images):
            found = np.empty((len(images), self.spec.latent_dim), np.float32), np.empty(len(images), np.float32)
            self._in_threads(self._scoring_on_cpu.encode_and_score, images, *found)
            return found
        latents, errors = [], []
        with torch.inference_mode():
            for inputs in self._batches(images):
                latents.append(self._model["encoder"](inputs))
                errors.append((self._model["decoder"](latents[-1]) - inputs).square().mean(dim=(1, 2, 3)))
            return _joined(latents), _joined(errors)

    def _is_long(self, images: NDArray[np.uint8]) -> bool:
        """Whether ONNX Runtime is to do it: it takes longer to start than torch takes for a batch, then less."""
        return self.device.type == "cpu" and len(images) > self.batch_size

    def _in_threads(
        self,
        work: Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], ...]],
        images: NDArray[np.uint8],
        *outputs: NDArray[np.float32],
    ) -> None:
        """Fill the rows of each output with what ``work`` finds; each thread takes the next part that is left."""
        import torch

        parts = iter(self._parts(images, max(1, self.batch_size // 4)))

        def take(_: int) -> None:
            for part in parts:
                for output, found in zip(outputs, work(images[part]), strict=True):
                    output[part] = found

        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            try:
                list(pool.map(take, range(threads)))
            finally:
                list(parts)  # interrupted, no thread finds another

    def hidden_differences(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What each layer of the encoder makes of an image, less what it makes of its reconstruction: (n, m) float32.

        The image itself, the output of each ReLU, and the latent, side by side (Kim et al. 2020); maps of more than
        512 numbers are averaged to fewer.
        """
        import torch

        def through(images: torch.Tensor) -> torch.Tensor:
            hidden, latents = _hidden(self._model["encoder"], images)
            return torch.cat([_averaged(images), *hidden, latents], dim=1)

        with torch.inference_mode():
            return _joined([through(x) - through(self._rebuild(x)) for x in self._batches(images)])

    def _rebuild(self, images: torch.Tensor) -> torch.Tensor:
        rebuilt: torch.Tensor = self._model["decoder"](self._model["encoder"](images))
        return rebuilt

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (n, channels, height, width) float32 in [0, 1] from latents (n, latent_dim).

        From features alone (n, feature_dim), without a style, the images come as the network thinks they lie upright.
        """
        import torch

        missing = self.spec.latent_dim - latents.shape[1]
        padded = np.pad(latents, ((0, 0), (0, missing))) if missing == self.spec.style_dim else latents
        whole = torch.from_numpy(np.ascontiguousarray(padded, dtype=np.float32))
        images = np.empty((len(whole), *self.spec.preprocessing.shape), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(whole), self.batch_size):
                part = slice(start, start + self.batch_size)
                images[part] = self._model["decoder"](whole[part].to(self.device)).clamp(0, 1).cpu().numpy()
        return images

    def _batches(self, images: NDArray[np.uint8]) -> Iterator[torch.Tensor]:
        import torch

        whole = torch.from_numpy(np.ascontiguousarray(images))
        for part in self._parts(images, self.batch_size):
            yield to_float(whole[part].to(self.device))

    def _parts(self, images: NDArray[np.uint8], size: int) -> list[slice]:
        """Batches of images that the encoder takes."""
        if images.shape[1:] != self.spec.preprocessing.shape or images.dtype != np.uint8:
            raise ValueError(
                f"images are {images.dtype} {images.shape[1:]}, the encoder takes uint8 {self.spec.preprocessing.shape}"
            )
        return [slice(start, start + size) for start in range(0, len(images), size)]


def _hidden(layers: nn.Module, inputs: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Output of each ReLU but one at the end, averaged and flat, and of the last layer."""
    from torch import nn

    kept, outputs = _followed(layers, inputs)
    if isinstance(list(layers.children())[-1], nn.ReLU):
        kept.pop()
    return [_averaged(maps) for maps in kept], outputs


def _followed(layers: nn.Module, inputs: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Output of each ReLU, of all branches, and of the last layer."""
    from torch import nn

    from aesearch.network.layers import Beside, Mirrored

    kept: list[torch.Tensor] = []
    parts = list(layers.children())
    for before, layer in zip([None, *parts], parts, strict=False):
        if isinstance(layer, Beside):
            branches = [_followed(branch, inputs) for branch in layer.branches]
            kept += [maps for found, _ in branches for maps in found]
            inputs = layer.join([output for _, output in branches])
            continue
        if isinstance(layer, Mirrored):
            found, output = _followed(layer.layers, inputs)
            kept, inputs = kept + found, layer.join(output, inputs)
            continue
        inputs = layer(inputs)
        if isinstance(layer, nn.ReLU):
            kept.append(inputs)
        elif isinstance(layer, nn.Unflatten) and isinstance(before, nn.ReLU):
            kept[-1] = inputs  # as the maps they become flat numbers can be averaged
    return kept, inputs


def _averaged(maps: torch.Tensor) -> torch.Tensor:
    """Flatten (n, c, h, w), averaged over areas so that each row has at most 512 numbers, or one of each channel."""
    from torch.nn import functional

    if maps.ndim == 4 and maps[0].numel() > HIDDEN_MOST:
        side = max(1, math.isqrt(HIDDEN_MOST // maps.shape[1]))
        height, width = maps.shape[2:]
        maps = functional.avg_pool2d(maps, (math.ceil(height / side), math.ceil(width / side)), ceil_mode=True)
    return maps.flatten(1)


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

    from aesearch.network.layers import Beside, Mirrored

    prepared: list[nn.Module] = []
    for layer in layers.children():
        if isinstance(layer, Beside):
            layer = Beside(*map(_prepare, layer.branches), added=layer.added)
        if isinstance(layer, Mirrored):
            layer = Mirrored(_prepare(layer.layers), layer.axis)
        if isinstance(layer, nn.BatchNorm2d):
            before: Any = prepared.pop()
            layer = fuse_conv_bn_eval(before, layer, transpose=isinstance(before, nn.ConvTranspose2d))
        prepared.append(layer)
    return nn.Sequential(*prepared)
