"""Wrong arguments and strange data: an answer where there can be one, else one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest
from PIL import Image

from aesearch.collection.facade import Collection
from aesearch.errors import AesearchError
from aesearch.images.sources.opening import open_source
from aesearch.index.options import IndexOptions


@pytest.fixture
def asked(run, digits, tmp_path, monkeypatch):
    """Run a command on a copy of the digits under indexes/digits; gives the one line of an error."""
    shutil.copytree(digits.folder, tmp_path / "indexes/digits")
    monkeypatch.setenv("AESEARCH_COLLECTION", "digits")

    def ask(*arguments, code=1):
        said = run(*arguments, code=code).stderr.strip().splitlines()
        assert "Traceback" not in str(said)
        return said[-1]

    return ask


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["anomalies", "--score", "combine"], "did you mean 'combined'?"),
        (["cluster", "--method", "kmean"], "did you mean 'kmeans'?"),
        (["cluster", "--space", "features "], "did you mean 'features'?"),
        (["map", "--method", "tsn"], "did you mean 'tsne'?"),
        (["map", "--method", "pca", "--colour-by", "lable"], "did you mean 'label'?"),
        (["export", "x", "--format", "cvs"], "did you mean 'csv'?"),
        (["build-index", "--metric", "cosin"], "did you mean 'cosine'?"),
        (["build-index", "--index", "hsnw"], "did you mean 'hnsw'?"),
        (["train", "digits", "--arch", "conv_pool"], "did you mean 'conv-pool'?"),
        (["train", "digits", "--loss", "mes"], "did you mean 'mse'?"),
        (["train", "digits", "--invariance", "stron"], "did you mean 'strong'?"),
        (["train", "digits", "--labels", "folders"], "did you mean 'folder'?"),
        (["train", "mnis"], "did you mean 'mnist'?"),
        (["train", "mnsit"], "did you mean 'mnist'?"),
        (["train", "cifar_10"], "did you mean 'cifar10'?"),
        (["train", "mnist:tset"], "did you mean 'test'?"),
        (["train", "./indexs"], "did you mean 'indexes'?"),
        (["query", "--row", "1", "--where", "lable=3"], "did you mean 'label'?"),
        (["query", "--row", "1", "--where", "Label!=3"], "did you mean 'label'?"),
        (["query", "--row", "1", "--where", "split=tran"], "no image has 'split=tran'"),
        (["anomalies", "--score", "recon"], "did you mean 'reconstruction'?"),
        (["anomalies", "--score", "Neighbors"], "did you mean 'neighbours'?"),
        (["anomalies", "--score", "reconstruction", "--normal-label", "00"], "did you mean '0'?"),
        (["cluster", "--method", "K-Means"], "did you mean 'kmeans'?"),
        (["map", "--method", "T-SNE"], "did you mean 'tsne'?"),
        (["train", "digits", "--optimizer", "adaw"], "did you mean 'adamw'?"),
        (["train", "digits", "--output", "sigmiod"], "did you mean 'sigmoid'?"),
        (["query", "--id", "digits/1797"], "did you mean 'digits/797'?"),
        (["query", "--row", "1", "-c", "digit"], "did you mean 'digits'?"),
        (["query", "--row", "1", "-c", ".."], "there is no collection at .."),
        (["query", "--row", "1", "-c", "../../digits"], "there is no collection at ../../digits"),
        (["query", "--row", "-1"], "there is no row -1"),
        (["query", "nothing.png"], "No such file"),
        (["query", "."], "not a regular file"),
        (["cluster", "--clusters", "1798"], "1798 clusters"),
        (["cluster", "--clusters", "0"], "0"),
        (["anomalies", "--false-alarms", "2"], "must lie between 0 and 1"),
        (["anomalies", "--false-alarms", "nan"], "must lie between 0 and 1"),
        (["anomalies", "nowhere/"], "nowhere"),
        (["duplicates", "--threshold", "nan"], "--threshold"),
        (["build-index", "--min-recall", "nan"], "min-recall"),
        (["train", "digits", "--learning-rate", "0"], "learning rate"),
        (["train", "digits", "--learning-rate", "nan"], "learning rate"),
        (["train", "digits", "--image-size", "0x0"], "0x0"),
        (["train", "digits", "--image-size", "1000000"], "1000000"),
        (["train", "digits", "--device", "gpu"], "auto, cpu, cuda (NVIDIA), cuda:1 or mps (Apple)"),
        (["query", "nothing.png", "--device", "gpu"], "device 'gpu' is not available here"),
        (["anomalies", "nowhere", "--device", "gpu"], "device 'gpu' is not available here"),
        (["query", "--row", "0", "--save", "no/such/../x.gif"], "end its name in"),
    ],
)
def test_wrong_arguments_are_one_line(asked, arguments, message):
    assert message in asked(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [["query", "-k", "0", "--row", "1"], ["anomalies", "--top", "0"], ["map", "--dims", "4"], ["query"], ["quer"], [""],
     ["query", "--row", "x"], ["train"], ["classify"], ["generate", "--sample", "0"],
     ["build-index", "--max-memory", "0"], ["train", "digits", "--latent-dim", "0"],
     ["train", "digits", "--epochs", "0"], ["train", "digits", "--batch-size", "0"], ["train", "digits", "-c", ""]],
)  # fmt: skip
def test_wrong_usage_exits_with_2(asked, arguments):
    asked(*arguments, code=2)


def build(tmp_path, images, **more):
    np.save(tmp_path / "x.npy", images)
    return Collection.build(str(tmp_path / "x.npy"), tmp_path / "c", progress=False, epochs=1, latent_dim=4, **more)


def ask_all(collection):
    """Everything that a collection can be asked; all numbers are finite."""
    rows = collection.store.rows
    assert len(collection.query(row=0, k=10**6).rows) == rows - 1
    for score in ("combined", "reconstruction", "nap", "neighbours"):
        assert np.isfinite(collection.anomalies(score=score).scores).all()
    collection.duplicates()
    for options in ({"method": "kmeans"}, {"method": "gmm", "clusters": 1}, {"method": "hdbscan"}):
        assert len(collection.cluster(space="features", **options).assignments) == rows
    for method in ("pca", "latent"):
        assert np.isfinite(collection.map(method=method).coordinates).all()
    if rows < 4:
        with pytest.raises(AesearchError, match="UMAP needs at least 4 images"):
            collection.cluster()
    else:
        assert len(collection.cluster(clusters=2).assignments) == rows
    assert np.isfinite(collection.reconstruct(rows=[0])[1]).all()


@pytest.mark.parametrize("count", [1, 2, 7])
def test_few_images_are_a_collection(tmp_path, digit_images, count):
    ask_all(build(tmp_path, digit_images[:count]))


def test_images_all_alike_are_a_collection(tmp_path):
    ask_all(build(tmp_path, np.full((40, 8, 8), 7, np.uint8)))


def test_a_row_a_thousand_times(tmp_path, digit_images):
    images = np.concatenate([np.repeat(digit_images[:1], 300, axis=0), digit_images[:50]])
    collection = build(tmp_path, images)
    ask_all(collection)
    assert max(map(len, collection.duplicates().rows)) == 301


def test_pixels_that_are_no_numbers_are_skipped(tmp_path, digit_images):
    images = (digit_images[:30] / 255).astype(np.float32)
    images[3, 0, 0], images[4, 0, 0], images[5, 0, 0] = np.nan, np.inf, 1e30
    collection = build(tmp_path, images)
    assert collection.store.rows == 27 and len(collection.store.skipped()) == 3
    assert {int(re.sub(r".*/", "", id)) for id, _ in collection.store.skipped()} == {3, 4, 5}


@pytest.mark.parametrize("content", [np.zeros((0, 8, 8), np.uint8), np.zeros((5, 0, 8), np.uint8), np.zeros(5), "x"])
def test_arrays_that_hold_no_images_are_one_line(tmp_path, run, content):
    np.save(tmp_path / "x.npy", content) if not isinstance(content, str) else (tmp_path / "x.npy").write_text(content)
    run("build-index", tmp_path / "x.npy", "-c", tmp_path / "c", code=1)


def test_labels_that_say_nothing(tmp_path, digit_images, run):
    for labels, message in ((["a"] * 60, "label"), ([""] * 60, "label")):
        np.savez(tmp_path / "x.npz", x=digit_images[:60], y=np.array(labels))
        collection = Collection.build(
            str(tmp_path / "x.npz"), tmp_path / "c", progress=False, epochs=1, latent_dim=4, overwrite=True
        )
        assert message in run("probe", "-c", tmp_path / "c", code=1).stderr
        collection.cluster(method="kmeans", clusters=3, space="features")


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e15])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_features_of_any_scale_are_searched_and_grouped(digits, scale, metric):
    from aesearch.clusters import cluster
    from aesearch.index.build import build_index
    from aesearch.projection import project

    features = (digits.features() * scale).astype(np.float32)
    rows, distances = build_index(features, IndexOptions(kind="flat", metric=metric)).search(features[:5], 3)
    assert np.isfinite(distances).all() and (rows >= 0).all()
    assert len(cluster(features[:300], method="kmeans", clusters=3, space="features", metric=metric).sizes) == 3
    assert np.isfinite(project(features[:300], method="pca", metric=metric).coordinates).all()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["build-index", ""], 1), (["build-index", "~nosuchuser/x"], 1), (["info", "-c", "~nosuchuser/x"], 1),
        (["train", "digits", "--image-size", "²"], 1),
        (["train", "digits", "--latent-dim", "1" + "0" * 12], 1), (["train", "digits", "--widths", "9" * 5000], 2),
        (["train", "digits", "--widths", "70000,8"], 1), (["sweep", "digits", "--latent-dims", "9" * 20], 2),
        (["build-index", "--max-memory", "9" * 400], 2), (["cluster", "--clusters", "9" * 5000], 2),
        (["generate", "--sample", "1" + "0" * 12], 2), (["extract", "--device", "meta"], 1),
        (["build-index", "--index", "HNSW0"], 1), (["build-index", "--index", "HNSW1"], 1),
        (["build-index", "--index", "IVF1000000000,Flat"], 1), (["build-index", "--index", "HNSW1000000000"], 1),
        (["export", os.devnull, "--format", "csv"], 1),
    ],
)  # fmt: skip
def test_odd_arguments_are_one_line(asked, arguments, code):
    asked(*arguments, code=code)


def test_a_name_that_does_not_exist_is_not_made(run, tmp_path):
    for command in (["cluster"], ["map"], ["update"], ["probe"]):
        run(*command, "-c", "./typo", code=1)
    assert not (tmp_path / "typo").exists()


def test_names_that_read_like_formulas_are_drawn_as_they_are(tmp_path, digit_images, run):
    labels = [r"$\foo$", "_hidden", "a$b"] * 10
    np.savez(tmp_path / "x.npz", x=digit_images[:30], y=np.array(labels))
    Collection.build(str(tmp_path / "x.npz"), tmp_path / r"we$\foo$ird", progress=False, epochs=1, latent_dim=4)
    run("map", "--method", "pca", "-c", str(tmp_path / r"we$\foo$ird"))


@pytest.mark.parametrize("kind", ["cut", "npy as npz", "npz as npy", "text", "header", "sparse", "zip bomb"])
def test_strange_array_files_are_one_line(tmp_path, run, kind, monkeypatch):
    images = np.zeros((50, 8, 8), np.uint8)
    path = tmp_path / ("x.npy" if kind in ("npz as npy", "header") else "x.h5" if kind == "sparse" else "x.npz")
    if kind == "sparse":
        with h5py.File(path, "w") as file:
            file.create_dataset("x", (400_000_000, 28, 28), "u1", chunks=(1, 28, 28))
    elif kind == "header":
        np.save(path, images)
        path.write_bytes(path.read_bytes().replace(b"(50, 8, 8)", b"(50, 0, 8)"))
    else:
        with path.open("wb") as file:
            np.save(file, images) if kind == "npy as npz" else np.savez_compressed(file, x=images)
    if kind == "cut":
        os.truncate(path, 100)
    elif kind == "text":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", "hello")
    elif kind == "zip bomb":
        monkeypatch.setattr("aesearch.images.sources.opening.memory_at_hand", lambda: 1000)
    run("build-index", path, "-c", tmp_path / "c", code=1)
    assert not (tmp_path / "c/collection.json").exists()


def test_a_table_with_columns_that_nobody_needs(tmp_path, digit_images):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    Image.fromarray(digit_images[0]).save(tmp_path / "a.png")
    odd = arrow.array([1], type=arrow.timestamp("ns"))
    parquet.write_table(arrow.table({"path": ["a.png"], "when": odd}), tmp_path / "t.parquet")
    assert open_source(str(tmp_path / "t.parquet")).ids == ["a.png"]


def test_files_whose_names_are_escaped_alike_stay_apart(tmp_path, digit_images):
    root = tmp_path / "photos"
    root.mkdir()
    names = [b"\xff.bmp", rb"\xff.bmp", rb"\\xff.bmp", b"\\\xff.bmp", b"plain.bmp", b"back\\slash.bmp"]
    for number, name in enumerate(names):
        Image.fromarray(digit_images[number]).save(tmp_path / "x.bmp")
        (tmp_path / "x.bmp").rename(root / os.fsdecode(name))
        os.utime(root / os.fsdecode(name), ns=(10**18, 10**18))
    source = open_source(str(root))
    assert len(set(source.ids)) == len(names) and {"plain.bmp", "back\\slash.bmp", r"\xff.bmp"} < set(source.ids)
    collection = Collection.build(str(root), tmp_path / "c", progress=False, epochs=1, latent_dim=4)
    Image.fromarray(digit_images[9]).save(root / "new.bmp")
    assert collection.update().unchanged == len(names) and len(set(collection.store.texts("content_hash"))) == 7


def test_a_folder_whose_name_is_no_unicode_is_one_line(tmp_path, run, digit_images):
    odd = tmp_path / os.fsdecode(b"by\xff")
    odd.mkdir()
    Image.fromarray(digit_images[0]).save(odd / "a.png")
    assert "not valid UTF-8" in run("build-index", str(odd), "-c", "./c", code=1).stderr
    assert "not valid UTF-8" in run("build-index", "digits", "-c", str(odd / "c"), code=1).stderr


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-", ">&-"])
def test_closed_streams_change_nothing(digits, tmp_path, closed):
    shutil.copytree(digits.folder, tmp_path / "c")
    line = f"{sys.executable} -m aesearch cluster --clusters 3 --method kmeans --space features -c ./c {closed}"
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path, check=False).returncode == 0
    assert len(Collection.open(tmp_path / "c").assignments()) == 1797


def test_a_terminal_that_lacks_letters_gets_escapes(tmp_path, digit_images):
    Image.fromarray(digit_images[0]).save(tmp_path / "ж.png")
    Collection.build(str(tmp_path), tmp_path / "c", progress=False, epochs=1, latent_dim=4)
    command = [sys.executable, "-m", "aesearch", "query", "ж.png", "-c", "./c"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 0 and rb"\u0436.png" in done.stdout
