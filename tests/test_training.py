"""The loop: it learns, repeats itself bit for bit, resumes, and says what is wrong."""

import ctypes
import json
import math
import os
import resource
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

from aesearch.errors import AesearchError
from aesearch.images.batches import LoadedImages, StreamedImages
from aesearch.images.decode import Preprocessing
from aesearch.images.sources.opening import open_source
from aesearch.network.architectures import AutoencoderSpec
from aesearch.network.augmentation import UNTOUCHED_SHARE, transform
from aesearch.network.autoencoder import Autoencoder
from aesearch.network.diagnostics import examine
from aesearch.network.history import Epoch
from aesearch.network.options import TrainingOptions
from aesearch.network.training import MOST_TIMES, _say_if_slow, split_held_out, train_autoencoder
from aesearch.vectors.distances import exact_neighbours

EIGHT = Preprocessing(8, 8, 1)


@pytest.fixture(scope="module")
def data(digit_images):
    images = digit_images[:, None]
    train, held_out = split_held_out(len(images), 0)
    return LoadedImages(images[train]), images[held_out]


def spec(latent_dim=8, style_dim=0):
    return AutoencoderSpec("conv", latent_dim, (8, 16), EIGHT, style_dim=style_dim)


def same_weights(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize(("loss", "share"), [("mse", 0.85), ("bce", 0.9)])  # cross-entropy cannot fall to 0
@pytest.mark.parametrize("invariance", ["none", "strong"])
def test_the_held_out_loss_falls(data, loss, share, invariance):
    options = TrainingOptions("conv", epochs=6, loss=loss, invariance=invariance)
    training = train_autoencoder(*data, spec(), options, device="cpu")
    assert training.history[-1].held_out_loss < share * training.history[0].held_out_loss
    assert len(training.history) == 6
    assert training.figures["best_epoch"] == min(training.history, key=lambda e: e.held_out_loss).epoch


def test_plain_reconstruction_beats_pca_of_its_size(data):
    training = train_autoencoder(
        *data,
        AutoencoderSpec("conv", 4, (16, 32), EIGHT),
        TrainingOptions("conv", epochs=40, invariance="none"),
        device="cpu",
    )
    figures = examine(training, data[0].array, data[1])
    assert figures["reconstruction_mse"] == pytest.approx(figures["task_mse"])
    assert figures["task_mse"] < figures["pca_task_mse"]
    assert figures["dead_latents"] == 0


@pytest.mark.parametrize("style", [0, 2])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(data, style):
    parted, options = spec(style_dim=style), TrainingOptions("conv", epochs=2)
    first, second = (train_autoencoder(*data, parted, options, device="cpu").model for _ in range(2))
    other = train_autoencoder(*data, parted, TrainingOptions("conv", epochs=2, seed=1), device="cpu").model
    assert same_weights(first, second) and not same_weights(first, other)


@pytest.mark.parametrize("style", [0, 2])
def test_streamed_images_train_the_same_weights(data, digit_images, style):
    source = open_source("digits")
    train, _ = split_held_out(len(source), 0)
    streamed = StreamedImages(source, train, EIGHT)
    options = TrainingOptions("conv", epochs=2)
    assert same_weights(
        train_autoencoder(streamed, data[1], spec(style_dim=style), options, device="cpu").model,
        train_autoencoder(*data, spec(style_dim=style), options, device="cpu").model,
    )


@pytest.mark.parametrize("style", [0, 2])
def test_a_resumed_training_ends_with_the_undisturbed_weights(data, tmp_path, style):
    checkpoint = tmp_path / "training.safetensors"
    options = TrainingOptions("conv", epochs=4)
    whole = train_autoencoder(*data, spec(style_dim=style), options, device="cpu")

    def stop(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_autoencoder(*data, spec(style_dim=style), options, checkpoint=checkpoint, device="cpu", on_epoch=stop)
    resumed = train_autoencoder(*data, spec(style_dim=style), options, checkpoint=checkpoint, resume=True, device="cpu")
    assert same_weights(whole.model, resumed.model)
    assert [e.held_out_loss for e in resumed.history] == [e.held_out_loss for e in whole.history]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="only glibc gives memory back at once")
def test_a_step_uses_the_memory_of_the_step_before(digit_images):
    large = np.ascontiguousarray(np.kron(digit_images[:512], np.ones((3, 3), np.uint8))[:, None])
    options = TrainingOptions("conv-pool", epochs=6, batch_size=128)
    faults = []
    train_autoencoder(
        LoadedImages(large), large[:1], options.spec(Preprocessing(24, 24, 1)), options,
        on_epoch=lambda _: faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt),
    )  # fmt: skip
    pages_of_a_step = 128 * 16 * 24 * 24 * 4 // resource.getpagesize()  # that its first layer gives
    assert np.median(np.diff(faults)) < pages_of_a_step  # in four steps; what else runs here needs some now and then


