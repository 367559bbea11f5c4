"""What a user can cause, and the one line that is shown for it."""

from __future__ import annotations

import importlib.util
import numbers
from collections.abc import Sequence
from typing import Any

TRAINING = ("torch", "torchvision", "safetensors", "onnx")  # of the extra ``train``: all that a search can do without


class AesearchError(Exception):
    """A plain one-line message that says what is wrong and what to do.

    The command line prints it as ``error: …`` and exits 1.
    """


class CollectionNotFoundError(AesearchError):
    """There is no collection in that folder, or it lacks the artifact asked for."""


class StaleArtifactError(AesearchError):
    """An artifact was made from something that has changed since."""


class SourceError(AesearchError):
    """The images cannot be found or read."""


def can_train() -> bool:
    """Whether what makes encoders, and decodes, is installed; imports nothing."""
    return all(importlib.util.find_spec(name) is not None for name in TRAINING)


def need_torch() -> None:
    """``AesearchError`` unless what makes encoders, and decodes, is installed."""
    if not can_train():
        raise AesearchError("this needs PyTorch, which is not installed here: pip install 'aesearch[train]'")


def check_choice(what: str, given: str, known: Sequence[str]) -> None:
    """``AesearchError`` unless what was given is among what is known; names the nearest of it."""
    if given not in known:
        raise AesearchError(f"{what} {given!r} is not one of {', '.join(known)}{did_you_mean(given, known)}")


def check_count(what: str, given: Any) -> None:
    """``AesearchError`` unless it is a whole number of at least 1."""
    if isinstance(given, bool) or not isinstance(given, numbers.Integral):
        raise AesearchError(f"{what} is a whole number, not {given!r}")
    if given < 1:
        raise AesearchError(f"{what} must be 1 or more, not {given}")


def did_you_mean(given: str, known: Sequence[str]) -> str:
    """The end of a line that names the nearest known name, if there is one: one that begins so, or is spelt nearly so.

    Case, and which of ``-``, ``_`` and a space is between words, make no difference.
    """
    import difflib

    spelt: dict[str, str] = {}
    for name in known:
        spelt.setdefault(_as_spelt(name), name)
    wanted = _as_spelt(given)
    longer = [name for name in spelt if wanted and name.startswith(wanted)]
    near = longer or difflib.get_close_matches(wanted, spelt, n=1)
    return f"; did you mean {spelt[near[0]]!r}?" if near else ""


def _as_spelt(name: str) -> str:
    return "-".join(name.lower().replace("_", " ").replace("-", " ").split())
