"""Commands that give a collection to others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aesearch.cli.common import folder_named, open_collection
from aesearch.cli.console import printable
from aesearch.cli.options import CollectionOption, DeviceOption


def report(
    collection: CollectionOption = "default",
    save: Annotated[Path, typer.Option(help="The page.", show_default="report.html in the collection")] = Path(),
) -> None:
    """Write one page about a collection that can be sent to a colleague: a model card with pictures.

    What is in it, how the encoder learned, how good it is, clusters, the strangest images, near duplicates, labels in
    doubt, and how it was made. It shows existing results only: run cluster, probe and anomalies first.

    Example: aesearch report -c photos --save photos.html
    """
    opened = open_collection(collection, must_exist=True)
    print(f"report: {opened.report(save if save.name else None)}")


def serve(
    collection: CollectionOption = "default",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="0 for any.", show_default="8765, or the next free one")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Another address lets other machines in, who need the token that is then shown.")
    ] = "127.0.0.1",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    device: DeviceOption = "auto",
) -> None:
    """Open the collection in a browser: search, map, anomalies, clusters, duplicates; JSON under /api/.

    Example: aesearch serve -c photos --open
    """
    from aesearch.server import app as serving
    from aesearch.server.shared_collection import Live

    live = Live(folder_named(collection), device=device)
    listening = serving.listen(host, port)
    token = serving.token_for(listening)
    address = serving.address(listening, token)
    print(f"{printable(live.name)}: {address}  (Ctrl-C ends it)", flush=True)
    if open_page:
        typer.launch(address)
    serving.serve(live, listening, token)


def export(
    output: Annotated[Path, typer.Argument(help="File to write; for tensorboard a folder.", show_default=False)],
    collection: CollectionOption = "default",
    format: Annotated[
        str | None, typer.Option(help="npy, csv, parquet, tensorboard.", show_default="by the ending of OUTPUT")
    ] = None,
) -> None:
    """Write the features for use elsewhere; row order is the collection's.

    npy: the array (rows, dim) float32. csv, parquet: id, label, split, reconstruction_error, then the
    features. tensorboard: a folder for its embedding projector.

    Example: aesearch export features.parquet
    """
    from aesearch.report.export import export_features, format_of

    format = format_of(output, format)
    opened = open_collection(collection)
    export_features(opened.store, output, format)
    print(f"{opened.store.rows:,} rows: {output}")
