"""No network, and no file but those that the README names: every command under a tracer, with a home of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import requests
import typer
from conftest import write_labelled

from aesearch.cli import app

CALLS = "trace=%network,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2"
STRACE = ["strace", "-D", "-f", "-qq", "-y", "--seccomp-bpf", "-e", "signal=none", "-e", CALLS, "-o"]
COMMANDS = [
    ["train", "photos", "-c", "other", "--epochs", "1", "--latent-dim", "16"],
    ["extract", "-c", "other"],
    ["build-index", "photos", "--labels", "folder", "--epochs", "1", "--latent-dim", "16"],
    ["update"],
    ["query", "img.png", "--save", "query.png"],
    ["anomalies", "--heatmaps", "where", "--csv", "odd.csv", "--save", "odd.png"],
    ["duplicates", "--save", "same.png"],
    ["cluster", "--clusters", "3", "--save", "groups.png"],
    ["map"],
    ["probe"],
    ["classify", "img.png"],
    ["reconstruct", "img.png"],
    ["generate", "--sample", "5"],
    ["sweep", "photos", "-c", "sizes", "--latent-dims", "2,5", "--epochs", "1"],
    ["info"],
    ["list"],
    ["report"],
    ["export", "features.csv", "--format", "csv"],
]
MAKING = 3  # of them make the collection
RUN_ALL = """
import json, sys
from aesearch import Collection
from aesearch.cli import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as end:
        assert not end.code, arguments
"""
ASK_IN_PYTHON = """
c = Collection.open("indexes/default", progress=False)
assert len(c.query("img.png").rows) == 10 and len(c.query_images(["img.png"] * 40)) == 40
"""
LOOKING_UP = 35.0  # seconds, after which ONNX Runtime, if it is let, asks for its maker's address
CACHES = (".cache/matplotlib", ".config/matplotlib", ".cache/numba")  # of a home, as the README says; and __pycache__
DEVICES = r"/dev/(null|tty|shm/sem\.)"


@pytest.fixture
def place(tmp_path, digit_images, digit_labels):
    """A folder with images, and an empty home beside it."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-qq", "true"], check=False).returncode:
        pytest.skip("needs strace, and leave to trace")
    write_labelled(tmp_path / "work/photos", digit_images[:160], digit_labels)
    shutil.copy(tmp_path / "work/photos/0/000.png", tmp_path / "work/img.png")
    (tmp_path / "home/tmp").mkdir(parents=True)
    return tmp_path


def traced(place, name, *arguments):
    """What runs Python with those arguments in the folder, its home empty, and writes down what it asks the system."""
    home = {"HOME": str(place / "home"), "TMPDIR": str(place / "home/tmp"), "PYTHONDONTWRITEBYTECODE": "1"}
    env = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "MPL", "NUMBA_", "ORT_"))}
    command = [*STRACE, str(place / name), sys.executable, *arguments]
    return {"args": command, "cwd": place / "work", "env": env | home | {"PYTHONPATH": os.pathsep.join(sys.path)}}


def offences(place, name):
    """Lines of a trace that tell of the network, or of a file that is not to be written."""
    allowed = [place / "work", place / "home/tmp", *(place / "home" / cache for cache in CACHES)]
    found = []
    for line in (place / name).read_text(errors="replace").splitlines():
        if re.search(r"= -1 E|, O_RDONLY|/__pycache__/|mkdir", line) and "resolv.conf" not in line:
            continue
        call = re.sub(r"^\d+ +", "", line)
        if call.startswith(("open", "creat", "rename")):
            path = re.findall(r'"([^"]*)"', call)[-1]
            whole = Path(os.path.normpath(place / "work" / path))
            harmless = any(whole.is_relative_to(a) for a in allowed) or re.match(DEVICES, path)
        else:
            harmless = not re.search(r"sin_addr|sin6_addr", call) or "127.0.0.1" in call or '"::1"' in call
            harmless = harmless and "htons(53)" not in call
        if not harmless or "resolv.conf" in call:
            found.append(call)
    return found


def run_all(place, name, code, commands):
    """Run command lines in one process, traced."""
    done = subprocess.run(**traced(place, name, "-c", code, json.dumps(commands)), stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.slow
def test_no_command_uses_the_network_or_leaves_files_elsewhere(place):
    made = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert {c[0] for c in COMMANDS} | {"serve"} == set(made), "each command is to be traced here"
    run_all(place, "made", RUN_ALL, COMMANDS[:MAKING])
    began = time.monotonic()
    serve = traced(place, "served", "-m", "aesearch", "serve", "--port", "0")
    with subprocess.Popen(**serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split(": ", 1)[1].split("  ")[0]
            sent = (place / "work/img.png").read_bytes()
            assert requests.post(f"{address}api/query?k=3", data=sent, timeout=60).ok
            subprocess.run(**traced(place, "one", "-m", "aesearch", "query", "img.png"), check=True)
            run_all(place, "rest", RUN_ALL + ASK_IN_PYTHON, COMMANDS[MAKING:])  # as long as the server is watched
            time.sleep(max(0.0, LOOKING_UP - (time.monotonic() - began)))
        finally:
            server.terminate()
    assert [line for name in ("made", "served", "one", "rest") for line in offences(place, name)] == []
    kept = [str(p.relative_to(place / "home")) for p in (place / "home").rglob("*") if not p.is_dir()]
    assert [name for name in kept if not name.startswith(CACHES)] == []
