"""Peak memory of extracting ten times the images with the same batch size, each in a process of its own.

    .venv/bin/python scripts/benchmark_memory.py

The images are an .npy file of random 64x64 RGB pictures, streamed from disk: 300 MB, and 3 GB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SIDE = 64


def write_images(path: Path, rows: int) -> None:
    """Write a file of random images without holding them all."""
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, SIDE, SIDE, 3)}
    generator = np.random.default_rng(0)
    with path.open("wb") as file:  # not mapped: a child's peak starts from its parent's
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(0, rows, 1000):
            file.write(generator.integers(0, 255, (1000, SIDE, SIDE, 3), dtype=np.uint8).tobytes())


def extract(path: Path) -> None:
    """Extract, and print the process's peak memory in MiB."""
    import torch

    from aesearch.collection.extract import extract_features
    from aesearch.images.decode import Preprocessing
    from aesearch.images.sources.opening import open_source
    from aesearch.network.architectures import AutoencoderSpec, build_autoencoder
    from aesearch.network.autoencoder import Autoencoder

    torch.manual_seed(0)
    spec = AutoencoderSpec("conv", 64, (8, 16, 32, 64), Preprocessing(SIDE, SIDE, 3))
    autoencoder = Autoencoder(build_autoencoder(spec), spec)
    source = open_source(str(path))
    extract_features(source, autoencoder, path.with_suffix(".h5"), encoder_fingerprint="memory")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=25_000)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return extract(options.child)
    from measuring import print_circumstances

    print_circumstances(rows=f"{options.rows:,} and {10 * options.rows:,}", seed=0)
    peaks = []
    for rows in (options.rows, 10 * options.rows):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "images.npy"
            write_images(path, rows)
            command = [sys.executable, __file__, "--child", str(path)]
            peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(f"{rows:9,} images of {SIDE}x{SIDE} RGB: peak {peaks[-1]:,.0f} MiB", flush=True)
    print(f"ratio {peaks[1] / peaks[0]:.3f}")


if __name__ == "__main__":
    main()
