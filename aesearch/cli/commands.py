"""The command line: parse, one library call, show."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from aesearch.cli.console import Notes, fail, note, print_json, print_table, printable, short, show_picture
from aesearch.cli.options import (
    CollectionOption,
    DataDirOption,
    DeviceOption,
    GroupOption,
    JsonOption,
    LabelsOption,
    MemoryOption,
    PictureOption,
    SaveOption,
    SeedOption,
    ShowOption,
    SourceArgument,
    TilesOption,
    Training,
    numbers_in,
    parse_bytes,
    threads_option,
    with_training_options,
)
from aesearch.collection import documents
from aesearch.errors import AesearchError
from aesearch.files.naming import HOME, collections_in, folder_of, name_of
from aesearch.images.tiles import Box, parse_box
from aesearch.progress import AS_JSON, BAR, form
from aesearch.signals import MESSAGE
from aesearch.version import __version__

if TYPE_CHECKING:
    from aesearch.anomalies.inspection import Measures
    from aesearch.collection.facade import Collection
    from aesearch.images.single import Read

FIRST_SOURCE = "digits"  # what a bare build-index takes
MOST_NAMED = 10  # images that cannot be read
LIGHT = ("info", "export")  # commands that compute nothing


class Command(TyperCommand):
    """With ``--json-progress``, which every command takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        told = "Tell progress as lines of JSON on standard error."
        self.params.append(
            TyperOption(
                param_decls=["--json-progress"], is_flag=True, default=False, expose_value=False, help=told,
                callback=lambda context, option, given: form.set(AS_JSON if given else BAR),
            )
        )  # fmt: skip


class Group(TyperGroup):
    """Turns what a user can cause into one line on standard error and exit code 1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, command in self.commands.items():
            if name not in LIGHT:
                command.params.append(threads_option())

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AesearchError as error:
            fail(str(error))
        except KeyboardInterrupt as stopped:
            note(MESSAGE)
            raise typer.Exit(getattr(stopped, "code", 130)) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
            raise typer.Exit(0) from None
        except MemoryError as error:
            fail(f"not enough memory: {str(error).splitlines()[0] if str(error) else 'take fewer or smaller images'}")
        except OSError as error:
            fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Search, group, map and check unlabelled images with an autoencoder trained on those very images.\n\n"
    "Start with:  aesearch build-index FOLDER  and then  aesearch query img.png -k 10",
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Set up what all commands share."""
    if version:
        print(f"aesearch {__version__}")
        raise typer.Exit
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Notes())
    logger = logging.getLogger("aesearch")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it keeps no list of fonts in a read-only home
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it says of broken files is in skipped.csv


