"""Wrong arguments and strange data: an answer where there can be one, else one line."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from aesearch.collection import Collection
from aesearch.errors import AesearchError
from aesearch.index import IndexOptions


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
        (["train", "mnis"], "mnis"),
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
        (["train", "digits", "--device", "gpu"], "device 'gpu' is not available here"),
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
    from aesearch.index import build_index
    from aesearch.projection import project

    features = (digits.features() * scale).astype(np.float32)
    rows, distances = build_index(features, IndexOptions(kind="flat", metric=metric)).search(features[:5], 3)
    assert np.isfinite(distances).all() and (rows >= 0).all()
    assert len(cluster(features[:300], method="kmeans", clusters=3, space="features", metric=metric).sizes) == 3
    assert np.isfinite(project(features[:300], method="pca", metric=metric).coordinates).all()
