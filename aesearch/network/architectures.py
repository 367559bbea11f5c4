"""The networks, by name, each with the way its source trains it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aesearch.errors import AesearchError, did_you_mean
from aesearch.images.decode import MOST_SIDE, Preprocessing, halvings

if TYPE_CHECKING:
    from torch import nn

    Halves = tuple[list[nn.Module], list[nn.Module]]  # layers of the encoder, and of the decoder up to its output

FIRST_WIDTH, LEAST_LAST, WIDEST = 16, 64, 128  # channels of conv's encoder
WIDER_BACK = 3  # conv's decoder, which search never runs, has so many times its channels, up to the widest
MOST_NUMBERS, MOST_STAGES = 65_536, 16  # of a latent or a stage; of stages
HIDDEN = 512  # units of conv's decoder between latent and maps
LEAST_TO_PART = 16  # latent numbers; of fewer none can be spared for a style
LEARNED, OF_PATCHES, OF_PATCHES_ALONE = 64, 96, 128  # features of pooled
STYLE_OF_PICTURES = 64  # numbers that keep how a picture looks
PATCH_SIDE, PATCH_STRIDE, TINY = 6, 2, 12  # pixels; of images that are tiny the patches are smaller, and at every pixel
ATOMS, SPARSE = 1000, 1.5  # patches to compare with; deviations above the mean that a likeness must have
ATOMS_OF_FIELDS, SPARSE_OF_FIELDS, SMOOTH = 400, 1.0, 64  # of several fields, and numbers a place that are averaged
WIDTHS_OF_SHAPES, FIELDS_OF_SHAPES = (32, 64, 96), 2  # of pooled without patches: where a stroke lies says what it is
STYLE_OF_SHAPES = 96  # numbers: what is a shape, sharp to the pixel, takes more of them
FIELDS, MOST_FIELDS = 3, 8  # a side, where it matters what lies where
FIRST_MAPS = 16  # places a side, about, that the first convolution of pooled leaves
SPATIAL_LEAST = 16  # pixels a side that conv-spatial's strides and pools leave something of
OUTPUTS = ("sigmoid", "tanh", "identity", "clamp")
MIRRORS = {"mirrored": (3,), "flipped": (2,), "both": (2, 3)}  # mirror images to average features over: their axes


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes
    ----------
    loss, optimizer, learning_rate
        As in `aesearch.network.options.TrainingOptions`.
    schedule : {"one-cycle", "constant"}
        Course of the learning rate.
    invariance : str
        What the network learns to undo.
    batch_size, epochs : int
        Of an architecture, 0 means by the number of images.
    orientations : tuple of str
        Orientations as good as upright, in which images are shown too.
    """

    loss: str = "mse"
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    invariance: str = "none"
    batch_size: int = 128
    epochs: int = 10
    orientations: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """One kind of network.

    Attributes
    ----------
    build : callable
        From a spec to the layers of encoder and decoder.
    recipe : Recipe
    widths : tuple of int, optional
        Channels or units of its stages; ``None``: by the size of the images.
    output : str
        One of ``OUTPUTS``. With ``tanh`` the network works on [-1, 1], inside.
    """

    build: Callable[[AutoencoderSpec], Halves]
    recipe: Recipe = Recipe()
    widths: tuple[int, ...] | None = None
    output: str = "sigmoid"


