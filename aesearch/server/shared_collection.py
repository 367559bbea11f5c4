"""A collection that many ask at once while a server runs: one question at a time, opened again when it changes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from aesearch.collection.facade import Collection
from aesearch.collection.manifest import NAME, NEXT
from aesearch.errors import AesearchError, StaleArtifactError
from aesearch.files.atomic import expand_user

Answer = TypeVar("Answer")
MOST_KEPT, MOST_WORKED_OUT = 24, 4  # answers
MOST_WAITING = 24  # for what takes long: others need threads too
OPENED = ("encoder", "features", "index")  # what is opened anew when it changes


class BusyError(AesearchError):
    """Others are asking for something that takes long."""


class Live:
    """Answers questions about a collection from any thread.

    Parameters
    ----------
    folder : path
    device : str
        For the network.

    Raises
    ------
    AesearchError
        There is no collection there, or it is damaged.
    """

    def __init__(self, folder: str | Path, *, device: str = "auto") -> None:
        self._device = device
        self._folder = expand_user(str(folder))
        self._stamp = self._stamps()
        self._collection = Collection.open(folder, device=device, progress=False)
        self._asking, self._working = threading.RLock(), threading.Lock()
        self._within = False
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._kept: dict[Hashable, Any] = {}
        self._worked_out: dict[Hashable, Any] = {}
        self._doubted: Any = None
        self._files, self.version = self._opened_files(), self._digest()

    @property
    def name(self) -> str:
        """Of the collection."""
        return self._collection.name

    def ask(self, question: Callable[[Collection], Answer]) -> Answer:
        """What a function makes of the collection as it is now; quick ones only, as the others wait.

        A question may ask others: of the same collection, which does not change meanwhile.
        """
        with self._asking:
            if self._within:
                return question(self._collection)
            self._within = True
            try:
                self._notice()
                try:
                    return question(self._collection)
                except StaleArtifactError:  # it was changed between the look and the question
                    self._notice(doubted=True)
                    return question(self._collection)
            finally:
                self._within = False

    def keep(self, name: Hashable, question: Callable[[Collection], Answer]) -> Answer:
        """As `ask`, but asked once as long as nothing changes."""

        def asked(collection: Collection) -> Answer:
            if name not in self._kept:
                _put(self._kept, name, question(collection), MOST_KEPT)
            kept: Answer = self._kept[name]
            return kept

        return self.ask(asked)

    def work_out(self, name: Hashable, question: Callable[[Collection], Answer]) -> Answer:
        """As `keep`, for what takes long: others go on asking meanwhile."""

        def known(_: Collection) -> tuple[str, Answer | None]:
            return self.version, self._worked_out.get(name)

        kept = self.ask(known)[1]
        if kept is not None:
            return kept
        if not self._waiting.acquire(blocking=False):
            raise BusyError("too many requests are waiting for slow work: ask again later")
        try:
            with self._working:
                version, kept = self.ask(known)
                if kept is None:
                    kept = question(Collection.open(self._folder, device=self._device, progress=False))
                    with self._asking:
                        if version == self.version:
                            _put(self._worked_out, name, kept, MOST_WORKED_OUT)
                return kept
        finally:
            self._waiting.release()

    def _notice(self, *, doubted: bool = False) -> None:
        """Forget what has changed in the folder, by whoever; with a doubt, all, once for each state of the folder."""
        stamp = self._stamps()
        if doubted and self._doubted == stamp:
            return
        if stamp == self._stamp and not doubted:
            return
        self._stamp = stamp
        self._doubted = stamp if doubted else self._doubted
        self._collection.manifest.refresh()
        version, files = self._digest(), self._opened_files()
        if doubted or version != self.version:
            self._kept.clear()
            self._worked_out.clear()
        if doubted or files != self._files:
            self._collection.forget()
        self.version, self._files = version, files

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        """What tells that another manifest lies there, or is about to."""
        stamps: list[tuple[int, int, int] | None] = []
        for path in (self._folder / NAME, self._folder / NEXT / NAME):
            try:
                status = path.stat()
                stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps

    def _opened_files(self) -> list[Any]:
        return [self._collection.manifest.artifacts.get(name, {}).get("files") for name in OPENED]

    def _digest(self) -> str:
        """Another one for every change."""
        made = repr(sorted(self._collection.manifest.artifacts.items()))
        return hashlib.blake2b(made.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()


def _put(kept: dict[Hashable, Any], name: Hashable, answer: object, most: int) -> None:
    if len(kept) >= most:
        kept.pop(next(iter(kept)))  # the oldest
    kept[name] = answer
