"""A changed folder costs what has changed in it, and rows stay those of their files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import sign_again
from PIL import Image

from aesearch import AesearchError, Collection
from aesearch.images.sources.opening import open_source
from aesearch.index.options import IndexOptions
from aesearch.network.autoencoder import Autoencoder

N = 240


def write(folder, images, start=0):
    folder.mkdir(exist_ok=True)
    for number, image in enumerate(images, start):
        Image.fromarray(image).save(folder / f"{number:04d}.png")


@pytest.fixture(scope="module")
def built(tmp_path_factory, digit_images):
    """A folder of digits and its collection, with clusters and a map."""
    root = tmp_path_factory.mktemp("built")
    write(root / "photos", digit_images[:N])
    (root / "photos/notes.txt").write_text("no picture")
    collection = Collection.build(str(root / "photos"), root / "c", progress=False, epochs=3, latent_dim=16)
    collection.cluster(method="kmeans", clusters=4, space="features")
    collection.map(method="pca")
    return root


@pytest.fixture
def changing(built, tmp_path):
    """The same, to change; its files as old as they were."""
    shutil.copytree(built / "c", tmp_path / "c")
    shutil.copytree(built / "photos", tmp_path / "photos", copy_function=shutil.copy2)
    with h5py.File(tmp_path / "c/features.h5", "r+") as file:
        file.attrs["source"] = str(tmp_path / "photos")
        for row, id in enumerate(file["id"].asstr()[:]):
            status = (tmp_path / "photos" / id).stat()
            file["stamp"][row] = status.st_size, status.st_mtime_ns

    def move(manifest):
        text = json.dumps([manifest.source, manifest.artifacts])
        manifest.source, manifest.artifacts = json.loads(text.replace(str(built / "photos"), str(tmp_path / "photos")))

    sign_again(tmp_path / "c", move)
    return tmp_path


def count_encoded(monkeypatch):
    seen = []
    encode = Autoencoder.encode_and_score
    monkeypatch.setattr(Autoencoder, "encode_and_score", lambda self, x: seen.append(len(x)) or encode(self, x))
    return seen


def assert_as_if_extracted_anew(root):
    collection = Collection.open(root / "c", progress=False)
    store, source = collection.store, open_source(str(root / "photos"))
    readable = [id for id in source.ids if id.endswith(".png")]
    assert store.texts("id") == readable
    encoded = collection.encode([root / "photos" / id for id in readable])
    assert np.abs(encoded - store.features()).max() < 1e-4
    assert np.array_equal(store.stamps(), source.stamps[[source.ids.index(id) for id in readable]])
    for row in (0, len(readable) // 2, len(readable) - 1):  # the index knows the rows by their new numbers
        found = collection.query(root / "photos" / readable[row], k=1)
        assert (root / "photos" / found.ids[0]).read_bytes() == (root / "photos" / readable[row]).read_bytes()
    features = store.features()
    rows, _ = collection.index.search(features, 1)
    assert np.abs(features[rows[:, 0]] - features).max() < 1e-4
    return collection


@pytest.mark.parametrize("kind", ["flat", "hnsw", "IVF8,Flat", "PCA8,IVF4,Flat"])
def test_an_update_costs_what_has_changed(changing, digit_images, monkeypatch, kind):
    photos = changing / "photos"
    Collection.open(changing / "c", progress=False).build_index(IndexOptions(kind=kind, min_recall=0))
    write(photos, digit_images[N : N + 5], start=N)  # added
    for number in (3, 100):
        Image.fromarray(digit_images[number + 1000]).save(photos / f"{number:04d}.png")  # changed
    for number in (7, 8, 200):
        (photos / f"{number:04d}.png").unlink()  # removed
    (photos / "0050.png").rename(photos / "zz.png")  # renamed
    shutil.copy2(photos / "0060.png", photos / "0060 copy.png")  # a copy: new, but its content is known
    os.utime(photos / "0070.png")  # touched
    seen = count_encoded(monkeypatch)
    done = Collection.open(changing / "c", progress=False).update()
    assert done.to_json() == {
        "added": 6, "changed": 2, "removed": 3, "unchanged": N - 6, "skipped": 1, "renamed": 1, "encoded": 7,
    }  # fmt: skip
    assert sum(seen) == 7
    collection = assert_as_if_extracted_anew(changing)
    again = Collection.open(changing / "c", progress=False).update()
    assert again.unchanged == N + 3 and again.added == again.changed == again.removed == again.encoded == 0
    recorded = collection.manifest.artifacts["index"]["figures"]
    assert recorded.get("added") == (None if kind == "flat" else 8)


def test_clusters_and_maps_come_along(changing, digit_images):
    before = Collection.open(changing / "c", progress=False)
    clusters, ids = before.assignments(), before.ids
    with h5py.File(changing / "c/map-pca.h5") as file:
        places = file["coordinates"][:]
    write(changing / "photos", digit_images[N : N + 10], start=N)
    Image.fromarray(digit_images[20]).save(changing / "photos/000-copy of 20.png")
    (changing / "photos/0000.png").unlink()
    after = Collection.open(changing / "c", progress=False)
    after.update()
    assert len(after.assignments()) == N + 10
    rows = {id: row for row, id in enumerate(after.ids)}
    kept = [id for id in ids if id in rows]
    where = [rows[id] for id in kept]
    assert np.array_equal(after.assignments()[where], clusters[[ids.index(id) for id in kept]])
    with h5py.File(changing / "c/map-pca.h5") as file:
        now = file["coordinates"][:]
    assert np.array_equal(now[where], places[[ids.index(id) for id in kept]])
    twin, own = rows["000-copy of 20.png"], rows["0020.png"]
    assert after.assignments()[twin] == after.assignments()[own] and np.allclose(now[twin], now[own], atol=1e-2)
    assert after.manifest.artifacts["clusters"]["figures"]["placed"] == 11
    assert sum(after.manifest.artifacts["clusters"]["figures"]["sizes"]) == N + 10
    assert (changing / "c/map-pca.html").stat().st_mtime > (changing / "photos/0239.png").stat().st_mtime


def test_a_map_coloured_by_clusters_comes_along(changing, digit_images):
    before = Collection.open(changing / "c", progress=False)
    before.map(method="pca", colour_by="cluster")
    write(changing / "photos", digit_images[N : N + 3], start=N)
    Collection.open(changing / "c", progress=False).update()
    after = Collection.open(changing / "c", progress=False)
    assert len(after.assignments()) == N + 3
    assert after.manifest.artifacts["map-pca"]["parameters"]["colour_by"] == "cluster"


def test_of_images_of_one_content_each_keeps_to_itself(changing):
    photos = changing / "photos"
    for name in ("a.png", "b.png", "c.png"):
        shutil.copy2(photos / "0005.png", photos / name)
    Collection.open(changing / "c", progress=False).update()
    (photos / "a.png").rename(photos / "a2.png")
    (photos / "b.png").rename(photos / "b2.png")
    (photos / "0005.png").unlink()
    first, second = (photos / f"000{n}.png" for n in (1, 2))
    shutil.move(first, photos / "swap")
    shutil.move(second, first)
    shutil.move(photos / "swap", second)
    done = Collection.open(changing / "c", progress=False).update()
    assert (done.renamed, done.removed, done.added, done.changed, done.encoded) == (2, 1, 0, 2, 0)
    assert len(set(done.came_from.tolist())) == len(done.came_from) == N + 2
    assert_as_if_extracted_anew(changing)


def test_a_collection_that_was_open_says_that_it_has_changed(changing):
    reader = Collection.open(changing / "c", progress=False)
    reader.query(row=50)
    (changing / "photos/0000.png").unlink()
    Collection.open(changing / "c", progress=False).update()
    with pytest.raises(AesearchError, match="open the collection again"):
        reader.query(row=50)


def test_killed_before_the_manifest_knew_nothing_is_encoded_again(changing, digit_images, monkeypatch):
    write(changing / "photos", digit_images[N : N + 3], start=N)
    manifest = (changing / "c/collection.json").read_bytes()
    index = (changing / "c/index.faiss").read_bytes()
    Collection.open(changing / "c", progress=False).update()
    (changing / "c/collection.json").write_bytes(manifest)  # as a kill right after the store leaves it
    (changing / "c/index.faiss").write_bytes(index)
    seen = count_encoded(monkeypatch)
    assert Collection.open(changing / "c", progress=False).update().unchanged == N + 3
    assert not seen
    assert_as_if_extracted_anew(changing)


@pytest.mark.parametrize("moved", range(5))
def test_what_was_made_takes_its_place_though_that_was_interrupted(changing, digit_images, monkeypatch, moved):
    write(changing / "photos", digit_images[N : N + 3], start=N)
    replace, calls = Path.replace, []

    def interrupted(self, target):
        if self.parent.name == ".next" and target.parent.name != ".next":
            calls.append(self)
            if len(calls) > moved:
                raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", interrupted)
        Collection.open(changing / "c", progress=False).update()
    seen = count_encoded(monkeypatch)
    assert Collection.open(changing / "c", progress=False).update().unchanged == N + 3
    assert not seen and not (changing / "c/.next").exists()
    assert len(assert_as_if_extracted_anew(changing).assignments()) == N + 3


def test_another_encoder_adds_nothing(changing, digit_images):
    write(changing / "photos", digit_images[N : N + 3], start=N)
    model = (changing / "c/encoder.safetensors").read_bytes()
    (changing / "c/encoder.safetensors").write_bytes(model[:-4] + b"1234")
    with pytest.raises(AesearchError, match="is damaged, or not the one"):
        Collection.open(changing / "c", progress=False).update()


def test_building_again_updates(changing, digit_images, monkeypatch):
    write(changing / "photos", digit_images[N : N + 2], start=N)
    seen = count_encoded(monkeypatch)
    Collection.build(str(changing / "photos"), changing / "c", progress=False, epochs=3, latent_dim=16)
    assert sum(seen) == 2
    assert_as_if_extracted_anew(changing)


def test_many_changes_build_the_index_anew(changing, digit_images):
    Collection.open(changing / "c", progress=False).build_index(IndexOptions(kind="hnsw"))
    write(changing / "photos", digit_images[N : 2 * N], start=N)
    collection = Collection.open(changing / "c", progress=False)
    assert collection.update().added == N
    assert "added" not in collection.manifest.artifacts["index"]["figures"]
    assert_as_if_extracted_anew(changing)


def test_an_empty_folder_leaves_the_collection_as_it_was(changing):
    before = (changing / "c/features.h5").read_bytes()
    for path in (changing / "photos").glob("*.png"):
        path.unlink()
    with pytest.raises(AesearchError, match="240 of 240 images are gone"):
        Collection.open(changing / "c", progress=False).update()
    with pytest.raises(AesearchError, match="no usable image is left"):
        Collection.open(changing / "c", progress=False).update(yes=True)
    assert (changing / "c/features.h5").read_bytes() == before


def test_there_must_be_features_to_update(changing):
    (changing / "c/features.h5").unlink()
    with pytest.raises(AesearchError, match="run aesearch extract"):
        Collection.open(changing / "c", progress=False).update()


def test_another_folder_is_no_update(changing, digit_images):
    write(changing / "others", digit_images[:20])
    collection = Collection.open(changing / "c", progress=False)
    with pytest.raises(AesearchError, match="holds"):
        collection.update(open_source(str(changing / "others")))


def test_a_killed_update_goes_on(changing, digit_images):
    write(changing / "photos", digit_images[N : 4 * N], start=N)
    code = (
        "import sys, time\nfrom aesearch import Collection\nfrom aesearch.network.autoencoder import Autoencoder\n"
        "from aesearch.store import writer\n"
        "writer.FLUSH_SECONDS = 0\n"
        "Autoencoder.reading_size = property(lambda self: 40)\n"
        "append = writer.StoreWriter.append\n"
        "def slowly(self, *given):\n    append(self, *given)\n    print(self.next_position, flush=True)\n"
        "    time.sleep(0.3)\n"
        "writer.StoreWriter.append = slowly\n"
        "Collection.open(sys.argv[1], progress=False).update()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(changing / "c")], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) >= 400:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.1)
    assert Collection.open(changing / "c").store.rows == N  # a reader sees the old one
    with h5py.File(changing / "c/.next/features.h5.partial") as file:
        assert file.attrs["progress"][0] >= 300
    done = Collection.open(changing / "c", progress=False).update()
    assert done.added == 3 * N
    assert_as_if_extracted_anew(changing)


def test_the_command_says_what_it_did(changing, digit_images, run):
    write(changing / "photos", digit_images[N : N + 1], start=N)
    said = run("update", "-c", changing / "c").stdout
    assert said.startswith("1 added, 0 changed, 0 removed, 0 renamed, 240 unchanged, 1 skipped; 1 encoded")
    document = json.loads(run("update", "-c", changing / "c", "--json").stdout)
    assert document["unchanged"] == 241 and set(document) >= {"added", "changed", "removed", "unchanged", "skipped"}


def tree(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def points(folder):
    with h5py.File(folder / "map-pca.h5") as file:
        return file["coordinates"][:]


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_folder_that_has_moved_is_followed(tmp_path, digit_images, digit_labels, run, how):
    for number, (image, label) in enumerate(zip(digit_images[:60], digit_labels[:60], strict=True)):
        (tmp_path / f"photos/{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / f"photos/{label}/{number:04d}.png")
    before = Collection.build(
        str(tmp_path / "photos"), tmp_path / "c", progress=False, epochs=2, latent_dim=8, labels="folder"
    )
    before.map(method="pca")
    held_out = before.store.held_out()
    features, labels, map_before = before.store.features(), before.store.texts("label"), points(tmp_path / "c")
    if how == "moved":
        (tmp_path / "photos").rename(tmp_path / "pictures")
    else:  # its files are younger now
        shutil.copytree(tmp_path / "photos", tmp_path / "pictures", copy_function=shutil.copyfile)
        shutil.rmtree(tmp_path / "photos")
    refused = run("update", "-c", tmp_path / "c", code=1).stderr
    assert "photos is no longer there" in refused and f"aesearch update NEW_PLACE -c {tmp_path / 'c'}" in refused
    refused = run("anomalies", "-c", tmp_path / "c", code=1).stderr
    assert "photos is no longer there" in refused and "--score neighbours" in refused
    refused = run("build-index", tmp_path / "pictures", "-c", tmp_path / "c", code=1).stderr
    assert f"aesearch update {tmp_path / 'pictures'} -c {tmp_path / 'c'}" in refused

    document = json.loads(run("update", tmp_path / "pictures", "-c", tmp_path / "c", "--json").stdout)
    assert {name: count for name, count in document.items() if count} == {
        "collection": str(tmp_path / "c"), "unchanged": 60,
    }  # fmt: skip
    after = Collection.open(tmp_path / "c", progress=False)
    assert after.source.name == after.store.source == str(tmp_path / "pictures")
    assert np.array_equal(after.store.features(), features) and after.store.texts("label") == labels
    assert np.array_equal(points(tmp_path / "c"), map_before)
    assert after.update().unchanged == 60 and after.is_fresh("index")
    after.extract()  # it still knows what its encoder was trained on
    assert np.array_equal(after.store.held_out(), held_out) and 0 < held_out.sum() < 60


def test_only_a_folder_of_the_same_images_is_followed(changing, digit_images, run):
    others, kept = changing / "others", tree(changing / "c")
    write(others, digit_images[N : N + 60])
    shutil.copy2(changing / "photos/0003.png", others)
    assert "holds" in run("update", others, "-c", changing / "c", code=1).stderr  # the old one is still there
    (changing / "photos").rename(changing / "elsewhere")
    assert "others 2% are from there" in run("update", others, "-c", changing / "c", code=1).stderr
    for path in others.iterdir():
        path.rename(others / f"x{path.name}")
    assert "others 2% are from there" in run("update", others, "-c", changing / "c", code=1).stderr  # by content alone
    assert tree(changing / "c") == kept


def test_where_a_folder_has_moved_to_no_time_of_change_is_believed(changing, digit_images, run):
    (changing / "elsewhere").mkdir()
    for path in (changing / "photos").iterdir():
        path.rename(changing / "elsewhere" / path.name)  # an empty folder is left
    (changing / "photos").rename(changing / "empty")
    (changing / "photos").mkdir()
    assert "aesearch update NEW_PLACE" in run("update", "-c", changing / "c", code=1).stderr
    replaced = changing / "elsewhere/0007.png"
    was = replaced.stat()
    Image.fromarray(255 - digit_images[7]).save(replaced)
    os.utime(replaced, ns=(was.st_atime_ns, was.st_mtime_ns))
    with h5py.File(changing / "c/features.h5", "r+") as file:  # as if it had been of that size before
        file["stamp"][file["id"].asstr()[:].tolist().index("0007.png")] = replaced.stat().st_size, was.st_mtime_ns
    sign_again(changing / "c", lambda manifest: None)
    done = json.loads(run("update", changing / "elsewhere", "-c", changing / "c", "--json").stdout)
    assert (done["changed"], done["encoded"], done["unchanged"]) == (1, 1, N - 1)
    (changing / "photos").rmdir()
    (changing / "elsewhere").rename(changing / "photos")
    run("update", changing / "photos", "-c", changing / "c")
    assert_as_if_extracted_anew(changing)


def test_a_training_that_was_interrupted_outlives_an_update(changing, run):
    collection = Collection.open(changing / "c")
    begun = dict(collection.manifest.artifacts["encoder"]["parameters"]["options"], epochs=50)
    pending = {"source": collection.manifest.source, "options": begun, "fingerprint": collection.source.fingerprint}
    sign_again(changing / "c", lambda manifest: setattr(manifest, "training", pending))
    (changing / "photos/0003.png").unlink()
    run("update", "-c", changing / "c")
    assert Collection.open(changing / "c").manifest.training == pending
    (changing / "photos").rename(changing / "elsewhere")
    assert "is no longer there" in run("train", "--resume", "-c", changing / "c", code=1).stderr
    run("update", changing / "elsewhere", "-c", changing / "c")
    assert Collection.open(changing / "c").manifest.training["source"]["name"] == str(changing / "elsewhere")


def test_without_features_a_folder_that_has_moved_is_extracted(changing, run):
    (changing / "photos").rename(changing / "elsewhere")
    (changing / "c/features.h5").unlink()
    refused = run("update", changing / "elsewhere", "-c", changing / "c", code=1).stderr
    command = f"extract {changing / 'elsewhere'} --labels none -c {changing / 'c'}"
    assert f"run aesearch {command}" in refused
    run(*command.split())
    store = Collection.open(changing / "c").store
    assert store.rows == N and 0 < store.held_out().sum() < N / 2


@pytest.fixture
def in_folders(tmp_path, digit_images):
    """80 digits in two folders, and their collection."""
    for number, folder in enumerate(("a", "b/deep")):
        (tmp_path / "photos" / folder).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / "photos" / folder, digit_images[40 * number :][:40])
    Collection.build(str(tmp_path / "photos"), tmp_path / "c", progress=False, epochs=1, latent_dim=8)
    return tmp_path


def test_a_folder_whose_disk_is_away_is_not_dropped_without_a_word(in_folders, run, monkeypatch):
    kept, away = tree(in_folders / "c"), in_folders / "away"
    before = Collection.open(in_folders / "c", progress=False)
    features, held_out = before.features(), before.store.held_out()
    (in_folders / "photos/b").rename(away)
    for command in (["update"], ["build-index", in_folders / "photos"]):
        refused = run(*command, "-c", in_folders / "c", code=1).stderr
        assert "40 of 80 images are gone, all 40 in b:" in refused
        assert f"aesearch update --yes -c {in_folders / 'c'}" in refused
    assert tree(in_folders / "c") == kept
    said = run("update", "--yes", "-c", in_folders / "c").stdout
    assert said.startswith("0 added, 0 changed, 40 removed, 0 renamed, 40 unchanged")

    again = Collection.open(in_folders / "c", progress=False)
    assert again.manifest.artifacts["vanished"]["figures"] == {"rows": 40} and again.store.rows == 40
    (in_folders / "photos/a/0000.png").unlink()
    again.update()  # others may come and go meanwhile
    away.rename(in_folders / "photos/b")
    seen = count_encoded(monkeypatch)
    done = Collection.open(in_folders / "c", progress=False).update()
    assert (done.added, done.encoded) == (40, 0) and not seen
    after = Collection.open(in_folders / "c", progress=False)
    assert np.array_equal(after.features(), features[1:]) and np.array_equal(after.store.held_out(), held_out[1:])
    assert after.query(row=70, k=3).rows.shape == (3,)
    assert after.manifest.artifacts["vanished"]["figures"] == {"rows": 1}
    shutil.copy(in_folders / "photos/a/0001.png", in_folders / "photos/0001.png")
    after.update()
    assert after.manifest.holds("vanished", "vanished.h5")


def test_encodings_of_what_is_gone_are_kept_for_a_time_and_by_one_encoder(in_folders, digit_images, monkeypatch):
    collection, first = Collection.open(in_folders / "c", progress=False), in_folders / "photos/a/0000.png"
    data = first.read_bytes()
    first.unlink()
    collection.update()
    assert collection.manifest.holds("vanished", "vanished.h5")
    names = collection.manifest.path("vanished", "vanished.h5")
    with h5py.File(names) as file:
        assert file["id"][:].tolist() == [b""] and file["stamp"][0, 1] > time.time_ns() - 10**12
    monkeypatch.setattr("aesearch.collection.update.KEPT_DAYS", 0)
    write(in_folders / "photos/a", digit_images[100:101], start=99)
    collection.update()
    assert "vanished" not in collection.manifest.artifacts and not (in_folders / "c/vanished.h5").exists()
    first.write_bytes(data)
    assert collection.update().encoded == 1


def test_a_large_share_of_scattered_images_is_asked_about_and_a_renamed_folder_is_not(in_folders, run):
    (in_folders / "photos/b").rename(in_folders / "photos/c")
    done = json.loads(run("update", "-c", in_folders / "c", "--json").stdout)
    assert (done["renamed"], done["removed"], done["encoded"]) == (40, 0, 0)
    for number in range(9):
        (in_folders / f"photos/a/{number:04d}.png").unlink()
    assert Collection.open(in_folders / "c", progress=False).update().removed == 9
    for folder, start in (("a", 10), ("c/deep", 0)):
        for number in range(start, start + 10):
            (in_folders / f"photos/{folder}/{number:04d}.png").unlink()
    assert "20 of 71 images are gone: if" in run("update", "-c", in_folders / "c", code=1).stderr


def test_links_to_a_disk_that_is_away_count_as_gone(in_folders, run):
    (in_folders / "photos/b").rename(in_folders / "disk")
    (in_folders / "photos/b/deep").mkdir(parents=True)
    for path in (in_folders / "disk/deep").iterdir():
        (in_folders / "photos/b/deep" / path.name).symlink_to(path)
    assert "80 unchanged" in run("update", "-c", in_folders / "c").stdout
    (in_folders / "disk").rename(in_folders / "elsewhere")
    assert "40 of 80 images are gone, all 40 in b:" in run("update", "-c", in_folders / "c", code=1).stderr
