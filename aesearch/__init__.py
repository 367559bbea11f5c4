"""Search, group, map and check unlabelled images with an autoencoder trained on those very images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aesearch.machine import settle
from aesearch.version import __version__

settle()  # before any of the libraries that it is for is imported

__all__ = ["AesearchError", "Collection", "__version__"]

if TYPE_CHECKING:
    from aesearch.collection.facade import Collection
    from aesearch.errors import AesearchError


def __getattr__(name: str) -> Any:
    """Import on first use: `import aesearch` alone costs nothing."""
    if name == "Collection":
        from aesearch.collection.facade import Collection

        return Collection
    if name == "AesearchError":
        from aesearch.errors import AesearchError

        return AesearchError
    raise AttributeError(name)
