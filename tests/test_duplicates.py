"""The same images, and nearly the same, are found and grouped."""

import json

import numpy as np
import pytest
from PIL import Image

from aesearch import AesearchError, Collection
from aesearch.duplicates import find_duplicates
from aesearch.index import IndexOptions, build_index


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    return generator.normal(size=(3000, 16)).astype(np.float32)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_planted_copies_are_found_and_nothing_else(features, kind, metric):
    planted = features.copy()
    planted[2000] = planted[5]
    planted[[100, 700, 1500]] = planted[100] + 1e-3 * np.arange(3)[:, None]
    found = find_duplicates(planted, build_index(planted, IndexOptions(kind=kind, metric=metric)))
    assert [g.tolist() for g in found.groups] == [[100, 700, 1500], [5, 2000]]
    assert found.exact == [False, False]


def test_the_share_found_is_that_of_exact_search(features):
    planted = np.concatenate([features, features + np.float32(1e-4)])
    good = find_duplicates(planted, build_index(planted, IndexOptions(kind="ivf")))
    assert good.found > 0.9 and len(good.groups) == 3000
    poor = build_index(planted, IndexOptions(kind="IVF64,PQ1x4", min_recall=0))
    assert find_duplicates(planted, poor, threshold=0.001).found < 0.5


def test_copies_are_found_where_every_image_has_one(features):
    planted = np.concatenate([features, features + np.float32(1e-4)])
    for metric in ("cosine", "l2"):
        found = find_duplicates(planted, build_index(planted, IndexOptions(metric=metric)))
        assert len(found.groups) == 3000 and found.found == 1.0
    twice = np.concatenate([features, features])
    assert len(find_duplicates(twice, build_index(twice, IndexOptions(metric="l2"))).groups) == 3000


def test_content_counts_whatever_the_features(features):
    contents = np.arange(3000, dtype=np.uint64)
    contents[[10, 20, 30]] = 10
    found = find_duplicates(features, build_index(features, IndexOptions()), contents)
    assert [g.tolist() for g in found.groups] == [[10, 20, 30]] and found.exact == [True]


def test_all_alike_is_one_group():
    same = np.ones((500, 8), np.float32)
    found = find_duplicates(same, build_index(same, IndexOptions()))
    assert [len(g) for g in found.groups] == [500] and found.found == 1.0


def test_one_row_has_no_duplicate():
    one = np.ones((1, 8), np.float32)
    found = find_duplicates(one, build_index(one, IndexOptions()))
    assert found.groups == [] and found.found is None


@pytest.mark.parametrize("threshold", [-1, float("nan"), float("inf")])
def test_a_threshold_that_is_none_is_one_line(features, threshold):
    with pytest.raises(AesearchError, match="threshold"):
        find_duplicates(features, build_index(features, IndexOptions()), threshold=threshold)


def test_the_command_lists_groups(digit_images, tmp_path, run):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, image in enumerate(digit_images[:100]):
        Image.fromarray(image).resize((32, 32)).save(photos / f"{number:03d}.png")
    (photos / "copy of 7.png").write_bytes((photos / "007.png").read_bytes())
    Image.open(photos / "042.png").save(photos / "again 42.jpg", quality=97)
    Collection.build(str(photos), tmp_path / "c", progress=False, epochs=2, latent_dim=16)
    document = json.loads(run("duplicates", "-c", tmp_path / "c", "--json").stdout)
    groups = {tuple(sorted(one["id"] for one in group)): exact
              for group, exact in zip(document["groups"], document["exact"], strict=True)}  # fmt: skip
    assert groups[("007.png", "copy of 7.png")] is True
    assert groups[("042.png", "again 42.jpg")] is False
    said = run("duplicates", "-c", tmp_path / "c", "--save", tmp_path / "same.png").stdout
    assert "exact copies" in said and "copy of 7.png" in said
    assert Image.open(tmp_path / "same.png").width > 100
