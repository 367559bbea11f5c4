"""A collection from the inside: what is reused, what is refused, what Python gets."""

import hashlib
import json
import shutil
import unicodedata
from functools import partial

import h5py
import numpy as np
import pytest
from conftest import BAD, GOOD, QUICK, gradient, sign_again
from PIL import Image
from sklearn.metrics import roc_auc_score

from aesearch import AesearchError, Collection
from aesearch.anomalies.names import PARTS, SCORES
from aesearch.anomalies.ranking import measure_auroc
from aesearch.collection.artifacts import LEARNED
from aesearch.collection.staging import Staging
from aesearch.images.sources.opening import open_source
from aesearch.index.options import IndexOptions
from aesearch.network.autoencoder import load_autoencoder
from aesearch.network.options import TrainingOptions
from aesearch.network.training import split_held_out
from aesearch.vectors.distances import exact_neighbours


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".h5", ".safetensors", ".faiss")}


def test_features_and_labels_are_ready_for_numpy(digits, digit_labels):
    features = digits.features()
    assert features.shape == (1797, 12) and features.dtype == np.float32
    assert digits.labels() == digit_labels and set(digits.splits()) == {""}


def test_rows_are_the_features_of_their_own_images(digits, digit_images):
    rows = [0, 17, 900, 1796]
    encoded = digits.encode([digit_images[r] for r in rows])
    assert np.allclose(encoded, digits.features()[rows], atol=1e-5)


def test_an_image_of_the_collection_finds_itself(digits, digit_images, tmp_path):
    Image.fromarray(digit_images[42]).save(tmp_path / "img.png")
    hits = digits.query(tmp_path / "img.png", k=5)
    assert hits.rows[0] == 42 and hits.ids[0] == "digits/42" and hits.distances[0] < 1e-5
    assert list(hits.distances) == sorted(hits.distances) and len(hits.rows) == 5


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "CMYK"])
def test_an_image_of_any_size_and_mode_is_answered(digits, digit_images, tmp_path, mode):
    big = Image.fromarray(digit_images[42]).resize((300, 200), Image.Resampling.BICUBIC).convert(mode)
    path = tmp_path / f"query.{'jpg' if mode == 'CMYK' else 'png'}"
    big.save(path)
    assert digits.query(path, k=3).rows.shape == (3,)


def test_a_row_is_not_its_own_neighbour(digits):
    hits = digits.query(row=7, k=4)
    rows, distances = exact_neighbours(digits.features(), digits.features()[7:8], 5, digits.metric)
    assert hits.rows.tolist() == [r for r in rows[0] if r != 7][:4]
    assert np.allclose(hits.distances, distances[0][rows[0] != 7][:4], atol=1e-5)
    assert digits.query(id="digits/7", k=4).rows.tolist() == hits.rows.tolist()


def test_more_neighbours_than_images_gives_all(digits):
    assert len(digits.query(row=0, k=99_999).rows) == 1796


def test_an_encoder_alone_judges_and_rebuilds_images(tmp_path, digit_images):
    np.save(tmp_path / "x.npy", digit_images[:200])
    collection = Collection(tmp_path / "c", progress=False)
    collection.train(open_source(str(tmp_path / "x.npy")), TrainingOptions(epochs=1, latent_dim=8))
    found = collection.anomalies(str(tmp_path / "x.npy"), score="reconstruction", top=3)
    assert found.scored == 200 and len(found.ids) == 3
    originals, rebuilt = collection.reconstruct([digit_images[0]])
    assert len(originals) == len(rebuilt) == 1


def test_anomalies_are_the_worst_reconstructed(digits):
    errors = digits.store.reconstruction_errors()
    found = digits.anomalies(score="reconstruction", top=7)
    assert found.rows.tolist() == np.argsort(-errors, kind="stable")[:7].tolist()
    originals, rebuilt = digits.reconstruct(rows=found.rows)
    by_hand = [np.square(o / 255 - r).mean() for o, r in zip(originals, rebuilt, strict=True)]
    assert np.allclose(by_hand, found.scores, atol=1e-5)


