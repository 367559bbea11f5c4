"""Image files to pixels and content hashes: here, or in processes of their own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict, astuple
from multiprocessing.connection import Connection, Pipe
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aesearch.images.decode import MAX_FILE_BYTES, NOTHING, Preprocessing, UnreadableImageError, decode_counting
from aesearch.machine import asked

OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
READ_AT_ONCE = 2**20
MOST_READERS = 16  # a bound for machines of very many cores
READER = (
    "import sys; number, *sys.path = sys.argv[1:]; "
    "from aesearch.images.worker_processes import serve; serve(int(number))"
)
Outcome = tuple[str, str, tuple[int, ...]]  # content hash or why there is no image; what was left out, if anything


def cores() -> int:
    """How many cores this process may use: those it is given, or as many as threads were asked for."""
    given = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([given, *asked])


def read_file(path: str | os.PathLike[str]) -> bytes:
    """Bytes of a regular file; ``UnreadableImageError`` for anything else, so that no pipe can block."""
    try:
        opened = os.open(path, OPEN_FLAGS)
        try:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise UnreadableImageError("not a regular file")
            if status.st_size > MAX_FILE_BYTES:
                raise UnreadableImageError(f"file larger than {MAX_FILE_BYTES:,} bytes")
            data = os.read(opened, status.st_size + 1)
            if len(data) != status.st_size or not data:  # it has changed meanwhile, or does not know its size
                while len(data) <= MAX_FILE_BYTES and (more := os.read(opened, READ_AT_ONCE)):
                    data += more
            return data
        finally:
            os.close(opened)
    except (OSError, ValueError) as error:
        raise UnreadableImageError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


def content_hash(data: Any) -> str:
    """32 hexadecimal digits of BLAKE2b."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def read_images(paths: Sequence[str], preprocessing: Preprocessing, images: NDArray[np.uint8]) -> list[Outcome]:
    """Decode files into the rows of ``images`` (n, channels, height, width); rows without an image stay as they are."""
    outcomes: list[Outcome] = []
    for row, path in enumerate(paths):
        try:
            data = read_file(path)
            images[row], tally = decode_counting(data, preprocessing)
            outcomes.append((content_hash(data), "", () if tally is NOTHING else astuple(tally)))
        except UnreadableImageError as error:
            outcomes.append(("", str(error), ()))
    return outcomes


class Readers:
    """Processes that do what `read_images` does: threads of one process hinder one another at small files.

    Their end of a pipe is closed when this process, and what was forked from it, ends, and then they end too. What one
    of them leaves undone (it was killed, say, or has not started yet) is done here. Nothing but ``images`` and what
    `read_images` returns comes from them.
    """

    def __init__(self) -> None:
        self._idle: queue.SimpleQueue[Connection] = queue.SimpleQueue()
        started: list[tuple[Connection, subprocess.Popen[bytes]]] = []
        end = weakref.finalize(self, _end, started, os.getpid())
        try:
            for _ in range(min(cores(), MOST_READERS) if os.name == "posix" and cores() > 1 else 0):
                started.append(_start())
            threading.Thread(target=_welcome, args=([pipe for pipe, _ in started], self._idle), daemon=True).start()
        except (OSError, RuntimeError, TypeError, ValueError):  # no more are allowed, or a sys.path that cannot be told
            end()  # what this process itself needs of them is not to be taken

    @property
    def ready(self) -> bool:
        """Whether one is at hand."""
        return not self._idle.empty()

    def read(self, paths: Sequence[str], preprocessing: Preprocessing, images: NDArray[np.uint8]) -> list[Outcome]:
        """As `read_images`; to be called by one thread a core."""
        with contextlib.suppress(queue.Empty, EOFError, OSError):
            pipe = self._idle.get_nowait()
            pipe.send_bytes(json.dumps([paths, asdict(preprocessing)]).encode())
            outcomes = [(digest, reason, tuple(tally)) for digest, reason, tally in json.loads(pipe.recv_bytes())]
            _fill(images.reshape(-1).data, pipe)
            self._idle.put(pipe)
            return outcomes
        return read_images(paths, preprocessing, images)


def _fill(view: memoryview, pipe: Connection) -> None:
    """Receive bytes where they belong: a Connection would hold them twice on the way."""
    while len(view):
        got = os.readv(pipe.fileno(), [view])
        if not got:
            raise EOFError
        view = view[got:]


def _start() -> tuple[Connection, subprocess.Popen[bytes]]:
    """A process that imports what this one would, and gets no signal from this one's terminal."""
    here, there = Pipe()
    with there:
        command = [
            sys.executable or "",
            "-I",
            f"-Xutf8={sys.flags.utf8_mode}",
            "-c",
            READER,
            str(there.fileno()),
            *sys.path,
        ]
        process = subprocess.Popen(
            command, pass_fds=[there.fileno()], start_new_session=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    return here, process


def _welcome(pipes: Sequence[Connection], idle: queue.SimpleQueue[Connection]) -> None:
    for pipe in pipes:
        with contextlib.suppress(EOFError, OSError):
            pipe.recv_bytes()
            idle.put(pipe)


def _end(started: Sequence[tuple[Connection, subprocess.Popen[bytes]]], owner: int) -> None:
    for pipe, process in started:
        pipe.close()
        if os.getpid() == owner:  # one that was forked from it lets them live
            process.kill()
            process.wait()


def serve(number: int) -> None:
    """Read what the other end of a pipe asks for, until it is closed."""
    with contextlib.suppress(EOFError, OSError), Connection(number) as pipe:
        pipe.send_bytes(b"ready")
        while True:
            paths, settings = json.loads(pipe.recv_bytes())
            preprocessing = Preprocessing(**settings)
            images = np.empty((len(paths), *preprocessing.shape), np.uint8)
            pipe.send_bytes(json.dumps(read_images(paths, preprocessing, images)).encode())
            view = images.reshape(-1).data
            while len(view):
                view = view[os.write(number, view) :]
