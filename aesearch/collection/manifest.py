"""``collection.json``: what a collection holds, what each artifact was made from, how good it measured."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
import tempfile
import time
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aesearch.errors import AesearchError, CollectionNotFoundError, StaleArtifactError
from aesearch.files.atomic import replacing
from aesearch.files.naming import MANIFEST, command_for, no_collection
from aesearch.files.naming import NEXT as GROWN

logger = logging.getLogger(__name__)

FORMAT_VERSION = 2
NAME, SEEN = MANIFEST, ".seen.json"
NEXT = GROWN  # the folder where what takes a collection's place grows; with a manifest in it, it is finished
ENCODER, PORTABLE, CHECKPOINT = "encoder.safetensors", "encoder.onnx", "training.safetensors"
FEATURES = "features.h5"
REMEDIES = {"encoder": "train", "features": "extract", "index": "build-index", "clusters": "cluster", "probe": "probe",
            "thumbnails": "map"}  # fmt: skip
OPENING = {"name", "labels", "data_dir", "group", "tiles"}  # what opens a source again
SETTLED_NS = 2 * 10**9  # a file changed later than this before now may change again without its time showing it
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
        By name (``encoder``, ``features``, ``index``, ``clusters``, …): ``files`` with the ``bytes`` and ``sha256``
        of each, ``made_from``, ``parameters``, ``figures``, ``versions``, ``time``.
    training : dict or None
        Settings of a training that began and has not ended.
    name : str
        Of the file.
    aside : Path or None
        A temporary folder for what is made of a collection that cannot be written to; see `keep_aside`.
    """

    folder: Path
    source: dict[str, Any] | None = None
    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: dict[str, Any] | None = None
    name: str = NAME
    aside: Path | None = field(default=None, compare=False)

    @classmethod
    def load(cls, folder: Path, name: str = NAME) -> Manifest:
        """Read it, where its files are about to take their places too; ``CollectionNotFoundError`` if there is none."""
        path = folder / NEXT / name if name == NAME and (folder / NEXT / name).is_file() else folder / name
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["format_version"] != FORMAT_VERSION:
                raise AesearchError(
                    f"{path} has format {document['format_version']}, this aesearch reads {FORMAT_VERSION}: "
                    f"build it again, {command_for('build-index SOURCE --overwrite', folder)}"
                )
            if document.pop("sha256") != _digest(document) or not _is_well_formed(document):
                raise ValueError("not as it was written")
            return cls(folder, document["source"], document["artifacts"], document["training"], name)
        except (FileNotFoundError, NotADirectoryError):
            raise CollectionNotFoundError(no_collection(folder)) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            remedy = command_for("build-index SOURCE --overwrite", folder)
            raise AesearchError(f"{path} is damaged: rebuild with {remedy}") from error

    def refresh(self) -> bool:
        """Read it again, if there is one that can be read; whether another process has changed it."""
        with contextlib.suppress(AesearchError):
            now = Manifest.load(self.folder)
            if now != self:
                self.source, self.artifacts, self.training = now.source, now.artifacts, now.training
                return True
        return False

    def keep_aside(self) -> None:
        """From now on have what is made lie in a temporary folder, and be known to this object alone."""
        if self.aside is None:
            self.aside = Path(tempfile.mkdtemp(prefix="aesearch-"))
            weakref.finalize(self, _clear, self.aside)
            logger.info("cannot write to %s: new results are not saved there", self.folder)

    def target(self, file: str) -> Path:
        """Where an artifact's file is to be written."""
        return (self.aside or self.folder) / file

    def save(self) -> None:
        """Write it, whole or not at all."""
        if self.aside is not None:
            return
        document = {
            "format_version": FORMAT_VERSION,
            "source": self.source,
            "training": self.training,
            "artifacts": self.artifacts,
        }
        written = json.dumps(document | {"sha256": _digest(document)}, indent=2, ensure_ascii=False) + "\n"
        with replacing(self.folder / self.name) as temporary:
            temporary.write_bytes(written.encode("utf-8", "backslashreplace"))  # a name may be no Unicode

    def record(
        self,
        name: str,
        *files: str,
        made_from: dict[str, str],
        parameters: dict[str, Any],
        figures: dict[str, Any],
        **more: Any,
    ) -> None:
        """Note a finished artifact and save."""
        self.artifacts[name] = {
            "files": {file: _facts(self.target(file)) for file in files},
            "made_from": made_from,
            "parameters": parameters,
            "figures": figures,
            "versions": installed_versions(),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            **more,
        }
        self.save()

    def path(self, name: str, file: str) -> Path:
        """Where an artifact's file lies, if it is the one that was recorded.

        Raises
        ------
        CollectionNotFoundError
            The artifact was not made, or its file is gone.
        StaleArtifactError
            The file is damaged, or another.
        """
        path, recorded = self.folder / file, self.artifacts.get(name, {}).get("files", {}).get(file)
        remedy = f"run {command_for(_remedy(name), self.folder)}"
        if recorded is None:
            Manifest.load(self.folder)  # no collection at all is another line
            raise CollectionNotFoundError(f"collection {self.folder} has no {name} yet: {remedy}")
        if (self.folder / NEXT / NAME).is_file() and (self.folder / NEXT / file).is_file():
            path = self.folder / NEXT / file
        if self.aside is not None and self.target(file).is_file():
            path = self.target(file)
        if not path.is_file():
            raise CollectionNotFoundError(f"{path} is gone: {remedy}")
        if not self._is_as_recorded(path, recorded):
            raise StaleArtifactError(f"{path} is damaged, or not the one that this collection was made with: {remedy}")
        return path

    def holds(self, name: str, file: str) -> bool:
        """Whether `path` gives one."""
        try:
            return self.path(name, file).is_file()
        except AesearchError:
            return False

    def _is_as_recorded(self, path: Path, recorded: dict[str, Any]) -> bool:
        """Compare size and hash; a file that was seen before, and has not been touched since, is not read again."""
        stat = path.stat()
        if stat.st_size != recorded["bytes"]:
            return False
        stamp = [recorded["sha256"], stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns]
        seen = self._seen()
        if seen.get(path.name) == stamp:
            return True
        if file_fingerprint(path) != recorded["sha256"]:
            return False
        if max(stat.st_mtime_ns, stat.st_ctime_ns) < time.time_ns() - SETTLED_NS:
            with contextlib.suppress(OSError, AesearchError), replacing(self.folder / SEEN) as temporary:  # if it can
                temporary.write_text(json.dumps(seen | {path.name: stamp}), encoding="utf-8")
        return True

    def _seen(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.folder / SEEN).read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return {}


