"""Damaged, swapped, locked, read-only: the right answer or one line, never a wrong answer."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import sign_again
from PIL import Image

from aesearch.collection import manifest as manifests
from aesearch.collection.facade import Collection
from aesearch.errors import AesearchError
from aesearch.images.sources.opening import open_source
from aesearch.index.options import IndexOptions
from aesearch.index.search import SearchIndex
from aesearch.network.autoencoder import Autoencoder
from aesearch.network.options import TrainingOptions
from aesearch.store.reader import Store

PARTS = 12  # of a file, each damaged in turn
FILES = (
    "collection.json", "encoder.safetensors", "encoder.onnx", "features.h5", "index.faiss", "clusters.h5", "probe.h5",
    "map-pca.h5", "combined.h5", "thumbnails.h5",
)  # fmt: skip
MADE_ANEW = ("encoder.onnx", "combined.h5", "thumbnails.h5")  # or done without: all is answered


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digit_images):
    """A collection with all there can be, and its answers."""
    folder = tmp_path_factory.mktemp("whole") / "c"
    built = Collection.build("digits", folder, progress=False, epochs=2, latent_dim=8)
    built.cluster(method="kmeans", clusters=5, space="features")
    built.probe(doubts=False)
    built.map(method="pca")
    built.anomalies(score="combined")
    return folder, answers(folder, digit_images)


def answers(folder, images):
    """All that can be asked, each with its answer or, where that is refused, nothing."""
    questions = {
        "query": lambda c: c.query(row=5).distances,
        "image": lambda c: c.query(images[3]).distances,
        "features": lambda c: c.features(),
        "ids": lambda c: np.array(c.ids),
        "errors": lambda c: c.anomalies(score="reconstruction").scores,
        "combined": lambda c: c.anomalies(score="combined").scores,
        "clusters": lambda c: c.assignments(),
        "map": lambda c: c.read_rows("map-pca")["coordinates"],
        "thumbnails": lambda c: np.frombuffer(b"".join(c._maps._atlas().sheets), np.uint8),
        "probe": lambda c: np.array([chance for _, chance in c.classify(list(images[:5]))]),
        "rebuilt": lambda c: c.reconstruct(rows=[1])[1],
        "info": lambda c: np.array([str({**c.info(), "collection": ""})]),
    }
    found = {}
    for name, ask in questions.items():
        try:
            found[name] = ask(Collection.open(folder, progress=False))
        except AesearchError as error:
            assert "\n" not in str(error)
    return found


def damaged(content, part, how):
    """The content with a byte flipped in the middle of a part, or cut off there."""
    place = min(len(content) - 1, int((part + 0.5) * len(content) / PARTS))
    if how == "cut":
        return content[:place]
    return content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_damage_gives_the_right_answer_or_a_refusal(whole, digit_images, tmp_path, file, how, monkeypatch):
    monkeypatch.setattr(manifests, "SETTLED_NS", 0)  # as if all files were old: known by their times where they can be
    folder, wanted = whole
    shutil.copytree(folder, tmp_path / "c")
    assert answers(tmp_path / "c", digit_images).keys() == wanted.keys()
    content = (folder / file).read_bytes()
    for part in range(0, PARTS, 4 if file == "combined.h5" else 1):  # each time it is learned again
        (tmp_path / "c" / file).write_bytes(damaged(content, part, how))
        found = answers(tmp_path / "c", digit_images)
        assert len(found) < len(wanted) or file in MADE_ANEW
        found.pop("info" if file in MADE_ANEW else "", None)  # has its time
        for name, answer in found.items():
            assert answer.dtype.kind in "UO" or np.allclose(answer, wanted[name], atol=1e-5)
            assert answer.dtype.kind not in "UO" or np.array_equal(answer, wanted[name])


def test_a_damaged_checkpoint_costs_the_time_and_not_the_result(tmp_path, monkeypatch, caplog):
    from aesearch.collection import build as building

    options = TrainingOptions(epochs=3, latent_dim=8)

    def interrupt(path, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "write_history", interrupt)
        Collection(tmp_path / "cut", progress=False).train(open_source("digits"), options)
    sound = (tmp_path / "cut/training.safetensors").read_bytes()
    fingerprints, begun_anew = set(), 0
    for part in (None, 0, PARTS // 2, PARTS - 1):
        shutil.rmtree(tmp_path / "c", ignore_errors=True)
        shutil.copytree(tmp_path / "cut", tmp_path / "c")
        if part is not None:
            (tmp_path / "c/training.safetensors").write_bytes(damaged(sound, part, "flipped"))
        caplog.clear()
        collection = Collection(tmp_path / "c", progress=False)
        collection.train(open_source("digits"), options)
        begun_anew += "training starts again" in caplog.text
        fingerprints.add(collection.manifest.artifacts["encoder"]["fingerprint"])
    assert len(fingerprints) == 1 and begun_anew == 3


def test_a_damaged_partial_store_costs_the_time_and_not_the_result(whole, tmp_path, monkeypatch):
    folder, wanted = whole
    shutil.copytree(folder, tmp_path / "cut")
    calls = []
    encode = Autoencoder.encode_and_score

    def interrupt(self, images):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(len(images))
        return encode(self, images)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Autoencoder, "encode_and_score", interrupt)
        patch.setattr(Autoencoder, "reading_size", 300)
        Collection.open(tmp_path / "cut", progress=False).extract()
    sound = (tmp_path / "cut/features.h5.partial").read_bytes()
    with h5py.File(tmp_path / "cut/features.h5.partial") as file:
        row = sound.index(file["features"][5].tobytes())
    in_a_row = sound[:row] + bytes([sound[row] ^ 0x55]) + sound[row + 1 :]
    begun = set()
    for content in (sound, in_a_row, *(damaged(sound, part, "flipped") for part in range(PARTS))):
        shutil.copytree(tmp_path / "cut", tmp_path / "c")
        (tmp_path / "c/features.h5.partial").write_bytes(content)
        collection = Collection.open(tmp_path / "c", progress=False)
        begun.add(collection.extract().resumed_at)
        assert np.allclose(collection.features(), wanted["features"], atol=1e-5)
        assert np.array_equal(collection.ids, wanted["ids"]) and collection.store.is_sound()
        shutil.rmtree(tmp_path / "c")
    assert begun == {0, 900}


def test_what_belongs_to_another_collection_is_refused(whole, tmp_path, digit_images):
    folder, _ = whole
    other = Collection.build("digits", tmp_path / "other", progress=False, epochs=1, latent_dim=8, seed=1)
    for file in ("encoder.safetensors", "features.h5", "index.faiss"):
        shutil.copytree(folder, tmp_path / "c")
        shutil.copy(other.folder / file, tmp_path / "c")
        with pytest.raises(AesearchError, match="not the one that this collection was made with: run aesearch"):
            Collection.open(tmp_path / "c", progress=False).reconstruct(rows=[0])
            Collection.open(tmp_path / "c", progress=False).query(row=0)
        shutil.rmtree(tmp_path / "c")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=1), "has format 1, this aesearch reads 2: build it again"),
        (lambda m: m["artifacts"]["index"]["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "is damaged"),
        (lambda m: m.update(artifacts=[]), "is damaged"),
        (lambda m: m.pop("source"), "is damaged"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(whole, tmp_path, change, message):
    document = json.loads((whole[0] / "collection.json").read_text())
    change(document)
    del document["sha256"]
    (tmp_path / "collection.json").write_text(json.dumps(document | {"sha256": manifests._digest(document)}))
    with pytest.raises(AesearchError, match=message):
        Collection.open(tmp_path)


HOLD = """
import sys, time
from pathlib import Path
from aesearch.files.lock import FolderLock
with FolderLock(Path(sys.argv[1])).hold("train"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_who_changes_a_collection_is_told_and_readers_go_on(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "c")
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "c"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        collection = Collection.open(tmp_path / "c", progress=False)
        with pytest.raises(AesearchError, match=f"is being changed by aesearch train, process {holder.pid} on"):
            collection.cluster(method="kmeans", clusters=3, space="features")
        assert len(collection.query(row=4).rows) == 10
        holder.kill()
    assert collection.cluster(method="kmeans", clusters=3, space="features").sizes  # a dead one holds nothing


def test_what_another_process_has_made_meanwhile_is_kept(whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / "c")
    one, other = (Collection.open(tmp_path / "c", progress=False) for _ in range(2))
    one.map(method="pca")
    other.probe(doubts=False)
    assert {"map-pca", "probe"} <= set(Collection.open(tmp_path / "c").manifest.artifacts)


def test_a_folder_that_cannot_be_written_can_be_asked(whole, tmp_path, run):
    place = tmp_path / "place"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    try:
        shutil.copytree(whole[0], place / "c")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert "digits/4" in run("query", "--row", 3, "-k", 1797, "-c", place / "c").stdout
        for command in (["extract"], ["train", "digits"], ["build-index", "--index", "hnsw"]):
            assert "Read-only file system" in run(*command, "-c", place / "c", code=1).stderr
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_source_that_is_gone_costs_only_its_pictures(tmp_path, digit_images, run):
    np.save(tmp_path / "x.npy", digit_images[:100])
    Collection.build(str(tmp_path / "x.npy"), tmp_path / "c", progress=False, epochs=1)
    (tmp_path / "x.npy").unlink()
    assert len(Collection.open(tmp_path / "c").query(row=3).rows) == 10
    for command in (["extract"], ["update"], ["anomalies", "--score", "nap"]):
        run(*command, "-c", tmp_path / "c", code=1)


@pytest.mark.parametrize("kind", ["external", "link", "promise", "virtual"])
def test_a_store_that_leads_elsewhere_is_refused(whole, tmp_path, kind):
    store = tmp_path / "features.h5"
    shutil.copy(whole[0] / "features.h5", store)
    (tmp_path / "secret").write_bytes(bytes(1797 * 4))
    with h5py.File(store, "r+") as file:
        shape = file["reconstruction_error"].shape
        del file["reconstruction_error"]
        if kind == "external":
            file.create_dataset("reconstruction_error", shape, "f4", external=[(str(tmp_path / "secret"), 0, 1797 * 4)])
        elif kind == "link":
            file["reconstruction_error"] = h5py.ExternalLink(str(whole[0] / "features.h5"), "/reconstruction_error")
        elif kind == "promise":
            file.create_dataset("reconstruction_error", (10**12,), "f4", chunks=(10**6,))
        else:
            layout = h5py.VirtualLayout(shape, "f4")
            layout[:] = h5py.VirtualSource(str(whole[0] / "features.h5"), "reconstruction_error", shape)
            file.create_virtual_dataset("reconstruction_error", layout)
    with pytest.raises(AesearchError, match="is no feature store, or is damaged"):
        Store(store)


@pytest.mark.parametrize("trap", [".next", ".lock.json", "features.h5.partial"])
def test_a_collection_of_a_stranger_writes_nothing_elsewhere(whole, tmp_path, run, trap):
    shutil.copytree(whole[0], tmp_path / "c")
    elsewhere = tmp_path / "elsewhere"
    if trap == ".next":
        shutil.copytree(whole[0], elsewhere)
    else:
        elsewhere.write_text("mine")
    before = {p: p.read_bytes() for p in [elsewhere, *elsewhere.glob("*")] if p.is_file()}
    (tmp_path / "c" / trap).symlink_to(elsewhere)
    for command in (["update"], ["extract"], ["map", "--method", "pca"]):
        assert "is a link" in run(*command, "-c", "./c", code=1).stderr
    assert before == {p: p.read_bytes() for p in [elsewhere, *elsewhere.glob("*")] if p.is_file()}
    assert len(Collection.open(tmp_path / "c").query(row=1).rows) == 10


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["artifacts"]["encoder"].update(native_size=[0, 0]),
        lambda m: m["artifacts"]["encoder"].pop("fingerprint"),
        lambda m: m["artifacts"]["encoder"].pop("time"),
        lambda m: m["artifacts"]["index"]["parameters"].update(metric="\x1b[2J"),
        lambda m: m.update(source={"bogus": "1"}),
        lambda m: m["artifacts"]["encoder"]["parameters"].update(spec=3),
        lambda m: m["artifacts"]["encoder"]["parameters"]["spec"].update(latent_dim=10**9),
        lambda m: m["artifacts"]["encoder"]["parameters"]["spec"]["preprocessing"].update(height=60_000),
    ],
)
def test_a_forged_manifest_is_one_line(whole, tmp_path, run, digit_images, change):
    shutil.copytree(whole[0], tmp_path / "c")
    document = json.loads((tmp_path / "c/collection.json").read_text())
    change(document)
    del document["sha256"]
    (tmp_path / "c/collection.json").write_text(json.dumps(document | {"sha256": manifests._digest(document)}))
    Image.fromarray(digit_images[0]).save(tmp_path / "img.png")
    run("query", "img.png", "-c", "./c", code=1)


