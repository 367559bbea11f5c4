"""A source string to images: which ones, in what order, with what ids, labels and splits."""

from __future__ import annotations

import abc
import contextlib
import csv
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.decoding import (
    MAX_FILE_BYTES,
    ImageFacts,
    Preprocessing,
    UnreadableImageError,
    decode,
    describe,
    describe_image,
    fit,
    scale_to_uint8,
)
from aesearch.errors import SourceError

SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
ARRAY_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5")
TABLE_SUFFIXES = (".csv", ".parquet")
IMAGE_KEYS, LABEL_KEYS = ("x", "X", "images", "data"), ("y", "labels", "targets")
SAMPLE = 200  # images looked at to choose size, channels and depth

# torchvision's class, what gives its test split, and where it keeps the labels.
DATASETS: dict[str, tuple[str, dict[str, dict[str, Any]], str]] = {
    name: (cls, {"train": {"train": True}, "test": {"train": False}}, "targets")
    for name, cls in {
        "mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST", "qmnist": "QMNIST",
        "usps": "USPS", "cifar10": "CIFAR10", "cifar100": "CIFAR100",
    }.items()
} | {
    name: (cls, {"train": {"split": "train"}, "test": {"split": "test"}}, "labels")
    for name, cls in {"svhn": "SVHN", "stl10": "STL10"}.items()
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Batch:
    """Some images of a source.

    Attributes
    ----------
    positions : (n,) int64
        Where in the source each image stands; positions that gave no image are missing.
    images : (n, channels, height, width) uint8
    hashes : list of str
        Content hash of each image's file, or of its pixels.
    skipped : list of (position, reason)
        The positions that gave no image.
    """

    positions: NDArray[np.int64]
    images: NDArray[np.uint8]
    hashes: list[str]
    skipped: list[tuple[int, str]] = field(default_factory=list)


class Source(abc.ABC):
    """Images in a fixed order; nothing is decoded before it is asked for.

    Attributes
    ----------
    name : str
        Opens the same source again, from any working folder.
    ids, labels, splits : list of str
        One per image; labels and splits are empty strings where there are none.
    listing_skips : list of (id, reason)
        What was listed but cannot be a row, found before decoding.
    """

    def __init__(self, name: str, ids: list[str], labels: list[str], splits: list[str]) -> None:
        if not len(ids) == len(labels) == len(splits):
            raise ValueError(f"{len(ids)} ids, {len(labels)} labels, {len(splits)} splits")
        if not ids:
            raise SourceError(f"there is no image in {name}")
        self.name, self.ids, self.labels, self.splits = name, ids, labels, splits
        self.listing_skips: list[tuple[str, str]] = []

    def __len__(self) -> int:
        return len(self.ids)

    @abc.abstractmethod
    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Decode the images at those positions, in that order."""

    @abc.abstractmethod
    def facts(self, position: int) -> ImageFacts:
        """Size, colour and depth of one image; ``UnreadableImageError`` if it cannot be read."""

    @abc.abstractmethod
    def _stamps(self) -> Iterator[str]:
        """What changes when the images do."""

    @cached_property
    def fingerprint(self) -> str:
        """Changes when files are added, removed, resized or touched; nothing is decoded."""
        digest = hashlib.blake2b(digest_size=16)
        for values in (self.ids, self.labels, self.splits, self._stamps()):
            for value in values:
                digest.update(value.encode("utf-8", "surrogateescape") + b"\0")
        return digest.hexdigest()

    def sample_facts(self) -> list[ImageFacts]:
        """Facts of up to ``SAMPLE`` readable images, evenly spread; ``SourceError`` if none is readable."""
        facts, reason = [], ""
        for position in np.unique(np.linspace(0, len(self) - 1, SAMPLE).astype(int)):
            try:
                facts.append(self.facts(int(position)))
            except UnreadableImageError as error:
                reason = reason or f"{self.ids[position]}: {error}"
        if facts:
            return facts
        for position in range(len(self)):  # the sample was unlucky: any readable image will do
            with contextlib.suppress(UnreadableImageError):
                return [self.facts(position)]
        raise SourceError(f"no usable image in {self.name}, the first of {len(self)}: {reason}")

    def positions_of(self, splits: Sequence[str]) -> NDArray[np.int64]:
        """Positions of the images in any of those splits."""
        return np.flatnonzero(np.isin(self.splits, list(splits)))


class FileSource(Source):
    """Image files, by path."""

    def __init__(
        self, name: str, paths: list[Path], ids: list[str], labels: list[str], splits: list[str]
    ) -> None:  # fmt: skip
        super().__init__(name, ids, labels, splits)
        self._paths = paths
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Decode files with one thread a core; Pillow works outside the interpreter lock."""

        def one(position: int) -> tuple[NDArray[np.uint8], str] | str:
            try:
                data = read_file(self._paths[position])
                return decode(data, preprocessing), content_hash(data)
            except UnreadableImageError as error:
                return str(error)

        outcomes = list(self._threads.map(one, positions, chunksize=1))
        good = [(int(p), o) for p, o in zip(positions, outcomes, strict=True) if not isinstance(o, str)]
        images = np.empty((len(good), *preprocessing.shape), dtype=np.uint8)
        for row, (_, (pixels, _hash)) in enumerate(good):
            images[row] = pixels
        skipped = [(int(p), o) for p, o in zip(positions, outcomes, strict=True) if isinstance(o, str)]
        return Batch(np.array([p for p, _ in good], dtype=np.int64), images, [o[1] for _, o in good], skipped)

    def facts(self, position: int) -> ImageFacts:
        """As `Source.facts`."""
        return describe(read_file(self._paths[position]))

    def path(self, position: int) -> Path:
        """Where the file lies."""
        return self._paths[position]

    def _stamps(self) -> Iterator[str]:
        for path in self._paths:
            try:
                status = path.stat()
                yield f"{status.st_size} {status.st_mtime_ns}"
            except OSError:
                yield "gone"


class ArraySource(Source):
    """Images of one shape in an array, read a slice at a time.

    Parameters
    ----------
    read_rows : callable
        Sorted positions (n,) int64 to (n, h, w) or (n, h, w, c), uint8, uint16, bool, or float in [0, 1].
    shape : tuple of int
        Shape of one image: (h, w) or (h, w, c).
    stamp : str
        What changes when the array does.
    """

    def __init__(
        self,
        name: str,
        read_rows: Callable[[NDArray[np.int64]], NDArray[Any]],
        shape: tuple[int, ...],
        ids: list[str],
        labels: list[str],
        splits: list[str],
        stamp: str,
    ) -> None:
        super().__init__(name, ids, labels, splits)
        if len(shape) not in (2, 3) or 0 in shape or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
            raise SourceError(
                f"{name} holds arrays of shape {shape}: images are (height, width) or (height, width, 1, 3 or 4)"
            )
        self._read_rows, self._shape, self._stamp = read_rows, shape, stamp

    def read(self, positions: NDArray[np.int64], preprocessing: Preprocessing) -> Batch:
        """Read rows; where size and channels fit already, the whole batch at once."""
        order = np.argsort(positions, kind="stable")
        raw = self._read_rows(positions[order])[np.argsort(order)]
        reasons = self._unusable(raw)
        good = np.array([not r for r in reasons], dtype=bool)
        pixels = self._to_uint8(raw[good], preprocessing.white)
        hashes = [content_hash(np.ascontiguousarray(row).data) for row in raw[good]]
        images = self._arrange(pixels, preprocessing)
        skipped = [(int(p), r) for p, r in zip(positions, reasons, strict=True) if r]
        return Batch(positions[good], images, hashes, skipped)

    def facts(self, position: int) -> ImageFacts:
        """As `Source.facts`."""
        raw = self._read_rows(np.array([position]))
        if reason := self._unusable(raw)[0]:
            raise UnreadableImageError(reason)
        peak = float(raw.max()) if raw.dtype.kind in "ui" and raw.dtype.itemsize > 1 else None
        facts = describe_image(_to_pillow(self._to_uint8(raw, max(peak or 0, 1.0))[0]))
        return ImageFacts(facts.height, facts.width, facts.grey, peak)

    def _stamps(self) -> Iterator[str]:
        yield self._stamp

    def _unusable(self, raw: NDArray[Any]) -> list[str]:
        """Reason for each row that cannot be an image, empty where it can."""
        if raw.dtype.kind == "b" or raw.dtype.kind in "ui":
            negative = raw.min(axis=tuple(range(1, raw.ndim)), initial=0) < 0
            return ["has negative values" if n else "" for n in negative]
        if raw.dtype.kind != "f":
            raise SourceError(f"{self.name} holds {raw.dtype} values: images are integers, or floats in [0, 1]")
        axes = tuple(range(1, raw.ndim))
        finite = np.isfinite(raw).all(axis=axes)
        inside = (raw.min(axis=axes) >= 0) & (raw.max(axis=axes) <= 1)
        return [
            "" if ok else "has values outside [0, 1]" if whole else "has values that are not finite"
            for whole, ok in zip(finite, finite & inside, strict=True)
        ]

    def _to_uint8(self, raw: NDArray[Any], white: float) -> NDArray[np.uint8]:
        if raw.dtype == np.uint8:
            return raw
        return scale_to_uint8(raw, white if raw.dtype.kind in "ui" else 1.0)

    def _arrange(self, pixels: NDArray[np.uint8], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        """(n, h, w) or (n, h, w, c) to (n, channels, height, width)."""
        stacked = pixels[..., None] if pixels.ndim == 3 else pixels
        if stacked.shape[1:] == (preprocessing.height, preprocessing.width, preprocessing.channels):
            return np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))
        images = np.empty((len(pixels), *preprocessing.shape), dtype=np.uint8)
        for row, image in enumerate(pixels):
            images[row] = fit(_to_pillow(image), preprocessing)
        return images


