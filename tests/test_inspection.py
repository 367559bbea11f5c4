"""An inspection set as MVTec AD lays it out: sound images to learn from, kinds of faults to find, masks beside."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image
from test_planting import scratched, textures

from aesearch.anomalies.inspection import Judged, measure, read_mask
from aesearch.errors import AesearchError
from aesearch.images.sources.opening import open_source


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
    """80 sound textures to learn from; 12 sound, 8 scratched and 8 blotted ones to judge, with masks."""
    root = tmp_path_factory.mktemp("inspected") / "metal"
    sound = textures(92, side=48)
    scratches, masks = scratched(textures(8, side=48, seed=3))
    blots, spots = textures(8, side=48, seed=4), np.zeros((8, 48, 48), bool)
    spots[:, 20:27, 30:37] = True
    blots[:, 0][spots] = 20
    parts = {
        "train/good": sound[:80],
        "test/good": sound[80:],
        "test/scratch": scratches,
        "test/blot": blots,
        "ground_truth/scratch": masks[:, None] * np.uint8(255),
        "ground_truth/blot": spots[:, None] * np.uint8(255),
    }
    for folder, images in parts.items():
        (root / folder).mkdir(parents=True)
        for number, image in enumerate(images):
            name = f"{number:03}_mask.png" if folder.startswith("ground") else f"{number:03}.png"
            Image.fromarray(image[0]).save(root / folder / name)
    return root


def test_masks_belong_to_the_images_of_their_kind(inspected, caplog):
    source = open_source(str(inspected))
    assert len(source) == 108 and len(source.masks) == 16
    assert source.masks["test/blot/003.png"] == inspected / "ground_truth/blot/003_mask.png"
    assert set(source.labels) == {"good", "scratch", "blot"} and set(source.splits) == {"train", "test"}
    assert read_mask(source.masks["test/blot/003.png"]).sum() == 49
    with pytest.raises(AesearchError, match=r"the mask .* cannot be read"):
        read_mask(inspected / "nothing.png")


def test_faults_are_measured_by_kind_beside_what_is_free(inspected, run, monkeypatch):
    monkeypatch.setattr("aesearch.anomalies.finder.MOST_STEPS", 200)
    run("build-index", inspected, "-c", "metal", "--epochs", 2)
    printed = run("anomalies", "-c", "metal", "--normal-label", "good", "--top", 3).stdout
    for kind, count in (("all", 16), ("blot", 8), ("scratch", 8)):
        for score in ("combined", "raw 1-NN", "PCA error", "patch bank"):
            assert re.search(rf"^{kind} +{count} +{score} +0\.\d+|1\.000", printed, re.MULTILINE), (kind, score)
    answer = run("anomalies", "-c", "metal", "--normal-label", "good", "--score", "patches", "--json").stdout
    found = {(one["kind"], one["score"]): one for one in json.loads(answer)["inspection"]}
    ours, bank = found["blot", "patches"], found["blot", "patch bank"]
    assert ours["image_auroc"] > 0.9 and ours["pixel_auroc"] > 0.95 and ours["pro"] > 0.8 and ours["f1"] > 0.7
    assert bank["pixel_auroc"] > 0.8 and found["blot", "raw 1-NN"]["pixel_auroc"] is None


def test_measures_by_hand():
    labels = ["good", "good", "hole", "hole", "stain", ""]
    scores = np.array([1, 2, 3, 4, 1.5, 9], np.float32)
    mask = np.zeros((4, 4), bool)
    mask[:2] = True
    maps = [np.where(mask, score, 0).astype(np.float32) for score in scores]
    masks = [None, None, mask, None, mask, None]
    found = {m.kind: m for m in measure({"x": Judged(scores, 2.5, maps)}, labels, "good", masks)}
    assert list(found) == ["all", "hole", "stain"] and [m.images for m in found.values()] == [3, 2, 1]
    assert found["hole"].image_auroc == 1 and found["hole"].f1 == 1
    assert found["stain"].image_auroc == 0.5 and found["stain"].f1 == 0
    assert found["all"].f1 == pytest.approx(2 * 2 / (2 * 2 + 1)) and found["hole"].pixel_auroc == 1
