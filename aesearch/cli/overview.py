"""Commands that say what there is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aesearch.cli.common import open_collection, print_free
from aesearch.cli.console import note, print_json, print_table, printable, short
from aesearch.cli.options import CollectionOption, JsonOption
from aesearch.files.naming import HOME, collections_in, name_of


def info(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Say what a collection holds, how it was made and how good it measured.

    Example: aesearch info -c photos
    """
    opened = open_collection(collection, must_exist=True)
    document = opened.info()
    if as_json:
        return print_json(document)
    print(f"collection  {opened.folder}")
    print(f"source      {printable(document['source'] or '-')}")
    print(
        f"rows        {document['rows']:,}"
        + (f" x {document['dim']} numbers ({printable(str(document['arch']))})" if document["dim"] else "")
    )
    for name, artifact in document["artifacts"].items():
        print("\n" + printable(f"{name}  ({', '.join(artifact['files'])}, {artifact['time']})"))
        for key, value in artifact["figures"].items():
            if key not in ("free", "best"):
                print(f"  {printable(key):20} {short(value)}")
        if free := artifact["figures"].get("free"):
            print_free(free)


def list_collections(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = HOME,
    as_json: JsonOption = False,
) -> None:
    """List the collections: name, source, images, features per image, and when they were last changed.

    The name is what -c takes.

    Example: aesearch list
    """
    from aesearch.collection.manifest import summary

    found = [{"name": name_of(path), **summary(path)} for path in collections_in(folder)]
    if as_json:
        return print_json({"folder": str(folder), "collections": found})
    if not found:
        return note(f"there is no collection in {folder}: make one with aesearch build-index SOURCE")
    table = [[str(one["name"]), f"{one['rows']:,}", str(one["dim"] or "-"), str(one["changed"] or "-"),
              str(one["wrong"] or one["source"] or "-")] for one in found]  # fmt: skip
    print_table(["name", "images", "dim", "changed", "source"], table)
