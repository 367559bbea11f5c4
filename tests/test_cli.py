"""The whole pipeline through the command line: outputs, JSON, pictures, one-line errors."""

import csv
import json
import shlex
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import BAD, GOOD, gradient
from PIL import Image

from aesearch.cli import app
from aesearch.cli.console import printable
from aesearch.collection.facade import Collection
from aesearch.files.naming import folder_of
from aesearch.images.sources.opening import DATASETS

COMMANDS = sorted(c.name or c.callback.__name__ for c in app.registered_commands)


@pytest.fixture
def photos(tmp_path, mixed_folder):
    """The folder of every kind of file, twice, as two classes."""
    shutil.copytree(mixed_folder, tmp_path / "photos/first", symlinks=True)
    shutil.copytree(mixed_folder, tmp_path / "photos/second", symlinks=True)
    return tmp_path / "photos"


def test_from_a_folder_to_every_answer(run, photos):
    built = run("build-index", photos, "-c", "mine", "--labels", "folder", "--epochs", 5)
    assert f"{2 * len(GOOD)} images of" in built.stdout and "recall@10" in built.stdout
    assert f"{2 * len(BAD)} of {2 * len(GOOD + tuple(BAD))} files gave no image" in built.stderr
    again = run("build-index", photos, "-c", "mine")
    assert again.stdout == built.stdout and "training" not in again.stderr

    answer = json.loads(run("query", photos / "first/grey.jpg", "-c", "mine", "-k", 4, "--json").stdout)
    assert (answer["collection"], answer["metric"], answer["k"]) == ("indexes/mine", "cosine", 4)
    hits = answer["queries"][0]["hits"]
    assert [h["rank"] for h in hits] == [1, 2, 3, 4]
    assert {h["id"] for h in hits[:2]} == {"first/grey.jpg", "second/grey.jpg"}
    assert set(hits[0]) == {"rank", "row", "id", "label", "distance"}
    assert {h["label"] for h in hits[:2]} == {"first", "second"}

    found = json.loads(
        run(
            "anomalies",
            "-c",
            "mine",
            "--top",
            3,
            "--csv",
            "odd.csv",
            "--heatmaps",
            "heat",
            "--save",
            "odd.png",
            "--json",
        ).stdout
    )
    assert {"collection", "score", "scored", "threshold", "false_alarms", "auroc", "anomalies"} == set(found)
    assert found["score"] == "combined" and found["scored"] == 2 * len(GOOD) and found["auroc"] is None
    with Path("odd.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["id"] for row in listed] == [a["id"] for a in found["anomalies"]]
    assert all(0 <= float(side) <= 1 for row in listed for box in row["boxes"].split("; ") for side in box.split())
    assert [p.name[:5] for p in sorted(Path("heat").iterdir())] == ["0001-", "0002-", "0003-"]
    assert json.loads(run("anomalies", "-c", "mine", "--score", "combined", "--json").stdout)["score"] == "combined"
    assert Image.open("odd.png").width > 300

    groups = json.loads(run("cluster", "-c", "mine", "--clusters", 3, "--save", "groups.png", "--json").stdout)
    figures = {"silhouette", "stability", "unclear", "against_labels"}
    assert set(groups) == {"method", "space", "clusters", "names", "sizes", "noise", *figures}
    run("cluster", "-c", "mine", "--name", "1=round ones")
    named = json.loads(run("cluster", "-c", "mine", "--name", "0=", "--name", "2=long ones", "--json").stdout)
    assert named["names"] == ["0", "round ones", "long ones"]
    made, among = Collection.open("indexes/mine"), ["query", "--row", 1, "-k", 99, "-c", "mine", "--json", "--where"]
    for condition, kept in (("cluster=round*", [1]), ("cluster!=2", [0, 1]), ("cluster=0", [0])):
        hits = json.loads(run(*among, condition).stdout)["queries"][0]["hits"]
        assert {hit["row"] for hit in hits} == set(np.flatnonzero(np.isin(made.assignments(), kept)).tolist()) - {1}
    assert "another has it" in run("cluster", "-c", "mine", "--name", "0=long ones", code=1).stderr
    assert "0 to 2" in run("cluster", "-c", "mine", "--name", "3=x", code=1).stderr
    assert groups["clusters"] == 3 and sum(groups["sizes"]) == 2 * len(GOOD)
    assert set(groups["against_labels"]) == {"accuracy", "nmi", "ari"}

    assigned = json.loads(run("cluster", photos / "first/grey.jpg", "-c", "mine", "--json").stdout)
    assert assigned["assignments"][0]["cluster"] in (0, 1, 2) and 0 < assigned["assignments"][0]["share"] <= 1
    assert str(photos / "first/grey.jpg") in run("cluster", photos / "first/grey.jpg", "-c", "mine").stdout

    drawn = json.loads(run("map", "-c", "mine", "--method", "pca", "--json").stdout)
    page = Path(drawn["page"]).read_text(encoding="utf-8")
    assert "grey.jpg" in page and "unicode-ß-名.png" in page
    with h5py.File(drawn["coordinates"]) as file:
        assert file["coordinates"].shape == (2 * len(GOOD), 2)

    probed = json.loads(run("probe", "-c", "mine", "--json").stdout)
    contract = {"dim", "train_rows", "test_rows", "linear_accuracy", "knn_accuracy", "per_class", "suspicious"}
    assert contract | {"doubts_withheld", "free"} == set(probed)
    assert "patches" in probed["free"] and "features" in probed["free"]
    assert set(probed["per_class"]) == {"first", "second"}
    labelled = json.loads(run("classify", photos / "first/grey.jpg", "-c", "mine", "--json").stdout)
    assert labelled["images"][0]["label"] in ("first", "second") and 0 < labelled["images"][0]["probability"] <= 1

    info = json.loads(run("info", "-c", "mine", "--json").stdout)
    assert {"collection", "source", "rows", "dim", "arch", "index", "artifacts"} <= set(info)
    assert info["index"]["recall_at_10"] == 1.0 and info["index"]["metric"] == "cosine"
    made = {"encoder", "features", "index", "clusters", "combined", "thumbnails", "map-pca", "probe"}
    assert made == set(info["artifacts"])


def test_a_bare_build_index_takes_the_digits_then_what_there_is(run):
    quick = ("--epochs", 1, "--latent-dim", 4)
    first = run("build-index", *quick)
    assert "1,797 images of digits in indexes/default" in first.stdout
    assert "aesearch build-index FOLDER -c NAME" in first.stderr
    again = run("build-index")
    assert again.stdout == first.stdout and "FOLDER" not in again.stderr
    np.save("x.npy", np.random.default_rng(0).integers(0, 256, (30, 8, 8), dtype=np.uint8))
    run("train", "x.npy", "-c", "other", *quick)
    assert "30 images of" in run("build-index", "-c", "other").stdout
    said = run("train", "x.npy", "-c", "untrained", "--effort", "quick").stdout
    assert said.startswith("nothing was trained; reconstruction error 0.")
    more = run("train", "--resume", "-c", "other", "--effort", "0.01")  # minutes; the one epoch is counted no more
    assert "trained in" in more.stdout and "minutes are" in more.stderr


def test_the_steps_one_by_one(run):
    out = run(
        "train",
        "digits",
        "--arch",
        "conv",
        "--epochs",
        3,
        "--latent-dim",
        6,
        "--loss",
        "bce",
        "--invariance",
        "none",
        "--widths",
        "4,8",
    )
    assert "trained in" in out.stdout and "8x8 grey" in out.stderr
    assert len(Path("indexes/default/history.csv").read_text().splitlines()) == 4
    assert Image.open("indexes/default/history.png").width > 300
    assert "1,797 rows" in run("extract").stdout
    run("build-index", "--index", "hnsw", "--metric", "l2")
    table = run("query", "--row", 3, "--id", "digits/4", "-k", 2, "--save", "sheet.png").stdout.splitlines()
    assert table[0] == "digits/3" and table[1].split() == ["rank", "l2", "row", "label", "id"] and len(table) == 8
    sheet = Image.open("sheet.png")
    assert sheet.height > 250
    more = run("train", "--resume", "--epochs", 5)
    assert len(Path("indexes/default/history.csv").read_text().splitlines()) == 6 and "trained in" in more.stdout
    assert "another encoder" in run("query", "--row", 3, code=1).stderr


def test_normal_labels_give_an_auroc(run, digits):
    out = run("anomalies", "-c", digits.folder, "--normal-label", "0", "--top", 2, "--json")
    assert 0 < json.loads(out.stdout)["auroc"] < 1
    text = run("anomalies", "-c", digits.folder, "--normal-label", "0", "--top", 2).stdout.splitlines()
    assert text[0].startswith("AUROC") and len(text) == 4


def test_new_images_are_scored(run, digits, mixed_folder):
    out = run("anomalies", mixed_folder, "-c", digits.folder, "--top", 2, "--json", "--save", "new.png")
    assert json.loads(out.stdout)["scored"] == len(GOOD) and f"{len(BAD)} files gave no image" in out.stderr


@pytest.mark.parametrize("format", ["npy", "csv", "parquet", "tensorboard"])
def test_exports_hold_the_features(run, digits, format):
    run("export", f"out.{format}", "-c", digits.folder, *(["--format", format] if format == "tensorboard" else []))
    expected = digits.features()
    if format == "npy":
        assert np.array_equal(np.load("out.npy"), expected)
    elif format == "csv":
        with Path("out.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert rows[5]["id"] == "digits/5" and rows[5]["label"] == "5"
        assert np.allclose([[float(r[f"f{i}"]) for i in range(12)] for r in rows], expected)
    elif format == "parquet":
        table = pytest.importorskip("pyarrow.parquet").read_table("out.parquet")
        assert table.num_rows == 1797 and np.allclose(table["f3"].to_numpy(), expected[:, 3])
    else:
        assert np.allclose(np.loadtxt("out.tensorboard/tensors.tsv", delimiter="\t"), expected, atol=1e-4)
        assert len(Path("out.tensorboard/metadata.tsv").read_text().splitlines()) == 1798


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["out.csv", "--format", "npy"], "ends in .csv, and --format says npy"),
        (["out.npy", "--format", "tensorboard"], "ends in .npy, and --format says tensorboard"),
        (["out.xls"], "end its name in"),
        (["out.parqet"], "did you mean 'parquet'?"),
        (["."], "end its name in"),
    ],
)
def test_an_ending_that_says_another_format_is_one_line(run, digits, arguments, message):
    assert message in run("export", *arguments, "-c", digits.folder, code=1).stderr
    assert not list(Path().glob("out.*"))


