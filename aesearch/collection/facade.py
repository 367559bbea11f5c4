"""A collection: one folder with an encoder and all that was made with it. The Python entry."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from aesearch.collection.anomaly_scores import AnomalyScores
from aesearch.collection.artifacts import Artifacts, SourceLike
from aesearch.collection.encoding import Encoding
from aesearch.collection.groups import Groups
from aesearch.collection.labels import Labels
from aesearch.collection.manifest import Manifest
from aesearch.collection.maps import Maps
from aesearch.collection.pictures import Pictures
from aesearch.collection.search import Search
from aesearch.collection.staging import Staging
from aesearch.errors import AesearchError, check_choice
from aesearch.files.atomic import replacing
from aesearch.files.naming import folder_of
from aesearch.index.options import IndexOptions

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    pass

logger = logging.getLogger(__name__)


P = ParamSpec("P")
R = TypeVar("R")


def _of(part: str, method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Any, P], R]:
    """A method of a part of the collection as one of the collection's own."""

    @functools.wraps(method)
    def called(self: Collection, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(getattr(self, part), *args, **kwargs)

    return called


class Collection(Artifacts):
    """One folder with an encoder, the features of a source, and what was derived from them.

    Make one with `Collection.build`, open an existing one with `Collection.open`. Whatever is wrong
    with files, arguments or images raises `AesearchError` with one line that says what to do.
    """

    def __init__(
        self, folder: str | Path, *, device: str = "auto", progress: bool = True, overwrite: bool = False
    ) -> None:
        super().__init__(folder, device=device, progress=progress, overwrite=overwrite)
        self._encoding = Encoding(self)
        self._pictures = Pictures(self)
        self._groups = Groups(self)
        self._search = Search(self)
        self._anomaly_scores = AnomalyScores(self)
        self._labels = Labels(self)
        self._maps = Maps(self)
        self._staging = Staging(self)

    @classmethod
    def open(cls, folder: str | Path, *, device: str = "auto", progress: bool = True) -> Collection:
        """Open a collection that exists; `AesearchError` if there is none in that folder."""
        Manifest.load(folder_of(folder))
        return cls(folder, device=device, progress=progress)

    @classmethod
    def build(
        cls,
        source: SourceLike,
        folder: str | Path = "indexes/default",
        *,
        index: IndexOptions | None = None,
        labels: str | Sequence[str] | None = None,
        data_dir: str | None = None,
        group: str | None = None,
        tiles: str | None = None,
        device: str = "auto",
        progress: bool = True,
        overwrite: bool = False,
        **training: Any,
    ) -> Collection:
        """Train, extract and index what is missing; what is there and fits is used as it is.

        Parameters
        ----------
        source : str, path, array, or list of paths
            As `aesearch.images.sources.opening.open_source` takes it: ``"photos/"``, ``"digits"``, ``"x.npy"``, …;
            or an array of images (N, height, width[, 1, 3 or 4]), integers or floats in [0, 1]; or image files. An
            array is not kept: what needs the images once more asks for it again. With another array or list than
            before the collection is updated.
        folder : str or Path
            Where the collection lies: a name under ``indexes/``, or a folder.
        labels : {"none", "folder"}, or a sequence of str, optional
            Whether sub-folders are labels; by default as before for the collection's own source, else not. For an
            array or a list of files also the label of each.
        group : str, optional
            Which images belong together, as exposures of one part do, and are never parted: a regular expression for
            their ids (its first parentheses, if it has any, name the group), a column of the table, or ``none``. By
            default near-duplicates are found.
        tiles : str, optional
            ``"256"``, or ``"256,128"``: pictures are cut into squares of so many pixels, one every so many, and each is
            a row, its id ``name.png#x,y,w,h``. Tiles of one picture belong together.
        overwrite : bool
            Replace a collection of other images, settings or versions when the new one is finished.
        **training
            Any field of `aesearch.network.options.TrainingOptions`.
        """
        _check_training(training)
        collection = cls(folder, device=device, progress=progress, overwrite=overwrite)
        opened = collection.open_images(source, labels=labels, data_dir=data_dir, group=group, tiles=tiles)
        collection._staging.keep_given(opened, overwrite)
        collection.complete(opened, training, index, overwrite=overwrite)
        return collection

    def __len__(self) -> int:
        """How many images it holds."""
        return int(self.manifest.artifacts.get("features", {}).get("figures", {}).get("rows", 0))

    def __bool__(self) -> bool:
        return True  # one without images is a collection too

    def __repr__(self) -> str:
        """Its name, what is in it, where it lies."""
        facts = self.info()
        made = f", {facts['dim']} numbers each by {facts['arch']}" if facts["dim"] else ""
        held = f"{len(self):,} images of {facts['source']}{made}" if facts["source"] else "empty"
        return f"<Collection {self.name!r}: {held}; {self.folder}>"

    def report(self, path: str | Path | None = None) -> Path:
        """Write one page about the collection, by default ``report.html`` in its folder; where it lies.

        It shows what there is: run `cluster`, `probe` and `anomalies` before for all of it.
        """
        from aesearch.report.page import make_report

        page = make_report(self)
        usual = self.folder / "report.html"
        if path is None and not os.access(self.folder, os.W_OK):
            usual = Path("report.html")
            logger.warning("%s cannot be written to: the report goes to the current folder", self.folder)
        path = usual if path is None else Path(path)
        with replacing(path, len(page)) as temporary:
            temporary.write_text(page, encoding="utf-8")
        return path

    def info(self) -> dict[str, Any]:
        """What the collection holds, how it was made and how good it measured; imports nothing heavy."""
        artifacts = self.manifest.artifacts
        encoder = artifacts.get("encoder", {})
        index = artifacts.get("index", {})
        spec = encoder.get("parameters", {}).get("spec", {})
        return {
            "collection": str(self.folder),
            "source": (self.manifest.source or {}).get("name"),
            "rows": artifacts.get("features", {}).get("figures", {}).get("rows", 0),
            "dim": spec.get("latent_dim", 0) - spec.get("style_dim", 0) if spec else None,
            "arch": spec.get("arch"),
            "index": {**index["figures"], "metric": index["parameters"]["metric"]} if index else None,
            "artifacts": artifacts,
        }

    @property
    def orientations(self) -> list[str]:
        """See `Encoding.orientations`."""
        return self._encoding.orientations

    @property
    def heat_scale(self) -> float:
        """See `Pictures.heat_scale`."""
        return self._pictures.heat_scale

    encode = _of("_encoding", Encoding.encode)
    encode_oriented = _of("_encoding", Encoding.encode_oriented)
    encode_pixels = _of("_encoding", Encoding.encode_pixels)
    encode_latents = _of("_encoding", Encoding.encode_latents)
    read_images = _of("_encoding", Encoding.read_images)
    pictures = _of("_pictures", Pictures.pictures)
    pictures_of = _of("_pictures", Pictures.pictures_of)
    oddest_tiles = _of("_pictures", Pictures.oddest_tiles)
    in_place = _of("_pictures", Pictures.in_place)
    look_at = _of("_pictures", Pictures.look_at)
    reconstruct = _of("_pictures", Pictures.reconstruct)
    reconstruct_anomalies = _of("_pictures", Pictures.reconstruct_anomalies)
    heat_told = _of("_pictures", Pictures.heat_told)
    decode = _of("_pictures", Pictures.decode)
    choose_latents = _of("_pictures", Pictures.choose_latents)
    generate = _of("_pictures", Pictures.generate)
    assignments = _of("_groups", Groups.assignments)
    cluster_names = _of("_groups", Groups.cluster_names)
    cluster_title = _of("_groups", Groups.cluster_title)
    cluster_of_rows = _of("_groups", Groups.cluster_of_rows)
    cluster = _of("_groups", Groups.cluster)
    name_clusters = _of("_groups", Groups.name_clusters)
    assign = _of("_groups", Groups.assign)
    centres = _of("_groups", Groups.centres)
    centre_picture = _of("_groups", Groups.centre_picture)
    query = _of("_search", Search.query)
    query_images = _of("_search", Search.query_images)
    query_rows = _of("_search", Search.query_rows)
    rows_where = _of("_search", Search.rows_where)
    duplicates = _of("_search", Search.duplicates)
    anomalies = _of("_anomaly_scores", AnomalyScores.anomalies)
    scores_of_rows = _of("_anomaly_scores", AnomalyScores.scores_of_rows)
    is_learned = _of("_anomaly_scores", AnomalyScores.is_learned)
    inspect = _of("_anomaly_scores", AnomalyScores.inspect)
    heat_maps = _of("_anomaly_scores", AnomalyScores.heat_maps)
    picture_maps = _of("_anomaly_scores", AnomalyScores.picture_maps)
    heat_of_row = _of("_anomaly_scores", AnomalyScores.heat_of_row)
    error_maps = _of("_anomaly_scores", AnomalyScores.error_maps)
    probe = _of("_labels", Labels.probe)
    classify = _of("_labels", Labels.classify)
    learned_probe = _of("_labels", Labels.learned_probe)
    map = _of("_maps", Maps.map)
    map_name = staticmethod(Maps.map_name)
    told_axes = _of("_maps", Maps.told_axes)
    map_page = _of("_maps", Maps.map_page)
    thumbnail_sheets = _of("_maps", Maps.thumbnail_sheets)
    complete = _of("_staging", Staging.complete)
    train = _of("_staging", Staging.train)
    extract = _of("_staging", Staging.extract)
    update = _of("_staging", Staging.update)
    build_index = _of("_staging", Staging.build_index)


def _check_training(training: dict[str, Any]) -> None:
    """`AesearchError` for an option that there is not, or of another kind."""
    from aesearch.network.options import TrainingOptions

    known = [field.name for field in dataclasses.fields(TrainingOptions)]
    for name in training:
        check_choice("option", name, known)
    try:
        TrainingOptions(**training)
    except (TypeError, AttributeError) as error:
        raise AesearchError(f"an option of training is of a wrong kind: {error}") from None
