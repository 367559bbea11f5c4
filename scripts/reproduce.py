"""The autoencoder systems aesearch descends from, trained again on MNIST, beside the figures reported for them.

    AESEARCH_DATA=data .venv/bin/python scripts/reproduce.py

Each network with its source's loss, optimizer, batch size and epochs, on the 60,000 training images; after every
epoch the loss on the 10,000 test images too. Losses are those of the last epoch; test MSE and pictures are of the
epoch of lowest test loss. Pictures (curves, reconstructions, latent spaces) go to --folder; --quick takes 3,000
images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray

from aesearch.drawing.figures import Tile, draw_sheet, save_picture, to_picture
from aesearch.drawing.plots import MapDisplay, draw_history
from aesearch.images.batches import LoadedImages
from aesearch.images.decode import Preprocessing
from aesearch.network.architectures import AutoencoderSpec, count_parameters
from aesearch.network.autoencoder import Autoencoder
from aesearch.network.options import TrainingOptions
from aesearch.network.training import Training, train_autoencoder
from aesearch.projection import project

REPORTED = {("mlp", 2): 0.0388, ("mlp", 5): 0.0247, ("mlp", 10): 0.0170, ("mlp", 20): 0.0144, ("mlp", 50): 0.0120}
SIZES: dict[str, tuple[int | None, ...]] = {
    "mlp": (2, 3, 5, 10, 20, 50),
    "linear": (10,),
    "conv-spatial": (None,),
    "conv-pool": (64,),
    "conv-stride": (3, 10, 100, 250),
}
MAPPED = 3000  # test images in a picture of the latent space


def train(arch: str, latent_dim: int | None, images: NDArray[np.uint8], test: NDArray[np.uint8], seed: int) -> Training:
    """Train as the source does; the test images choose the epoch that is kept."""
    spec = AutoencoderSpec.choose(arch, Preprocessing(28, 28, 1), latent_dim)
    return train_autoencoder(LoadedImages(images), test, spec, TrainingOptions(arch, seed=seed))


def pca_error(images: NDArray[np.uint8], test: NDArray[np.uint8], size: int) -> float:
    """Test error of the best linear reconstruction."""
    from sklearn.decomposition import PCA

    flat = images.reshape(len(images), -1).astype(np.float32) / 255
    held = test.reshape(len(test), -1).astype(np.float32) / 255
    pca = PCA(size, svd_solver="covariance_eigh").fit(flat)
    return float(np.square(pca.inverse_transform(pca.transform(held)) - held).mean())


def draw(name: str, training: Training, test: NDArray[np.uint8], labels: NDArray[np.uint8], folder: Path) -> float:
    """Write curves, reconstructions and the latent space; return the test error on the [0, 1] scale."""
    history = training.history
    losses = [e.train_loss for e in history], [e.held_out_loss for e in history]
    save_picture(draw_history([e.epoch for e in history], *losses, training.recipe.loss), folder / f"{name}-curve.png")
    autoencoder = Autoencoder(training.model, training.spec)
    features, errors = autoencoder.encode_and_score(test)
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    originals = [Tile(to_picture(test[i])) for i in first]
    rebuilt = [Tile(to_picture(image)) for image in autoencoder.decode(features[first])]
    save_picture(draw_sheet([originals, rebuilt], f"{name}: originals over reconstructions"), folder / f"{name}.png")
    shown = features[:MAPPED]
    for method, dims in (("tsne", 2), ("latent", 2), ("latent", 3)):
        if method == "tsne" or features.shape[1] == dims:
            found = project(shown, method=method, dims=dims)
            groups = [str(label) for label in labels[:MAPPED]]
            display = MapDisplay(found.coordinates, groups, groups, f"{name}, {method}, {len(shown):,} test images")
            save_picture(display.draw(), folder / f"{name}-{method}{dims}d.png")
    return float(errors.mean())


def main() -> None:
    """Train, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--archs", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--folder", type=Path, default=Path("results/reproduce"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    mnist = load_mnist()
    rows, held = (3000, 1000) if options.quick else (60_000, 10_000)
    images, test = mnist["train"][:rows, None], mnist["test"][:held, None]
    print_circumstances(train=rows, test=held, seed=options.seed)
    print(f"{'network':14}{'latent':>7}{'parameters':>12}{'reported':>10}{'train loss':>12}{'test loss':>11}"
          f"{'test MSE':>10}{'seconds':>9}")  # fmt: skip
    for arch in options.archs:
        for latent_dim in SIZES[arch]:
            training = train(arch, latent_dim, images, test, options.seed)
            size, last = training.spec.latent_dim, training.history[-1]
            error = draw(f"{arch}-{size}", training, test, mnist["test_labels"][:held], options.folder)
            reported = f"{REPORTED[arch, size]:.4f}" if (arch, size) in REPORTED else ""
            print(f"{arch:14}{size:7}{count_parameters(training.model):12,}{reported:>10}{last.train_loss:12.4f}"
                  f"{last.held_out_loss:11.4f}{error:10.4f}{training.figures['seconds']:9.0f}", flush=True)  # fmt: skip
            if arch == "linear":
                print(f"{'PCA':14}{size:7}{'':45}{pca_error(images, test, size):10.4f}")
    print(f"pictures: {options.folder}")


if __name__ == "__main__":
    main()