def _clear(aside: Path) -> None:
    """Drop a temporary folder, unless there is a page in it to look at."""
    if not any(aside.glob("*.html")):
        shutil.rmtree(aside, ignore_errors=True)


def summary(folder: Path) -> dict[str, Any]:
    """What a list of collections says of one: ``source``, ``rows``, ``dim``, ``changed``, and what is ``wrong``."""
    try:
        manifest = Manifest.load(folder)
    except (AesearchError, OSError) as error:
        return {"source": None, "rows": 0, "dim": None, "changed": None, "wrong": str(error)}
    spec = manifest.artifacts.get("encoder", {}).get("parameters", {}).get("spec", {})
    return {
        "source": (manifest.source or (manifest.training or {}).get("source") or {}).get("name"),
        "rows": manifest.artifacts.get("features", {}).get("figures", {}).get("rows", 0),
        "dim": spec["latent_dim"] - spec.get("style_dim", 0) if "latent_dim" in spec else None,
        "changed": max((artifact["time"] for artifact in manifest.artifacts.values()), default=None),
        "wrong": None,
    }


def _remedy(name: str) -> str:
    """The command that makes an artifact."""
    if name.startswith("map-"):
        return f"map --method {name.removeprefix('map-').removesuffix('-3d')}{' --dims 3' * name.endswith('-3d')}"
    return REMEDIES[name] if name in REMEDIES else f"anomalies --score {name}"


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain(document), sort_keys=True).encode()).hexdigest()


def _is_well_formed(document: dict[str, Any]) -> bool:
    """Whether everything is of the kind it should be, and no file lies elsewhere."""
    parts = ("made_from", "parameters", "figures", "versions", "files")
    encoder, index = (document["artifacts"].get(name) for name in ("encoder", "index"))
    sources = [document["source"], *(a["source"] for a in document["artifacts"].values() if "source" in a)]
    if encoder is not None:
        height, width = encoder["native_size"]
        spec = encoder["parameters"]["spec"]
        if not (
            isinstance(encoder["fingerprint"], str) and isinstance(spec, dict) and int(height) > 0 and int(width) > 0
        ):
            return False
    clusters = document["artifacts"].get("clusters")
    if clusters is not None and not _are_clusters(clusters["parameters"], clusters["figures"]):
        return False
    if index is not None and index["parameters"]["metric"] not in ("cosine", "l2"):
        return False
    if not all(s is None or (set(s) <= OPENING and all(isinstance(v, str) for v in s.values())) for s in sources):
        return False
    return all(isinstance(document[name], dict | type(None)) for name in ("source", "training")) and all(
        all(isinstance(artifact[part], dict) for part in parts)
        and isinstance(artifact["time"], str)
        and all(Path(file).name == file and isinstance(facts["bytes"], int) and isinstance(facts["sha256"], str)
                for file, facts in artifact["files"].items())
        for artifact in document["artifacts"].values()
    )  # fmt: skip


def _are_clusters(parameters: dict[str, Any], figures: dict[str, Any]) -> bool:
    names, sizes = parameters.get("names", {}), figures["sizes"]
    texts = (parameters["method"], parameters["space"], *names.values())
    numbers = (figures["silhouette"], figures["stability"], *(figures["against_labels"] or {}).values())
    return (
        all(isinstance(text, str) and is_unicode(text) for text in texts)
        and all(isinstance(size, int) and size >= 0 for size in (figures["clusters"], *sizes))
        and all(number is None or isinstance(number, int | float) for number in numbers)
    )


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: one from a command line or a file may hold lone surrogates."""
    return text.encode(errors="replace").decode() == text


def _facts(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_fingerprint(path)}


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
    """The file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def plain(value: Any) -> Any:
    """Give a value as JSON would give it back: tuples become lists."""
    return json.loads(json.dumps(value))
