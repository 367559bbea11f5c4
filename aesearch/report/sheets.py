"""A collection's answers as pictures and tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import reconstruction_error, worst_regions
from aesearch.drawing.figures import (
    ACCENT,
    Tile,
    beside,
    columns_for,
    draw_sheet,
    heat_over,
    heat_picture,
    in_frame,
    in_rows,
    save_picture,
    short_names,
    stacked,
    to_picture,
)
from aesearch.files.atomic import replacing
from aesearch.files.csv import cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

    from aesearch.collection.facade import Collection
    from aesearch.collection.results import Anomalies, Duplicates, Hits, Sweep
    from aesearch.images.sources.base import Source

MOST_GROUPS, MEMBERS = 30, 10


def draw_query(collection: Collection, hits: Sequence[Hits], queries: Sequence[NDArray[np.uint8]]) -> Image.Image:
    """Each query, framed, and beside it its neighbours with their distances; ``queries`` (channels, height, width)."""
    lines: list[list[Tile | None]] = []
    columns = min(10, columns_for(max((len(found.rows) for found in hits), default=1)))
    if len(hits) == 1:
        columns = columns_for(len(hits[0].rows))
    for found, query in zip(hits, queries, strict=True):
        pictures = [to_picture(picture) for picture in collection.pictures(found.rows.tolist())]
        names = _names(found.labels, found.ids)
        if collection.tiling is not None:  # each over its whole picture
            placed = collection.in_place(found.rows.tolist())
            wholes = [in_frame(to_picture(whole), box) for whole, box in placed]
            pictures = [stacked(*pair) for pair in zip(pictures, wholes, strict=True)]
        tiles = [Tile(picture, (f"{n + 1}.  {found.distances[n]:.4f}", names[n])) for n, picture in enumerate(pictures)]
        lines += beside(Tile(to_picture(query), ("query", found.query), framed=True), tiles, columns)
    title = f"nearest neighbours in {collection.folder.name}, {collection.metric} distance"
    return draw_sheet(lines, title, apart=True)


def draw_anomalies(collection: Collection, found: Anomalies, source: Source | None = None) -> Image.Image:
    """Each with where it is odd laid over it, and as it is rebuilt where that tells; ``source`` is what was scored."""
    maps = collection.heat_maps(found, source)
    rebuilt = (
        None
        if found.tiles or (len(found.why) and found.why[0] >= 0)
        else collection.reconstruct_anomalies(found, source)[1]
    )
    groups: list[list[Tile]] = []
    names = _names(found.labels, found.ids)
    crops, boxes = collection.oddest_tiles(found, source) if found.tiles else ([], [])
    for n, picture in enumerate(collection.pictures_of(found, source)):
        shown = to_picture(picture)
        caption = (f"{n + 1}.  {found.scores[n]:.4f}", names[n])
        group = [Tile(shown, caption), Tile(heat_over(shown, maps[n]), ("where", found.reasons[n]))]
        if found.tiles:
            group += [
                Tile(in_frame(shown, boxes[n]), ("the oddest tile",)),
                Tile(to_picture(crops[n]), (found.tiles[n],)),
            ]
        if rebuilt is not None:
            group.append(Tile(_stretch(to_picture(rebuilt[n]), shown.shape), ("as rebuilt",)))
        groups.append(group)
    size = 4 if found.tiles else 2 if rebuilt is None else 3
    together = max(1, columns_for(size * len(groups)) // size)
    rows = [[tile for group in groups[i : i + together] for tile in group] for i in range(0, len(groups), together)]
    scale = None if rebuilt is None else ("squared error", collection.heat_scale)
    return draw_sheet(rows, f"the oddest images, {collection.folder.name}", together=size, scale=scale)


def draw_duplicates(collection: Collection, found: Duplicates) -> Image.Image:
    """The largest 30 groups of duplicates, up to ten of each."""
    lines: list[list[Tile | None]] = []
    for number, (rows, ids) in enumerate(zip(found.rows[:MOST_GROUPS], found.ids, strict=False)):
        head = f"group {number + 1}: {len(rows):,}, {found.kind(number)}"
        pictures = collection.pictures(rows[:MEMBERS].tolist())
        heads = [head] + [""] * (len(pictures) - 1)
        names = short_names(ids)
        lines.append([Tile(to_picture(p), (h, name)) for p, h, name in zip(pictures, heads, names, strict=False)])
    return draw_sheet(lines, f"{len(found.rows):,} groups of duplicates in {collection.folder.name}")


def draw_clusters(collection: Collection) -> Image.Image:
    """The largest 30 clusters: what the decoder makes of the centre, framed, and the ten members nearest to it."""
    _, members = collection.centres()
    lines: list[list[Tile | None]] = []
    for number, rows in enumerate(members[:MOST_GROUPS]):
        if not len(rows):
            continue
        shown = rows[:MEMBERS].tolist()
        caption = (collection.cluster_title(number), f"{len(rows):,} images")
        centre = Tile(to_picture(collection.centre_picture(rows)), caption, framed=True)
        lines += beside(centre, [Tile(to_picture(picture)) for picture in collection.pictures(shown)], MEMBERS)
    return draw_sheet(
        lines, f"{len(members)} clusters of {collection.folder.name}: decoded centre, nearest", apart=True
    )


def _names(labels: Sequence[str], ids: Sequence[str]) -> list[str]:
    """What stands under each picture: its label, where it has one, and its short name."""
    named = zip(labels, short_names(ids), strict=True)
    return [name if not label or name.startswith(f"{label}/") else f"{label} · {name}" for label, name in named]


def _stretch(picture: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A picture as the encoder sees it in the shape that the image has."""
    from PIL import Image as Pillow

    return np.asarray(Pillow.fromarray(picture).resize((shape[1], shape[0]), Pillow.Resampling.BILINEAR))


