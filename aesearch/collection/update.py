"""A store brought up to date with its source: only images that are new or have changed are read and encoded."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import AesearchError, SourceError
from aesearch.files.names import listed
from aesearch.images.batches import in_order
from aesearch.images.decode import NOTHING, Preprocessing, Tally, UnreadableImageError
from aesearch.images.sources.base import Batch, Source
from aesearch.images.sources.files import FileSource
from aesearch.images.worker_processes import content_hash, read_file
from aesearch.network.autoencoder import Autoencoder
from aesearch.progress import step
from aesearch.store.layout import CHUNK_ROWS
from aesearch.store.reader import Store, contents_of, is_finished
from aesearch.store.writer import StoreWriter

LOOKED_AT = 64  # images, to tell whether a folder is the one that was elsewhere
FEW_GONE, MANY_GONE = 10, 0.25  # images, and share of them: fewer may go without a question, more may not
KEPT_DAYS, MOST_KEPT = 30, 1_000_000  # that what an image was encoded to outlives it; of how many images


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
    tally : Tally
        Of the images that were read.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    renamed: int
    encoded: int
    skipped: int
    came_from: NDArray[np.int64]
    tally: Tally = NOTHING

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
    vanished: Store | None = None,
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
    vanished : Store, optional
        What `keep_vanished` has kept: images that are back are not encoded again.

    Raises
    ------
    SourceError
        Not one image is left.
    """
    known = _Before(before, vanished)
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
    groups = _groups_now(source, before)
    texts = {"id": source.ids, "label": source.labels, "split": source.splits, "group": groups}
    with StoreWriter(path, spec.feature_dim, identity, attributes, style_dim=spec.style_dim, texts=texts) as writer:
        begun, tally = writer.next_position, NOTHING
        with step("update", len(source), done=begun, progress=progress) as bar:
            for group in in_order(begun, len(source), autoencoder.reading_size):
                columns, skipped, left_out = _rows_of(source, autoencoder, known, group, unchanged[group], groups)
                tally += left_out
                listed = source.listing_skips if group[0] == 0 else []
                named = [(source.ids[p], reason) for p, reason in skipped]
                writer.append(columns, [*listed, *named], int(group[-1]) + 1)
                bar.update(len(group))
        if writer.finished_rows() == 0:
            raise SourceError(f"no usable image is left in {source.name}: the collection stays as it was")
        writer.finish()
    return replace(known.compare(Store(path)), tally=tally)


def _groups_now(source: Source, before: Store) -> list[str]:
    """The group of each image: as the source says, or as it was found for the image of that id."""
    if any(source.groups):
        return source.groups
    known = dict(zip(before.texts("id"), before.texts("group"), strict=True))
    return [known.get(id, "") for id in source.ids]


def share_known(source: Source, store: Store, preprocessing: Preprocessing) -> float:
    """Share of up to 64 images of a source, of ids that a store has if there are such, that it knows by content."""
    ids = set(store.texts("id"))
    places = np.flatnonzero([id in ids for id in source.ids])
    places = places if len(places) else np.arange(len(source))
    looked_at = places[np.unique(np.linspace(0, len(places) - 1, LOOKED_AT).astype(np.int64))]
    known = np.isin(contents_of(source.read(looked_at, preprocessing).hashes), store.contents())
    return float(known.mean()) if len(known) else 0.0


def what_is_gone(source: Source, store: Store) -> str:
    """Say so, if a whole folder of images is gone, or many of all, as when a disk is away; else empty.

    Images that lie elsewhere now are not gone: files of their size are read to tell; nothing is decoded.
    """
    ids, stamps = store.texts("id"), store.stamps()
    places = {id: place for place, id in enumerate(source.ids)}
    place_of = np.array([places.get(id, -1) for id in ids], dtype=np.int64)
    gone = (place_of < 0) | ((stamps[:, 0] >= 0) & (source.stamps[place_of, 0] < 0))
    if _describe_gone(ids, gone) and isinstance(source, FileSource):
        known, sizes = set(ids), set(stamps[gone, 0].tolist())
        new = [p for p, id in enumerate(source.ids) if id not in known and int(source.stamps[p, 0]) in sizes]
        elsewhere = []
        for position in new:
            with contextlib.suppress(UnreadableImageError):
                elsewhere.append(content_hash(read_file(source.path(position))))
        gone &= ~np.isin(store.contents(), contents_of(elsewhere))
    return _describe_gone(ids, gone)


