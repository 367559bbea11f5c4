"""A source string to images in order, with ids, labels and splits."""

import csv

import h5py
import numpy as np
import pytest
from conftest import BAD, GOOD, data_dir, gradient

from aesearch.decoding import Preprocessing, choose_preprocessing
from aesearch.errors import SourceError
from aesearch.opening import open_source


def read_all(source, preprocessing=None):
    preprocessing = preprocessing or choose_preprocessing(source.sample_facts())
    return source.read(np.arange(len(source)), preprocessing)


def test_digits_are_the_package_s_own(digit_images, digit_labels):
    source = open_source("digits")
    batch = read_all(source)
    assert np.array_equal(batch.images[:, 0], digit_images)
    assert source.labels == digit_labels
    assert source.ids[3] == "digits/3" and set(source.splits) == {""}


def test_a_folder_gives_every_image_in_byte_order_and_a_reason_for_the_rest(mixed_folder):
    source = open_source(str(mixed_folder))
    batch = read_all(source)
    assert sorted(source.ids, key=str.encode) == source.ids
    assert [source.ids[p] for p in batch.positions] == sorted(GOOD, key=str.encode)
    reasons = {source.ids[p]: reason for p, reason in batch.skipped}
    assert set(reasons) == set(BAD)
    for name, part in BAD.items():
        assert part in reasons[name]


def test_a_batch_is_the_same_image_whoever_its_neighbours_are(mixed_folder):
    source = open_source(str(mixed_folder))
    preprocessing = Preprocessing(16, 16, 3)
    together = read_all(source, preprocessing)
    for row, position in enumerate(together.positions):
        alone = source.read(np.array([position]), preprocessing)
        assert np.array_equal(alone.images[0], together.images[row])
        assert alone.hashes[0] == together.hashes[row]


@pytest.mark.parametrize(
    ("largest", "waiting"), [(2**30, 1e9), (2**30, 0), (0, 0)], ids=["one", "one, then all", "all"]
)
def test_however_many_threads_read_the_images_are_the_same(mixed_folder, monkeypatch, largest, waiting):
    source = open_source(str(mixed_folder))
    positions = np.arange(len(source))
    expected = source.read(positions, Preprocessing(24, 24, 3))
    monkeypatch.setattr("aesearch.sources.SMALL_BYTES", largest)
    monkeypatch.setattr("aesearch.sources.WAITING", waiting)
    found = source.read(positions, Preprocessing(24, 24, 3))
    assert np.array_equal(found.images, expected.images) and len(found.images)
    assert (found.hashes, found.skipped) == (expected.hashes, expected.skipped)


