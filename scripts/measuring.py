"""What every measuring script prints first, MNIST's arrays, and commands run as processes of their own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.manifest import installed_versions


def print_circumstances(**facts: object) -> None:
    """Print versions, machine, and what else the figures depend on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print("versions: " + ", ".join(f"{name} {version}" for name, version in installed_versions().items()))
    print(f"machine: {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads, {gpu}")
    print(", ".join(f"{name}: {value}" for name, value in facts.items()), flush=True)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load_mnist() -> dict[str, NDArray[np.uint8]]:
    """Read MNIST from AESEARCH_DATA: ``train``, ``test`` (n, 28, 28) and ``train_labels``, ``test_labels`` (n,)."""
    raw = Path(os.environ.get("AESEARCH_DATA", "data")) / "MNIST" / "raw"
    if not raw.is_dir():
        sys.exit(f"MNIST is not at {raw}: AESEARCH_DATA says where, or fetch it with: aesearch extract mnist")
    arrays = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        pixels = np.fromfile(raw / f"{stem}-images-idx3-ubyte", dtype=np.uint8)[16:]
        arrays[split] = pixels.reshape(-1, 28, 28)
        arrays[f"{split}_labels"] = np.fromfile(raw / f"{stem}-labels-idx1-ubyte", dtype=np.uint8)[8:]
    return arrays


def aesearch(*arguments: str) -> str:
    """Run a command and return its standard output."""
    command = [sys.executable, "-m", "aesearch", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
