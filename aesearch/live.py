"""A collection that many ask at once while a server runs: one question at a time, opened again when it changes."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

from aesearch.collection import Collection
from aesearch.errors import StaleArtifactError
from aesearch.manifest import NAME, NEXT

Answer = TypeVar("Answer")
MOST_KEPT = 24  # answers
OPENED = ("encoder", "features", "index")  # what is opened anew when it changes


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
        self._collection = Collection.open(folder, device=device, progress=False)
        self._asking, self._working = threading.RLock(), threading.Lock()
        self._within = False
        self._kept: dict[Hashable, Any] = {}
        self._stamp = self._stamps()
        self.version = self._digest()

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
                    self._notice(surely=True)
                    return question(self._collection)
            finally:
                self._within = False

    def keep(self, name: Hashable, question: Callable[[Collection], Answer]) -> Answer:
        """As `ask`, but asked once as long as nothing changes."""

        def asked(collection: Collection) -> Answer:
            if name not in self._kept:
                self._put(name, question(collection))
            kept: Answer = self._kept[name]
            return kept

        return self.ask(asked)

    def work_out(self, name: Hashable, question: Callable[[Collection], Answer]) -> Answer:
        """As `keep`, for what takes long: others go on asking meanwhile."""
        with self._working:
            version, kept = self.ask(lambda _: (self.version, self._kept.get(name)))
            if kept is None:
                kept = question(Collection.open(self._collection.folder, device=self._device, progress=False))
                with self._asking:
                    if version == self.version:
                        self._put(name, kept)
            answer: Answer = kept
            return answer

    def _put(self, name: Hashable, answer: object) -> None:
        if len(self._kept) >= MOST_KEPT:
            self._kept.pop(next(iter(self._kept)))  # the oldest
        self._kept[name] = answer

    def _notice(self, *, surely: bool = False) -> None:
        """Forget what has changed in the folder."""
        stamp = self._stamps()
        if stamp == self._stamp and not surely:
            return
        before = self._files()
        self._stamp = stamp
        if self._collection.manifest.refresh() or surely:
            self._kept.clear()
            self.version = self._digest()
            if surely or before != self._files():
                self._collection.forget()

    def _stamps(self) -> list[tuple[int, int, int] | None]:
        """What tells that another manifest lies there, or is about to."""
        stamps: list[tuple[int, int, int] | None] = []
        for path in (self._collection.folder / NAME, self._collection.folder / NEXT / NAME):
            try:
                status = path.stat()
                stamps.append((status.st_ino, status.st_size, status.st_mtime_ns))
            except OSError:
                stamps.append(None)
        return stamps

    def _files(self) -> list[Any]:
        return [self._collection.manifest.artifacts.get(name, {}).get("files") for name in OPENED]

    def _digest(self) -> str:
        """Another one for every change."""
        made = repr(sorted(self._collection.manifest.artifacts.items()))
        return hashlib.blake2b(made.encode("utf-8", "backslashreplace"), digest_size=6).hexdigest()
