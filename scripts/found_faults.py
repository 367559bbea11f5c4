"""The README's picture of found faults: planted in scikit-learn's digits, found by a collection that never saw any.

    .venv/bin/python scripts/found_faults.py --save docs/pictures/faults.png

Digits are enlarged to 64 pixels and laid on a grain. The collection learns from 1,400 of them; of the others, faults
are planted in every fourth: a scratch of one pixel, a blot of 3 % of the side, a patch of another picture. The picture
shows the six that are ranked highest, where the faults were planted, and where they are found.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from measuring import print_circumstances
from numpy.typing import NDArray
from planted_faults import KINDS, plant
from scipy import ndimage
from sklearn.datasets import load_digits, load_sample_image
from sklearn.metrics import roc_auc_score

from aesearch import Collection
from aesearch.anomalies.localisation import at_size, pixel_auroc, region_overlap
from aesearch.drawing.figures import Tile, draw_sheet, heat_over, save_picture

SIDE, LEARNED, OF_EACH = 64, 1400, 2  # pixels, images; faults of each kind that are drawn


def grainy_digits(seed: int) -> NDArray[np.uint8]:
    """All digits, dark on a light grain: (1797, 64, 64) uint8."""
    draw = np.random.default_rng(seed)
    digits = ndimage.zoom(load_digits().images / 16, (1, SIDE / 8, SIDE / 8), order=1)
    grain = ndimage.gaussian_filter(draw.normal(size=digits.shape), (0, 0.7, 0.7))
    return np.clip(215 - 150 * digits + 18 * grain, 0, 255).astype(np.uint8)


def outlined(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """An image with a red line around the mask: (height, width, 3) uint8."""
    shown = np.repeat(image[..., None], 3, axis=2)
    around = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask, iterations=2)
    shown[around] = 220, 30, 60
    return shown


def main() -> None:
    """Build, find, measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", type=Path, default=Path("faults.png"))
    options = parser.parse_args()
    images = np.random.default_rng(options.seed).permutation(grainy_digits(options.seed))
    foreign = np.stack([load_sample_image("flower.jpg")[i * 64 :, i * 90 :][:64, :64].mean(axis=2) for i in range(6)])
    known, new = images[:LEARNED], images[LEARNED:]
    faulty = np.arange(len(new)) % 4 == 0
    planted = plant(new[faulty], foreign.astype(np.uint8), np.random.default_rng(options.seed))
    new[faulty] = planted.images
    masks = np.zeros(new.shape, dtype=bool)
    masks[faulty] = planted.masks
    counts = {"learned from": LEARNED, "sound": int((~faulty).sum()), "faulty": int(faulty.sum())}
    print_circumstances(**counts, seed=options.seed)
    with tempfile.TemporaryDirectory() as name:
        collection = Collection.build(known, Path(name) / "digits", effort="quick", group="none")
        source = collection.open_images(new)
        found = collection.anomalies(source, score="combined", top=len(new))
        maps = collection.heat_maps(found, source)
    scores = np.empty(len(new))
    scores[found.rows] = found.scores
    in_order = [at_size(maps[place], (SIDE, SIDE)) for place in np.argsort(found.rows)]
    measured = roc_auc_score(faulty, scores), pixel_auroc(in_order, list(masks)), region_overlap(in_order, list(masks))
    print("image AUROC {:.3f}, pixel AUROC {:.3f}, PRO {:.3f}".format(*measured))
    kind_of = dict(zip(np.flatnonzero(faulty).tolist(), planted.kinds.tolist(), strict=True))
    kinds = [kind_of.get(int(row), "") for row in found.rows]
    best = [place for kind in KINDS for place in [p for p, one in enumerate(kinds) if one == kind][:OF_EACH]]
    rows = [found.rows[place] for place in best]
    lines = [
        [Tile(new[row], ("new image",) if row == rows[0] else ()) for row in rows],
        [Tile(outlined(new[row], masks[row]), ("fault",) if row == rows[0] else ()) for row in rows],
        [
            Tile(heat_over(new[row], maps[place]), (("found",) if row == rows[0] else ("",)) + (found.reasons[place],))
            for place, row in zip(best, rows, strict=True)
        ],
    ]
    save_picture(
        draw_sheet(lines, "faults planted in digits, and where a collection that never saw any finds them"),
        options.save,
    )


if __name__ == "__main__":
    main()
