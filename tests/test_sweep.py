"""Several latent sizes compared, and the one recommended."""

import json
from pathlib import Path

import pytest
from PIL import Image

from aesearch.collection.facade import Collection
from aesearch.collection.results import Run
from aesearch.sweep import recommend


def run_of(size, mse, knn=None):
    return Run(size, 0, [], [], mse, knn, None)


def test_a_sweep_from_the_command_line(run):
    command = ["sweep", "digits", "-c", "sizes", "--latent-dims", "8,2", "--epochs", 3, "--arch", "mlp"]
    answer = json.loads(run(*command, "--json").stdout)
    assert (answer["arch"], answer["loss"], answer["epochs"]) == ("mlp", "mse", 3)
    assert [r["latent_dim"] for r in answer["runs"]] == [2, 8]
    for one in answer["runs"]:
        assert len(one["train_loss"]) == len(one["test_loss"]) == 3
        assert one["parameters"] > 10_000 and 0 < one["test_mse"] < 0.2 and 0 < one["knn_accuracy"] <= 1
    assert answer["recommended"] in (2, 8)
    assert Collection.open(f"indexes/sizes/latent-{answer['recommended']}").features().shape[0] == 1797
    for picture in ("sweep.png", "sweep-reconstructions.png"):
        assert Image.open(f"indexes/sizes/{picture}").width > 360
    again = run(*command)
    assert (
        "recommended latent size" in again.stdout and json.loads(Path("indexes/sizes/sweep.json").read_text()) == answer
    )
    run("sweep", "digits", "--latent-dims", "two", code=2)


@pytest.mark.parametrize(
    ("runs", "size", "reason"),
    [
        ([run_of(2, 0.04, 0.5), run_of(10, 0.01, 0.978), run_of(50, 0.003, 0.98)], 10, "within 0.005 of the best"),
        ([run_of(2, 0.04), run_of(4, 0.02), run_of(8, 0.019)], 4, "lowers the error by only 5%"),
        ([run_of(2, 0.04), run_of(4, 0.02), run_of(8, 0.01)], 8, "try larger ones"),
        ([run_of(16, 0.01)], 16, "try larger ones"),
    ],
)
def test_the_recommended_size_has_a_reason(runs, size, reason):
    assert recommend(runs)[0] == size and reason in recommend(runs)[1]
