"""How commands show things: notes on standard error, tables and JSON on standard output."""

from __future__ import annotations

import codecs
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import typer

from aesearch.errors import AesearchError

CELL_PIXELS = 9  # about the width of a letter


def fail(message: str) -> NoReturn:
    """One line, exit 1."""
    print(f"error: {printable(message)}", file=sys.stderr)
    raise typer.Exit(1)


class Notes(logging.Formatter):
    """Warnings say that they are."""

    def format(self, record: logging.LogRecord) -> str:
        """One printable line."""
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        return prefix + printable(record.getMessage())


def printable(text: str) -> str:
    """Replace control characters, which could drive the terminal, by their escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def note(text: str) -> None:
    """One line beside the answer."""
    print(printable(text), file=sys.stderr)


def print_json(document: dict[str, Any]) -> None:
    """One line, the whole answer; on an output that is not UTF-8 in ASCII, which is the same JSON."""
    print(json.dumps(document, ensure_ascii=not _is_utf8(sys.stdout)))


def _is_utf8(stream: Any) -> bool:
    return codecs.lookup(stream.encoding or "ascii").name == "utf-8"


def show_picture(picture: Any) -> None:
    """Draw a picture in the terminal: in full where that shows pictures (Kitty's way, or Sixel), else in blocks.

    Goes to standard error, beside the answer; ``AesearchError`` if the library for it is missing.
    """
    try:
        from rich.console import Console
        from textual_image.renderable import Image
    except ImportError:
        raise AesearchError("drawing in the terminal needs textual-image: pip install 'aesearch[show]'") from None
    console = Console(stderr=True, force_terminal=True)
    wanted = max(1, picture.width // CELL_PIXELS)
    try:
        console.print(Image(picture, width=min(console.width, wanted), height="auto"))
    except ZeroDivisionError:
        raise AesearchError("the size of this terminal is unknown: use --save") from None


def print_table(head: list[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their longest cell; the last one runs free."""
    cells = [[_shown(c) for c in row] for row in (head, *rows)]
    widths = [max(len(row[c]) for row in cells) for c in range(len(head) - 1)]
    for row in cells:
        print("  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip())


def _shown(text: str) -> str:
    """As standard output can show it."""
    encoding = sys.stdout.encoding or "ascii"
    return printable(text).encode(encoding, "backslashreplace").decode(encoding)


def short(value: Any) -> str:
    """Text of at most 100 characters."""
    if isinstance(value, float):
        return f"{value:.5g}"
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)
    return printable(text if len(text) <= 100 else text[:99] + "…")
