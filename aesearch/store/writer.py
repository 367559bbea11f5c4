"""Writing a store of features, safe against kills."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError
from aesearch.files.arrays import UNSOUND
from aesearch.files.atomic import needing_room, put_in_place
from aesearch.store.layout import CHUNK_ROWS, FORMAT_VERSION, HASH_BYTES, SKIPPED, TEXTS, data_of, read_skipped
from aesearch.version import __version__

if TYPE_CHECKING:
    import h5py


FLUSH_SECONDS, FLUSH_BYTES = 5.0, 2**25  # of work are lost to a kill at most, and pending at most
SLACK_BYTES = 2**18  # of HDF5's own tables, at most, between two flushes
VARIABLE_BYTES = 32  # of a text that is not written at a fixed length, beside its own
TEXTS_AT_ONCE = 2**16
FIXED_BYTES = 128  # texts that are never longer are written at a fixed length, which is far quicker


class StoreWriter:
    """Fills a store batch by batch under another name; what was flushed survives a kill.

    Parameters
    ----------
    path : Path
        Where the finished store goes; the growing one lies beside it as ``….partial``.
    dim, style_dim : int
        Numbers in a row's features, and beside them in its style.
    identity : dict
        What the rows depend on. A partial store of the same identity is continued, any other replaced.
    attributes : dict of str
        Attributes of the finished file.
    texts : dict of sequence of str
        Every ``id``, ``label``, ``split`` and ``group`` there may be: how long they get. One left out may get of any
        length; without groups no image belongs to another.

    Raises
    ------
    AesearchError
        There is no room on the disk, at first or later: what is there stays.
    """

    def __init__(
        self,
        path: Path,
        dim: int,
        identity: dict[str, Any],
        attributes: dict[str, str],
        *,
        style_dim: int = 0,
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.path = Path(path)
        self._lengths = {name: _longest(values) for name, values in ({"group": [""]} | dict(texts or {})).items()}
        self._lengths["content_hash"] = HASH_BYTES
        self._numbers: dict[str, tuple[str, tuple[int, ...]]] = {
            "features": ("f4", (dim,)),
            "reconstruction_error": ("f4", ()),
            "held_out": ("bool", ()),
            "stamp": ("i8", (2,)),
        }
        if style_dim:
            self._numbers["style"] = ("f4", (style_dim,))
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.next_position = 0
        self._pending: list[dict[str, Any]] = []
        self._pending_rows = 0
        self._flushed = time.monotonic()
        self._attributes = attributes
        written = json.dumps(identity, sort_keys=True)
        self._digests = {name: hashlib.blake2b(digest_size=16) for name in TEXTS}  # for the fingerprint
        self._checks = dict.fromkeys([*self._numbers, *TEXTS, *SKIPPED], 0)  # whether the partial file is sound
        fixed = [length for name in TEXTS if (length := self._text_bytes(name)) is not None]
        numbers = sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in self._numbers.values())
        self._width = numbers + sum(fixed) + VARIABLE_BYTES * (len(TEXTS) - len(fixed))  # of a row
        self._file: Any = self._continue(written)
        try:
            with needing_room(self.path, self._growth(self.finished_rows(), len((texts or {}).get("id", ())))):
                self._file = self._file or self._create(written)
        except AesearchError:
            if self._file:
                self._file.close()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file:
            try:
                self.flush()  # Ctrl-C keeps what is done
            finally:
                self._file.close()

    def append(
        self,
        columns: dict[str, Any],
        skipped: Sequence[tuple[str, str]],
        next_position: int,
    ) -> None:
        """Add rows.

        Parameters
        ----------
        columns : dict
            ``features`` (n, dim), ``style`` (n, style_dim), left out where that is 0, ``reconstruction_error`` (n,),
            ``held_out`` (n,), ``stamp`` (n, 2), and n strings for each of ``TEXTS``; ``group`` may be left out.
        skipped : sequence of (id, reason)
        next_position : int
            Where in the source a continued run starts.
        """
        n = len(columns["features"])
        columns = {"group": [""] * n} | columns
        if any(len(values) != n for values in columns.values()):
            raise ValueError(f"columns of different lengths: { {k: len(v) for k, v in columns.items()} }")
        self._pending.append(columns | {"skipped": list(skipped)})
        self._pending_rows += n
        self.next_position = next_position
        if self._pending_rows * self._width >= FLUSH_BYTES or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what is pending; the count of finished rows is written last."""
        file, pending = self._file, self._pending
        if pending:
            columns = {name: _together([part[name] for part in pending]) for name in (*self._numbers, *TEXTS)}
            joined = {name: "\0".join([*columns[name], ""]).encode() for name in TEXTS}
            for name in TEXTS:
                columns[name] = _as_texts(columns[name], joined[name], file[name].dtype)
            skipped = [s for part in pending for s in part["skipped"]]
            rows, listed = (int(v) for v in file.attrs["progress"][:2])
            loose = sum(len(data) for name, data in joined.items() if self._text_bytes(name) is None)
            loose += sum(len(text.encode()) + VARIABLE_BYTES for texts in skipped for text in texts)
            self._reserve(self._growth(rows, rows + len(columns["features"])) + 2 * loose)
            checks = dict(self._checks)
            for name, values in columns.items():
                _put(file[name], rows, values)
                data: Any = joined[name] if name in joined else np.ascontiguousarray(values)
                checks[name] = zlib.crc32(data, checks[name])
            for place, name in enumerate(SKIPPED):
                texts = [s[place] for s in skipped]
                _put(file[name], listed, texts)
                checks[name] = zlib.crc32("\0".join([*texts, ""]).encode(), checks[name])
            file.flush()
            done = rows + len(columns["features"]), listed + len(skipped), self.next_position
            file.attrs["progress"] = [*done, *checks.values()]
            # From here on the rows count: interrupted before, they are written once more to the same place.
            self._pending, self._pending_rows, self._checks = [], 0, checks
            file.flush()
            for name, data in joined.items():
                self._digests[name].update(data)
        self._pending, self._pending_rows, self._flushed = [], 0, time.monotonic()

    def _growth(self, rows: int, then: int) -> int:
        """Bytes that the file grows by, from so many rows to so many: it grows by chunks."""
        return max(0, -(-then // CHUNK_ROWS) - -(-rows // CHUNK_ROWS)) * CHUNK_ROWS * self._width + SLACK_BYTES

    def _text_bytes(self, name: str) -> int | None:
        """Bytes of a text written at a fixed length; the last one is to spare. None where it is written as it is."""
        length = self._lengths.get(name, FIXED_BYTES + 1)
        return length + 1 if length <= FIXED_BYTES else None

    def _reserve(self, size: int) -> None:
        """Have the disk keep room for what is to be written: HDF5 does not survive a full one."""
        with needing_room(self.path, size), self.partial.open("rb+") as file:
            try:
                os.posix_fallocate(file.fileno(), self._file.id.get_filesize(), size)
            except (AttributeError, OSError) as error:  # some systems, and file systems, cannot: then checking must do
                if getattr(error, "errno", None) not in (None, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                    raise

    def finished_rows(self) -> int:
        """Rows written so far."""
        self.flush()
        return len(self._file["features"]) if self._file else 0

    def skipped(self) -> list[tuple[str, str]]:
        """(id, reason) of what gave no row so far."""
        self.flush()
        return read_skipped(self._file)

    def finish(self) -> None:
        """Stamp the store with its fingerprint and put it in place."""
        self.flush()
        file = self._file
        self._reserve(SLACK_BYTES)
        file.attrs["created_with"] = f"aesearch {__version__}"
        file.attrs.update(self._attributes)
        digest = hashlib.blake2b(self._attributes["encoder_fingerprint"].encode(), digest_size=16)
        for name in TEXTS:
            digest.update(self._digests[name].digest())
        file.attrs["fingerprint"] = digest.hexdigest()
        file.flush()
        with self.partial.open("rb+") as raw:
            os.fsync(raw.fileno())  # the long wait, while a kill still leaves something to go on from
        file.attrs["checksums"] = json.dumps(self._checks)
        del file.attrs["progress"]
        size = file.id.get_filesize()
        file.close()
        self._file = None
        if self.partial.stat().st_size > size:
            os.truncate(self.partial, size)  # what was reserved and not needed
        put_in_place(self.partial, self.path)

    def _create(self, identity: str) -> h5py.File:
        import h5py

        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial.touch()  # where that is not allowed, Python says so in fewer words than HDF5
        file = h5py.File(self.partial, "w")
        for number, (dtype, shape) in self._numbers.items():
            file.create_dataset(number, (0, *shape), dtype, maxshape=(None, *shape), chunks=(CHUNK_ROWS, *shape))
        for name in (*TEXTS, *SKIPPED):
            text = h5py.string_dtype("utf-8", self._text_bytes(name))
            file.create_dataset(name, (0,), text, maxshape=(None,), chunks=(CHUNK_ROWS,))
        file.attrs["format_version"] = FORMAT_VERSION
        file.attrs["identity"] = identity
        file.attrs["progress"] = [0, 0, 0, *self._checks.values()]
        return file

    def _continue(self, identity: str) -> h5py.File | None:
        """Open a partial store of this identity, cut to its finished rows; none if it is torn or damaged."""
        import h5py

        try:
            file = h5py.File(self.partial, "r+")
        except OSError:  # absent, or torn by a power cut
            return None
        try:
            if self._read_again(file, identity):
                return file
        except UNSOUND:
            pass
        self._checks = dict.fromkeys(self._checks, 0)
        self._digests = {name: hashlib.blake2b(digest_size=16) for name in TEXTS}
        self.next_position = 0
        with contextlib.suppress(OSError, RuntimeError):
            file.close()
        return None

    def _read_again(self, file: h5py.File, identity: str) -> bool:
        """Cut a partial file to its finished rows, and read them; whether they are those that were written."""
        if file.attrs["identity"] != identity or int(file.attrs["format_version"]) != FORMAT_VERSION:
            return False
        rows, skipped, self.next_position, *written = (int(v) for v in file.attrs["progress"])
        for name in self._checks:
            count = skipped if name in SKIPPED else rows
            if len(file[name]) < count:
                return False
            file[name].resize(count, axis=0)
            for data in data_of(file[name]):
                self._checks[name] = zlib.crc32(data, self._checks[name])
                if name in TEXTS:
                    self._digests[name].update(data)
        return [*self._checks.values()] == written


def _longest(values: Sequence[str]) -> int:
    """Length in bytes of the longest."""
    longest = 0
    for start in range(0, len(values), TEXTS_AT_ONCE):
        some = values[start : start + TEXTS_AT_ONCE]
        lengths = map(len, some) if "".join(some).isascii() else (len(v.encode()) for v in some)
        longest = max(longest, max(lengths))
    return longest


def _together(parts: Sequence[Any]) -> Any:
    """One array or list of all parts, without a copy if there is but one."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [*itertools.chain(*parts)]


def _as_texts(values: Sequence[str], joined: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array of texts that are nowhere cut off: of a fixed length, the last byte is to spare.

    ``joined`` are all of them, each with a NUL at its end.
    """
    if dtype.kind != "S":
        return np.array(values, dtype)
    as_they_are = len(joined) == len(values) * dtype.itemsize  # hashes, or nothing but empty texts
    array = np.frombuffer(joined, dtype) if as_they_are else np.array([*map(str.encode, values)], dtype)
    if array.view(np.uint8)[dtype.itemsize - 1 :: dtype.itemsize].any():
        raise ValueError(f"a text longer than the {dtype.itemsize - 1} bytes that were announced")
    return array


def _put(dataset: h5py.Dataset, start: int, values: NDArray[Any] | list[str]) -> None:
    """Write the values from there on, in one go; what came after is dropped."""
    if len(values):
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values