@app.command(cls=Command)
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last finished epoch.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train an autoencoder on a source; replaces the collection's encoder.

    Example: aesearch train photos/ -c photos --latent-dim 32 --epochs 20
    """
    from aesearch.collection.build import resumable
    from aesearch.network.training import TrainingOptions

    if source is None and not resume:
        raise typer.BadParameter("give a SOURCE, or --resume", param_hint="SOURCE")
    opened = _open(collection, device)
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


@app.command(cls=Command)
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

    folder = _folder(collection)
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


@app.command(cls=Command)
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
    opened = _open(collection, device)
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


@app.command("build-index", cls=Command)
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
            help="Below this recall@10 the search effort is raised, then another index taken.", show_default="0.95"
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
    """Do what is missing of train and extract, then build the search index.

    Run again, it uses what is there. Without SOURCE it works on the collection's own images; a bare `build-index`,
    where there is no collection yet, on scikit-learn's handwritten digits.

    Example: aesearch build-index photos/ -c photos --labels folder
    """
    from aesearch.index.search import IndexOptions

    opened = _open(collection, device, overwrite=overwrite)
    if source is None and opened.is_new and not _was_given(context, "collection"):
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
    from aesearch.index.search import describe_figures

    print(f"{info['rows']:,} images of {printable(info['source'])} in {opened.folder}, {info['dim']} numbers each")
    print(printable(f"index: {describe_figures(info['index'])}, {info['index']['metric']}"))


@app.command(cls=Command)
def update(
    source: SourceArgument = None,
    collection: CollectionOption = "default",
    yes: Annotated[
        bool, typer.Option("--yes", help="Also if a whole sub-folder or a large share of the images is gone.")
    ] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Bring a collection up to date with its folder, at the cost of what has changed there.

    New and changed images are encoded, those gone dropped, renamed ones known by their content; index, clusters and
    maps come along. The encoder stays as it is: train again where the images have become others. If the folder has
    moved, say where to: aesearch update NEW_PLACE -c photos. If a whole sub-folder or a quarter of all images is gone,
    as when a disk is away, it stops until --yes is given; what was encoded is kept for 30 days, in case they come back.

    Example: aesearch update -c photos
    """
    opened = _open(collection, device)
    done = opened.update(None if source is None else opened.open_images(source), yes=yes)
    if as_json:
        return print_json({"collection": str(opened.folder), **done.to_json()})
    print(f"{done.added:,} added, {done.changed:,} changed, {done.removed:,} removed, {done.renamed:,} renamed, "
          f"{done.unchanged:,} unchanged, {done.skipped:,} skipped; {done.encoded:,} encoded")  # fmt: skip


@app.command(cls=Command)
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
            help="Look for the image mirrored and turned too, all eight ways, and take the nearest.",
            show_default="those ways that mean nothing in the collection",
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
    """Find the nearest neighbours of images; one that cannot be read is named, and the others answered.

    Example: aesearch query img.png -k 10 --save neighbours.png
    """
    if not (images or row or id):
        raise typer.BadParameter("give an image file, --row or --id", param_hint="IMAGE")
    opened = _open(collection, device)
    how: dict[str, Any] = {"k": k, "where": where or (), "any_orientation": any_orientation}
    rows = [*(row or []), *(opened.rows_of(id) if id else [])]
    within = None if box is None else parse_box(box)
    readable, failed = _read(opened, images or [], or_else=rows, box=within)
    hits = opened.query_images(readable, **how) if readable else []
    hits += opened.query_rows(rows, **how) if rows else []
    if save or show:
        from aesearch.report.sheets import draw_query

        shown = opened.look_at([image.image for image in readable])
        _present(draw_query(opened, hits, [*shown, *opened.pictures(rows)]), save, show)
    if as_json:
        return print_json(documents.of_query(opened, hits, k) | {"failed": failed})
    for found in hits:
        print(f"{printable(found.query)}")
        ways = [[way] for way in found.orientations] if found.orientations else [[]] * len(found.rows)
        hits_of_it = zip(found.distances, found.rows, found.labels, found.ids, ways, strict=True)
        lines = [[str(n), f"{d:.4f}", str(r), label, i, *way] for n, (d, r, label, i, way) in enumerate(hits_of_it, 1)]
        print_table(["rank", opened.metric, "row", "label", "id", *(["query"] if found.orientations else [])], lines)