def test_new_images_are_scored_with_the_collection_s_encoder(digits, digit_images, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (3, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "new.npy", np.concatenate([digit_images[:30], noise]))
    found = digits.anomalies(str(tmp_path / "new.npy"), top=3)
    assert sorted(found.rows.tolist()) == [30, 31, 32] and found.scored == 33
    again = digits.anomalies(open_source("digits"), score="reconstruction", top=1797)
    assert np.allclose(again.scores, digits.anomalies(score="reconstruction", top=1797).scores, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_noise_is_odder_than_digits_by_every_score(digits, digit_images, tmp_path, score):
    noise = np.random.default_rng(0).integers(0, 255, (30, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "new.npy", np.concatenate([digit_images[:30], noise]))
    found = digits.anomalies(str(tmp_path / "new.npy"), score=score, top=60)
    assert measure_auroc(found.scores, ["noise" if r >= 30 else "digit" for r in found.rows], "digit") > 0.95


def test_the_distance_to_neighbours_is_that_of_the_features(digits):
    own = digits.anomalies(score="neighbours", top=1797)
    rows, distances = exact_neighbours(digits.features(), digits.features(), 40, digits.metric)
    assert (rows[:, :6] == np.arange(1797)[:, None]).any(axis=1).all()
    others = digits.units[rows] != digits.units[:, None]  # not what belongs to the same group: near-duplicates
    far = [kept[other][:5].mean() for kept, other in zip(distances, others, strict=True)]
    assert np.allclose(own.scores, np.sort(far)[::-1], atol=1e-4)
    with pytest.raises(AesearchError, match="not one of combined, patches, reconstruction, nap, neighbours"):
        digits.anomalies(score="magic")


@pytest.mark.parametrize("score", ["nap", "combined", "patches"])
def test_a_score_is_learned_once_from_the_images_trained_on(digits, score):
    own = digits.anomalies(score=score, top=1797)
    kept = LEARNED[score]
    assert digits.manifest.artifacts[kept]["figures"]["learned_from"] == (~digits.store.held_out()).sum()
    made = (digits.folder / f"{kept}.h5").stat().st_mtime_ns
    new = digits.anomalies(open_source("digits"), score=score, top=1797)
    assert (digits.folder / f"{kept}.h5").stat().st_mtime_ns == made
    own, new = (found.scores[np.argsort(found.rows)] for found in (own, new))
    held_out = digits.store.held_out()
    assert np.isfinite(own).all() and np.corrcoef(own[held_out], new[held_out])[0, 1] > (
        0.7 if score == "nap" else 0.95
    )
    # As new ones they have themselves among what they are compared with; held-out ones are scored by others' scales.
    assert (new < own * (1 + 1e-4) + 1e-4)[~held_out].mean() > 0.98 and (new < own + 0.3)[held_out].mean() > 0.9
    assert np.median(own[held_out]) == pytest.approx(np.median(own), rel=0.3, abs=0.3)


def test_what_an_earlier_version_learned_is_learned_again(digits, tmp_path):
    assert digits.scores_of_rows("combined").shape == (1797,) and digits.is_learned("combined")
    shutil.copytree(digits.folder, tmp_path / "c")
    earlier = {"metric": "cosine", "parts": list(PARTS)}
    sign_again(tmp_path / "c", lambda manifest: manifest.artifacts["combined"].update(parameters=earlier))
    assert not Collection.open(tmp_path / "c", progress=False).is_learned("combined")


def test_another_metric_makes_the_combined_score_anew(tmp_path, digit_images):
    np.save(tmp_path / "some.npy", digit_images[:300])
    built = Collection.build(str(tmp_path / "some.npy"), tmp_path / "c", progress=False, **QUICK)
    before = built.anomalies(top=300)
    built.build_index(IndexOptions(metric="l2"))
    after = built.anomalies(top=300)
    assert built.manifest.artifacts["combined"]["parameters"]["metric"] == "l2"
    assert not np.allclose(np.sort(before.scores), np.sort(after.scores), rtol=1e-2)


def test_a_score_says_when_the_images_it_needs_are_gone(tmp_path, digit_images):
    for number, image in enumerate(digit_images[:12]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    Collection.build(str(tmp_path), tmp_path / "c", progress=False, epochs=1)
    (tmp_path / "3.png").unlink()
    with pytest.raises(AesearchError, match="gone: run aesearch extract"):
        Collection.open(tmp_path / "c", progress=False).anomalies()


def test_an_image_that_is_gone_is_not_judged_by_what_stands_in_for_it(tmp_path, digit_images, caplog):
    for number, image in enumerate(digit_images[:12]):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    Collection.build(str(tmp_path), tmp_path / "c", progress=False, epochs=1)
    (tmp_path / "03.png").unlink()
    opened = Collection.open(tmp_path / "c", progress=False)
    with pytest.raises(AesearchError, match=r"the image of row 3, 03\.png, cannot be read any more"):
        opened.reconstruct(rows=[3])
    found = opened.anomalies(score="reconstruction", top=12)
    maps = opened.error_maps(found)
    assert [m.max() == 0 for m in maps] == [id == "03.png" for id in found.ids]
    assert "1 images cannot be read any more, the first: 03.png" in caplog.text


def test_a_threshold_is_not_learned_from_the_split_test(tmp_path, digit_images):
    for split, images in (("train", digit_images[:200]), ("test", 255 - digit_images[200:260])):
        (tmp_path / "p" / split).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "p" / split / f"{number}.png")
    built = Collection.build(str(tmp_path / "p"), tmp_path / "c", progress=False, epochs=1)
    found = built.anomalies(score="reconstruction", false_alarms=0.2)
    assert found.alarms.learned_from == 20
    assert found.flagged > 50


def test_error_maps_add_up_to_the_error(digits):
    found = digits.anomalies(score="reconstruction", top=4)
    assert np.allclose([m.mean() for m in digits.error_maps(found)], found.scores, atol=1e-5)


def test_rows_the_encoder_was_not_trained_on_are_known(digits):
    train, held_out = split_held_out(1797, 0, digits.units)
    assert np.flatnonzero(digits.store.held_out()).tolist() == held_out.tolist()
    assert len(train) + len(held_out) == 1797


@pytest.mark.parametrize("score", ["reconstruction", "combined"])
def test_noise_exceeds_the_threshold_that_few_digits_exceed(digits, digit_images, tmp_path, score):
    noise = np.random.default_rng(0).integers(0, 255, (20, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "new.npy", np.concatenate([digit_images, noise]))
    found = digits.anomalies(str(tmp_path / "new.npy"), score=score, false_alarms=0.05)
    assert {*range(1797, 1817)} <= set(found.rows.tolist()) and len(found.rows) == min(50, found.flagged)
    assert 20 <= found.flagged < 20 + 0.1 * 1797
    assert found.alarms.asked == 0.05 and found.alarms.measured < 0.15
    assert found.alarms.learned_from == digits.store.held_out().sum()
    with pytest.raises(AesearchError, match="ask for a higher rate"):
        digits.anomalies(false_alarms=0.001)


def test_odd_images_that_are_there_more_than_once_do_not_hide_each_other(
    tmp_path, digit_images, digit_labels, monkeypatch
):
    monkeypatch.setattr("aesearch.anomalies.finder.MOST_STEPS", 500)
    generator = np.random.default_rng(0)
    few = np.flatnonzero(np.isin(digit_labels, ["0", "1", "2"]))
    odd = digit_images[digit_labels.index("4")] + generator.integers(0, 9, (8, 8, 8), dtype=np.uint8)
    np.save(tmp_path / "x.npy", np.concatenate([digit_images[few], odd]))
    built = Collection.build(str(tmp_path / "x.npy"), tmp_path / "c", progress=False, **QUICK)
    aurocs = {}
    for score in ("neighbours", "combined"):
        found = built.anomalies(score=score, top=len(few) + 8)
        aurocs[score] = roc_auc_score(found.rows >= len(few), found.scores)
    assert aurocs["neighbours"] < 0.8 and aurocs["combined"] > 0.9


def test_the_auroc_of_a_normal_label(digits):
    found = digits.anomalies(normal_label="0", score="reconstruction", top=1797)
    odd = np.array(found.labels) != "0"
    assert found.auroc == pytest.approx(roc_auc_score(odd, found.scores), abs=1e-6)


def test_a_normal_label_may_only_say_what_to_learn_from(digits, digit_images, tmp_path):
    np.save(tmp_path / "new.npy", digit_images[:30])
    found = digits.anomalies(str(tmp_path / "new.npy"), normal_label="1", false_alarms=0.2, score="neighbours")
    assert found.auroc is None and found.alarms.learned_from < 40
    assert all(p <= 0.2 for p in found.alarms.p_values(found.scores))
    with pytest.raises(AesearchError, match="needs labels"):
        digits.anomalies(str(tmp_path / "new.npy"), normal_label="1")


def test_building_again_uses_what_is_there(tmp_path, caplog):
    folder = tmp_path / "c"
    Collection.build("digits", folder, progress=False, epochs=1)
    before, times = contents(folder), {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    Collection.build("digits", folder, progress=False)
    assert contents(folder) == before
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == times


def test_two_builds_with_one_seed_are_equal_bit_by_bit(tmp_path):
    for name in "ab":
        Collection.build("digits", tmp_path / name, progress=False, epochs=2, seed=4)
    one, two = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert one["encoder.safetensors"] == two["encoder.safetensors"]
    assert one["index.faiss"] == two["index.faiss"]
    with h5py.File(tmp_path / "a/features.h5") as a, h5py.File(tmp_path / "b/features.h5") as b:
        assert np.array_equal(a["features"][:], b["features"][:])
        assert a.attrs["fingerprint"] == b.attrs["fingerprint"]


def test_only_the_index_is_rebuilt_for_other_index_options(tmp_path):
    built = Collection.build("digits", tmp_path / "c", progress=False, epochs=1)
    store = (built.folder / "features.h5").stat().st_mtime_ns
    again = Collection.build("digits", tmp_path / "c", progress=False, index=IndexOptions(kind="hnsw", metric="l2"))
    assert again.info()["index"]["kind"] == "HNSW32" and again.metric == "l2"
    assert (built.folder / "features.h5").stat().st_mtime_ns == store
    assert Collection.build("digits", tmp_path / "c", progress=False).info()["index"]["kind"] == "HNSW32"


def test_other_images_or_settings_are_refused_not_mixed(digits, tmp_path):
    gradient().save(tmp_path / "a.png")
    with pytest.raises(AesearchError, match="holds digits"):
        Collection.build(str(tmp_path), digits.folder, progress=False)
    with pytest.raises(AesearchError, match="latent_dim 16"):
        Collection.build("digits", digits.folder, progress=False, latent_dim=9)
    Collection.build("digits", digits.folder, progress=False, latent_dim=16)


def test_overwrite_replaces_a_collection_when_the_new_one_is_finished(tmp_path, monkeypatch):
    before = Collection.build("digits", tmp_path / "c", progress=False, epochs=1, latent_dim=6)
    features = before.features()
    new = {"progress": False, "epochs": 1, "latent_dim": 5, "overwrite": True}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Staging, "build_index", interrupt)
        Collection.build("digits", tmp_path / "c", **new)
    reader = Collection.open(tmp_path / "c")
    assert (reader.features() == features).all() and len(reader.query(row=3).rows) == 10
    trained = (tmp_path / "c/.next/encoder.safetensors").read_bytes()
    Collection.build("digits", tmp_path / "c", **new)  # goes on where it was
    assert (tmp_path / "c/encoder.safetensors").read_bytes() == trained
    assert Collection.open(tmp_path / "c").features().shape == (1797, 4) and not (tmp_path / "c/.next").exists()


def test_what_an_overwriting_left_unfinished_is_not_mixed_with_an_update_or_other_settings(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(12):
        gradient(20 + i, 30).save(photos / f"{i:02}.png")
    build = partial(Collection.build, str(photos), tmp_path / "c", progress=False, epochs=1)
    build(latent_dim=6)
    encoder = (tmp_path / "c/encoder.safetensors").read_bytes()
    for finish in (lambda: Collection.open(tmp_path / "c").update(), lambda: build(latent_dim=4, overwrite=True)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Staging, "build_index", interrupt)
            build(latent_dim=5, overwrite=True)
        gradient(50, 50).save(photos / "new.png")
        finish()
        made = Collection.open(tmp_path / "c")
        assert made.store.rows == 13 and len(made.query(row=3, k=3).rows) == 3
        assert not (tmp_path / "c/.next").exists()
        (photos / "new.png").unlink()
        if made.spec.latent_dim == 6:
            assert (tmp_path / "c/encoder.safetensors").read_bytes() == encoder
    assert made.spec.latent_dim == 4


@pytest.mark.parametrize("content", [b"{", b'{"format_version": 1}'])
def test_a_damaged_or_older_collection_can_be_overwritten_as_its_message_says(tmp_path, content):
    (tmp_path / "c").mkdir()
    (tmp_path / "c/collection.json").write_bytes(content)
    with pytest.raises(AesearchError, match="--overwrite"):
        Collection.build("digits", tmp_path / "c", progress=False, epochs=1, latent_dim=4)
    Collection.build("digits", tmp_path / "c", progress=False, epochs=1, latent_dim=4, overwrite=True)
    assert Collection.open(tmp_path / "c").spec.latent_dim == 4


def interrupt(*_):
    raise KeyboardInterrupt


def test_a_changed_folder_is_encoded_with_the_same_encoder(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(12):
        gradient(20 + i, 30).save(photos / f"{i:02}.png")
    built = Collection.build(str(photos), tmp_path / "c", progress=False, epochs=1)
    encoder = (built.folder / "encoder.safetensors").read_bytes()
    held_out = {id for id, out in zip(built.ids, built.store.held_out(), strict=True) if out}
    gradient(11, 11).save(photos / "new.png")
    (photos / "03.png").unlink()
    for _ in range(2):
        again = Collection.build(str(photos), tmp_path / "c", progress=False)
        assert again.ids == sorted(p.name for p in photos.iterdir())
        known = {id for id, out in zip(again.ids, again.store.held_out(), strict=True) if out}
        assert known == held_out - {"03.png"} | {"new.png"} and len(held_out) == 2
        (photos / "new.png").touch()
    (built.folder / "features.h5").write_bytes(b"no store")
    again = Collection.build(str(photos), tmp_path / "c", progress=False)
    assert not again.store.held_out().any()
    assert (built.folder / "encoder.safetensors").read_bytes() == encoder
    assert again.query(photos / "new.png", k=1).ids == ["new.png"]


def test_features_of_another_encoder_are_refused(tmp_path):
    built = Collection.build("digits", tmp_path / "c", progress=False, epochs=1)
    Collection(built.folder, progress=False).train(open_source("digits"), built_options(seed=9))
    with pytest.raises(AesearchError, match="another encoder: run aesearch extract"):
        Collection.open(built.folder).query(row=0)
    changed = Collection.open(built.folder, progress=False)
    changed.extract()
    with pytest.raises(AesearchError, match="changed since the index was built"):
        changed.query(row=0)
    changed.build_index()
    assert len(changed.query(row=0).rows) == 10


def built_options(**options):
    from aesearch.network.options import TrainingOptions

    return TrainingOptions(epochs=1, **options)


def test_a_mixed_folder_gives_rows_for_the_good_and_reasons_for_the_bad(mixed_folder, tmp_path):
    built = Collection.build(str(mixed_folder), tmp_path / "c", progress=False, **QUICK)
    assert built.ids == sorted(GOOD, key=str.encode)
    lines = (built.folder / "skipped.csv").read_text().splitlines()
    assert lines[0] == "path,reason" and {line.split(",")[0] for line in lines[1:]} == set(BAD)
    for name in GOOD:
        hits = built.query(mixed_folder / name, k=len(GOOD))
        nearest = [i for i, d in zip(hits.ids, hits.distances, strict=True) if d <= hits.distances[0] + 1e-6]
        assert name in nearest


def test_clusters_and_maps_are_aligned_with_the_rows(digits):
    found = digits.cluster(clusters=10)
    with h5py.File(digits.folder / "clusters.h5") as file:
        assert np.array_equal(file["cluster"][:], found.assignments)
    assert np.array_equal(digits.assignments(), found.assignments)
    assert found.against_labels["accuracy"] > 0.5 and found.silhouette > 0.3
    projection = digits.map(method="pca", dims=3)
    with h5py.File(digits.folder / "map-pca-3d.h5") as file:
        assert np.array_equal(file["coordinates"][:], projection.coordinates)
    assert {"map-pca-3d.png", "map-pca-3d.html"} <= {p.name for p in digits.folder.iterdir()}


def test_a_probe_classifies_new_images(digits, digit_images, digit_labels):
    result = digits.probe()
    assert result.linear_accuracy > 0.8 and result.knn_accuracy > 0.85
    answers = digits.classify([digit_images[i] for i in range(0, 1797, 30)])
    assert np.mean([a[0] == digit_labels[i] for a, i in zip(answers, range(0, 1797, 30), strict=True)]) > 0.85
    halves = np.concatenate([digit_images[0][:, :4], digit_images[1][:, 4:]], axis=1)  # of a nought and a one
    label, probability = digits.classify([halves])[0]  # a pair as ever
    unsure = digits.classify([np.full((8, 8), 90, np.uint8), *[digit_images[i] for i in range(20)]])
    assert label in set(digit_labels) and 0 < probability <= 1
    for answer in unsure:
        assert answer.unsure == (answer.probability < 0.6) and answer.second != answer.label
        assert answer.second_probability <= answer.probability


def test_the_manifest_says_what_was_made_from_what(digits):
    document = json.loads((digits.folder / "collection.json").read_text())
    artifacts = document["artifacts"]
    assert artifacts["features"]["made_from"]["encoder"] == artifacts["encoder"]["fingerprint"]
    assert artifacts["index"]["made_from"]["features"] == artifacts["features"]["fingerprint"]
    for artifact in artifacts.values():
        for file, facts in artifact["files"].items():
            assert hashlib.sha256((digits.folder / file).read_bytes()).hexdigest() == facts["sha256"]
        assert {"versions", "time", "parameters", "figures"} <= set(artifact)


def test_a_collection_can_move(tmp_path):
    built = Collection.build("digits", tmp_path / "here", progress=False, epochs=1)
    expected = built.query(row=3).rows.tolist()
    (tmp_path / "here").rename(tmp_path / "there")
    assert Collection.open(tmp_path / "there").query(row=3).rows.tolist() == expected


def test_splits_decide_what_is_trained_on(tmp_path, caplog):
    caplog.set_level("INFO", logger="aesearch")
    for split, count in (("train", 12), ("test", 5)):
        (tmp_path / "p" / split).mkdir(parents=True)
        for i in range(count):
            gradient(10 + i, 12).save(tmp_path / "p" / split / f"{i}.png")
    built = Collection.build(str(tmp_path / "p"), tmp_path / "c", progress=False, epochs=1)
    assert "training on the 12 images of split train" in caplog.text
    assert sorted(built.splits()) == ["test"] * 5 + ["train"] * 12


def test_an_interrupted_build_goes_on_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    from aesearch.collection import build as building

    whole = Collection.build("digits", tmp_path / "whole", progress=False, epochs=4)

    def interrupt(path, history):
        if len(history) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(building, "write_history", interrupt)
        Collection.build("digits", tmp_path / "cut", progress=False, epochs=4)
    manifest = (tmp_path / "cut/collection.json").read_text()
    sign_again(tmp_path / "cut", lambda manifest: manifest.training.update(fingerprint="of other images"))
    with pytest.raises(AesearchError, match="the images have changed since that training began"):
        Collection(tmp_path / "cut", progress=False).train(open_source("digits"), built_options(), resume=True)
    (tmp_path / "cut/collection.json").write_text(manifest)
    again = Collection.build("digits", tmp_path / "cut", progress=False, epochs=4)
    one, two = (load_autoencoder(c.folder / "encoder.safetensors")[0].state_dict() for c in (whole, again))
    assert all((one[name] == two[name]).all() for name in one)


def test_few_latent_numbers_keep_what_is_seen(tmp_path):
    """None can be spared for how an image lies: plain reconstruction, unless something else is asked for."""
    encoders = [
        Collection.build(
            "digits", tmp_path / str(n), progress=False, arch="conv", epochs=1, latent_dim=latent, **options
        )
        for n, (latent, options) in enumerate([(15, {}), (16, {}), (15, {"invariance": "light"})])
    ]
    recorded = [c.manifest.artifacts["encoder"]["parameters"] for c in encoders]
    assert [r["recipe"]["invariance"] for r in recorded] == ["none", "strong", "light"]
    assert [r["spec"]["style_dim"] for r in recorded] == [0, 4, 0]


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_very_small_collections_work(tmp_path, count, caplog):
    (tmp_path / "p").mkdir()
    for i in range(count):
        gradient(16, 10 + i).save(tmp_path / f"p/{i}.png")
    built = Collection.build(str(tmp_path / "p"), tmp_path / "c", progress=False, epochs=1)
    assert len(built.query(tmp_path / "p/0.png").rows) == count
    assert len(built.query(row=0).rows) == count - 1
    assert len(built.anomalies().rows) == count and np.isfinite(built.anomalies().scores).all()
    assert built.cluster(clusters=1, space="features").sizes == [count]
    assert "the latent is dead" not in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.query(), "give one of"),
        (lambda c: c.query("a.png", row=3), "give one of"),
        (lambda c: c.query("no-such.png"), "no-such.png: cannot be read"),
        (lambda c: c.query(row=5000), "there is no row 5000"),
        (lambda c: c.query(row=-1), "there is no row -1"),
        (lambda c: c.query(id="digits/99x"), "did you mean 'digits/99"),
        (lambda c: c.query(row=1, k=0), "k must be 1"),
        (lambda c: c.query(np.zeros((3, 3), np.complex64)), "integers or floats"),
        (lambda c: c.anomalies(top=0), "--top"),
        (lambda c: c.map(colour_by="mood"), "mood"),
        (lambda c: Collection.open("nowhere"), "no collection at indexes/nowhere"),
        (lambda c: Collection("nowhere").features(), "no collection at indexes/nowhere"),
    ],
)
def test_wrong_calls_are_one_line(digits, call, message):
    with pytest.raises(AesearchError, match=message) as caught:
        call(digits)
    assert "\n" not in str(caught.value)


def test_new_images_are_assigned_without_refitting(digits, digit_images):
    digits.cluster(method="kmeans", clusters=10, space="features")
    file = digits.folder / "clusters.h5"
    before = file.read_bytes()
    assigned = digits.assign([digit_images[r] for r in range(40)])
    own = digits.assignments()[:40]
    assert np.mean([c == o for (c, _), o in zip(assigned, own, strict=True)]) > 0.9
    assert all(0 < share <= 1 for _, share in assigned) and file.read_bytes() == before


def test_centres_are_means_and_members_come_nearest_first(digits):
    digits.cluster(method="kmeans", clusters=10, space="features")
    means, members = digits.centres()
    features, assignments = digits.features(), digits.assignments()
    assert sorted(np.concatenate(members).tolist()) == list(range(1797))
    for number, (mean, rows) in enumerate(zip(means, members, strict=True)):
        assert np.allclose(mean, features[assignments == number].mean(axis=0), atol=1e-5)
        nearest, _ = exact_neighbours(features[assignments == number], mean[None], 1, digits.metric)
        assert rows[0] == np.flatnonzero(assignments == number)[nearest[0, 0]]


def test_a_style_lies_beside_the_features_and_is_not_searched(tmp_path, digit_images):
    built = Collection.build("digits", tmp_path / "c", progress=False, epochs=4, latent_dim=16, style_dim=6)
    assert built.features().shape == (1797, 10) and built.info()["dim"] == 10
    assert built.latents().shape == (1797, 16)
    assert np.array_equal(built.latents()[:, :10], built.features())
    assert np.allclose(built.encode_latents([digit_images[5]])[0], built.latents()[5], atol=1e-4)
    assert built.index.index.d == 10 and built.query(row=5, k=3).rows.shape == (3,)
    with h5py.File(tmp_path / "c" / "features.h5") as file:
        assert file["style"].shape == (1797, 6)
    originals, rebuilt = built.reconstruct(rows=[5])
    error = np.square(originals[0] / 255 - rebuilt[0]).mean()
    assert error == pytest.approx(float(built.store.reconstruction_errors()[5]), rel=1e-3)
    again = Collection.open(tmp_path / "c")
    assert again.decode(again.features()[:2]).shape == (2, 1, 8, 8)


def test_a_filter_lets_only_its_rows_be_found(digits, digit_labels):
    threes = np.flatnonzero(np.array(digit_labels) == "3")
    assert np.array_equal(digits.rows_where(["label=3"]), threes)
    hits = digits.query(row=0, k=20, where=["label=3"])
    truth, _ = exact_neighbours(digits.features()[threes], digits.features()[:1], 20, digits.metric)
    assert hits.rows.tolist() == threes[truth[0]].tolist() and set(hits.labels) == {"3"}
    few = digits.query(row=0, k=20, where=["id=digits/17?", "label!=3"])
    assert set(few.ids) == {f"digits/17{n}" for n in range(10) if digit_labels[170 + n] != "3"}


def test_a_filter_is_taken_as_it_is_written_and_else_as_a_pattern(tmp_path, digit_images):
    one, two = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    names = ["IMG [1].jpg", "IMG [2].jpg", "IMG 1.jpg", f"caf{two}.jpg"]
    labels = ["a*", "ab", "ac", ""]
    for name, image in zip(names, digit_images, strict=False):
        Image.fromarray(image).save(tmp_path / name)
    (tmp_path / "t.csv").write_text(
        "\n".join(["path,label", *map(",".join, zip(names, labels, strict=True))]), encoding="utf-8"
    )
    built = Collection.build(str(tmp_path / "t.csv"), tmp_path / "c", progress=False, epochs=1, latent_dim=4)

    def found(condition):
        return [names[row] for row in built.rows_where([condition])]

    assert found("id=IMG [1].jpg") == names[:1]
    assert found("id=IMG [12].jpg") == ["IMG 1.jpg"]  # no such name: a pattern
    assert found("id=IMG [[]?].jpg") == names[:2]
    assert found("id!=IMG [1].jpg") == names[1:]
    assert found("label=a*") == names[:1] and found("label=a?") == names[:3] and found("label=") == names[3:]
    assert found(f"id=caf{one}.jpg") == found(f"id=c*{one}*") == names[3:]
    assert built.rows_of([f"caf{one}.jpg", names[0]]) == [3, 0]
    built.cluster(method="kmeans", clusters=2, space="features")
    built.name_clusters({0: "[x]", 1: "x"})
    sizes = built.manifest.artifacts["clusters"]["figures"]["sizes"]
    assert len(found("cluster=[x]")) == sizes[0] and len(found("cluster=x")) == sizes[1]


@pytest.mark.parametrize(("condition", "message"), [("label=x", "no image has"), ("colour=3", "is not like"),
                                                    ("label", "is not like"), ("", "is not like")])  # fmt: skip
def test_a_filter_that_is_none_is_one_line(digits, condition, message):
    with pytest.raises(AesearchError, match=message):
        digits.query(row=0, where=[condition])


def test_names_of_clusters_outlive_other_clusters_and_another_encoder(tmp_path, digit_images, caplog):
    np.save(tmp_path / "x.npy", digit_images[:400])
    made = Collection.build(str(tmp_path / "x.npy"), tmp_path / "c", progress=False, epochs=3, latent_dim=8)
    again = {"method": "kmeans", "space": "features"}
    first = made.cluster(clusters=4, **again).assignments
    made.name_clusters({0: "many", 3: "few"})
    assert np.array_equal(made.cluster(clusters=4, **again).assignments, first)
    assert made.cluster_names() == ["many", "1", "2", "few"]
    made.train(made.source, TrainingOptions(epochs=3, latent_dim=8, seed=0))
    made.extract()
    made.build_index()
    made.cluster(clusters=4, **again)
    assert {"many", "few"} < set(made.cluster_names())
    caplog.clear()
    made.cluster(clusters=1, **again)
    assert made.cluster_names() == ["0"] and "no cluster is 'few' any more" in caplog.text


def test_heat_maps_have_one_scale(digits):
    found = digits.anomalies(score="reconstruction", top=3)
    rows = np.unique(np.linspace(0, digits.store.rows - 1, 100).astype(int)).tolist()
    originals, rebuilt = digits.reconstruct(rows=rows)
    errors = np.square(np.stack(originals) / np.float32(255) - rebuilt).mean(axis=1)
    assert digits.heat_scale == pytest.approx(np.quantile(errors, 0.995), rel=1e-3)
    assert Collection.open(digits.folder).heat_scale == digits.heat_scale
    assert max(errors.max() for errors in digits.error_maps(found)) > digits.heat_scale
