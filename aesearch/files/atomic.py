"""Files that are there whole or not at all, and a line that says so where there is no room for them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from aesearch.errors import AesearchError

FULL = (errno.ENOSPC, errno.EDQUOT)
SAID = ("No space left", "quota exceeded")  # by libraries that give no number


@contextlib.contextmanager
def replacing(path: Path, size: int = 0) -> Iterator[Path]:
    """Give a temporary path beside ``path``; when the block ends well, it is flushed and takes its place.

    A reader sees the old file or the new one, never half of one. If the block raises, the old file stays.

    Parameters
    ----------
    size : int
        Bytes that it will have, as far as that is known.

    Raises
    ------
    AesearchError
        There is no room for it on the disk, or a folder, a device or the like is in its place.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise AesearchError(f"{path} exists and is not a regular file: give another name")
    path.parent.mkdir(parents=True, exist_ok=True)
    with needing_room(path, size):
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}{path.suffix}")
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # less the umask
        try:
            yield temporary
            put_in_place(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def needing_room(path: Path, size: int) -> Iterator[None]:
    """Check that there is room for a file before the block, and say so if the disk gets full in it."""
    check_room(path, size)
    try:
        yield
    except Exception as error:
        if not _is_full(error):
            raise
        needed = f"{size / 1e6:,.1f} MB" if size else "more"
        raise AesearchError(_no_room(path, needed, shutil.disk_usage(path.parent).free)) from error


def check_room(path: Path, size: int) -> None:
    """Raise `AesearchError` unless the disk has room for so many bytes more; ``path`` names what needs them."""
    free = shutil.disk_usage(path.parent).free
    if free < size:
        raise AesearchError(_no_room(path, f"{size / 1e6:,.1f} MB", free))


def _no_room(path: Path, needed: str, free: int) -> str:
    return f"no room for {path}: it needs {needed}, {free / 1e6:,.1f} MB are free; make room and run the command again"


def _is_full(error: BaseException) -> bool:
    """Whether this error, or the one it came of, is that of a full disk."""
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    cause = error.__cause__ or error.__context__
    return any(said in str(error) for said in SAID) or (cause is not None and _is_full(cause))


def drop(folder: Path) -> None:
    """Delete a folder with all in it; killed in the middle, nothing of it is left under its name."""
    away = folder.with_name(folder.name + ".dropped")
    for path in (away, folder):
        if path.is_dir():
            if path == folder:
                folder.rename(away)
            shutil.rmtree(away)


def check_own(folder: Path) -> None:
    """``AesearchError`` if something in a folder that is about to be written to leads out of it."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_symlink() and (path.name.startswith(".") or path.suffix == ".partial"):
            raise AesearchError(f"{path} is a link and would be written through: remove it")


def expand_user(name: str) -> Path:
    """A path with ``~`` resolved; ``AesearchError`` where that, or its name, is none."""
    try:
        name.encode()
        return Path(name).expanduser()
    except UnicodeEncodeError:
        raise AesearchError(f"{name} has a name that is not valid UTF-8: rename it") from None
    except RuntimeError as error:
        raise AesearchError(f"no folder {name!r}: {error}") from None


def put_in_place(temporary: Path, path: Path) -> None:
    """Flush a finished file to the disk and rename it."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
