"""Commands that group images and map them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aesearch.cli.common import open_collection, present, read_images
from aesearch.cli.console import print_json, print_table
from aesearch.cli.options import CollectionOption, JsonOption, SaveOption, SeedOption, ShowOption, numbers_in
from aesearch.collection import documents

if TYPE_CHECKING:
    from aesearch.collection.facade import Collection


def cluster(
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="New images to assign to the existing clusters; nothing is fitted.", show_default=False),
    ] = None,
    collection: CollectionOption = "default",
    method: Annotated[str, typer.Option(help="gmm, kmeans, hdbscan.")] = "gmm",
    clusters: Annotated[str, typer.Option(help="How many, or auto: 2 to 30, by best silhouette.")] = "auto",
    space: Annotated[str, typer.Option(help="Space to cluster in: umap or features.")] = "umap",
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name an existing cluster, like 3=loops; nothing is clustered. Repeatable."),
    ] = None,
    seed: SeedOption = 0,
    save: SaveOption = None,
    show: ShowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Group the images, or say which groups new images belong to; the groups are kept in clusters.h5.

    With --clusters auto, the stability of the groups over resamples is measured too.

    Example: aesearch cluster --clusters 10 --save groups.png
    """
    if images and (save or show or name or clusters != "auto"):
        raise typer.BadParameter("images are assigned to the clusters there are: run aesearch cluster without them")
    if images:
        return _assign(images, open_collection(collection), as_json)
    if name:
        return _name_clusters(name, open_collection(collection), as_json)
    number = None if clusters == "auto" else numbers_in(clusters, "--clusters")[0]
    opened = open_collection(collection)
    found = opened.cluster(method=method, clusters=number, space=space, seed=seed)
    if save or show:
        from aesearch.report.sheets import draw_clusters

        present(draw_clusters(opened), save, show)
    if as_json:
        return print_json(documents.of_clusters(opened))
    noise = int((found.assignments < 0).sum())
    quality = "none with one cluster" if found.silhouette is None else f"{found.silhouette:.3f}"
    print(
        f"{len(found.sizes)} clusters by {method} on {space}: sizes {', '.join(map(str, found.sizes)) or '-'}"
        + (f"; {noise} left out as noise" if noise else "")
    )
    stable = "" if found.stability is None else f"; stability over resamples {found.stability:.3f}"
    print(f"silhouette {quality}{stable}")
    if found.unclear:
        reason = "another sample of these images would be grouped differently"
        print(f"no clear structure: {reason if len(found.sizes) > 1 else 'not even two groups'}")
    if found.against_labels:
        print("against labels: " + ", ".join(f"{name} {v:.3f}" for name, v in found.against_labels.items()))


def _name_clusters(given: list[str], opened: Collection, as_json: bool) -> None:
    pairs = [one.partition("=") for one in given]
    opened.name_clusters({numbers_in(number, "--name")[0]: name for number, _, name in pairs})
    document = documents.of_clusters(opened)
    if as_json:
        return print_json(document)
    rows = [
        [str(c), str(size), name]
        for c, (size, name) in enumerate(zip(document["sizes"], document["names"], strict=True))
    ]
    print_table(["cluster", "images", "name"], rows)


def _assign(images: list[Path], opened: Collection, as_json: bool) -> None:
    opened.assignments()  # without them no image need be read
    readable, failed = read_images(opened, images)
    found = [(image.name, *answer) for image, answer in zip(readable, opened.assign(readable), strict=True)]
    if as_json:
        listed = [{"image": i, "cluster": c, "share": s} for i, c, s in found]
        return print_json({"collection": str(opened.folder), "assignments": listed, "failed": failed})
    rows = [[str(c) if c >= 0 else "none", f"{s:.2f}", i] for i, c, s in found]
    print_table(["cluster", "share", "image"], rows)


def draw_map(
    collection: CollectionOption = "default",
    method: Annotated[str, typer.Option(help="umap, tsne, pca, or latent: the features as they are.")] = "umap",
    dims: Annotated[int, typer.Option(min=2, max=3, help="2 or 3.")] = 2,
    colour_by: Annotated[str, typer.Option(help="auto, label, cluster, split, none.")] = "auto",
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Lay the images out on a map: coordinates, a picture, and a page with every image on it.

    Example: aesearch map --method umap
    """
    opened = open_collection(collection)
    found = opened.map(method=method, dims=dims, seed=seed, colour_by=colour_by)
    name = opened.map_name(method, dims)
    files = {
        kind: str(opened.manifest.target(f"{name}.{ending}"))
        for kind, ending in (("coordinates", "h5"), ("picture", "png"), ("page", "html"))
    }
    if as_json:
        return print_json({"method": method, "dims": dims, "axes": list(found.axes), **files})
    if found.axes:
        print(f"shows: {opened.told_axes(found.axes)}")
    for kind, file in files.items():
        print(f"{kind}: {file}")
