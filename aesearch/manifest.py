"""``collection.json``: what a collection holds, what each artifact was made from, how good it measured."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aesearch.atomic import replacing
from aesearch.errors import AesearchError, CollectionNotFoundError

FORMAT_VERSION = 1
NAME = "collection.json"
ENCODER, PORTABLE, CHECKPOINT = "encoder.safetensors", "encoder.onnx", "training.safetensors"
FEATURES = "features.h5"
PACKAGES = ("aesearch", "torch", "numpy", "faiss-cpu", "scikit-learn", "umap-learn")


@dataclass
class Manifest:
    """The document of one collection.

    Attributes
    ----------
    folder : Path
    source : dict or None
        ``name``, ``labels``, ``data_dir``: opens the collection's source again.
    artifacts : dict
        By name (``encoder``, ``features``, ``index``, ``clusters``, …): ``file``, ``made_from``,
        ``parameters``, ``figures``, ``versions``, ``time``.
    training : dict or None
        Settings of a training that began and has not ended.
    """

    folder: Path
    source: dict[str, Any] | None = None
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] | None = None

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read it; ``CollectionNotFoundError`` if there is none."""
        path = folder / NAME
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format_version"] != FORMAT_VERSION:
                raise AesearchError(
                    f"{path} has format {document['format_version']}; this aesearch reads {FORMAT_VERSION}"
                )
            return cls(folder, document["source"], dict(document["artifacts"]), document["training"])
        except FileNotFoundError:
            raise CollectionNotFoundError(
                f"there is no collection at {folder}: make one with aesearch build-index SOURCE -c {folder.name}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise AesearchError(f"{path} is damaged: rebuild with aesearch build-index SOURCE --overwrite") from error

    def save(self) -> None:
        """Write it, whole or not at all."""
        document = {
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "training": self.training,
            "artifacts": self.artifacts,
        }
        with replacing(self.folder / NAME) as temporary:
            temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def record(
        self,
        name: str,
        file: str,
        *,
        made_from: dict[str, str],
        parameters: dict[str, Any],
        figures: dict[str, Any],
        **more: Any,
    ) -> None:
        """Note a finished artifact and save."""
        self.artifacts[name] = {
            "file": file,
            "made_from": made_from,
            "parameters": parameters,
            "figures": figures,
            "versions": installed_versions(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **more,
        }
        self.save()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide results."""
    import importlib.metadata
    import platform

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return versions


def file_fingerprint(path: Path) -> str:
    """32 hexadecimal digits of the file's BLAKE2b."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """Give a value as JSON would give it back: tuples become lists."""
    return json.loads(json.dumps(value))
