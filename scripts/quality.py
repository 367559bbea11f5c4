"""Quality of the default encoder beside free baselines: features, clusters, reconstruction, anomalies, doubtful labels.

    AESEARCH_DATA=data .venv/bin/python scripts/quality.py --seeds 0 1 2
    AESEARCH_DATA=data .venv/bin/python scripts/quality.py --tables families --seeds 0 1 2
    AESEARCH_DATA=data .venv/bin/python scripts/quality.py --tables surfaces --seeds 0 1 2
    AESEARCH_DATA=data .venv/bin/python scripts/quality.py --tables one-normal one-novel
    AESEARCH_DATA=data .venv/bin/python scripts/quality.py --quick

MNIST: trained on the 60,000 training images alone, measured on the 10,000 test images; clusters of ``features`` over
all 70,000. Nothing was chosen on the test images but how clusters are joined. ``families`` are steel surfaces, solar
cells (pip install elpv-dataset), photographs (CIFAR-10's test images, half of each class to train on, unlabelled),
small digits and MNIST, as far as they are in --data; features beside what trains nothing. ``surfaces`` are solar cells
and steel at their own size, with real and with planted faults. All at default settings. What
is built serves every table of the run; with --keep it stays in that folder, and a later run of the same version goes on
from there. --quick takes a few images and epochs, to see that everything runs.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import surfaces
from families import FAMILIES, accuracies, families, few, free_of_cost
from measuring import load_mnist, print_circumstances
from numpy.typing import NDArray

from aesearch import Collection
from aesearch.anomalies.names import SCORES
from aesearch.clusters import METHODS, SPACES, cluster
from aesearch.collection.results import Anomalies
from aesearch.probe import fit_linear, knn_accuracy, probe
from aesearch.vectors.distances import exact_neighbours

Images = NDArray[np.uint8]
Numbers = NDArray[np.float32]

REPORTED = {2: 0.0388, 5: 0.0247, 10: 0.0170, 20: 0.0144, 50: 0.0120}  # training losses of mlp
NEAREST = 5
CONTAMINATIONS = (0.01, 0.05, 0.10)
WRONG = 0.01
SURFACE_MEASURES = ("image AUROC", "pixel AUROC", "PRO", "alarms / asked", "minutes to learn")


class Bench:
    """What every table needs: the images, how many of them, and the seeds."""

    def __init__(self, options: argparse.Namespace) -> None:
        mnist = load_mnist()
        rows, held = (700, 150) if options.quick else (60_000, 10_000)
        self.train, self.labels = mnist["train"][:rows], mnist["train_labels"][:rows].astype(np.int64)
        self.test, self.truth = mnist["test"][:held], mnist["test_labels"][:held].astype(np.int64)
        self.seeds: list[int] = options.seeds
        self.digits: list[int] = options.digits
        self.data: Path = options.data
        self.families: list[str] = options.families
        self.quick: bool = options.quick
        self.lives = 2 if options.quick else 10
        self.training: dict[str, Any] = {"epochs": 1} if options.quick else {}
        self.folder = options.keep / ("quick" if options.quick else "full")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.test_file = str(self.folder / "test.npy")
        np.save(self.test_file, self.test)

    def build(self, name: str, images: Images, seed: int, **training: Any) -> Collection:
        """The collection of that name, of those images, all trained on but those held out to choose the epoch."""
        folder = self.folder / f"{name}-seed-{seed}"
        folder.mkdir(exist_ok=True)
        source = folder / "images.npy"
        if not source.exists():
            np.save(source, images)
        return Collection.build(
            str(source), folder / "collection", seed=seed, progress=False, **self.training | training
        )


def flat(images: Images) -> Numbers:
    """(n, pixels) float32 in [0, 1]."""
    return np.asarray(images.reshape(len(images), -1) / np.float32(255), dtype=np.float32)


def show(name: str, rows: list[list[float]], digits: int = 4) -> None:
    """One line of means and, with several seeds, standard deviations."""
    means, spread = np.mean(rows, axis=0), np.std(rows, axis=0)
    cells = [
        f"{m:.{digits}f}" + (f" ±{s:.{digits}f}" if len(rows) > 1 else "") for m, s in zip(means, spread, strict=True)
    ]
    print(f"{name:28}" + "  ".join(f"{c:>15}" for c in cells), flush=True)


def head(title: str, *columns: str) -> None:
    """Title and heads of a table."""
    print(f"\n{title}\n{'':28}" + "  ".join(f"{c:>15}" for c in columns), flush=True)


def fit_pca(images: Numbers, size: int) -> Any:
    """Principal components, exactly."""
    from sklearn.decomposition import PCA

    return PCA(min(size, *images.shape), svd_solver="covariance_eigh").fit(images)


def pca_errors(pca: Any, images: Numbers) -> Numbers:
    """Mean squared error of each image rebuilt from its principal components."""
    return np.asarray(np.square(pca.inverse_transform(pca.transform(images)) - images).mean(axis=1), dtype=np.float32)


# ---------------------------------------------------------------- features and clusters


def judge(bench: Bench, train: Numbers, test: Numbers, metric: str, seed: int) -> list[float]:
    """Linear probe, 10 nearest neighbours, ACC, NMI, ARI."""
    model = fit_linear(train, bench.labels, np.arange(10).astype(str))
    linear = float((model.predict_probabilities(test).argmax(axis=1) == bench.truth).mean())
    nearest = knn_accuracy(train, bench.labels, test, bench.truth, metric)
    labels = [str(v) for v in (*bench.labels, *bench.truth)]
    together = np.concatenate([train, test])
    against = cluster(together, clusters=10, metric=metric, labels=labels, seed=seed).against_labels or {}
    return [linear, nearest, against["accuracy"], against["nmi"], against["ari"]]


def features(bench: Bench) -> None:
    """Probe, neighbours, clusters, error and time."""
    head("MNIST, features", "linear probe", "kNN-10", "cluster ACC", "NMI", "ARI", "test MSE", "train minutes")
    train, test = flat(bench.train), flat(bench.test)
    pca = fit_pca(train, 64)
    seed = bench.seeds[0]
    show("raw pixels, 784", [[*judge(bench, train, test, "l2", seed), 0, 0]])
    shrunk = [pca.transform(part).astype(np.float32) for part in (train, test)]
    show("PCA, 64", [[*judge(bench, shrunk[0], shrunk[1], "l2", seed), float(pca_errors(pca, test).mean()), 0]])
    rows = []
    for seed in bench.seeds:
        collection = bench.build("all", bench.train, seed)
        minutes = collection.manifest.artifacts["encoder"]["figures"]["seconds"] / 60
        autoencoder = collection.autoencoder
        latents, errors = autoencoder.encode_and_score(bench.test[:, None])
        own = np.ascontiguousarray(latents[:, : autoencoder.spec.feature_dim])
        judged = judge(bench, collection.features(), own, collection.metric, seed)
        rows.append([*judged, float(errors.mean()), minutes])
        show(f"aesearch, seed {seed}", rows[-1:])
    show("aesearch, mean", rows)


def clusters(bench: Bench) -> None:
    """Ways to group features of the test images, told how many groups; then the default, which has to find that out."""
    head("MNIST, clusters of the 10,000 test images", "ACC", "NMI", "ARI", "clusters", "stability")
    labels = [str(v) for v in bench.truth]
    ways: list[tuple[str, str, int | None]] = [(m, s, None if m == "hdbscan" else 10) for s in SPACES for m in METHODS]
    for method, space, number in [*ways, ("gmm", "umap", None)]:
        rows = []
        for seed in bench.seeds:
            collection = bench.build("all", bench.train, seed)
            vectors, metric = collection.autoencoder.encode(bench.test[:, None]), collection.metric
            found = cluster(
                vectors, method=method, space=space, clusters=number, metric=metric, labels=labels, seed=seed
            )
            against = list((found.against_labels or {}).values())
            rows.append([*against, len(found.sizes), np.nan if found.stability is None else found.stability])
        show(f"{method} on {space}, {number or 'finding the number'}", rows)


def sizes(bench: Bench) -> None:
    """Test error of conv by latent size, all numbers told, beside the training losses reported for mlp."""
    head("MNIST, test MSE by latent size", "mlp, reported", "PCA", "aesearch")
    for size, reported in REPORTED.items():
        pca = fit_pca(flat(bench.train), size)
        linear = float(pca_errors(pca, flat(bench.test)).mean())
        rows = []
        for seed in bench.seeds:
            collection = bench.build(f"latent-{size}", bench.train, seed, latent_dim=size, arch="conv")
            error = float(collection.autoencoder.encode_and_score(bench.test[:, None])[1].mean())
            rows.append([reported, linear, error])
        show(f"{size} numbers", rows)


def of_families(bench: Bench) -> None:
    """Kinds of images that are no digits, and digits: features beside what trains nothing, and what they cost."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for seed in bench.seeds:
        wanted = bench.families or (["steel", "small"] if bench.quick else [])
        for family in families(bench.data, seed, wanted):
            family = few(family) if bench.quick else family
            for name, known, new in free_of_cost(family, seed):
                found.setdefault((family.name, name), []).append([*accuracies(known, new, family), 0.0, 0.0, 0.0])
            before = time.process_time()
            collection = bench.build(family.name.replace(" ", "-"), family.train, seed)
            cost = time.process_time() - before
            figures = collection.manifest.artifacts["encoder"]["figures"]
            judged = accuracies(collection.features(), collection.encode(list(family.test)), family, collection.metric)
            errors = [1000 * (figures[name] or np.nan) for name in ("reconstruction_mse", "pca_mse")]
            found.setdefault((family.name, "aesearch"), []).append([*judged, cost, *errors])
            print(f"{family.name}, seed {seed}: done", file=sys.stderr)
    for title in dict.fromkeys(title for title, _ in found):
        head(title, "kNN-10", "linear probe", "CPU seconds", "1000 MSE", "1000 MSE, PCA")
        for (kind, name), rows in found.items():
            if kind == title:
                show(name, rows, 3)


