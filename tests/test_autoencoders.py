"""Networks of any size, saved and loaded; the folded network gives the trained one's numbers."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aesearch.autoencoders import (
    ARCHITECTURES,
    Autoencoder,
    AutoencoderSpec,
    build_autoencoder,
    count_parameters,
    default_latent_dim,
    default_widths,
    load_autoencoder,
    pick_device,
    save_autoencoder,
)
from aesearch.decoding import Preprocessing
from aesearch.errors import AesearchError


def make(height=28, width=28, channels=1, latent_dim=16, widths=(8, 16), arch="conv"):
    spec = AutoencoderSpec(arch, latent_dim, widths, Preprocessing(height, width, channels))
    torch.manual_seed(0)
    model = build_autoencoder(spec)
    model.train()
    for _ in range(3):  # give batch norm statistics that matter
        model["decoder"](model["encoder"](torch.rand(16, channels, height, width)))
    return model.eval(), spec


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 5), (8, 8), (28, 28), (33, 64), (96, 17)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_any_size_comes_back_as_it_went_in(size, channels, arch):
    preprocessing = Preprocessing(*size, channels)
    widths = default_widths(arch, preprocessing)
    spec = AutoencoderSpec(arch, default_latent_dim(preprocessing), widths, preprocessing)
    autoencoder = Autoencoder(build_autoencoder(spec).eval(), spec, "cpu")
    images = np.random.default_rng(0).integers(0, 255, (3, channels, *size), dtype=np.uint8)
    features = autoencoder.encode(images)
    assert features.shape == (3, spec.latent_dim) and features.dtype == np.float32
    rebuilt = autoencoder.decode(features)
    assert rebuilt.shape == images.shape and 0 <= rebuilt.min() <= rebuilt.max() <= 1


def test_the_default_network_on_mnist_s_size():
    preprocessing = Preprocessing(28, 28, 1)
    assert default_latent_dim(preprocessing) == 64
    assert default_widths("conv", preprocessing) == (16, 32, 64)
    assert default_latent_dim(Preprocessing(8, 8, 1)) == 32


@pytest.mark.parametrize(("height", "width", "channels"), [(28, 28, 1), (27, 30, 1), (9, 13, 3)])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_the_network_prepared_for_inference_gives_the_trained_one_s_numbers(height, width, channels, arch):
    model, spec = make(height, width, channels, arch=arch)
    images = np.random.default_rng(0).integers(0, 255, (20, channels, height, width), dtype=np.uint8)
    folded = Autoencoder(model, spec, "cpu")
    with torch.inference_mode():
        inputs = torch.from_numpy(images).float() / 255
        latent = model["encoder"](inputs)
        rebuilt = model["decoder"](latent)
    features, errors = folded.encode_and_score(images)
    assert np.allclose(features, latent.numpy(), atol=1e-5)
    assert np.allclose(errors, ((rebuilt - inputs) ** 2).mean(dim=(1, 2, 3)).numpy(), atol=1e-6)
    assert np.allclose(folded.decode(features), rebuilt.numpy(), atol=1e-5)


def test_the_batch_size_changes_nothing():
    autoencoder = Autoencoder(*make(), "cpu")
    images = np.random.default_rng(0).integers(0, 255, (40, 1, 28, 28), dtype=np.uint8)
    whole = autoencoder.encode(images)
    autoencoder.batch_size = 7
    parts = autoencoder.encode(images)
    assert np.allclose(whole, parts, atol=1e-6)


def test_saving_and_loading_keeps_every_weight(tmp_path):
    model, spec = make()
    save_autoencoder(tmp_path / "encoder.safetensors", model, spec)
    again, spec_again = load_autoencoder(tmp_path / "encoder.safetensors")
    assert spec_again == spec
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])
    with safe_open(tmp_path / "encoder.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["aesearch"])["spec"]["arch"] == "conv"


def test_files_that_are_no_encoder_are_one_line(tmp_path):
    path = tmp_path / "encoder.safetensors"
    with pytest.raises(AesearchError, match="no encoder"):
        load_autoencoder(path)
    path.write_bytes(b"nothing at all")
    with pytest.raises(AesearchError, match="damaged"):
        load_autoencoder(path)
    save_file({"x": torch.zeros(2)}, path)
    with pytest.raises(AesearchError, match="damaged"):
        load_autoencoder(path)
    model, spec = make()
    document = {"format_version": 1, "spec": spec.to_json() | {"latent_dim": 17}}
    save_file(dict(model.state_dict()), path, metadata={"aesearch": json.dumps(document)})
    with pytest.raises(AesearchError, match="damaged"):
        load_autoencoder(path)


def test_unknown_names_are_refused():
    with pytest.raises(AesearchError, match="resnet"):
        AutoencoderSpec("resnet", 4, (8,), Preprocessing(8, 8, 1))
    with pytest.raises(AesearchError, match="not available"):
        pick_device("abacus")


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="the encoder takes"):
        Autoencoder(*make(), "cpu").encode(np.zeros((1, 3, 28, 28), np.uint8))


def test_parameters_are_counted():
    model, _ = make(8, 8, 1, 4, (2, 3))
    encoder = (9 * 2 + 2) + (2 * 9 * 3 + 2 * 3) + (3 * 4 * 4 + 4)  # conv, conv and norm, linear
    decoder = (4 * 12 + 12) + (3 * 9 * 16 + 16)  # linear, conv to 4 x 4 sub-pixels
    assert count_parameters(model) == encoder + decoder


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_cpu_s_features():
    model, spec = make()
    images = np.random.default_rng(0).integers(0, 255, (50, 1, 28, 28), dtype=np.uint8)
    cpu = Autoencoder(model, spec, "cpu").encode(images)
    assert np.allclose(Autoencoder(model, spec, "cuda").encode(images), cpu, atol=1e-3)
