"""Tables of images, as people and their programs write them, to paths, labels and splits."""

from __future__ import annotations

import contextlib
import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from aesearch.errors import SourceError
from aesearch.files.names import as_text, composed, labels_of, listed, or_empty, splits_of

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")
DELIMITERS = ",;\t|"
# What a column may be called, the first of them that is there; blanks, case, - and _ make no difference.
COLUMNS = {
    "path": (
        "path", "filepath", "filename", "file", "imagepath", "imagefile", "imagefilename", "imagename", "image",
        "imgpath", "img", "relativepath", "relpath", "fullpath", "paths", "files", "filenames",
    ),
    "label": ("label", "labels", "class", "classname", "classes", "labelname", "category", "categories",
              "target", "targets"),
    "split": ("split", "splits", "set", "subset", "partition", "datasplit", "phase"),
}  # fmt: skip
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class Table:
    """Files that a table names, once each.

    Attributes
    ----------
    paths, labels, splits, groups : list of str
        Paths relative to the table, or absolute; the others empty where there is none.
    skips : list of (row, reason)
        Rows that name no file of their own.
    notes : list of str
        What people must know, a line each.
    """

    paths: list[str]
    labels: list[str]
    splits: list[str]
    groups: list[str]
    skips: list[tuple[str, str]]
    notes: list[str]


@dataclass
class _Columns:
    """Texts of the columns that are used, by what they are; all that there are, and which of them is which."""

    texts: dict[str, list[str]]
    header: list[str]
    chosen: dict[str, int]
    encoding: str = ""

    def __getitem__(self, role: str) -> list[str]:
        return self.texts.get(role) or [""] * len(self.texts["path"])


def read_table(path: Path, group: str = "") -> Table:
    """Read a CSV or parquet table; ``SourceError`` if it cannot be read, or has no column of paths.

    ``group`` may name the column that says which images belong together.
    """
    columns = (_read_parquet if path.suffix.lower() == ".parquet" else _read_csv)(path, group)
    files = _Files(path.parent)
    names = [files.find(name) for name in columns["path"]]
    first: dict[str, int] = {}
    for position, name in enumerate(names):
        first.setdefault(name, position)
    first.pop("", None)
    keep = sorted(first.values())
    labels = labels_of([columns["label"][i] for i in keep])
    splits = splits_of([columns["split"][i] for i in keep])
    skips = [
        (name or f"row {i + 1}", "listed before in the table" if name else "names no file")
        for i, name in enumerate(names)
        if first.get(name) != i
    ]
    notes = [f"{path.name}: {note}" for note in _notes(columns, labels, files.respelled)]
    groups = [or_empty(columns["group"][i]) for i in keep]
    return Table([names[i] for i in keep], labels, splits, groups, skips, notes)


def _notes(columns: _Columns, labels: Sequence[str], respelled: int) -> list[str]:
    header, chosen = columns.header, columns.chosen
    missing = labels.count("") if "label" in chosen else 0
    others = [name for place, name in enumerate(header) if place not in chosen.values() and name.strip()]
    return [
        *(["not UTF-8, read as Windows-1252"] if columns.encoding == "cp1252" else []),
        *(f"column {header[place]!r} is taken as {role}" for role, place in chosen.items() if header[place] != role),
        *([f"columns that are not used: {listed(others, 10)}"] if others else []),
        *([f"{missing:,} of {len(labels):,} images have no label"] if missing else []),
        *([f"{respelled:,} paths were matched to files that are spelt differently"] if respelled else []),
    ]


def _choose(header: Sequence[str], group: str = "") -> dict[str, int]:
    """Which column is what: its place by ``path``, ``label``, ``split``, and by ``group`` if one is called so."""
    places: dict[str, int] = {}
    for place, name in enumerate(header):
        places.setdefault(re.sub(r"[\W_]+", "", name.casefold()), place)
    known = {role: [places[name] for name in names if name in places] for role, names in COLUMNS.items()}
    chosen = {role: found[0] for role, found in known.items() if found}
    return chosen | ({"group": list(header).index(group)} if group and group in header else {})


def _check(path: Path, header: Sequence[str], group: str) -> dict[str, int]:
    chosen = _choose(header, group)
    if "path" not in chosen:
        there = listed([as_text(name)[:100] for name in header], 10) or "none"
        raise SourceError(f"{path.name} has no column 'path' (or 'filename', 'file', 'image'); it has {there}")
    return chosen