# ---------------------------------------------------------------- anomalies


def auroc(odd: NDArray[np.bool_], scores: Numbers) -> float:
    """Area under the ROC curve; larger scores are odder."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(odd, scores))


def by_all_scores(bench: Bench, name: str, images: Images, seed: int, size: int) -> dict[str, Numbers]:
    """Scores of the test images by an encoder trained on those, and by what costs nothing."""
    train, test = flat(images), flat(bench.test)
    scores = {
        f"PCA error, {size}": pca_errors(fit_pca(train, size), test),
        "raw nearest neighbours": exact_neighbours(train, test, NEAREST, "l2")[1].mean(axis=1),
    }
    collection = bench.build(name, images, seed)
    for score in SCORES:
        scores[score] = in_order(collection.anomalies(bench.test_file, score=score, top=len(bench.test)))
    return scores


def in_order(found: Anomalies) -> Numbers:
    """Scores by row, where all were ranked."""
    scores = np.empty(len(found.rows), np.float32)
    scores[found.rows] = found.scores
    return scores


def by_digit(bench: Bench, title: str, kind: str, normal: Callable[[Any, int], Any], size: int) -> None:
    """AUROC of each score for each digit, its mean and its worst."""
    head(title, *map(str, bench.digits), "mean", "worst")
    table: dict[str, list[list[float]]] = {}
    for digit in bench.digits:
        found: dict[str, list[float]] = {}
        for seed in bench.seeds:
            images = bench.train[normal(bench.labels, digit)]
            for name, scores in by_all_scores(bench, f"{kind}-{digit}", images, seed, size).items():
                found.setdefault(name, []).append(auroc(~normal(bench.truth, digit), scores))
        for name, values in found.items():
            table.setdefault(name, []).append([float(np.mean(values))])
        print(f"digit {digit}: " + ", ".join(f"{n} {np.mean(v):.4f}" for n, v in found.items()), flush=True)
    for name, column in table.items():
        values = [float(v) for v in np.ravel(column)]
        show(name, [[*values, float(np.mean(values)), min(values)]])


def one_normal(bench: Bench) -> None:
    """One digit is normal, nine are odd."""
    by_digit(bench, "MNIST, one digit normal: AUROC", "only", lambda labels, digit: labels == digit, 32)


def one_novel(bench: Bench) -> None:
    """Nine digits are normal, one is odd."""
    by_digit(bench, "MNIST, one digit novel among nine: AUROC", "without", lambda labels, digit: labels != digit, 64)


def contamination(bench: Bench) -> None:
    """Are odd images found that were trained on, and new ones then."""
    names = ("PCA error, 32", "raw neighbours", *SCORES)
    head(
        "MNIST, one digit normal, odd images trained on: mean AUROC",
        *(f"{n}, {w}" for n in names for w in ("in", "new")),
    )
    for share in CONTAMINATIONS:
        rows = []
        for digit in bench.digits:
            for seed in bench.seeds:
                generator = np.random.default_rng(seed)
                normal = np.flatnonzero(bench.labels == digit)
                planted = generator.choice(
                    np.flatnonzero(bench.labels != digit), round(share * len(normal)), replace=False
                )
                chosen = generator.permutation(np.concatenate([normal, planted]))
                odd, odd_new = bench.labels[chosen] != digit, bench.truth != digit
                train, test = flat(bench.train[chosen]), flat(bench.test)
                pca, most = fit_pca(train, 32), min(200, max(5, len(train) // 30))
                row = [auroc(odd, pca_errors(pca, train)), auroc(odd_new, pca_errors(pca, test))]
                row.append(auroc(odd, exact_neighbours(train, train, most + 1, "l2")[1][:, 1:].mean(axis=1)))
                row.append(auroc(odd_new, exact_neighbours(train, test, most, "l2")[1].mean(axis=1)))
                collection = bench.build(f"only-{digit}-odd-{round(100 * share)}", bench.train[chosen], seed)
                for score in SCORES:
                    inside = in_order(collection.anomalies(score=score, top=len(chosen)))
                    new = in_order(collection.anomalies(bench.test_file, score=score, top=len(bench.test)))
                    row += [auroc(odd, inside), auroc(odd_new, new)]
                rows.append(row)
        show(f"{share:.0%} odd", [list(np.mean(rows, axis=0))])


def false_alarms(bench: Bench) -> None:
    """The rate asked for, and that on new images of the same kind."""
    rates = (0.05, 0.10) if bench.quick else (0.01, 0.05, 0.10)  # 1 % asks for many images
    head("MNIST, false alarms on the test images, all normal", *(f"asked {rate:.0%}" for rate in rates))
    table: dict[str, list[list[float]]] = {score: [] for score in SCORES}
    for seed in bench.seeds:
        collection = bench.build("all", bench.train, seed)
        for score, rows in table.items():
            found = [collection.anomalies(bench.test_file, score=score, false_alarms=rate) for rate in rates]
            rows.append([f.flagged / len(bench.test) for f in found])
    for score, rows in table.items():
        show(score, rows)


def doubts(bench: Bench) -> None:
    """One label in a hundred planted wrong: how many of the doubted ones are wrong, how many wrong ones are doubted."""
    head("MNIST, 1 % wrong labels planted", "doubted", "precision", "recall", "of the first as many")
    rows = []
    for seed in bench.seeds:
        generator = np.random.default_rng(seed)
        labels = bench.labels.copy()
        wrong = generator.choice(len(labels), round(WRONG * len(labels)), replace=False)
        labels[wrong] = (labels[wrong] + generator.integers(1, 10, len(wrong))) % 10
        collection = bench.build("all", bench.train, seed)
        found = probe(collection.features(), [str(v) for v in labels], metric=collection.metric, seed=seed).suspicious
        doubted = np.array([row for row, _, _ in found])
        hits = np.isin(doubted, wrong)
        rows.append([len(doubted), hits.mean(), hits.sum() / len(wrong), hits[: len(wrong)].mean()])
    show("aesearch", rows)


def lives(bench: Bench) -> None:
    """Does training ever die: ten seeds, and each digit alone."""
    head("MNIST, does it live", "restarts", "dead latents", "held-out MSE", "of the mean image's")
    runs = [("first-6000", bench.train[:6000], seed) for seed in range(bench.lives)]
    runs += [(f"only-{d}", bench.train[bench.labels == d], seed) for d in bench.digits for seed in bench.seeds]
    for name, images, seed in runs:
        figures = bench.build(name, images, seed).manifest.artifacts["encoder"]["figures"]
        mean_image = float(np.square(flat(images) - flat(images).mean(axis=0)).mean())
        error = figures["reconstruction_mse"]
        show(f"{name}, seed {seed}", [[figures["restarts"], figures["dead_latents"], error, error / mean_image]])


def of_surfaces(bench: Bench) -> None:
    """Faults on surfaces: of images, of pixels, of regions; and false alarms, times what was asked for."""
    found: dict[tuple[str, str], list[list[float]]] = {}
    for seed in bench.seeds:
        kinds = surfaces.STEEL_KINDS[:1] if bench.quick else surfaces.STEEL_KINDS
        for surface in surfaces.surfaces(bench.data, seed, kinds):
            surface = surfaces.few(surface) if bench.quick else surface
            head(f"{surface.name}, seed {seed}, {len(surface.train):,} to learn from", *SURFACE_MEASURES)
            rows = surfaces.free_of_cost(surface)
            collection = bench.build(surface.name.replace(",", "").replace(" ", "-"), surface.train, seed)
            started = time.monotonic()
            collection.scores_of_rows("combined")
            minutes = (time.monotonic() - started) / 60
            ours, alarms = surfaces.by_aesearch(surface, collection, bench.folder)
            for name, (scores, maps) in (rows | ours).items():
                row = [*surfaces.measures(surface, scores, maps), alarms.get(name, np.nan)]
                row.append(minutes if name == "combined" else np.nan)
                show(name, [row], 3)
                found.setdefault((surface.name, name), []).append(row)
    if len(bench.seeds) > 1:
        head("surfaces, means", *SURFACE_MEASURES)
        for (surface_name, name), rows_of_seeds in found.items():
            show(f"{surface_name}: {name}", rows_of_seeds, 3)


TABLES: dict[str, Callable[[Bench], None]] = {
    "families": of_families,
    "surfaces": of_surfaces,
    "features": features,
    "clusters": clusters,
    "sizes": sizes,
    "one-normal": one_normal,
    "one-novel": one_novel,
    "contamination": contamination,
    "false-alarms": false_alarms,
    "doubts": doubts,
    "lives": lives,
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", nargs="+", default=list(TABLES), choices=list(TABLES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--digits", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AESEARCH_DATA", "data")))
    parser.add_argument("--families", nargs="+", default=[], choices=list(FAMILIES), help="only these")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        options.keep = options.keep or Path(folder)
        bench = Bench(options)
        print_circumstances(seeds=bench.seeds, train=len(bench.train), test=len(bench.test))
        for table in options.tables:
            TABLES[table](bench)


if __name__ == "__main__":
    main()