def test_without_an_ending_it_is_an_array(run, digits):
    run("export", "features", "-c", digits.folder)
    assert np.load("features").shape == digits.features().shape
    run("export", "of-digits.txt", "-c", digits.folder, "--format", "csv")
    assert Path("of-digits.txt").read_text().startswith("id,label,")


def test_collections_are_listed_by_what_they_are_asked_for_by(run, digits, tmp_path):
    assert "no collection in indexes" in run("list").stderr
    for name in ("b", "a b", "sizes/latent-16"):
        shutil.copytree(digits.folder, tmp_path / "indexes" / name)
    (tmp_path / "indexes/broken").mkdir()
    (tmp_path / "indexes/broken/collection.json").write_text("{")
    found = json.loads(run("list", "--json").stdout)["collections"]
    assert [one["name"] for one in found] == ["a b", "b", "broken", "indexes/sizes/latent-16"]
    assert found[1] | {"changed": ""} == {
        "name": "b", "source": "digits", "rows": 1797, "dim": digits.store.dim, "changed": "", "wrong": None,
    }  # fmt: skip
    assert "damaged" in found[2]["wrong"] and found[1]["changed"].startswith("20")
    table = run("list").stdout.splitlines()
    assert table[0].split() == ["name", "images", "dim", "changed", "source"] and len(table) == 5
    for one in found[:2] + found[3:]:
        assert json.loads(run("info", "-c", one["name"], "--json").stdout)["rows"] == 1797


