"""The command that lists odd images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aesearch.cli.common import open_collection, present
from aesearch.cli.console import note, print_json, print_table, printable
from aesearch.cli.options import (
    CollectionOption,
    DataDirOption,
    DeviceOption,
    JsonOption,
    LabelsOption,
    SaveOption,
    ShowOption,
    SourceArgument,
)
from aesearch.collection import documents

if TYPE_CHECKING:
    from aesearch.anomalies.inspection import Measures


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
            "(blank, noise, overexposed, half lost), with the reason; patches: how faulty it looks to a network that "
            "has learned to find planted faults; reconstruction: mean squared error per pixel on the [0, 1] scale; "
            "nap: reconstruction error of each layer; neighbours: mean distance to the 5 nearest features. Larger is "
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
        Path | None, typer.Option(help="Also write a heat-map of each listed image to this folder.")
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
    opened = open_collection(collection, device)
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
            present(report.draw_anomalies(opened, found, new), save, show)
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
            f"threshold {alarms.threshold:.5f}: false-alarm target {alarms.asked:.2%}, measured {alarms.measured:.2%} "
            f"on {alarms.learned_from:,} normal images (10-fold cross-validation); "
            f"{found.flagged:,} of {found.scored:,} lie above"
        )
        least = alarms.p_text(alarms.least_p_value)
        print(f"p-values from {alarms.learned_from:,} normal images: {least} means odder than all of them")
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
