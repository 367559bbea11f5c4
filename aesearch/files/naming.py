"""What a collection is called: names and folders, those that there are, and how a command is told which one."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from aesearch.errors import AesearchError, did_you_mean
from aesearch.files.atomic import expand_user

HOME, DEFAULT, VARIABLE = Path("indexes"), "default", "AESEARCH_COLLECTION"
MANIFEST, NEXT = "collection.json", ".next"  # in a collection's folder: what it is known by, and where another grows
MOST_NAMED = 5  # collections, in a message


def folder_of(name: str | Path) -> Path:
    """A name under ``indexes/``, or a folder where it is a path, has a slash, or is one with a collection in it."""
    if not isinstance(name, str | Path) or not str(name).strip():
        raise AesearchError(f"a collection is named by a text or a path, not {name!r}")
    text = str(name)
    is_path = os.sep in text or "/" in text or text in (".", "..") or (Path(text) / MANIFEST).is_file()
    return expand_user(text) if is_path or isinstance(name, Path) else HOME / text


def name_of(folder: Path) -> str:
    """What `folder_of` makes that folder of: as short as it can be."""
    folder = folder.parent if folder.name == NEXT else folder
    if folder.parent == HOME and folder_of(folder.name) == folder:
        return folder.name
    return str(folder) if folder_of(str(folder)) == folder else f".{os.sep}{folder}"


def command_for(command: str, folder: Path) -> str:
    """``aesearch COMMAND``, told which collection: what a message says to run."""
    name = name_of(folder)
    is_usual = name == os.environ.get(VARIABLE, DEFAULT)
    return f"aesearch {command}" + ("" if is_usual else f" -c {shlex.quote(name)}")


def collections_in(folder: Path) -> list[Path]:
    """Folders of the collections in a folder, and in those of a sweep there, by name."""
    found = {path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/{MANIFEST}")}
    return sorted(path for path in found if path.name != NEXT)


def no_collection(folder: Path) -> str:
    """One line for a collection that is not there: those that are, or how to make one."""
    others = [name_of(path) for path in collections_in(folder.parent if folder.name else HOME)]
    said = f"there is no collection at {folder}"
    if others:
        more = f" and {len(others) - MOST_NAMED} more" if len(others) > MOST_NAMED else ""
        said += f", there is {', '.join(others[:MOST_NAMED])}{more}: name one with -c, or"
    else:
        said += ":"
    return f"{said} make one with {command_for('build-index SOURCE', folder)}{did_you_mean(name_of(folder), others)}"
