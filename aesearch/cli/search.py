"""Commands that look for images like others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from aesearch.cli.common import open_collection, present, read_images
from aesearch.cli.console import print_json, print_table, printable
from aesearch.cli.options import CollectionOption, DeviceOption, JsonOption, SaveOption, ShowOption
from aesearch.collection import documents
from aesearch.images.tiles import parse_box


def query(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files of any size and mode.", show_default=False)
    ] = None,
    collection: CollectionOption = "default",
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    row: Annotated[list[int] | None, typer.Option(help="A row of the collection instead; repeatable.")] = None,
    id: Annotated[list[str] | None, typer.Option(help="An id of the collection instead; repeatable.")] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only among images with label=3, split=test, cluster=2 or id=cats/*, or != instead; repeatable."
        ),
    ] = None,
    any_orientation: Annotated[
        bool | None,
        typer.Option(
            "--any-orientation/--as-it-is",
            help="Search for the image in all eight orientations (mirrored, rotated), and take the nearest.",
            show_default="only orientations without meaning in the collection",
        ),
    ] = None,
    box: Annotated[
        str | None,
        typer.Option(
            help="Look for this part of the images only: left,top,width,height in pixels.", show_default="all"
        ),
    ] = None,
    save: SaveOption = None,
    show: ShowOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the nearest neighbours of images; unreadable ones are reported, the others answered.

    Example: aesearch query img.png -k 10 --save neighbours.png
    """
    if not (images or row or id):
        raise typer.BadParameter("give an image file, --row or --id", param_hint="IMAGE")
    opened = open_collection(collection, device)
    how: dict[str, Any] = {"k": k, "where": where or (), "any_orientation": any_orientation}
    rows = [*(row or []), *(opened.rows_of(id) if id else [])]
    within = None if box is None else parse_box(box)
    readable, failed = read_images(opened, images or [], or_else=rows, box=within)
    hits = opened.query_images(readable, **how) if readable else []
    hits += opened.query_rows(rows, **how) if rows else []
    if save or show:
        from aesearch.report.sheets import draw_query

        shown = opened.look_at([image.image for image in readable])
        present(draw_query(opened, hits, [*shown, *opened.pictures(rows)]), save, show)
    if as_json:
        return print_json(documents.of_query(opened, hits, k) | {"failed": failed})
    for found in hits:
        print(f"{printable(found.query)}")
        ways = [[way] for way in found.orientations] if found.orientations else [[]] * len(found.rows)
        hits_of_it = zip(found.distances, found.rows, found.labels, found.ids, ways, strict=True)
        lines = [[str(n), f"{d:.4f}", str(r), label, i, *way] for n, (d, r, label, i, way) in enumerate(hits_of_it, 1)]
        print_table(["rank", opened.metric, "row", "label", "id", *(["query"] if found.orientations else [])], lines)


def duplicates(
    collection: CollectionOption = "default",
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Largest distance of two images that count as the same, in the index's metric.",
            show_default="a tenth of the usual distance between nearest images",
        ),
    ] = None,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="Do not compare the pixels of images whose features are near.")
    ] = False,
    save: SaveOption = None,
    show: ShowOption = False,
    as_json: JsonOption = False,
) -> None:
    """List groups of duplicates and near-duplicates.

    Example: aesearch duplicates -c photos --save same.png
    """
    opened = open_collection(collection, "auto")
    found = opened.duplicates(threshold=threshold, confirm=not features_only)
    if save or show:
        from aesearch.report.sheets import draw_duplicates

        present(draw_duplicates(opened, found), save, show)
    if as_json:
        return print_json(documents.of_duplicates(opened, found))
    copies = sum(found.exact)
    print(f"{len(found.rows):,} groups of {sum(map(len, found.rows)):,} images within {opened.metric} "
          f"{found.threshold:.3g}; {copies:,} of the groups are exact copies")  # fmt: skip
    if found.found is not None:
        print(f"of the pairs that exact search finds for a sample, {found.found:.1%} are among them")
    if found.rejected:
        print(f"{found.rejected:,} more pairs have features as near, but their pixels differ")
    table = [
        [str(number + 1), found.kind(number), str(row), id]
        for number, (rows, ids) in enumerate(zip(found.rows, found.ids, strict=True))
        for row, id in zip(rows, ids, strict=True)
    ]
    print_table(["group", "copies", "row", "id"], table)
