"""Kinds of images to judge features on, and what is free: for the table ``families`` of quality.py."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from measuring import load_mnist
from numpy.typing import NDArray

from aesearch.baselines import patches, principal_components
from aesearch.images.numbers import raw_pixels
from aesearch.probe import fit_linear, knn_accuracy

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
SIDE = 64  # pixels: what aesearch takes larger images at


@dataclass(frozen=True)
class Family:
    """Images (n, height, width[, 3]) uint8 and labels to learn from, and to test on."""

    name: str
    train: Images
    train_labels: Labels
    test: Images
    test_labels: Labels


def few(family: Family, train: int = 240, test: int = 120) -> Family:
    """Some of the images alone, drawn at random."""
    draw = np.random.default_rng(0)
    known, new = (np.sort(draw.permutation(len(of))[:n]) for of, n in ((family.train, train), (family.test, test)))
    return Family(
        family.name, family.train[known], family.train_labels[known], family.test[new], family.test_labels[new]
    )


def families(data: Path, seed: int, wanted: Sequence[str] = ()) -> Iterator[Family]:
    """Yield those that are there, and say which are not; where no division is given it is drawn by the seed.

    ``wanted`` are the first words of names, by default all of ``FAMILIES``.
    """
    for word, find in FAMILIES.items():
        if (not wanted or word in wanted) and (found := find(data, seed)):
            yield found


def _steel(data: Path, seed: int) -> Family | None:
    tar = data / "steel-surface-jpeg.tar"
    if not tar.exists():
        print(f"steel surfaces are left out: there is no {tar}")
        return None
    images, labels, parts = read_tar(tar, "L")
    train = parts == "train"
    return Family("steel surfaces", images[train], labels[train], images[~train], labels[~train])


def _solar(data: Path, seed: int) -> Family | None:
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError:
        print("solar cells are left out: pip install elpv-dataset")
        return None
    images, broken, _ = load_dataset()
    sure = (broken == 0) | (broken == 1)
    return _halved("solar cells", shrink(images[sure]), (broken[sure] == 1).astype(np.int64), 0.627, seed)


def _colour(data: Path, seed: int) -> Family | None:
    tar = data / "cifar10-test-jpeg.tar"
    if not tar.exists():
        print(f"colour photographs are left out: there is no {tar}")
        return None
    images, labels, _ = read_tar(tar, "RGB")
    return _halved("colour photographs", images, labels, 0.5, seed)


def _small(data: Path, seed: int) -> Family:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * 255 / 16).round().astype(np.uint8)
    return _halved("small digits", images, digits.target, 2 / 3, seed)


def _mnist(data: Path, seed: int) -> Family:
    mnist = load_mnist()
    labels = {part: mnist[f"{part}_labels"].astype(np.int64) for part in ("train", "test")}
    return Family("MNIST", mnist["train"], labels["train"], mnist["test"], labels["test"])


FAMILIES = {"steel": _steel, "solar": _solar, "colour": _colour, "small": _small, "MNIST": _mnist}


def _halved(name: str, images: Images, labels: Any, share: float, seed: int) -> Family:
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(len(images)), train_size=share, stratify=labels, random_state=seed)
    labels = np.asarray(labels, np.int64)
    return Family(name, images[train], labels[train], images[test], labels[test])


def shrink(images: Images) -> Images:
    """Images of at most 64 pixels a side, averaged."""
    from PIL import Image

    if max(images.shape[1:3]) <= SIDE:
        return images
    return np.stack([np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images])


def read_tar(path: Path, mode: str, *, reduced: bool = True) -> tuple[Images, Labels, NDArray[np.str_]]:
    """Images, classes, and the folder above the class's, of a tar of folders of JPEGs."""
    from PIL import Image

    images, names, parts = [], [], []
    with tarfile.open(path) as tar:
        for member in sorted(tar.getmembers(), key=lambda m: m.name):
            if member.name.endswith(".jpg") and (file := tar.extractfile(member)) is not None:
                images.append(np.asarray(Image.open(io.BytesIO(file.read())).convert(mode)))
                names.append(Path(member.name).parent.name)
                parts.append(Path(member.name).parent.parent.name)
    labels = np.unique(names, return_inverse=True)[1].astype(np.int64)
    stacked = np.stack(images)
    return shrink(stacked) if reduced else stacked, labels, np.array(parts)


def free_of_cost(family: Family, seed: int) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.float32]]]:
    """Yield name and features, of the images to learn from and to test on, of what trains nothing."""
    train, test = (channels_first(part) for part in (family.train, family.test))
    raw = raw_pixels(train), raw_pixels(test)
    yield "raw pixels", *raw
    yield "PCA-64", *principal_components(*raw)
    if min(train.shape[2:]) >= 2 * HOG_CELL:
        yield "HOG", histograms(family.train), histograms(family.test)
    yield "patches, averaged", *patches(train, test, 1, seed)
    yield "patches, 3x3 fields", *patches(train, test, 3, seed)


HOG_CELL = 8


def histograms(images: Images) -> NDArray[np.float32]:
    """Histograms of oriented gradients (Dalal & Triggs 2005) at scikit-image's settings but 2×2 blocks."""
    from skimage.feature import hog

    axis = -1 if images.ndim == 4 else None
    found = [hog(i, pixels_per_cell=(HOG_CELL,) * 2, cells_per_block=(2, 2), channel_axis=axis) for i in images]
    return np.asarray(found, np.float32)


def channels_first(images: Images) -> Images:
    """(n, channels, height, width)."""
    return images[:, None] if images.ndim == 3 else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def accuracies(
    train: NDArray[np.float32], test: NDArray[np.float32], family: Family, metric: str = "cosine"
) -> list[float]:
    """Of the 10 nearest neighbours, and of a linear probe, on the images to test on."""
    names = np.arange(int(family.train_labels.max()) + 1).astype(str)
    model = fit_linear(train, family.train_labels, names)
    linear = float((model.predict_probabilities(test).argmax(axis=1) == family.test_labels).mean())
    return [knn_accuracy(train, family.train_labels, test, family.test_labels, metric), linear]
