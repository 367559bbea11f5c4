"""A source and an encoder to a store, batch by batch; memory is bounded by the batch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.errors import SourceError
from aesearch.images.batches import in_order, read_batches
from aesearch.images.decode import NOTHING, Tally
from aesearch.images.sources.base import Batch, Source
from aesearch.images.worker_processes import content_hash
from aesearch.network.autoencoder import Autoencoder
from aesearch.progress import step
from aesearch.store.writer import StoreWriter


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch with its latents (n, latent_dim) and reconstruction errors (n,), both float32."""

    batch: Batch
    latents: NDArray[np.float32]
    errors: NDArray[np.float32]


@dataclass(frozen=True)
class Extraction:
    """What an extraction did: rows in the store, files skipped, rows found done, speed and tally of the rest."""

    rows: int
    skipped: int
    resumed_at: int
    seconds: float
    images_per_second: float
    tally: Tally = NOTHING


def extract_features(
    source: Source,
    autoencoder: Autoencoder,
    path: Path,
    *,
    encoder_fingerprint: str,
    trained_on: NDArray[np.bool_] | None = None,
    groups: Sequence[str] | None = None,
    progress: bool = False,
) -> Extraction:
    """Encode every image of a source into a store; an interrupted run is continued.

    Parameters
    ----------
    path : Path
        The store; it appears when it is complete.
    encoder_fingerprint : str
        Kept in the store: features of one encoder are never searched with another.
    trained_on : (len(source),) bool, optional
        Which images the encoder was trained on; by default none.
    groups : sequence of len(source) str, optional
        Which images belong together; by default as the source says.

    Raises
    ------
    SourceError
        Not one image could be read.
    """
    together = source.groups if groups is None else groups
    identity = {
        "encoder": encoder_fingerprint,
        "source": source.fingerprint,
        "batch_size": autoencoder.batch_size,  # it shows in the last bits of the features
        "groups": content_hash("\0".join(together).encode()),
    }
    attributes = {"encoder_fingerprint": encoder_fingerprint, "source": source.name}
    spec = autoencoder.spec
    held_out = np.ones(len(source), dtype=bool) if trained_on is None else ~trained_on
    texts = {"id": source.ids, "label": source.labels, "split": source.splits, "group": together}
    with StoreWriter(path, spec.feature_dim, identity, attributes, style_dim=spec.style_dim, texts=texts) as writer:
        resumed_at, started, tally = writer.next_position, time.perf_counter(), NOTHING
        with step("extract", len(source), done=resumed_at, progress=progress) as bar:
            parts = in_order(resumed_at, len(source), autoencoder.reading_size)
            for group, encoded in zip(parts, encode_source(source, autoencoder, parts), strict=True):
                stop = int(group[-1]) + 1
                tally += encoded.batch.tally
                skipped = [(source.ids[p], reason) for p, reason in encoded.batch.skipped]
                if group[0] == 0:
                    skipped = source.listing_skips + skipped
                writer.append(_columns(source, encoded, held_out, together, spec.feature_dim), skipped, stop)
                bar.update(stop - bar.done)
        seconds = time.perf_counter() - started
        rows, reasons = writer.finished_rows(), writer.skipped()
        if rows == 0:
            raise SourceError(f"no usable image in {source.name}, the first of {len(source)}: {': '.join(reasons[0])}")
        writer.finish()
    speed = (len(source) - resumed_at) / seconds
    return Extraction(rows, len(reasons), resumed_at, round(seconds, 2), round(speed, 1), tally)


def _columns(
    source: Source, encoded: Encoded, held_out: NDArray[np.bool_], groups: Sequence[str], feature_dim: int
) -> dict[str, object]:
    positions = encoded.batch.positions
    return {
        "features": encoded.latents[:, :feature_dim],
        "style": encoded.latents[:, feature_dim:],
        "reconstruction_error": encoded.errors,
        "held_out": held_out[positions],
        "stamp": source.stamps[positions],
        **{name: source.texts(name, positions) for name in ("id", "label", "split")},
        "group": [groups[position] for position in positions],
        "content_hash": list(encoded.batch.hashes),
    }


def encode_source(source: Source, autoencoder: Autoencoder, groups: Iterable[NDArray[np.int64]]) -> Iterator[Encoded]:
    """Read and encode groups of positions, in order; the next group is read meanwhile."""
    for batch in read_batches(source, autoencoder.spec.preprocessing, groups):
        if len(batch.images):
            yield Encoded(batch, *autoencoder.encode_and_score(batch.images))
        else:
            yield Encoded(batch, np.empty((0, autoencoder.spec.latent_dim), np.float32), np.empty(0, np.float32))
