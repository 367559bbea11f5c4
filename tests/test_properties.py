"""Properties that hold whatever comes: decoding, the store, the manifest, and `update` beside a plain model."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from PIL import Image

from aesearch.collection.facade import Collection
from aesearch.collection.manifest import Manifest
from aesearch.images.decode import Preprocessing, UnreadableImageError, decode
from aesearch.images.sources.opening import open_source
from aesearch.store.layout import TEXTS
from aesearch.store.reader import Store
from aesearch.store.writer import StoreWriter

QUIET = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
SHAPES = st.builds(Preprocessing, st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=200)


@QUIET
@given(st.binary(max_size=300), SHAPES)
def test_any_bytes_are_an_image_or_refused(data, preprocessing):
    try:
        pixels = decode(data, preprocessing)
    except UnreadableImageError as error:
        assert "\n" not in str(error)
    else:
        assert pixels.shape == preprocessing.shape and pixels.dtype == np.uint8


@QUIET
@given(arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.sampled_from(["PNG", "BMP", "TIFF"]))
def test_lossless_files_give_their_pixels(pixels, format):
    with tempfile.TemporaryFile() as file:
        Image.fromarray(pixels).save(file, format)
        file.seek(0)
        data = file.read()
    assert np.array_equal(decode(data, Preprocessing(*pixels.shape, 1))[0], pixels)


ROW = st.tuples(
    st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False), min_size=3, max_size=3),
    TEXT,
    TEXT,
    TEXT,
)


@QUIET
@given(st.lists(st.lists(ROW, max_size=5), min_size=1, max_size=5), st.booleans(), st.integers(0, 4))
def test_a_store_gives_back_what_was_written_however_often_it_was_interrupted(batches, announced, cut):
    rows = [row for batch in batches for row in batch]
    texts = {name: [row[place] for row in rows] for place, name in enumerate(TEXTS[:3], 1)} if announced else None
    with tempfile.TemporaryDirectory() as folder:
        path, given = Path(folder) / "features.h5", ({"a": 1}, {"encoder_fingerprint": "x", "source": "y"})
        for number, batch in enumerate(batches):
            with StoreWriter(path, 3, *given, texts=texts) as writer:
                assert writer.next_position == number
                columns = {
                    "features": np.array([row[0] for row in batch], np.float32).reshape(len(batch), 3),
                    "reconstruction_error": np.zeros(len(batch), np.float32),
                    "held_out": np.zeros(len(batch), bool),
                    "stamp": np.zeros((len(batch), 2), np.int64),
                    **{name: [row[place] for row in batch] for place, name in enumerate(TEXTS[:3], 1)},
                    "content_hash": [f"{place:032x}" for place in range(len(batch))],
                }
                writer.append(columns, [(f"{number}", "reason")], number + 1)
                if number == cut:
                    writer.flush()
        with StoreWriter(path, 3, *given, texts=texts) as writer:
            writer.finish()
        store = Store(path)
        assert np.array_equal(store.features(), np.array([row[0] for row in rows], np.float32).reshape(-1, 3))
        for place, name in enumerate(TEXTS[:3], 1):
            assert store.texts(name) == [row[place] for row in rows]
        assert store.skipped() == [(f"{number}", "reason") for number in range(len(batches))] and store.is_sound()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=8,
)


@settings(QUIET, max_examples=25)  # each is flushed to the disk
@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
def test_a_manifest_gives_back_what_was_written(parameters, figures):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.h5").write_bytes(b"content")
        manifest = Manifest(folder)
        manifest.record("x", "x.h5", made_from={}, parameters=parameters, figures=figures)
        again = Manifest.load(folder)
        assert again == manifest and again.holds("x", "x.h5")
        (folder / "x.h5").write_bytes(b"contents")
        assert not again.holds("x", "x.h5")


MADE = {
    "index": lambda collection: collection.build_index(),
    "clusters": lambda collection: collection.cluster(method="kmeans", clusters=2, space="features"),
    "map-pca": lambda collection: collection.map(method="pca"),
    "nap": lambda collection: collection.anomalies(score="nap"),
}


@settings(QUIET, max_examples=12)
@given(
    st.lists(st.tuples(st.sampled_from(["make", "damage", "change", "extract"]), st.sampled_from([*MADE])), max_size=10)
)
def test_an_artifact_is_fresh_if_it_is_whole_and_was_made_of_the_features_as_they_are(template, steps):
    root, _, images = template
    shutil.rmtree(root / "c")
    shutil.copytree(root / "c-before", root / "c")
    rows = encoded = 30
    np.save(root / "x.npy", images[:rows])
    Collection.open(root / "c", progress=False).extract(open_source(str(root / "x.npy")))
    fresh = set()
    for step, name in steps:
        collection, file = Collection.open(root / "c", progress=False), root / "c" / f"{name}.h5"
        if step == "make":
            MADE[name](collection)
            fresh.add(name)
        elif step == "damage":
            file = file if name != "index" else file.with_suffix(".faiss")
            if file.exists():
                file.write_bytes(file.read_bytes()[:-1])
            fresh.discard(name)
        elif step == "change":
            rows += 1
            np.save(root / "x.npy", images[:rows])
        else:
            collection.extract(open_source(str(root / "x.npy")))
            fresh, encoded = fresh if rows == encoded else set(), rows
        now = Collection.open(root / "c", progress=False)
        assert {name for name in MADE if name != "index" and now.is_fresh(name)} == fresh - {"index"}
        assert now.index_stale() == ("index" not in fresh)


@pytest.fixture(scope="module")
def template(tmp_path_factory, digit_images):
    """A collection of three files, to begin with."""
    root = tmp_path_factory.mktemp("updates")
    (root / "photos").mkdir()
    for number in range(3):
        Image.fromarray(digit_images[number]).save(root / f"photos/{number}.png")
    collection = Collection.build(str(root / "photos"), root / "c", progress=False, epochs=1, latent_dim=8)
    shutil.copytree(root / "c", root / "c-before")
    shutil.copytree(root / "photos", root / "photos-before", copy_function=shutil.copy2)
    return root, collection.autoencoder, digit_images


def test_update_does_what_a_dictionary_would(template):  # noqa: C901
    root, encoder, images = template
    photos = root / "photos"
    names = st.integers(0, 9).map(lambda n: f"{n}.png")
    which = st.integers(0, 40)

    class Updates(RuleBasedStateMachine):
        """A folder that changes, and a dictionary from name to image that says what must be in the collection."""

        @initialize()
        def begin(self):
            for folder in ("c", "photos"):
                shutil.rmtree(root / folder)
                shutil.copytree(root / f"{folder}-before", root / folder, copy_function=shutil.copy2)
            self.wanted, self.clock = {f"{n}.png": n for n in range(3)}, 2 * 10**18

        @rule(name=names, image=which)
        def write(self, name, image):
            Image.fromarray(images[image]).save(photos / name)
            self.clock += 1
            os.utime(photos / name, ns=(self.clock, self.clock))
            self.wanted[name] = image

        @rule(name=names)
        def touch(self, name):
            if name in self.wanted:
                self.write(name, self.wanted[name])

        @rule(name=names)
        def remove(self, name):
            if name in self.wanted and len(self.wanted) > 1:
                (photos / name).unlink()
                del self.wanted[name]

        @rule(name=names, other=names)
        def rename(self, name, other):
            if name in self.wanted and name != other:
                (photos / name).replace(photos / other)
                self.wanted[other] = self.wanted.pop(name)

        @rule()
        def update(self):
            collection = Collection.open(root / "c", progress=False)
            before = dict(zip(collection.ids, collection.store.texts("content_hash"), strict=True))
            done = collection.update()
            after = dict(zip(collection.ids, collection.store.texts("content_hash"), strict=True))
            assert list(after) == sorted(self.wanted)
            assert done.unchanged == sum(before.get(id) == content for id, content in after.items())
            assert done.encoded <= len(set(after.values()) - set(before.values())) + done.changed + done.added
            pixels = np.stack([images[self.wanted[id]][None] for id in after])
            assert np.abs(encoder.encode(pixels) - collection.features()).max() < 1e-4
            rows, _ = collection.index.search(collection.features(), 1)
            assert np.abs(collection.features()[rows[:, 0]] - collection.features()).max() < 1e-4

    run_state_machine_as_test(Updates, settings=settings(QUIET, max_examples=15, stateful_step_count=12))
