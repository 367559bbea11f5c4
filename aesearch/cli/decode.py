"""Commands that turn latents into images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aesearch.cli.common import open_collection, present, read_images
from aesearch.cli.console import print_json, print_table
from aesearch.cli.options import CollectionOption, DeviceOption, JsonOption, PictureOption, SeedOption, ShowOption


def reconstruct(
    images: Annotated[
        list[Path] | None, typer.Argument(help="Image files of any size and mode.", show_default=False)
    ] = None,
    collection: CollectionOption = "default",
    row: Annotated[list[int] | None, typer.Option(help="A row of the collection instead; repeatable.")] = None,
    save: PictureOption = Path("reconstruction.png"),
    show: ShowOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Encode images and decode them again: a picture with each original over its reconstruction.

    The error is the mean squared error per pixel on the [0, 1] scale.

    Example: aesearch reconstruct img.png --save again.png
    """
    from aesearch.anomalies.error_maps import reconstruction_error
    from aesearch.report.sheets import draw_reconstructions

    if not (images or row):
        raise typer.BadParameter("give an image file or --row", param_hint="IMAGE")
    opened = open_collection(collection, device)
    readable, failed = read_images(opened, images or [], or_else=row or [])
    originals, rebuilt = opened.reconstruct(readable, row or [])
    names = [*(image.name for image in readable), *(opened.store.texts("id", row) if row else [])]
    present(draw_reconstructions(names, originals, rebuilt), save, show)
    errors = [reconstruction_error(*pair) for pair in zip(originals, rebuilt, strict=True)]
    if as_json:
        listed = [{"image": name, "error": error} for name, error in zip(names, errors, strict=True)]
        document = {"collection": str(opened.folder), "picture": str(save), "reconstructions": listed}
        return print_json(document | {"failed": failed})
    print_table(["error", "image"], [[f"{error:.5f}", name] for name, error in zip(names, errors, strict=True)])


def generate(
    collection: CollectionOption = "default",
    points: Annotated[
        str | None, typer.Option(help="Latents to decode: a .npy or .csv file of one a row, or 0.5,1;-1,2.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Number of random latents, with the data's mean and spread."),
    ] = None,
    between: Annotated[
        tuple[Path, Path] | None, typer.Option(help="The straight path in the latent space from one image to another.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Images on that path, both ends included.")] = 8,
    plane: Annotated[
        int | None,
        typer.Option(min=2, max=100, help="A grid over a latent space of size 2, this many images per side."),
    ] = None,
    seed: SeedOption = 0,
    save: PictureOption = Path("generated.png"),
    show: ShowOption = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Decode points of the latent space: given ones, random ones, a path between two images, a plane.

    Example: aesearch generate --between a.png b.png --steps 8 --save path.png
    """
    from aesearch.report.sheets import draw_decoded

    if sum(choice is not None for choice in (points, sample, between, plane)) != 1:
        raise typer.BadParameter("give one of --points, --sample, --between, --plane")
    opened = open_collection(collection, device)
    columns = 10
    if points is not None:
        title = "decoded points"
    elif sample is not None:
        title = "decoded random latents"
    elif between is not None:
        title, columns = "from one to the other", steps
    else:
        assert plane is not None
        title, columns = "the latent plane", plane
    latents = opened.choose_latents(points, sample=sample, between=between, steps=steps, plane=plane, seed=seed)
    present(draw_decoded(opened.decode(latents), columns, f"{title}, {opened.folder.name}"), save, show)
    if as_json:
        return print_json({"collection": str(opened.folder), "picture": str(save), "latents": latents.tolist()})
    print(f"{len(latents)} images decoded")