def _read_csv(path: Path, group: str) -> _Columns:
    try:
        with path.open("rb") as file:
            wide = file.read(2) in UTF16
        try:
            return _parse_csv(path, "utf-16" if wide else "utf-8-sig", group)
        except UnicodeDecodeError:
            return _parse_csv(path, "cp1252", group)
    except (OSError, UnicodeError, csv.Error) as error:
        raise SourceError(f"cannot read {path.name} as a CSV table: {_short(error)}") from error


def _parse_csv(path: Path, encoding: str, group: str) -> _Columns:
    with path.open(newline="", encoding=encoding) as file:
        first = file.readline()
        if first.lower().startswith("sep=") and first[4:].strip("\r\n"):  # Excel's way to name it
            delimiter, first = first[4], file.readline()
        else:
            delimiter = max(DELIMITERS, key=lambda one: _fits(first, one))
        spaced = f"{delimiter} " in first
        rows = csv.reader(itertools.chain([first], file), delimiter=delimiter, skipinitialspace=spaced)
        header = [as_text(name) for name in next(rows, [])]
        chosen = _check(path, header, group)
        texts: dict[str, list[str]] = {role: [] for role in chosen}
        for row in filter(None, rows):
            for role, place in chosen.items():
                texts[role].append(as_text(row[place]) if place < len(row) else "")
    return _Columns(texts, header, chosen, encoding)


def _fits(line: str, delimiter: str) -> tuple[bool, int, int]:
    """How much a line looks like a header whose columns are parted like that."""
    header = next(csv.reader([line], delimiter=delimiter), [])
    chosen = _choose(header)
    return "path" in chosen, len(chosen), len(header)


def _read_parquet(path: Path, group: str) -> _Columns:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SourceError("reading .parquet needs pyarrow: pip install 'aesearch[parquet]'") from None
    try:
        schema = pyarrow.parquet.read_schema(path)
        plain = ["" if pyarrow.types.is_nested(f.type) or pyarrow.types.is_binary(f.type) else f.name for f in schema]
        chosen = _check(path, plain, group)  # a column of pictures, or of lists, names no file
        table = pyarrow.parquet.read_table(path, columns=[plain[place] for place in chosen.values()])
        texts = {
            role: ["" if v is None else as_text(str(v)) for v in table[plain[place]].to_pylist()]
            for role, place in chosen.items()
        }
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise SourceError(f"cannot read {path.name} as a parquet table: {_short(error)}") from error
    return _Columns(texts, [as_text(name) for name in schema.names], chosen)


def _short(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


class _Files:
    """Finds files whose names were written on another system: with backslashes, or with é as two characters."""

    def __init__(self, root: Path) -> None:
        self.root, self.respelled = root, 0
        self._listed: dict[PurePosixPath, dict[str, str]] = {}
        self._folders: dict[PurePosixPath, PurePosixPath | None] = {}

    def find(self, name: str) -> str:
        """A path as it is written, or that of the file that is meant; empty where there is none."""
        plain = name.strip()
        if name.isascii() and "\\" not in name and name == plain:
            return or_empty(name)
        for written in dict.fromkeys((name, plain, plain.replace("\\", "/"))):
            path = PurePosixPath(written)
            if written and (meant := self._meant(path)) is not None:
                there = written if meant == path else str(meant)
                self.respelled += there != name
                return there
        return or_empty(name)

    def _meant(self, path: PurePosixPath) -> PurePosixPath | None:
        """The file or folder of that name, or else one whose name reads alike."""
        if path.name in ("", ".."):
            return path
        if path.parent not in self._folders:
            self._folders[path.parent] = self._meant(path.parent)
        parent = self._folders[path.parent]
        if parent is None:
            return None
        names = self._names_in(parent)
        name = names.get(path.name) or names.get(composed(path.name))
        return None if name is None else parent / name

    def _names_in(self, folder: PurePosixPath) -> dict[str, str]:
        if folder not in self._listed:
            names = []
            with contextlib.suppress(OSError, ValueError):
                names = [path.name for path in (self.root / folder).iterdir()]
            self._listed[folder] = {composed(name): name for name in names} | {name: name for name in names}
        return self._listed[folder]
