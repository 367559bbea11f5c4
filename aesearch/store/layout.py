"""How a store is laid out on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


FORMAT_VERSION = 2
CHUNK_ROWS = 8192
TEXTS = ("id", "label", "split", "group", "content_hash")
NUMBERS = ("reconstruction_error", "held_out", "style", "stamp")  # beside the features
SKIPPED = ("skipped/id", "skipped/reason")
LATER = ("style", "stamp", "group")  # not in every store
HASH_BYTES = 32


def data_of(dataset: h5py.Dataset) -> Iterator[Any]:
    """What checksums are made of: numbers as they are, texts each with a NUL at its end."""
    for start in range(0, len(dataset), CHUNK_ROWS):
        block = dataset[start : start + CHUNK_ROWS]
        yield b"\0".join([*block.tolist(), b""]) if block.dtype.kind in "SO" else block


def read_skipped(file: h5py.File) -> list[tuple[str, str]]:
    """Ids of files that gave no row, and why."""
    ids, reasons = file["skipped/id"][:], file["skipped/reason"][:]
    return [(i.decode(), r.decode()) for i, r in zip(ids, reasons, strict=True)]
