"""A collection: one folder with an encoder and all that was made with it. The Python entry."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import error_map
from aesearch.anomalies.names import NEIGHBOURS, PARTS, SCALES, SCORES
from aesearch.anomalies.normality import Normality
from aesearch.anomalies.ranking import rank
from aesearch.anomalies.thresholds import Alarms, learn_threshold
from aesearch.collection.artifacts import INDEX, NO_CLUSTER, NO_CLUSTER_NAME, SourceLike, exclusive
from aesearch.collection.manifest import (
    CHECKPOINT,
    ENCODER,
    NEXT,
    Manifest,
    installed_versions,
    is_unicode,
    plain,
)
from aesearch.collection.manifest import NAME as MANIFEST
from aesearch.collection.maps import Maps
from aesearch.collection.results import Anomalies, Classified, Duplicates, Hits
from aesearch.errors import AesearchError, SourceError, StaleArtifactError, check_choice, need_torch
from aesearch.files.atomic import check_own, check_room, drop, replacing
from aesearch.files.naming import folder_of
from aesearch.images.decode import larger_side, on_its_side
from aesearch.images.grouping import highest_of, oddest_of, units_of
from aesearch.images.orientation import ORIENTATIONS, UPRIGHT, apart, is_turned, orient
from aesearch.images.single import (
    ImageLike,
    blank,
    crop,
    look_at,
    name_of,
    read_image,
    read_pictures,
    read_tiles,
    several,
)
from aesearch.images.tiles import Box, TileSource, picture_and_box
from aesearch.index.build import build_index
from aesearch.index.options import IndexOptions, least_bytes, most_rows
from aesearch.index.search import SearchIndex
from aesearch.index.update import update_index
from aesearch.progress import plan
from aesearch.vectors.distances import exact_neighbours, in_blocks, nearest_way

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.anomalies.inspection import Measures
    from aesearch.anomalies.scorer import Scorer
    from aesearch.clusters import Clustering
    from aesearch.collection.extract import Extraction
    from aesearch.collection.update import Update
    from aesearch.duplicates import Pixels as SamePixels
    from aesearch.images.decode import Preprocessing
    from aesearch.images.sources.base import Source
    from aesearch.network.options import TrainingOptions
    from aesearch.probe import LinearProbe, ProbeResult
    from aesearch.store.reader import Store

logger = logging.getLogger(__name__)

PROBE, VANISHED = "probe.h5", "vanished.h5"
KEPT = ("vanished", VANISHED)  # encodings of images that are gone
GROWING, ANEW = ".growing.json", ".anew.json"  # manifests of what is not finished: an update, another collection
LEARNED = {"nap": "nap", "combined": "combined", "patches": "combined"}  # from the images: scores, and what keeps them
MOST = 0.5  # of the images looked at, for a folder to be the one that was elsewhere
ENCODING, INDEXING = 0.6, 0.02  # of the work of training on an image once, about: to encode it, to index it
FITTING, MOST_FITTED = 3.0, 2000  # likewise, to learn from it in closed form; images
CENTRAL = 10  # rows that stand for the middle of many
MOST_FREE = 4000  # images that what trains nothing learns from
FREE_SIDE = 96  # pixels of images that are judged by what trains nothing
MOST_DOUBTS = 50  # labels in doubt that the manifest keeps
MOST_PLACES = 3  # clusters that the images of one that is no more have gone to, in a message
LONGEST_NAME = 100  # characters of a cluster's
HEAT_IMAGES, HEAT_SHARE = 100, 0.995  # images that tell how large errors are, and share of their pixels below the scale
LEAST_HEAT = (1 / 255) ** 2  # an error of one grey level
USUAL_HEAT = 10  # times the mean error of an image
PER = ("picture", "tile")
TILES_AT_ONCE = 128  # of which there are maps in memory
PICTURE_SIDE = 448  # pixels of the longer side of pictures in tiles, to look at
DISPLAY_SIDE = 224  # pixels of the longer side of pictures to look at, at most


class Collection(Maps):
    """One folder with an encoder, the features of a source, and what was derived from them.

    Make one with `Collection.build`, open an existing one with `Collection.open`. Whatever is wrong
    with files, arguments or images raises `AesearchError` with one line that says what to do.
    """

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
        collection._keep_given(opened, overwrite)
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

    # ---------------------------------------------------------------- making

    def _keep_given(self, source: Source, overwrite: bool) -> None:
        """Have images that no name stands for at hand again: an array in memory, a list of files in the folder."""
        from aesearch.images.sources.opening import ARRAY, FILES, keep_list

        if source.name == ARRAY:
            self.given = source
        held = (self.manifest.source or {}).get("name")
        if source.name == FILES and (held in (None, FILES) or overwrite):
            self.folder.mkdir(parents=True, exist_ok=True)
            keep_list(source, self.folder)

    @exclusive
    def complete(
        self,
        source: Source | None,
        training: dict[str, Any],
        index: IndexOptions | None,
        *,
        overwrite: bool = False,
    ) -> None:
        """Do what is missing of train, extract and index; the steps behind `build`."""
        from aesearch.network.options import TrainingOptions

        source = source or self.source
        if overwrite and self.manifest.artifacts and not self._is_encoder_of(source, training):
            return self._make_anew(source, training, index)
        self._refuse_other(source, training)
        with plan(self._steps(source, TrainingOptions(**training))):
            self._do_missing(source, TrainingOptions(**training), index)

    def _steps(self, source: Source, options: TrainingOptions) -> dict[str, float]:
        """What `complete` has still to do, and about how much, in passes of one training image."""
        n = len(source)
        learning = {"train": float(n * options.recipe(n).epochs)}
        training = {"read": 0.0, "choose": 0.0} | learning
        if options.arch == "pooled":
            training = {"read": 0.0, "components": 0.0} | learning | {"fit": FITTING * min(n, MOST_FITTED)}
        train = {} if "encoder" in self.manifest.artifacts else training
        return train | {"extract": ENCODING * n, "index": INDEXING * n}

    def _do_missing(self, source: Source, options: TrainingOptions, index: IndexOptions | None) -> None:
        if "encoder" not in self.manifest.artifacts:
            self.train(source, options, encoded_next=len(source))
        self._adopt_store()
        if self._features_stale(source):
            if self._can_update(source.name):
                self.update(source)
            else:
                self.extract(source)
        if index is not None or self._index_stale():
            recorded = self.manifest.artifacts.get("index", {}).get("parameters")
            wanted = index or (IndexOptions(**recorded) if recorded else IndexOptions())
            if self._index_stale() or recorded != wanted.to_json():
                self.build_index(wanted)

    def _make_anew(self, source: Source, training: dict[str, Any], index: IndexOptions | None) -> None:
        """As `complete`, beside the collection that there is; an interrupted one goes on, if it was of the same."""
        staged = self._beside(ANEW)
        with contextlib.suppress(AesearchError):
            staged.manifest = Manifest.load(staged.folder, ANEW)
        if staged.manifest.name != ANEW or (staged.manifest.artifacts and not staged._is_encoder_of(source, training)):
            drop(staged.folder)
            staged = self._beside(ANEW)
            staged.manifest = Manifest(staged.folder, name=ANEW)
            staged.manifest.save()
        staged.complete(source, training, index)
        self._finish(staged)

    def _is_encoder_of(self, source: Source, training: dict[str, Any]) -> bool:
        """Whether the encoder is what training on these images with these settings, here and now, would give."""
        from aesearch.network.options import TrainingOptions

        encoder = self.manifest.artifacts.get("encoder")
        return (
            encoder is not None
            and self.manifest.holds("encoder", ENCODER)
            and encoder["made_from"].get("source") == source.fingerprint
            and encoder["parameters"].get("options") == plain(TrainingOptions(**training).to_json())
            and encoder["versions"] == installed_versions()
        )

    def _refuse_other(self, source: Source, training: dict[str, Any]) -> None:
        """Never train over, or mix, what was made from other images or with other settings."""
        from aesearch.images.sources.opening import is_gone
        from aesearch.network.options import TrainingOptions

        encoder = self.manifest.artifacts.get("encoder")
        if encoder is None:
            return
        held = self.manifest.artifacts.get("features", encoder)["source"]["name"]
        if held != source.name:
            follow = (
                f"; if that has moved here, {self.command(f'update {shlex.quote(source.name)}')}"
                if is_gone(held)
                else ""
            )
            raise AesearchError(
                f"collection {self.folder} holds {held}, not {source.name}: "
                f"give the new one another name with -c NAME, or --overwrite{follow}"
            )
        for name, otherwise in (("group", "near-duplicates"), ("tiles", "none")):
            asked, was = (opening.get(name) or otherwise for opening in (source.opening, encoder["source"]))
            if asked != was:
                made = f"collection {self.folder} was trained with --{name} {was}, not {asked}"
                raise AesearchError(f"{made}: another -c NAME, or --overwrite")
        recorded = encoder["parameters"]["options"]
        wanted = TrainingOptions(**training).to_json()
        differing = [k for k in training if plain(wanted[k]) != recorded[k]]
        if differing:
            was = ", ".join(f"{k} {recorded[k]}" for k in differing)
            raise AesearchError(f"collection {self.folder} was trained with {was}: another -c NAME, or --overwrite")

    def _interrupted(self, source: Source, options: TrainingOptions) -> bool:
        """Whether that very training was begun here, and not ended."""
        pending = self.manifest.training
        return (
            pending is not None
            and (self.folder / CHECKPOINT).is_file()
            and pending.get("fingerprint") == source.fingerprint
            and pending.get("options") == plain(options.to_json())
        )

    @exclusive
    def train(self, source: Source, options: TrainingOptions, *, resume: bool = False, encoded_next: int = 0) -> None:
        """Train an encoder on a source and put it in place of the one there may be; see `building.train_encoder`.

        An interrupted training with the same settings goes on; ``resume`` also adds epochs to one that had ended.
        """
        from aesearch.collection.build import train_encoder

        need_torch()  # before the images are read
        run = partial(train_encoder, self.manifest, source, options, encoded_next=encoded_next)
        run = partial(run, device=self.device, progress=self.progress)
        try:
            run(resume=resume or self._interrupted(source, options))
        except StaleArtifactError as error:
            if resume:
                raise
            logger.warning("%s; it begins anew", error)
            run()
        self.forget()

    @exclusive
    def extract(self, source: Source | None = None, *, batch_size: int | None = None) -> Extraction:
        """Fill the store with the features of every image of a source; an interrupted run is continued.

        ``batch_size`` is how many images are encoded at once, by default what suits the device; it shows in
        the last bits of the features at most.
        """
        from aesearch.collection.build import fill_store

        if batch_size:
            self.autoencoder.batch_size = batch_size
        extraction = fill_store(
            self.manifest,
            source or self.source,
            self.autoencoder,
            encoder_fingerprint=self._encoder_fingerprint(),
            progress=self.progress,
        )
        self.forget()
        return extraction

    @exclusive
    def update(self, source: Source | SourceLike | None = None, *, yes: bool = False) -> Update:
        """Bring the collection up to date with its folder, at the cost of what has changed there.

        New and changed images are encoded, rows of those gone are dropped, renamed ones known by their content. The
        index is brought along, or built anew where that is cheaper. Clusters and maps are brought along: new images
        get their places by their nearest neighbours, until `cluster` or `map` fits all of them anew. Until all
        is done, the collection stays as it was. What images that are gone were encoded to is kept for 30 days: those
        that are back by then need not be encoded again.

        Parameters
        ----------
        source : Source, optional
            Where the images are now, if they have moved: nothing is left at the old place, and most of those that
            are looked at here are known by their content.
        yes : bool
            Also if a whole sub-folder of 10 images or more is gone, or a quarter of all: that may be a disk away.

        Raises
        ------
        AesearchError
            There are no features of that source, no image is left, or more are gone than may be without ``yes``.
        """
        from aesearch.collection.build import update_store
        from aesearch.collection.update import Update
        from aesearch.images.sources.opening import say

        self.forget()
        self._adopt_store()
        given, source = source, self.source if source is None else self.open_images(source)
        moved = self._moved_to(source)
        if moved is None:
            self._refuse_other(source, {})
        source = moved or source
        if not (moved or self._can_update(source.name)):
            raise StaleArtifactError(
                f"there are no features of these images by this encoder: run {self.command('extract')}"
            )
        had_index = not self._index_stale()
        kept = ("thumbnails", "clusters", *(name for name in self.manifest.artifacts if name.startswith("map-")))
        laid_out = [name for name in kept if had_index and self.is_fresh(name)]
        if not moved and self._unchanged_since(source):
            return Update.nothing(self.store.rows, len(self.store.skipped()))
        self._refuse_gone(source, yes)
        if given is None:
            say(source)
        vanished = self._vanished()
        staged = self._stage()
        for made in (staged.manifest.artifacts["encoder"], staged.manifest.training):
            if moved and made and made["source"]["name"] == self.store.source:
                made["source"] = source.opening
        done = update_store(
            staged.manifest,
            source,
            self.autoencoder,
            self.store,
            encoder_fingerprint=self._encoder_fingerprint(),
            vanished=vanished,
            progress=self.progress,
        )
        staged._keep_vanished(self.store, vanished)
        if had_index:
            staged._update_index(self, done)
        elif "index" in self.manifest.artifacts:
            staged.build_index(IndexOptions(**self.manifest.artifacts["index"]["parameters"]))
        for name in laid_out:
            staged._update_derived(name, self, done.came_from)
        self._finish(staged)
        return done

    def _refuse_gone(self, source: Source, yes: bool) -> None:
        """Never drop what may only be away without being told to."""
        from aesearch.collection.update import what_is_gone

        if not yes and (gone := what_is_gone(source, self.store)):
            command = f"aesearch update {'' if source.name == self.store.source else f'{source.name} '}--yes"
            raise AesearchError(
                f"{gone}: if a disk or a folder is away, bring it back; if they are to go, {command} -c {self.folder}"
            )

    def _vanished(self) -> Store | None:
        """What images that are gone were encoded to, if that is known."""
        from aesearch.collection.update import open_vanished

        return open_vanished(self.folder / VANISHED, self.store) if self.manifest.holds(*KEPT) else None

    def _keep_vanished(self, before: Store, vanished: Store | None) -> None:
        """Keep what images that are gone from a store were encoded to, for a time."""
        from aesearch.collection.update import KEPT_DAYS, keep_vanished

        path = self.folder / VANISHED
        path.unlink(missing_ok=True)  # of an update that was interrupted
        rows = keep_vanished(path, before, self.store, vanished)
        if path.is_file():
            made_from = {"encoder": before.encoder_fingerprint}
            self.manifest.record(*KEPT, made_from=made_from, parameters={"days": KEPT_DAYS}, figures={"rows": rows})
        elif not rows:
            self.manifest.artifacts.pop(KEPT[0], None)

    def _stage(self) -> Collection:
        """A collection beside this one, with its encoder and what is known of the rest."""
        staged = self._beside(GROWING)
        artifacts = copy.deepcopy(self.manifest.artifacts)
        pending = copy.deepcopy(self.manifest.training)
        staged.manifest = Manifest(staged.folder, self.manifest.source, artifacts, pending, name=GROWING)
        staged.__dict__["autoencoder"] = self.autoencoder
        return staged

    def _beside(self, kind: str) -> Collection:
        """A collection that grows beside this one until it takes its place: readers see the old one meanwhile.

        What lies there of another kind is in the way.
        """
        folder = self.folder / NEXT
        if (folder / ANEW).is_file() != (kind == ANEW):
            drop(folder)
        staged = Collection(folder, device=self.device, progress=self.progress)
        staged.folder.mkdir(exist_ok=True)
        check_own(staged.folder)
        staged.name, staged.given = self.name, self.given
        return staged

    def _finish(self, staged: Collection) -> None:
        """Let what has grown beside this collection take its place."""
        staged.manifest.name = MANIFEST
        staged.manifest.save()
        self._take_over()
        if KEPT[0] not in self.manifest.artifacts:
            (self.folder / VANISHED).unlink(missing_ok=True)

    def _can_update(self, name: str) -> bool:
        """Whether there is a store of the source of that name by this encoder."""
        try:
            return self.store.source == name
        except AesearchError:  # none, damaged, or another encoder's
            return False

    def _moved_to(self, source: Source) -> Source | None:
        """That source, opened as the collection's own, if its images are there now and no longer where they were."""
        from aesearch.collection.update import share_known
        from aesearch.images.sources.opening import is_gone, open_source

        known = self.manifest.source
        if known is None or known["name"] == source.name or not is_gone(known["name"]):
            return None
        if not self._can_update(known["name"]):
            again = self.command(f"extract {shlex.quote(source.name)} --labels {known['labels']}")
            raise StaleArtifactError(
                f"{known['name']} is no longer there, and no features by this encoder are left to know its images by: "
                f"run {again}"
            )
        if (share := share_known(source, self.store, self.spec.preprocessing)) < MOST:
            raise AesearchError(
                f"{known['name']} is no longer there, but of the images looked at in {source.name} {share:.0%} are "
                "from there: give the very folder that has moved, or take another -c NAME"
            )
        opening = known | {"name": source.name}
        return source if source.opening == opening else open_source(**opening)

    def _unchanged_since(self, source: Source) -> bool:
        recorded = self.manifest.artifacts.get("features", {}).get("made_from", {})
        return recorded.get("source") == source.fingerprint and not self._index_stale()

    def _update_index(self, before: Collection, done: Update) -> None:
        recorded = before.manifest.artifacts["index"]
        options, figures, rows = IndexOptions(**recorded["parameters"]), recorded["figures"], before.store.rows
        since = {"added": figures.get("added", 0), "removed": figures.get("removed", 0)}
        features, changed = self.store.rows_of_features(), sum(since.values())
        index = update_index(
            before.folder / INDEX, options.metric, done.came_from, features, before=rows, changed=changed
        )
        if index is None:
            self.build_index(options)
            return
        since["added"] += int((done.came_from < 0).sum())
        since["removed"] += rows - int((done.came_from >= 0).sum())
        index.save(self.folder / INDEX)
        self._record("index", INDEX, recorded["parameters"], figures | since)

    def _update_derived(self, name: str, collection: Collection, came_from: NDArray[np.int64]) -> None:
        """Keep the places of a map, or the clusters, of rows that were there; give new ones theirs by their nearest."""
        from aesearch.clusters import VOTERS, assign
        from aesearch.projection import PLACED_BY, Projection, between

        if name == "thumbnails":
            return self._update_thumbnails(collection, came_from)
        recorded = collection.manifest.artifacts[name]
        kept, added = np.flatnonzero(came_from >= 0), np.flatnonzero(came_from < 0)
        if not len(kept):
            return
        column = "cluster" if name == "clusters" else "coordinates"
        before = collection._read_rows(name)[column]
        now = np.zeros((len(came_from), *before.shape[1:]), before.dtype)
        now[kept] = before[came_from[kept]]
        figures = recorded["figures"] | {"placed": recorded["figures"].get("placed", 0) + len(added)}
        if len(added):
            voters = min(VOTERS if name == "clusters" else PLACED_BY, len(kept))
            rows, distances = self.index.search(self.store.features(added), voters, among=kept)
            now[added] = assign(rows, now)[0] if name == "clusters" else between(now[rows], distances)
        if name == "clusters":
            sizes = np.bincount(now[now >= 0], minlength=len(recorded["figures"]["sizes"]))
            figures |= {"sizes": [int(size) for size in sizes]}  # of one that has lost all its images 0
        if name != "clusters":
            by = recorded["parameters"]["colour_by"] or "none"
            groups, by = self._groups(by if by != "cluster" or self.is_fresh("clusters") else "none")
            made = recorded["parameters"]
            self._draw_map(name, Projection(now, made["method"], tuple(made.get("axes", ()))), groups, by)
        if name == "clusters":
            return self._write_clusters(now, recorded["parameters"], figures)
        self._write_rows(name, {column: now}, recorded["parameters"], figures)

    @exclusive
    def build_index(self, options: IndexOptions | None = None) -> SearchIndex:
        """Index the features and measure the index's recall@10 against exact search."""
        options = options or IndexOptions()
        check_room(self.folder / INDEX, least_bytes(options, self.store.rows, self.store.dim))
        built = build_index(self.store.rows_of_features(), options, progress=self.progress)
        built.save(self.folder / INDEX)
        built.figures["bytes_per_vector"] = round((self.folder / INDEX).stat().st_size / self.store.rows, 1)
        self.manifest.record(
            "index",
            INDEX,
            made_from={"features": self.store.fingerprint},
            parameters=options.to_json(),
            figures=built.figures,
        )
        self.__dict__["index"] = built
        return built

    # ---------------------------------------------------------------- asking

    def query(
        self,
        image: ImageLike | None = None,
        *,
        k: int = 10,
        row: int | None = None,
        id: str | None = None,
        where: str | Sequence[str] = (),
        any_orientation: bool | None = None,
        box: Box | None = None,
    ) -> Hits:
        """Nearest neighbours of one image.

        Parameters
        ----------
        image : path, bytes of a file, Pillow image, or array (height, width[, 1, 3 or 4])
            Of any size and mode; an array's values are uint8, or floats in [0, 1].
        k : int
            How many; at most as many as there are.
        row, id : int, str
            Instead of an image: one of the collection, which is then left out of its own neighbours.
        where : str or sequence of str
            Only among rows of which this, or all of these hold; see `rows_where`.
        any_orientation : bool, optional
            Whether the image is looked for mirrored and turned too, in all eight orientations, and each neighbour's
            distance is the least. By default an image from elsewhere is looked for in those orientations that mean
            nothing in the collection, as was found in training, and a row as it is. Mirror images that the encoder
            averages over are found in any case.
        box : (left, top, width, height), optional
            Of the image, a file or its bytes, only that is looked for; in pixels. A whole picture that is larger than
            the tiles of the collection is looked for tile by tile, and each neighbour's distance is the least.
        """
        if sum(v is not None for v in (image, row, id)) != 1:
            raise AesearchError("give one of: an image, a row, an id")
        if image is not None:
            how: dict[str, Any] = {"k": k, "where": where, "any_orientation": any_orientation, "box": box}
            return self.query_images([image], **how)[0]
        rows = self.rows_of([id]) if row is None else [row]  # type: ignore[list-item]
        return self.query_rows(rows, k=k, where=where, any_orientation=any_orientation)[0]

    def query_images(
        self,
        images: Sequence[ImageLike],
        *,
        k: int = 10,
        where: str | Sequence[str] = (),
        any_orientation: bool | None = None,
        box: Box | None = None,
    ) -> list[Hits]:
        """Nearest neighbours of several images, encoded as one batch; see `query`."""
        _check_k(k)
        if self.tiling is not None and box is None:
            return [self._query_in_tiles(image, k, where, any_orientation) for image in several(images)]
        if box is not None:
            images = [crop(image, box, self.spec.preprocessing) for image in several(images)]
        asked = self._asked(any_orientation)
        images = several(images)
        return self._search(self.encode_oriented(images, asked), [name_of(image) for image in images], k, where, asked)

    def _asked(self, any_orientation: bool | None) -> list[str]:
        """In which orientations an image from elsewhere is looked for."""
        every = apart(ORIENTATIONS, self.spec.mirror)
        return self.orientations if any_orientation is None else every if any_orientation else [UPRIGHT]

    def _query_in_tiles(
        self, image: ImageLike, k: int, where: str | Sequence[str], any_orientation: bool | None
    ) -> Hits:
        """Nearest tiles to any tile of a picture; of one no larger than a tile, as it is, in all orientations."""
        assert self.tiling is not None
        tiles = read_tiles(image, self.tiling, self.spec.preprocessing)
        if len(tiles) == 1:
            asked = self._asked(any_orientation)
            return self._search(self.encode_oriented([image], asked), [name_of(image)], k, where, asked)[0]
        features = self.encode_pixels(tiles)[None]
        (found,) = self._search(features, [name_of(image)], k, where, [UPRIGHT] * len(tiles))
        return dataclasses.replace(found, orientations=None)

    def query_rows(
        self,
        rows: Sequence[int],
        *,
        k: int = 10,
        where: str | Sequence[str] = (),
        any_orientation: bool | None = None,
    ) -> list[Hits]:
        """Nearest other images of several rows; see `query`."""
        _check_k(k)
        self.check_rows(rows)
        wanted = np.array(rows)
        asked = apart(ORIENTATIONS, self.spec.mirror) if any_orientation else [UPRIGHT]
        upright = self.store.features(wanted)[:, None]
        features = self._encode_rows_oriented(rows, asked) if any_orientation else upright
        found = self._search(features, self.store.texts("id", wanted), k + 1, where, asked)
        return [hits.without(row, k) for hits, row in zip(found, rows, strict=True)]

    def _encode_rows_oriented(self, rows: Sequence[int], orientations: Sequence[str]) -> NDArray[np.float32]:
        """Features (n, orientations, dim) float32 of rows, read again as `encode_oriented` wants them."""
        upright, read = self.spec.preprocessing, {}
        for way in {on_its_side(upright) if is_turned(o) else upright for o in orientations}:
            pictures = read_pictures(self.source, self._places(rows), way)
            if gone := [row for row, picture in zip(rows, pictures, strict=True) if picture is None]:
                raise StaleArtifactError(
                    f"the image of row {gone[0]} can no longer be read: leave out --any-orientation"
                )
            read[way] = np.stack([picture for picture in pictures if picture is not None])
        turned = [orient(read[on_its_side(upright) if is_turned(o) else upright], o) for o in orientations]
        pixels = np.stack(turned, axis=1).reshape(-1, *upright.shape)
        return self.encode_pixels(pixels).reshape(len(rows), len(orientations), -1)

    def _search(
        self,
        features: NDArray[np.float32],
        names: list[str],
        k: int,
        where: str | Sequence[str],
        orientations: Sequence[str],
    ) -> list[Hits]:
        """Nearest of queries (n, orientations, dim), each in the orientation in which it is nearest."""
        n, count, dim = features.shape
        rows, distances = self._nearest(features.reshape(-1, dim), k, self.rows_where(where) if where else None)
        rows, distances, way = nearest_way(rows.reshape(n, -1), distances.reshape(n, -1), count)
        there = rows >= 0
        ids, labels = (self.store.texts(name, rows[there]) for name in ("id", "label"))
        ends = np.cumsum(there.sum(axis=1))
        return [
            Hits(
                name,
                found[kept],
                ids[end - kept.sum() : end],
                labels[end - kept.sum() : end],
                far[kept],
                [orientations[w] for w in ways[kept]] if len(orientations) > 1 else None,
            )
            for name, found, far, ways, kept, end in zip(names, rows, distances, way, there, ends, strict=True)
        ]

    def anomalies(
        self,
        source: SourceLike | Source | None = None,
        *,
        score: str = "combined",
        top: int = 50,
        normal_label: str | None = None,
        false_alarms: float | None = None,
        scores: NDArray[np.float32] | None = None,
        per: str | None = None,
    ) -> Anomalies:
        """Rank images by how odd they are.

        Parameters
        ----------
        source : as `build` takes it, optional
            New images, scored with the collection's encoder; by default the collection itself.
        score : {"combined", "patches", "reconstruction", "nap", "neighbours"}
            Larger is odder.
            ``reconstruction``: mean squared error per pixel on the [0, 1] scale.
            ``neighbours``: mean distance to the 5 nearest features of the collection, in its metric.
            ``nap``: squared Mahalanobis distance of what each layer of the encoder loses from one image to its
            reconstruction (RaPP: Kim et al. 2020).
            ``patches``: what a network that has learned to find planted faults (`aesearch.anomalies.finder`) says of an
            image, whose longer side it sees with 256 pixels: of the places that look most faulty, how far what it sees
            at each place lies from places of normal images (as in Roth et al. 2022), and how far the means of its
            layers lie from those of normal images, over the whole image and in detail.
            ``combined``: the same, ``neighbours``, the distance to the nearest by pixels and by gradients, less what is
            expected of such an image, and the Mahalanobis distance of low-level facts, for bad frames
            (`aesearch.anomalies.facts`). Each part is a conformal p-value on normal images that nothing was learned
            from (Vovk et al. 2005). Their weighed sums of -ln (Fisher 1925), of the parts that look at places and of
            the others, are turned into such values again; the score is -ln of the smaller one.
            `Anomalies.why` says which part counts most, `Anomalies.where` which place looks most faulty.
            ``combined``, ``patches`` and ``nap`` are learned from the collection's images when first asked for.
        top : int
        normal_label : str, optional
            Measures how well the score tells images of other labels from this one (AUROC).
        false_alarms : float, optional
            Learns a threshold that a normal image exceeds with this probability, from the images the encoder was
            not trained on, of the normal label if one is given; only what lies above it is returned.
        scores : (rows,) float32, optional
            What `scores_of_rows` gave, if that is known already.
        per : {"picture", "tile"}, optional
            Of pictures in tiles, what is ranked: by default pictures, each as odd as its oddest tile. Thresholds are
            learned from pictures in either case: so many of the normal ones have a tile above.
        """
        if top < 1:
            raise AesearchError(f"--top must be 1 or more, not {top}")
        check_choice("--per", per or PER[0], PER)
        check_choice("--score", score, SCORES)
        texts: Callable[[str, NDArray[np.int64]], list[str]]
        if source is None:
            texts, places = self.store.texts, np.arange(self.store.rows)
            known = scores = self.scores_of_rows(score) if scores is None else scores
            why, where = self._reasons_of_rows(score)
        else:
            source = self.open_images(source)
            scored, places = self._scorer(score).of_source(source, progress=self.progress)
            texts, known, scores, why, where = source.texts, None, scored.scores, scored.why, scored.where
        alarms = None if false_alarms is None else self._learn_threshold(score, false_alarms, normal_label, known)
        tiles: list[str] = []
        tiled = (source or self.source) if self.tiling is not None and per != "tile" else None
        if tiled is not None:
            oddest = oddest_of(units_of([picture_and_box(id)[0] for id in texts("id", places)]), scores)
            places, scores, why = places[oddest], scores[oddest], why[oddest]
            positions = np.array(self._places(places.tolist())) if source is None else places
            where = self._in_pictures(tiled, positions, where[oddest])
        flagged = int((scores > alarms.threshold).sum()) if alarms else 0
        top = min(top, flagged) if alarms else top
        labels = [] if normal_label is None else texts("label", places)
        kinds = set(labels) - {""}
        if alarms and not (normal_label in kinds and len(kinds) > 1):
            normal_label = None  # it said what to learn from; here there is nothing to tell it from
        ranking = rank(scores, top=top, labels=labels, normal_label=normal_label)
        rows = places[ranking.rows]
        ids = texts("id", rows)
        if tiled is not None:
            ids, tiles = [picture_and_box(id)[0] for id in ids], ids
        return Anomalies(
            rows,
            ids,
            texts("label", rows),
            ranking.scores,
            ranking.scored,
            ranking.auroc,
            alarms,
            flagged,
            [int(one) for one in why[ranking.rows]],
            where[ranking.rows],
            score,
            tiles,
        )

    def _in_pictures(
        self, source: Source, positions: NDArray[np.int64], where: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Places in tiles as places in their pictures; NaN where the source does not know the tile any more."""
        assert isinstance(source, TileSource)
        corners = np.array([source.in_picture(p) if p >= 0 else [np.nan] * 4 for p in positions.tolist()], np.float32)
        corners = corners.reshape(-1, 2, 2)
        return corners[:, 0] + where * (corners[:, 1] - corners[:, 0])

    def _reasons_of_rows(self, score: str) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
        """What made each row odd, and where, as `aesearch.anomalies.scorer.Scored` has it."""
        if LEARNED.get(score) != "combined":
            return np.full(self.store.rows, -1, np.int16), np.full((self.store.rows, 2), np.nan, np.float32)
        kept = self._read_rows("combined", f"{score}_why", "where")
        return kept[f"{score}_why"], kept["where"]

    def _learn_threshold(
        self, score: str, rate: float, normal_label: str | None, known: NDArray[np.float32] | None
    ) -> Alarms:
        """From `_usual_rows`; all of them are normal unless a label says which are."""
        normal = self._usual_rows()
        if normal_label is not None:
            normal &= self.store.where("label", lambda label: label == normal_label)
        scores = self._scores_of_rows(score, np.flatnonzero(normal)) if known is None else known[normal]
        units = self.units[normal]
        if self.tiling is not None:
            pictures = units_of([picture_and_box(id)[0] for id in self.store.texts("id", np.flatnonzero(normal))])
            oddest = oddest_of(pictures, scores)
            scores, units = scores[oddest], units[oddest]
        return learn_threshold(scores, rate, units=units)

    def _usual_rows(self) -> NDArray[np.bool_]:
        """Rows not trained on that tell what is usual; those of a split test, which may hold odd ones, do not."""
        held_out = self.store.held_out()
        usual = held_out & ~self.store.where("split", lambda split: split == "test")
        return usual if usual.any() else held_out

    def scores_of_rows(self, score: str) -> NDArray[np.float32]:
        """How odd each row is, (rows,) float32; see `anomalies`."""
        return self._scores_of_rows(score, np.arange(self.store.rows))

    def _scores_of_rows(self, score: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if score == "reconstruction":
            return self.store.reconstruction_errors()[rows]
        if score == "neighbours":
            far = self._scorer(score).far
            blocks = in_blocks(rows, "score" if self.progress else "", most_rows(self.store.dim))
            parts = [far(self.store.features(part), self.units[part]) for _, part in blocks]
            return np.concatenate([*parts, np.empty(0, np.float32)])
        return np.asarray(self._learned(score)[f"{score}_score"][rows], dtype=np.float32)

    def _scorer(self, score: str) -> Scorer:
        from aesearch.anomalies.combining import Usual
        from aesearch.anomalies.finder import LARGEST

        blank = self._blank_scorer(score)
        if score not in LEARNED:
            return blank
        learned = self._learned(score)
        if score == "nap":
            count = self.manifest.artifacts[score]["figures"]["learned_from"]
            normality = Normality(learned["mean"], learned["directions"], count)
            return dataclasses.replace(blank, normality=normality)
        detailed = larger_side(self.spec.preprocessing, self._native_size, LARGEST)
        return dataclasses.replace(blank, usual=Usual.from_arrays(learned, detailed, self.autoencoder.device))

    def _blank_scorer(self, score: str) -> Scorer:
        from aesearch.anomalies.scorer import Scorer

        units = self.units if "features" in self.manifest.artifacts else np.empty(0, np.int64)
        return Scorer(score, self.autoencoder, self._nearest, NEIGHBOURS, units)

    @property
    def _native_size(self) -> tuple[int, int]:
        height, width = self.manifest.artifacts["encoder"]["native_size"]
        return int(height), int(width)

    def _learned(self, score: str) -> dict[str, NDArray[np.float32]]:
        """What a score has learned from the images, and that of each row; learned when first asked for."""
        if not self.is_learned(score):
            self._learn_score(score)
        return self._read_rows(LEARNED[score])

    def is_learned(self, score: str) -> bool:
        """Whether one of the scores that are learned from the images is, of the features and the index as they are."""
        name = LEARNED[score]
        return self.is_fresh(name) and self.manifest.artifacts[name]["parameters"] == self._compared(name)

    def _compared(self, name: str) -> dict[str, Any]:
        if name != "combined":
            return {}
        kept = [*PARTS, *SCALES]  # what an earlier version kept is learned again
        return {"metric": self.metric, "kept": kept}

    @exclusive
    def _learn_score(self, score: str) -> None:
        from aesearch.anomalies.scorer import learn_normality, learn_usual

        try:
            positions = np.array(self._positions(self.ids))
        except SourceError as error:
            raise SourceError(f"--score {score} needs the images; {error}; or take --score neighbours") from error
        if (positions < 0).any():
            raise StaleArtifactError(
                f"--score {score} needs the images, and some are gone: "
                f"run {self.command('extract')}, or take --score reconstruction or neighbours"
            )
        name, trained = LEARNED[score], ~self.store.held_out()
        check_room(self.manifest.target(f"{name}.h5"), 4 * self.store.rows)
        images = self.source, positions, trained
        kept: dict[str, NDArray[Any]]
        if name == "nap":
            normality, scored = learn_normality(self._blank_scorer(name), *images, progress=self.progress)
            kept = {"mean": normality.mean, "directions": normality.directions, "nap_score": scored.scores}
            figures: dict[str, Any] = {"learned_from": normality.learned_from}
        else:
            usual, by_score = learn_usual(
                self._blank_scorer(name), *images, self._usual_rows(), self._native_size, progress=self.progress
            )
            kept = usual.arrays() | {"where": by_score[name].where}
            for one, scored in by_score.items():
                kept |= {f"{one}_score": scored.scores, f"{one}_why": scored.why}
            figures = {
                "learned_from": len(usual.pixels.units),
                "weights": usual.heard(),
                "of_kinds": usual.looks_for_kinds,
            }
            heard = ", ".join(f"{part} {weight:.2f}" for part, weight in figures["weights"].items())
            logger.info("weights of the parts, by how well they tell planted faults: %s", heard)
            if figures["of_kinds"]:
                logger.info("the images are of clear kinds: one of a new kind is looked for first")
        self._write_rows(name, kept, self._compared(name), figures)

    def inspect(self, normal_label: str, *, score: str = "combined", false_alarms: float = 0.05) -> list[Measures]:
        """How well a score finds the faulty images of split ``test``, each kind by itself, beside what trains nothing.

        Sound images, of the normal label, and faulty ones are told apart, and where there are masks, as in the layout
        of MVTec AD, the places too. Thresholds are learned from normal images outside the split, that nothing was
        trained on.

        Parameters
        ----------
        normal_label : str
        score : str
            As of `anomalies`.
        false_alarms : float
            Share of the normal images that the threshold is to call faulty; more if they are too few.

        Returns
        -------
        list of Measures
            Empty where the split has no faulty image, or no sound one.
        """
        from aesearch.anomalies.inspection import Judged, measure, read_mask
        from aesearch.baselines import free_scores

        labels, test = np.array(self.labels()), self.store.where("split", lambda split: split == "test")
        rows, normal = np.flatnonzero(test & (labels != "")), labels == normal_label
        new, known = np.flatnonzero(self._usual_rows() & normal), np.flatnonzero(~self.store.held_out() & normal)
        if not 0 < normal[rows].sum() < len(rows) or not len(known) or not len(new):
            return []
        known = np.sort(np.random.default_rng(0).permutation(known)[:MOST_FREE])
        ids = [picture_and_box(id)[0] if self.tiling else id for id in self.store.texts("id", rows)]
        pictures, of_new = units_of(ids), self.units[new] if self.tiling else np.arange(len(new))
        firsts = np.sort(np.unique(pictures, return_index=True)[1])
        rate = max(false_alarms, 1 / (len(np.unique(of_new)) + 1))

        def judge(fresh: NDArray[np.float32], shown: NDArray[np.float32], maps: Any) -> Judged:
            """By scores of new images and of those to judge; a picture in tiles is as odd as its oddest tile."""
            threshold = float(np.quantile(highest_of(of_new, fresh), 1 - rate))
            return Judged(highest_of(pictures, shown), threshold, maps)

        scores = self.scores_of_rows(score)
        small = larger_side(self.spec.preprocessing, self._native_size, FREE_SIDE)
        images = [self._read_again(part, small) for part in (known, np.concatenate([new, rows]))]
        judged = {score: judge(scores[new], scores[rows], self._heat_of(rows[firsts], score))}
        for name, (free, maps) in free_scores(*images).items():
            of_rows = None if maps is None or self.tiling else list(maps[len(new) :])
            judged[name] = judge(free[: len(new)], free[len(new) :], of_rows)
        files = [self.source.masks.get(ids[first]) for first in firsts]
        masks = [None if file is None else read_mask(file) for file in files]
        return measure(judged, labels[rows[firsts]].tolist(), normal_label, masks)

    def _read_again(self, rows: NDArray[np.int64], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        pictures = read_pictures(self.source, self._places(rows.tolist()), preprocessing)
        if any(picture is None for picture in pictures):
            raise StaleArtifactError(f"some images can no longer be read: run {self.command('extract')}")
        return np.stack([picture for picture in pictures if picture is not None])

    def _heat_of(self, rows: NDArray[np.int64], score: str) -> list[NDArray[np.float32]]:
        """Of images, or of the pictures that tiles are of, no larger than masks are."""
        if self.tiling is not None:
            from aesearch.anomalies.inspection import no_larger

            return [no_larger(one) for one in self._picture_maps(self.source, self._places(rows.tolist()), score)]
        if LEARNED.get(score) == "combined":
            return self._faults_of(self.source, self._places(rows.tolist()))
        originals, rebuilt = self.reconstruct(rows=rows.tolist())
        return [error_map(*pair) for pair in zip(originals, rebuilt, strict=True)]

    def heat_maps(self, found: Anomalies, source: Source | None = None) -> list[NDArray[np.float32]]:
        """Where anomalies are odd, each (height, width) float32: 1 is drawn brightest, 0 and less dark.

        By ``combined`` and ``patches`` it is where they look faulty, by the others where they are rebuilt badly;
        ``source`` is what was scored, if not the collection.
        """
        if found.tiles:
            return [*self.picture_maps(found, source)]
        if LEARNED.get(found.by) == "combined":
            places = self._places(found.rows.tolist()) if source is None else found.rows.tolist()
            return self._faults_of(source or self.source, places)
        return [errors / np.float32(self.heat_scale) for errors in self.error_maps(found, source)]

    def picture_maps(self, found: Anomalies, source: Source | None = None) -> Iterator[NDArray[np.float32]]:
        """As `heat_maps` of pictures in tiles, one after the other: each is as large as its picture."""
        places = self._places(found.rows.tolist()) if source is None else found.rows.tolist()
        return self._picture_maps(source or self.source, places, found.by)

    def _picture_maps(self, source: Source, positions: Sequence[int], score: str) -> Iterator[NDArray[np.float32]]:
        assert isinstance(source, TileSource)
        for position in positions:
            if position < 0:
                yield np.zeros((1, 1), np.float32)
                continue
            tiles = source.of_picture(position)
            parts = (tiles[start : start + TILES_AT_ONCE].tolist() for start in range(0, len(tiles), TILES_AT_ONCE))
            maps = (one for part in parts for one in self._heat_at(source, part, score))
            yield source.stitched(position, maps)

    def _heat_at(self, source: Source, positions: list[int], score: str) -> list[NDArray[np.float32]]:
        if LEARNED.get(score) == "combined":
            return self._faults_of(source, positions)
        gone = blank(self.spec.preprocessing.shape)
        read = [gone if one is None else one for one in read_pictures(source, positions, self.spec.preprocessing)]
        errors = [error_map(*pair) for pair in zip(read, self._rebuild(read), strict=True)]
        return [one / np.float32(self.heat_scale) for one in errors]

    def heat_of_row(self, row: int) -> NDArray[np.float32]:
        """That of one image, by ``combined`` where that is learned, else by its reconstruction."""
        self.check_rows([row])
        if self.is_learned("combined"):
            usual, detailed = self._kept_scorer.usual, self._kept_scorer.detailed
            assert usual is not None and detailed is not None
            (picture,) = read_pictures(self.source, self._places([row]), detailed)
            if picture is None:
                raise SourceError(f"the image of row {row} cannot be read any more")
            return np.asarray(usual.heat_maps(picture[None])[0])
        (original,), (rebuilt,) = self.reconstruct(rows=[row])
        return error_map(original, rebuilt) / np.float32(self.heat_scale)

    def _faults_of(self, source: Source, places: Sequence[int]) -> list[NDArray[np.float32]]:
        usual, detailed = self._kept_scorer.usual, self._kept_scorer.detailed
        assert usual is not None and detailed is not None
        pictures = read_pictures(source, places, detailed)
        there = [picture for picture in pictures if picture is not None]
        maps = iter(usual.heat_maps(np.stack(there)) if there else ())
        nothing = np.zeros(detailed.shape[1:], np.float32)
        return [nothing if picture is None else next(maps) for picture in pictures]

    @cached_property
    def _kept_scorer(self) -> Scorer:
        return self._scorer("combined")

    def error_maps(self, found: Anomalies, source: Source | None = None) -> list[NDArray[np.float32]]:
        """Where the reconstruction errors of anomalies lie; see `aesearch.anomalies.error_maps.error_map`.

        ``source`` is what was scored, if not the collection.
        """
        pairs = zip(*self.reconstruct_anomalies(found, source), strict=True)
        return [error_map(original, rebuilt) for original, rebuilt in pairs]

    def duplicates(self, *, threshold: float | None = None, confirm: bool = True) -> Duplicates:
        """Images that are there more than once, or nearly; see `aesearch.duplicates.find_duplicates`.

        With ``confirm`` what is near by its features is compared pixel by pixel, which reads those images again.
        """
        from aesearch.duplicates import find_duplicates

        found = find_duplicates(
            self.store.rows_of_features(),
            self.index,
            self.store.contents(),
            pixels=self._pixels() if confirm else None,
            threshold=threshold,
            progress=self.progress,
        )
        sizes = [len(group) for group in found.groups]
        ids = self.store.texts("id", np.concatenate([*found.groups, np.empty(0, np.int64)]))
        parts = [ids[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        known = (found.exact, found.found, found.pixels, found.rejected)
        return Duplicates(found.threshold, found.groups, parts, *known)

    def _pixels(self) -> SamePixels:
        """What tells by the images themselves whether rows show the same; says so where images are gone."""
        from aesearch.duplicates import Pixels
        from aesearch.images.same_pixels import compared_size, distances_of_pairs, most_different

        height, width = self.manifest.artifacts["encoder"]["native_size"]
        size = compared_size((height, width), self.spec.preprocessing)

        def distances(pairs: NDArray[np.int64]) -> NDArray[np.float32]:
            far = np.full(len(pairs), np.nan, np.float32)
            reason = "some images cannot be read any more"
            rows, at = np.unique(pairs, return_inverse=True)
            if len(rows):
                try:
                    places = np.array(self._places(rows.tolist()), np.int64)
                    far = distances_of_pairs(self.source, places, at.reshape(-1, 2), size, progress=self.progress)
                except SourceError as error:
                    reason = str(error)
            if unknown := int(np.isnan(far).sum()):
                logger.warning("%s: %s pairs are called near by their features alone", reason, f"{unknown:,}")
            return far

        return Pixels(distances, most_different(size.shape))

    def classify(self, images: Sequence[ImageLike]) -> list[Classified]:
        """(label, probability) of each image by the linear probe, and whether that is unsure.

        `AesearchError` until `probe` has run.
        """
        from aesearch.probe import UNSURE

        images, model = several(images), self.learned_probe()
        chances = model.predict_probabilities(self.encode(images))
        return [Classified.of(model.classes, c, UNSURE) for c in chances]

    def learned_probe(self) -> LinearProbe:
        """What `classify` asks; `AesearchError` until `probe` has run."""
        from aesearch.probe import LinearProbe

        path = self.manifest.path("probe", PROBE)
        if self.manifest.artifacts["probe"]["made_from"].get("features") != self.store.fingerprint:
            raise StaleArtifactError(
                f"the features have changed since the probe was trained: run {self.command('probe')}"
            )
        return LinearProbe.load(path)

    # ---------------------------------------------------------------- deriving

    @exclusive
    def cluster(
        self, *, method: str = "gmm", clusters: int | None = None, space: str = "umap", seed: int = 0
    ) -> Clustering:
        """Group the images and keep the groups in ``clusters.h5``; see `aesearch.clusters.cluster`."""
        from aesearch.clusters import cluster as cluster_features

        options = {"method": method, "clusters": clusters, "space": space, "seed": seed}
        check_room(self.manifest.target("clusters.h5"), 12 * self.store.rows)
        found = cluster_features(
            self.store.rows_of_features(),
            method=method,
            clusters=clusters,
            space=space,
            metric=self.metric,
            labels=self.labels(),
            seed=seed,
            progress=self.progress,
        )
        figures = {
            "clusters": len(found.sizes),
            "sizes": found.sizes,
            "silhouette": found.silhouette,
            "against_labels": found.against_labels,
            "stability": found.stability,
        }
        names = self._carried_names(found.assignments)
        self._write_clusters(found.assignments, options | ({"names": names} if names else {}), figures)
        return found

    def _write_clusters(
        self, assignments: NDArray[np.int32], parameters: dict[str, Any], figures: dict[str, Any]
    ) -> None:
        """Keep groups, and with them what the images are known by when their rows have become others."""
        columns: dict[str, NDArray[Any]] = {"cluster": assignments, "content": self.store.contents()}
        self._write_rows("clusters", columns, parameters, figures)

    def _carried_names(self, now: NDArray[np.int32]) -> dict[str, str]:
        """Names for new groups by those of the ones before, as far as these live on; says which do not."""
        from aesearch.clusters import carry_names

        recorded = self.manifest.artifacts.get("clusters", {"parameters": {}})
        names = {int(number): name for number, name in recorded["parameters"].get("names", {}).items()}
        if not names:
            return {}
        before = self._clusters_before()
        if before is None:
            lost = ", ".join(map(repr, names.values()))
            logger.warning("the names of clusters are lost, what they had in them is not known: %s", lost)
            return {}
        carried, left = carry_names(names, before, now)
        if carried:
            logger.info("names carried over: %s", ", ".join(f"{c} {carried[c]!r}" for c in sorted(carried)))
        for name, places in left.items():
            most = [*places.items()][:MOST_PLACES]
            said = ", ".join(f"{size} in {c if c >= 0 else NO_CLUSTER_NAME}" for c, size in most)
            logger.warning("no cluster is %r any more: of its images %s", name, said or "none is left")
        return {str(number): name for number, name in carried.items()}

    def _clusters_before(self) -> NDArray[np.int32] | None:
        """The clusters that are kept, of the rows as they are now; -1 for rows that they do not know."""
        if not self.manifest.holds("clusters", "clusters.h5"):
            return None
        if self.is_fresh("clusters"):
            return self.assignments()
        kept = self._read_rows("clusters")
        if "content" not in kept or kept["content"].shape != kept["cluster"].shape or not kept["content"].size:
            return None
        order = np.argsort(kept["content"], kind="stable")
        known, contents = kept["content"][order], self.store.contents()
        places = np.minimum(np.searchsorted(known, contents), len(known) - 1)
        found = np.where(known[places] == contents, kept["cluster"][order][places], NO_CLUSTER)
        return np.asarray(found, np.int32)

    @exclusive
    def name_clusters(self, names: Mapping[int, str]) -> None:
        """Give clusters names, which `cluster` carries over to those that have the same images; "" takes one away.

        `AesearchError` if there is no such cluster, or a name has more than 100 characters or is another's.
        """
        self.assignments()
        named = dict(enumerate(self.cluster_names()))
        for number, name in names.items():
            if number not in named:
                raise AesearchError(f"there is no cluster {number}: they go from 0 to {len(named) - 1}")
            named[number] = " ".join(name.split()) or str(number)
            if len(named[number]) > LONGEST_NAME:
                raise AesearchError(f"a cluster's name has at most {LONGEST_NAME} characters")
        kept = {str(number): name for number, name in named.items() if name != str(number)}
        for name, times in Counter(kept.values()).items():
            if times > 1 or name.isdecimal() or name == NO_CLUSTER_NAME or not is_unicode(name):
                raise AesearchError(f"{name!r} cannot name a cluster: {'another has it' if times > 1 else 'no name'}")
        before = self.manifest.artifacts["clusters"]
        self.manifest.artifacts["clusters"] = before | {"parameters": before["parameters"] | {"names": kept}}
        try:
            self.manifest.save()
        except BaseException:
            self.manifest.artifacts["clusters"] = before
            raise

    def assign(self, images: Sequence[ImageLike]) -> list[tuple[int, float]]:
        """(cluster, share of the nearest rows that are in it) of each image; nothing is fitted again.

        `AesearchError` until `cluster` has run.
        """
        from aesearch.clusters import VOTERS, assign

        assignments = self.assignments()
        rows, _ = self._nearest(self.encode(images), VOTERS)
        clusters, shares = assign(rows, assignments)
        return [(int(c), float(s)) for c, s in zip(clusters, shares, strict=True)]

    def centres(self) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
        """Mean features of each cluster, (clusters, dim) float32, and its rows, nearest to that centre first."""
        assignments, features = self.assignments(), self.features()
        members = [np.flatnonzero(assignments == c) for c in range(len(self.cluster_names()))]
        means = np.zeros((len(members), features.shape[1]), np.float32)
        nearest = []
        for number, rows in enumerate(members):
            if len(rows):  # an update may have left none
                means[number] = features[rows].mean(axis=0)
                order = exact_neighbours(features[rows], means[number : number + 1], len(rows), self.metric)[0][0]
                rows = rows[order]
            nearest.append(rows)
        return means, nearest

    def centre_picture(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the decoder makes of the middle of rows, nearest first: (channels, height, width) float32 in [0, 1].

        By their features alone, without how each of them lies, where the network rebuilds images from features; else
        by the latents of the nearest ten, as those of many are a blur.
        """
        upright = self.spec.rebuilt_from == self.spec.latent_dim
        mean = (self.features()[rows] if upright else self.store.latents(rows[:CENTRAL])).mean(axis=0)
        return self.decode(np.asarray(mean, np.float32)[None])[0]

    @exclusive
    def probe(self, *, doubts: bool = True, seed: int = 0) -> ProbeResult:
        """Train and measure a linear probe on the labels; `classify` uses it from then on.

        With ``doubts`` it also looks for labels that are suspicious, which takes five more probes.
        """
        from aesearch.probe import probe as probe_features

        result = probe_features(
            self.features(),
            self.labels(),
            self.splits(),
            units=self.units,
            metric=self.metric,
            doubts=doubts,
            seed=seed,
        )
        result = dataclasses.replace(result, free=self._free_accuracies(seed))
        result.model.save(self.manifest.target(PROBE), self.store.fingerprint)
        figures = {k: getattr(result, k) for k in ("train_rows", "test_rows", "linear_accuracy", "knn_accuracy")}
        figures["commonest_share"] = max(f["test_rows"] for f in result.per_class.values()) / result.test_rows
        if doubts:
            figures |= {"doubted": len(result.suspicious), "doubts": [list(d) for d in result.suspicious[:MOST_DOUBTS]]}
            figures |= {"doubts_withheld": result.withheld}
        if result.free:
            from aesearch.baselines import judge

            figures |= {"free": result.free, "best": judge(result.free)}
        self._record("probe", PROBE, {"seed": seed}, figures)
        return result

    def _free_accuracies(self, seed: int) -> dict[str, dict[str, float]]:
        """What is read off the features, and off what trains nothing, on a sample; nothing where images are gone."""
        from aesearch import baselines
        from aesearch.network.architectures import FIELDS
        from aesearch.probe import divide

        try:
            need_torch()
        except AesearchError:
            return {}
        known, _, targets, *parts = divide(self.labels(), self.splits(), seed, self.units)
        draw, drawn, images = np.random.default_rng(seed), [], []
        for part, most in zip(parts, (baselines.MOST_TRAIN, baselines.MOST_TEST), strict=True):
            rows = np.sort(draw.permutation(part)[:most])
            try:
                found = read_pictures(self.source, self._places(known[rows].tolist()), self.spec.preprocessing)
            except AesearchError:
                return {}
            there = [picture for picture in found if picture is not None]
            drawn.append(rows[[picture is not None for picture in found]])
            images.append(np.array(there, np.uint8))
        train, test = drawn
        if not len(test) or len(np.unique(targets[train])) < 2:
            return {}
        features = self.features()
        return baselines.compare_with_free(
            (features[known[train]], features[known[test]]),
            (images[0], images[1]),
            (targets[train], targets[test]),
            self.metric,
            self.spec.fields if self.spec.patch_dim else FIELDS,
        )

    # ---------------------------------------------------------------- showing

    def pictures(self, rows: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Images of those rows to look at, each in its own shape, (channels, height, width) uint8.

        Those of more than 224 pixels are reduced; one whose file is gone is a blank.
        """
        return self._thumbnails(self.source, self._places(rows))

    def pictures_of(self, found: Anomalies, source: Source | None = None) -> list[NDArray[np.uint8]]:
        """Anomalies to look at, as `pictures`; ``source`` is what was scored, if not the collection.

        Of pictures in tiles the whole of each, its longer side at most 448 pixels.
        """
        if found.tiles:
            places = self._places(found.rows.tolist()) if source is None else found.rows.tolist()
            return [picture for picture, _ in self._whole_pictures(source or self.source, places)]
        return self.pictures(found.rows.tolist()) if source is None else self._thumbnails(source, found.rows.tolist())

    def oddest_tiles(
        self, found: Anomalies, source: Source | None = None
    ) -> tuple[list[NDArray[np.uint8]], list[tuple[float, float, float, float]]]:
        """Of pictures in tiles the oddest tile of each, as `pictures`, and where it lies; see `in_place`."""
        places = self._places(found.rows.tolist()) if source is None else found.rows.tolist()
        tiled = source or self.source
        return self._thumbnails(tiled, places), [box for _, box in self._whole_pictures(tiled, places)]

    def in_place(self, rows: Sequence[int]) -> list[tuple[NDArray[np.uint8], tuple[float, float, float, float]]]:
        """Of tiles the whole picture of each, as `pictures`, of 448 pixels at most, and where in it the tile lies.

        That is left, top, right and bottom in shares of width and height. `AesearchError` where there are no tiles.
        """
        self.check_rows(rows)
        if self.tiling is None:
            raise AesearchError(f"the images of {self.folder} are no tiles of larger pictures")
        return self._whole_pictures(self.source, self._places(rows))

    def _whole_pictures(
        self, source: Source, positions: Sequence[int]
    ) -> list[tuple[NDArray[np.uint8], tuple[float, float, float, float]]]:
        assert isinstance(source, TileSource)
        like, known = self.spec.preprocessing, [p for p in positions if p >= 0]
        of = {position: int(source.picture_of[position]) for position in known}
        wanted = sorted(set(of.values()))
        found = dict(zip(wanted, source.pictures.thumbnails(wanted, PICTURE_SIDE, like), strict=True))
        gone = blank((like.channels, PICTURE_SIDE // 2, PICTURE_SIDE))
        shown = []
        for position in positions:
            picture = found.get(of.get(position, -1))
            box = (0.0, 0.0, 1.0, 1.0) if picture is None else source.in_picture(position)
            shown.append((gone if picture is None else picture, box))
        return shown

    def look_at(self, images: Sequence[ImageLike]) -> list[NDArray[np.uint8]]:
        """Images from anywhere, as `pictures` gives those of rows."""
        return [look_at(image, DISPLAY_SIDE, self.spec.preprocessing) for image in several(images)]

    def _thumbnails(self, source: Source, positions: Sequence[int]) -> list[NDArray[np.uint8]]:
        known = [position for position in positions if position >= 0]
        like = self.spec.preprocessing
        found = dict(zip(known, source.thumbnails(known, DISPLAY_SIDE, like) if known else [], strict=True))
        height, width = self._native_size
        scale = min(1.0, DISPLAY_SIDE / max(height, width))
        gone = blank((like.channels, max(1, round(height * scale)), max(1, round(width * scale))))
        return [gone if (picture := found.get(position)) is None else picture for position in positions]

    def reconstruct(
        self, images: Sequence[ImageLike] = (), rows: Sequence[int] = ()
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
        """Images from anywhere, then rows, as the encoder sees them and as the decoder rebuilds them.

        Returns
        -------
        list of (channels, height, width) uint8, and (n, channels, height, width) float32 in [0, 1]
        """
        self.check_rows(rows)
        preprocessing = self.spec.preprocessing
        originals = [read_image(image, preprocessing) for image in images]
        ids = self.store.texts("id", rows) if len(rows) else []
        found = read_pictures(self.source, self._places(rows), preprocessing) if len(rows) else []
        for row, id, picture in zip(rows, ids, found, strict=True):
            if picture is None:
                raise SourceError(f"the image of row {row}, {id}, cannot be read any more")
            originals.append(picture)
        return originals, self._rebuild(originals)

    def reconstruct_anomalies(
        self, found: Anomalies, source: Source | None = None
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
        """As `reconstruct`, of anomalies; what can no longer be read is a blank, and rebuilt as one.

        ``source`` is what was scored, if not the collection.
        """
        preprocessing = self.spec.preprocessing
        places = self._places(found.rows.tolist()) if source is None else found.rows.tolist()
        pictures = read_pictures(source or self.source, places, preprocessing)
        gone_one = blank(preprocessing.shape)
        originals = [gone_one if picture is None else picture for picture in pictures]
        rebuilt = self._rebuild(originals)
        gone = [n for n, picture in enumerate(pictures) if picture is None]
        rebuilt[gone] = gone_one / np.float32(255)
        if gone:
            logger.warning("%d images cannot be read any more, the first: %s", len(gone), found.ids[gone[0]])
        return originals, rebuilt

    @cached_property
    def heat_scale(self) -> float:
        """The squared error that heat-maps draw brightest: what 1 in 200 pixels of the collection's images exceeds.

        One scale for all of them, in commands, pictures and pages alike, learned from 100 images spread over the rows;
        where these cannot be read any more, a multiple of the usual error of an image.
        """
        rows = np.unique(np.linspace(0, self.store.rows - 1, min(HEAT_IMAGES, self.store.rows)).astype(int))
        found: list[NDArray[np.uint8]] = []
        with contextlib.suppress(SourceError):
            pictures = read_pictures(self.source, self._places(rows.tolist()), self.spec.preprocessing)
            found = [picture for picture in pictures if picture is not None]
        if not found:
            return max(LEAST_HEAT, USUAL_HEAT * float(np.median(self.store.reconstruction_errors())))
        pairs = zip(found, self._rebuild(found), strict=True)
        errors = np.stack([error_map(original, rebuilt) for original, rebuilt in pairs])
        return max(LEAST_HEAT, float(np.quantile(errors, HEAT_SHARE)))

    def heat_told(self, score: str) -> str:
        """What the brightest colour of a score's heat-maps stands for."""
        if LEARNED.get(score) == "combined":
            return "a place that looks faulty, far beyond those of 19 in 20 normal images"
        return f"a squared error of {self.heat_scale:.2g} or more, which 1 in 200 pixels of the collection has"

    def _rebuild(self, originals: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        if not originals:
            return np.empty((0, *self.spec.preprocessing.shape), np.float32)
        return self.autoencoder.decode(self.autoencoder.encode_latents(np.stack(originals)))

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (n, channels, height, width) float32 in [0, 1] of latents, or of features alone."""
        return self.autoencoder.decode(latents)

    def choose_latents(
        self,
        points: str | NDArray[np.float32] | None = None,
        *,
        sample: int | None = None,
        between: Sequence[ImageLike] | None = None,
        steps: int = 8,
        plane: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Points of the latent space, (n, latent_dim) float32; see `generate`."""
        from aesearch.network import latents as generation

        if sum(choice is not None for choice in (points, sample, between, plane)) != 1:
            raise AesearchError("give one of: points, sample, between, plane")
        if points is not None:
            return generation.read_points(points, self.spec.latent_dim)
        if sample is not None:
            _check_k(sample, "sample")
            return generation.sample(self.latents(), sample, seed)
        if plane is not None:
            _check_k(plane, "plane")
            return generation.plane(self.latents(), plane)
        ends = several(between)
        if len(ends) != 2:
            raise AesearchError(f"between takes two images, not {len(ends)}")
        start, end = self.encode_latents(ends)
        return generation.between(start, end, steps)

    def generate(
        self,
        points: str | NDArray[np.float32] | None = None,
        *,
        sample: int | None = None,
        between: Sequence[ImageLike] | None = None,
        steps: int = 8,
        plane: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Decoded points of the latent space, (n, channels, height, width) float32 in [0, 1]; one of these is given.

        Parameters
        ----------
        points : (n, latent_dim) array, a ``.npy`` or ``.csv`` file, or a text like ``"0.5,1;-1,2"``
        sample : int
            So many random ones, of the data's mean and spread.
        between : two images
            So many ``steps`` on the straight path from one to the other, both ends included.
        plane : int
            The plane of two latent numbers, so many images a side.
        """
        chosen = self.choose_latents(points, sample=sample, between=between, steps=steps, plane=plane, seed=seed)
        return self.decode(chosen)

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


def _check_k(k: int, what: str = "k") -> None:
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise AesearchError(f"{what} is a whole number, not {k!r}")
    if k < 1:
        raise AesearchError(f"{what} must be 1 or more, not {k}")


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