@app.command(cls=Command)
def anomalies(
    source: SourceArgument = None,
    collection: CollectionOption = "default",
    per: Annotated[
        str | None, typer.Option(help="Of pictures in tiles: rank each picture, or each tile.", show_default="picture")
    ] = None,
    score: Annotated[
        str,
        typer.Option(
            help="combined: how unusual by all that is known: patches, features, pixels, shapes, low-level facts "
            "(blank, noise, overexposed, half lost), and by what most; patches: how faulty it looks to a network that "
            "has learned to find planted faults; reconstruction: mean squared error per pixel on the [0, 1] scale; "
            "nap: what each layer of the encoder loses; neighbours: mean distance to the 5 nearest features. Larger is "
            "odder."
        ),
    ] = "combined",
    top: Annotated[int, typer.Option(min=1, help="How many to list.")] = 50,
    normal_label: Annotated[
        str | None, typer.Option(help="Measure how well the score tells other labels from this one (AUROC).")
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Learn the threshold that this share of normal images exceeds, like 0.01, from normal images the "
            "encoder was not trained on; list what lies above it."
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Also write the list to this file, with boxes around the worst regions.")
    ] = None,
    heatmaps: Annotated[
        Path | None, typer.Option(help="Also write a picture of where the error lies, for each, to this folder.")
    ] = None,
    save: SaveOption = None,
    show: ShowOption = False,
    labels: LabelsOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """List the oddest images: of the collection, or of SOURCE, scored with the collection's encoder.

    Example: aesearch anomalies --top 50 --save odd.png
    """
    opened = _open(collection, device)
    new = None if source is None else opened.open_images(source, labels=labels, data_dir=data_dir)
    how: dict[str, Any] = {"score": score, "top": top, "per": per}
    found = opened.anomalies(new, **how, normal_label=normal_label, false_alarms=false_alarms)
    listed = found.to_json()
    if csv or heatmaps or save or show:
        from aesearch.report import sheets as report

        of_pictures = opened.picture_maps if found.tiles else opened.heat_maps  # one at a time: they are large
        if csv:
            side = opened.tiling.side if opened.tiling and found.tiles else None
            report.write_anomalies(csv, listed, of_pictures(found, new), side)
        if heatmaps:
            report.write_heatmaps(heatmaps, found.ids, of_pictures(found, new))
            note(f"heat-maps: {len(listed)} pictures in {heatmaps}; the brightest is {opened.heat_told(score)}")
        if save or show:
            _present(report.draw_anomalies(opened, found, new), save, show)
    measured = [] if new is not None or normal_label is None else opened.inspect(normal_label, score=score)
    if as_json:
        inspected = {"inspection": [one.to_json() for one in measured]} if measured else {}
        return print_json(documents.of_anomalies(opened, found, score) | inspected)
    if measured:
        _print_measures(measured)
    if found.auroc is not None:
        print(f"AUROC {found.auroc:.4f} for telling other labels from {printable(normal_label or '')}")
    if found.alarms:
        alarms = found.alarms
        print(
            f"threshold {alarms.threshold:.5f}: false alarms asked {alarms.asked:.2%}, measured {alarms.measured:.2%} "
            f"on {alarms.learned_from:,} normal images, each tenth by the others; "
            f"{found.flagged:,} of {found.scored:,} lie above"
        )
        least = alarms.p_text(alarms.least_p_value)
        print(f"p-values by {alarms.learned_from:,} normal images: {least} is odder than all of them")
    chances = [[found.alarms.p_text(a["p_value"])] if found.alarms else [] for a in listed]
    table = [
        [
            str(a["rank"]),
            f"{a['score']:.5f}",
            *chance,
            *([a["why"], "{:.2f} {:.2f}".format(*a["where"])] if "why" in a else []),
            str(a["row"]),
            a["label"],
            a.get("tile", a["id"]),
        ]
        for a, chance in zip(listed, chances, strict=True)
    ]
    named = ["error" if score == "reconstruction" else "score", *(["p-value"] if found.alarms else [])]
    named += ["why", "where"] if listed and "why" in listed[0] else []
    print_table(["rank", *named, "row", "label", "id"], table)


def _print_measures(measured: Sequence[Measures]) -> None:
    """How well known faults of the split test are found."""

    def shown(value: float | None) -> str:
        return "" if value is None else f"{value:.3f}"

    head = ["kind", "faulty", "score", "image AUROC", "F1", "pixel AUROC", "PRO"]
    rows = [
        [m.kind, str(m.images), m.score, *map(shown, (m.image_auroc, m.f1, m.pixel_auroc, m.pro))] for m in measured
    ]
    print_table(head, rows)
    print()


@app.command(cls=Command)
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
        bool, typer.Option("--features-only", help="Do not compare the pixels of what is near by its features.")
    ] = False,
    save: SaveOption = None,
    show: ShowOption = False,
    as_json: JsonOption = False,
) -> None:
    """List groups of images that are there more than once, or nearly.

    Example: aesearch duplicates -c photos --save same.png
    """
    opened = _open(collection, "auto")
    found = opened.duplicates(threshold=threshold, confirm=not features_only)
    if save or show:
        from aesearch.report.sheets import draw_duplicates

        _present(draw_duplicates(opened, found), save, show)
    if as_json:
        return print_json(documents.of_duplicates(opened, found))
    copies = sum(found.exact)
    print(f"{len(found.rows):,} groups of {sum(map(len, found.rows)):,} images within {opened.metric} "
          f"{found.threshold:.3g}; {copies:,} of the groups are exact copies")  # fmt: skip
    if found.found is not None:
        print(f"of the pairs that exact search finds for a sample, {found.found:.1%} are among them")
    if found.rejected:
        print(f"{found.rejected:,} pairs are as near by their features, but their pixels show other things")
    table = [
        [str(number + 1), found.kind(number), str(row), id]
        for number, (rows, ids) in enumerate(zip(found.rows, found.ids, strict=True))
        for row, id in zip(rows, ids, strict=True)
    ]
    print_table(["group", "copies", "row", "id"], table)