def test_sub_folders_are_labels_and_top_folders_splits(tmp_path):
    for path in ("train/cat/1.png", "train/dog/1.png", "test/cat/deep/2.png", "val/3.png", "other/4.png", "5.png"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        gradient().save(tmp_path / path)
    source = open_source(str(tmp_path), labels="folder")
    facts = {i: (label, split) for i, label, split in zip(source.ids, source.labels, source.splits, strict=True)}
    assert facts == {
        "train/cat/1.png": ("cat", "train"),
        "train/dog/1.png": ("dog", "train"),
        "test/cat/deep/2.png": ("cat", "test"),
        "val/3.png": ("", "val"),
        "other/4.png": ("other", ""),
        "5.png": ("", ""),
    }
    assert set(open_source(str(tmp_path)).labels) == {""}


def test_a_collection_inside_the_folder_is_no_part_of_it(tmp_path):
    gradient().save(tmp_path / "a.png")
    (tmp_path / "index").mkdir()
    gradient().save(tmp_path / "index/sheet.png")
    (tmp_path / "index/collection.json").write_text("{}")
    assert open_source(str(tmp_path)).ids == ["a.png"]


def test_the_fingerprint_changes_when_a_file_does(tmp_path):
    gradient().save(tmp_path / "a.png")
    before = open_source(str(tmp_path)).fingerprint
    assert open_source(str(tmp_path)).fingerprint == before
    gradient(30, 30).save(tmp_path / "a.png")
    assert open_source(str(tmp_path)).fingerprint != before
    changed = open_source(str(tmp_path)).fingerprint
    gradient().save(tmp_path / "b.png")
    assert open_source(str(tmp_path)).fingerprint != changed


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_array_files_give_the_same_images(tmp_path, digit_images, kind):
    images, labels = digit_images[:20], np.arange(20) % 3
    path = tmp_path / f"x.{kind}"
    if kind == "npy":
        np.save(path, images)
    elif kind == "npz":
        np.savez(path, x=images, y=labels)
    else:
        with h5py.File(path, "w") as file:
            file["x"], file["y"] = images, labels
    source = open_source(str(path))
    positions = np.array([7, 3, 19, 4])
    assert np.array_equal(source.read(positions, Preprocessing(8, 8, 1)).images[:, 0], images[positions])
    assert source.ids[5] == "x/5"
    assert source.labels == ([""] * 20 if kind == "npy" else [str(v) for v in labels])


@pytest.mark.parametrize("dtype", ["uint8", "bool", "uint16", "float32", "float64"])
def test_array_values_are_scaled_to_eight_bits(tmp_path, dtype):
    ramp = np.linspace(0, 1, 2 * 64).reshape(2, 8, 8)
    top = {"uint8": 255, "uint16": 4095, "bool": 1}.get(dtype, 1)
    array = (ramp > 0.5) if dtype == "bool" else np.rint(ramp * top) if dtype.startswith("u") else ramp
    np.save(tmp_path / "x.npy", array.astype(dtype))
    batch = read_all(open_source(str(tmp_path / "x.npy")))
    expected = np.where(ramp > 0.5, 255, 0) if dtype == "bool" else ramp * 255
    assert np.abs(batch.images[:, 0].astype(float) - expected).max() <= 0.6


def test_labels_no_store_could_hold_are_written_out(tmp_path, digit_images):
    names = ["a\0", "b\ud800", "ü"]
    table = tmp_path / "t.npz"
    np.savez(table, x=digit_images[:3], y=np.array(names))
    assert open_source(str(table)).labels == ["a", "b\\xed\\xa0\\x80", "ü"]  # NumPy drops a NUL at the end
    with h5py.File(tmp_path / "t.h5", "w") as file:
        file["x"], file["y"] = digit_images[:2], np.array([b"a\0b", b"c"])
    assert open_source(str(tmp_path / "t.h5")).labels == ["a\\x00b", "c"]


def test_colour_arrays_and_other_sizes_are_brought_to_the_preprocessing(tmp_path):
    picture = np.asarray(gradient())
    np.save(tmp_path / "x.npy", np.stack([picture] * 3))
    source = open_source(str(tmp_path / "x.npy"))
    assert np.array_equal(read_all(source).images[0], picture.transpose(2, 0, 1))
    assert read_all(source, Preprocessing(12, 16, 1)).images.shape == (3, 1, 12, 16)


def test_rows_that_are_no_image_are_skipped_one_by_one(tmp_path):
    array = np.full((4, 8, 8), 0.5)
    array[1, 0, 0], array[2, 0, 0] = np.nan, 7
    np.save(tmp_path / "x.npy", array)
    batch = read_all(open_source(str(tmp_path / "x.npy")))
    assert batch.positions.tolist() == [0, 3]
    assert [(p, r.split()[-1]) for p, r in batch.skipped] == [(1, "finite"), (2, "1]")]


def test_a_table_names_paths_labels_and_splits(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        gradient().save(tmp_path / f"pictures/{name}.png")
    rows = [("pictures/c.png", "x", "train"), ("pictures/a.png", "y", "test"), ("pictures/c.png", "z", "")]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    source = open_source(str(tmp_path / "t.csv"))
    assert source.ids == ["pictures/c.png", "pictures/a.png"]
    assert source.labels == ["x", "y"] and source.splits == ["train", "test"]
    assert source.listing_skips == [("pictures/c.png", "listed before in the table")]
    assert len(read_all(source).images) == 2


def test_a_parquet_table_says_the_same_as_a_csv(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an extra: pip install 'aesearch[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    gradient().save(tmp_path / "a.png")
    parquet.write_table(pyarrow.table({"path": ["a.png"], "label": [7]}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    assert source.ids == ["a.png"] and source.labels == ["7"]


def test_mnist_is_read_where_it_lies():
    source = open_source("mnist:test", data_dir=data_dir())
    assert len(source) == 10_000
    assert source.ids[5] == "mnist/test/5" and source.splits[0] == "test" and source.labels[0] == "7"
    assert source.sample_facts()[0].grey


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no-such-thing", "no source"),
        ("mnist:valid", "no split 'valid'"),
        ("empty", "there is no image in"),
        ("one.png", "is one file"),
        ("flat.npy", "has shape"),
        ("words.npy", "integers, or floats"),
        ("objects.npy", "cannot read"),
        ("bad.h5", "cannot read"),
        ("nopath.csv", "no column 'path'"),
        ("two.npz", "which array"),
        ("short.npz", "labels for"),
        ("channels.npy", "images are"),
    ],
)
def test_a_wrong_source_is_one_line(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    gradient().save("one.png")
    np.save("flat.npy", np.zeros((5, 5)))
    np.save("words.npy", np.full((2, 4, 4), "a"))
    np.save("objects.npy", np.full((2, 4, 4), None, dtype=object), allow_pickle=True)
    np.save("channels.npy", np.zeros((2, 4, 4, 7)))
    np.savez("two.npz", a=np.zeros((2, 4, 4)), b=np.zeros((2, 4, 4)))
    np.savez("short.npz", x=np.zeros((2, 4, 4)), y=np.zeros(3))
    (tmp_path / "bad.h5").write_bytes(b"nothing")
    (tmp_path / "nopath.csv").write_text("file,label\na.png,1\n")
    with pytest.raises(SourceError, match=message) as caught:
        open_source(name).sample_facts()
    assert "\n" not in str(caught.value)
