"""A source string to a source: dataset, folder, table or array file."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import sys
import zipfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError, did_you_mean, need_torch
from aesearch.files.atomic import expand_user, replacing
from aesearch.files.names import as_text, id_of, labels_of, split_of, splits_of
from aesearch.files.naming import NEXT, command_for
from aesearch.images.grouping import NONE, groups_by_pattern
from aesearch.images.sources.arrays import ArraySource
from aesearch.images.sources.base import Source
from aesearch.images.sources.files import FileSource
from aesearch.images.sources.folders import find_masks, find_splits, list_files
from aesearch.images.sources.tables import TABLE_SUFFIXES, read_table
from aesearch.images.tiles import TileSource, Tiling
from aesearch.images.worker_processes import content_hash
from aesearch.machine import memory_at_hand

logger = logging.getLogger(__name__)

LABELS = ("none", "folder")
ARRAY, FILES = "array", "files.json"  # sources that were given in Python; the second is a file of the collection
ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
MOST_COMPARED = 1000  # names that a mistyped one is compared with
MOST_SHRUNK = 2000  # times that a compressed array may be smaller than what it holds: deflate's limit is about 1,030
IMAGE_KEYS, LABEL_KEYS = ("x", "X", "images", "data"), ("y", "labels", "targets")
SPLIT_KEYS = ("split", "splits")

# torchvision's class, what gives its test split, and where it keeps the labels.
DATASETS: dict[str, tuple[str, dict[str, dict[str, Any]], str]] = {
    name: (cls, {"train": {"train": True}, "test": {"train": False}}, "targets")
    for name, cls in {
        "mnist": "MNIST",
        "fashion-mnist": "FashionMNIST",
        "kmnist": "KMNIST",
        "qmnist": "QMNIST",
        "usps": "USPS",
        "cifar10": "CIFAR10",
        "cifar100": "CIFAR100",
    }.items()
} | {
    name: (cls, {"train": {"split": "train"}, "test": {"split": "test"}}, "labels")
    for name, cls in {"svhn": "SVHN", "stl10": "STL10"}.items()
}


def open_source(
    name: str,
    *,
    labels: str = "none",
    data_dir: str | None = None,
    group: str = "",
    tiles: str = "",
    download: bool = True,
) -> Source:
    """Find the images behind a source string.

    Parameters
    ----------
    name : str
        ``digits``; a torchvision dataset (``mnist``, ``mnist:train``, …); a folder; an ``.npy``,
        ``.npz`` or ``.h5`` array; a ``.csv``, ``.tsv`` or ``.parquet`` table with a column ``path``.
    labels : {"none", "folder"}
        ``folder``: a file's label is its sub-folder.
    data_dir : str, optional
        Where torchvision's datasets lie or go; ``$AESEARCH_DATA``, else ``data``.
    group : str
        What says which images belong together: a column of the table, or a regular expression for the ids, see
        `aesearch.images.grouping.groups_by_pattern`; ``none``: none do. By default near-duplicates are found in
        training.
    tiles : str
        ``256``, or ``256,128``: each square of so many pixels, one every so many, is an image of its own, see
        `aesearch.images.tiles.Tiling`; for image files. What is of one picture belongs together.
    download : bool
        Whether one that does not lie there may be fetched.

    Raises
    ------
    SourceError
        Nothing by that name, or no image in it.
    """
    if labels not in LABELS:
        raise SourceError(f"labels {labels!r} is not one of {', '.join(LABELS)}{did_you_mean(labels, LABELS)}")
    data_dir = str(expand_user(data_dir or os.environ.get("AESEARCH_DATA") or "data").resolve())
    source = _open(name, labels, data_dir, download, group, tiles)
    say(source)
    return source


def _open(name: str, labels: str, data_dir: str, download: bool, group: str = "", tiles: str = "") -> Source:
    source = _find(name, labels, data_dir, download, group)
    expand_user(source.name)  # it is written down
    source.opening = {"name": source.name, "labels": labels, "data_dir": data_dir}
    return _cut(_grouped(source, group), tiles)


def _cut(source: Source, tiles: str) -> Source:
    if not tiles:
        return source
    tiling = Tiling.parse(tiles)
    if not isinstance(source, FileSource):
        raise SourceError(
            f"--tiles cuts pictures in files, and {source.name} holds none: give a folder, a table or a list"
        )
    return TileSource(source, tiling)


def _grouped(source: Source, group: str) -> Source:
    """With groups by the ids, where there are none by a table's column."""
    if group:
        source.opening |= {"group": group}
        if group != NONE and not any(source.groups):
            source.groups = groups_by_pattern(source.ids, group)
    return source


