"""Commands that make a collection and keep it up to date."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from aesearch.cli.common import folder_named, open_collection, was_given
from aesearch.cli.console import note, print_json, print_table, printable
from aesearch.cli.options import (
    CollectionOption,
    DataDirOption,
    DeviceOption,
    GroupOption,
    JsonOption,
    LabelsOption,
    MemoryOption,
    SourceArgument,
    TilesOption,
    Training,
    numbers_in,
    parse_bytes,
    with_training_options,
)

FIRST_SOURCE = "digits"  # what a bare build-index takes


@with_training_options()
def train(
    source: SourceArgument = None,
    collection: CollectionOption = "default",
    training: Training = None,
    labels: LabelsOption = None,
    group: GroupOption = None,
    tiles: TilesOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the last finished epoch.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train an autoencoder on a source; replaces the collection's encoder.

    Example: aesearch train photos/ -c photos --latent-dim 32 --epochs 20
    """
    from aesearch.collection.build import resumable
    from aesearch.network.options import TrainingOptions

    if source is None and not resume:
        raise typer.BadParameter("give a SOURCE, or --resume", param_hint="SOURCE")
    opened = open_collection(collection, device)
    if resume:
        images, options = resumable(opened.manifest, training or {})
    else:
        options = TrainingOptions(**training or {})
    if source is not None:
        images = opened.open_images(source, labels=labels, data_dir=data_dir, group=group, tiles=tiles)
    opened.train(images, options, resume=resume)
    figures = opened.manifest.artifacts["encoder"]["figures"]
    if as_json:
        return print_json({"collection": str(opened.folder), **figures})
    error = f"reconstruction error {figures['reconstruction_mse']:.5f}"
    if figures["held_out_loss"] is None:
        return print(f"nothing was trained; {error}")
    print(
        f"trained in {figures['seconds']:.0f} s; held-out loss {figures['held_out_loss']:.5f} "
        f"(epoch {figures['best_epoch']}), {error}; curve: {opened.folder / 'history.png'}"
    )


