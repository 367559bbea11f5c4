"""How long it takes from a folder of photographs to the first answered query, and what the features are worth then.

    .venv/bin/python scripts/first_answer.py steel-surface-jpeg.tar
    .venv/bin/python scripts/first_answer.py cifar10-test-jpeg.tar --efforts quick

Takes some images, drawn at random, of a tar of JPEGs, ``…/<class>/<n>.jpg``, and writes them to a folder. For each
effort whole processes are timed: `aesearch build-index`, and `aesearch query` of one of the files. With ``--busy`` two
other processes compute all the while. Then the features' accuracy is measured, beside what trains nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from measuring import aesearch, print_circumstances

BUSY = 2  # other processes
LOOP = "while True: pass"


def unpack(archive: Path, folder: Path, most: int, seed: int) -> list[Path]:
    """Write that many files to a folder, one folder a class."""
    with tarfile.open(archive) as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".jpg")), key=lambda member: member.name)
        written = []
        for number in np.sort(np.random.default_rng(seed).permutation(len(members))[:most]):
            path = folder / Path(members[number].name).parent.name / f"{number:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tar.extractfile(members[number])
            path.write_bytes(b"" if file is None else file.read())
            written.append(path)
    return written


def seconds(*arguments: str) -> float:
    """How long a command takes, as a process of its own."""
    began = time.perf_counter()
    aesearch(*arguments)
    return time.perf_counter() - began


def main() -> None:
    """Time each effort and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar", type=Path)
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--efforts", nargs="+", default=["quick", "normal"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--busy", action="store_true")
    options = parser.parse_args()
    print_circumstances(images=options.images, seed=options.seed, busy=BUSY * options.busy)
    with tempfile.TemporaryDirectory() as name, ExitStack() as others:
        files = unpack(options.tar, Path(name) / "photos", options.images, options.seed)
        for _ in range(BUSY * options.busy):
            other = others.enter_context(subprocess.Popen([sys.executable, "-c", LOOP]))
            others.callback(other.kill)
        for effort in options.efforts:
            place = ["-c", str(Path(name) / effort)]
            source = [str(Path(name) / "photos"), "--labels", "folder", "--effort", effort]
            built = seconds("build-index", *source, "--seed", str(options.seed), *place)
            asked = seconds("query", str(files[0]), *place)
            found = json.loads(aesearch("probe", *place, "--json"))
            print(
                f"{effort:10} first answer after {built + asked:6.1f} s (build {built:.1f}, query {asked:.1f}); "
                f"kNN-10 {found['knn_accuracy']:.3f}, linear probe {found['linear_accuracy']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