def test_resuming_something_else_is_refused(data, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    with pytest.raises(AesearchError, match="no training to resume"):
        train_autoencoder(*data, spec(), TrainingOptions(arch="conv"), checkpoint=checkpoint, resume=True, device="cpu")
    train_autoencoder(*data, spec(), TrainingOptions("conv", epochs=1), checkpoint=checkpoint, device="cpu")
    with pytest.raises(AesearchError, match="seed"):
        other = TrainingOptions("conv", epochs=2, seed=5)
        train_autoencoder(*data, spec(), other, checkpoint=checkpoint, resume=True, device="cpu")
    checkpoint.write_bytes(b"torn")
    with pytest.raises(AesearchError, match="damaged"):
        train_autoencoder(*data, spec(), TrainingOptions(arch="conv"), checkpoint=checkpoint, resume=True, device="cpu")


def test_a_training_that_only_gets_worse_ends_in_its_second_half():
    noise = np.random.default_rng(0).integers(0, 256, (96, 1, 8, 8), dtype=np.uint8)
    options = TrainingOptions("conv", epochs=40, invariance="none", learning_rate=0.01)
    training = train_autoencoder(LoadedImages(noise[:32]), noise[32:], spec(16), options, device="cpu")
    assert training.figures["best_epoch"] < 20 < len(training.history) < 40


def test_a_finished_training_can_go_on_for_more_epochs(data, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    train_autoencoder(*data, spec(), TrainingOptions("conv", epochs=2), checkpoint=checkpoint, device="cpu")
    more = train_autoencoder(
        *data, spec(), TrainingOptions("conv", epochs=3), checkpoint=checkpoint, resume=True, device="cpu"
    )
    assert [e.epoch for e in more.history] == [1, 2, 3]


def test_minutes_settle_the_epochs_and_a_resumed_training_keeps_them(data, tmp_path):
    checkpoint = tmp_path / "training.safetensors"
    short = train_autoencoder(*data, spec(), TrainingOptions("conv", effort=1e-6), device="cpu")
    assert len(short.history) == short.recipe.epochs == 1

    def begin(minutes, stop_after, resume):
        def stop(history):
            if len(history) == stop_after:
                raise KeyboardInterrupt

        options = TrainingOptions("conv", effort=minutes, batch_size=64)
        with pytest.raises(KeyboardInterrupt):
            train_autoencoder(*data, spec(), options, checkpoint=checkpoint, resume=resume, device="cpu", on_epoch=stop)
        with safe_open(checkpoint, framework="pt") as file:
            return json.loads(file.metadata()["aesearch"])["begun_for"]

    most = MOST_TIMES * TrainingOptions("conv", batch_size=64).recipe(len(data[0])).epochs
    assert begin(600, stop_after=2, resume=False) == {"epochs": most, "minutes": 600}
    assert begin("600.0", stop_after=4, resume=True) == {"epochs": most, "minutes": 600}
    assert begin(900, stop_after=5, resume=True) == {"epochs": most + 4, "minutes": 900}
    spent = TrainingOptions("conv", effort=1e-6, batch_size=64)
    ended = train_autoencoder(*data, spec(), spent, checkpoint=checkpoint, resume=True, device="cpu")
    assert len(ended.history) == ended.recipe.epochs == 5


def test_a_loss_that_is_no_number_stops_with_what_to_do(data):
    with pytest.raises(AesearchError, match="--learning-rate"):
        train_autoencoder(*data, spec(), TrainingOptions("conv", epochs=3, learning_rate=1e30), device="cpu")


def test_a_dead_latent_is_said(data, caplog):
    training = train_autoencoder(*data, spec(), TrainingOptions("conv", epochs=6), device="cpu")
    with torch.no_grad():
        training.model["encoder"][-1].weight[:3] = 0
    assert examine(training, data[0].array, data[1])["dead_latents"] == 3
    assert "3 of 8 latent numbers never vary: try --latent-dim 5" in caplog.text
    with torch.no_grad():
        training.model["encoder"][-1].weight[:] = 0
    examine(training, data[0].array, data[1])
    assert "the latent is dead" in caplog.text


def test_losing_to_pca_is_said(data, caplog):
    training = train_autoencoder(*data, spec(16), TrainingOptions("conv", epochs=3, invariance="none"), device="cpu")
    examine(training, data[0].array, data[1])
    assert "worse" in caplog.text and "--epochs" in caplog.text


@pytest.mark.parametrize("count", [1, 2, 9])
def test_very_few_images_train(count, digit_images):
    images = digit_images[:count, None]
    train, held_out = split_held_out(count, 0)
    training = train_autoencoder(
        LoadedImages(images[train]), images[held_out], spec(), TrainingOptions("conv", epochs=2)
    )
    assert math.isfinite(training.figures["held_out_loss"])


def test_held_out_images_are_never_trained_on():
    train, held_out = split_held_out(1000, 3)
    assert len(held_out) == 100 and sorted([*train, *held_out]) == list(range(1000))


def test_what_is_bright_grows_and_shrinks(monkeypatch):
    """A square of 8 by 8 pixels: by one pixel on every side, drawn so, and by none where nothing swells."""
    from aesearch.network import augmentation as invariance

    monkeypatch.setitem(invariance.INVARIANCES, "dilate", invariance.Changes(0.0, 0.0, 0.0, 0.0, 0.0, 1 / 24))
    images = torch.zeros(400, 1, 24, 24)
    images[:, :, 8:16, 8:16] = 1
    sizes = invariance.transform(images, "dilate", torch.Generator().manual_seed(0), untouched=0).sum(dim=(1, 2, 3))
    assert sizes.min() < 40 and sizes.max() > 96 and 36 <= sizes.min() and sizes.max() <= 100
    assert (sizes > 64).float().mean() == pytest.approx(0.5, abs=0.1)


def test_what_bends_keeps_its_brightness_and_moves(monkeypatch):
    from aesearch.network import augmentation as invariance

    monkeypatch.setitem(invariance.INVARIANCES, "elastic", invariance.Changes(0.0, 0.0, 0.0, 0.0, 0.05, 0.0))
    images = torch.zeros(200, 1, 32, 32)
    images[:, :, 12:20, 12:20] = 1
    bent = invariance.transform(images, "elastic", torch.Generator().manual_seed(0), untouched=0)[:, 0]
    assert bent.sum(dim=(1, 2)).median() == pytest.approx(64, rel=0.1)
    places = (bent.sum(dim=1) * torch.arange(32)).sum(dim=1) / bent.sum(dim=(1, 2)) - 15.5
    assert 0.5 < places.std() < 2  # about .05 of 32 pixels for each point, less between them
    assert (bent[0] - bent[1]).abs().max() > 0.5


def test_transforms_move_the_image_and_leave_some_alone():
    images = torch.zeros(400, 1, 21, 33)
    images[:, :, 10, 16] = 1
    moved = transform(images, "strong", torch.Generator().manual_seed(0))
    untouched = (moved - images).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert abs(untouched.float().mean() - UNTOUCHED_SHARE) < 0.06
    assert moved.shape == images.shape and 0 <= moved.min() and moved.max() <= 1 + 1e-6
    assert transform(images, "none", torch.Generator()) is images


def test_a_rotation_turns_wide_images_without_squeezing_them(monkeypatch):
    """A bar along the long side keeps its length: rotation is rigid in pixels, not in relative units."""
    from aesearch.network import augmentation as invariance

    monkeypatch.setitem(invariance.INVARIANCES, "turn", invariance.Changes(90.0, 0.0, 0.0, 0.0, 0.0, 0.0))
    monkeypatch.setattr(torch, "rand", lambda *a, **k: torch.ones(*a))  # every draw its largest: 90 degrees
    images = torch.zeros(1, 1, 41, 81)
    images[..., 20, 30:51] = 1
    turned = invariance.transform(images, "turn", torch.Generator())[0, 0]
    assert turned[10:31, 40].min() > 0.9 and turned.sum() == pytest.approx(21, abs=1)


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "l1"}, {"invariance": "weak"}, {"channels": 2}, {"epochs": 0}, {"latent_dim": 0},
        {"learning_rate": 0.0}, {"learning_rate": math.nan}, {"batch_size": -1}, {"seed": -1}, {"seed": 2**32},
        {"effort": 0}, {"effort": "-3"}, {"effort": "nan"}, {"effort": "slow"}, {"effort": None}, {"effort": True},
    ],
)  # fmt: skip
def test_wrong_options_are_one_line(options):
    with pytest.raises(AesearchError):
        TrainingOptions(**options)


