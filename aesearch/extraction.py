"""A source and an encoder to a store, batch by batch; memory is bounded by the batch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aesearch.autoencoders import Autoencoder
from aesearch.batches import in_order, read_batches
from aesearch.errors import SourceError
from aesearch.sources import Batch, Source
from aesearch.store import StoreWriter


@dataclass(frozen=True)
class Extraction:
    """What an extraction did: rows in the store, files skipped, rows found done, speed of the rest."""

    rows: int
    skipped: int
    resumed_at: int
    seconds: float
    images_per_second: float


def extract_features(
    source: Source,
    autoencoder: Autoencoder,
    path: Path,
    *,
    encoder_fingerprint: str,
    batch_size: int | None = None,
    progress: bool = False,
) -> Extraction:
    """Encode every image of a source into a store; an interrupted run is continued.

    Parameters
    ----------
    path : Path
        The store; it appears when it is complete.
    encoder_fingerprint : str
        Kept in the store: features of one encoder are never searched with another.
    batch_size : int, optional
        By default what suits the device. Features do not depend on it beyond float32 rounding.

    Raises
    ------
    SourceError
        Not one image could be read.
    """
    from tqdm.auto import tqdm

    preprocessing = autoencoder.spec.preprocessing
    batch_size = batch_size or autoencoder.batch_size
    identity = {"encoder": encoder_fingerprint, "source": source.fingerprint, "batch_size": batch_size}
    attributes = {"encoder_fingerprint": encoder_fingerprint, "source": source.name}
    with StoreWriter(path, autoencoder.spec.latent_dim, identity, attributes) as writer:
        resumed_at, started = writer.next_position, time.perf_counter()
        with tqdm(
            total=len(source),
            initial=resumed_at,
            desc="extract",
            unit="img",
            unit_scale=True,
            disable=None if progress else True,
        ) as bar:
            groups = in_order(resumed_at, len(source), batch_size)
            for group, batch in zip(groups, read_batches(source, preprocessing, groups), strict=True):
                stop = int(group[-1]) + 1
                skipped = [(source.ids[p], reason) for p, reason in batch.skipped]
                if stop <= batch_size:
                    skipped = source.listing_skips + skipped
                writer.append(_columns(source, batch, autoencoder), skipped, stop)
                bar.update(stop - bar.n)
        seconds = time.perf_counter() - started
        rows, reasons = writer.finished_rows(), writer.skipped()
        if rows == 0:
            raise SourceError(f"no usable image in {source.name}, the first of {len(source)}: {': '.join(reasons[0])}")
        writer.finish()
    speed = (len(source) - resumed_at) / seconds
    return Extraction(rows, len(reasons), resumed_at, round(seconds, 2), round(speed, 1))


def _columns(source: Source, batch: Batch, autoencoder: Autoencoder) -> dict[str, object]:
    features, errors = encode_batch(autoencoder, batch.images)
    return {
        "features": features,
        "reconstruction_error": errors,
        "id": [source.ids[p] for p in batch.positions],
        "label": [source.labels[p] for p in batch.positions],
        "split": [source.splits[p] for p in batch.positions],
        "content_hash": batch.hashes,
    }


def encode_batch(
    autoencoder: Autoencoder, images: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features (n, d) and reconstruction errors (n,); an empty batch gives empty arrays."""
    if len(images) == 0:
        return np.empty((0, autoencoder.spec.latent_dim), np.float32), np.empty(0, np.float32)
    return autoencoder.encode_and_score(images)