def draw_reconstructions(
    names: Sequence[str], originals: Sequence[NDArray[np.uint8]], rebuilt: NDArray[np.float32]
) -> Image.Image:
    """Originals over their reconstructions."""
    lines: list[list[Tile]] = []
    errors = [reconstruction_error(*pair) for pair in zip(originals, rebuilt, strict=True)]
    upper = [Tile(to_picture(o), (name,)) for o, name in zip(originals, names, strict=True)]
    lower = [Tile(to_picture(r), (f"error {error:.5f}",)) for r, error in zip(rebuilt, errors, strict=True)]
    columns = columns_for(2 * len(upper))
    for pair in zip(in_rows(upper, columns), in_rows(lower, columns), strict=True):
        lines += pair
    return draw_sheet(lines, "originals over reconstructions")


def draw_decoded(images: NDArray[np.float32], columns: int, title: str) -> Image.Image:
    """Decoded images (n, channels, height, width), so many to a row."""
    return draw_sheet(in_rows([Tile(to_picture(image)) for image in images], columns), title)


def draw_sweep(found: Sweep) -> Figure:
    """Held-out loss over epochs for each latent size, and the finished networks' test error over size."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    curves, sizes = figure.subplots(1, 2)
    for place, run in enumerate(found.runs):
        colour = colormaps["viridis"](place / max(len(found.runs) - 1, 1) * 0.9)
        epochs = range(1, len(run.train_loss) + 1)
        curves.plot(epochs, run.test_loss, color=colour, label=f"{run.latent_dim}")
        curves.plot(epochs, run.train_loss, color=colour, linestyle=":")
    curves.set(title="Loss (dotted: training, solid: held out)", xlabel="epoch", ylabel=found.loss, yscale="log")
    curves.legend(title="latent size", frameon=False)
    dims = [run.latent_dim for run in found.runs]
    sizes.plot(dims, [run.test_mse for run in found.runs], marker="o", color="#4263eb")
    sizes.axvline(found.recommended, color=ACCENT, linestyle="--", label=f"recommended: {found.recommended}")
    sizes.set(title="Test error", xlabel="latent size", ylabel="mean squared error", xscale="log", yscale="log")
    sizes.set_xticks(dims, [str(d) for d in dims], minor=False)
    sizes.xaxis.set_minor_locator(NullLocator())
    sizes.legend(frameon=False)
    return figure


def draw_sweep_reconstructions(collections: Sequence[Collection], sizes: Sequence[int], rows: list[int]) -> Image.Image:
    """The same images rebuilt by each: originals first, then one line per latent size."""
    lines: list[list[Tile]] = []
    for collection, size in zip(collections, sizes, strict=True):
        originals, rebuilt = collection.reconstruct(rows=rows)
        if not lines:
            lines.append([Tile(to_picture(o), ("original",) if n == 0 else ()) for n, o in enumerate(originals)])
        caption = (f"latent size {size}",)
        lines.append([Tile(to_picture(r), caption if n == 0 else ()) for n, r in enumerate(rebuilt)])
    return draw_sheet(lines, "the same images at each latent size")


def write_anomalies(
    path: Path, listed: list[dict[str, Any]], maps: Iterable[NDArray[np.float32]], side: int | None = None
) -> None:
    """A table with boxes around the worst regions: left top right bottom, in shares of width and height.

    ``side`` is that of the tiles that maps of whole pictures are made of.
    """
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        columns = list(listed[0]) if listed else ["rank", "row", "id", "label", "score"]
        writer = csv.DictWriter(file, [*columns, "boxes"])
        writer.writeheader()
        for one, heat in zip(listed, maps, strict=True):
            boxes = [" ".join(f"{side:.3f}" for side in box) for box in worst_regions(heat, side)]
            writer.writerow({name: cell(value) for name, value in one.items()} | {"boxes": "; ".join(boxes)})


def write_heatmaps(folder: Path, ids: Sequence[str], maps: Iterable[NDArray[np.float32]]) -> None:
    """Write one picture of each (height, width) map, in which 1 is drawn brightest."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, (id, heat) in enumerate(zip(ids, maps, strict=True), 1):
        name = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in id)[-80:]
        save_picture(heat_picture(heat), folder / f"{rank:04d}-{name}.png")
