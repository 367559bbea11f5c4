"""Names as people write them: of files, labels and splits, brought to the one form that a store keeps."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

SPLITS = {
    name: split
    for split, names in {
        "train": ("train", "training", "trn"),
        "val": ("val", "valid", "validation", "dev"),
        "test": ("test", "testing", "tst"),
    }.items()
    for name in names
}
MISSING = {"", "nan", "n/a", "#n/a", "<na>", "nat", "null"}  # in any case; R writes NA
WHOLE = re.compile(r"-?\d+\.0+")  # a class number that has been a float, as pandas makes it where others are missing


def split_of(name: str) -> str:
    """``train``, ``val`` or ``test``, however it is written, else empty."""
    return SPLITS.get(name.strip().casefold(), "")


def splits_of(values: Sequence[str]) -> list[str]:
    """Splits as a table or an array names them; what is none of train, val and test stays as it is."""
    shared = {value: split_of(value) or or_empty(value) for value in set(values)}
    return [shared[value] for value in values]


def labels_of(values: Sequence[str]) -> list[str]:
    """Labels as a table or an array has them: empty where one is missing, whole numbers as such."""
    shared = {value: or_empty(value) for value in set(values)}
    if all(WHOLE.fullmatch(label) for label in shared.values() if label):
        shared = {value: label.partition(".")[0] for value, label in shared.items()}
    return [shared[value] for value in values]


def or_empty(value: str) -> str:
    """A value without blanks around it; empty where it says that there is none."""
    text = value.strip()
    return "" if text == "NA" or text.casefold() in MISSING else text


def composed(text: str) -> str:
    """One form of texts that read alike: é may be one character or two, as macOS writes it."""
    return unicodedata.normalize("NFC", text)


def id_of(path: Path) -> str:
    """A file's id: its path, where that is no UTF-8 with escapes; different paths have different ids."""
    name = path.as_posix()
    try:
        name.encode()
        odd = "\\x" in name  # reads as if it were escaped
    except UnicodeEncodeError:
        odd = True
    return as_text(name.replace("\\", "\\\\") if odd else name)


def as_text(name: str) -> str:
    """Valid UTF-8, without NUL, for any file name or label."""
    try:
        data = name.encode("utf-8", "surrogateescape")  # the bytes of a file's name
    except UnicodeEncodeError:
        data = name.encode("utf-8", "surrogatepass")
    return data.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of some names, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
