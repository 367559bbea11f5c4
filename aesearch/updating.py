"""A store brought up to date with its source: only images that are new or have changed are read and encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.autoencoders import Autoencoder
from aesearch.batches import in_order
from aesearch.decoding import Preprocessing
from aesearch.errors import SourceError
from aesearch.progress import step
from aesearch.sources import Batch, Source
from aesearch.store import Store, StoreWriter, contents_of, is_finished

LOOKED_AT = 64  # images, to tell whether a folder is the one that was elsewhere


@dataclass(frozen=True, eq=False)
class Update:
    """What an update found, in images.

    Attributes
    ----------
    added, changed, removed, unchanged, renamed : int
        By id; ``renamed`` are those that were there with the same content under an id that is gone.
    encoded : int
        Images the encoder had to see; content that was there under any id is not encoded again.
    skipped : int
        Files that gave no image.
    came_from : (rows,) int64
        For each row now the row it was before, -1 for a new one; no row before is named twice.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    renamed: int
    encoded: int
    skipped: int
    came_from: NDArray[np.int64]

    @classmethod
    def nothing(cls, rows: int, skipped: int) -> Update:
        """Nothing has changed."""
        return cls(0, 0, 0, rows, 0, 0, skipped, np.arange(rows))

    def to_json(self) -> dict[str, int]:
        """As ``aesearch update --json`` gives it."""
        names = ("added", "changed", "removed", "unchanged", "skipped", "renamed", "encoded")
        return {name: getattr(self, name) for name in names}


def update_features(
    source: Source,
    autoencoder: Autoencoder,
    before: Store,
    path: Path,
    *,
    encoder_fingerprint: str,
    progress: bool = False,
) -> Update:
    """Make a store that is up to date with its source from one that was; what was interrupted is continued.

    A file of the same id, size and time of change is taken as unchanged, unless the source is elsewhere now: then all
    are read. The rows then are in the source's order, as if all of it had been extracted anew.

    Parameters
    ----------
    before : Store
        As it was, made by the same encoder.
    path : Path
        Where the new one goes.

    Raises
    ------
    SourceError
        Not one image is left.
    """
    known = _Before(before)
    identity = {
        "encoder": encoder_fingerprint,
        "name": source.name,
        "source": source.fingerprint,
        "update_of": before.fingerprint,
        "batch_size": autoencoder.batch_size,
    }
    if is_finished(path, identity):
        return known.compare(Store(path))
    attributes = {"encoder_fingerprint": encoder_fingerprint, "source": source.name}
    unchanged = known.unchanged(source)
    spec = autoencoder.spec
    texts = {"id": source.ids, "label": source.labels, "split": source.splits}
    with StoreWriter(path, spec.feature_dim, identity, attributes, style_dim=spec.style_dim, texts=texts) as writer:
        begun = writer.next_position
        with step("update", len(source), done=begun, progress=progress) as bar:
            for group in in_order(begun, len(source), autoencoder.reading_size):
                columns, skipped = _rows_of(source, autoencoder, known, group, unchanged[group])
                listed = source.listing_skips if group[0] == 0 else []
                named = [(source.ids[p], reason) for p, reason in skipped]
                writer.append(columns, [*listed, *named], int(group[-1]) + 1)
                bar.update(len(group))
        if writer.finished_rows() == 0:
            raise SourceError(f"no usable image is left in {source.name}: the collection stays as it was")
        writer.finish()
    return known.compare(Store(path))


def share_known(source: Source, store: Store, preprocessing: Preprocessing) -> float:
    """Share of up to 64 images of a source, of ids that a store has if there are such, that it knows by content."""
    ids = set(store.texts("id"))
    places = np.flatnonzero([id in ids for id in source.ids])
    places = places if len(places) else np.arange(len(source))
    looked_at = places[np.unique(np.linspace(0, len(places) - 1, LOOKED_AT).astype(np.int64))]
    known = np.isin(contents_of(source.read(looked_at, preprocessing).hashes), store.contents())
    return float(known.mean()) if len(known) else 0.0