def test_options_survive_json():
    options = TrainingOptions("conv", widths=(4, 8), image_size=(32,), loss="bce")
    assert TrainingOptions.from_json(options.to_json()) == options


def test_minutes_are_the_same_however_they_are_written_and_epochs_count_more():
    written = [TrainingOptions(effort=effort) for effort in ("5", 5, "5.0", np.float32(5))]
    assert len({json.dumps(options.to_json()) for options in written}) == 1 and written[0].minutes == 5
    both = TrainingOptions("conv", effort="5", epochs=3)
    assert both.minutes is None and both.recipe(100).epochs == 3


def test_small_collections_get_more_epochs_and_smaller_batches():
    few, many = TrainingOptions(arch="conv").recipe(100), TrainingOptions(arch="conv").recipe(60_000)
    assert (few.batch_size, few.epochs) == (16, 100)
    assert (many.batch_size, many.epochs) == (128, 32)
    assert np.isscalar(TrainingOptions("conv", epochs=3).recipe(100).epochs)
    pictures = TrainingOptions(invariance="pictures")
    assert [pictures.recipe(n).epochs for n in (1200, 4500, 60_000)] == [48, 150, 13]


@pytest.mark.parametrize(
    ("arch", "loss", "optimizer", "rate", "batch", "epochs"),
    [
        ("conv-pool", "bce", "adam", 1e-3, 128, 10),
        ("conv-stride", "mse", "adam", 1e-3, 128, 10),
        ("conv-spatial", "mse", "adamw", 1e-3, 128, 5),
        ("mlp", "mse", "adam", 5e-3, 256, 10),
        ("linear", "mse", "adam", 1e-3, 128, 10),
    ],
)
def test_a_source_s_network_is_trained_as_its_source_trains_it(data, arch, loss, optimizer, rate, batch, epochs):
    recipe = TrainingOptions(arch).recipe(60_000)
    assert (recipe.loss, recipe.optimizer, recipe.learning_rate) == (loss, optimizer, rate)
    assert (recipe.batch_size, recipe.epochs, recipe.invariance, recipe.schedule) == (batch, epochs, "none", "constant")
    training = train_autoencoder(*data, AutoencoderSpec.choose(arch, EIGHT), TrainingOptions(arch), device="cpu")
    assert training.recipe == recipe and len(training.history) == epochs
    assert training.history[-1].held_out_loss < 0.9 * training.history[0].held_out_loss
    assert {e.learning_rate for e in training.history} == {rate}


