"""Set up and try aesearch: `python3 scripts/quickstart.py` on a bare machine with Python 3.11 or newer.

Installs what is needed into .venv, builds a collection of scikit-learn's handwritten digits, writes one of
them to img.png, searches for it, lists anomalies, and leaves pictures in results/. Run again, it uses what is
there and takes seconds.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from environment import ROOT, prepare

IMAGE, RESULTS = Path("img.png"), Path("results")

WRITE_IMAGE = """
import sys
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
pixels = np.rint(load_digits().images[4] * (255 / 16)).astype(np.uint8)
Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST).save(sys.argv[1])
"""


def main() -> None:
    """Do it all, and say where the pictures are."""
    python = prepare(ROOT / ".venv", "train")
    RESULTS.mkdir(exist_ok=True)
    steps = [
        ["build-index", "digits"],
        ["query", str(IMAGE), "-k", "10", "--save", str(RESULTS / "query.png")],
        ["anomalies", "--top", "12", "--save", str(RESULTS / "anomalies.png")],
        ["cluster", "--clusters", "10", "--save", str(RESULTS / "clusters.png")],
        ["map"],
    ]
    for step in steps:
        if step[0] == "query":
            subprocess.run([python, "-c", WRITE_IMAGE, str(IMAGE)], check=True, cwd=ROOT)
        print(f"\n$ aesearch {' '.join(step)}", flush=True)
        subprocess.run([python, "-m", "aesearch", *step], check=True, cwd=ROOT)
    print(
        "\nPictures to look at: results/query.png, results/anomalies.png, results/clusters.png,"
        "\nindexes/default/history.png, indexes/default/map-umap.png, and the page indexes/default/map-umap.html."
        "\nAll of it in the browser: .venv/bin/aesearch serve --open"
        "\nFrom now on: .venv/bin/aesearch --help"
    )


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
