"""Features for use elsewhere: NumPy, CSV, parquet, TensorBoard's embedding projector."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from aesearch.errors import AesearchError, check_choice, did_you_mean
from aesearch.files.atomic import replacing
from aesearch.files.csv import cell
from aesearch.store.reader import Store
from aesearch.vectors.distances import in_blocks

FORMATS = ("npy", "csv", "parquet", "tensorboard")


def format_of(output: Path, format: str | None = None) -> str:
    """The format of a file to write: what is asked for, else what its ending says, else ``npy``.

    Raises
    ------
    AesearchError
        An unknown format or ending, or one that contradicts the other.
    """
    if format is not None:
        check_choice("export format", format, FORMATS)
    ending = output.suffix.lower().removeprefix(".")
    if ending in FORMATS and format not in (None, ending):
        raise AesearchError(f"{output.name} ends in .{ending}, and --format says {format}: give one of them")
    if format is None and (output.is_dir() or ending not in ("", *FORMATS)):
        raise AesearchError(f"cannot tell the format of {output.name}: end its name in .npy, .csv or .parquet, or give "
                            f"--format {', '.join(FORMATS)}{did_you_mean(ending, FORMATS)}")  # fmt: skip
    return format or ending or "npy"


def export_features(store: Store, output: Path, format: str | None = None) -> None:
    """Write a store's rows, in order; ``AesearchError`` as `format_of`, or for a missing library."""
    format = format_of(output, format)
    if format == "tensorboard":
        _tensorboard(store, output)
        return
    with replacing(output) as temporary:
        {"npy": _npy, "csv": _csv, "parquet": _parquet}[format](store, temporary)


def _npy(store: Store, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, store.features(), allow_pickle=False)


def _facts(store: Store) -> dict[str, Any]:
    texts: dict[str, Any] = {name: store.texts(name) for name in ("id", "label", "split")}
    return texts | {"reconstruction_error": store.reconstruction_errors()}


def _csv(store: Store, path: Path) -> None:
    facts = _facts(store)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*facts, *(f"f{i}" for i in range(store.dim))])
        for start, block in in_blocks(store.rows_of_features()):
            columns = [values[start : start + len(block)] for values in facts.values()]
            writer.writerows([*map(cell, row[:-1]), *row[-1].tolist()] for row in zip(*columns, block, strict=True))


def _parquet(store: Store, path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise AesearchError("writing .parquet needs pyarrow: pip install 'aesearch[parquet]'") from None
    features = store.features()
    columns = _facts(store) | {f"f{i}": features[:, i] for i in range(store.dim)}
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _tensorboard(store: Store, folder: Path) -> None:
    """Write ``tensors.tsv``, ``metadata.tsv`` and the ``projector_config.pbtxt`` that names them."""
    facts = _facts(store)
    with replacing(folder / "tensors.tsv") as temporary, temporary.open("w", encoding="utf-8") as file:
        for _, block in in_blocks(store.rows_of_features()):
            file.writelines("\t".join(f"{v:.7g}" for v in row) + "\n" for row in block.tolist())
    with replacing(folder / "metadata.tsv") as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("\t".join(facts) + "\n")
        for row in zip(*facts.values(), strict=True):
            file.write("\t".join(" ".join(str(cell(v)).split()) for v in row) + "\n")
    config = 'embeddings {\n  tensor_path: "tensors.tsv"\n  metadata_path: "metadata.tsv"\n}\n'
    with replacing(folder / "projector_config.pbtxt") as temporary:
        temporary.write_text(config, encoding="utf-8")
