"""Kill every long command at random moments, run it again, and compare what comes of it with an undisturbed run.

    .venv/bin/python scripts/torture.py
    .venv/bin/python scripts/torture.py --kills 12 --signals 0 --images 300

A folder of scikit-learn's digits, written as PNGs. Each command is killed (SIGKILL) at a moment drawn from the time it
takes undisturbed, up to three times in a row, and run to its end; then weights, features, the index's answers,
clusters and map must be the undisturbed run's to the last bit, and nothing must be left lying about. A second part
sends SIGINT and SIGTERM and takes the time to the end of the process.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from measuring import print_circumstances
from PIL import Image
from sklearn.datasets import load_digits

from aesearch import Collection
from aesearch.network.autoencoder import load_autoencoder

COMMANDS: dict[str, list[str]] = {
    "train": ["train", "photos", "--epochs", "6", "--latent-dim", "16"],
    "extract": ["extract"],
    "build-index": ["build-index", "--index", "ivf"],
    "cluster": ["cluster", "--clusters", "10"],
    "map": ["map"],
    "overwrite": ["build-index", "photos", "--overwrite", "--epochs", "4", "--latent-dim", "12"],
    "update": ["update"],
}
IN_A_ROW = 3
LONGEST = 600  # seconds that a command may take
PYTHON_STARTS = b"Failed to import the site module"  # it exits with 1 if interrupted there, before any code of ours


def write(folder: Path, start: int, stop: int) -> None:
    """Write digits as PNGs, as old as they can be told from any written later."""
    folder.mkdir(exist_ok=True)
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    for number in range(start, stop):
        Image.fromarray(images[number % len(images)]).save(folder / f"{number:05d}.png")


def change(folder: Path, images: int) -> None:
    """Add a tenth, change and remove some."""
    write(folder, images, images + images // 10)
    for number in range(0, images, 40):
        (folder / f"{number:05d}.png").unlink()
        shutil.copyfile(folder / f"{number + 2:05d}.png", folder / f"{number + 1:05d}.png")


def start(root: Path, command: str) -> subprocess.Popen[bytes]:
    """Begin a command on the collection ``c`` of a folder."""
    arguments = [sys.executable, "-m", "aesearch", *COMMANDS[command], "-c", "./c"]
    return subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(root: Path, command: str) -> float:
    """Run a command to its end; seconds it took."""
    began = time.perf_counter()
    process = start(root, command)
    said, _ = process.communicate(timeout=LONGEST)
    if process.returncode:
        sys.exit(f"{command} failed:\n{said.decode()}")
    return time.perf_counter() - began


def stop(root: Path, command: str, after: float, number: int) -> tuple[int | None, float]:
    """Send a signal after some seconds: exit code, seconds from there to the end; None if it was not at work then."""
    process = start(root, command)
    try:
        process.communicate(timeout=after)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        began = time.perf_counter()
        said, _ = process.communicate(timeout=LONGEST)
        if number != signal.SIGINT or PYTHON_STARTS not in said:
            return process.returncode, time.perf_counter() - began
    return None, 0


def outcome(root: Path, command: str) -> dict[str, Any]:
    """What a command has made."""
    folder = root / "c"
    weights = load_autoencoder(folder / "encoder.safetensors")[0].state_dict()
    if command == "train":
        return {name: tensor.numpy() for name, tensor in weights.items()}
    collection = Collection.open(folder, progress=False)
    if command == "cluster":
        return {"clusters": collection.assignments()}
    made: dict[str, Any] = {"features": collection.features(), "errors": collection.store.reconstruction_errors()}
    made |= {name: np.array(collection.store.texts(name)) for name in ("id", "label", "content_hash")}
    if command in ("build-index", "overwrite", "update"):
        made["rows"], made["distances"] = collection.index.search(collection.features(), 10)
    if command == "map":
        with h5py.File(folder / "map-umap.h5") as file:
            made["map"] = file["coordinates"][:]
    if command == "overwrite":
        made |= {name: tensor.numpy() for name, tensor in weights.items()}
    return made


def restore(root: Path, state: Path) -> None:
    """Put the collection back as it was."""
    shutil.rmtree(root / "c", ignore_errors=True)
    if state.exists():
        shutil.copytree(state, root / "c")


def wrong(root: Path, command: str, wanted: dict[str, Any]) -> list[str]:
    """What is not the same to the last bit, and files that a finished command has left half-done."""
    made = outcome(root, command)
    differing = [name for name, values in wanted.items() if not np.array_equal(made[name], values)]
    return differing + [p.name for p in (root / "c").iterdir() if p.name.endswith(".partial") or p.name == ".next"]


def torture(root: Path, command: str, kills: int, signals: int, generator: np.random.Generator) -> bool:
    """Disturb one command; whether all went well."""
    state = root / f"before-{command}"
    if (root / "c").exists():
        shutil.copytree(root / "c", state)
    seconds = finish(root, command)
    wanted = outcome(root, command)
    shutil.copytree(root / "c", root / "after")
    killed, failures = 0, []
    while killed < kills:
        restore(root, state)
        for _ in range(generator.integers(1, IN_A_ROW + 1)):
            code, _ = stop(root, command, generator.uniform(0, seconds), signal.SIGKILL)
            killed += code == -signal.SIGKILL
        finish(root, command)
        failures += wrong(root, command, wanted)
    slowest, codes = 0.0, Counter[int]()
    for number in [signal.SIGINT, signal.SIGTERM] * (signals // 2):
        restore(root, state)
        code, took = stop(root, command, generator.uniform(0, seconds), number)
        if code is not None:
            slowest = max(slowest, took)
            codes[128 - code if code < 0 else code] += 1  # killed before Python listened: as a shell says it
    if signals:
        finish(root, command)
        failures += wrong(root, command, wanted)
    said = ", ".join(f"{code}: {n}" for code, n in sorted(codes.items()))
    print(
        f"{command:12}{seconds:6.1f} s undisturbed, {killed:4} kills, {len(failures)} differences {failures or ''}"
        + (f"; signals: exit codes {said}, slowest end {slowest:.2f} s" if codes else ""),
        flush=True,
    )
    restore(root, root / "after")
    shutil.rmtree(root / "after")
    return not failures and not set(codes) - {0, 130, 143}  # 0: it was just done


def main() -> None:
    """Disturb each command in turn; exit 1 if anything came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all commands together, at least")
    parser.add_argument("--signals", type=int, default=60, help="of all commands together")
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--images", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print_circumstances(kills=options.kills, signals=options.signals, images=options.images, seed=options.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has background jobs ignore it, and theirs
    generator = np.random.default_rng(options.seed)
    well = True
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        write(root / "photos", 0, options.images)
        for command in COMMANDS:
            if command == "update":
                change(root / "photos", options.images)
            if command not in options.commands:
                finish(root, command)
                continue
            kills, signals = (-(-n // len(options.commands)) for n in (options.kills, options.signals))
            well &= torture(root, command, kills, signals, generator)
    sys.exit(not well)


if __name__ == "__main__":
    main()