@pytest.mark.parametrize("name", ["photos", "two words", "./here", "deeper/place", "indexes/photos"])
def test_what_a_message_says_to_run_names_the_collection_that_was_given(run, digits, tmp_path, name):
    folder = folder_of(name)
    shutil.copytree(digits.folder, tmp_path / folder)
    (folder / "probe.h5").unlink(missing_ok=True)
    line = run("classify", "x.png", "-c", name, code=1).stderr.strip()
    told = shlex.split(line.partition(": run aesearch ")[2])
    assert told[:2] == ["probe", "-c"] and folder_of(told[2]) == folder
    run("query", "--row", 1, "-c", told[2])


def test_the_usual_collection_needs_no_name(run, digits, tmp_path, monkeypatch):
    shutil.copytree(digits.folder, tmp_path / "indexes/default", ignore=shutil.ignore_patterns("clusters*"))
    assert run("query", "--row", 1, "--where", "cluster=0", code=1).stderr.endswith(": run aesearch cluster\n")
    monkeypatch.setenv("AESEARCH_COLLECTION", "other")
    assert "run aesearch cluster -c default" in run(
        "query", "--row", 1, "--where", "cluster=0", "-c", "default", code=1
    ).stderr  # fmt: skip


def test_a_collection_that_is_not_there_names_those_that_are(run, digits, tmp_path):
    for name in ("mine", "yours"):
        shutil.copytree(digits.folder, tmp_path / "indexes" / name)
    for command in (["query", "x.png"], ["info"], ["anomalies"], ["serve"]):
        assert "no collection at indexes/default, there is mine, yours" in run(*command, code=1).stderr
    assert "did you mean 'mine'?" in run("info", "-c", "mien", code=1).stderr


