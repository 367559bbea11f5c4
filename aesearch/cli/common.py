"""What commands share: opening a collection, reading images, showing pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from aesearch.cli.console import note, print_table, show_picture
from aesearch.errors import AesearchError
from aesearch.files.naming import folder_of
from aesearch.images.tiles import Box

if TYPE_CHECKING:
    from aesearch.collection.facade import Collection
    from aesearch.images.single import Read

MOST_NAMED = 10  # images that cannot be read


def open_collection(
    name: str, device: str = "auto", *, must_exist: bool = False, overwrite: bool = False
) -> Collection:
    """The collection of that name or folder."""
    from aesearch.collection.facade import Collection

    folder = folder_named(name)
    return Collection.open(folder) if must_exist else Collection(folder, device=device, overwrite=overwrite)


def was_given(context: typer.Context, option: str) -> bool:
    """Whether an option was on the command line, not taken from the environment or its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def folder_named(name: str) -> Path:
    """Where the collection of that name lies."""
    if not name.strip():
        raise typer.BadParameter("a collection needs a name", param_hint="--collection")
    return folder_of(name)


def read_images(
    opened: Collection, images: Sequence[Path], *, or_else: Sequence[int] = (), box: Box | None = None
) -> tuple[list[Read], list[dict[str, str]]]:
    """Images that can be read; the others are named, and an error if nothing else is asked about."""
    readable, failed = opened.read_images(images, box)
    lines = [f"{one['image']}: {one['reason']}" for one in failed]
    if lines and not (readable or or_else):
        raise AesearchError(lines[0] if len(lines) == 1 else f"none of {len(lines):,} images can be read: {lines[0]}")
    for line in lines[:MOST_NAMED]:
        note(f"warning: {line}")
    if len(lines) > MOST_NAMED:
        note(f"warning: {len(lines) - MOST_NAMED:,} more images cannot be read")
    return readable, failed


def present(picture: Any, save: Path | None, show: bool) -> None:
    """Write a picture, draw it in the terminal, or both."""
    if save:
        from aesearch.drawing.figures import save_picture

        save_picture(picture, save)
        note(f"picture: {save}")
    if show:
        show_picture(picture)


def print_free(free: dict[str, dict[str, float]]) -> None:
    """Accuracies on a sample beside those of what trains nothing, and which is best."""
    from aesearch.baselines import judge

    rows = [[name, f"{of['linear_accuracy']:.3f}", f"{of['knn_accuracy']:.3f}"] for name, of in free.items()]
    print_table(["on a sample, beside untrained baselines", "linear probe", "10 nearest"], rows)
    print(judge(free))
