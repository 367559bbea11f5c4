"""The process that it runs in: outputs that are not UTF-8, and forks."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from aesearch.collection import Collection

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
