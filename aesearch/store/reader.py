"""Reading a store of features: rows of an HDF5 file."""

from __future__ import annotations

import functools
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, CollectionNotFoundError, StaleArtifactError
from aesearch.files.arrays import UNSOUND, check_plain
from aesearch.files.naming import command_for
from aesearch.store.layout import CHUNK_ROWS, FORMAT_VERSION, LATER, NUMBERS, TEXTS, data_of, read_skipped

if TYPE_CHECKING:
    import h5py


def contents_of(hashes: Sequence[str | bytes]) -> NDArray[np.uint64]:
    """The first 64 bits of content hashes."""
    return np.array([int(value[:16], 16) for value in hashes], dtype=np.uint64)


class Store:
    """Reads a finished ``features.h5``; the file is open only during a call.

    Attributes
    ----------
    rows, dim : int
        Shape of the features.
    encoder_fingerprint, fingerprint : str
        Of the encoder that made it, and of what is in it.
    source : str
    """

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = Path(path)
        if not self.path.is_file():
            build = command_for("build-index SOURCE", self.path.parent)
            raise CollectionNotFoundError(f"there are no features at {path}: run {build}")
        remedy = f"run {command_for('extract', self.path.parent)}"
        try:
            with h5py.File(self.path) as file:
                version = int(file.attrs["format_version"])
                if version != FORMAT_VERSION:
                    raise AesearchError(f"{path} has format {version}, this aesearch reads {FORMAT_VERSION}: {remedy}")
                check_plain(file)
                self.rows, self.dim = file["features"].shape
                self._there = [name for name in (*TEXTS, *NUMBERS) if name in file or name not in LATER]
                if any(len(file[name]) != self.rows for name in self._there):
                    raise KeyError("datasets of different lengths")
                self.encoder_fingerprint = str(file.attrs["encoder_fingerprint"])
                self.fingerprint = str(file.attrs["fingerprint"])
                self.source = str(file.attrs["source"])
        except UNSOUND as error:
            raise AesearchError(f"{path} is no feature store, or is damaged: {remedy}") from error

    def features(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Features (n, dim) float32, of all rows or of those given."""
        return np.asarray(self._read("features", rows), dtype=np.float32)

    def rows_of_features(self) -> StoredRows:
        """The features, read only where sliced."""
        return StoredRows(self)

    def latents(self, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
        """Features and style side by side, (n, latent_dim) float32, of all rows or of those given."""
        with self._open() as file:
            names = [name for name in ("features", "style") if name in file]
        return np.hstack([self._read(name, rows) for name in names])

    def reconstruction_errors(self) -> NDArray[np.float32]:
        """Mean squared error per pixel on the [0, 1] scale, (rows,) float32."""
        return np.asarray(self._read("reconstruction_error", None), dtype=np.float32)

    def held_out(self) -> NDArray[np.bool_]:
        """Whether the encoder was not trained on the image of each row, (rows,) bool."""
        return np.asarray(self._read("held_out", None), dtype=np.bool_)

    def stamps(self) -> NDArray[np.int64]:
        """Size in bytes and time of change in ns of each row's file, (rows, 2) int64; -1 where there is none."""
        with self._open() as file:
            known = "stamp" in file
        return np.asarray(self._read("stamp", None), np.int64) if known else np.full((self.rows, 2), -1, np.int64)

    def columns(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """All numbers of those rows, as `StoreWriter.append` takes them, but for the stamps."""
        with self._open() as file:
            names = [name for name in ("features", *NUMBERS) if name in file and name != "stamp"]
        return {name: self._read(name, rows) for name in names}

    def texts(self, name: str, rows: NDArray[np.int64] | Sequence[int] | None = None) -> list[str]:
        """One of ``id``, ``label``, ``split``, ``group``, ``content_hash``, of all rows or of those given."""
        if name not in self._there and name in LATER:
            return [""] * (self.rows if rows is None else len(rows))
        if rows is not None:
            return [v.decode() for v in self._read(name, rows).tolist()]
        found: list[str] = []
        shared: dict[bytes, str] = {}  # a million equal labels are one string
        for block in self._blocks(name):
            if name in ("label", "split"):
                shared |= {v: v.decode() for v in set(block).difference(shared)}
                found += [shared[v] for v in block]
            else:
                found += [v.decode() for v in block]
        return found

    def where(self, name: str, holds: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Of which rows such a text fulfils a condition, (rows,) bool."""
        found = np.empty(self.rows, dtype=bool)
        for start, block in zip(range(0, self.rows, CHUNK_ROWS), self._blocks(name), strict=True):
            known = {v: holds(v.decode()) for v in set(block)}
            found[start : start + len(block)] = [known[v] for v in block]
        return found

    def _blocks(self, name: str) -> Iterator[list[bytes]]:
        with self._open() as file:
            for start in range(0, self.rows, CHUNK_ROWS):
                yield file[name][start : start + CHUNK_ROWS].tolist()

    def contents(self) -> NDArray[np.uint64]:
        """The first 64 bits of each row's content hash, (rows,) uint64."""
        numbers = np.empty(self.rows, np.uint64)
        for start, block in zip(range(0, self.rows, CHUNK_ROWS), self._blocks("content_hash"), strict=True):
            numbers[start : start + len(block)] = contents_of(block)
        return numbers

    def skipped(self) -> list[tuple[str, str]]:
        """(id, reason) of what gave no row."""
        with self._open() as file:
            return read_skipped(file)

    def is_sound(self) -> bool:
        """Whether all is as it was written, by the checksums in the file: for a store that no manifest knows yet."""
        try:
            with self._open() as file:
                written = json.loads(file.attrs["checksums"])
                return all(checksum == _checksum(file[name]) for name, checksum in written.items())
        except UNSOUND:
            return False

    def _read(self, name: str, rows: NDArray[np.int64] | Sequence[int] | slice | None) -> Any:
        with self._open() as file:
            if rows is None or isinstance(rows, slice):
                return file[name][rows or slice(None)]
            return _scattered(file[name], np.asarray(rows, dtype=np.int64))

    def _open(self) -> h5py.File:
        """The file, if it is still the one that was opened first: rows of another are other images."""
        import h5py

        try:
            file = h5py.File(self.path, rdcc_nbytes=0)  # of a chunk, only what is asked for is read
        except OSError as error:
            raise StaleArtifactError(f"{self.path} is gone, or has changed: open the collection again") from error
        if str(file.attrs.get("fingerprint")) != self.fingerprint:
            file.close()
            raise StaleArtifactError(f"{self.path} has changed: open the collection again")
        return file


def _scattered(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Those rows: of each chunk in one go, which is far quicker than one by one."""
    order = np.argsort(rows, kind="stable")
    rising = rows[order]
    found = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    bounds = [*np.flatnonzero(np.diff(rising // CHUNK_ROWS, prepend=-1)), len(rows)]
    for first, end in itertools.pairwise(bounds):
        low = rising[first]
        found[order[first:end]] = dataset[low : rising[end - 1] + 1][rising[first:end] - low]
    return found


def is_finished(path: Path, identity: dict[str, Any]) -> bool:
    """Whether a sound store of that identity lies there; see `StoreWriter`."""
    try:
        store = Store(path)
        with store._open() as file:
            same = file.attrs.get("identity") == json.dumps(identity, sort_keys=True)
        return same and store.is_sound()
    except AesearchError:
        return False


class StoredRows:
    """Features of a store that stay on the disk: sliced like an array (rows, dim) float32."""

    def __init__(self, store: Store) -> None:
        self._store, self.shape = store, (store.rows, store.dim)

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return np.asarray(self._store._read("features", rows), dtype=np.float32)


def _checksum(dataset: h5py.Dataset) -> int:
    return functools.reduce(lambda before, data: zlib.crc32(data, before), data_of(dataset), 0)
