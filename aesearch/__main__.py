"""``aesearch`` and ``python -m aesearch``."""

import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from aesearch import signals as stopping


def main() -> None:
    """Run the command line."""
    _open_streams()
    try:
        stopping.listen()  # before the imports that take time
        from aesearch.cli import app

        app(prog_name="aesearch")
    except BaseException:
        if stopping.told:  # whatever a library has made of `Stopped`
            _end(128 + stopping.told[0])
        raise


def _end(code: int) -> NoReturn:
    """At once: threads of libraries that are still at work bring a slower end down."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _open_streams() -> None:
    """What is written to closed streams goes nowhere; what a terminal cannot show is escaped."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode)  # for as long as the process lives
            if stream.fileno() != number:
                os.dup2(stream.fileno(), number)
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


if __name__ == "__main__":
    main()
