"""Decode mutated image files of every format Pillow writes: each is taken or refused, in bounded time.

    .venv/bin/python scripts/fuzz.py
    .venv/bin/python scripts/fuzz.py --files 2000 --seed 1

Files of 32x32 pixels in every mode a format takes are cut off, and get bytes flipped, replaced, doubled and swapped,
most of them near the start where the headers are. Each goes through `decode` and `describe`; anything but pixels of
the right shape or `UnreadableImageError` is a defect, and ends the script with the file's seed.
"""

from __future__ import annotations

import argparse
import io
import resource
import time
import warnings
from collections import Counter

import numpy as np
from measuring import print_circumstances
from PIL import Image

from aesearch.images.decode import Preprocessing, UnreadableImageError, decode, describe

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
SEEN = (Preprocessing(28, 28, 1), Preprocessing(24, 40, 3))


def originals() -> dict[str, bytes]:
    """By format and mode, the files that Pillow can write."""
    Image.init()
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).resize((32, 32))
    files = {}
    for name in sorted(set(Image.SAVE) - {"PDF", "EPS", "XBM", "PALM"}):
        for mode in MODES:
            buffer = io.BytesIO()
            try:
                image = picture.convert("L").convert(mode) if mode in ("I", "I;16", "F") else picture.convert(mode)
                image.save(buffer, name)
            except (OSError, ValueError, KeyError, SystemError):
                continue
            files[f"{name} {mode}"] = buffer.getvalue()
    return files


def mutate(data: bytes, generator: np.random.Generator) -> bytes:
    """Some changes, mostly near the start."""
    changed = bytearray(data)
    for _ in range(generator.integers(1, 9)):
        if not changed:
            break
        place = int(len(changed) * generator.random() ** generator.integers(1, 5))
        match generator.integers(6):
            case 0:
                changed[place] ^= 1 << int(generator.integers(8))
            case 1:
                changed[place] = int(generator.choice([0, 1, 127, 128, 255]))
            case 2:
                changed[place : place + 4] = generator.bytes(4)
            case 3:
                changed[place : place + 4] = b"\xff\xff\xff\x7f"
            case 4:
                changed[place:place] = changed[place : place + int(generator.integers(1, 64))]
            case _:
                del changed[place + int(generator.integers(len(changed))) :]
    return bytes(changed)


def main() -> None:
    """Mutate, decode, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print_circumstances(files=options.files, seed=options.seed)
    warnings.simplefilter("ignore")  # Pillow's own
    warnings.filterwarnings("error", module="aesearch")
    files = originals()
    names = list(files)
    taken, refused, slowest = 0, Counter[str](), (0.0, "")
    for number in range(options.files):
        generator = np.random.default_rng([options.seed, number])
        name = names[number % len(names)]
        data = mutate(files[name], generator)
        began = time.perf_counter()
        try:
            for preprocessing in SEEN:
                pixels = decode(data, preprocessing)
                assert pixels.shape == preprocessing.shape and pixels.dtype == np.uint8, name
            describe(data)
            taken += 1
        except UnreadableImageError as error:
            assert "\n" not in str(error)
            refused[str(error).split(":")[0]] += 1
        except Exception as error:
            raise SystemExit(f"file {number} ({name}), seed {options.seed}: {error!r}") from error
        slowest = max(slowest, (time.perf_counter() - began, f"{number} ({name})"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{len(names)} kinds of file, {options.files:,} mutated: {taken:,} taken, {sum(refused.values()):,} refused")
    print(f"slowest {slowest[0]:.2f} s, file {slowest[1]}; peak memory {memory:.2f} GiB")


if __name__ == "__main__":
    main()