def test_control_characters_of_a_manifest_do_not_reach_the_terminal(whole, tmp_path, run):
    shutil.copytree(whole[0], tmp_path / "c")
    sign_again(tmp_path / "c", lambda m: m.artifacts["index"].update(time="\x1b]0;pwned\a", figures={"\x1b[2J": 1}))
    assert "\x1b" not in run("info", "-c", "./c").stdout


def test_a_dataset_of_a_stranger_s_collection_is_not_fetched(whole, tmp_path, run):
    shutil.copytree(whole[0], tmp_path / "c")
    where = str(tmp_path / "data")
    sign_again(tmp_path / "c", lambda m: m.source.update(name="mnist", data_dir=where))
    assert "cannot get mnist" in run("extract", "-c", "./c", code=1).stderr
    assert not (tmp_path / "data").exists()


def test_weights_that_do_not_fit_what_they_say_take_no_memory(whole, tmp_path):
    import resource

    from safetensors.torch import safe_open, save_file

    from aesearch.network.autoencoder import load_autoencoder

    with safe_open(whole[0] / "encoder.safetensors", "pt") as file:
        document = json.loads(file.metadata()["aesearch"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    document["spec"]["latent_dim"] = 60_000
    document["spec"]["preprocessing"] |= {"height": 512, "width": 512}
    save_file(tensors, tmp_path / "x.safetensors", {"aesearch": json.dumps(document)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AesearchError, match="damaged"):
        load_autoencoder(tmp_path / "x.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


def test_a_reader_sees_the_new_collection_while_its_files_take_their_places(whole, tmp_path, monkeypatch):
    build = partial(Collection.build, "digits", tmp_path / "c", progress=False, epochs=1)
    build(latent_dim=6)
    moves, replace = [], Path.replace

    def killed(self, target):
        if self.parent.name == ".next" and not self.name.startswith("."):
            moves.append(self.name)
            if len(moves) == 3:
                raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "replace", killed)
        build(latent_dim=5, overwrite=True)
    reader = Collection.open(tmp_path / "c", progress=False)
    assert reader.features().shape[1] == 4 and len(reader.query(row=3).rows) == 10
    assert reader.reconstruct(rows=[2])[1].shape == (1, 1, 8, 8)
    reader.cluster(method="kmeans", clusters=3, space="features")
    assert not (tmp_path / "c/.next").exists() and Collection.open(tmp_path / "c").spec.latent_dim == 5
    encoder = (tmp_path / "c/encoder.safetensors").stat().st_ino
    build(latent_dim=5, overwrite=True)  # is what was asked for
    assert (tmp_path / "c/encoder.safetensors").stat().st_ino == encoder


def test_a_disk_that_gets_full_between_two_files_leaves_the_encoder(whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "c")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for step, command in (
        (
            (Autoencoder, "save_portable"),
            lambda c: c.train(open_source("digits"), TrainingOptions(epochs=1, latent_dim=6)),
        ),
        ((SearchIndex, "save"), lambda c: c.build_index(IndexOptions(metric="l2"))),
    ):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(*step, full)
            command(Collection.open(tmp_path / "c", progress=False))
        reader = Collection.open(tmp_path / "c", progress=False)
        assert len(reader.query(row=1).rows) == 10 and reader.reconstruct(rows=[1])[1].shape == (1, 1, 8, 8)
        assert not list((tmp_path / "c").glob(".encoder-*"))
