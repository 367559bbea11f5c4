"""Images mirrored and turned: which ways mean nothing in a collection, and queries in all of them."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from aesearch.collection.facade import Collection
from aesearch.images.orientation import (
    ORIENTATIONS,
    UPRIGHT,
    apart,
    measure_orientations,
    orient,
    to_average,
    without_meaning,
)
from aesearch.vectors.distances import nearest_way


@pytest.fixture(scope="module")
def tiles():
    """(600, 16, 16) uint8: pieces of two photographs, each in an orientation by chance."""
    rng = np.random.default_rng(0)
    photos = [load_sample_image(name).mean(axis=2).astype(np.uint8)[::2, ::2] for name in ("china.jpg", "flower.jpg")]
    corners = [(rng.integers(2), rng.integers(197), rng.integers(304)) for _ in range(600)]
    ways = rng.choice(list(ORIENTATIONS), 600)
    pieces = [orient(photos[p][y : y + 16, x : x + 16], way) for (p, y, x), way in zip(corners, ways, strict=True)]
    return np.stack(pieces)


def test_eight_orientations_differ_and_keep_a_batch(digit_images):
    ways = {way: orient(digit_images[:5], way) for way in ORIENTATIONS}
    assert len({one.tobytes() for one in ways.values()}) == 8
    assert (ways[UPRIGHT] == digit_images[:5]).all()
    assert (orient(ways["turned left"], "turned right") == digit_images[:5]).all()


def test_digits_stand_upright_and_scattered_tiles_do_not(digit_images, tiles):
    digits = measure_orientations(digit_images[:1000, None])
    assert min(digits.values()) > 0.8 and without_meaning(digits, 1000) == []
    turned = measure_orientations(tiles[:, None])
    assert set(without_meaning(turned, 600)) == set(ORIENTATIONS) - {UPRIGHT}
    assert to_average(digits, has_top=True) == "" and to_average(turned, has_top=False) == "both"
    assert to_average(turned, has_top=True) == min("mirrored", "flipped", key=lambda way: turned[way])
    assert to_average({"mirrored": 0.69, "flipped": 0.71, "upside down": 0.4}, has_top=False) == "mirrored"
    assert measure_orientations(tiles[:150, None]) == {} and to_average({}, has_top=False) == ""
    assert set(measure_orientations(tiles[:, None, :12])) == {"mirrored", "upside down", "flipped"}


def test_orientations_that_averaged_features_cannot_tell_apart_are_asked_once():
    assert apart(ORIENTATIONS, "") == list(ORIENTATIONS)
    assert apart(ORIENTATIONS, "mirrored") == [UPRIGHT, "upside down", "turned left", "turned right"]
    assert apart(["flipped", UPRIGHT, "mirrored", "upside down"], "flipped") == ["flipped", "mirrored"]
    assert apart(ORIENTATIONS, "both") == [UPRIGHT, "turned left"]


def test_where_orientation_means_nothing_a_query_finds_the_image_however_it_lies(tiles, tmp_path):
    np.save(tmp_path / "tiles.npy", tiles)
    c = Collection.build(str(tmp_path / "tiles.npy"), tmp_path / "c", progress=False, epochs=2, latent_dim=16)
    assert c.spec.mirror == "both"  # their features are those of the image
    assert c.orientations == [UPRIGHT, "turned left"]
    for row, way in enumerate(ORIENTATIONS):
        hits = c.query(orient(tiles[row], way), k=5)
        assert hits.rows[0] == row and hits.distances[0] < 1e-5
        assert len(set(hits.rows.tolist())) == 5 and (np.diff(hits.distances) >= 0).all()
    assert hits.orientations is not None and hits.to_json()["hits"][0]["orientation"] in ORIENTATIONS
    assert c.query(tiles[0], any_orientation=False).orientations is None


def test_any_orientation_of_a_query_elsewhere(run, digits, digit_images, tmp_path):
    assert digits.orientations == [UPRIGHT]
    turned = [np.ascontiguousarray(np.rot90(digit_images[row])) for row in range(20)]
    plain = digits.query_images(turned)
    free = digits.query_images(turned, any_orientation=True)
    assert [hits.rows[0] for hits in free] == list(range(20))
    assert sum(hits.rows[0] == row for row, hits in enumerate(plain)) < 5
    asked = run("query", "--row", 3, "-c", digits.folder, "--any-orientation", "--json", "-k", 3)
    hits = json.loads(asked.stdout)["queries"][0]["hits"]
    assert len(hits) == 3 and 3 not in [hit["row"] for hit in hits] and hits[0]["orientation"] in ORIENTATIONS
    assert "query" in run("query", "--row", 3, "-c", digits.folder, "--any-orientation").stdout.splitlines()[1]


def test_images_that_are_not_square_are_turned_before_they_are_resized(digit_images, tmp_path):
    tall = np.repeat(digit_images[:200], 2, axis=1)  # 16x8
    np.save(tmp_path / "tall.npy", tall)
    c = Collection.build(str(tmp_path / "tall.npy"), tmp_path / "c", progress=False, epochs=1, latent_dim=8)
    lying = np.ascontiguousarray(np.rot90(tall[7]))
    hits = c.query(lying, any_orientation=True)
    assert hits.rows[0] == 7 and hits.distances[0] < 1e-5
    assert (c.query(row=7, any_orientation=True).rows != 7).all()


def test_the_nearest_way_of_each_row():
    rows = np.array([[4, 2, 2, 9], [1, -1, 1, -1]])
    distances = np.array([[0.1, 0.4, 0.2, 0.3], [0.5, np.inf, 0.4, np.inf]], np.float32)
    found, far, ways = nearest_way(rows, distances, 2)
    assert found.tolist() == [[4, 2], [1, -1]] and ways[:, 0].tolist() == [0, 1]
    np.testing.assert_allclose(far[0], [0.1, 0.2])
