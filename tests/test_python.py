"""The Python entry takes what people have at hand, and answers what it is not for in one line."""

import logging

import numpy as np
import pytest
from conftest import write_labelled
from PIL import Image

from aesearch import AesearchError, Collection


@pytest.fixture(scope="module")
def files(tmp_path_factory, digit_images, digit_labels):
    root = tmp_path_factory.mktemp("files")
    write_labelled(root / "photos", digit_images[:120], digit_labels)
    return sorted((root / "photos").rglob("*.png"))


def test_a_path_a_name_and_an_index_under_indexes(tmp_path, monkeypatch, files):
    monkeypatch.chdir(tmp_path)
    built = Collection.build(files[0].parent.parent, "digits", labels="folder", progress=False, epochs=1)
    assert built.folder.as_posix() == "indexes/digits" and len(built) == 120
    again = Collection.open("digits", progress=False)
    assert again.ids == built.ids and set(again.labels()) == set("0123456789")
    assert repr(again) == f"<Collection 'digits': 120 images of {files[0].parent.parent}, 27 numbers each by pooled; " \
        "indexes/digits>"  # fmt: skip
    with pytest.raises(AesearchError, match=r"no collection at indexes/digitz.*did you mean 'digits'"):
        Collection.open("digitz")


def test_an_array_in_memory_is_a_collection(tmp_path, digit_images, digit_labels, caplog):
    images, labels = digit_images[:150], digit_labels[:150]
    built = Collection.build(images, tmp_path / "c", labels=labels, progress=False, epochs=2)
    assert len(built) == 150 and built.labels() == labels and built.ids[3] == "array/3"
    assert built.query(images[7], k=1).rows[0] == 7
    assert np.array_equal(built.pictures([5])[0], images[5][None])
    assert len(built.anomalies(top=3).rows) == 3 and built.report().is_file()
    index = built.manifest.artifacts["index"]["time"]
    again = Collection.build(images, tmp_path / "c", labels=labels, progress=False, epochs=2)  # all is there
    assert again.manifest.artifacts["index"]["time"] == index and again.pictures([5])[0].shape == (1, 8, 8)
    alone = Collection.open(tmp_path / "c", progress=False)
    assert alone.query(images[7].astype(np.float64) / 255, k=1).rows[0] == 7
    with pytest.raises(AesearchError, match="array in memory: give it again"):
        alone.pictures([5])
    with caplog.at_level(logging.WARNING):
        alone.duplicates(threshold=0.5)
    assert "by their features alone" in caplog.text
    before = alone.features()
    more = Collection.build(digit_images[:160], tmp_path / "c", progress=False)
    assert len(more) == 160 and np.allclose(more.features()[:150], before, atol=1e-5)
    with pytest.raises(AesearchError, match="150 labels for 160"):
        Collection.build(digit_images[:160], tmp_path / "d", labels=labels)


def test_floats_and_colour_in_an_array(tmp_path, digit_images):
    colour = np.repeat(digit_images[:60, ..., None] / 255, 3, axis=3)
    built = Collection.build(colour, tmp_path / "c", progress=False, epochs=1, image_size=(8,), channels=3)
    assert len(built) == 60 and built.query(colour[9], k=1).rows[0] == 9
    with pytest.raises(AesearchError, match="no usable image"):
        Collection.build(colour * 300, tmp_path / "d", progress=False, epochs=1)


def test_a_list_of_files_is_kept_and_can_grow_and_move(tmp_path, files):
    built = Collection.build(files[:90], tmp_path / "c", labels="folder", progress=False, epochs=1)
    assert len(built) == 90 and built.labels()[0] == files[0].parent.name and built.ids[0] == files[0].as_posix()
    (tmp_path / "c").rename(tmp_path / "there")
    moved = Collection.open(tmp_path / "there", progress=False)
    assert len(moved.pictures([0, 1])) == 2 and moved.update().unchanged == 90
    grown = Collection.build([str(f) for f in files[10:]], tmp_path / "there", labels="folder", progress=False)
    assert len(grown) == 110 and grown.manifest.artifacts["encoder"] == moved.manifest.artifacts["encoder"]
    assert grown.manifest.artifacts["features"]["figures"]["encoded"] == 30
    with pytest.raises(AesearchError, match="more than once"):
        Collection.build([files[0], files[0]], tmp_path / "e")


