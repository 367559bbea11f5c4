"""Ctrl-C and SIGTERM: an exception where Python notices soon, the end of the process where it does not."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

PATIENCE = 1.5  # seconds that the work gets to put down what it holds
MESSAGE = "stopped; the same command goes on where it can"


class Stopped(KeyboardInterrupt):
    """The process was told to stop; ``code`` is what it exits with, 130 or 143."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.code = 128 + number


def listen() -> None:
    """From now on SIGINT and SIGTERM raise `Stopped`, and end the process if it is still there a little later.

    The second is for libraries that keep Python from noticing, or drop the exception on its way.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    if os.name != "posix":  # there only sockets can wake it
        return
    notices, noticed = os.pipe()
    os.set_blocking(noticed, False)
    signal.set_wakeup_fd(noticed, warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(notices,), daemon=True).start()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # once is enough
    raise Stopped(number)


def _end_late(notices: int) -> None:
    while (number := os.read(notices, 1)[0]) not in (signal.SIGINT, signal.SIGTERM):
        pass
    time.sleep(PATIENCE)
    os.write(2, f"{MESSAGE}\n".encode())
    os._exit(128 + number)
