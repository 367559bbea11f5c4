"""Clusters of points whose groups are known."""

import numpy as np
import pytest
from sklearn.datasets import make_moons
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture

from aesearch.clusters import _join, assign, carry_names, cluster, compare, silhouette
from aesearch.errors import AesearchError


@pytest.fixture(scope="module")
def blobs():
    """Five well-separated groups of different size in 8 dimensions, and their names."""
    generator = np.random.default_rng(0)
    sizes = (120, 90, 60, 40, 30)
    centres = np.eye(5, 8) * 20
    points = np.concatenate([c + generator.normal(size=(n, 8)) for c, n in zip(centres, sizes, strict=True)])
    return points.astype(np.float32), [f"g{i}" for i, n in enumerate(sizes) for _ in range(n)]


@pytest.mark.parametrize("space", ["features", "umap"])
@pytest.mark.parametrize("method", ["kmeans", "gmm", "hdbscan"])
def test_known_groups_are_found_and_counted(blobs, method, space):
    points, names = blobs
    found = cluster(points, method=method, space=space, labels=names)
    assert found.sizes == [120, 90, 60, 40, 30]
    assert found.against_labels == {"accuracy": 1.0, "nmi": pytest.approx(1.0), "ari": 1.0}
    assert found.silhouette > 0.6


def test_a_given_number_is_kept_and_clusters_are_numbered_by_size(blobs):
    found = cluster(blobs[0], method="kmeans", clusters=3, space="features")
    assert len(found.sizes) == 3 and found.sizes == sorted(found.sizes, reverse=True)
    assert found.against_labels is None


def test_the_same_seed_gives_the_same_clusters(blobs):
    first, second = (cluster(blobs[0], seed=3).assignments for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("method", "space"), [("gmm", "umap"), ("kmeans", "features"), ("gmm", "features")])
def test_groups_that_are_there_are_stable_and_a_shapeless_cloud_is_not(blobs, method, space):
    found = cluster(blobs[0], method=method, space=space)
    assert found.stability > 0.95 and not found.unclear
    cloud = np.random.default_rng(0).normal(size=(600, 64)).astype(np.float32)
    shapeless = cluster(cloud, method=method, space=space)
    assert shapeless.stability < 0.5 and shapeless.unclear
    assert cluster(blobs[0], method=method, space=space, clusters=5).stability is None


def test_a_cloud_of_which_all_is_left_out_as_noise_has_no_clear_structure():
    cloud = np.random.default_rng(0).normal(size=(600, 64)).astype(np.float32)
    found = cluster(cloud, method="hdbscan", space="features")
    assert found.sizes == [] and found.unclear


def test_a_bent_group_stays_one():
    """Two half-moons, one inside the other: a mixture of two components cuts them, one of more, joined, does not."""
    points, names = make_moons(1200, noise=0.06, random_state=0)
    labels = [str(n) for n in names]
    plain = GaussianMixture(2, random_state=0).fit_predict(points)
    assert compare(plain, labels)["accuracy"] < 0.95
    found = cluster(points.astype(np.float32), clusters=2, space="features", labels=labels)
    assert found.against_labels["accuracy"] > 0.99


def test_groups_are_joined_by_their_links_by_hand():
    """Groups 0 and 1 hold many rows and some links between them, 2 and 3 few rows and hardly fewer links."""
    groups = np.repeat([0, 1, 2, 3], [8, 8, 2, 2])
    within = [(r, r) for r in range(20)] * 2
    between = [(0, 8), (1, 9), (2, 10), (16, 18), (17, 19), (7, 16)]
    links = np.array(within + between + [(b, a) for a, b in between])
    places = groups[:, None].astype(np.float32)
    joined = _join(groups, links, 3, places)
    assert len(np.unique(joined)) == 3 and len(np.unique(joined[16:])) == 1
    assert np.array_equal(_join(groups, links, 4, places), groups)


def test_a_splinter_without_links_does_not_take_the_place_of_a_group():
    """Of 63 rows three make a splinter near the first group; two groups that a few links join stay two."""
    groups = np.repeat([0, 1, 2, 3], [20, 20, 20, 3])
    places = np.array([0.0, 10.0, 20.0, 1.0], np.float32)[groups][:, None]
    within = [(r, r) for r in range(63)] * 3
    links = np.array([*within, (20, 40), (40, 20)])
    joined = _join(groups, links, 3, places)
    assert len({joined[0], joined[20], joined[40]}) == 3 and joined[60] == joined[0]
    assert joined[20] == _join(groups, links, 2, places)[40]  # asked for fewer, linked groups are joined


def test_new_images_go_where_most_of_their_neighbours_are():
    assignments = np.array([0, 0, 1, 1, -1, 2], np.int32)
    clusters, shares = assign(np.array([[0, 1, 2], [2, 3, 5], [4, 4, 0]]), assignments)
    assert clusters.tolist() == [0, 1, -1] and np.allclose(shares, 2 / 3)
    clusters, shares = assign(np.array([[0, -1, -1]]), assignments)  # an index that found no more
    assert clusters.tolist() == [0] and shares.tolist() == [1]


def test_names_go_to_the_clusters_that_have_the_same_rows():
    before = np.repeat([0, 1, 2, 3, 4], [10, 10, 10, 10, 10])
    now = before.copy()
    now[before == 0], now[before == 1] = 1, 0  # other numbers
    now[20:24] = 5  # most of 2 stays
    now[30:36], now[36:40] = 0, 4  # 3 is no more: most of it is the smaller part of a larger one
    now[40:45] = -1  # half of 4
    kept, left = carry_names({0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}, before, now)
    assert kept == {1: "a", 0: "b", 2: "c"}
    assert left == {"d": {0: 6, 4: 4}, "e": {-1: 5, 4: 5}}
    assert carry_names({0: "a"}, np.full(3, -1), np.zeros(3, int)) == ({}, {"a": {}})


def test_agreement_with_labels_by_hand():
    figures = compare(np.array([1, 1, 0, 0, 2, 2]), ["a", "a", "b", "b", "b", ""])
    assert figures["accuracy"] == pytest.approx(4 / 5)
    assert compare(np.array([0, 1]), ["", ""]) is None


def test_silhouette_is_scikit_learn_s(blobs):
    points, names = blobs
    groups = np.array([int(n[1]) for n in names])
    assert silhouette(points, groups) == pytest.approx(silhouette_score(points, groups))
    assert silhouette(points, np.zeros(len(points), int)) is None


@pytest.mark.parametrize("method", ["kmeans", "gmm", "hdbscan"])
def test_equal_points_are_finite(method):
    found = cluster(np.ones((30, 4), np.float32), method=method, space="features")
    assert len(found.assignments) == 30 and found.silhouette is None


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("method", ["kmeans", "gmm"])
def test_very_few_points(rows, method):
    points = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
    assert sum(cluster(points, method=method, space="features").sizes) == rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "dbscan"}, "dbscan"),
        ({"space": "pca"}, "pca"),
        ({"clusters": 999}, "999 clusters of 340"),
        ({"method": "hdbscan", "clusters": 4}, "itself"),
    ],
)
def test_wrong_options_are_one_line(blobs, options, message):
    with pytest.raises(AesearchError, match=message):
        cluster(blobs[0], **options)


def test_umap_needs_a_few_points():
    with pytest.raises(AesearchError, match="at least 4"):
        cluster(np.ones((3, 4), np.float32))