def _describe_gone(ids: Sequence[str], gone: NDArray[np.bool_]) -> str:
    number = int(gone.sum())
    if number < FEW_GONE:
        return ""
    before, left = _by_folder(ids), _by_folder(itertools.compress(ids, ~gone))
    whole = [folder for folder, count in before.items() if not left[folder] and count >= FEW_GONE]
    highest = [f"{before[folder]:,} in {folder}" for folder in whole if folder.parent not in whole]
    if not highest and number < MANY_GONE * len(ids):
        return ""
    return f"{number:,} of {len(ids):,} images are gone{', all ' if highest else ''}{listed(highest)}"


def _by_folder(ids: Iterable[str]) -> Counter[PurePosixPath]:
    """How many images lie in each folder, or below it."""
    found: Counter[PurePosixPath] = Counter()
    for folder, count in Counter(id.rpartition("/")[0] for id in ids).items():
        path = PurePosixPath(folder)
        found.update(dict.fromkeys([path, *path.parents][:-1], count))
    return found


def open_vanished(path: Path, like: Store) -> Store | None:
    """What `keep_vanished` has written, if it goes with a store."""
    with contextlib.suppress(AesearchError, ValueError):
        store, one = Store(path), np.zeros(1, np.int64)
        shapes = [{name: (v.shape, v.dtype) for name, v in s.columns(one).items()} for s in (store, like)]
        if store.encoder_fingerprint == like.encoder_fingerprint and shapes[0] == shapes[1]:
            return store
    return None


def keep_vanished(path: Path, before: Store, now: Store, vanished: Store | None) -> int:
    """Keep what images that are gone were encoded to, for 30 days, as a store without names; how many it holds.

    Parameters
    ----------
    path : Path
        Where it goes; not written where there is nothing to keep, or nothing else than in ``vanished``.
    vanished : Store, optional
        What was kept before. Of both, the latest million is kept.
    """
    there, at = now.contents(), time.time_ns()
    lost = _missing(before.contents(), there)
    parts = [(before, lost, np.full(len(lost), at))]
    if vanished is not None:
        since = vanished.stamps()[:, 1]
        still = _missing(vanished.contents(), there)
        still = still[since[still] > at - KEPT_DAYS * 24 * 3600 * 10**9]
        if not len(lost) and len(still) == vanished.rows:
            return vanished.rows
        latest = np.argsort(-since[still], kind="stable")[: max(0, MOST_KEPT - len(lost))]
        still = np.sort(still[latest])
        parts.append((vanished, still, since[still]))
    rows = sum(len(chosen) for _, chosen, _ in parts)
    if rows:
        _write_vanished(path, before, parts)
    return rows


def _missing(contents: NDArray[np.uint64], there: NDArray[np.uint64]) -> NDArray[np.int64]:
    """One row of each content that is not there, rising."""
    first = np.unique(contents, return_index=True)[1]
    return np.sort(first[~np.isin(contents[first], there)])


def _write_vanished(path: Path, like: Store, parts: Sequence[tuple[Store, NDArray[Any], NDArray[Any]]]) -> None:
    """Copy rows of stores, a time of each in place of its file's, without ids, labels and splits."""
    attributes = {"encoder_fingerprint": like.encoder_fingerprint, "source": like.source}
    identity = {"vanished_from": like.fingerprint, "at": time.time_ns()}
    style = like.columns(np.zeros(1, np.int64)).get("style")
    none = {name: [""] for name in ("id", "label", "split")}
    done = 0
    with StoreWriter(
        path, like.dim, identity, attributes, style_dim=0 if style is None else style.shape[1], texts=none
    ) as writer:
        for store, rows, since in parts:
            for group in in_order(0, len(rows), CHUNK_ROWS):
                some = rows[group]
                stamps = np.stack([np.full(len(group), -1), since[group]], axis=1)
                texts = {name: [""] * len(group) for name in none} | {"content_hash": store.texts("content_hash", some)}
                done += len(group)
                writer.append({**store.columns(some), "stamp": stamps, **texts}, [], done)
        writer.finish()


