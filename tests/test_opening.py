"""A source string to images in order, with ids, labels and splits."""

import csv
import os
import unicodedata

import h5py
import numpy as np
import pytest
from conftest import BAD, GOOD, data_dir, gradient

from aesearch.errors import SourceError
from aesearch.images.decode import Preprocessing, choose_preprocessing
from aesearch.images.sources.opening import open_source


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
    monkeypatch.setattr("aesearch.images.sources.files.SMALL_BYTES", largest)
    monkeypatch.setattr("aesearch.images.sources.files.WAITING", waiting)
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


def write_files(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        gradient().save(root / path)


@pytest.mark.parametrize(
    ("tops", "expected"),
    [
        ("train airplane ship", {}),  # a kind of vehicle
        ("test airplane", {}),
        ("Train VALIDATION", {"Train": "train", "VALIDATION": "val"}),
        ("training test extra", {"training": "train", "test": "test"}),
        ("train", {"train": "train"}),
    ],
)
def test_a_folder_is_a_split_only_where_the_others_speak_for_it(tmp_path, caplog, tops, expected):
    write_files(tmp_path, *(f"{top}/kind/1.png" for top in tops.split()))
    with caplog.at_level("INFO"):
        source = open_source(str(tmp_path), labels="folder")
    tops_of = [id.partition("/")[0] for id in source.ids]
    assert {top: split for top, split in zip(tops_of, source.splits, strict=True) if split} == expected
    assert source.labels == ["kind" if top in expected else top for top in tops_of]
    assert ("taken as splits" if expected else "not as a split") in caplog.text


def test_what_other_programs_keep_between_images_is_left_out_and_counted(tmp_path, caplog):
    left_out = ("@eaDir/a.png/THUMB.png", "cats/@eaDir/1.png", "#recycle/b.png", "__MACOSX/c.png", ".thumbnails/d.png")
    write_files(tmp_path, "cats/1.png", "eaDir/2.png", *left_out)
    with caplog.at_level("INFO"):
        assert open_source(str(tmp_path)).ids == ["cats/1.png", "eaDir/2.png"]
    (line,) = caplog.messages
    for part in ("2 folder @eaDir", "1 folder #recycle", "1 folder __MACOSX", "1 hidden folder"):
        assert part in line


def test_masks_of_an_inspection_set_are_no_images_of_it(tmp_path, caplog):
    images = ("test/crack/0.png", "test/good/0.png", "train/good/0.png")
    masks = ("ground_truth/crack/0_mask.png",)
    write_files(tmp_path / "one", *images, *masks)
    write_files(tmp_path / "all", *(f"{kind}/{path}" for kind in ("bottle", "cable") for path in (*images, *masks)))
    with caplog.at_level("INFO"):
        source = open_source(str(tmp_path / "one"), labels="folder")
        assert source.ids == list(images)
        assert source.labels == ["crack", "good", "good"] and source.splits == ["test", "test", "train"]
        assert "1 folder of masks" in caplog.text
        assert not [id for id in open_source(str(tmp_path / "all")).ids if "mask" in id]
    write_files(tmp_path / "other", "ground_truth/1.png", "sky/2.png")  # no inspection set
    assert len(open_source(str(tmp_path / "other"))) == 2


def test_a_linked_folder_is_followed_once_and_never_in_a_circle(tmp_path, caplog):
    root, outside = tmp_path / "photos", tmp_path / "disk"
    write_files(root, "real/1.png", ".cache/2.png")
    write_files(outside, "deep/3.png", "4.png")
    (root / "real/up").symlink_to(root)
    (root / "above").symlink_to(tmp_path)
    (root / "again").symlink_to(root / "real")
    (root / "cached").symlink_to(root / ".cache")
    (root / "linked").symlink_to(outside)
    (root / "twice").symlink_to(outside / "deep")
    (outside / "deep/round").symlink_to(outside)
    (outside / "deep/back").symlink_to(root)
    with caplog.at_level("INFO"):
        ids = open_source(str(root)).ids
    assert ids == ["cached/2.png", "linked/4.png", "real/1.png", "twice/3.png"]  # each once
    followed, anyway = (next(m for m in caplog.messages if word in m) for word in ("are followed", "listed anyway"))
    assert f"cached -> {root / '.cache'}, linked -> {outside}, twice -> {outside / 'deep'}" in followed
    assert all(f"{name} -> " in anyway for name in ("above", "again", "real/up", "twice/back", "twice/round"))


def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    write_files(tmp_path, "open/1.png", "shut/2.png")
    (tmp_path / "shut").chmod(0)
    try:
        if os.access(tmp_path / "shut", os.R_OK):
            pytest.skip("this user may read everything")
        assert open_source(str(tmp_path)).listing_skips == [("shut", "cannot be read: Permission denied")]
    finally:
        (tmp_path / "shut").chmod(0o755)


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


@pytest.mark.parametrize(
    "text",
    [
        " File Name , Class ,notes,Set\nb/1.png,cat,x,Train\nb/2.png, NaN ,y, TEST\n",
        "class;filename;subset\ncat;b\\1.png;training\n;b\\2.png;testing\n",
        "\ufeffimage_path\tlabels\tsplit\r\nb/1.png\tcat\tTRAIN\r\n./b/2.png\tNA\ttest\r\n",
        'sep=;\n"path";"label";"split"\n"b/1.png";"cat";"train"\n\n"b/2.png";"";"Test"\n',
        'Image, Label, Split\n"b/1.png", "cat", "train"\n"b/2.png", "n/a", "tst"\n',
    ],
    ids=["spaces", "semicolons", "tabs", "excel", "spaced"],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_is_read_as_people_write_it(tmp_path, text, encoding):
    write_files(tmp_path, "b/1.png", "b/2.png")
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    source = open_source(str(tmp_path / "t.csv"))
    assert [id.removeprefix("./") for id in source.ids] == ["b/1.png", "b/2.png"]
    assert source.labels == ["cat", ""] and source.splits == ["train", "test"]
    assert len(read_all(source).images) == 2


def test_what_is_not_used_of_a_table_is_named(tmp_path, caplog):
    write_files(tmp_path, "1.png", "2.png", "3.png")
    lines = ["filename,label,class,camera,fold", "1.png,1.0,a,x,0", "2.png,,b,y,1", "3.png,3.0,b,y,1", ",2.0,a,x,1"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    with caplog.at_level("INFO"):
        source = open_source(str(tmp_path / "t.csv"))
    assert source.labels == ["1", "", "3"]  # pandas makes floats of them where one is missing
    assert source.listing_skips == [("row 4", "names no file")]
    assert "column 'filename' is taken as path" in caplog.text
    assert "columns that are not used: class, camera, fold" in caplog.text
    assert "1 of 3 images have no label" in caplog.text


def test_paths_written_on_another_system_are_found(tmp_path, caplog):
    one, two = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write_files(tmp_path, f"caf{one}/{two}.png", "back\\slash.png", "deep/er/3.png")
    given = [f"caf{two}\\{one}.png", "back\\slash.png", r"deep\er\3.png", r"deep\er\4.png", "deep/er/3.png"]
    (tmp_path / "t.csv").write_text("\n".join(["path", *given]), encoding="utf-8")
    with caplog.at_level("INFO"):
        source = open_source(str(tmp_path / "t.csv"))
    assert source.ids == [f"caf{one}/{two}.png", "back\\slash.png", "deep/er/3.png", r"deep\er\4.png"]
    assert source.listing_skips == [("deep/er/3.png", "listed before in the table")]
    assert "2 paths were matched to files that are spelt differently" in caplog.text
    assert len(read_all(source).images) == 3


def test_a_table_in_windows_letters_is_read_and_said(tmp_path, caplog):
    write_files(tmp_path, "1.png")
    (tmp_path / "t.csv").write_bytes("path,label\n1.png,Äpfel\n".encode("cp1252"))
    with caplog.at_level("INFO"):
        assert open_source(str(tmp_path / "t.csv")).labels == ["Äpfel"]
    assert "Windows-1252" in caplog.text


def test_splits_of_arrays_are_named_as_those_of_folders(tmp_path, digit_images):
    splits = ["Train", "TEST", "validation", "fold3", ""]
    np.savez(tmp_path / "x.npz", x=digit_images[:5], y=np.array([0.0, 1, np.nan, 3, 4]), split=np.array(splits))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"], file["split"] = digit_images[:5], splits
    for kind in ("npz", "h5"):
        assert open_source(str(tmp_path / f"x.{kind}")).splits == ["train", "test", "val", "fold3", ""]
    assert open_source(str(tmp_path / "x.npz")).labels == ["0", "1", "", "3", "4"]


def test_a_parquet_table_says_the_same_as_a_csv(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an extra: pip install 'aesearch[parquet]'")
    parquet = pytest.importorskip("pyarrow.parquet")
    gradient().save(tmp_path / "a.png")
    parquet.write_table(pyarrow.table({"path": ["a.png"], "label": [7]}), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    assert source.ids == ["a.png"] and source.labels == ["7"]
    columns = {"image": [{"bytes": b"x"}], "File Name": ["a.png"], "class": [float("nan")], "Set": ["TRAIN"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
    source = open_source(str(tmp_path / "t.parquet"))
    assert (source.ids, source.labels, source.splits) == (["a.png"], [""], ["train"])


def test_mnist_is_read_where_it_lies():
    source = open_source("mnist:test", data_dir=data_dir())
    assert len(source) == 10_000
    assert source.ids[5] == "mnist/test/5" and source.splits[0] == "test" and source.labels[0] == "7"
    assert source.sample_facts()[0].grey
    assert open_source("mnist:TEST", data_dir=data_dir()).name == "mnist:test"


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
    (tmp_path / "nopath.csv").write_text("name,label\na.png,1\n")
    with pytest.raises(SourceError, match=message) as caught:
        open_source(name).sample_facts()
    assert "\n" not in str(caught.value)
