"""One process at a time changes a folder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from aesearch.errors import AesearchError
from aesearch.files.atomic import check_own

LOCK, HOLDER = ".lock", ".lock.json"


class FolderLock:
    """Held by one process at most; the system frees it when that process ends, however it ends.

    Attributes
    ----------
    folder : Path
    held : bool
        By this object.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.held = folder, False

    @contextlib.contextmanager
    def hold(self, doing: str) -> Iterator[bool]:
        """Hold it during a block; gives whether it was free before, and not held by this object already.

        Raises
        ------
        AesearchError
            Another process holds it; says which. Or something in the folder leads out of it.
        """
        if self.held:
            yield False
            return
        import filelock

        self.folder.mkdir(parents=True, exist_ok=True)
        check_own(self.folder)
        lock = filelock.FileLock(self.folder / LOCK, timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise AesearchError(f"{self._holder()}: wait until it is done, or stop it") from None
        try:
            self.held = True
            with contextlib.suppress(OSError):  # only for others to read: on a full disk the work itself will tell
                since = datetime.now().astimezone().isoformat(timespec="seconds")
                said = {"doing": doing, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
                (self.folder / HOLDER).write_text(json.dumps(said), encoding="utf-8")
            yield True
        finally:
            self.held = False
            with contextlib.suppress(OSError):
                (self.folder / HOLDER).unlink()
            lock.release()

    def _holder(self) -> str:
        try:
            said = json.loads((self.folder / HOLDER).read_text(encoding="utf-8"))
            who = f"aesearch {said['doing']}, process {said['pid']} on {said['host']}, since {said['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            who = "another process"
        return f"{self.folder} is being changed by {who}"