def open_given(images: Any, labels: str | Sequence[str] | None, group: str = "", tiles: str = "") -> Source:
    """Images given in Python: an array (N, height, width[, channels]), or a list of files.

    An array's content is what changes its fingerprint; it cannot be opened again. `SourceError` for anything else.
    """
    folders = labels == "folder"
    if labels is not None and not isinstance(labels, str):
        listed = [str(label) for label in labels]
    elif labels in (None, *LABELS):
        listed = []
    else:
        raise SourceError(f"labels {labels!r} is not one of {', '.join(LABELS)}, nor one text for each image")
    if isinstance(images, np.ndarray):
        source: Source = _array_in_memory(images, listed)
    elif isinstance(images, list | tuple) and all(isinstance(path, str | os.PathLike) for path in images):
        paths = [expand_user(os.path.abspath(os.fsdecode(path))) for path in images]  # noqa: PTH100 links are kept
        source = _listed_files(paths, [path.parent.name for path in paths] if folders else listed)
    else:
        raise SourceError(
            "images come from a name, a folder, a table, an array (N, height, width[, channels]) or a list of files, "
            f"not from {type(images).__name__}"
        )
    source.opening = {"name": source.name}
    return _cut(_grouped(source, group), tiles)


def _array_in_memory(images: NDArray[Any], labels: list[str]) -> Source:
    if images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise SourceError(f"an array of images is (N, height, width[, channels]), not {images.shape}")
    n = len(images)
    ids = [f"array/{i}" for i in range(n)]
    _check_labels(labels, n)
    stamp = f"{images.shape} {images.dtype} {content_hash(np.ascontiguousarray(images))}"
    return ArraySource(ARRAY, lambda rows: images[rows], images.shape[1:], ids, labels or [""] * n, [""] * n, stamp)


def _listed_files(paths: list[Path], labels: list[str]) -> Source:
    _check_labels(labels, len(paths))
    if len(set(paths)) < len(paths):
        raise SourceError("a file is in the list more than once")
    return FileSource(FILES, paths, [path.as_posix() for path in paths], labels or [""] * len(paths), [""] * len(paths))


def _check_labels(labels: list[str], n: int) -> None:
    if labels and len(labels) != n:
        raise SourceError(f"there are {len(labels)} labels for {n} images")


def keep_list(source: Source, collection: Path) -> None:
    """Write the files of a list into the collection's folder, so that it can be opened again."""
    files = source.pictures if isinstance(source, TileSource) else source
    how = {name: source.opening.get(name, "") for name in ("group", "tiles")}
    listed = {"paths": files.ids, "labels": files.labels} | how
    with replacing(collection / FILES) as temporary:
        temporary.write_text(json.dumps(listed), encoding="utf-8")


def _open_list(collection: Path) -> Source:
    folder = collection.parent if collection.name == NEXT else collection
    try:
        listed = json.loads((folder / FILES).read_text(encoding="utf-8"))
        source = _listed_files([Path(path) for path in listed["paths"]], [str(label) for label in listed["labels"]])
        group, tiles = (str(listed.get(name, "")) for name in ("group", "tiles"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder / FILES}, the list of the images, cannot be read: build it again") from error
    source.opening = {"name": FILES}
    return _cut(_grouped(source, group), tiles)


def say(source: Source) -> None:
    """Tell what people must know of what was found: what was left out, and what was taken as what."""
    for line in source.notes:
        logger.info("%s", line)


def is_gone(name: str) -> bool:
    """Whether a source was a folder or file of which nothing is left where it was; an empty folder is nothing."""
    path = Path(name)
    try:
        return path.is_absolute() and not (any(path.iterdir()) if path.is_dir() else path.exists())
    except OSError:  # it is there, but not for us
        return False


def open_again(opening: dict[str, str], collection: Path, *, download: bool = True) -> Source:
    """A collection's source, as it was opened before, without a word; raises as `open_source`."""
    if opening["name"] == FILES:
        return _open_list(collection)
    if opening["name"] == ARRAY:
        raise SourceError(
            f"the images of {collection} were an array in memory: give it again, Collection.build(array, folder), or "
            "save it as .npy and build from that"
        )
    if is_gone(opening["name"]):
        raise SourceError(
            f"{opening['name']} is no longer there: if it has moved, {command_for('update NEW_PLACE', collection)}"
        )
    return _open(**opening, download=download)


def _find(name: str, labels: str, data_dir: str, download: bool, group: str) -> Source:
    if not name.strip():
        raise SourceError("a source needs a name: a folder, say, or . for this one")
    path = expand_user(name)
    suffix = path.suffix.lower()
    if name == "digits":
        return _digits()
    if (dataset := name.partition(":")[0]) in DATASETS:
        return _torchvision(dataset, name, data_dir, download)
    if path.is_dir():
        return _folder(path.resolve(), labels)
    if suffix in ARRAY_SUFFIXES and path.is_file():
        return _array_file(path.resolve())
    if suffix in TABLE_SUFFIXES and path.is_file():
        return _table(path.resolve(), group)
    if path.is_file():
        raise SourceError(f"{name} is one file: give the folder it is in, an .npy, .npz, .h5, .csv, .tsv or .parquet")
    datasets = ["digits", *DATASETS]
    hint = did_you_mean(dataset, datasets) or did_you_mean(path.name, _beside(path))
    raise SourceError(f"no source {name!r}: not a folder, a file or a dataset ({', '.join(datasets)}){hint}")


def _beside(path: Path) -> list[str]:
    """Names in the folder where a source was looked for."""
    try:
        return [entry.name for entry in itertools.islice(os.scandir(path.parent), MOST_COMPARED)]
    except OSError:
        return []


def _digits() -> Source:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)  # 0 to 16 levels
    return _in_memory("digits", images, [str(t) for t in bunch.target], "digits")


