"""Quality of the default encoder on MNIST: linear probe, nearest neighbours, clusters, each beside free baselines.

    AESEARCH_DATA=data .venv/bin/python scripts/quality_mnist.py --seeds 0 1 2

Trained on the 60,000 training images alone; probe and neighbours tested on the 10,000 test images, clusters over
all 70,000. Baselines: raw pixels, and PCA of the encoder's own size.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray

from aesearch import Collection
from aesearch.clusters import cluster
from aesearch.probe import fit_linear, knn_accuracy


def judge(features: NDArray[np.float32], mnist: dict[str, NDArray[np.uint8]], metric: str, seed: int) -> list[float]:
    """Linear probe, 10 nearest neighbours, ACC, NMI, ARI."""
    train, test = features[:60_000], features[60_000:]
    targets, truth = mnist["train_labels"].astype(np.int64), mnist["test_labels"].astype(np.int64)
    model = fit_linear(train, targets, np.arange(10).astype(str))
    linear = float((model.predict_probabilities(test).argmax(axis=1) == truth).mean())
    nearest = knn_accuracy(train, targets, test, truth, metric)
    labels = [str(v) for v in (*targets, *truth)]
    against = cluster(features, clusters=10, metric=metric, labels=labels, seed=seed).against_labels or {}
    return [linear, nearest, against["accuracy"], against["nmi"], against["ari"]]


def show(name: str, rows: list[list[float]]) -> None:
    """One line of means and, with several seeds, standard deviations."""
    means, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
    cells = [f"{m:.4f}" + (f" ±{s:.4f}" if len(rows) > 1 else "") for m, s in zip(means, spread, strict=True)]
    print(f"{name:28}" + "  ".join(f"{c:>15}" for c in cells), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    seeds = parser.parse_args().seeds
    mnist = load_mnist()
    print_circumstances(seeds=seeds, train=60_000, test=10_000, clustered=70_000)
    head = ("linear probe", "kNN-10", "cluster ACC", "NMI", "ARI")
    print(f"{'':28}" + "  ".join(f"{h:>15}" for h in head))
    pixels = np.concatenate([mnist["train"], mnist["test"]]).reshape(70_000, -1).astype(np.float32) / 255

    from sklearn.decomposition import PCA

    show("raw pixels, 784", [judge(pixels, mnist, "l2", seed) for seed in seeds[:1]])
    pca = PCA(64, random_state=0).fit(pixels[:60_000]).transform(pixels).astype(np.float32)
    show("PCA, 64", [judge(pca, mnist, "l2", seed) for seed in seeds[:1]])
    rows, minutes, errors = [], [], []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            collection = Collection.build("mnist", Path(folder) / "mnist", seed=seed)
            minutes.append((time.perf_counter() - started) / 60)
            rows.append(judge(collection.features(), mnist, collection.metric, seed))
            test = np.flatnonzero(np.array(collection.splits()) == "test")
            errors.append(float(collection.store.reconstruction_errors()[test].mean()))
            show(f"aesearch, 64, seed {seed}", rows[-1:])
    show("aesearch, 64, mean", rows)
    rebuilt = pixels[60_000:] - PCA(64, random_state=0).fit(pixels[:60_000]).inverse_transform(pca[60_000:])
    print(f"test reconstruction error: aesearch {np.mean(errors):.5f}, PCA {np.square(rebuilt).mean():.5f}")
    print(f"training, extraction and index: {np.mean(minutes):.1f} minutes a seed")


if __name__ == "__main__":
    main()