def _to_pillow(pixels: NDArray[np.uint8]) -> Any:
    from PIL import Image

    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels)


def read_file(path: Path) -> bytes:
    """Bytes of a regular file; ``UnreadableImageError`` for anything else, so that no pipe can block."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImageError("not a regular file")
        if status.st_size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"file larger than {MAX_FILE_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def content_hash(data: Any) -> str:
    """32 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def open_source(name: str, *, labels: str = "none", data_dir: str | None = None) -> Source:
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

    Raises
    ------
    SourceError
        Nothing by that name, or no image in it.
    """
    path = Path(name).expanduser()
    if name == "digits":
        return _digits()
    if (dataset := name.partition(":")[0]) in DATASETS:
        return _torchvision(dataset, name, data_dir or os.environ.get("AESEARCH_DATA", "data"))
    if path.is_dir():
        return _folder(path.resolve(), labels)
    if path.suffix.lower() in ARRAY_SUFFIXES and path.is_file():
        return _array_file(path.resolve())
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        return _table(path.resolve())
    if path.is_file():
        raise SourceError(f"{name} is one file: give the folder it is in, or an .npy, .npz, .h5, .csv or .parquet")
    raise SourceError(f"no source {name!r}: it is no folder or file here, and no dataset (digits, {', '.join(DATASETS)})")


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
    )  # fmt: skip


def _torchvision(dataset: str, name: str, data_dir: str) -> Source:
    cls, arguments, label_attribute = DATASETS[dataset]
    wanted = name.partition(":")[2]
    if wanted and wanted not in arguments:
        raise SourceError(f"{dataset} has no split {wanted!r}: there is {' and '.join(arguments)}")
    import torchvision

    root = Path(data_dir).expanduser().resolve()
    images, ids, labels, splits = [], [], [], []
    for split in [wanted] if wanted else list(arguments):
        try:
            with contextlib.redirect_stdout(sys.stderr):  # torchvision announces downloads on stdout
                loaded = getattr(torchvision.datasets, cls)(root=root, download=True, **arguments[split])
        except Exception as error:  # network, disk, checksums: torchvision raises many kinds
            raise SourceError(f"cannot get {dataset} into {root} ({_short(error)}): --data-dir or AESEARCH_DATA "
                              "says where its files lie") from error  # fmt: skip
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
    if labels not in ("none", "folder"):
        raise SourceError(f"--labels {labels!r} is not one of none, folder")
    relative = sorted(_walk(root), key=lambda p: os.fsencode(p.as_posix()))
    ids, file_labels, splits = [], [], []
    for path in relative:
        folders = path.parts[:-1]
        split = SPLITS.get(folders[0].lower(), "") if folders else ""
        inner = folders[1:] if split else folders
        ids.append(_text(path.as_posix()))
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


def _text(name: str) -> str:
    """Valid UTF-8 for any file name."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


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
    return {str(c): [str(r[c] or "") for r in rows] for c in (rows[0] if rows else {}) if c is not None}


