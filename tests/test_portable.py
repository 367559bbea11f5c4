"""The encoder as ONNX: the same features, without torch."""

import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from conftest import gradient
from torch import nn

from aesearch import Collection
from aesearch.images.decode import Preprocessing
from aesearch.network.architectures import ARCHITECTURES, AutoencoderSpec, build_autoencoder
from aesearch.network.autoencoder import Autoencoder
from aesearch.network.onnx import PortableEncoder, translate


@pytest.mark.parametrize("size", [(28, 28, 1), (8, 8, 1), (33, 47, 3)], ids=str)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_onnx_gives_the_features_of_torch(arch, size, tmp_path):
    spec = AutoencoderSpec.choose(arch, Preprocessing(*size))
    model = build_autoencoder(spec)
    for layer in model.modules():  # as after training: norms that do something
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    autoencoder = Autoencoder(model, spec, "cpu")
    autoencoder.save_portable(tmp_path / "encoder.onnx")
    images = np.random.default_rng(0).integers(0, 256, (5, *spec.preprocessing.shape), dtype=np.uint8)
    portable = PortableEncoder((tmp_path / "encoder.onnx").read_bytes(), spec.feature_dim)
    for n in (1, 5):
        features = portable.encode(images[:n])
        assert features.shape == (n, spec.feature_dim) and features.dtype == np.float32
        by_torch = autoencoder.encode_and_score(images[:n])[0][:, : spec.feature_dim]
        assert np.abs(features - by_torch).max() < 1e-4
        assert np.abs(autoencoder.encode(images[:n]) - by_torch).max() < 1e-4


@pytest.mark.parametrize("size", [(28, 28, 1), (8, 8, 1), (33, 47, 3)], ids=str)
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_many_images_get_the_errors_of_torch(arch, size):
    spec = AutoencoderSpec.choose(arch, Preprocessing(*size))
    autoencoder = Autoencoder(build_autoencoder(spec), spec, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (9, *spec.preprocessing.shape), dtype=np.uint8)
    latents, errors = autoencoder.encode_and_score(images)  # one batch: torch
    pixels, rebuilt = images / 255, autoencoder.decode(latents)
    if spec.output != "identity":  # else not all of it lies in [0, 1], where `decode` clips
        assert errors == pytest.approx(np.square(rebuilt - pixels).mean(axis=(1, 2, 3)), rel=1e-4)
    autoencoder.batch_size = 8
    by_onnx = autoencoder.encode_and_score(images)
    assert by_onnx[0] == pytest.approx(latents, abs=1e-4) and by_onnx[1] == pytest.approx(errors, rel=1e-4)
    assert all(part.dtype == np.float32 and len(part) == 9 for part in by_onnx)


def test_the_file_takes_images_as_they_are(digits):
    model = onnx.load(digits.folder / "encoder.onnx")
    taken = model.graph.input[0].type.tensor_type
    assert taken.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in taken.shape.dim] == ["n", 1, 8, 8]


def test_a_layer_that_onnx_was_not_told_about_is_refused():
    with pytest.raises(ValueError, match="GELU"):
        translate(nn.Sequential(nn.GELU()), Preprocessing(8, 8, 1), 64)


def test_a_query_imports_no_torch(digits, tmp_path):
    gradient(40, 30).save(tmp_path / "img.png")
    code = (
        "import sys\nfrom aesearch.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as e: assert not e.code\n"
        "heavy = {'torch', 'torchvision', 'umap', 'sklearn', 'scipy', 'matplotlib', 'onnx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    asked = ["query", str(tmp_path / "img.png"), "-c", str(digits.folder), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("damage", ["gone", "another encoder's", "broken"])
def test_without_its_own_onnx_the_network_answers_itself(damage, digits, digit_images, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in digits.folder.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    path, whole = folder / "encoder.onnx", (folder / "encoder.onnx").read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "broken":
        path.write_bytes(whole[:-100])
    else:
        torch.manual_seed(5)
        spec = Collection.open(folder).spec
        Autoencoder(build_autoencoder(spec), spec, "cpu").save_portable(path)
    copy = Collection.open(folder)
    assert copy.query(digit_images[42], k=3).rows.tolist() == digits.query(digit_images[42], k=3).rows.tolist()
    assert "autoencoder" in vars(copy) and "autoencoder" not in vars(Collection.open(digits.folder))
