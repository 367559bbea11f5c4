"""What a collection consists of: opened when it is asked for, refused when it is of something else."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.manifest import ENCODER, FEATURES, NEXT, PORTABLE, Manifest
from aesearch.collection.manifest import NAME as MANIFEST
from aesearch.errors import (
    AesearchError,
    CollectionNotFoundError,
    SourceError,
    StaleArtifactError,
    did_you_mean,
    need_torch,
)
from aesearch.files.arrays import read_arrays, write_arrays
from aesearch.files.atomic import drop, expand_user
from aesearch.files.lock import FolderLock
from aesearch.files.names import composed
from aesearch.files.naming import command_for, folder_of
from aesearch.images.grouping import units_of
from aesearch.images.tiles import Tiling
from aesearch.index.options import IndexOptions
from aesearch.index.search import SearchIndex, load_index
from aesearch.network.architectures import AutoencoderSpec
from aesearch.network.onnx import PortableEncoder
from aesearch.progress import heard
from aesearch.store.reader import Store
from aesearch.vectors.distances import exact_neighbours

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.images.sources.base import Source
    from aesearch.network.autoencoder import Autoencoder

INDEX = "index.faiss"
NEW = ("train", "complete")  # what may begin a collection
DERIVING = ("cluster", "map", "probe", "_learn_score")  # what answers too where nothing can be kept
FIELDS = ("id", "label", "split", "cluster")  # that --where can ask for
MOST_COMPARED = 5000  # ids that a mistyped one is compared with
NO_CLUSTER, NO_CLUSTER_NAME = -1, "none"
EXACT_AMONG = 100_000  # rows that a filter leaves: they are searched without the index
LEARNED = {"nap": "nap", "combined": "combined", "patches": "combined"}  # from the images: scores, and what keeps them

SourceLike = str | os.PathLike[str] | NDArray[Any] | Sequence[str | os.PathLike[str]]
P = ParamSpec("P")
R = TypeVar("R")


class Artifacts:
    """A folder's manifest, source, encoder, store and index, and what is read straight from them."""

    def __init__(
        self, folder: str | Path, *, device: str = "auto", progress: bool = True, overwrite: bool = False
    ) -> None:
        self.folder = folder_of(folder)
        self.given: Source | None = None  # images that were given and cannot be opened again
        self.device, self.progress = device, progress
        self._kept: dict[str, Any] = {}
        if device not in ("auto", "cpu"):  # before anything is read, and these two are always there
            from aesearch.network.autoencoder import pick_device

            pick_device(device)
        self.name = self.folder.name
        self.lock = FolderLock(self.folder)
        try:
            self.manifest = Manifest.load(self.folder)
        except CollectionNotFoundError:
            self.manifest = Manifest(self.folder)
        except AesearchError:  # damaged, or of an older version
            if not overwrite:
                raise
            self.manifest = Manifest(self.folder)

    @property
    def is_new(self) -> bool:
        """Whether nothing was made, or begun, here."""
        return self.manifest == Manifest(self.folder) and not (self.folder / MANIFEST).exists()

    @cached_property
    def source(self) -> Source:
        """The images the collection was made from, or is being made from."""
        from aesearch.images.sources.opening import open_again

        if self.manifest.source is None and self.manifest.training is not None:
            return open_again(self.manifest.training["source"], self.folder, download=False)
        if self.manifest.source is None:
            Manifest.load(self.folder)  # no collection at all is another line
            raise CollectionNotFoundError(
                f"{self.folder} was made of no images yet: run {self.command('build-index SOURCE')}"
            )
        if self.given is not None and self.given.name == self.manifest.source["name"]:
            return self.given
        return open_again(self.manifest.source, self.folder, download=False)

    def command(self, name: str) -> str:
        """``aesearch NAME -c â¦``: the line that does it to this collection."""
        return command_for(name, self.folder)

    def open_images(
        self,
        source: SourceLike | Source,
        *,
        labels: str | Sequence[str] | None = None,
        data_dir: str | None = None,
        group: str | None = None,
        tiles: str | None = None,
    ) -> Source:
        """Open a source; the collection's own one as it was opened before, unless told otherwise.

        Parameters
        ----------
        source : str, path, (N, height, width[, channels]) array, or list of paths
            As `aesearch.images.sources.opening.open_source` takes it, or images in memory, or image files.
        labels : {"none", "folder"}, or a sequence of N str, optional
            Those of an array or a list of files may be given one by one.
        group : str, optional
            What says which images belong together, as `aesearch.images.sources.opening.open_source` takes it.
        tiles : str, optional
            How pictures are cut, likewise; by default as the collection's are.
        """
        from aesearch.images.sources.base import Source
        from aesearch.images.sources.opening import open_given, open_source

        if isinstance(source, Source):
            return source
        if not isinstance(source, str | os.PathLike):
            arrays = isinstance(source, np.ndarray)
            return open_given(source, labels, group or "", "" if arrays else tiles or str(self.tiling or ""))
        if labels is not None and not isinstance(labels, str):
            raise SourceError("a list of labels is for an array or a list of files; otherwise labels is folder or none")
        name = os.fsdecode(source)
        known = self.manifest.source or {}
        own = known.get("name") in (name, str(expand_user(name).resolve()))
        asked = {"labels": labels, "group": group, "tiles": tiles}
        asked = {what: value for what, value in asked.items() if value is not None}
        with heard(self.progress):
            if own and labels is None and all(known.get(what, "") == value for what, value in asked.items()):
                return self.source
            before = {what: str(known[what]) for what in ("labels", "group") if own and what in known}
            how: dict[str, Any] = {"tiles": str(self.tiling or "")} | before | asked
            return open_source(name, data_dir=data_dir, **how)

    @property
    def tiling(self) -> Tiling | None:
        """How its pictures are cut into tiles; None where each is an image."""
        source = self.manifest.source or (self.manifest.training or {}).get("source") or {}
        return Tiling.parse(source["tiles"]) if source.get("tiles") else None

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """The trained network; `StaleArtifactError` if it is not the one the manifest knows."""
        from aesearch.network.autoencoder import Autoencoder

        self.encoder_fingerprint()
        need_torch()
        return Autoencoder.load(self.manifest.path("encoder", ENCODER), device=self.device)

    @cached_property
    def spec(self) -> AutoencoderSpec:
        """Which network the encoder is, and what every image goes through first."""
        self.encoder_fingerprint()
        try:
            return AutoencoderSpec.from_json(self.manifest.artifacts["encoder"]["parameters"]["spec"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise AesearchError(f"{self.folder / MANIFEST} is damaged: make the collection anew") from error

    @cached_property
    def single_encoder(self) -> Autoencoder | PortableEncoder:
        """What encodes single images: without torch where it need not be, as importing it takes seconds."""
        dim = self.spec.feature_dim
        if self.device not in ("auto", "cpu") or not self.manifest.holds("encoder", PORTABLE):
            return self.autoencoder
        return PortableEncoder(self.manifest.path("encoder", PORTABLE).read_bytes(), dim)

    @cached_property
    def store(self) -> Store:
        """The feature store; `StaleArtifactError` if another encoder made it."""
        store = Store(self.manifest.path("features", FEATURES))
        if store.encoder_fingerprint != self.encoder_fingerprint():
            raise StaleArtifactError(f"the features were made with another encoder: run {self.command('extract')}")
        return store

    def take_over(self) -> None:
        """Put what was made beside the collection in place, if it was finished, however often that is interrupted."""
        staged = self.folder / NEXT
        if not (staged / MANIFEST).is_file():
            return
        for path in staged.iterdir():
            if not path.name.startswith(".") and path.name != MANIFEST:
                path.replace(self.folder / path.name)
        (staged / MANIFEST).replace(self.folder / MANIFEST)  # the last: until then it says that there is more to do
        drop(staged)
        self.manifest.refresh()
        self.forget()

    def adopt_store(self) -> None:
        """Note a sound store that is there but not in the manifest: a kill came between."""
        path, source = self.folder / FEATURES, self.manifest.source
        if source is None or not path.is_file() or self.manifest.holds("features", FEATURES):
            return
        with contextlib.suppress(AesearchError):  # then it is made anew
            store, encoder = Store(path), self.encoder_fingerprint()
            if (store.source, store.encoder_fingerprint) == (source["name"], encoder) and store.is_sound():
                self.manifest.record(
                    "features",
                    FEATURES,
                    made_from={"encoder": encoder, "source": "to be compared"},
                    parameters={},
                    figures={"rows": store.rows},
                    source=source,
                    fingerprint=store.fingerprint,
                )
                self.forget()

    @cached_property
    def index(self) -> SearchIndex:
        """The index; `StaleArtifactError` if the features have changed since."""
        recorded = self.manifest.artifacts.get("index")
        if recorded is None:
            raise CollectionNotFoundError(f"collection {self.folder} has no index: run {self.command('build-index')}")
        if recorded["made_from"].get("features") != self.store.fingerprint:
            raise StaleArtifactError(
                f"the features have changed since the index was built: run {self.command('build-index')}"
            )
        path = self.manifest.path("index", INDEX)
        return load_index(path, recorded["parameters"]["metric"], self.store.rows, self.store.dim)

    @cached_property
    def ids(self) -> list[str]:
        """Id of each row."""
        return self.store.texts("id")

    def features(self) -> NDArray[np.float32]:
        """Features (rows, dim) float32, in row order."""
        return self.store.features()

    def labels(self) -> list[str]:
        """Label of each row, empty where there is none."""
        return self.store.texts("label")

    def splits(self) -> list[str]:
        """Split of each row, empty where there is none."""
        return self.store.texts("split")

    @cached_property
    def units(self) -> NDArray[np.int64]:
        """Of each row a number, (rows,) int64, the same for images that belong together and are never parted."""
        return units_of(self.store.texts("group"))

    @property
    def metric(self) -> str:
        """Metric of the index, or the default while there is none."""
        return str(self.manifest.artifacts.get("index", {}).get("parameters", {}).get("metric", IndexOptions().metric))

    def encoder_fingerprint(self) -> str:
        """Of the encoder that there is."""
        recorded = self.manifest.artifacts.get("encoder")
        if recorded is None:
            Manifest.load(self.folder)  # no collection at all is another line
            raise CollectionNotFoundError(
                f"there is no encoder in {self.folder}: run {self.command('build-index SOURCE')}"
            )
        return str(recorded["fingerprint"])

    def features_stale(self, source: Source) -> bool:
        """Whether the features are not those of that source by this encoder."""
        recorded = self.manifest.artifacts.get("features")
        if recorded is None or not self.manifest.holds("features", FEATURES):
            return True
        made_from = {"encoder": self.encoder_fingerprint(), "source": source.fingerprint}
        return bool(recorded["made_from"] != made_from)

    def index_stale(self) -> bool:
        """Whether the index is not of the features that there are."""
        recorded = self.manifest.artifacts.get("index")
        return (
            recorded is None
            or recorded["made_from"].get("features") != self.store.fingerprint
            or not self.manifest.holds("index", INDEX)
        )

    def forget(self) -> None:
        """Drop what was opened before files changed."""
        for name in (
            "source",
            "autoencoder",
            "spec",
            "_single_encoder",
            "store",
            "index",
            "ids",
            "units",
            "_place_of",
        ):
            self.__dict__.pop(name, None)
        self._kept.clear()

    def latents(self) -> NDArray[np.float32]:
        """Features and style of every row, (rows, latent_dim) float32."""
        return self.store.latents()

    def nearest(
        self, features: NDArray[np.float32], k: int, among: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Rows and distances of the nearest to each; at most as many as there are. Among few, exactly."""
        if among is None:
            return self.index.search(features, min(k, self.store.rows))
        if len(among) > EXACT_AMONG:
            return self.index.search(features, min(k, len(among)), among)
        places, distances = exact_neighbours(self.store.features(among), features, min(k, len(among)), self.metric)
        return among[places], distances

    def is_fresh(self, name: str) -> bool:
        """Whether there is such an artifact of the features as they are, undamaged."""
        recorded = self.manifest.artifacts.get(name)
        return (
            recorded is not None
            and recorded["made_from"] == {"features": self.store.fingerprint}
            and all(self.manifest.holds(name, file) for file in recorded["files"])
        )

    def record(self, name: str, file: str, parameters: dict[str, Any], figures: dict[str, Any]) -> None:
        """Note what was made of the store as it is."""
        made_from = {"features": self.store.fingerprint}
        self.manifest.record(name, file, made_from=made_from, parameters=parameters, figures=figures)

    def write_rows(
        self, name: str, columns: dict[str, NDArray[Any]], parameters: dict[str, Any], figures: dict[str, Any]
    ) -> None:
        """Write and note arrays made of the store, as ``NAME.h5``."""
        write_arrays(self.manifest.target(f"{name}.h5"), columns, {"store_fingerprint": self.store.fingerprint})
        self.record(name, f"{name}.h5", parameters, figures)

    def read_rows(self, name: str, *columns: str) -> dict[str, NDArray[Any]]:
        """What `_write_rows` wrote, or those columns of it."""
        return read_arrays(self.manifest.path(name, f"{name}.h5"), *columns)

    def check_rows(self, rows: Sequence[int]) -> None:
        """`AesearchError` for a row that is not there."""
        for row in rows:
            if isinstance(row, bool) or not isinstance(row, int | np.integer):
                raise AesearchError(f"a row is a whole number, not {row!r}")
            if not 0 <= row < self.store.rows:
                raise AesearchError(f"there is no row {row}: rows go from 0 to {self.store.rows - 1}")

    def positions(self, ids: Sequence[str]) -> list[int]:
        """Where in the source those ids stand, -1 where they no longer do."""
        wanted = set(ids)
        places = {id: place for place, id in enumerate(self.source.ids) if id in wanted}
        return [places.get(id, -1) for id in ids]

    def places(self, rows: Sequence[int]) -> list[int]:
        """Where in the source the images of those rows stand, -1 where they no longer do."""
        ids, listed = self.store.texts("id", rows), self.source.ids
        if all(row < len(listed) and listed[row] == id for row, id in zip(rows, ids, strict=True)):
            return list(rows)  # nothing was skipped, or has come or gone
        return [self._place_of.get(id, -1) for id in ids]

    @cached_property
    def _place_of(self) -> dict[str, int]:
        """Where in the source each id stands."""
        return {id: place for place, id in enumerate(self.source.ids)}

    def rows_of(self, ids: Sequence[str]) -> list[int]:
        """Rows of ids; `AesearchError` for one that is not there names the nearest there is."""
        if not all(isinstance(id, str) for id in ids):
            raise AesearchError("an id is a text; a whole number is a row")
        known = self._rows_by_id(set(ids).__contains__)
        if alike := {composed(id): id for id in ids if id not in known}:
            others = self._rows_by_id(lambda id: composed(id) in alike)
            known |= {alike[composed(id)]: row for id, row in others.items()}
        for id in ids:
            if id not in known:
                some = self.store.texts("id", np.arange(min(self.store.rows, MOST_COMPARED)))
                hint = did_you_mean(id, some) or f"; the first is {some[0]!r}"
                raise AesearchError(f"there is no image {id!r} in {self.folder}{hint}")
        return [known[id] for id in ids]

    def _rows_by_id(self, holds: Callable[[str], bool]) -> dict[str, int]:
        rows = np.flatnonzero(self.store.where("id", holds))
        return dict(zip(self.store.texts("id", rows), rows.tolist(), strict=True))

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width of the images as they are."""
        height, width = self.manifest.artifacts["encoder"]["native_size"]
        return int(height), int(width)

    def keep(self, name: str, make: Callable[[], R]) -> R:
        """What that gives, worked out once until files change."""
        if name not in self._kept:
            self._kept[name] = make()
        kept: R = self._kept[name]
        return kept


class Part:
    """What does one kind of things with the files of a collection; holds nothing else."""

    def __init__(self, files: Artifacts) -> None:
        self._files = files


Some = TypeVar("Some", bound=Part)


def exclusive(method: Callable[Concatenate[Some, P], R]) -> Callable[Concatenate[Some, P], R]:
    """Let a method change the folder: no other process may meanwhile, and what others changed is known."""

    @functools.wraps(method)
    def alone(self: Some, /, *args: P.args, **kwargs: P.kwargs) -> R:
        files = self._files
        if method.__name__ not in NEW and not files.folder.is_dir():
            Manifest.load(files.folder)  # says that there is none
        if method.__name__ in DERIVING and not os.access(files.folder, os.W_OK):
            files.manifest.keep_aside()
            return method(self, *args, **kwargs)
        with files.lock.hold(method.__name__.strip("_").replace("_", "-")) as first:
            if first:
                files.take_over()
                if files.manifest.refresh():
                    files.forget()
            with heard(files.progress):
                return method(self, *args, **kwargs)

    return alone
