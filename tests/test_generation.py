"""Points of the latent space."""

import json

import numpy as np
import pytest
from PIL import Image

from aesearch.errors import AesearchError
from aesearch.network.latents import between, plane, read_points, sample


@pytest.fixture(scope="module")
def features():
    return (np.random.default_rng(0).normal(size=(5000, 2)) * [1, 5] + [10, -3]).astype(np.float32)


def test_random_latents_have_the_mean_and_spread_of_the_data(features):
    drawn = sample(features, 5000, seed=1)
    assert np.allclose(drawn.mean(axis=0), features.mean(axis=0), atol=0.3)
    assert np.allclose(drawn.std(axis=0), features.std(axis=0), rtol=0.05)
    assert np.array_equal(drawn, sample(features, 5000, seed=1)) and drawn.dtype == np.float32


def test_a_path_has_both_ends_and_even_steps():
    path = between(np.zeros(3, np.float32), np.array([3, 0, -3], np.float32), 4)
    assert path.tolist() == [[0, 0, 0], [1, 0, -1], [2, 0, -2], [3, 0, -3]]
    with pytest.raises(AesearchError, match="2 or more"):
        between(path[0], path[1], 1)


def test_a_plane_covers_the_data_from_the_top_down(features):
    points = plane(features, 5).reshape(5, 5, 2)
    assert np.allclose(points[0, 0], [np.percentile(features[:, 0], 1), np.percentile(features[:, 1], 99)])
    assert (np.diff(points[:, 0, 1]) < 0).all() and (np.diff(points[0, :, 0]) > 0).all()
    with pytest.raises(AesearchError, match="--latent-dim 2"):
        plane(np.zeros((4, 3), np.float32), 5)


def test_points_are_read_from_text_and_files(tmp_path):
    np.save(tmp_path / "p.npy", np.eye(2))
    (tmp_path / "p.csv").write_text("1,0\n0,1\n")
    for text in ("1,0;0,1", str(tmp_path / "p.npy"), str(tmp_path / "p.csv")):
        assert read_points(text, 2).tolist() == [[1, 0], [0, 1]]


def test_an_empty_file_of_points_is_refused(tmp_path):
    (tmp_path / "p.npy").touch()
    with pytest.raises(AesearchError, match="cannot read points"):
        read_points(str(tmp_path / "p.npy"), 2)


@pytest.mark.parametrize("text", ["1;2", "a,b", "nan,0", "", "no.npy", "1,2;3", "1,2,3"])
def test_points_that_do_not_fit_are_refused(text):
    with pytest.raises(AesearchError, match="points"):
        read_points(text, 2)


def test_decoding_from_the_command_line(run, digits):
    collection = ["-c", digits.folder]
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save("a.png")
    Image.fromarray(np.zeros((30, 20), np.uint8)).save("b.png")
    answer = json.loads(run("generate", *collection, "--between", "a.png", "b.png", "--steps", 3, "--json").stdout)
    ends = digits.encode(["a.png", "b.png"])
    latents = np.array(answer["latents"])
    assert latents.shape == (3, 16) and np.allclose(latents[1], (latents[0] + latents[2]) / 2, atol=1e-5)
    assert np.allclose(latents[[0, 2], :12], ends, atol=1e-5)
    assert Image.open("generated.png").width > 360
    assert "7 images decoded" in run("generate", *collection, "--sample", 7, "--save", "s.png").stdout
    zeros = ";".join([",".join(["0"] * 16)] * 2)
    assert "2 images decoded" in run("generate", *collection, "--points", zeros).stdout
    assert "--latent-dim 2" in run("generate", *collection, "--plane", 4, code=1).stderr
    run("generate", *collection, code=2)
    run("generate", *collection, "--plane", 4, "--sample", 3, code=2)


def test_reconstructing_from_the_command_line(run, digits):
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save("a.png")
    answer = json.loads(run("reconstruct", "a.png", "--row", 3, "-c", digits.folder, "--json").stdout)
    assert [r["image"] for r in answer["reconstructions"]] == ["a.png", "digits/3"]
    assert answer["reconstructions"][1]["error"] == pytest.approx(
        float(digits.store.reconstruction_errors()[3]), rel=1e-3
    )
    assert Image.open("reconstruction.png").height > 200
    assert "no row 5000" in run("reconstruct", "--row", 5000, "-c", digits.folder, code=1).stderr
    run("reconstruct", "-c", digits.folder, code=2)