@app.command(cls=Command)
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

    The error is the mean squared one per pixel on the [0, 1] scale.

    Example: aesearch reconstruct img.png --save again.png
    """
    from aesearch.report.sheets import draw_reconstructions

    if not (images or row):
        raise typer.BadParameter("give an image file or --row", param_hint="IMAGE")
    opened = _open(collection, device)
    readable, failed = _read(opened, images or [], or_else=row or [])
    originals, rebuilt = opened.reconstruct(readable, row or [])
    names = [*(image.name for image in readable), *(opened.store.texts("id", row) if row else [])]
    _present(draw_reconstructions(names, originals, rebuilt), save, show)
    errors = [float(((o / 255 - r) ** 2).mean()) for o, r in zip(originals, rebuilt, strict=True)]
    if as_json:
        listed = [{"image": name, "error": error} for name, error in zip(names, errors, strict=True)]
        document = {"collection": str(opened.folder), "picture": str(save), "reconstructions": listed}
        return print_json(document | {"failed": failed})
    print_table(["error", "image"], [[f"{error:.5f}", name] for name, error in zip(names, errors, strict=True)])


@app.command(cls=Command)
def generate(
    collection: CollectionOption = "default",
    points: Annotated[
        str | None, typer.Option(help="Latents to decode: a .npy or .csv file of one a row, or 0.5,1;-1,2.")
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="So many random latents, of the data's mean and spread."),
    ] = None,
    between: Annotated[
        tuple[Path, Path] | None, typer.Option(help="The straight path in the latent space from one image to another.")
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=1000, help="Images on that path, both ends included.")] = 8,
    plane: Annotated[
        int | None,
        typer.Option(min=2, max=100, help="The plane of 2 latent numbers, so many images a side."),
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
    opened = _open(collection, device)
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
    _present(draw_decoded(opened.decode(latents), columns, f"{title}, {opened.folder.name}"), save, show)
    if as_json:
        return print_json({"collection": str(opened.folder), "picture": str(save), "latents": latents.tolist()})
    print(f"{len(latents)} images decoded")


@app.command(cls=Command)
def cluster(
    images: Annotated[
        list[Path] | None,
        typer.Argument(help="New images to assign to the clusters there are; nothing is fitted.", show_default=False),
    ] = None,
    collection: CollectionOption = "default",
    method: Annotated[str, typer.Option(help="gmm, kmeans, hdbscan.")] = "gmm",
    clusters: Annotated[str, typer.Option(help="How many, or auto: the number of best silhouette, 2 to 30.")] = "auto",
    space: Annotated[str, typer.Option(help="umap or features: where to group.")] = "umap",
    name: Annotated[
        list[str] | None,
        typer.Option(help="Name one of the clusters there are, like 3=loops; nothing is grouped. Repeatable."),
    ] = None,
    seed: SeedOption = 0,
    save: SaveOption = None,
    show: ShowOption = False,
    as_json: JsonOption = False,
) -> None:
    """Group the images, or say which groups new images belong to; the groups are kept in clusters.h5.

    With --clusters auto it is measured how far the groups stay the same from one resample to the next.

    Example: aesearch cluster --clusters 10 --save groups.png
    """
    if images and (save or show or name or clusters != "auto"):
        raise typer.BadParameter("images are assigned to the clusters there are: run aesearch cluster without them")
    if images:
        return _assign(images, _open(collection), as_json)
    if name:
        return _name_clusters(name, _open(collection), as_json)
    number = None if clusters == "auto" else numbers_in(clusters, "--clusters")[0]
    opened = _open(collection)
    found = opened.cluster(method=method, clusters=number, space=space, seed=seed)
    if save or show:
        from aesearch.report.sheets import draw_clusters

        _present(draw_clusters(opened), save, show)
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
    readable, failed = _read(opened, images)
    found = [(image.name, *answer) for image, answer in zip(readable, opened.assign(readable), strict=True)]
    if as_json:
        listed = [{"image": i, "cluster": c, "share": s} for i, c, s in found]
        return print_json({"collection": str(opened.folder), "assignments": listed, "failed": failed})
    rows = [[str(c) if c >= 0 else "none", f"{s:.2f}", i] for i, c, s in found]
    print_table(["cluster", "share", "image"], rows)


@app.command("map", cls=Command)
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
    opened = _open(collection)
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


@app.command(cls=Command)
def probe(
    collection: CollectionOption = "default",
    top: Annotated[int, typer.Option(min=0, help="How many doubtful labels to list.")] = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure what a linear model and nearest neighbours read off the features; list doubtful labels.

    Uses the splits train and test where there are both, else holds a fifth of each label out.

    Example: aesearch probe --top 20
    """
    opened = _open(collection)
    result = opened.probe(seed=seed)
    labels = opened.labels()
    suspicious: list[dict[str, Any]] = [
        {"row": row, "id": opened.ids[row], "label": labels[row], "predicted": predicted, "confidence": confidence}
        for row, predicted, confidence in result.suspicious[:top]
    ]
    if as_json:
        return print_json(
            {
                "dim": opened.store.dim,
                "train_rows": result.train_rows,
                "test_rows": result.test_rows,
                "linear_accuracy": result.linear_accuracy,
                "knn_accuracy": result.knn_accuracy,
                "per_class": result.per_class,
                "suspicious": suspicious,
                "doubts_withheld": result.withheld or None,
                "free": result.free,
            }
        )
    print(
        f"linear probe {result.linear_accuracy:.4f}, 10 nearest neighbours {result.knn_accuracy:.4f} "
        f"({result.train_rows:,} training rows, {result.test_rows:,} test rows)"
    )
    if result.free:
        _print_free(result.free)
        print()
    print_table(
        ["label", "precision", "recall", "test rows"],
        [
            [name, f"{f['precision']:.3f}", f"{f['recall']:.3f}", f"{f['test_rows']:.0f}"]
            for name, f in result.per_class.items()
        ],
    )
    if result.withheld:
        print(f"\nno label is doubted: {result.withheld}")
    if suspicious:
        print(f"\nlabels to check, {len(result.suspicious)} in doubt:")
        print_table(
            ["label", "rather", "surety", "row", "id"],
            [[s["label"], s["predicted"], f"{s['confidence']:.3f}", str(s["row"]), s["id"]] for s in suspicious],
        )


