"""Surfaces to find faults on, at their own size, and how well that is done: the table ``surfaces`` of quality.py."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from families import Images, channels_first, read_tar
from numpy.typing import NDArray
from planted_faults import Faulty, plant
from sklearn.metrics import roc_auc_score

from aesearch import Collection
from aesearch.anomalies.localisation import at_size, pixel_auroc, region_overlap
from aesearch.anomalies.names import SCORES
from aesearch.baselines import free_scores
from aesearch.images.resize import shrunk

Numbers = NDArray[np.float32]
Maps = Sequence[Numbers] | Numbers | None
STEEL_KINDS = ("crazing", "inclusion", "patches", "pitted surface", "rolled-in scale", "scratches")
OTHERS, PLANTED = 300, 150  # images of other kinds, and with a planted fault, at most
ASKED = 0.05  # false alarms


@dataclass(frozen=True, eq=False)
class Surface:
    """Sound images to learn from, and sound and faulty ones to judge: (n, height, width) uint8."""

    name: str
    train: Images
    sound: Images
    faulty: Images
    masks: NDArray[np.bool_] | None = None
    kinds: NDArray[np.str_] | None = None


def surfaces(data: Path, seed: int, kinds: Sequence[str] = STEEL_KINDS) -> Iterator[Surface]:
    """Yield those that are there, and say which are not; of steel each of those kinds as the normal one."""
    steel, solar = _steel(data), _solar()
    if solar is not None:
        cells, broken = solar
        train, sound = _parted(cells, 0.627, seed)
        yield Surface("solar cells, broken", train, sound, broken)
    if steel is not None:
        images, labels = steel
        for name in kinds:
            kind = STEEL_KINDS.index(name)
            train, sound = _parted(images[labels == kind], 0.7, seed)
            others = np.random.default_rng(seed).permutation(images[labels != kind])[:OTHERS]
            yield Surface(f"steel, {name} normal", train, sound, others)
    if steel is not None and solar is not None:
        yield _planted("solar cells, planted", solar[0], steel[0], seed)
        yield _planted("steel, planted", steel[0], solar[0], seed)


def few(surface: Surface) -> Surface:
    """Some of the images alone, reduced."""
    sizes = ((surface.train, 60), (surface.sound, 12), (surface.faulty, 12))
    train, sound, faulty = (shrunk(part[:count, None], 40)[:, 0] for part, count in sizes)
    masks = None
    if surface.masks is not None:
        masks = shrunk(surface.masks[: len(faulty), None].astype(np.uint8) * 255, 40)[:, 0] > 0
    return Surface(surface.name, train, sound, faulty, masks, surface.kinds)


def _steel(data: Path) -> tuple[Images, NDArray[np.int64]] | None:
    tar = data / "steel-surface-jpeg.tar"
    if not tar.exists():
        print(f"steel surfaces are left out: there is no {tar}")
        return None
    images, labels, _ = read_tar(tar, "L", reduced=False)
    return images, labels


def _solar() -> tuple[Images, Images] | None:
    try:
        from elpv_dataset.utils import load_dataset
    except ImportError:
        print("solar cells are left out: pip install elpv-dataset")
        return None
    images, broken, _ = load_dataset()
    return images[broken == 0], images[broken == 1]


def _parted(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    order = np.random.default_rng(seed).permutation(len(images))
    count = int(share * len(images))
    return images[order[:count]], images[order[count:]]


def _planted(name: str, images: Images, foreign: Images, seed: int) -> Surface:
    train, rest = _parted(images, 0.6, seed)
    sound, changed = np.array_split(rest, 2)
    faulty: Faulty = plant(changed[:PLANTED], foreign, np.random.default_rng(seed))
    return Surface(name, train, sound[:OTHERS], faulty.images, faulty.masks, faulty.kinds)


def free_of_cost(surface: Surface) -> dict[str, tuple[Numbers, Maps]]:
    """Scores of sound and faulty images together, and maps, by what trains nothing."""
    new = np.concatenate([channels_first(surface.sound), channels_first(surface.faulty)])
    return {**free_scores(channels_first(surface.train), new)}


def by_aesearch(
    surface: Surface, collection: Collection, folder: Path
) -> tuple[dict[str, tuple[Numbers, Maps]], dict[str, float]]:
    """Scores and maps by each score, and of ``combined`` and ``patches`` the false alarms where 5 % are asked for."""
    files = {"sound": surface.sound, "faulty": surface.faulty}
    for name, images in files.items():
        np.save(folder / f"{name}.npy", images)
    found: dict[str, tuple[Numbers, Maps]] = {}
    alarms = {}
    for score in SCORES:
        scores, maps = [], []
        for name in files:
            source = collection.open_images(str(folder / f"{name}.npy"))
            answer = collection.anomalies(source, score=score, top=len(files[name]))
            order = np.argsort(answer.rows)
            scores.append(answer.scores[order])
            if surface.masks is not None and score == "patches":
                heat = collection.heat_maps(answer, source)
                maps += [heat[place] for place in order]
        found[score] = (np.concatenate(scores), maps or None)
        if score in ("combined", "patches"):
            rate = max(ASKED, 1.1 / collection.store.held_out().sum())
            flagged = collection.anomalies(str(folder / "sound.npy"), score=score, top=1, false_alarms=rate)
            alarms[score] = flagged.flagged / flagged.scored / rate
    return found, alarms


def measures(surface: Surface, scores: Numbers, maps: Maps) -> list[float]:
    """AUROC of the images, of the pixels, and the overlap with the faults; NaN where there are no maps."""
    odd = np.arange(len(scores)) >= len(surface.sound)
    images = float(roc_auc_score(odd, scores))
    if maps is None or surface.masks is None:
        return [images, np.nan, np.nan]
    masks = [*np.zeros((len(surface.sound), *surface.masks.shape[1:]), bool), *surface.masks]
    sized = [at_size(np.asarray(one, np.float32), mask.shape) for one, mask in zip(maps, masks, strict=True)]
    return [images, pixel_auroc(sized, masks), region_overlap(sized, masks)]
