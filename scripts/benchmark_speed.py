"""Training and extraction speed against the plain tutorial loop: same network, same images, in turn.

    AESEARCH_DATA=data .venv/bin/python scripts/benchmark_speed.py

The tutorial loop is the one of most introductions: torchvision's MNIST gives a PIL image, ToTensor makes it a float
tensor, a DataLoader stacks them; then the textbook steps. Both sides run the same network over the same images: first
the tutorials' own network (conv-pool), then aesearch's default. Training is compared with the same loss, then with
aesearch's own on its side; extraction for features alone, and for all that aesearch keeps (features, reconstruction
errors, and on its side content hashes and the store on disk besides). Medians over the rounds; the ratio is taken round
by round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torchvision
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.transforms import ToTensor

from aesearch.architectures import AutoencoderSpec, build_autoencoder
from aesearch.autoencoders import Autoencoder, pick_device
from aesearch.batches import LoadedImages, in_order, read_batches
from aesearch.decoding import Preprocessing
from aesearch.extraction import extract_features
from aesearch.opening import open_source
from aesearch.sources import Source
from aesearch.training import TrainingOptions, train_autoencoder


def tutorial_images(n: int) -> Subset:  # type: ignore[type-arg]
    """MNIST as tutorials open it."""
    root = os.environ.get("AESEARCH_DATA", "data")
    return Subset(torchvision.datasets.MNIST(root, train=True, transform=ToTensor()), range(n))


def tutorial_training(images: Subset, spec: AutoencoderSpec, batch_size: int) -> None:  # type: ignore[type-arg]
    """One epoch."""
    device = pick_device()
    model = build_autoencoder(spec).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss()
    running = 0.0
    for batch, _ in DataLoader(images, batch_size=batch_size, shuffle=True):
        batch = batch.to(device)
        loss = criterion(model["decoder"](model["encoder"](batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()


def tutorial_extraction(
    images: Subset,  # type: ignore[type-arg]
    model: nn.ModuleDict,
    batch_size: int,
    errors_too: bool,
) -> None:
    """Features of all images, and their reconstruction errors if asked."""
    device = pick_device()
    model = model.to(device).eval()
    features, errors = [], []
    with torch.no_grad():
        for batch, _ in DataLoader(images, batch_size=batch_size):
            batch = batch.to(device)
            latent = model["encoder"](batch)
            features.append(latent.cpu().numpy())
            if errors_too:
                errors.append(((model["decoder"](latent) - batch) ** 2).mean(dim=(1, 2, 3)).cpu().numpy())
    np.concatenate(features)


def our_features(source: Source, autoencoder: Autoencoder) -> None:
    """Features alone, in memory."""
    groups = in_order(0, len(source), autoencoder.reading_size)
    batches = read_batches(source, autoencoder.spec.preprocessing, groups)
    np.concatenate([autoencoder.encode(batch.images) for batch in batches])


def compare(name: str, n: int, plain: Callable[[], object], ours: Callable[[], object], rounds: int) -> None:
    """Time both in turn and print medians of images a second and of the ratio."""
    speeds = []
    for round_ in range(rounds + 1):
        pair = []
        for run in (plain, ours):
            started = time.perf_counter()
            run()
            pair.append(n / (time.perf_counter() - started))
        if round_:  # the first one warms up
            speeds.append(pair)
    table = np.array(speeds)
    ratio = np.median(table[:, 1] / table[:, 0])
    print(f"{name:40} tutorial loop {np.median(table[:, 0]):8,.0f} img/s   "
          f"aesearch {np.median(table[:, 1]):8,.0f} img/s   ratio {ratio:.2f}", flush=True)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    images = load_mnist()["train"][: options.images]
    tutorial = tutorial_images(options.images)
    print_circumstances(images=len(images), rounds=options.rounds, seed=0)
    for arch in ("conv-pool", "conv"):
        preprocessing = Preprocessing(28, 28, 1)
        spec = AutoencoderSpec.choose(arch, preprocessing)
        print(f"network: {arch} {spec.widths} -> 64" + (", the tutorial's" if arch == "conv-pool" else ", the default"))
        measure_training(images, tutorial, spec, options.rounds)
        measure_extraction(images, tutorial, spec, options.rounds)


def measure_training(images: NDArray[np.uint8], tutorial: Subset, spec: AutoencoderSpec, rounds: int) -> None:  # type: ignore[type-arg]
    """One epoch in batches of 128, plain reconstruction on both sides, then ours with all that the default learns."""
    loaded = LoadedImages(np.ascontiguousarray(images[:, None]))
    for name, invariance in (("training", "none"), ("training, ours with the default loss", "strong")):
        settings = TrainingOptions(spec.arch, loss="mse", epochs=1, batch_size=128, invariance=invariance)
        own = settings.spec(spec.preprocessing)
        ours = partial(train_autoencoder, loaded, loaded.array[:1], own, settings)
        compare(name, len(images), partial(tutorial_training, tutorial, own, 128), ours, rounds)


def measure_extraction(images: NDArray[np.uint8], tutorial: Subset, spec: AutoencoderSpec, rounds: int) -> None:  # type: ignore[type-arg]
    """Features alone, then everything, against the loop in batches of 1,024."""
    torch.manual_seed(0)
    model = build_autoencoder(spec)
    autoencoder = Autoencoder(model, spec)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images)
        source, store = open_source(str(Path(folder) / "images.npy")), Path(folder) / "features.h5"
        all_of_it = partial(extract_features, source, autoencoder, store, encoder_fingerprint="benchmark")
        features = partial(our_features, source, autoencoder)
        plain = partial(tutorial_extraction, tutorial, model, 1024)
        compare("extraction: features", len(images), partial(plain, errors_too=False), features, rounds)
        compare("extraction: features, errors, store", len(images), partial(plain, errors_too=True), all_of_it, rounds)


if __name__ == "__main__":
    main()
