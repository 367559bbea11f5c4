"""The store: written in batches, read by anything, continued after a kill."""

import h5py
import numpy as np
import pytest

from aesearch.errors import AesearchError, CollectionNotFoundError
from aesearch.store import writer as store_module
from aesearch.store.reader import Store
from aesearch.store.writer import StoreWriter

ATTRIBUTES = {"encoder_fingerprint": "e1", "source": "somewhere"}


def columns(start, stop, dim=3):
    n = stop - start
    return {
        "features": np.arange(start * dim, stop * dim, dtype=np.float32).reshape(n, dim),
        "reconstruction_error": np.linspace(0, 1, n, dtype=np.float32),
        "held_out": np.arange(start, stop) % 3 == 0,
        "stamp": np.stack([np.arange(start, stop), np.arange(start, stop) + 10**18], axis=1),
        "id": [f"bild-ß-{i}.png" for i in range(start, stop)],
        "label": ["" if i % 2 else "odd" for i in range(start, stop)],
        "split": ["train"] * n,
        "content_hash": [f"{i:032x}" for i in range(start, stop)],
    }


def write(path, spans, identity=None, skipped=()):
    with StoreWriter(path, 3, identity or {"a": 1}, ATTRIBUTES) as writer:
        for start, stop in spans:
            writer.append(columns(start, stop), skipped if start == 0 else [], stop)
        writer.finish()
    return Store(path)


def test_what_is_written_is_read_back(tmp_path):
    store = write(tmp_path / "features.h5", [(0, 5), (5, 6), (6, 20)], skipped=[("x.txt", "not an image")])
    expected = columns(0, 20)
    assert (store.rows, store.dim, store.encoder_fingerprint, store.source) == (20, 3, "e1", "somewhere")
    assert np.array_equal(store.features(), expected["features"])
    assert np.array_equal(store.held_out(), expected["held_out"])
    assert np.array_equal(store.stamps(), expected["stamp"])
    assert store.contents().tolist() == [0] * 20  # the first 64 of 128 bits
    assert np.array_equal(store.features(np.array([7, 2, 7])), expected["features"][[7, 2, 7]])
    assert store.features(np.array([], dtype=np.int64)).shape == (0, 3)
    assert np.array_equal(store.rows_of_features()[4:9], expected["features"][4:9])
    for name in ("id", "label", "split", "content_hash"):
        assert store.texts(name) == expected[name]
    assert store.skipped() == [("x.txt", "not an image")]


def test_scattered_rows_of_many_chunks_are_read_in_the_order_asked_for(tmp_path, monkeypatch):
    for module in ("layout", "reader", "writer"):
        monkeypatch.setattr(f"aesearch.store.{module}.CHUNK_ROWS", 16)
    monkeypatch.setattr("aesearch.store.writer.FLUSH_BYTES", 1)
    store = write(tmp_path / "features.h5", [(0, 100)])
    rows = np.random.default_rng(0).integers(0, 100, 40)
    assert np.array_equal(store.features(rows), columns(0, 100)["features"][rows])
    assert store.texts("id", rows) == [f"bild-ß-{row}.png" for row in rows]


def test_plain_h5py_reads_the_contract(tmp_path):
    write(tmp_path / "features.h5", [(0, 9)])
    with h5py.File(tmp_path / "features.h5") as file:
        assert file["features"][:].shape == (9, 3) and file["features"].dtype == np.float32
        assert file["features"].chunks is not None
        assert file["reconstruction_error"].dtype == np.float32
        assert file["id"].asstr()[4] == "bild-ß-4.png"
        assert {"label", "split", "content_hash"} <= set(file)
        assert file.attrs["format_version"] == 2
        assert {"encoder_fingerprint", "source", "created_with"} <= set(file.attrs)


def test_the_fingerprint_tells_contents_not_batches(tmp_path):
    one = write(tmp_path / "a.h5", [(0, 12)])
    two = write(tmp_path / "b.h5", [(0, 5), (5, 12)])
    other = write(tmp_path / "c.h5", [(0, 11)])
    assert one.fingerprint == two.fingerprint != other.fingerprint


def test_an_interrupted_store_goes_on_where_it_was_flushed(tmp_path):
    path = tmp_path / "features.h5"
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        writer.append(columns(0, 4), [], 4)
    assert not path.exists()
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        assert writer.next_position == 4
        writer.append(columns(4, 9), [], 9)
        writer.finish()
    assert Store(path).fingerprint == write(tmp_path / "whole.h5", [(0, 9)]).fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["features.h5", "whole.h5"]


