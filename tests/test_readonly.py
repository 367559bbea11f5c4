"""What cannot be written to: a collection, a home, the libraries; each mounted so that root may not either."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_disk import hashes


def run_with(read_only, commands, place, **more):
    """Run command lines, one after the other, where those folders can only be read; what each has said."""
    if (
        sys.platform != "linux"
        or subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("cannot mount read-only here")
    said = place / "said"
    said.mkdir()
    script = ["set -e"]
    for folder in map(shlex.quote, map(str, read_only)):
        script += [f"mount --bind {folder} {folder}", f"mount -o remount,ro,bind {folder}", f"! touch {folder}/x"]
    for number, command in enumerate(commands):
        line = shlex.join([sys.executable, "-m", "aesearch", *command])
        script.append(f"rc=0; {line} >{said}/{number}.out 2>{said}/{number}.err || rc=$?; echo $rc >{said}/{number}.rc")
    (place / "out").mkdir()
    temporary = place / "temporary"
    temporary.mkdir()
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "TMPDIR": str(temporary)} | more
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", "\n".join(script)], cwd=place / "out", env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    parts = [
        [(said / f"{number}.{end}").read_text() for end in ("rc", "out", "err")] for number in range(len(commands))
    ]
    return [(int(rc), out, err) for rc, out, err in parts]


ANSWERED = [
    ["query", "--row", "3"],
    ["info"],
    ["duplicates"],
    ["anomalies", "--top", "3"],
    ["cluster", "--clusters", "3", "--method", "kmeans", "--space", "features"],
    ["probe"],
    ["export", "x.npy"],
]
REFUSED = [["cluster", "--name", "0=x"], ["extract"], ["build-index", "--index", "hnsw"]]


def test_of_a_collection_that_cannot_be_written_to_all_is_worked_out_and_nothing_kept(digits, tmp_path):
    folder = shutil.copytree(digits.folder, tmp_path / "c")
    for derived in (*folder.glob("clusters*"), *folder.glob("probe*"), *folder.glob("combined*")):
        derived.unlink()
    before = hashes(folder)
    commands = [
        [*c, "-c", str(folder)] for c in (*ANSWERED, ["map", "--method", "pca", "--json"], ["report"], *REFUSED)
    ]
    said = run_with([folder], commands, tmp_path)
    answered, (mapped, reported), refused = said[: len(ANSWERED)], said[len(ANSWERED) : -3], said[-3:]
    for (code, out, err), (command, *_) in zip(answered, ANSWERED, strict=True):
        assert code == 0 and out and "Traceback" not in err, (command, err)
        aside = command in ("anomalies", "cluster", "probe")
        assert err.count("new results are not saved there") == aside, (command, err)
    assert mapped[0] == reported[0] == 0
    page = Path(json.loads(mapped[1])["page"])
    assert page.is_relative_to(tmp_path / "temporary") and "<html" in page.read_text()
    assert "the report goes to the current folder" in reported[2] and (tmp_path / "out/report.html").is_file()
    for code, out, err in refused:
        assert code == 1 and not out and err.splitlines()[-1].startswith("error: Read-only file system"), err
    assert hashes(folder) == before and [p.name for p in (tmp_path / "temporary").iterdir()] == [page.parent.name]


@pytest.mark.slow
def test_umap_needs_no_folder_that_lasts(digits, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    packages = [Path(importlib.util.find_spec(name).origin).parent for name in ("umap", "pynndescent")]
    folder = shutil.copytree(digits.folder, tmp_path / "c")
    command = ["map", "-c", str(folder)]
    ((code, out, err),) = run_with([home, *packages], [command], tmp_path, HOME=str(home), NUMBA_CACHE_DIR="")
    assert code == 0 and "map-umap.html" in out and "Traceback" not in err and "cannot" not in err, err
    assert not list((tmp_path / "temporary").iterdir())
