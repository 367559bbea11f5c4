"""Bad frames by their low-level facts, among real images: what is said of each, and where they are listed."""

import json
from pathlib import Path

import numpy as np
import pytest
from planted_frames import GOOD, bad_frames, plant
from sklearn.datasets import load_sample_image

from aesearch.anomalies.facts import FACTS, UsualFacts, measure_facts
from aesearch.collection.facade import Collection

BLANK = {"nearly blank", "part of it is one value", "underexposed"}
WORDS = {"plain": BLANK, "black": BLANK, "white": BLANK, "half grey": BLANK, "blocks": {"coarse blocks"}}


@pytest.fixture(scope="module")
def photos():
    """(600, 32, 32, 3) uint8: pieces of two colour photographs."""
    rng = np.random.default_rng(0)
    whole = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    places = [(rng.integers(2), rng.integers(395), rng.integers(608)) for _ in range(600)]
    return np.stack([whole[p][y : y + 32, x : x + 32] for p, y, x in places])


def planar(images):
    return images.transpose(0, 3, 1, 2) if images.ndim == 4 else images[:, None]


@pytest.mark.parametrize("kind", ["photos", "digit_images"])
def test_bad_frames_lie_far_out_and_are_named(kind, request):
    good, bad, names = plant(request.getfixturevalue(kind), seed=0)
    facts = measure_facts(planar(np.concatenate([good, bad])))
    assert facts.shape == (GOOD + 7, len(FACTS)) and facts.dtype == np.float32 and np.isfinite(facts).all()
    usual = UsualFacts.learn(facts)
    ranks = np.argsort(np.argsort(-usual.distance(facts)))[GOOD:]
    assert (np.sort(ranks)[:6] < 12).all() and ranks.max() < 40, dict(zip(names, ranks, strict=True))
    if kind == "photos":
        said = [[*FACTS.values()][one // 2][one % 2] for one in usual.strangest(facts[GOOD:])]
        assert all(word in WORDS.get(name, {word}) for name, word in zip(names, said, strict=True)), said


def test_facts_by_hand():
    images = np.zeros((2, 1, 4, 8), np.uint8)
    images[1, 0, :, 4:] = 255
    contrast, entropy, dark, bright = (list(FACTS).index(f) for f in ("contrast", "entropy", "dark", "bright"))
    black, halves = measure_facts(images)
    assert black[contrast] == pytest.approx(np.log(1 / 255)) and halves[contrast] == pytest.approx(
        np.log(0.5 + 1 / 255)
    )
    assert black[entropy] == pytest.approx(0, abs=1e-6) and halves[entropy] == pytest.approx(1)
    assert black[dark] == pytest.approx(np.log(1.01 / 0.01)) and halves[dark] == pytest.approx(0, abs=1e-6)
    assert black[bright] == pytest.approx(-np.log(1.01 / 0.01)) and halves[bright] == pytest.approx(0, abs=1e-6)
    for shape in ((1, 1), (1, 5), (3, 2)):
        assert np.isfinite(measure_facts(np.zeros((2, 3, *shape), np.uint8))).all()


@pytest.mark.slow
def test_bad_frames_are_listed_first_and_why_among_photographs(photos, run, tmp_path, monkeypatch):
    """Trained with them among the rest, and as new images; `combined` is what is asked by default."""
    monkeypatch.setattr("aesearch.anomalies.finder.MOST_STEPS", 1000)
    good, bad, _ = plant(photos, seed=0)
    np.save("bad.npy", bad)
    for way, images in (("among", np.concatenate([good, bad])), ("new", good)):
        np.save(f"{way}.npy", images)
        Collection.build(f"{way}.npy", Path(way), progress=False, epochs=4)
        found = json.loads(run("anomalies", "-c", f"./{way}", "--top", 25, "--json").stdout)["anomalies"]
        if way == "among":
            assert len([one for one in found if one["row"] >= GOOD]) >= 6
            assert {"coarse blocks", "part of it is one value"} <= {one["why"] for one in found}
            assert "coarse blocks" in run("anomalies", "-c", "./among", "--save", "odd.png").stdout
        else:
            usual = Collection.open(Path("new")).scores_of_rows("combined")
            odd = json.loads(run("anomalies", "bad.npy", "-c", "./new", "--json").stdout)["anomalies"]
            assert sum((usual > one["score"]).sum() < 25 for one in odd) >= 5


def test_a_frame_for_every_shape():
    rng = np.random.default_rng(0)
    for shape in ((8, 8), (20, 12), (16, 16, 3)):
        image = rng.integers(0, 256, shape, dtype=np.uint8)
        assert {frame.shape for frame in bad_frames(image, np.stack([image, image]), rng).values()} == {shape}
