"""A source string to a source: dataset, folder, table or array file."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.atomic import at_home, replacing
from aesearch.errors import SourceError, did_you_mean
from aesearch.index import memory_at_hand
from aesearch.manifest import NEXT
from aesearch.progress import counted
from aesearch.reading import content_hash
from aesearch.sources import ArraySource, FileSource, Source

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LABELS = ("none", "folder")
ARRAY, FILES = "array", "files.json"  # sources that were given in Python; the second is a file of the collection
ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
TABLE_SUFFIXES = (".csv", ".parquet")
COLUMNS = ("path", "label", "split")  # of a table
MOST_SHRUNK = 2000  # times that a compressed array may be smaller than what it holds: deflate's limit is about 1,030
IMAGE_KEYS, LABEL_KEYS = ("x", "X", "images", "data"), ("y", "labels", "targets")

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


def open_source(name: str, *, labels: str = "none", data_dir: str | None = None, download: bool = True) -> Source:
    """Find the images behind a source string.

    Parameters
    ----------
    name : str
        ``digits``; a torchvision dataset (``mnist``, ``mnist:train``, …); a folder; an ``.npy``,
        ``.npz`` or ``.h5`` array; a ``.csv`` or ``.parquet`` table with a column ``path``.
    labels : {"none", "folder"}
        ``folder``: a file's label is its sub-folder.
    data_dir : str, optional
        Where torchvision's datasets lie or go; ``$AESEARCH_DATA``, else ``data``.
    download : bool
        Whether one that does not lie there may be fetched.

    Raises
    ------
    SourceError
        Nothing by that name, or no image in it.
    """
    if labels not in LABELS:
        raise SourceError(f"labels {labels!r} is not one of {', '.join(LABELS)}{did_you_mean(labels, LABELS)}")
    data_dir = str(at_home(data_dir or os.environ.get("AESEARCH_DATA") or "data").resolve())
    source = _find(name, labels, data_dir, download)
    at_home(source.name)  # it is written down
    source.opening = {"name": source.name, "labels": labels, "data_dir": data_dir}
    return source


def open_given(images: Any, labels: str | Sequence[str] | None) -> Source:
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
        paths = [at_home(os.path.abspath(os.fsdecode(path))) for path in images]  # noqa: PTH100 links are kept
        source = _listed_files(paths, [path.parent.name for path in paths] if folders else listed)
    else:
        raise SourceError(
            "images come from a name, a folder, a table, an array (N, height, width[, channels]) or a list of files, "
            f"not from {type(images).__name__}"
        )
    source.opening = {"name": source.name}
    return source


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
    assert isinstance(source, FileSource)
    listed = {"paths": source.ids, "labels": source.labels}
    with replacing(collection / FILES) as temporary:
        temporary.write_text(json.dumps(listed), encoding="utf-8")


def _open_list(collection: Path) -> Source:
    folder = collection.parent if collection.name == NEXT else collection
    try:
        listed = json.loads((folder / FILES).read_text(encoding="utf-8"))
        source = _listed_files([Path(path) for path in listed["paths"]], [str(label) for label in listed["labels"]])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{folder / FILES}, the list of the images, cannot be read: build it again") from error
    source.opening = {"name": FILES}
    return source


def is_gone(name: str) -> bool:
    """Whether a source was a folder or file of which nothing is left where it was; an empty folder is nothing."""
    path = Path(name)
    try:
        return path.is_absolute() and not (any(path.iterdir()) if path.is_dir() else path.exists())
    except OSError:  # it is there, but not for us
        return False


def open_again(opening: dict[str, str], collection: Path, *, download: bool = True) -> Source:
    """A collection's source, as it was opened before; raises as `open_source`."""
    if opening["name"] == FILES:
        return _open_list(collection)
    if opening["name"] == ARRAY:
        raise SourceError(
            f"the images of {collection} were an array in memory: give it again, Collection.build(array, folder), or "
            "save it as .npy and build from that"
        )
    if is_gone(opening["name"]):
        raise SourceError(
            f"{opening['name']} is no longer there: if it has moved, aesearch update NEW_PLACE -c {collection}"
        )
    return open_source(**opening, download=download)


def _find(name: str, labels: str, data_dir: str, download: bool) -> Source:
    if not name.strip():
        raise SourceError("a source needs a name: a folder, say, or . for this one")
    path = at_home(name)
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
        return _table(path.resolve())
    if path.is_file():
        raise SourceError(f"{name} is one file: give the folder it is in, or an .npy, .npz, .h5, .csv or .parquet")
    raise SourceError(
        f"no source {name!r}: it is no folder or file here, and no dataset (digits, {', '.join(DATASETS)})"
    )


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
    wanted = name.partition(":")[2]
    if wanted and wanted not in arguments:
        raise SourceError(f"{dataset} has no split {wanted!r}: there is {' and '.join(arguments)}")
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
    relative = sorted(counted(_walk(root), "list", "file"), key=lambda p: os.fsencode(p.as_posix()))
    ids, file_labels, splits = [], [], []
    for path in relative:
        folders = path.parts[:-1]
        split = SPLITS.get(folders[0].lower(), "") if folders else ""
        inner = folders[1:] if split else folders
        ids.append(_id_of(path))
        splits.append(split)
        file_labels.append(_text(inner[0]) if labels == "folder" and inner else "")
    return FileSource(str(root), [root / p for p in relative], ids, file_labels, splits)