def test_rows_after_the_last_count_are_dropped(tmp_path):
    path = tmp_path / "features.h5"
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        writer.append(columns(0, 4), [], 4)
    with h5py.File(writer.partial, "r+") as file:  # as if killed between writing rows and counting them
        file["features"].resize(7, axis=0)
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        assert writer.finished_rows() == 4


def test_a_partial_store_of_something_else_is_replaced(tmp_path):
    path = tmp_path / "features.h5"
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        writer.append(columns(0, 4), [], 4)
    with StoreWriter(path, 3, {"a": 2}, ATTRIBUTES) as writer:
        assert writer.next_position == 0 and writer.finished_rows() == 0


def test_texts_of_known_length_are_kept_whole(tmp_path):
    names = {"id": [f"bild-ß-{i}.png" for i in range(20)], "label": ["odd", ""], "split": ["x" * 500]}
    path = tmp_path / "features.h5"
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES, texts=names) as writer:
        writer.append(columns(0, 12), [("täglich " * 40, "not an image")], 12)
        writer.append(columns(12, 20) | {"split": ["x" * 500] * 8}, [], 20)
        writer.finish()
    store, expected = Store(path), columns(0, 20)
    assert store.texts("id") == expected["id"] and store.texts("label") == expected["label"]
    assert store.texts("split") == ["train"] * 12 + ["x" * 500] * 8
    assert store.texts("content_hash", np.array([9, 3])) == [expected["content_hash"][i] for i in (9, 3)]
    assert store.skipped() == [("täglich " * 40, "not an image")]
    with h5py.File(path) as file:
        assert file["id"].asstr()[4] == "bild-ß-4.png" and file["label"].dtype.itemsize == 4


def test_a_text_longer_than_announced_is_an_error_that_leaves_what_was_written(tmp_path):
    path = tmp_path / "features.h5"
    with (
        pytest.raises(ValueError, match="longer than the 3 bytes"),
        StoreWriter(path, 3, {"a": 1}, ATTRIBUTES, texts={"label": ["odd"]}) as writer,
    ):
        writer.append(columns(0, 4), [], 4)
        writer.flush()
        writer.append(columns(0, 1) | {"label": ["even"]}, [], 5)
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:  # the file was closed
        assert (writer.finished_rows(), writer.next_position) == (4, 4)


@pytest.mark.parametrize("written", range(1, 12))
def test_ctrl_c_in_the_middle_of_writing_mixes_no_rows_up(tmp_path, monkeypatch, written):
    path, put, done = tmp_path / "features.h5", store_module._put, []

    def interrupted(dataset, start, values):
        done.append(dataset.name)
        if len(done) == written + 11:  # in the second flush, after so many of its columns
            raise KeyboardInterrupt
        put(dataset, start, values)

    monkeypatch.setattr(store_module, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt), StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        writer.append(columns(0, 4), [("x", "no image")], 4)
        writer.flush()
        writer.append(columns(4, 9), [("y", "no image")], 9)
        writer.flush()
    with StoreWriter(path, 3, {"a": 1}, ATTRIBUTES) as writer:
        assert writer.next_position == 9  # leaving, it wrote them once more, all of them
        writer.append(columns(9, 12), [], 12)
        writer.finish()
    store, expected = Store(path), columns(0, 12)
    assert store.rows == 12 and np.array_equal(store.features(), expected["features"])
    assert all(store.texts(name) == expected[name] for name in ("id", "label", "split", "content_hash"))
    assert store.skipped() == [("x", "no image"), ("y", "no image")]
    assert store.fingerprint == write(tmp_path / "whole.h5", [(0, 12)]).fingerprint


def test_columns_of_different_lengths_are_refused(tmp_path):
    with (
        StoreWriter(tmp_path / "features.h5", 3, {}, ATTRIBUTES) as writer,
        pytest.raises(ValueError, match="different lengths"),
    ):
        writer.append(columns(0, 4) | {"id": ["one"]}, [], 4)


def test_wrong_files_are_one_line(tmp_path):
    with pytest.raises(CollectionNotFoundError, match="build-index"):
        Store(tmp_path / "features.h5")
    (tmp_path / "features.h5").write_bytes(b"no hdf5")
    with pytest.raises(AesearchError, match="damaged"):
        Store(tmp_path / "features.h5")
    store = write(tmp_path / "new.h5", [(0, 3)])
    with h5py.File(store.path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(AesearchError, match="format 99"):
        Store(store.path)
