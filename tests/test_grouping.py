"""Images that belong together are on one side of every split."""

import logging

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from aesearch import AesearchError, Collection
from aesearch.anomalies.ranking import neighbour_distance
from aesearch.anomalies.thresholds import learn_threshold
from aesearch.images.grouping import groups_by_pattern, near_duplicates, say_leaks, signatures, units_of, whole_units
from aesearch.network.training import split_held_out
from aesearch.probe import divide, probe


def exposures(images, count, seed=0):
    """Each image so many times: brighter or darker, unevenly lit, noisy."""
    draw = np.random.default_rng(seed)
    found = []
    for image in np.repeat(images, count, axis=0).astype(np.float32) / 255:
        light = draw.uniform(0.7, 1.1) + draw.uniform(-0.3, 0.3) * np.linspace(-0.5, 0.5, image.shape[1])
        found.append(image ** draw.uniform(0.8, 1.25) * light + draw.normal(0, 0.01, image.shape))
    return (np.clip(found, 0, 1) * 255).astype(np.uint8)


def larger(digit_images, count):
    return np.stack([ndimage.zoom(image, 4, order=1) for image in digit_images[:count]])


@pytest.fixture
def folder(tmp_path, digit_images):
    """Five exposures of each of 30 digits."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, image in enumerate(exposures(larger(digit_images, 30), 5)):
        Image.fromarray(image).save(photos / f"part{number // 5:02d}-{number % 5}.png")
    return photos


def sides(collection, groups):
    """Of each group on which sides of the split its images are."""
    held_out = collection.store.held_out()
    return {group: set(held_out[[one == group for one in groups]].tolist()) for group in groups}


def test_exposures_are_found_to_belong_together_and_others_are_not(digit_images):
    images = larger(digit_images, 300)
    found = near_duplicates(signatures(np.concatenate([images, exposures(images[:40], 4)])[:, None]))
    first = [{found[number], *found[300 + 4 * number : 304 + 4 * number]} for number in range(40)]
    assert sum(len(names) == 1 and "" not in names for names in first) >= 36
    assert sum(map(bool, found[40:300])) <= 20  # two that somebody wrote alike
    copies = near_duplicates(signatures(images[[*range(30), 3, 3, 7]][:, None]))
    assert copies[3] == copies[30] == copies[31] != "" != copies[7] == copies[32]
    assert near_duplicates(np.zeros((4, 9), np.float32)) == [""] * 4


def test_a_collection_never_parts_near_duplicates_nor_what_a_pattern_puts_together(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO, "aesearch")
    found = Collection.build(str(folder), tmp_path / "found", progress=False, effort="quick")
    assert "near-duplicates stay together" in caplog.text
    parts = [id[:6] for id in found.ids]
    assert sum(len(both) == 1 for both in sides(found, parts).values()) >= 28
    assert found.store.held_out().sum() >= 15
    given = Collection.build(str(folder), tmp_path / "given", progress=False, effort="quick", group="part[0-9]+")
    assert all(len(both) == 1 for both in sides(given, parts).values())
    assert given.store.texts("group") == parts
    alone = Collection.build(str(folder), tmp_path / "none", progress=False, effort="quick", group="none")
    assert sum(len(both) == 2 for both in sides(alone, parts).values()) >= 5
    with pytest.raises(AesearchError, match="--overwrite"):
        Collection.build(str(folder), tmp_path / "none", progress=False, effort="quick", group="part[0-9]+")
    again = Collection.build(str(folder), tmp_path / "given", progress=False)
    assert again.store.texts("group") == parts


def test_new_images_of_a_group_that_was_trained_on_are_not_held_out(folder, tmp_path, digit_images):
    made = Collection.build(str(folder), tmp_path / "c", progress=False, effort="quick", group="part[0-9]+")
    trained = made.ids[int(np.flatnonzero(~made.store.held_out())[0])]
    Image.fromarray(larger(digit_images, 1)[0] // 2).save(folder / f"{trained[:6]}-new.png")
    Image.fromarray(larger(digit_images, 50)[-1]).save(folder / "part99-0.png")
    made.update()
    rows = made.rows_of([f"{trained[:6]}-new.png", "part99-0.png"])
    assert made.store.held_out()[rows].tolist() == [False, True]
    assert [made.store.texts("group", [row])[0] for row in rows] == [trained[:6], "part99"]


def test_a_table_s_column_says_what_belongs_together(folder, tmp_path):
    table = tmp_path / "photos" / "list.csv"
    lines = [f"{path.name},{'a' if path.name < 'part15' else path.name[:6]}" for path in sorted(folder.glob("*.png"))]
    table.write_text("\n".join(["file,Wafer", *lines]))
    made = Collection.build(str(table), tmp_path / "c", progress=False, effort="quick", group="Wafer")
    groups = made.store.texts("group")
    assert groups.count("a") == 75 and all(len(both) == 1 for both in sides(made, groups).values())


def test_a_leak_between_given_splits_is_said_in_one_line(folder, tmp_path, caplog):
    for path in folder.glob("*.png"):
        split = folder / ("test" if path.name.endswith("-4.png") else "train")
        split.mkdir(exist_ok=True)
        path.rename(split / path.name)
    Collection.build(str(folder), tmp_path / "c", progress=False, effort="quick", group="part[0-9]+")
    (line,) = [one.getMessage() for one in caplog.records if "leak" in one.getMessage()]
    assert "30 in both train and test" in line and "test/part00-4.png" in line
    assert say_leaks(["a", "a", ""], ["train", "train", "test"], ["x", "y", "z"]) == ""


@pytest.mark.parametrize("pattern", ["[", "nothing like it", "(?P<x"])
def test_a_pattern_that_is_none_or_finds_nothing_is_refused(folder, tmp_path, pattern):
    with pytest.raises(AesearchError, match="--group"):
        Collection.build(str(folder), tmp_path / "c", progress=False, group=pattern)
    with pytest.raises(AesearchError, match="one group"):
        Collection.build(str(folder), tmp_path / "d", progress=False, group="part")


def test_groups_are_numbered_and_taken_whole():
    assert groups_by_pattern(["a1.png", "a2.png", "b.png"], "([a-z])[0-9]") == ["a", "a", ""]
    units = units_of(["", "b", "a", "b", ""])
    assert units[1] == units[3] and len(set(units.tolist())) == 4
    assert whole_units(np.array([5, 5, 5, 5, 5, 5, 1, 2, 2, 3]), 2).tolist() == [1, 2]
    units = np.repeat(np.arange(40), 5)
    train, held_out = split_held_out(200, 0, units)
    assert not set(units[train]) & set(units[held_out]) and 20 <= len(held_out) < 25


def test_thresholds_neighbours_and_probes_part_no_group():
    draw = np.random.default_rng(0)
    units = np.repeat(np.arange(60), 5)
    scores = np.repeat(draw.normal(size=60), 5).astype(np.float32)
    alarms = learn_threshold(scores, 0.1, units=units)
    assert alarms.learned_from == 300 and alarms.measured % (5 / 300) == pytest.approx(0)  # units whole
    near, far = np.array([[3, 3, 8, -1], [3, 3, 3, 3]]), np.array([[1, 2, 3, 0], [1, 2, 3, 4]], np.float32)
    assert neighbour_distance(near, far, 2, np.array([3, 3])).tolist() == [3, 4]
    assert neighbour_distance(near, far, 2).tolist() == [1.5, 1.5]
    labels = [str(number % 3) for number in np.repeat(np.arange(60), 5)]
    *_, train, test = divide(labels, None, 0, units)
    assert not set(units[train]) & set(units[test]) and 60 <= len(test) <= 75
    # Features that say which unit an image is of, and nothing else of its label.
    features = np.repeat(draw.normal(size=(60, 40)), 5, axis=0).astype(np.float32)
    assert probe(features, labels, doubts=False).linear_accuracy > 0.95
    assert probe(features, labels, units=units, doubts=False).linear_accuracy < 0.6
