"""Search in a folder of colour JPEGs: does a file find itself, do its neighbours share its label.

    .venv/bin/python scripts/check_cifar.py cifar10-test-jpeg.tar

Takes CIFAR-10's test images as a tar of JPEGs, ``…/<class>/<n>.jpg``; unpacks them beside, builds the collection
with default settings, queries one file of each class, and compares the label agreement of the 10 nearest neighbours
with that of raw pixels. The encoder sees no label.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from measuring import aesearch, print_circumstances

from aesearch import Collection
from aesearch.images.sources.opening import open_source
from aesearch.vectors.distances import exact_neighbours


def agreement(features: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """Mean share of each row's 10 nearest other rows that have its label."""
    rows, _ = exact_neighbours(features, features, 11, metric)
    other = rows != np.arange(len(rows))[:, None]
    other[other.all(axis=1), -1] = False
    return float((labels[rows][other].reshape(len(rows), 10) == labels[:, None]).mean())


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar", type=Path)
    archive = parser.parse_args().tar
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        root = next(p for p in Path(folder).iterdir() if p.is_dir())
        target = Path(folder) / "collection"
        print_circumstances(images=sum(1 for _ in root.rglob("*.jpg")), seed=0)
        print(aesearch("build-index", str(root), "-c", str(target), "--labels", "folder"), end="")
        files = [sorted(p.glob("*.jpg"))[0] for p in sorted(root.iterdir()) if p.is_dir()]
        answer = json.loads(aesearch("query", *map(str, files), "-c", str(target), "-k", "3", "--json"))
        first = [q["hits"][0]["id"] == Path(q["query"]).relative_to(root).as_posix() for q in answer["queries"]]
        print(f"query of one of its files returns that file first: {sum(first)} of {len(first)}")
        collection = Collection.open(target)
        source = open_source(str(root), labels="folder")
        batch = source.read(np.arange(len(source)), collection.autoencoder.spec.preprocessing)
        pixels = batch.images.reshape(len(batch.images), -1).astype(np.float32) / 255
        labels = np.array(collection.labels())
        ours = agreement(collection.features(), labels, collection.metric)
        raw = max(agreement(pixels, labels, metric) for metric in ("cosine", "l2"))
        print(f"label agreement of the 10 nearest neighbours: aesearch {ours:.4f}, raw pixels {raw:.4f}, "
              f"ratio {ours / raw:.2f}, chance {1 / len(set(labels)):.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
