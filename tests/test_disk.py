"""A disk or a quota that gets full, or no permission: one line, and what was there stays; then the command goes on."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from aesearch.collection.facade import Collection

MEGABYTES = 48
FILES = ["dac_override", "dac_read_search"]  # what lets root read and write all
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


def mount(place, options):
    """Mount a small file system in memory."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount such a file system here")


def without(capabilities, *arguments):
    """Run a command line as a root that lacks capabilities; what it said."""
    if shutil.which("setpriv") is None or os.geteuid():
        pytest.skip("needs setpriv, and to be root")
    python = [sys.executable, "-m", "aesearch", *map(str, arguments)]
    less = ",".join(f"-{capability}" for capability in capabilities)
    command = ["setpriv", "--bounding-set", less, "--inh-caps", less, *python]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def disk(tmp_path_factory, digit_images):
    """A small file system with a collection on it, and images beside it on the large one."""
    root = tmp_path_factory.mktemp("disk")
    place = root / "small"
    mount(place, f"size={MEGABYTES}m")
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


FORETOLD = {"train": 100_000, "build-index": 8_000, "map": 4_000_000}  # bytes left that are enough for a good while


@pytest.mark.parametrize("command", FORETOLD)
def test_that_there_will_be_no_room_is_said_before_the_work(run, disk, command, monkeypatch):
    monkeypatch.chdir(disk)
    fill(disk / "small", FORETOLD[command])
    before = hashes(disk / "small/c")
    said = run(*COMMANDS[command], "-c", "./small/c", code=1).stderr
    (disk / "small/ballast").unlink()
    assert "error: no room for" in said and "img/s" not in said
    assert hashes(disk / "small/c") == before  # no manifest either: nothing was begun


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
        assert "error: no room for" in said and "MB are free; make room and run the command again" in said
        now = hashes(disk / "small/c")
        assert {name: now[name] for name in KEPT} == {name: before[name] for name in KEPT}
        assert len(Collection.open(disk / "small/c").query(row=3).rows) == 10
    run(*arguments)
    assert not [p.name for p in (disk / "small/c").iterdir() if p.name.endswith(".partial")]


def test_a_quota_that_is_used_up_is_a_full_disk(digit_images, tmp_path):
    place = tmp_path / "quota"
    mount(place, "size=200m,usrquota,usrquota_block_hardlimit=12m")
    try:
        np.save(tmp_path / "x.npy", digit_images[:200])
        Collection.build(str(tmp_path / "x.npy"), place / "c", progress=False, epochs=1, latent_dim=16)
        before = hashes(place / "c")
        used = sum(path.stat().st_blocks * 512 for path in place.rglob("*"))
        with (place / "ballast").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 12 * 2**20 - used - 50_000)
        for command in (["extract"], ["map", "--method", "pca"], ["train", tmp_path / "x.npy", "--epochs", "1"]):
            done = without(["sys_resource"], *command, "-c", place / "c")  # that lets root pass its quota
            assert done.returncode == 1 and "error: no room for" in done.stderr and "Traceback" not in done.stderr
            now = hashes(place / "c")
            assert {name: now[name] for name in KEPT} == {name: before[name] for name in KEPT}
        assert len(Collection.open(place / "c").query(row=3).rows) == 10
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_what_may_not_be_read_is_listed_and_what_may_not_be_written_stays(digit_images, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(20):
        Image.fromarray(digit_images[number]).save(photos / f"{number:02}.png")
    (photos / "07.png").chmod(0)
    place = tmp_path / "c"
    build = ("build-index", photos, "-c", place, "--epochs", 1, "--latent-dim", 8)
    done = without(FILES, *build)
    assert done.returncode == 0 and "1 of 20 files gave no image" in done.stderr
    assert "07.png,cannot be read: Permission denied" in (place / "skipped.csv").read_text()
    before = hashes(place)
    place.chmod(0o555)
    for command in (("extract",), ("train", photos, "--epochs", 1)):
        done = without(FILES, *command, "-c", place)
        assert done.returncode == 1 and "error: Permission denied" in done.stderr and "Traceback" not in done.stderr
    assert hashes(place) == before
    assert without(FILES, "query", "--row", 3, "-c", place).returncode == 0
    place.chmod(0)
    done = without(FILES, "query", "--row", 3, "-c", place)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
    place.chmod(0o755)
