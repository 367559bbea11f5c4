"""Training and extraction speed against the plain tutorial loop: same network, same images, in turn.

    AESEARCH_DATA=data .venv/bin/python scripts/benchmark_speed.py

The tutorial loop is the one of most introductions: a Dataset that makes a PIL image of each row and runs ToTensor,
a DataLoader, float batches. Both sides train the same network with the same loss on the same number of images, and
both extractions give features and reconstruction errors; aesearch's also writes its store. Medians over the rounds;
the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

from aesearch.autoencoders import (
    Autoencoder,
    AutoencoderSpec,
    build_autoencoder,
    default_latent_dim,
    default_widths,
    pick_device,
)
from aesearch.batches import LoadedImages
from aesearch.decoding import Preprocessing
from aesearch.extraction import extract_features
from aesearch.opening import open_source
from aesearch.training import TrainingOptions, train_autoencoder


class TutorialImages(Dataset):  # type: ignore[type-arg]
    """One image at a time, as tutorials do it."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self.images, self.transform = images, ToTensor()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        tensor: torch.Tensor = self.transform(Image.fromarray(self.images[index]))
        return tensor


def tutorial_training(images: NDArray[np.uint8], spec: AutoencoderSpec, batch_size: int) -> None:
    """One epoch."""
    device = pick_device()
    model = build_autoencoder(spec).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss()
    running = 0.0
    for batch in DataLoader(TutorialImages(images), batch_size=batch_size, shuffle=True):
        batch = batch.to(device)
        loss = criterion(model["decoder"](model["encoder"](batch)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()


def tutorial_extraction(images: NDArray[np.uint8], model: nn.ModuleDict, batch_size: int) -> None:
    """Features and reconstruction errors of all images."""
    device = pick_device()
    model = model.to(device).eval()
    features, errors = [], []
    with torch.no_grad():
        for batch in DataLoader(TutorialImages(images), batch_size=batch_size):
            batch = batch.to(device)
            latent = model["encoder"](batch)
            errors.append(((model["decoder"](latent) - batch) ** 2).mean(dim=(1, 2, 3)).cpu().numpy())
            features.append(latent.cpu().numpy())
    np.concatenate(features), np.concatenate(errors)


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
    n = len(images)
    preprocessing = Preprocessing(28, 28, 1)
    spec = AutoencoderSpec("conv", default_latent_dim(preprocessing), default_widths(preprocessing), preprocessing)
    print_circumstances(images=n, rounds=options.rounds, seed=0, network=f"conv {spec.widths} -> {spec.latent_dim}")
    loaded = LoadedImages(np.ascontiguousarray(images[:, None]))

    def our_training(invariance: str) -> None:
        train_autoencoder(
            loaded, loaded.array[:1], spec, TrainingOptions(epochs=1, batch_size=128, invariance=invariance)
        )

    compare("training, batch 128, plain reconstruction", n, lambda: tutorial_training(images, spec, 128),
            lambda: our_training("none"), options.rounds)  # fmt: skip
    compare("  ours undoing transformations besides", n, lambda: tutorial_training(images, spec, 128),
            lambda: our_training("strong"), options.rounds)  # fmt: skip

    torch.manual_seed(0)
    model = build_autoencoder(spec)
    autoencoder = Autoencoder(model, spec)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "images.npy", images)
        source = open_source(str(Path(folder) / "images.npy"))

        def our_extraction() -> None:
            extract_features(source, autoencoder, Path(folder) / "features.h5", encoder_fingerprint="benchmark")

        for batch_size in (128, 1024):
            name = f"extraction, the loop's batch {batch_size}"
            plain = partial(tutorial_extraction, images, model, batch_size)
            compare(name, n, plain, our_extraction, options.rounds)


if __name__ == "__main__":
    main()
