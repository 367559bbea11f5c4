"""Commands that learn labels from features."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aesearch.cli.common import open_collection, print_free, read_images
from aesearch.cli.console import print_json, print_table
from aesearch.cli.options import CollectionOption, DeviceOption, JsonOption, SeedOption
from aesearch.collection import documents


def probe(
    collection: CollectionOption = "default",
    top: Annotated[int, typer.Option(min=0, help="How many doubtful labels to list.")] = 20,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Measure the accuracy of a linear model and nearest neighbours on the features; list doubtful labels.

    Uses the splits train and test where there are both, else holds a fifth of each label out.

    Example: aesearch probe --top 20
    """
    opened = open_collection(collection)
    result = opened.probe(seed=seed)
    document = documents.of_probe(opened, result, top)
    if as_json:
        return print_json(document)
    print(
        f"linear probe {result.linear_accuracy:.4f}, 10 nearest neighbours {result.knn_accuracy:.4f} "
        f"({result.train_rows:,} training rows, {result.test_rows:,} test rows)"
    )
    if result.free:
        print_free(result.free)
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
    if suspicious := document["suspicious"]:
        print(f"\nlabels to check, {len(result.suspicious)} in doubt:")
        print_table(
            ["label", "rather", "confidence", "row", "id"],
            [[s["label"], s["predicted"], f"{s['confidence']:.3f}", str(s["row"]), s["id"]] for s in suspicious],
        )


def classify(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    collection: CollectionOption = "default",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Label new images with the probe; run aesearch probe first.

    Example: aesearch classify new/*.png
    """
    opened = open_collection(collection, device)
    opened.learned_probe()  # without it no image need be read
    readable, failed = read_images(opened, images)
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
