"""Maps keep neighbours together; PCA is scikit-learn's."""

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from aesearch.errors import AesearchError
from aesearch.projection import project


@pytest.fixture(scope="module")
def digit_points(digit_images, digit_labels):
    return digit_images[:600].reshape(600, -1).astype(np.float32) / 255, digit_labels[:600]


@pytest.mark.parametrize(("method", "floor"), [("umap", 0.9), ("tsne", 0.9), ("pca", 0.5)])
@pytest.mark.parametrize("dims", [2, 3])
def test_neighbours_on_the_map_share_labels(digit_points, method, floor, dims):
    points, labels = digit_points
    coordinates = project(points, method=method, dims=dims).coordinates
    assert coordinates.shape == (600, dims) and coordinates.dtype == np.float32
    accuracy = KNeighborsClassifier(5).fit(coordinates[::2], labels[::2]).score(coordinates[1::2], labels[1::2])
    assert accuracy > floor


def test_pca_is_the_plain_one(digit_points):
    ours = project(digit_points[0], method="pca").coordinates
    assert np.allclose(np.abs(ours), np.abs(PCA(2).fit_transform(digit_points[0])), atol=1e-3)


@pytest.mark.parametrize("method", ["umap", "tsne"])
def test_the_same_seed_gives_the_same_map(digit_points, method):
    first, second = (project(digit_points[0][:150], method=method, seed=1).coordinates for _ in range(2))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("method", ["umap", "tsne", "pca"])
@pytest.mark.parametrize("rows", [4, 7, 20])
def test_few_and_equal_points_stay_finite(method, rows):
    assert np.isfinite(project(np.ones((rows, 6), np.float32), method=method).coordinates).all()
    assert np.isfinite(project(np.eye(rows, 6, dtype=np.float32), method=method, metric="cosine").coordinates).all()


@pytest.mark.parametrize("rows", [1, 2])
def test_pca_works_from_one_point_on(rows):
    assert project(np.eye(rows, 3, dtype=np.float32), method="pca", dims=3).coordinates.shape == (rows, 3)


@pytest.mark.parametrize(
    ("options", "message"), [({"method": "lle"}, "lle"), ({"dims": 4}, "2 or 3"), ({"method": "tsne"}, "at least 4")]
)
def test_wrong_options_are_one_line(options, message):
    with pytest.raises(AesearchError, match=message):
        project(np.eye(3, 6, dtype=np.float32), **options)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_latent_itself_gives_its_numbers_of_largest_spread(dims):
    features = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32) * [1, 9, 0.1, 5, 3]
    found = project(features.astype(np.float32), method="latent", dims=dims).coordinates
    assert np.array_equal(found, features.astype(np.float32)[:, [1, 3, 4][:dims]])
    with pytest.raises(AesearchError, match="has no 3 dimensions"):
        project(features[:, :2].astype(np.float32), method="latent", dims=3)
