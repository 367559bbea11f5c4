"""The networks, layer for layer where a source is reproduced, and at any size."""

import numpy as np
import pytest
import torch
from torch import nn

from aesearch.errors import AesearchError
from aesearch.images.decode import Preprocessing
from aesearch.network.architectures import ARCHITECTURES, AutoencoderSpec, build_autoencoder, count_parameters
from aesearch.network.autoencoder import Autoencoder

MNIST = Preprocessing(28, 28, 1)


def shapes(layers, inputs):
    """Shape of one image after each layer that changes it."""
    seen = [tuple(inputs.shape[1:])]
    for layer in layers:
        inputs = layer(inputs)
        if tuple(inputs.shape[1:]) != seen[-1]:
            seen.append(tuple(inputs.shape[1:]))
    return seen


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (8, 8), (28, 28), (33, 64), (96, 17)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_any_size_comes_back_as_it_went_in(size, channels, arch):
    spec = AutoencoderSpec.choose(arch, Preprocessing(*size, channels))
    autoencoder = Autoencoder(build_autoencoder(spec).eval(), spec, "cpu")
    images = np.random.default_rng(0).integers(0, 255, (3, channels, *size), dtype=np.uint8)
    features = autoencoder.encode(images)
    assert features.shape == (3, spec.feature_dim) and features.dtype == np.float32
    rebuilt = autoencoder.decode(features)
    assert rebuilt.shape == images.shape and 0 <= rebuilt.min() <= rebuilt.max() <= 1


ENCODERS = {
    "conv-pool": [(1, 28, 28), (16, 28, 28), (16, 14, 14), (32, 14, 14), (32, 7, 7), (1568,), (64,)],
    "conv-stride": [(1, 28, 28), (32, 14, 14), (64, 7, 7), (128, 4, 4), (2048,), (64,)],
    "conv-spatial": [(1, 28, 28), (32, 10, 10), (32, 5, 5), (64, 3, 3), (64, 2, 2), (256,)],
    "mlp": [(1, 28, 28), (784,), (128,), (64,), (3,)],
    "linear": [(1, 28, 28), (784,), (10,)],
}
DECODERS = {
    "conv-pool": [(64,), (1568,), (32, 7, 7), (16, 14, 14), (1, 28, 28)],
    "conv-stride": [(64,), (2048,), (128, 4, 4), (64, 7, 7), (32, 14, 14), (1, 28, 28)],
    "conv-spatial": [(256,), (64, 2, 2), (32, 5, 5), (16, 15, 15), (1, 28, 28)],
    "mlp": [(3,), (64,), (128,), (784,), (1, 28, 28)],
    "linear": [(10,), (784,), (1, 28, 28)],
}


@pytest.mark.parametrize("arch", ENCODERS)
def test_the_sources_networks_layer_for_layer(arch):
    spec = AutoencoderSpec.choose(arch, MNIST, {"mlp": 3, "linear": 10}.get(arch))
    model = build_autoencoder(spec)
    assert shapes(model["encoder"], torch.rand(2, 1, 28, 28)) == ENCODERS[arch]
    assert shapes(model["decoder"], torch.rand(2, spec.latent_dim)) == DECODERS[arch]


CONV_DOWN = 160 + 4608 + 64 + 18432 + 128 + 64 * 1025
CONV_UP = 512 * 65 + 2048 * 513 + 110592 + 192 + 16 * 865


@pytest.mark.parametrize(
    ("arch", "latent_dim", "parameters"),
    [
        ("conv-pool", 64, 160 + 4640 + 64 * 1569 + 1568 * 65 + (32 * 16 * 4 + 16) + (16 * 4 + 1)),
        ("conv-stride", 10, 320 + 18496 + 73856 + 10 * 2049 + 2048 * 11 + (73728 + 64) + (18432 + 32) + (288 + 1)),
        ("conv-spatial", None, 50_161),
        ("mlp", 3, 218_643),
        ("linear", 10, 2 * 784 * 10),
        ("conv", 64, CONV_DOWN + CONV_UP),
    ],
)
def test_parameters_are_counted(arch, latent_dim, parameters):
    assert count_parameters(build_autoencoder(AutoencoderSpec.choose(arch, MNIST, latent_dim))) == parameters


def test_tanh_works_on_minus_one_to_one_inside_only():
    model = build_autoencoder(AutoencoderSpec.choose("mlp", MNIST, 3, output="tanh"))
    seen = []
    model["encoder"][1].register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    rebuilt = model["decoder"](model["encoder"](torch.linspace(0, 1, 784).reshape(1, 1, 28, 28)))
    assert seen[0].min() == -1 and seen[0].max() == 1
    assert 0 <= rebuilt.min() and rebuilt.max() <= 1
    assert any(isinstance(layer, nn.Tanh) for layer in model["decoder"])  # type: ignore[attr-defined]


def test_what_is_not_said_is_chosen_by_the_images():
    assert AutoencoderSpec.choose("conv", MNIST).latent_dim == 64
    assert AutoencoderSpec.choose("conv", MNIST).widths == (16, 32, 64)
    assert AutoencoderSpec.choose("conv", Preprocessing(8, 8, 1)).widths == (16, 64)
    assert AutoencoderSpec.choose("conv", Preprocessing(128, 96, 3)).widths == (16, 32, 64, 128, 128)
    assert AutoencoderSpec.choose("conv", MNIST).style_dim == 16
    assert AutoencoderSpec.choose("conv", MNIST, 15).style_dim == 0
    assert AutoencoderSpec.choose("conv-stride", MNIST).style_dim == 0
    assert AutoencoderSpec.choose("conv", Preprocessing(8, 8, 1)).latent_dim == 32
    assert AutoencoderSpec.choose("conv-spatial", MNIST).latent_dim == 256
    pictures, shapes = (AutoencoderSpec.choose("pooled", Preprocessing(64, 64, 3), fields=f) for f in (1, 0))
    assert (pictures.feature_dim, pictures.style_dim, pictures.patch_dim, pictures.fields) == (160, 64, 96, 1)
    assert (shapes.feature_dim, shapes.style_dim, shapes.patch_dim, shapes.fields) == (96, 96, 0, 2)


@pytest.mark.parametrize(
    ("arch", "settings", "message"),
    [
        ("resnet", {}, "there is: conv, pooled"),
        ("conv", {"latent_dim": 0}, "must be 1 or more"),
        ("conv", {"widths": ()}, "must be 1 or more"),
        ("mlp", {"output": "softmax"}, "there is: sigmoid, tanh, identity"),
        ("conv-spatial", {"latent_dim": 64}, "have 256 features, not 64"),
        ("conv-spatial", {"widths": (8,)}, "takes 2 widths, not 1"),
        ("linear", {"widths": (8,)}, "takes 0 widths, not 1"),
    ],
)
def test_what_cannot_be_built_is_refused(arch, settings, message):
    with pytest.raises(AesearchError, match=message):
        AutoencoderSpec.choose(arch, MNIST, **settings)