def _in_memory(name: str, images: NDArray[Any], labels: list[str] | None, prefix: str) -> Source:
    n = len(images)
    ids = [f"{prefix}/{i}" for i in range(n)]
    return ArraySource(
        name, lambda rows: images[rows], images.shape[1:], ids, labels or [""] * n, [""] * n, str(images.shape)
    )


def _torchvision(dataset: str, name: str, data_dir: str, download: bool) -> Source:
    cls, arguments, label_attribute = DATASETS[dataset]
    given = name.partition(":")[2]
    wanted = split_of(given) or given
    if wanted and wanted not in arguments:
        hint = did_you_mean(wanted, list(arguments))
        raise SourceError(f"{dataset} has no split {given!r}: there is {' and '.join(arguments)}{hint}")
    need_torch()
    name = f"{dataset}:{wanted}" if wanted else dataset
    import torchvision

    root = Path(data_dir)
    images, ids, labels, splits = [], [], [], []
    for split in [wanted] if wanted else list(arguments):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # torchvision announces downloads on stdout
                loaded = getattr(torchvision.datasets, cls)(root=root, download=download, **arguments[split])
        except Exception as error:  # network, disk, checksums: torchvision raises many kinds
            raise SourceError(
                f"cannot get {dataset} into {root} ({_short(error)}): --data-dir or AESEARCH_DATA "
                "says where its files lie"
            ) from error
        pixels = np.asarray(loaded.data)
        images.append(pixels.transpose(0, 2, 3, 1) if dataset in ("svhn", "stl10") else pixels)
        ids += [f"{dataset}/{split}/{i}" for i in range(len(pixels))]
        labels += _class_names(loaded, np.asarray(getattr(loaded, label_attribute)), dataset)
        splits += [split] * len(pixels)
    stacked = images[0] if len(images) == 1 else np.concatenate(images)
    stamp = f"{stacked.shape}"
    return ArraySource(name, lambda rows: stacked[rows], stacked.shape[1:], ids, labels, splits, stamp)


def _class_names(loaded: Any, targets: NDArray[Any], dataset: str) -> list[str]:
    targets = targets[:, 0] if targets.ndim == 2 else targets  # qmnist keeps more than the class
    classes = getattr(loaded, "classes", None)
    if classes is None or dataset in ("mnist", "qmnist"):  # "3 - three" says no more than "3"
        return [str(int(t)) for t in targets]
    return [str(classes[int(t)]) for t in targets]


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _folder(root: Path, labels: str) -> Source:
    found = list_files(root)
    if not found.paths:
        raise SourceError("; ".join([f"there is no image in {root}", *map(": ".join, found.unreadable), *found.notes]))
    split_folders, said = find_splits(found.paths)
    inspected = bool(found.masks and split_folders)  # the layout of MVTec AD, whose sub-folders are kinds of faults
    if inspected and labels != "folder":
        labels, said = "folder", f"{said}; sub-folders taken as labels, as there are masks of faults"
    ids, file_labels, splits = [], [], []
    for path in found.paths:
        folders = path.parts[:-1]
        split = split_folders.get(folders[0], "") if folders else ""
        inner = folders[1:] if split else folders
        ids.append(id_of(path))
        splits.append(split)
        file_labels.append(as_text(inner[0]) if labels == "folder" and inner else "")
    source = FileSource(str(root), [root / p for p in found.paths], ids, file_labels, splits)
    source.listing_skips, source.notes = found.unreadable, [*found.notes, *([said] if said else [])]
    if inspected:
        for folder in found.masks:
            pairs = find_masks(root, folder, found.paths)
            source.masks |= {id_of(path): root / mask for path, mask in pairs.items()}
    return source