class _Contents:
    """Contents of rows, to look rows up by them."""

    def __init__(self, contents: NDArray[np.uint64]) -> None:
        self._order = np.argsort(contents, kind="stable")
        self._sorted = contents[self._order]

    def rows(self, contents: NDArray[np.uint64]) -> NDArray[np.int64]:
        """A row of each content, -1 where there is none."""
        if not len(self._sorted):
            return np.full(len(contents), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, contents), len(self._sorted) - 1)
        return np.where(self._sorted[places] == contents, self._order[places], -1)


class _Before:
    """The store as it was, to look rows up by id and by content; and by content what vanished from it earlier."""

    def __init__(self, store: Store, vanished: Store | None = None) -> None:
        self.store, self.vanished = store, vanished
        self.ids = {id: row for row, id in enumerate(store.texts("id"))}
        self.contents = store.contents()
        trained = itertools.compress(store.texts("group"), ~store.held_out())
        self.trained_groups = set(trained) - {""}  # what belongs to them is not new to the encoder
        self.by_content = _Contents(self.contents).rows
        self.by_vanished = _Contents(np.empty(0, np.uint64) if vanished is None else vanished.contents()).rows

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
            encoded=int((self.by_vanished(contents[known < 0]) < 0).sum()),
            skipped=len(now.skipped()),
            came_from=came_from,
        )


def _rows_of(
    source: Source,
    autoencoder: Autoencoder,
    before: _Before,
    group: NDArray[np.int64],
    unchanged: NDArray[np.int64],
    groups: Sequence[str],
) -> tuple[dict[str, Any], list[tuple[int, str]], Tally]:
    """Columns of a group's rows, what gave none, what was left out.

    ``unchanged`` are the rows before of each, -1 to be read.
    """
    spec = autoencoder.spec
    kept = unchanged >= 0
    batch = _read(source, group[~kept], autoencoder)
    hashes = list(batch.hashes)
    contents = contents_of(hashes)
    known = before.by_content(contents)
    back = np.where(known < 0, before.by_vanished(contents), -1)
    fresh = (known < 0) & (back < 0)
    positions = np.concatenate([group[kept], *(batch.positions[which] for which in (known >= 0, back >= 0, fresh))])
    parts: list[dict[str, Any]] = [before.store.columns(np.concatenate([unchanged[kept], known[known >= 0]]))]
    if before.vanished is not None:
        parts.append(before.vanished.columns(back[back >= 0]))
    if fresh.any():
        latents, errors = autoencoder.encode_and_score(batch.images[fresh])
        new = {
            "features": latents[:, : spec.feature_dim],
            "style": latents[:, spec.feature_dim :],
            "reconstruction_error": errors,
            "held_out": np.array([groups[p] not in before.trained_groups for p in batch.positions[fresh]]),
        }
        parts.append(new)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(positions, kind="stable")
    positions = positions[order]
    by_position = dict(zip(batch.positions.tolist(), hashes, strict=True))
    by_position |= zip(group[kept].tolist(), before.store.texts("content_hash", unchanged[kept]), strict=True)
    return (
        {
            **{name: values[order] for name, values in columns.items()},
            "stamp": source.stamps[positions],
            **{name: source.texts(name, positions) for name in ("id", "label", "split")},
            "group": [groups[position] for position in positions],
            "content_hash": [by_position[p] for p in positions.tolist()],
        },
        batch.skipped,
        batch.tally,
    )


def _read(source: Source, positions: NDArray[np.int64], autoencoder: Autoencoder) -> Batch:
    preprocessing = autoencoder.spec.preprocessing
    if len(positions):
        return source.read(positions, preprocessing)
    return Batch(positions, np.empty((0, *preprocessing.shape), np.uint8), [])