def _read_parquet(path: Path) -> dict[str, list[str]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SourceError("reading .parquet needs pyarrow: pip install 'aesearch[parquet]'") from None
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise SourceError(f"cannot read {path.name} as a parquet table: {_short(error)}") from error
    return {c: ["" if v is None else str(v) for v in table[c].to_pylist()] for c in table.column_names}


def _array_file(path: Path) -> Source:
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            shape, read, labels = _open_npy(path)
        elif suffix == ".npz":
            shape, read, labels = _open_npz(path)
        else:
            shape, read, labels = _open_h5(path)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise SourceError(f"cannot read {path.name} as an array of images: {_short(error)}") from error
    if len(shape) not in (3, 4):
        raise SourceError(f"{path.name} has shape {shape}: images are (N, height, width) or (N, height, width, channels)")
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
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False)[rows])

    return np.load(path, mmap_mode="r", allow_pickle=False).shape, read, None


def _open_npz(path: Path) -> Opened:
    """Archives are compressed: the images are read whole and stay in memory."""
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
        labels = next((_label_texts(file[k][:]) for k in LABEL_KEYS if k in arrays), None)

    def read(rows: NDArray[np.int64]) -> NDArray[Any]:
        with h5py.File(path) as file:
            if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
                return np.asarray(file[key][rows[0] : rows[-1] + 1])  # far quicker than a list of rows
            return np.asarray(file[key][rows])

    return shape, read, labels


def _image_key(dimensions: dict[str, int]) -> str:
    named = [k for k in IMAGE_KEYS if dimensions.get(k) in (3, 4)]
    candidates = named or [k for k, ndim in dimensions.items() if ndim in (3, 4)]
    if len(candidates) == 1 or named:
        return candidates[0]
    raise SourceError(f"which array holds the images? Call it 'x'; there is {', '.join(dimensions) or 'none'}")


def _label_texts(values: NDArray[Any]) -> list[str]:
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.ravel().tolist()]