def _table(path: Path, group: str) -> Source:
    found = read_table(path, group)
    files = [path.parent / name for name in found.paths]
    source = FileSource(str(path), files, found.paths, found.labels, found.splits)
    source.listing_skips, source.notes, source.groups = found.skips, found.notes, found.groups
    return source


def _array_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            shape, read, texts = _open_npy(path)
        elif suffix == ".npz":
            shape, read, texts = _open_npz(path)
        else:
            shape, read, texts = _open_h5(path)
    except SourceError:
        raise
    except Exception as error:  # NumPy, zip and HDF5 raise nearly anything on broken files
        raise SourceError(f"cannot read {path.name} as an array of images: {_short(error)}") from error
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise SourceError(
            f"{path.name} has shape {shape}: images are (N, height, width) or (N, height, width, channels)"
        )
    n = shape[0]
    for what, values in texts.items():
        if len(values) != n:
            raise SourceError(f"{path.name} has {len(values)} {what} for {n} images")
    empty = [""] * n
    status = path.stat()
    ids = [f"{path.stem}/{i}" for i in range(n)]
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    labels, splits = labels_of(texts.get("labels", empty)), splits_of(texts.get("splits", empty))
    return ArraySource(str(path), read, shape[1:], ids, labels, splits, stamp)


Opened = tuple[tuple[int, ...], Callable[[NDArray[np.int64]], NDArray[Any]], dict[str, list[str]]]


def _open_npy(path: Path) -> Opened:
    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        # Mapped anew for each batch: pages that were read do not pile up in the process.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[_span(rows)])

    return np.load(path, mmap_mode="r", allow_pickle=False).shape, read, {}


def _span(rows: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Rows in a run as a slice, which is far quicker to read than a list."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def _open_npz(path: Path) -> Opened:
    """Archives are compressed: the images are read whole and stay in memory."""
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > memory_at_hand():
            raise SourceError(f"{path.name} does not fit into memory when it is unpacked: save the images as .npy")
    with np.load(path, allow_pickle=False) as archive:
        key = _image_key({k: archive[k].ndim for k in archive.files})
        images = archive[key]
        texts = _texts_beside(archive, archive.files)
    return images.shape, lambda rows: images[rows], texts


def _open_h5(path: Path) -> Opened:
    import h5py

    with h5py.File(path) as file:
        arrays = {k: v.ndim for k, v in file.items() if isinstance(v, h5py.Dataset)}
        key = _image_key(arrays)
        shape = file[key].shape
        if file[key].nbytes > MOST_SHRUNK * max(1, file[key].id.get_storage_size()) and not file[key].is_virtual:
            raise SourceError(f"{path.name} says that {key} has {file[key].nbytes:,} bytes, and holds next to nothing")
        texts = _texts_beside(file, arrays)

    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        with h5py.File(path) as file:
            return np.asarray(file[key][_span(rows)])

    return shape, read, texts


def _texts_beside(arrays: Any, names: Collection[str]) -> dict[str, list[str]]:
    """Labels and splits that lie beside the images, where there are such."""
    wanted = {"labels": LABEL_KEYS, "splits": SPLIT_KEYS}
    keys = {what: next((key for key in known if key in names), None) for what, known in wanted.items()}
    return {what: _label_texts(arrays[key][:]) for what, key in keys.items() if key is not None}


def _image_key(dimensions: dict[str, int]) -> str:
    named = [k for k in IMAGE_KEYS if dimensions.get(k) in (3, 4)]
    candidates = named or [k for k, ndim in dimensions.items() if ndim in (3, 4)]
    if len(candidates) == 1 or named:
        return candidates[0]
    raise SourceError(f"unclear which array holds the images: name it 'x'; there is {', '.join(dimensions) or 'none'}")


def _label_texts(values: NDArray[Any]) -> list[str]:
    listed = values.ravel().tolist()
    return [as_text(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)) for v in listed]
