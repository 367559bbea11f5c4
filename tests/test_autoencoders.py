"""Networks of any size, saved and loaded; the folded network gives the trained one's numbers."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from aesearch.errors import AesearchError
from aesearch.images.decode import Preprocessing
from aesearch.network.architectures import ARCHITECTURES, AutoencoderSpec, build_autoencoder
from aesearch.network.autoencoder import FORMAT_VERSION, Autoencoder, load_autoencoder, pick_device, save_autoencoder


def make(height=28, width=28, channels=1, latent_dim=None, widths=None, arch="conv"):
    spec = AutoencoderSpec.choose(arch, Preprocessing(height, width, channels), latent_dim, widths)
    torch.manual_seed(0)
    model = build_autoencoder(spec)
    model.train()
    for _ in range(3):  # give batch norm statistics that matter
        model["decoder"](model["encoder"](torch.rand(16, channels, height, width)))
    return model.eval(), spec


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
    assert np.allclose(folded.decode(features), rebuilt.clamp(0, 1).numpy(), atol=1e-5)


def test_the_batch_size_changes_nothing():
    autoencoder = Autoencoder(*make(), "cpu")
    images = np.random.default_rng(0).integers(0, 255, (40, 1, 28, 28), dtype=np.uint8)
    whole = autoencoder.encode(images)
    autoencoder.batch_size = 7
    parts = autoencoder.encode(images)
    assert np.allclose(whole, parts, atol=1e-6)
    decoded = autoencoder.decode(whole)
    autoencoder.batch_size = 64
    assert np.allclose(autoencoder.decode(whole), decoded, atol=1e-6)


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
    document = {"format_version": FORMAT_VERSION, "spec": spec.to_json() | {"latent_dim": 17}}
    save_file(dict(model.state_dict()), path, metadata={"aesearch": json.dumps(document)})
    with pytest.raises(AesearchError, match="damaged"):
        load_autoencoder(path)


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(AesearchError, match="not available"):
        pick_device("abacus")


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="the encoder takes"):
        Autoencoder(*make(), "cpu").encode(np.zeros((1, 3, 28, 28), np.uint8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_cpu_s_features():
    model, spec = make()
    images = np.random.default_rng(0).integers(0, 255, (50, 1, 28, 28), dtype=np.uint8)
    cpu = Autoencoder(model, spec, "cpu").encode(images)
    assert np.allclose(Autoencoder(model, spec, "cuda").encode(images), cpu, atol=1e-3)