def test_the_collection_comes_from_the_environment(run, digits, monkeypatch):
    monkeypatch.setenv("AESEARCH_COLLECTION", str(digits.folder))
    assert json.loads(run("info", "--json").stdout)["rows"] == 1797


def test_data_dir_comes_from_the_environment_or_the_option(run, monkeypatch, tmp_path):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    failed = run("train", "usps:test", "--data-dir", tmp_path / "nothing", code=1)
    assert "cannot get usps" in failed.stderr and "--data-dir" in failed.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_enough_and_ends_with_an_example(run, command):
    text = run(command, "--help").stdout
    assert f"Example: aesearch {command}" in " ".join(text.split())


def test_defaults_shown_are_the_defaults_used():
    from aesearch.index.options import IndexOptions
    from aesearch.network.architectures import ARCHITECTURES
    from aesearch.network.options import POOLED, TrainingOptions

    training, recipe, index = TrainingOptions(), TrainingOptions().recipe(1000), IndexOptions()
    help_text = {o: text for o, text in _shown_defaults("build-index")}
    assert help_text["--arch"] == training.arch and help_text["--loss"] == recipe.loss
    assert training.invariance is None and help_text["--invariance"] == "chosen by the images"
    assert help_text["--optimizer"].split(",")[0] == recipe.optimizer
    assert help_text["--output"] == f"sigmoid; {ARCHITECTURES[training.arch].output} for pooled"
    assert float(help_text["--learning-rate"]) == recipe.learning_rate
    assert int(help_text["--seed"]) == training.seed
    assert int(help_text["--epochs"].split(";")[0]) == POOLED["pictures"][0] == recipe.epochs
    assert (help_text["--index"], help_text["--metric"]) == (index.kind, index.metric)
    assert float(help_text["--min-recall"]) == index.min_recall


