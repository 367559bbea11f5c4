"""The process that it runs in: outputs that are not UTF-8, forks, and what is not installed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import requests
from PIL import Image

from aesearch.collection.facade import Collection

NAMES = ("naïve é.png", "名 😀.png", "plain.png")


@pytest.fixture(scope="module")
def named(tmp_path_factory, digit_images):
    """A collection of images with names, and a label, that few encodings know."""
    root = tmp_path_factory.mktemp("named")
    for name, image in zip(NAMES, digit_images, strict=False):
        Image.fromarray(image).save(root / name)
    (root / "x.csv").write_text("path,label\n" + "".join(f"{name},ß名😀\n" for name in NAMES), "utf-8")
    Collection.build(str(root / "x.csv"), root / "c", progress=False, epochs=1, latent_dim=4)
    return root / "c"


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_json_is_json_and_a_table_a_table_whatever_the_output_can_show(named, encoding):
    def said(*options):
        command = [sys.executable, "-m", "aesearch", "query", "--row", "2", "-c", str(named), *options]
        env = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, capture_output=True, env=env, check=True)
        return done.stdout

    hits = json.loads(said("--json"))["queries"][0]["hits"]  # of bytes, which are UTF-8 in JSON
    assert {hit["id"] for hit in hits} == set(NAMES[:2]) and {hit["label"] for hit in hits} == {"ß名😀"}
    _, head, *lines = said().decode(encoding).splitlines()
    shown = [name.encode(encoding, "backslashreplace").decode(encoding) for name in NAMES[:2]]
    assert sorted(line[head.index("id") :] for line in lines) == sorted(shown)


FORKING = """
import os, signal, sys
import numpy as np
from aesearch import Collection
c = Collection.open(sys.argv[1], progress=False)

def groups():
    from aesearch.clusters import cluster
    cluster(c.features()[:600], method="kmeans", clusters=3, space="features", metric="cosine")

def search():
    c.query_rows(range(600))

def network():
    c.decode(np.zeros((600, c.spec.latent_dim), np.float32))
    c.autoencoder.encode(np.zeros((3000, *c.spec.preprocessing.shape), np.uint8))

for work in groups, search, network:  # scikit-learn, FAISS, torch and ONNX Runtime: each has threads of its own
    work()
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        work()
        os._exit(0)
    print(work.__name__, os.waitpid(child, 0)[1], flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_that_was_forked_searches_groups_and_decodes_as_its_parent_did(digits):
    env = os.environ | {"OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-c", FORKING, str(digits.folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=True)
    assert done.stdout.split("\n") == ["groups 0", "search 0", "network 0", ""]


BLOCKED = """
import sys
from importlib.machinery import PathFinder

class Hiding(PathFinder):  # as if they were not installed
    @classmethod
    def find_spec(cls, name, *more):
        hidden = name.partition(".")[0] in ("torch", "torchvision", "safetensors", "onnx")
        return None if hidden else super().find_spec(name, *more)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
from aesearch.cli import app
app(prog_name="aesearch")
"""
WITHOUT_TORCH = [
    ["query", "IMAGE", "-k", "3"],
    ["query", *["IMAGE"] * 40, "-k", "3"],  # of so many torch encodes a batch, where there is one
    ["query", "--row", "3"],
    ["info"],
    ["export", "x.npy"],
    ["duplicates"],
    ["cluster", "--clusters", "3", "--method", "kmeans", "--space", "features"],
]
WITH_TORCH = [
    ["train", "digits"],
    ["build-index", "digits", "-c", "new"],
    ["sweep", "digits", "--latent-dims", "16,32", "-c", "sizes"],
    ["extract"],
    ["build-index", "mnist", "-c", "new"],
    ["anomalies", "digits", "--score", "reconstruction"],
    ["reconstruct", "--row", "3"],
    ["generate", "--sample", "3"],
    ["query", "IMAGE", "--device", "cuda"],
]


def test_a_collection_is_searched_without_torch_and_what_needs_it_says_so(digits, digit_images, tmp_path):
    folder = shutil.copytree(digits.folder, tmp_path / "c")
    Image.fromarray(digit_images[4]).save(tmp_path / "img.png")

    def say(arguments):
        named = [] if "-c" in arguments else ["-c", str(folder)]
        command = [sys.executable, "-c", BLOCKED, *(a.replace("IMAGE", "img.png") for a in arguments), *named]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    for arguments in WITHOUT_TORCH:
        done = say(arguments)
        assert done.returncode == 0 and done.stdout, (arguments, done.stderr)
    for arguments in WITH_TORCH:
        done = say(arguments)
        assert done.returncode == 1 and not done.stdout, arguments
        assert done.stderr.endswith("not installed here: pip install 'aesearch[train]'\n"), done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_the_page_answers_without_torch(digits, digit_images, tmp_path):
    Image.fromarray(digit_images[4]).save(tmp_path / "img.png")
    command = [sys.executable, "-c", BLOCKED, "serve", "-c", str(digits.folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split(": ", 1)[1].split("  ")[0]
            assert requests.get(address, timeout=60).ok and requests.get(f"{address}api/info", timeout=60).ok
            found = requests.post(f"{address}api/query?k=3", data=(tmp_path / "img.png").read_bytes(), timeout=60)
            assert found.json()["queries"][0]["hits"][0]["row"] == 4
            refused = requests.get(f"{address}api/reconstruct/4", timeout=60)
            assert refused.status_code == 400 and "aesearch[train]" in refused.json()["error"]
        finally:
            server.kill()
