"""A disk that gets full: one line, and what was there stays; afterwards the same command goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from aesearch.collection import Collection

MEGABYTES = 48
KEPT = ("encoder.safetensors", "encoder.onnx", "features.h5", "index.faiss")
COMMANDS = {
    "train": ["train", "photos", "--epochs", "2", "--latent-dim", "16"],
    "extract": ["extract"],
    "build-index": ["build-index", "--index", "flat", "--metric", "l2"],
    "cluster": ["cluster", "--clusters", "3", "--method", "kmeans", "--space", "features"],
    "map": ["map", "--method", "pca"],
    "probe": ["probe"],
    "anomalies": ["anomalies", "--score", "combined"],
    "update": ["update"],
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory, digit_images):
    """A small file system with a collection on it, and images beside it on the large one."""
    root = tmp_path_factory.mktemp("disk")
    place = root / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "none", str(place)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small file system here")
    for number, image in enumerate(digit_images[:200]):
        (root / f"photos/{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / f"photos/{number % 2}/{number}.png")
    photos = str(root / "photos")
    Collection.build(photos, place / "c", labels="folder", progress=False, epochs=2, latent_dim=16)
    yield root
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def hashes(folder):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir() if not p.name.startswith(".")}


def fill(folder, leave):
    """Take all of the disk but so many bytes."""
    with (folder / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, shutil.disk_usage(folder).free - leave))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_costs_the_step_and_nothing_else(run, disk, command, digit_images, monkeypatch):
    if command == "update":
        for number, image in enumerate(digit_images[200:230]):
            Image.fromarray(image).save(disk / f"photos/0/new{number}.png")
    monkeypatch.chdir(disk)
    arguments = [*COMMANDS[command], "-c", "./small/c"]
    before = hashes(disk / "small/c")
    for leave in (0, 8_000) if command in ("build-index", "train", "extract", "map", "update") else (0,):
        fill(disk / "small", leave)
        said = run(*arguments, code=1).stderr
        (disk / "small/ballast").unlink()
        assert "error: no room for" in said and "MB are free; make room, the same command goes on" in said
        now = hashes(disk / "small/c")
        assert {name: now[name] for name in KEPT} == {name: before[name] for name in KEPT}
        assert len(Collection.open(disk / "small/c").query(row=3).rows) == 10
    run(*arguments)
    assert not [p.name for p in (disk / "small/c").iterdir() if p.name.endswith(".partial")]
