"""How quickly aesearch trains on an idle machine, and beside as many busy loops as there are cores.

    .venv/bin/python scripts/benchmark_busy.py --rounds 3

Each training is a process of its own; idle and busy in turn, medians over the rounds, the ratio taken round by round.
First as aesearch sets the threads' waiting, then as OpenMP does by itself: in a busy loop.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

import numpy as np
from measuring import print_circumstances

from aesearch.images.worker_processes import cores

TRAIN = """
import sys
import numpy as np
from aesearch.network.architectures import AutoencoderSpec
from aesearch.images.batches import LoadedImages
from aesearch.images.decode import Preprocessing
from aesearch.network.options import TrainingOptions
from aesearch.network.training import train_autoencoder
from sklearn.datasets import load_digits
digits = np.rint(load_digits().images * (255 / 16)).astype(np.uint8).repeat(4, axis=1).repeat(4, axis=2)
images = np.ascontiguousarray(digits[np.arange(int(sys.argv[1])) % len(digits)][:, None, 2:-2, 2:-2])
options = TrainingOptions(epochs=1, invariance="strong", batch_size=128)
training = train_autoencoder(LoadedImages(images), images[:128], options.spec(Preprocessing(28, 28, 1)), options)
print(training.figures["images_per_second"])
"""
LOOP = "while True: pass"
WAYS = {"as aesearch sets it": {}, "as OpenMP does by itself": {"GOMP_SPINCOUNT": "300000"}}


def speed(images: int, loops: int, more: dict[str, str]) -> float:
    """Images a second of one training beside so many busy loops."""
    busy = [subprocess.Popen([sys.executable, "-c", LOOP]) for _ in range(loops)]
    try:
        env = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
        command = [sys.executable, "-c", TRAIN, str(images)]
        done = subprocess.run(command, env=env | more, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print_circumstances(images=options.images, rounds=options.rounds, load=os.getloadavg())
    for way, more in WAYS.items():
        pairs = np.array([[speed(options.images, n, more) for n in (0, cores())] for _ in range(options.rounds)])
        idle, busy = np.median(pairs, axis=0)
        ratio = np.median(pairs[:, 1] / pairs[:, 0])
        print(f"{way}: idle {idle:,.0f} images/s, beside {cores()} loops {busy:,.0f}, ratio {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