class _Before:
    """The store as it was, to look rows up by id and by content."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ids = {id: row for row, id in enumerate(store.texts("id"))}
        self.contents = store.contents()
        self._order = np.argsort(self.contents, kind="stable")
        self._sorted = self.contents[self._order]

    def unchanged(self, source: Source) -> NDArray[np.int64]:
        """For each image of the source its row, if its file is as it was, else -1."""
        if source.name != self.store.source:
            return np.full(len(source), -1, np.int64)
        rows = self.by_id(source.ids)
        same = (rows >= 0) & (source.stamps[:, 0] >= 0) & (self.store.stamps()[rows] == source.stamps).all(axis=1)
        return np.where(same, rows, -1)

    def by_id(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Row of each id, -1 where there is none."""
        return np.array([self.ids.get(id, -1) for id in ids], dtype=np.int64)

    def by_content(self, contents: NDArray[np.uint64]) -> NDArray[np.int64]:
        """A row of each content, -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(contents), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, contents), len(self._sorted) - 1)
        return np.where(self._sorted[places] == contents, self._order[places], -1)

    def compare(self, now: Store) -> Update:
        """What is different now."""
        ids, contents = now.texts("id"), now.contents()
        own = self.by_id(ids)
        same = (own >= 0) & (self.contents[own] == contents)
        gone = np.ones(len(self.contents), dtype=bool)
        gone[own[own >= 0]] = False
        came_from = np.where(same, own, -1)
        known = np.where(same, own, self.by_content(contents))
        # Of one content there may be several images: each row before goes to one row now, that of its own id first.
        free = np.setdiff1d(np.arange(len(gone)), own[same])
        waiting: dict[int, list[int]] = {}
        for row in free[np.argsort(gone[free], kind="stable")].tolist():  # those whose id is gone are taken first
            waiting.setdefault(int(self.contents[row]), []).append(row)
        for row in np.flatnonzero(~same & (known >= 0)).tolist():
            if left := waiting.get(int(contents[row])):
                came_from[row] = left.pop()
        renamed = int(((own < 0) & (came_from >= 0) & gone[came_from]).sum())
        return Update(
            added=int((own < 0).sum()) - renamed,
            changed=int(((own >= 0) & ~same).sum()),
            removed=int(gone.sum()) - renamed,
            unchanged=int(same.sum()),
            renamed=renamed,
            encoded=int((known < 0).sum()),
            skipped=len(now.skipped()),
            came_from=came_from,
        )


def _rows_of(
    source: Source, autoencoder: Autoencoder, before: _Before, group: NDArray[np.int64], unchanged: NDArray[np.int64]
) -> tuple[dict[str, Any], list[tuple[int, str]]]:
    """Columns of a group's rows, and what gave none; ``unchanged`` are the rows before of each, -1 to be read."""
    spec = autoencoder.spec
    kept = unchanged >= 0
    batch = _read(source, group[~kept], autoencoder)
    hashes = list(batch.hashes)
    known = before.by_content(contents_of(hashes))
    fresh = known < 0
    positions = np.concatenate([group[kept], batch.positions[~fresh], batch.positions[fresh]])
    old = np.concatenate([unchanged[kept], known[~fresh]])
    columns = before.store.columns(old)
    if fresh.any():
        latents, errors = autoencoder.encode_and_score(batch.images[fresh])
        new = {
            "features": latents[:, : spec.feature_dim],
            "style": latents[:, spec.feature_dim :],
            "reconstruction_error": errors,
            "held_out": np.ones(len(errors), dtype=bool),
        }
        columns = {name: np.concatenate([values, new[name]]) for name, values in columns.items()}
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    by_position = dict(zip(batch.positions.tolist(), hashes, strict=True))
    by_position |= zip(group[kept].tolist(), before.store.texts("content_hash", unchanged[kept]), strict=True)
    return {
        **{name: values[order] for name, values in columns.items()},
        "stamp": source.stamps[positions],
        **{name: source.texts(name, positions) for name in ("id", "label", "split")},
        "content_hash": [by_position[p] for p in positions.tolist()],
    }, batch.skipped


def _read(source: Source, positions: NDArray[np.int64], autoencoder: Autoencoder) -> Batch:
    preprocessing = autoencoder.spec.preprocessing
    if len(positions):
        return source.read(positions, preprocessing)
    return Batch(positions, np.empty((0, *preprocessing.shape), np.uint8), [])