@app.command(cls=Command)
def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    collection: CollectionOption = "default",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Label new images with the probe; run aesearch probe first.

    Example: aesearch classify new/*.png
    """
    opened = _open(collection, device)
    opened.learned_probe()  # without it no image need be read
    readable, failed = _read(opened, images)
    answers = [(image.name, answer) for image, answer in zip(readable, opened.classify(readable), strict=True)]
    if as_json:
        listed = [{"image": image, **answer.to_json()} for image, answer in answers]
        return print_json({"collection": str(opened.folder), "images": listed, "failed": failed})
    table = [
        [
            a.label,
            f"{a.probability:.3f}",
            f"unsure, or {a.second} {a.second_probability:.3f}" if a.unsure else "",
            image,
        ]
        for image, a in answers
    ]
    print_table(["label", "probability", "", "image"], table)


@app.command(cls=Command)
def info(collection: CollectionOption = "default", as_json: JsonOption = False) -> None:
    """Say what a collection holds, how it was made and how good it measured.

    Example: aesearch info -c photos
    """
    opened = _open(collection, must_exist=True)
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
            _print_free(free)


def _print_free(free: dict[str, dict[str, float]]) -> None:
    """Accuracies on a sample beside those of what trains nothing, and which is best."""
    from aesearch.baselines import judge

    rows = [[name, f"{of['linear_accuracy']:.3f}", f"{of['knn_accuracy']:.3f}"] for name, of in free.items()]
    print_table(["on a sample, beside what trains nothing", "linear probe", "10 nearest"], rows)
    print(judge(free))


@app.command("list", cls=Command)
def list_collections(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = HOME,
    as_json: JsonOption = False,
) -> None:
    """List the collections there are: name, source, images, numbers of each, and when they were last changed.

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


@app.command(cls=Command)
def report(
    collection: CollectionOption = "default",
    save: Annotated[Path, typer.Option(help="The page.", show_default="report.html in the collection")] = Path(),
) -> None:
    """Write one page about a collection that can be sent to a colleague: a model card with pictures.

    What is in it, how the encoder learned, how good it is, clusters, the strangest images, near duplicates, labels in
    doubt, and how it was made. It shows what there is: run cluster, probe and anomalies before for all of it.

    Example: aesearch report -c photos --save photos.html
    """
    opened = _open(collection, must_exist=True)
    print(f"report: {opened.report(save if save.name else None)}")


@app.command(cls=Command)
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

    live = Live(_folder(collection), device=device)
    listening = serving.listen(host, port)
    token = serving.token_for(listening)
    address = serving.address(listening, token)
    print(f"{printable(live.name)}: {address}  (Ctrl-C ends it)", flush=True)
    if open_page:
        typer.launch(address)
    serving.serve(live, listening, token)


@app.command(cls=Command)
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
    opened = _open(collection)
    export_features(opened.store, output, format)
    print(f"{opened.store.rows:,} rows: {output}")


# -------------------------------------------------------------------- helping the commands


def _open(name: str, device: str = "auto", *, must_exist: bool = False, overwrite: bool = False) -> Collection:
    from aesearch.collection.facade import Collection

    folder = _folder(name)
    return Collection.open(folder) if must_exist else Collection(folder, device=device, overwrite=overwrite)


def _was_given(context: typer.Context, option: str) -> bool:
    """Whether an option was on the command line, not taken from the environment or its default."""
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _folder(name: str) -> Path:
    if not name.strip():
        raise typer.BadParameter("a collection needs a name", param_hint="--collection")
    return folder_of(name)


def _read(
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


def _present(picture: Any, save: Path | None, show: bool) -> None:
    """Write a picture, draw it in the terminal, or both."""
    if save:
        from aesearch.drawing.figures import save_picture

        save_picture(picture, save)
        note(f"picture: {save}")
    if show:
        show_picture(picture)