@dataclass(frozen=True)
class AutoencoderSpec:
    """Everything that says which network it is; stored as JSON beside the weights.

    Attributes
    ----------
    arch : str
        A key of ``ARCHITECTURES``.
    latent_dim : int
        Numbers an image is encoded to.
    widths : tuple of int
        Channels or units of the encoder's stages, first to last.
    preprocessing : Preprocessing
        What every image goes through first.
    output : str
        What the decoder ends with, one of ``OUTPUTS``.
    style_dim : int
        How many of the latent's numbers, the last ones, keep how an image looks; the others are its features.
    patch_dim : int
        How many of the features, the first ones, come from patches; of ``pooled``.
    fields : int
        Patches are averaged over so many fields a side; without patches, what the network gives.
    mirror : str
        A key of ``MIRRORS``: features are averaged over an image and its mirror images. Empty: of it alone.
    """

    arch: str
    latent_dim: int
    widths: tuple[int, ...]
    preprocessing: Preprocessing
    output: str = "sigmoid"
    style_dim: int = 0
    patch_dim: int = 0
    fields: int = 1
    mirror: str = ""

    def __post_init__(self) -> None:
        if self.output not in OUTPUTS:
            raise AesearchError(f"no output {self.output!r}; there is: {', '.join(OUTPUTS)}")
        fixed = architecture(self.arch).widths
        no_stage_needed = fixed == () or self.arch == "pooled"
        if self.latent_dim < 1 or min(self.widths, default=1) < 1 or not (self.widths or no_stage_needed):
            raise AesearchError(f"latent size {self.latent_dim} and widths {self.widths} must be 1 or more")
        pixels = self.preprocessing
        if max(self.latent_dim, *self.widths, 0) > MOST_NUMBERS or len(self.widths) > MOST_STAGES:
            raise AesearchError(f"latent size and widths are {MOST_NUMBERS:,} at most, and of {MOST_STAGES} stages")
        if not (0 < pixels.height <= MOST_SIDE and 0 < pixels.width <= MOST_SIDE and pixels.channels in (1, 3)):
            raise AesearchError(f"an encoder's input cannot be {pixels}")
        if not 0 <= self.style_dim < self.latent_dim:
            raise AesearchError(f"--style-dim {self.style_dim} leaves no features of {self.latent_dim} latent numbers")
        if self.mirror and (self.arch != "pooled" or self.mirror not in MIRRORS):
            raise AesearchError(f"pooled alone averages over {', '.join(MIRRORS)}; not {self.arch} over {self.mirror}")
        if self.arch == "pooled":
            self._check_pooled()
        if self.arch in ("conv-spatial", "linear") and fixed is not None and len(self.widths) != len(fixed):
            raise AesearchError(f"{self.arch} takes {len(fixed)} widths, not {len(self.widths)}")
        if self.arch == "conv-spatial" and self.latent_dim != (
            size := _spatial_latent(self.widths, self.preprocessing)
        ):
            raise AesearchError(
                f"conv-spatial has no linear layer: images of this size have {size} features, not {self.latent_dim}"
            )

    def _check_pooled(self) -> None:
        if not self.style_dim:
            raise AesearchError("pooled rebuilds images from its style: --style-dim 1 or more")
        if self.output != "clamp":
            raise AesearchError(f"pooled has the output clamp, not {self.output}")
        if not 0 <= self.patch_dim <= self.feature_dim or not 1 <= self.fields <= MOST_FIELDS:
            raise AesearchError(f"of {self.feature_dim} features {self.patch_dim} cannot come from patches")
        if not (self.patch_dim or self.widths):
            raise AesearchError("pooled has neither patches nor a network")

    @classmethod
    def choose(
        cls,
        arch: str,
        preprocessing: Preprocessing,
        latent_dim: int | None = None,
        widths: tuple[int, ...] | None = None,
        output: str | None = None,
        style_dim: int | None = None,
        rows: int = 1_000_000,
        fields: int = 1,
        mirror: str = "",
    ) -> AutoencoderSpec:
        """Fill in what is not given: the architecture's own, or what suits so many images, ``rows``.

        ``fields`` a side are for patches of ``pooled``, with 0 it has none; ``mirror`` is of ``pooled`` too.
        """
        kind = architecture(arch)
        if widths is None:
            widths = _widths_for(preprocessing) if kind.widths is None else kind.widths
            widths = WIDTHS_OF_SHAPES if arch == "pooled" and not fields else widths
        output = output or kind.output
        if arch == "pooled":
            spec = cls._choose_pooled(preprocessing, latent_dim, widths, output, style_dim, rows, fields)
            return dataclasses.replace(spec, mirror=mirror)
        if latent_dim is None:
            latent_dim = (
                _spatial_latent(widths, preprocessing) if arch == "conv-spatial" else _latent_for(preprocessing)
            )
        if style_dim is None:
            style_dim = latent_dim // 4 if kind.recipe.invariance != "none" and latent_dim >= LEAST_TO_PART else 0
        return cls(arch, latent_dim, widths, preprocessing, output, style_dim)

    @classmethod
    def _choose_pooled(
        cls,
        preprocessing: Preprocessing,
        latent_dim: int | None,
        widths: tuple[int, ...],
        output: str,
        style_dim: int | None,
        rows: int,
        fields: int,
    ) -> AutoencoderSpec:
        shapes = bool(widths) and not fields
        most = min(preprocessing.pixels, max(2, rows // 4))
        style = min(STYLE_OF_SHAPES if shapes else STYLE_OF_PICTURES, most)
        style = min(style, max(1, latent_dim // 4)) if latent_dim else style
        style = style if style_dim is None else style_dim
        if shapes:
            learned, of_patches, fields = min(most, widths[-1]), 0, FIELDS_OF_SHAPES
        else:
            learned = min(LEARNED, most, widths[-1]) if widths else 0
            of_patches = min(OF_PATCHES, most) if widths else min(OF_PATCHES_ALONE, 2 * most)
        latent = learned + of_patches + style if latent_dim is None else latent_dim
        patches = (latent - style) * of_patches // (learned + of_patches)
        return cls("pooled", latent, widths, preprocessing, output, style, patches, max(1, fields))

    @property
    def rebuilt_from(self) -> int:
        """Numbers that the decoder reads: the style alone where the features are no part of a picture."""
        return self.style_dim if self.arch == "pooled" else self.latent_dim

    @property
    def feature_dim(self) -> int:
        """Numbers in one feature vector."""
        return self.latent_dim - self.style_dim

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
            output=document.get("output", "sigmoid"),
            style_dim=document.get("style_dim", 0),
            patch_dim=document.get("patch_dim", 0),
            fields=document.get("fields", 1),
            mirror=document.get("mirror", ""),
        )


def architecture(name: str) -> Architecture:
    """The architecture of that name; `AesearchError` names those there are."""
    if name not in ARCHITECTURES:
        raise AesearchError(
            f"no architecture {name!r}, there is: {', '.join(ARCHITECTURES)}{did_you_mean(name, list(ARCHITECTURES))}"
        )
    return ARCHITECTURES[name]


def _latent_for(preprocessing: Preprocessing) -> int:
    """64, or less for tiny images: half the pixels, as a power of two."""
    return int(2 ** round(math.log2(min(64, max(2, preprocessing.pixels / 2)))))


def _widths_for(preprocessing: Preprocessing) -> tuple[int, ...]:
    """16, 32, 64, 128, 128, … channels, one for each halving down to about 4×4."""
    stages = halvings(preprocessing.height, preprocessing.width)
    widths = [min(FIRST_WIDTH * 2**stage, WIDEST) for stage in range(stages)]
    return (*widths[:-1], max(LEAST_LAST, widths[-1]))


def build_autoencoder(spec: AutoencoderSpec) -> nn.ModuleDict:
    """Make the network, its weights drawn from torch's global generator.

    Returns
    -------
    nn.ModuleDict
        With ``encoder``: (n, c, h, w) float32 in [0, 1] to (n, latent_dim), and ``decoder``: back again.
    """
    from torch import nn

    from aesearch.network.layers import Clamp, Scale

    encoder, decoder = architecture(spec.arch).build(spec)
    signed = spec.output == "tanh"
    ends: dict[str, list[nn.Module]] = {
        "sigmoid": [nn.Sigmoid()],
        "tanh": [nn.Tanh(), Scale(0.5, 0.5)],
        "identity": [],
        "clamp": [Clamp()],
    }
    starts = [Scale(2.0, -1.0)] if signed else []
    return nn.ModuleDict(
        {"encoder": nn.Sequential(*starts, *encoder), "decoder": nn.Sequential(*decoder, *ends[spec.output])}
    )


def count_parameters(model: nn.Module) -> int:
    """Trainable numbers in the network."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _halved(spec: AutoencoderSpec, stages: int | None = None) -> list[tuple[int, int]]:
    """Sizes of the maps: the image's, and after each stride of 2."""
    sizes = [(spec.preprocessing.height, spec.preprocessing.width)]
    for _ in range(len(spec.widths) if stages is None else stages):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


def _doubling(before: int, after: int, small: tuple[int, int], large: tuple[int, int], *, bias: bool) -> nn.Module:
    """3×3 transposed convolution of stride 2 from maps of one size to those of the other."""
    from torch import nn

    padding = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
    return nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=padding, bias=bias)


def _conv(spec: AutoencoderSpec) -> Halves:
    """Stride-2 3×3 convolutions with batch norm, one linear layer to the latent; back as `_up` does."""
    from torch import nn

    down: list[nn.Module] = [nn.Conv2d(spec.preprocessing.channels, spec.widths[0], 3, 2, 1), nn.ReLU(inplace=True)]
    for before, after in itertools.pairwise(spec.widths):
        down += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    down += [nn.Flatten(), nn.Linear(spec.widths[-1] * math.prod(_halved(spec)[-1]), spec.latent_dim)]
    return down, _up(spec)


def _up(spec: AutoencoderSpec) -> list[nn.Module]:
    """Two linear layers to maps of the smallest size, and transposed convolutions, wider than conv's encoder.

    The last two halvings are undone at once, as sub-pixels (Shi et al. 2016): on a CPU transposed
    convolutions to few channels and batch norm of the largest maps would take most of the time.
    """
    from torch import nn

    channels, height, width = spec.preprocessing.shape
    widths = spec.widths if spec.arch == "conv" else _widths_for(spec.preprocessing)
    sizes = _halved(spec, len(widths))
    *wider, last = (max(width, min(WIDER_BACK * width, WIDEST)) for width in widths)
    up: list[nn.Module] = [nn.Linear(spec.rebuilt_from, HIDDEN), nn.ReLU(inplace=True)]
    up += _to_maps(HIDDEN, (last, *sizes[-1]))
    at_once = min(2, len(widths))
    back = (last, *wider[: at_once - 2 : -1])
    for stage, (before, after) in enumerate(itertools.pairwise(back)):
        up.append(_doubling(before, after, sizes[-1 - stage], sizes[-2 - stage], bias=False))
        up += [nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    share, (rows, columns) = 2**at_once, sizes[at_once]
    up += [nn.Conv2d(back[-1], channels * share**2, 3, padding=1), nn.PixelShuffle(share)]
    up.append(_crop(share * rows, share * columns, height, width))
    return up


def _pooled(spec: AutoencoderSpec) -> Halves:
    """Likenesses to patches beside a small network, both averaged over the image, and the image's PCA.

    The PCA, and when the network is trained its last matrix and the patches, are found in closed form
    (`aesearch.network.patches`). The decoder adds to what the PCA gives back what convolutions find lacking in it.
    """
    from torch import nn

    from aesearch.network.layers import Beside, Fields, Last

    branches = [_patches(spec)] if spec.patch_dim else []
    if spec.widths:
        trunk, sizes = _trunk(spec)
        places = Fields(*sizes, 1 if spec.patch_dim else spec.fields)
        last = nn.Linear(spec.widths[-1] * places.shares.shape[1], spec.feature_dim - spec.patch_dim)
        branches.append(_branch(spec, [*trunk, places, nn.Flatten()], last))
    pixels = math.prod(spec.preprocessing.shape)
    branches.append(nn.Sequential(nn.Flatten(), nn.Linear(pixels, spec.style_dim)))
    back = [nn.Sequential(nn.Linear(spec.style_dim, pixels), nn.Unflatten(1, spec.preprocessing.shape))]
    if spec.widths:
        back.append(nn.Sequential(*_up(spec)))
    return [Beside(*branches)], [Last(spec.style_dim), Beside(*back, added=True)]


def _patches(spec: AutoencoderSpec) -> nn.Sequential:
    """Likenesses to patches, averaged over the image or its fields, as so many numbers."""
    from torch import nn

    from aesearch.network.layers import Fields, PatchCodes, Unit

    channels, height, width = spec.preprocessing.shape
    tiny = min(height, width) <= TINY
    side = min(height, width, PATCH_SIDE - 2 * tiny)
    stride = 1 if tiny else PATCH_STRIDE
    rows, columns = ((length - side) // stride + 1 for length in (height, width))
    fields = Fields(rows, columns, spec.fields)
    one = spec.fields == 1
    atoms, sparse = (ATOMS, SPARSE) if one else (ATOMS_OF_FIELDS, SPARSE_OF_FIELDS)
    layers: list[nn.Module] = [PatchCodes(channels, channels * side**2, atoms, side, stride, sparse)]
    layers += [] if one else [nn.Conv2d(atoms, SMOOTH, 1), Unit()]
    numbers = (atoms if one else SMOOTH) * fields.shares.shape[1]
    return _branch(spec, [*layers, fields, nn.Flatten()], nn.Linear(numbers, spec.patch_dim))


def _branch(spec: AutoencoderSpec, layers: list[nn.Module], last: nn.Module) -> nn.Sequential:
    """Layers, averaged with what they give for mirror images if there are any, then a matrix, then length 1."""
    from torch import nn

    from aesearch.network.layers import Mirrored, Unit

    for axis in MIRRORS.get(spec.mirror, ()):
        layers = [Mirrored(nn.Sequential(*layers), axis)]
    return nn.Sequential(*layers, last, Unit())


def _trunk(spec: AutoencoderSpec) -> tuple[list[nn.Module], tuple[int, int]]:
    """Convolutions with batch norm: one to maps of about 16×16, then 3×3, halved at each width but the first.

    Returns
    -------
    list of nn.Module
    (int, int)
        Height and width of the last maps.
    """
    from torch import nn

    channels, *sizes = spec.preprocessing.shape
    stride = max(1, round(math.sqrt(math.prod(sizes)) / FIRST_MAPS))
    shape = [(channels, spec.widths[0], stride + 2, stride)]
    for before, after in itertools.pairwise((spec.widths[0], *spec.widths)):
        shape += [(before, after, 3, 2), (after, after, 3, 1)]
    del shape[1]  # of the first width the first convolution makes the maps already
    layers: list[nn.Module] = []
    for before, after, side, step in shape:
        layers += [nn.Conv2d(before, after, side, step, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        sizes = [(length + 2 - side) // step + 1 for length in sizes]
    return layers, (sizes[0], sizes[1])


def _to_maps(latent_dim: int, bottom: tuple[int, int, int]) -> list[nn.Module]:
    from torch import nn

    return [nn.Linear(latent_dim, math.prod(bottom)), nn.ReLU(inplace=True), nn.Unflatten(1, bottom)]


def _crop(height: int, width: int, to_height: int, to_width: int) -> nn.Module:
    """Cut rows below and columns to the right that an image of an odd size does not have."""
    from torch import nn

    return nn.ZeroPad2d((0, to_width - width, 0, to_height - height))


def _conv_pool(spec: AutoencoderSpec) -> Halves:
    """3×3 convolutions and max pooling, a linear layer with ReLU; 2×2 transposed convolutions back."""
    from torch import nn

    channels, height, width = spec.preprocessing.shape
    down: list[nn.Module] = []
    for before, after in itertools.pairwise((channels, *spec.widths)):
        down += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, ceil_mode=True)]
    share = 2 ** len(spec.widths)
    bottom = (spec.widths[-1], math.ceil(height / share), math.ceil(width / share))
    down += [nn.Flatten(), nn.Linear(math.prod(bottom), spec.latent_dim), nn.ReLU(inplace=True)]
    up = _to_maps(spec.latent_dim, bottom)
    for before, after in itertools.pairwise((*spec.widths[::-1], channels)):
        up += [nn.ConvTranspose2d(before, after, 2, 2), nn.ReLU(inplace=True)]
    up[-1] = _crop(share * bottom[1], share * bottom[2], height, width)
    return down, up


def _conv_stride(spec: AutoencoderSpec) -> Halves:
    """3×3 convolutions of stride 2, a linear layer to the latent; mirrored back."""
    from torch import nn

    channels, sizes = spec.preprocessing.channels, _halved(spec)
    bottom = (spec.widths[-1], *sizes[-1])
    down: list[nn.Module] = []
    for before, after in itertools.pairwise((channels, *spec.widths)):
        down += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU(inplace=True)]
    down += [nn.Flatten(), nn.Linear(math.prod(bottom), spec.latent_dim)]
    up = _to_maps(spec.latent_dim, bottom)
    for stage, (before, after) in enumerate(itertools.pairwise((*spec.widths[::-1], channels))):
        up += [_doubling(before, after, sizes[-1 - stage], sizes[-2 - stage], bias=True), nn.ReLU(inplace=True)]
    return down, up[:-1]


def _conv_spatial(spec: AutoencoderSpec) -> Halves:
    """Strides and pools down to maps that are the features themselves: no linear layer.

    Sizes other than 28×28 do not come out even: what the last layer gives is resized to the image's.
    """
    from torch import nn

    channels, height, width = spec.preprocessing.shape
    first, second = spec.widths
    inside = (max(SPATIAL_LEAST, height), max(SPATIAL_LEAST, width))
    bottom = _spatial_bottom(spec.preprocessing)
    down: list[nn.Module] = [] if inside == (height, width) else [nn.Upsample(inside, mode="bilinear")]
    down += [nn.Conv2d(channels, first, 3, 3, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    down += [nn.Conv2d(first, second, 3, 2, 1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 1), nn.Flatten()]
    up: list[nn.Module] = [nn.Unflatten(1, (second, *bottom))]
    up += [nn.ConvTranspose2d(second, first, 3, 2), nn.ReLU(inplace=True)]
    up += [nn.ConvTranspose2d(first, first // 2, 5, 3, 1), nn.ReLU(inplace=True)]
    up.append(nn.ConvTranspose2d(first // 2, channels, 2, 2, 1))
    grown = tuple(6 * (2 * side + 1) - 2 for side in bottom)
    return down, up if grown == (height, width) else [*up, nn.Upsample((height, width), mode="bilinear")]


def _spatial_bottom(preprocessing: Preprocessing) -> tuple[int, int]:
    def left_of(side: int) -> int:
        strided = (max(SPATIAL_LEAST, side) - 1) // 3 + 1
        return (strided // 2 - 1) // 2

    return left_of(preprocessing.height), left_of(preprocessing.width)


def _spatial_latent(widths: tuple[int, ...], preprocessing: Preprocessing) -> int:
    return widths[-1] * math.prod(_spatial_bottom(preprocessing))


def _mlp(spec: AutoencoderSpec) -> Halves:
    """Fully connected layers with ReLU, narrowing to the latent; mirrored back."""
    from torch import nn

    shape = spec.preprocessing.shape
    units = (math.prod(shape), *spec.widths, spec.latent_dim)
    down: list[nn.Module] = [nn.Flatten()]
    up: list[nn.Module] = []
    for layers, sizes in ((down, units), (up, units[::-1])):
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU(inplace=True)]
        layers.pop()
    return down, [*up, nn.Unflatten(1, shape)]


def _linear(spec: AutoencoderSpec) -> Halves:
    """One matrix down, one back, no bias: at its best it spans what PCA spans (Baldi & Hornik 1989)."""
    from torch import nn

    shape = spec.preprocessing.shape
    down = [nn.Flatten(), nn.Linear(math.prod(shape), spec.latent_dim, bias=False)]
    return down, [nn.Linear(spec.latent_dim, math.prod(shape), bias=False), nn.Unflatten(1, shape)]


ARCHITECTURES = {
    "conv": Architecture(
        _conv,
        Recipe(learning_rate=3e-3, schedule="one-cycle", invariance="strong", batch_size=0, epochs=0),
    ),
    "pooled": Architecture(
        _pooled,
        Recipe(
            optimizer="adamw", learning_rate=3e-3, schedule="one-cycle", invariance="pictures", batch_size=0, epochs=0
        ),
        widths=(32, 64, 128),
        output="clamp",
    ),
    "conv-pool": Architecture(_conv_pool, Recipe(loss="bce"), widths=(16, 32)),
    "conv-stride": Architecture(_conv_stride, widths=(32, 64, 128)),
    "conv-spatial": Architecture(_conv_spatial, Recipe(optimizer="adamw", epochs=5), widths=(32, 64), output="tanh"),
    "mlp": Architecture(_mlp, Recipe(learning_rate=5e-3, batch_size=256), widths=(128, 64)),
    "linear": Architecture(_linear, widths=(), output="identity"),
}