def _shown_defaults(command):
    import typer

    group = typer.main.get_command(app)
    for parameter in group.commands[command].params:  # type: ignore[attr-defined]
        if isinstance(getattr(parameter, "show_default", None), str):
            yield parameter.opts[0], parameter.show_default


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info"], "no collection at indexes/default"),
        (["query", "x.png"], "no collection at indexes/default"),
        (["query", "--row", "1"], "no collection at"),
        (["cluster"], "no collection at"),
        (["build-index", "-c", "mine"], "no collection at"),
        (["build-index", "nowhere"], "no source 'nowhere'"),
        (["build-index", "empty"], "no image in"),
        (["build-index", "texts"], "no usable image in"),
        (["build-index", "digits", "--device", "cuda:77"], "not available here"),
        (["build-index", "digits", "--arch", "resnet"], "no architecture 'resnet'"),
        (["build-index", "digits", "--metric", "l7"], "metric 'l7'"),
        (["build-index", "digits", "--labels", "colour"], "labels 'colour'"),
        (["build-index", "digits", "--image-size", "big"], "image size 'big'"),
        (["train", "digits", "--loss", "l1"], "loss 'l1'"),
        (["train", "--resume"], "no training to resume"),
        (["info", "-c", "broken"], "damaged"),
        (["export", "x.npy"], "no collection at"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_line(run, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("hello")
    (tmp_path / "indexes/broken").mkdir(parents=True)
    (tmp_path / "indexes/broken/collection.json").write_text("{")
    assert message in run(*arguments, code=1).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["query", "--save", "sheet.gif", "--row", "1"], "end its name in"),
        (["query", "nothing.png"], "nothing.png: cannot be read"),
        (["query", "--id", "digits/x"], "did you mean"),
        (["query", "--row", "9999"], "no row 9999"),
        (["cluster", "--method", "magic"], "magic"),
        (["cluster", "--clusters", "99999"], "99999 clusters"),
        (["map", "--method", "lle"], "lle"),
        (["anomalies", "--normal-label", "x"], "no image has the label 'x'"),
        (["export", "x", "--format", "xml"], "xml"),
        (["build-index", "digits", "--index", "what"], "no FAISS factory string"),
        (["build-index", "digits", "--latent-dim", "3"], "was trained with latent_dim 16"),
        (["classify", "x.png"], "run aesearch probe"),
    ],
)
def test_wrong_questions_to_a_collection_are_one_line(run, digits, tmp_path, arguments, message):
    shutil.copytree(digits.folder, tmp_path / "copy")
    (tmp_path / "copy/probe.h5").unlink(missing_ok=True)
    assert message in run(*arguments, "-c", tmp_path / "copy", code=1).stderr


def test_an_image_that_cannot_be_read_leaves_the_others_their_answers(run, labelled, tmp_path):
    shutil.copytree(labelled, tmp_path / "copy")
    gradient(8, 8, 1).save("good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    given, at = ["gone.png", "good.png", "bad.png"], ["-c", tmp_path / "copy", "--json"]
    run("probe", *at)
    for command, name in (("query", "queries"), ("classify", "images"), ("cluster", "assignments"),
                          ("reconstruct", "reconstructions")):  # fmt: skip
        done = run(command, *given, *at)
        document = json.loads(done.stdout)
        assert [one.get("query") or one["image"] for one in document[name]] == ["good.png"]
        assert [one["image"] for one in document["failed"]] == ["gone.png", "bad.png"]
        assert document["failed"][0]["reason"] == "cannot be read: No such file or directory"
        assert "warning: bad.png: " in done.stderr
        assert json.loads(run(command, "good.png", *at).stdout) == document | {"failed": []}
        refused = run(command, "gone.png", "bad.png", *at, code=1).stderr
        assert "none of 2 images can be read: gone.png: cannot be read" in refused
    run("query", *given, "--save", "sheet.png", *at)
    both = json.loads(run("query", "gone.png", "--row", 3, *at).stdout)
    assert len(both["queries"]) == len(both["failed"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [["query"], ["train"], ["query", "--row", "1", "-k", "0"], ["cluster", "--clusters", "many"], ["nonsense"],
     ["build-index", "digits", "--widths", "a,b"], ["map", "--dims", "5"], ["info", "-c", " "]],
)  # fmt: skip
def test_wrong_usage_exits_two(run, arguments):
    assert not run(*arguments, code=2).stdout


def test_an_unwritable_folder_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert "file" in run("train", "digits", "--epochs", 1, "-c", "file/inside", code=1).stderr


def test_names_cannot_drive_the_terminal():
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"


def test_hostile_names_are_escaped_on_the_page(run, tmp_path):
    (tmp_path / "p").mkdir()
    for i, name in enumerate(["<img src=x onerror=alert(1)>.png", "b&c.png", "d.png", "e.png", "f.png"]):
        gradient(20, 20 + i).save(tmp_path / "p" / name, "PNG")
    run("build-index", "p", "--epochs", 1)
    run("map", "--method", "pca")
    page = (tmp_path / "indexes/default/map-pca.html").read_text()
    assert "<img src=x" not in page and "onerror=alert" in page


def test_the_list_of_datasets_names_torchvision_classes():
    torchvision = pytest.importorskip("torchvision")
    assert all(hasattr(torchvision.datasets, cls) for cls, _, _ in DATASETS.values())