def test_cross_entropy_needs_an_output_between_0_and_1(data):
    options = TrainingOptions("linear", loss="bce")
    with pytest.raises(AesearchError, match="needs an output between 0 and 1"):
        train_autoencoder(*data, AutoencoderSpec.choose("linear", EIGHT), options, device="cpu")


def test_a_style_keeps_what_the_features_leave_out(data):
    """With it untouched images are rebuilt better than from the features alone, and than without one."""
    options = TrainingOptions("conv", epochs=15, invariance="strong")
    one = train_autoencoder(*data, AutoencoderSpec.choose("conv", EIGHT, 16, style_dim=0), options, device="cpu")
    parted = AutoencoderSpec.choose("conv", EIGHT, 16, style_dim=6)
    two = train_autoencoder(*data, parted, options, device="cpu")
    figures = [examine(t, data[0].array, data[1]) for t in (one, two)]
    assert figures[1]["reconstruction_mse"] < 0.9 * figures[0]["reconstruction_mse"]
    assert figures[1]["dead_latents"] == 0 and two.figures["restarts"] == 0
    autoencoder = Autoencoder(two.model, parted, "cpu")
    latents, errors = autoencoder.encode_and_score(data[1])
    assert latents.shape == (len(data[1]), 16) and autoencoder.encode(data[1]).shape == (len(data[1]), 10)
    assert errors.mean() == pytest.approx(figures[1]["reconstruction_mse"], rel=1e-3)
    upright = autoencoder.decode(autoencoder.encode(data[1]))
    assert np.square(upright - data[1] / 255).mean() > errors.mean()
    assert np.allclose(autoencoder.decode(np.pad(latents[:, :10], ((0, 0), (0, 6)))), upright, atol=1e-6)