def _walk(root: Path) -> Iterator[Path]:
    """Every file below, except hidden ones and collections; links to folders are not followed."""
    for folder, folders, files in os.walk(root):
        if "collection.json" in files:
            folders.clear()
            continue
        folders[:] = [f for f in folders if not f.startswith(".")]
        for file in files:
            if not file.startswith("."):
                yield (Path(folder) / file).relative_to(root)


def _id_of(path: Path) -> str:
    """A file's id: its path, where that is no UTF-8 with escapes; different paths have different ids."""
    name = path.as_posix()
    try:
        name.encode()
        odd = "\\x" in name  # reads as if it were escaped
    except UnicodeEncodeError:
        odd = True
    return _text(name.replace("\\", "\\\\") if odd else name)


def _text(name: str) -> str:
    """Valid UTF-8, without NUL, for any file name or label."""
    try:
        data = name.encode("utf-8", "surrogateescape")  # the bytes of a file's name
    except UnicodeEncodeError:
        data = name.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def _table(path: Path) -> Source:
    columns = _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path)
    if "path" not in columns:
        raise SourceError(f"{path.name} has no column 'path'; it has {', '.join(columns) or 'none'}")
    names = columns["path"]
    empty = [""] * len(names)
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        first.setdefault(name, position)
    keep = sorted(first.values())
    source = FileSource(
        str(path),
        [path.parent / names[i] for i in keep],
        [names[i] for i in keep],
        [columns.get("label", empty)[i] for i in keep],
        [columns.get("split", empty)[i] for i in keep],
    )
    source.listing_skips = [(n, "listed before in the table") for i, n in enumerate(names) if first[n] != i]
    return source


def _read_csv(path: Path) -> dict[str, list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"cannot read {path.name} as a CSV table: {_short(error)}") from error
    return {str(c): [_text(r[c] or "") for r in rows] for c in (rows[0] if rows else {}) if c is not None}


def _read_parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SourceError("reading .parquet needs pyarrow: pip install 'aesearch[parquet]'") from None
    try:
        names = pyarrow.parquet.read_schema(path).names
        table = pyarrow.parquet.read_table(path, columns=[name for name in names if name in COLUMNS])
        return {c: ["" if v is None else _text(str(v)) for v in table[c].to_pylist()] for c in table.column_names}
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise SourceError(f"cannot read {path.name} as a parquet table: {_short(error)}") from error


def _array_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            shape, read, labels = _open_npy(path)
        elif suffix == ".npz":
            shape, read, labels = _open_npz(path)
        else:
            shape, read, labels = _open_h5(path)
    except SourceError:
        raise
    except Exception as error:  # NumPy, zip and HDF5 raise nearly anything on broken files
        raise SourceError(f"cannot read {path.name} as an array of images: {_short(error)}") from error
    if len(shape) not in (3, 4) or 0 in shape[1:]:
        raise SourceError(
            f"{path.name} has shape {shape}: images are (N, height, width) or (N, height, width, channels)"
        )
    n = shape[0]
    if labels is not None and len(labels) != n:
        raise SourceError(f"{path.name} has {len(labels)} labels for {n} images")
    status = path.stat()
    ids = [f"{path.stem}/{i}" for i in range(n)]
    stamp = f"{status.st_size} {status.st_mtime_ns}"
    return ArraySource(str(path), read, shape[1:], ids, labels or [""] * n, [""] * n, stamp)


Opened = tuple[tuple[int, ...], Callable[[NDArray[np.int64]], NDArray[Any]], list[str] | None]


def _open_npy(path: Path) -> Opened:
    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        # Mapped anew for each batch: pages that were read do not pile up in the process.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False)[_span(rows)])

    return np.load(path, mmap_mode="r", allow_pickle=False).shape, read, None


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
        labels = next((_label_texts(archive[k]) for k in LABEL_KEYS if k in archive.files), None)
    return images.shape, lambda rows: images[rows], labels


def _open_h5(path: Path) -> Opened:
    import h5py

    with h5py.File(path) as file:
        arrays = {k: v.ndim for k, v in file.items() if isinstance(v, h5py.Dataset)}
        key = _image_key(arrays)
        shape = file[key].shape
        if file[key].nbytes > MOST_SHRUNK * max(1, file[key].id.get_storage_size()) and not file[key].is_virtual:
            raise SourceError(f"{path.name} says that {key} has {file[key].nbytes:,} bytes, and holds next to nothing")
        labels = next((_label_texts(file[k][:]) for k in LABEL_KEYS if k in arrays), None)

    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        with h5py.File(path) as file:
            return np.asarray(file[key][_span(rows)])

    return shape, read, labels


def _image_key(dimensions: dict[str, int]) -> str:
    named = [k for k in IMAGE_KEYS if dimensions.get(k) in (3, 4)]
    candidates = named or [k for k, ndim in dimensions.items() if ndim in (3, 4)]
    if len(candidates) == 1 or named:
        return candidates[0]
    raise SourceError(f"which array holds the images? Call it 'x'; there is {', '.join(dimensions) or 'none'}")


def _label_texts(values: NDArray[Any]) -> list[str]:
    listed = values.ravel().tolist()
    return [_text(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v)) for v in listed]