def test_an_image_is_a_picture_an_array_or_a_path(digits, digit_images, tmp_path):
    picture = Image.fromarray(digit_images[3])
    picture.save(tmp_path / "3.png")
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    picture.rotate(180).save(tmp_path / "turned.png", exif=exif)
    for image in (picture, picture.convert("RGB"), digit_images[3] / 255, (digit_images[3] / 255).astype(np.float32),
                  tmp_path / "3.png", str(tmp_path / "3.png"), Image.open(tmp_path / "turned.png")):  # fmt: skip
        assert digits.query(image, k=1).rows[0] == 3
    assert digits.query(tmp_path / "3.png").query == str(tmp_path / "3.png")
    digits.probe(doubts=False)
    assert len(digits.classify(picture)) == len(digits.classify(digit_images[3])) == 1
    assert digits.query(row=3, where="label=3").labels == ["3"] * 10


def test_the_decoder_and_the_report(digits, tmp_path):
    assert digits.generate(sample=4).shape == (4, 1, 8, 8)
    assert digits.generate(digits.latents()[:2]).shape == (2, 1, 8, 8)
    ends = [picture[0] for picture in digits.pictures([3, 4])]
    path = digits.generate(between=ends, steps=5)
    assert path.shape == (5, 1, 8, 8) and 0 <= path.min() and path.max() <= 1
    assert digits.report(tmp_path / "r.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: Collection.build(5), "not from int"),
        (lambda c: Collection.build(None), "not from NoneType"),
        (lambda c: Collection.build([]), "no image"),
        (lambda c: Collection.build([1, 2]), "not from list"),
        (lambda c: Collection.build(np.zeros(5)), "an array of images is"),
        (lambda c: Collection.build(np.zeros((5, 8, 8, 2))), "shape"),
        (lambda c: Collection.build("digits", epoch=3), "did you mean 'epochs'"),
        (lambda c: Collection.build("digits", epochs="3"), "wrong kind"),
        (lambda c: Collection.build("digits", None), "named by a text or a path"),
        (lambda c: Collection.build("digits", labels=["1"]), "a list of labels is for"),
        (lambda c: Collection.open(5), "named by a text or a path"),
        (lambda c: c.query(5), "not int"),
        (lambda c: c.query([1, 2]), "not list"),
        (lambda c: c.query(np.full((8, 8), 2.0)), r"outside \[0, 1\]"),
        (lambda c: c.query(np.full((8, 8), np.nan)), "or NaN"),
        (lambda c: c.query(np.zeros((2, 8, 8, 1), np.uint8)), "an array image is"),
        (lambda c: c.query(np.zeros((0, 8), np.uint8)), "an array image is"),
        (lambda c: c.query(row="x"), "a row is a whole number"),
        (lambda c: c.query(row=1.5), "a row is a whole number"),
        (lambda c: c.query(id=5), "an id is a text"),
        (lambda c: c.query(row=3, k="10"), "k is a whole number"),
        (lambda c: c.query(row=3, where=5), "where is like"),
        (lambda c: c.query(row=3, where=[5]), "where is like"),
        (lambda c: c.query_images([]), "give one image or more"),
        (lambda c: c.classify(None), "give images: paths"),
        (lambda c: c.anomalies(5), "not from int"),
        (lambda c: c.update(5), "not from int"),
        (lambda c: c.generate(), "give one of"),
        (lambda c: c.generate(sample="x"), "whole number"),
        (lambda c: c.generate(between=[1]), "two images"),
        (lambda c: c.generate([["a"]]), "cannot read points"),
    ],
)
def test_what_it_is_not_for_is_one_line(digits, tmp_path, monkeypatch, call, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AesearchError, match=message) as found:
        call(digits)
    assert "\n" not in str(found.value)
    assert not any(tmp_path.iterdir())


def test_an_empty_one_says_so(tmp_path):
    empty = Collection(tmp_path / "c")
    assert len(empty) == 0 and empty and "empty" in repr(empty)
