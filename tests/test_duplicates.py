"""The same images, and nearly the same, are found and grouped."""

import json

import numpy as np
import pytest
from PIL import Image

from aesearch import AesearchError, Collection
from aesearch.duplicates import Pixels, find_duplicates
from aesearch.index.build import build_index
from aesearch.index.options import IndexOptions


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


@pytest.fixture(scope="module")
def copied(tmp_path_factory, digit_images):
    """Digits of 32 pixels, three of them there again in another quality or size; all else shows other digits."""
    folder = tmp_path_factory.mktemp("copied")
    (folder / "photos").mkdir()
    for number, image in enumerate(digit_images[:150]):
        Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"photos/{number:03d}.png")
    Image.open(folder / "photos/007.png").save(folder / "photos/7 again.jpg", quality=60)
    Image.open(folder / "photos/042.png").resize((24, 24)).save(folder / "photos/42 smaller.jpg", quality=90)
    Image.open(folder / "photos/099.png").resize((64, 64)).save(folder / "photos/99 larger.webp")
    return Collection.build(str(folder / "photos"), folder / "c", progress=False, epochs=6, latent_dim=16)


def test_what_is_near_by_features_is_confirmed_on_pixels(copied):
    wide = 0.3  # a distance within which most digits have others
    unsure = copied.duplicates(threshold=wide, confirm=False)
    assert max(map(len, unsure.ids)) > 30 and unsure.rejected == 0
    found = copied.duplicates(threshold=wide)
    groups = {frozenset(ids): far for ids, far in zip(found.ids, found.pixel_distances, strict=True)}
    assert set(groups) == {
        frozenset(("007.png", "7 again.jpg")),
        frozenset(("042.png", "42 smaller.jpg")),
        frozenset(("099.png", "99 larger.webp")),
    }
    assert all(0 < far < 0.1 for far in groups.values()) and found.rejected > 100
    assert {frozenset(ids) for ids in copied.duplicates().ids} == set(groups)


def test_what_cannot_be_read_any_more_is_told_by_features_and_said(copied, tmp_path, caplog):
    import shutil

    shutil.copytree(copied.folder.parent, tmp_path / "here")
    collection = Collection.open(tmp_path / "here/c", progress=False)
    gone = copied.folder.parent / "photos/007.png"
    gone.rename(tmp_path / "away.png")
    try:
        found = Collection.open(copied.folder, progress=False).duplicates()
    finally:
        (tmp_path / "away.png").rename(gone)
    groups = dict(zip(map(frozenset, found.ids), found.pixel_distances, strict=True))
    assert groups[frozenset(("007.png", "7 again.jpg"))] is None
    assert "1 pairs are called near by their features alone" in caplog.text
    assert collection.duplicates().to_json()["pixel_distances"]


def test_a_chain_of_pairs_is_looked_at_again_where_its_nearest_links_break(features):
    """Three rows near each other; the pixels of the two nearest links refuse one of them, the third link holds."""
    near = features.copy()
    near[[10, 20, 30]] = near[10] + np.array([0, 1e-4, 2.1e-4], np.float32)[:, None]
    refused = {(10, 20)}

    def distances(pairs):
        return np.array([0.9 if tuple(pair) in refused else 0.2 for pair in pairs.tolist()], np.float32)

    index = build_index(near, IndexOptions(metric="l2"))
    found = find_duplicates(near, index, pixels=Pixels(distances, 0.5), threshold=0.01)
    assert [g.tolist() for g in found.groups] == [[10, 20, 30]] and found.pixels == [pytest.approx(0.2)]
    refused |= {(10, 30)}
    found = find_duplicates(near, index, pixels=Pixels(distances, 0.5), threshold=0.01)
    assert [g.tolist() for g in found.groups] == [[20, 30]] and found.rejected == 2 and found.found == 1.0
