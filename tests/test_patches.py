"""Pictures: what is found without training, and the small network beside it, on tiles of two photographs."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from aesearch.baselines import compare_with_free, judge, patches, principal_components
from aesearch.collection.facade import Collection
from aesearch.errors import AesearchError
from aesearch.images.batches import LoadedImages
from aesearch.images.decode import Preprocessing
from aesearch.images.numbers import raw_pixels
from aesearch.images.orientation import orient
from aesearch.network.architectures import AutoencoderSpec, build_autoencoder
from aesearch.network.augmentation import shares_a_ground, transform
from aesearch.network.autoencoder import Autoencoder, load_autoencoder, save_autoencoder
from aesearch.network.diagnostics import examine
from aesearch.network.layers import Fields
from aesearch.network.onnx import PortableEncoder
from aesearch.network.options import TrainingOptions
from aesearch.network.patches import fit_components, fit_patches, settle_trunk
from aesearch.network.training import train_autoencoder
from aesearch.probe import knn_accuracy

TILE = Preprocessing(32, 32, 3)


@pytest.fixture(scope="module")
def parted(tiles):
    """Tiles to learn from and to test on, and which photograph each is of."""
    images, labels = tiles
    order = np.random.default_rng(0).permutation(len(images))
    return images[order[:400]], images[order[400:]], labels[order[:400]], labels[order[400:]]


def fitted(images, fields=1, seed=0, **settings):
    spec = AutoencoderSpec.choose("pooled", TILE, rows=len(images), fields=fields, widths=(), **settings)
    model = build_autoencoder(spec)
    fit_components(model, spec, images, seed)
    fit_patches(model, spec, images, seed)
    return Autoencoder(model, spec, "cpu")


@pytest.mark.parametrize("fields", [1, 3])
def test_patches_tell_photographs_apart_better_than_pixels(parted, fields):
    train, test, known, truth = parted
    raw = raw_pixels(train), raw_pixels(test)
    found = patches(train, test, fields)
    assert found[0].shape == (400, 128) and found[0].dtype == np.float32
    assert np.linalg.norm(found[1], axis=1) == pytest.approx(1, abs=1e-3)
    ours, free, linear = (
        knn_accuracy(a, known, b, truth, "cosine") for a, b in (found, raw, principal_components(*raw))
    )
    assert ours > max(free, linear) + 0.03


def test_an_averaged_texture_may_be_shifted(parted):
    train, test, _, _ = parted
    encoder = fitted(train)
    shifted = np.roll(test, 5, axis=3)
    likeness = (encoder.encode(test) * encoder.encode(shifted)).sum(axis=1)
    others = encoder.encode(test) @ encoder.encode(test).T
    assert np.median(likeness) > np.median(np.sort(others, axis=1)[:, -2])  # more alike than the most alike other


def test_the_style_is_pca_and_what_is_rebuilt_its_inverse(parted):
    train, test, _, _ = parted
    encoder = fitted(train, style_dim=20)
    flat, wanted = (part.reshape(len(part), -1) / np.float32(255) for part in (train, test))
    pca = PCA(20, svd_solver="full").fit(flat)
    exact = np.square(pca.inverse_transform(pca.transform(wanted)).clip(0, 1) - wanted).mean(axis=1)
    latents, errors = encoder.encode_and_score(test)
    assert errors == pytest.approx(exact, rel=0.05)
    assert latents[:, -20:].shape == (len(test), 20)


def test_the_same_seed_draws_the_same_patches(parted):
    one, same, other = (fitted(parted[0], seed=seed).encode(parted[1]) for seed in (0, 0, 1))
    assert np.array_equal(one, same) and not np.allclose(one, other)


@pytest.mark.parametrize("fields", [1, 3])
def test_onnx_and_the_file_give_what_torch_gives(parted, fields, tmp_path):
    images = parted[1][:5]
    encoder = fitted(parted[0], fields)
    expected = encoder.encode(images)
    save_autoencoder(tmp_path / "encoder.safetensors", encoder._model, encoder.spec)
    assert np.allclose(Autoencoder(*load_autoencoder(tmp_path / "encoder.safetensors")).encode(images), expected)
    encoder.save_portable(tmp_path / "encoder.onnx")
    portable = PortableEncoder((tmp_path / "encoder.onnx").read_bytes(), encoder.spec.feature_dim)
    assert np.abs(portable.encode(images) - expected).max() < 1e-4


@pytest.mark.parametrize(("mirror", "axis"), [("mirrored", 3), ("flipped", 2), ("both", (2, 3)), ("both", 3)])
@pytest.mark.parametrize("fields", [1, 3])
def test_features_averaged_over_a_mirror_image_are_those_of_both(fields, mirror, axis, parted, tmp_path):
    train, images = parted[0], parted[1][:20]
    spec = TrainingOptions(invariance="pictures", widths=(8, 16)).spec(TILE, len(train), fields, mirror)
    model = build_autoencoder(spec)
    fit_components(model, spec, train, 0)
    fit_patches(model, spec, train, 0)
    settle_trunk(model, train)
    encoder, mirror_images = Autoencoder(model, spec, "cpu"), np.flip(images, axis)
    features, of_mirrored = encoder.encode(images), encoder.encode(np.ascontiguousarray(mirror_images))
    assert np.abs(features - of_mirrored).max() < 1e-4
    assert np.abs(features - features[0]).max() > 0.1
    assert np.abs(fitted(train, fields).encode(images) - fitted(train, fields).encode(mirror_images)).max() > 0.1
    encoder.save_portable(tmp_path / "encoder.onnx")
    portable = PortableEncoder((tmp_path / "encoder.onnx").read_bytes(), spec.feature_dim)
    assert np.abs(portable.encode(images) - features).max() < 1e-4
    save_autoencoder(tmp_path / "encoder.safetensors", model, spec)
    assert load_autoencoder(tmp_path / "encoder.safetensors")[1].mirror == mirror
    with pytest.raises(AesearchError, match="mirrored, flipped, both"):
        dataclasses.replace(spec, mirror="upside down")


def test_maps_of_any_size_are_averaged_by_fields():
    maps = torch.rand(2, 3, 9, 12)
    one, four = Fields(16, 16, 1)(maps), Fields(16, 16, 2)(maps[:, :, :8])
    assert torch.allclose(one[:, :, 0], maps.mean(dim=(2, 3)), atol=1e-6)
    assert torch.allclose(four[:, :, 1], maps[:, :, :4, 6:].mean(dim=(2, 3)), atol=1e-6)


@pytest.mark.parametrize("kind", ["black", "noise", "one image", "three images"])
def test_what_holds_no_patches_gives_numbers_all_the_same(kind):
    noise = np.random.default_rng(0).integers(0, 256, (50, 3, 32, 32), dtype=np.uint8)
    images = {"black": np.zeros_like(noise), "noise": noise, "one image": noise[:1], "three images": noise[:3]}[kind]
    for fields in (1, 3):
        latents, errors = fitted(images, fields).encode_and_score(images)
        assert np.isfinite(latents).all() and np.isfinite(errors).all()


def test_a_network_beside_patches_learns_and_rebuilds_no_worse_than_pca(parted):
    train, test, _, _ = parted
    options = TrainingOptions(arch="pooled", epochs=4, invariance="pictures", widths=(16, 32))
    spec = options.spec(TILE, len(train))
    training = train_autoencoder(LoadedImages(train), test, spec, options, sample=train, device="cpu")
    assert training.history[-1].held_out_loss < training.history[0].held_out_loss
    figures = examine(training, train, test)
    assert figures["reconstruction_mse"] <= 1.01 * figures["pca_mse"]
    assert figures["dead_latents"] == 0


def test_a_resumed_network_ends_with_the_undisturbed_weights(parted, tmp_path):
    train, test, _, _ = parted
    options = TrainingOptions(arch="pooled", epochs=4, invariance="pictures", widths=(4, 8))
    settings = {"sample": train, "device": "cpu", "orientations": ["mirrored"]}
    spec, checkpoint = options.spec(TILE, len(train), 1, "both"), tmp_path / "training.safetensors"

    def stop(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    whole = train_autoencoder(LoadedImages(train), test, spec, options, **settings)
    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(LoadedImages(train), test, spec, options, checkpoint=checkpoint, on_epoch=stop, **settings)
    resumed = train_autoencoder(
        LoadedImages(train), test, spec, options, checkpoint=checkpoint, resume=True, **settings
    )
    for one, other in zip(whole.model.state_dict().values(), resumed.model.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_shapes_on_a_ground_are_known_from_pictures(digit_images, tiles):
    assert shares_a_ground(digit_images[:, None])
    assert shares_a_ground(255 - digit_images[:, None])
    assert not shares_a_ground(tiles[0])


def test_changed_pictures_keep_their_range_and_some_orientations_are_drawn(tiles):
    images = torch.from_numpy(tiles[0][:64]).float() / 255
    changed = transform(images, "pictures", torch.Generator().manual_seed(0), 0.0)
    assert changed.shape == images.shape and 0 <= changed.min() and changed.max() <= 1
    assert (changed - images).abs().mean() > 0.05
    smaller = transform(images, "pictures", torch.Generator().manual_seed(0), 1.0, side=0.5)
    assert torch.allclose(smaller, torch.nn.functional.avg_pool2d(images, 2), atol=1e-5)
    still = transform(images, "pictures", torch.Generator().manual_seed(0), 1.0, ["mirrored"])
    assert torch.allclose(still, images, atol=1e-5)


@pytest.mark.parametrize("orientation", ["mirrored", "upside down", "flipped", "turned left", "mirrored, turned left"])
def test_an_orientation_is_the_one_that_is_named(orientation, tiles, monkeypatch):
    from aesearch.network import augmentation as invariance

    plain = dataclasses.replace(invariance.Changes(), light=0.0)
    monkeypatch.setitem(invariance.INVARIANCES, "plain", plain)
    images = tiles[0][:40]
    turned = transform(
        torch.from_numpy(images).float(), "plain", torch.Generator().manual_seed(0), 0.0, [orientation]
    ).numpy()
    as_named, as_it_is = orient(images, orientation), images
    found = [
        "named" if np.abs(t - n).max() < 1 else "upright" if np.abs(t - u).max() < 1 else "neither"
        for t, n, u in zip(turned, as_named, as_it_is, strict=True)
    ]
    assert set(found) == {"named", "upright"}


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("kind", ["tiles", "digits"])
def test_fields_are_kept_where_it_matters_what_lies_where(kind, trained, tiles, digit_images):
    digits = np.kron(digit_images[:600], np.ones((4, 4), np.uint8))[:, None]
    images = {"tiles": tiles[0], "digits": digits}[kind]
    how = {"epochs": 2, "widths": (16, 32)} if trained else {"effort": "quick"}
    options = TrainingOptions(invariance="pictures", **how)
    spec = options.spec(Preprocessing(32, 32, images.shape[1]), len(images), fields=3)
    training = train_autoencoder(
        LoadedImages(images[50:]), images[:50], spec, options, device="cpu", sample=images[50:]
    )
    chosen = {"tiles": 1, "digits": 3}[kind]
    assert training.spec == dataclasses.replace(spec, fields=chosen)
    assert trained or training.figures["parameters"] == 0
    encoder = Autoencoder(training.model, training.spec, "cpu")
    assert encoder.encode(images[:50]).std(axis=0).min() > 0


@pytest.mark.parametrize("count", [1, 3, 12])
def test_of_very_few_images_patches_have_fields(count, tiles):
    few = tiles[0][:count]
    options = TrainingOptions(invariance="pictures", effort="quick")
    spec = options.spec(TILE, count, fields=3)
    training = train_autoencoder(LoadedImages(few), few, spec, options, device="cpu")
    assert training.spec == spec
    assert np.isfinite(Autoencoder(training.model, spec, "cpu").encode(few)).all()


def test_quick_trains_nothing_and_can_be_searched(tiles, tmp_path):
    collection = Collection.build(tiles[0].transpose(0, 2, 3, 1), tmp_path / "quick", progress=False, effort="quick")
    made = collection.manifest.artifacts["encoder"]
    assert made["figures"]["best_epoch"] == 0 and made["parameters"]["spec"]["widths"] == []
    assert made["figures"]["reconstruction_mse"] <= 1.01 * made["figures"]["pca_mse"]
    assert collection.query(tiles[0][7].transpose(1, 2, 0), k=3).rows[0] == 7
    assert collection.report().is_file()
    assert (collection.folder / "history.png").is_file()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "pooled", "style_dim": 0}, "--style-dim 1 or more"),
        ({"arch": "pooled", "invariance": "none"}, "needs augmentation"),
        ({"arch": "pooled", "loss": "bce"}, "--loss mse"),
        ({"arch": "pooled", "output": "sigmoid"}, "has the output clamp"),
        ({"effort": "slow"}, "quick, normal, thorough"),
    ],
)
def test_what_does_not_go_together_is_one_line(settings, message, tiles, tmp_path):
    with pytest.raises(AesearchError, match=message):
        Collection.build(tiles[0][:60].transpose(0, 2, 3, 1), tmp_path / "refused", progress=False, **settings)


def test_effort_is_a_number_of_epochs():
    for arch in ("conv", "pooled"):
        normal, thorough = (TrainingOptions(arch=arch, effort=e).recipe(1500).epochs for e in ("normal", "thorough"))
        assert thorough == 4 * normal
    assert TrainingOptions(arch="pooled", effort="quick").recipe(1500).epochs == 0


def test_features_are_held_against_what_is_free(parted):
    train, test, known, truth = parted
    noise = np.random.default_rng(0).normal(size=(len(train) + len(test), 8)).astype(np.float32)
    found = compare_with_free((noise[:400], noise[400:]), (train, test), (known, truth), "cosine")
    assert list(found) == ["features", "raw pixels", "PCA-64", "patches"]
    assert "--effort thorough" in judge(found) and judge(found).startswith("better than the features: patches")
    best = patches(train, test, 1)
    found = compare_with_free(best, (train, test), (known, truth), "cosine")
    assert judge(found) == "the features are best, or as good as the best"
    near = {"features": (0.983, 0.977), "patches": (0.989, 0.977)}  # two images of 355
    found = {name: {"linear_accuracy": one, "knn_accuracy": other} for name, (one, other) in near.items()}
    assert judge(found) == "the features are best, or as good as the best"