def test_features_find_an_image_again_that_was_changed(data):
    """Bent, turned and shifted images lie nearest to their own untouched ones more often than their pixels do."""
    parted = AutoencoderSpec.choose("conv", EIGHT, 16)
    training = train_autoencoder(*data, parted, TrainingOptions("conv", epochs=12, invariance="strong"), device="cpu")
    assert set(training.model) == {"encoder", "decoder"}
    generator = torch.Generator().manual_seed(1)
    changed = transform(torch.from_numpy(data[1]).float() / 255, "strong", generator, untouched=0)
    changed = (changed.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    autoencoder = Autoencoder(training.model, parted, "cpu")

    def found(*pairs):
        rows, _ = exact_neighbours(*(p.reshape(len(p), -1).astype(np.float32) for p in pairs), 1, "cosine")
        return (rows[:, 0] == np.arange(len(rows))).mean()

    assert found(autoencoder.encode(data[1]), autoencoder.encode(changed)) > 1.5 * found(data[1], changed)


@pytest.mark.parametrize(("rows", "batch_size"), [(1, 16), (17, 16), (3, 1)])
@pytest.mark.parametrize("style_dim", [0, 6])
def test_one_tiny_image_left_for_a_batch_is_learned_from(rows, batch_size, style_dim):
    images = np.random.default_rng(0).integers(0, 255, (rows, 1, 3, 3), dtype=np.uint8)
    parted = AutoencoderSpec("conv", 16, (8, 16), Preprocessing(3, 3, 1), style_dim=style_dim)
    options = TrainingOptions("conv", epochs=2, batch_size=batch_size, invariance="light")
    training = train_autoencoder(LoadedImages(images), images, parted, options, device="cpu")
    assert len(training.history) == 2


def test_a_style_needs_something_to_undo(data):
    parted = AutoencoderSpec.choose("conv", EIGHT, 16, style_dim=6)
    with pytest.raises(AesearchError, match="needs something to undo"):
        train_autoencoder(*data, parted, TrainingOptions("conv", invariance="none"), device="cpu")
    with pytest.raises(AesearchError, match="leaves no features"):
        AutoencoderSpec.choose("conv", EIGHT, 16, style_dim=16)


def test_a_training_that_learns_nothing_starts_again(data, caplog):
    """At this rate some networks die at once; all of them must end alive."""
    mean = float(np.square(data[1] / 255 - data[1].mean(axis=0) / 255).mean())
    spec = AutoencoderSpec.choose("conv-stride", EIGHT, 2)
    restarts = []
    for seed in (0, 2, 3):
        options = TrainingOptions("conv-stride", epochs=3, batch_size=16, learning_rate=0.02, seed=seed)
        training = train_autoencoder(*data, spec, options, device="cpu")
        restarts.append(training.figures["restarts"])
        assert training.history[-1].held_out_loss < 0.95 * mean and len(training.history) == 3
    assert max(restarts) > 0 and "starts again with other weights" in caplog.text


def test_a_training_that_never_learns_is_reported(data, caplog):
    options = TrainingOptions("mlp", epochs=3, batch_size=16, learning_rate=0.3)
    training = train_autoencoder(*data, AutoencoderSpec.choose("mlp", EIGHT, 2), options, device="cpu")
    assert training.figures["restarts"] == 3
    assert "3 restarts did not help, nothing is learned" in caplog.text
    examine(training, data[0].array, data[1])
    assert "lower --learning-rate (now 0.3, usually 0.005)" in caplog.text and "--epochs" not in caplog.text


def advised(caplog, images, held_out, latent=16, **options):
    """What is said of a training."""
    caplog.clear()
    options = TrainingOptions(**({"invariance": "none", "batch_size": 32} | options))
    training = train_autoencoder(LoadedImages(images), held_out, spec(latent), options, device="cpu")
    examine(training, images, held_out)
    return caplog.text


def test_advice_follows_from_the_cause(data, caplog):
    (images, held_out), noise = (data[0].array, data[1]), np.random.default_rng(0)
    blank = np.full((100, 1, 8, 8), 250, np.uint8)
    text = advised(caplog, blank[:80], blank[80:], epochs=3)
    assert "all alike" in text and "--learning-rate" not in text and "--latent-dim" not in text
    text = advised(caplog, *np.split(noise.integers(0, 256, (700, 1, 8, 8), dtype=np.uint8), [600]), 3, epochs=5)
    assert "PCA explains hardly any variance either, as with noise" in text and "--learning-rate" not in text
    assert "raise --learning-rate (now 1e-06" in advised(caplog, images, held_out, epochs=2, learning_rate=1e-6)
    text = advised(caplog, images, held_out, epochs=3)
    assert "worse" in text and "train longer, --epochs 6" in text
    text = advised(caplog, images[:60], held_out, epochs=60)
    assert "worse" in text and "it overfits" in text and "--epochs" not in text


@pytest.mark.parametrize("loss", ["mse", "bce"])
def test_images_all_alike_or_hardly_different_are_not_taken_for_a_network_that_learns_nothing(loss, caplog):
    """Grey images leave a cross-entropy that no network can go below: near the mean image's it is no bad sign."""
    alike = np.full((330, 1, 8, 8), 128, np.uint8)
    varied = np.random.default_rng(0).integers(119, 137, (330, 1, 1, 1), dtype=np.uint8).repeat(8, 2).repeat(8, 3)
    for images in (alike, varied):
        options = TrainingOptions("mlp", epochs=15, loss=loss, batch_size=16)
        spec = AutoencoderSpec.choose("mlp", EIGHT, 2)
        training = train_autoencoder(LoadedImages(images[60:]), images[:60], spec, options, device="cpu")
        warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert training.figures["restarts"] == 0 and not warned


def test_a_training_that_slows_down_says_so_once(caplog):
    caplog.set_level("INFO", logger="aesearch")
    history = []
    for number, speed in enumerate((1000, 900, 300, 200, 950, 250), 1):
        _say_if_slow(history, speed, load=1.0)
        history.append(Epoch(number, 0.1, 0.1, 0.01, speed))
    assert [r.getMessage().split(":")[0] for r in caplog.records] == ["training has slowed from 1,000 to 300 images/s"]
    _say_if_slow([], 9, load=4.0)
    assert "busy with other work: training runs at 9 images/s" in caplog.records[-1].getMessage()


def test_threads_are_as_many_as_asked_for_and_wait_without_taking_the_cores_of_others(tmp_path):
    code = (
        "import os, sys\nfrom aesearch.cli import app\n"
        "try: app(sys.argv[1:])\nexcept SystemExit as e: assert not e.code\n"
        "import torch, faiss\nfrom aesearch.images.worker_processes import cores\n"
        "print(torch.get_num_threads(), faiss.omp_get_max_threads(), cores(), os.environ['OMP_WAIT_POLICY'])"
    )
    command = [sys.executable, "-c", code, "train", "digits", "--epochs", "1", "--latent-dim", "4", "--threads", "1"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(1)]
    try:
        given = {"env": env, "capture_output": True, "text": True, "check": True}
        done = subprocess.run([*command, "-c", str(tmp_path / "c")], **given)
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert done.stdout.splitlines()[-1] == "1 1 1 passive"
    done = subprocess.run(
        [sys.executable, "-c", "import aesearch, os; print(os.environ.get('OMP_WAIT_POLICY'))"],
        env=env | {"GOMP_SPINCOUNT": "100"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "None\n"  # who has decided it is left to it
