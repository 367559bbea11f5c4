"""Bad frames among good images, and where `aesearch anomalies` lists them.

    AESEARCH_DATA=data .venv/bin/python scripts/planted_frames.py digits cifar steel mnist --seeds 0 1 2

Takes 500 images of each collection, by chance, and seven bad frames: noise, a plain colour, black, white, checkers, an
image of which half is grey, and one of coarse blocks. Builds a collection, at default settings, of all 507, and one of
the 500 with the seven scored as new; prints the rank of each by the default score, how many are within the first 25,
and the AUROC of the score and of each part and other score, beside nearest neighbours of raw pixels. cifar and steel
are the tars of JPEGs ``cifar10-test-jpeg.tar`` and ``steel-surface-jpeg.tar`` in AESEARCH_DATA. --quick: one epoch.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from aesearch import Collection
from aesearch.anomalies.names import SCORES
from aesearch.anomalies.ranking import neighbour_distance
from aesearch.vectors.distances import exact_neighbours

Images = NDArray[np.uint8]
GOOD, WITHIN, NEAREST = 500, 25, 5


def bad_frames(image: Images, others: Images, rng: np.random.Generator) -> dict[str, Images]:
    """Seven bad frames of the shape of an image (h, w) or (h, w, 3); two of them are made from ``others``."""
    height, width = image.shape[:2]
    plain = np.zeros_like(image)
    plain[..., :1] = 255 if image.ndim == 3 else 90  # red, or grey
    y, x = np.mgrid[:height, :width] // max(1, height // 8)
    checkers = np.where((x + y) % 2, 255, 0).astype(np.uint8).reshape(height, width, *[1] * (image.ndim - 2))
    half = others[0].copy()
    half[:, : width // 2] = 128
    few = (max(2, width // 8), max(2, height // 8)) if height >= 16 else (width // 2, height // 2)
    coarse = (
        Image.fromarray(others[1]).resize(few, Image.Resampling.BOX).resize((width, height), Image.Resampling.NEAREST)
    )
    return {
        "noise": rng.integers(0, 256, image.shape, dtype=np.uint8),
        "plain": plain if image.ndim == 3 else np.full_like(image, 90),
        "black": np.zeros_like(image),
        "white": np.full_like(image, 255),
        "checkers": np.broadcast_to(checkers, image.shape).copy(),
        "half grey": half,
        "blocks": np.asarray(coarse),
    }


def digits() -> Images:
    """(1797, 8, 8)."""
    return np.rint(load_digits().images * (255 / 16)).astype(np.uint8)


def of_tar(name: str) -> Callable[[], Images]:
    """Images of a tar of JPEGs, as they are; grey ones as (n, h, w)."""

    def read() -> Images:
        path = Path(os.environ.get("AESEARCH_DATA", "data")) / name
        if not path.is_file():
            sys.exit(f"there is no {path}: AESEARCH_DATA says where it lies")
        with tarfile.open(path) as tar:
            files = [tar.extractfile(m).read() for m in tar if m.name.endswith(".jpg")]  # type: ignore[union-attr]
        images = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in files])
        return images[..., 0] if (images == images[..., :1]).all() else images

    return read


SETS: dict[str, Callable[[], Images]] = {
    "digits": digits,
    "mnist": lambda: load_mnist()["train"],
    "cifar": of_tar("cifar10-test-jpeg.tar"),
    "steel": of_tar("steel-surface-jpeg.tar"),
}


def plant(images: Images, seed: int) -> tuple[Images, Images, list[str]]:
    """Good images, and the bad frames with their names."""
    rng = np.random.default_rng(seed)
    drawn = images[rng.permutation(len(images))[: GOOD + 3]]
    frames = bad_frames(drawn[-1], drawn[-3:-1], rng)
    return drawn[:GOOD], np.stack(list(frames.values())), list(frames)


def scores_of(collection: Collection, bad: Path, *, apart: bool) -> dict[str, NDArray[Any]]:
    """Every score of all images, the bad ones last, and what the default one says of those."""
    found: dict[str, NDArray[Any]] = {}
    for score in SCORES:
        own = collection.scores_of_rows(score)
        new = collection.anomalies(str(bad), score=score, top=100) if apart else None
        if new is not None:
            own = np.concatenate([own, new.scores[np.argsort(new.rows)]])
        found[score] = own
    return found


def raw_neighbours(good: Images, bad: Images, *, apart: bool) -> NDArray[np.float32]:
    """Mean distance of raw pixels to the 5 nearest among what the collection holds."""
    flat = np.concatenate([good, bad]).reshape(len(good) + len(bad), -1).astype(np.float32)
    held = flat[: len(good)] if apart else flat
    rows, distances = exact_neighbours(held, flat, NEAREST + 1, "l2")
    return neighbour_distance(rows, distances, NEAREST, np.arange(len(flat)))


def judge(name: str, seed: int, folder: Path, training: dict[str, Any]) -> None:
    """Print one line for each way."""
    good, bad, names = plant(SETS[name](), seed)
    np.save(folder / "bad.npy", bad)
    for way, images in (("among them", np.concatenate([good, bad])), ("new", good)):
        np.save(folder / f"{way[:3]}.npy", images)
        built = Collection.build(
            str(folder / f"{way[:3]}.npy"), folder / f"c-{way[:3]}", seed=seed, progress=False, **training
        )
        built.progress = False
        scores = scores_of(built, folder / "bad.npy", apart=way == "new")
        scores["raw 5-NN"] = raw_neighbours(good, bad, apart=way == "new")
        ranks = np.argsort(np.argsort(-scores["combined"], kind="stable"))[GOOD:] + 1
        odd = np.arange(GOOD + len(bad)) >= GOOD
        aurocs = ", ".join(f"{score} {roc_auc_score(odd, values):.3f}" for score, values in scores.items())
        listed = ", ".join(f"{frame} {rank}" for frame, rank in zip(names, ranks, strict=True))
        print(f"{name:7} seed {seed} {way:10} within {WITHIN}: {(ranks <= WITHIN).sum()} of 7  ({listed})", flush=True)
        print(f"{'':26} AUROC: {aurocs}", flush=True)


def main() -> None:
    """Plant, build, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    print_circumstances(good=GOOD, bad=7, seeds=options.seeds)
    for name in options.sets:
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                judge(name, seed, Path(folder), {"epochs": 1} if options.quick else {})


if __name__ == "__main__":
    main()