def extract(
    source: SourceArgument = None,
    collection: CollectionOption = "default",
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a batch.", show_default="by device")] = None,
    labels: LabelsOption = None,
    group: GroupOption = None,
    tiles: TilesOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Encode every image of a source into the feature store; an interrupted run goes on.

    Example: aesearch extract more-photos/ -c photos
    """
    opened = open_collection(collection, device)
    images = (
        None
        if source is None
        else opened.open_images(source, labels=labels, data_dir=data_dir, group=group, tiles=tiles)
    )
    done = opened.extract(images, batch_size=batch_size)
    if as_json:
        return print_json(
            {
                "collection": str(opened.folder),
                "rows": done.rows,
                "skipped": done.skipped,
                "images_per_second": done.images_per_second,
            }
        )
    print(
        f"{done.rows:,} rows, {done.skipped:,} files skipped, {done.images_per_second:,.0f} images/s: "
        f"{opened.folder / 'features.h5'}"
    )


@with_training_options()
def build_index(
    context: typer.Context,
    source: SourceArgument = None,
    collection: CollectionOption = "default",
    index: Annotated[
        str | None,
        typer.Option(help="auto, flat (exact), hnsw, ivf, ivfpq, or a FAISS factory string.", show_default="auto"),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="cosine or l2.", show_default="cosine")] = None,
    min_recall: Annotated[
        float | None,
        typer.Option(
            help="If recall@10 is lower, the search effort is raised, then another index used.", show_default="0.95"
        ),
    ] = None,
    max_memory: MemoryOption = None,
    training: Training = None,
    labels: LabelsOption = None,
    group: GroupOption = None,
    tiles: TilesOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace a collection of other images, settings or versions by a new one.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run train and extract if needed, then build the search index.

    A second run reuses existing results. Without SOURCE it uses the collection's own images; a bare `build-index`,
    if there is no collection yet, uses scikit-learn's handwritten digits.

    Example: aesearch build-index photos/ -c photos --labels folder
    """
    from aesearch.index.options import IndexOptions

    opened = open_collection(collection, device, overwrite=overwrite)
    if source is None and opened.is_new and not was_given(context, "collection"):
        note("no SOURCE given: taking scikit-learn's handwritten digits; for your own images: "
             "aesearch build-index FOLDER -c NAME")  # fmt: skip
        source = FIRST_SOURCE
    asked: dict[str, Any] = {"kind": index, "metric": metric, "min_recall": min_recall}
    if max_memory is not None:
        asked["max_memory"] = parse_bytes(max_memory, "--max-memory")
    asked = {name: value for name, value in asked.items() if value is not None}
    images = (
        None
        if source is None
        else opened.open_images(source, labels=labels, data_dir=data_dir, group=group, tiles=tiles)
    )
    opened.complete(images, training or {}, IndexOptions(**asked) if asked else None, overwrite=overwrite)
    info = opened.info()
    if as_json:
        return print_json(info)
    from aesearch.index.build import describe_figures

    print(f"{info['rows']:,} images of {printable(info['source'])} in {opened.folder}, {info['dim']} numbers each")
    print(printable(f"index: {describe_figures(info['index'])}, {info['index']['metric']}"))


def update(
    source: SourceArgument = None,
    collection: CollectionOption = "default",
    yes: Annotated[
        bool, typer.Option("--yes", help="Update even if a whole sub-folder or a quarter of the images is missing.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Bring a collection up to date with its folder; only new and changed images are encoded.

    Missing images are removed, renamed ones recognised by their content; index, clusters and
    maps are updated too. The encoder is kept: train again if the images are now of another kind. If the folder has
    moved, say where: aesearch update NEW_PLACE -c photos. If a whole sub-folder or a quarter of all images is gone,
    as when a disk is not mounted, it stops unless --yes is given; encodings are kept for 30 days, in case they return.

    Example: aesearch update -c photos
    """
    opened = open_collection(collection, device)
    done = opened.update(None if source is None else opened.open_images(source), yes=yes)
    if as_json:
        return print_json({"collection": str(opened.folder), **done.to_json()})
    print(f"{done.added:,} added, {done.changed:,} changed, {done.removed:,} removed, {done.renamed:,} renamed, "
          f"{done.unchanged:,} unchanged, {done.skipped:,} skipped; {done.encoded:,} encoded")  # fmt: skip


@with_training_options("latent_dim")
def sweep(
    source: Annotated[str, typer.Argument(help="As for train.", show_default=False)],
    latent_dims: Annotated[str, typer.Option(help="Latent sizes, like 2,5,10.")] = "2,5,10,20,50",
    collection: CollectionOption = "default",
    training: Training = None,
    labels: LabelsOption = None,
    group: GroupOption = None,
    tiles: TilesOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace collections of other images, settings or versions.",
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train one autoencoder per latent size; compare losses, errors, reconstructions; recommend a size.

    Each is a collection of its own in COLLECTION/latent-SIZE; run again, those that are there are used.

    Example: aesearch sweep mnist -c sizes --latent-dims 2,5,10,20,50
    """
    from aesearch.sweep import CURVES, RECONSTRUCTIONS
    from aesearch.sweep import sweep as run_sweep

    folder = folder_named(collection)
    sizes = numbers_in(latent_dims, "--latent-dims")
    how: dict[str, Any] = {
        "labels": labels,
        "data_dir": data_dir,
        "group": group,
        "device": device,
        "overwrite": overwrite,
    }
    found = run_sweep(source, folder, sizes, **how, **training or {})
    if as_json:
        return print_json(found.to_json())
    rows = [
        [
            str(run.latent_dim),
            f"{run.parameters:,}",
            f"{run.train_loss[-1]:.5f}",
            f"{run.test_loss[-1]:.5f}",
            f"{run.test_mse:.5f}",
            "" if run.knn_accuracy is None else f"{run.knn_accuracy:.4f}",
            "" if run.linear_accuracy is None else f"{run.linear_accuracy:.4f}",
        ]
        for run in found.runs
    ]
    print_table(["size", "parameters", "train loss", "held-out loss", "test mse", "knn", "probe"], rows)
    print(f"recommended latent size: {found.recommended}, {found.reason}")
    print(f"pictures: {folder / CURVES}, {folder / RECONSTRUCTIONS}")
