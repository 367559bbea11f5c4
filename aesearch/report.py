"""Pictures of a collection's answers, made of figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.figures import Tile, difference_picture, draw_sheet, in_rows, to_picture

if TYPE_CHECKING:
    from PIL import Image

    from aesearch.answers import Anomalies, Hits
    from aesearch.clusters import Clustering
    from aesearch.collection import Collection
    from aesearch.sources import Source

COLUMNS = 11
MOST_CLUSTERS, MEMBERS = 30, 10


def draw_query(collection: Collection, hits: Sequence[Hits], queries: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Each query, framed, and its neighbours with their distances; ``queries`` (channels, height, width)."""
    lines: list[list[Tile]] = []
    for found, query in zip(hits, queries, strict=True):
        tiles = [Tile(to_picture(query), ("query", found.query), framed=True)]
        pictures = collection.pictures(found.rows.tolist())
        for n, picture in enumerate(pictures):
            caption = (f"{n + 1}.  {found.distances[n]:.4f}", found.labels[n] or found.ids[n])
            tiles.append(Tile(to_picture(picture), caption))
        lines += in_rows(tiles, COLUMNS)
    return draw_sheet(lines, f"nearest neighbours in {collection.folder.name}, {collection.metric} distance")


def draw_anomalies(collection: Collection, found: Anomalies, source: Source | None = None) -> Image.Image:
    """Original, reconstruction and difference of each; ``source`` is what was scored, if not the collection."""
    places = found.rows.tolist()
    originals, rebuilt = collection.reconstruct(places, source) if source else collection.reconstruct_rows(places)
    differences = [np.abs(o / 255 - r).mean(axis=0) for o, r in zip(originals, rebuilt, strict=True)]
    scale = max((float(d.max()) for d in differences), default=1.0)
    groups: list[list[Tile]] = []
    for n, (original, again) in enumerate(zip(originals, rebuilt, strict=True)):
        caption = (f"{n + 1}.  error {found.scores[n]:.4f}", found.labels[n] or found.ids[n])
        groups.append(
            [
                Tile(to_picture(original), caption),
                Tile(to_picture(again), ("reconstruction",)),
                Tile(difference_picture(original, again, scale), (f"difference 0–{scale:.2f}",)),
            ]
        )
    side_by_side = 1 if len(groups) <= 5 else 3
    rows = [
        [tile for group in groups[i : i + side_by_side] for tile in group] for i in range(0, len(groups), side_by_side)
    ]
    return draw_sheet(rows, f"worst reconstructed, {collection.folder.name}")


def draw_clusters(collection: Collection, found: Clustering) -> Image.Image:
    """Ten members of each of the largest 30 clusters, spread over the cluster's rows."""
    lines = []
    for number in range(min(len(found.sizes), MOST_CLUSTERS)):
        members = np.flatnonzero(found.assignments == number)
        shown = members[np.linspace(0, len(members) - 1, min(MEMBERS, len(members))).astype(int)].tolist()
        captions = [(f"cluster {number}", f"{len(members):,} images")] + [()] * (len(shown) - 1)
        pictures = collection.pictures(shown)
        lines.append([Tile(to_picture(p), c) for p, c in zip(pictures, captions, strict=True)])
    return draw_sheet(lines, f"{len(found.sizes)} clusters of {collection.folder.name}")
