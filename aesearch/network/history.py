"""How training went: the file ``history.csv``, a line for each epoch."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aesearch.files.csv import write_csv

HISTORY = "history.csv"


@dataclass(frozen=True)
class Epoch:
    """One line of ``history.csv``; errors are means over pixels, with a style weighted and with the contrast added."""

    epoch: int
    train_loss: float
    held_out_loss: float
    learning_rate: float
    images_per_second: float


def write_history(path: Path, history: Sequence[Epoch]) -> None:
    """Write the epochs, their fields as columns."""
    write_csv(path, [field.name for field in dataclasses.fields(Epoch)], map(dataclasses.astuple, history))


def read_history(path: Path) -> list[Epoch]:
    """What `write_history` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    return [
        Epoch(int(line["epoch"]), *(float(line[field.name]) for field in dataclasses.fields(Epoch)[1:]))
        for line in lines
    ]
