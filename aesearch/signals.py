"""Ctrl-C and SIGTERM: an exception where Python notices soon, the end of the process where it does not."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
from types import FrameType
from typing import NoReturn

PATIENCE = 1.3  # seconds that the work gets to put down what it holds
LAST_PATIENCE = 0.3  # seconds from the second signal to the end that nothing can put off
MESSAGE = "stopped; the same command resumes where it can"
SIGNALS = (signal.SIGINT, signal.SIGTERM)
told: list[int] = []  # signals that have come: libraries make other exceptions of `Stopped`


class Stopped(KeyboardInterrupt):
    """The process was told to stop; ``code`` is what it exits with, 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def listen() -> None:
    """From now on SIGINT and SIGTERM raise `Stopped`, and end the process if it is still there a little later.

    The second is for libraries that keep Python from noticing, some for minutes, or drop the exception on its way. No
    thread of this process could do it, as they hold the interpreter: another process does. To be called at the start,
    before there are threads.
    """
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup, and the like, stay
    for number in heard:
        signal.signal(number, _stop)
    if os.name != "posix":
        return
    received, sent = os.pipe()
    process = os.getpid()
    if os.fork() == 0:
        os.close(sent)
        _watch(received, process)
    os.close(received)
    os.set_blocking(sent, False)
    signal.set_wakeup_fd(sent, warn_on_full_buffer=False)
    with contextlib.suppress(AttributeError, OSError):  # glibc has it: a second signal then ends the process at once
        library = ctypes.CDLL(None)
        library.signal.restype = library.sysv_signal.restype = ctypes.c_void_p
        for number in heard:
            library.sysv_signal(number, ctypes.c_void_p(library.signal(number, None)))


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)
    told.append(number)
    raise Stopped(number)


def _watch(received: int, process: int) -> NoReturn:
    """End a process that does not end itself after a signal; a pipe tells of the signal, and then of the end."""
    try:
        for number in SIGNALS:  # Ctrl-C goes to this one too
            signal.signal(number, signal.SIG_IGN)
        while (got := os.read(received, 1)) and got[0] not in SIGNALS:
            pass
        if got and not _ended(received, PATIENCE):
            os.kill(process, got[0])
            if not _ended(received, LAST_PATIENCE):
                os.kill(process, signal.SIGKILL)
            os.write(2, f"{MESSAGE}\n".encode())  # the last: it may fail, or wait for a reader
    finally:
        os._exit(0)


def _ended(received: int, seconds: float) -> bool:
    """Whether the other end of the pipe is closed within that time; further signals are read over."""
    while select.select([received], [], [], seconds)[0]:
        if not os.read(received, 1):
            return True
    return False
