"""The report: every section, what is missing, names as text, nothing asked of a network."""

from __future__ import annotations

import re
import shutil

import pytest
from conftest import write_labelled

from aesearch.collection.facade import Collection
from aesearch.report.page import make_report


@pytest.fixture(scope="module")
def made(tmp_path_factory, digit_images, digit_labels):
    """A collection with labels and a nasty name, and its report before and after all was made."""
    root = tmp_path_factory.mktemp("card")
    write_labelled(root / "photos", digit_images[:120], digit_labels)
    shutil.copy(root / "photos/0/000.png", root / 'photos/0/<img src=x onerror="1">.png')
    collection = Collection.build(
        str(root / "photos"), root / "c", labels="folder", progress=False, epochs=2, latent_dim=8
    )
    bare = make_report(collection)
    collection.cluster(method="kmeans", clusters=3, space="features")
    collection.probe()
    collection.anomalies(score="combined")
    return collection, bare, make_report(collection)


def test_what_is_missing_is_said_with_the_command_that_makes_it(made):
    collection, bare, whole = made
    for command in ("cluster", "probe"):
        told = f"run <code>aesearch {command} -c {collection.folder}</code>"
        assert told in bare and told not in whole


def test_every_figure_is_the_manifest_s(made):
    collection, _, page = made
    artifacts = collection.manifest.artifacts
    for name, figure in (("encoder", "reconstruction_mse"), ("probe", "linear_accuracy"), ("clusters", "silhouette")):
        assert f"{artifacts[name]['figures'][figure]:.4f}" in page
    for artifact in artifacts.values():
        assert all(facts["sha256"] in page for facts in artifact["files"].values())
    assert f"{artifacts['probe']['figures']['doubted']:,} in doubt" in page and "121 images of" in page
    assert re.search(r"[0-9]+ groups of [0-9]+ images, 1 of the groups exact copies", page)
    assert page.count("<figure>") > 36 + 11 + 3 * 5 + 11


def test_names_stay_text_and_nothing_is_asked_of_a_network(made):
    page = made[2]
    assert "<img src=x" not in page and "&lt;img src=x onerror=&quot;1&quot;&gt;" in page
    assert "default-src 'none'" in page and not re.search(r"<(script|iframe|img)[^>]+src='(?!data:)", page)


def test_the_command_writes_it(made, run, tmp_path):
    folder = made[0].folder
    assert "report.html" in run("report", "-c", folder).stdout
    run("report", "-c", folder, "--save", tmp_path / "x.html")
    assert (tmp_path / "x.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (folder / "report.html").is_file()
