"""Making a collection and bringing it up to date, beside the one that there is until it is finished."""

from __future__ import annotations

import contextlib
import copy
import logging
import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.artifacts import INDEX, Artifacts, Part, SourceLike, exclusive
from aesearch.collection.groups import Groups
from aesearch.collection.manifest import CHECKPOINT, ENCODER, NEXT, Manifest, installed_versions, plain
from aesearch.collection.manifest import NAME as MANIFEST
from aesearch.collection.maps import Maps
from aesearch.errors import AesearchError, StaleArtifactError, need_torch
from aesearch.files.atomic import check_own, check_room, drop
from aesearch.index.build import build_index
from aesearch.index.options import IndexOptions, least_bytes
from aesearch.index.search import SearchIndex
from aesearch.index.update import update_index
from aesearch.progress import plan
from aesearch.store.reader import Store

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.collection.extract import Extraction
    from aesearch.collection.update import Update
    from aesearch.images.sources.base import Source
    from aesearch.network.options import TrainingOptions

logger = logging.getLogger(__name__)
VANISHED = "vanished.h5"
KEPT = ("vanished", VANISHED)  # encodings of images that are gone
GROWING = ".growing.json"
ANEW = ".anew.json"
MOST = 0.5  # of the images looked at, for a folder to be the one that was elsewhere
ENCODING, INDEXING = 0.6, 0.02  # of the work of training on an image once, about: to encode it, to index it
FITTING, MOST_FITTED = 3.0, 2000  # likewise, to learn from it in closed form; images


class Staging(Part):
    """Making a collection and bringing it up to date, beside the one that there is until it is finished."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._groups = Groups(files)
        self._maps = Maps(files)

    def keep_given(self, source: Source, overwrite: bool) -> None:
        """Have images that no name stands for at hand again: an array in memory, a list of files in the folder."""
        from aesearch.images.sources.opening import ARRAY, FILES, keep_list

        if source.name == ARRAY:
            self._files.given = source
        held = (self._files.manifest.source or {}).get("name")
        if source.name == FILES and (held in (None, FILES) or overwrite):
            self._files.folder.mkdir(parents=True, exist_ok=True)
            keep_list(source, self._files.folder)

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

        source = source or self._files.source
        if overwrite and self._files.manifest.artifacts and not self._is_encoder_of(source, training):
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
        train = {} if "encoder" in self._files.manifest.artifacts else training
        return train | {"extract": ENCODING * n, "index": INDEXING * n}

    def _do_missing(self, source: Source, options: TrainingOptions, index: IndexOptions | None) -> None:
        if "encoder" not in self._files.manifest.artifacts:
            self.train(source, options, encoded_next=len(source))
        self._files.adopt_store()
        if self._files.features_stale(source):
            if self._can_update(source.name):
                self.update(source)
            else:
                self.extract(source)
        if index is not None or self._files.index_stale():
            recorded = self._files.manifest.artifacts.get("index", {}).get("parameters")
            wanted = index or (IndexOptions(**recorded) if recorded else IndexOptions())
            if self._files.index_stale() or recorded != wanted.to_json():
                self.build_index(wanted)

    def _make_anew(self, source: Source, training: dict[str, Any], index: IndexOptions | None) -> None:
        """As `complete`, beside the collection that there is; an interrupted one goes on, if it was of the same."""
        staged = self._beside(ANEW)
        with contextlib.suppress(AesearchError):
            staged._files.manifest = Manifest.load(staged._files.folder, ANEW)
        if staged._files.manifest.name != ANEW or (
            staged._files.manifest.artifacts and not staged._is_encoder_of(source, training)
        ):
            drop(staged._files.folder)
            staged = self._beside(ANEW)
            staged._files.manifest = Manifest(staged._files.folder, name=ANEW)
            staged._files.manifest.save()
        staged.complete(source, training, index)
        self._finish(staged)

    def _is_encoder_of(self, source: Source, training: dict[str, Any]) -> bool:
        """Whether the encoder is what training on these images with these settings, here and now, would give."""
        from aesearch.network.options import TrainingOptions

        encoder = self._files.manifest.artifacts.get("encoder")
        return (
            encoder is not None
            and self._files.manifest.holds("encoder", ENCODER)
            and encoder["made_from"].get("source") == source.fingerprint
            and encoder["parameters"].get("options") == plain(TrainingOptions(**training).to_json())
            and encoder["versions"] == installed_versions()
        )

    def _refuse_other(self, source: Source, training: dict[str, Any]) -> None:
        """Never train over, or mix, what was made from other images or with other settings."""
        from aesearch.images.sources.opening import is_gone
        from aesearch.network.options import TrainingOptions

        encoder = self._files.manifest.artifacts.get("encoder")
        if encoder is None:
            return
        held = self._files.manifest.artifacts.get("features", encoder)["source"]["name"]
        if held != source.name:
            follow = (
                f"; if that has moved here, {self._files.command(f'update {shlex.quote(source.name)}')}"
                if is_gone(held)
                else ""
            )
            raise AesearchError(
                f"collection {self._files.folder} holds {held}, not {source.name}: "
                f"give the new one another name with -c NAME, or --overwrite{follow}"
            )
        for name, otherwise in (("group", "near-duplicates"), ("tiles", "none")):
            asked, was = (opening.get(name) or otherwise for opening in (source.opening, encoder["source"]))
            if asked != was:
                made = f"collection {self._files.folder} was trained with --{name} {was}, not {asked}"
                raise AesearchError(f"{made}: another -c NAME, or --overwrite")
        recorded = encoder["parameters"]["options"]
        wanted = TrainingOptions(**training).to_json()
        differing = [k for k in training if plain(wanted[k]) != recorded[k]]
        if differing:
            was = ", ".join(f"{k} {recorded[k]}" for k in differing)
            raise AesearchError(
                f"collection {self._files.folder} was trained with {was}: another -c NAME, or --overwrite"
            )

    def _interrupted(self, source: Source, options: TrainingOptions) -> bool:
        """Whether that very training was begun here, and not ended."""
        pending = self._files.manifest.training
        return (
            pending is not None
            and (self._files.folder / CHECKPOINT).is_file()
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
        run = partial(train_encoder, self._files.manifest, source, options, encoded_next=encoded_next)
        run = partial(run, device=self._files.device, progress=self._files.progress)
        try:
            run(resume=resume or self._interrupted(source, options))
        except StaleArtifactError as error:
            if resume:
                raise
            logger.warning("%s; training starts again", error)
            run()
        self._files.forget()

    @exclusive
    def extract(self, source: Source | None = None, *, batch_size: int | None = None) -> Extraction:
        """Fill the store with the features of every image of a source; an interrupted run is continued.

        ``batch_size`` is how many images are encoded at once, by default what suits the device; it shows in
        the last bits of the features at most.
        """
        from aesearch.collection.build import fill_store

        if batch_size:
            self._files.autoencoder.batch_size = batch_size
        extraction = fill_store(
            self._files.manifest,
            source or self._files.source,
            self._files.autoencoder,
            encoder_fingerprint=self._files.encoder_fingerprint(),
            progress=self._files.progress,
        )
        self._files.forget()
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

        self._files.forget()
        self._files.adopt_store()
        given, source = source, self._files.source if source is None else self._files.open_images(source)
        moved = self._moved_to(source)
        if moved is None:
            self._refuse_other(source, {})
        source = moved or source
        if not (moved or self._can_update(source.name)):
            raise StaleArtifactError(
                f"there are no features of these images by this encoder: run {self._files.command('extract')}"
            )
        had_index = not self._files.index_stale()
        kept = ("thumbnails", "clusters", *(name for name in self._files.manifest.artifacts if name.startswith("map-")))
        laid_out = [name for name in kept if had_index and self._files.is_fresh(name)]
        if not moved and self._unchanged_since(source):
            return Update.nothing(self._files.store.rows, len(self._files.store.skipped()))
        self._refuse_gone(source, yes)
        if given is None:
            say(source)
        vanished = self._vanished()
        staged = self._stage()
        for made in (staged._files.manifest.artifacts["encoder"], staged._files.manifest.training):
            if moved and made and made["source"]["name"] == self._files.store.source:
                made["source"] = source.opening
        done = update_store(
            staged._files.manifest,
            source,
            self._files.autoencoder,
            self._files.store,
            encoder_fingerprint=self._files.encoder_fingerprint(),
            vanished=vanished,
            progress=self._files.progress,
        )
        staged._keep_vanished(self._files.store, vanished)
        if had_index:
            staged._update_index(self._files, done)
        elif "index" in self._files.manifest.artifacts:
            staged.build_index(IndexOptions(**self._files.manifest.artifacts["index"]["parameters"]))
        for name in laid_out:
            staged._update_derived(name, self._files, done.came_from)
        self._finish(staged)
        return done

    def _refuse_gone(self, source: Source, yes: bool) -> None:
        """Never drop what may only be away without being told to."""
        from aesearch.collection.update import what_is_gone

        if not yes and (gone := what_is_gone(source, self._files.store)):
            command = f"aesearch update {'' if source.name == self._files.store.source else f'{source.name} '}--yes"
            raise AesearchError(
                f"{gone}: if a disk or a folder is missing, bring it back; to remove these images, run {command} "
                f"-c {self._files.folder}"
            )

    def _vanished(self) -> Store | None:
        """What images that are gone were encoded to, if that is known."""
        from aesearch.collection.update import open_vanished

        return (
            open_vanished(self._files.folder / VANISHED, self._files.store)
            if self._files.manifest.holds(*KEPT)
            else None
        )

    def _keep_vanished(self, before: Store, vanished: Store | None) -> None:
        """Keep what images that are gone from a store were encoded to, for a time."""
        from aesearch.collection.update import KEPT_DAYS, keep_vanished

        path = self._files.folder / VANISHED
        path.unlink(missing_ok=True)  # of an update that was interrupted
        rows = keep_vanished(path, before, self._files.store, vanished)
        if path.is_file():
            made_from = {"encoder": before.encoder_fingerprint}
            self._files.manifest.record(
                *KEPT, made_from=made_from, parameters={"days": KEPT_DAYS}, figures={"rows": rows}
            )
        elif not rows:
            self._files.manifest.artifacts.pop(KEPT[0], None)

    def _stage(self) -> Staging:
        """A collection beside this one, with its encoder and what is known of the rest."""
        staged = self._beside(GROWING)
        artifacts = copy.deepcopy(self._files.manifest.artifacts)
        pending = copy.deepcopy(self._files.manifest.training)
        files = staged._files
        files.manifest = Manifest(files.folder, self._files.manifest.source, artifacts, pending, name=GROWING)
        files.__dict__["autoencoder"] = self._files.autoencoder
        return staged

    def _beside(self, kind: str) -> Staging:
        """A collection that grows beside this one until it takes its place: readers see the old one meanwhile.

        What lies there of another kind is in the way.
        """
        folder = self._files.folder / NEXT
        if (folder / ANEW).is_file() != (kind == ANEW):
            drop(folder)
        files = Artifacts(folder, device=self._files.device, progress=self._files.progress)
        files.folder.mkdir(exist_ok=True)
        check_own(files.folder)
        files.name, files.given = self._files.name, self._files.given
        return Staging(files)

    def _finish(self, staged: Staging) -> None:
        """Let what has grown beside this collection take its place."""
        staged._files.manifest.name = MANIFEST
        staged._files.manifest.save()
        self._files.take_over()
        if KEPT[0] not in self._files.manifest.artifacts:
            (self._files.folder / VANISHED).unlink(missing_ok=True)

    def _can_update(self, name: str) -> bool:
        """Whether there is a store of the source of that name by this encoder."""
        try:
            return self._files.store.source == name
        except AesearchError:  # none, damaged, or another encoder's
            return False

    def _moved_to(self, source: Source) -> Source | None:
        """That source, opened as the collection's own, if its images are there now and no longer where they were."""
        from aesearch.collection.update import share_known
        from aesearch.images.sources.opening import is_gone, open_source

        known = self._files.manifest.source
        if known is None or known["name"] == source.name or not is_gone(known["name"]):
            return None
        if not self._can_update(known["name"]):
            again = self._files.command(f"extract {shlex.quote(source.name)} --labels {known['labels']}")
            raise StaleArtifactError(
                f"{known['name']} is no longer there, and no features by this encoder are left to know its images by: "
                f"run {again}"
            )
        if (share := share_known(source, self._files.store, self._files.spec.preprocessing)) < MOST:
            raise AesearchError(
                f"{known['name']} is no longer there, but of the images sampled in {source.name} {share:.0%} are "
                "from there: give the folder that has moved, or use another -c NAME"
            )
        opening = known | {"name": source.name}
        return source if source.opening == opening else open_source(**opening)

    def _unchanged_since(self, source: Source) -> bool:
        recorded = self._files.manifest.artifacts.get("features", {}).get("made_from", {})
        return recorded.get("source") == source.fingerprint and not self._files.index_stale()

    def _update_index(self, before: Artifacts, done: Update) -> None:
        recorded = before.manifest.artifacts["index"]
        options, figures, rows = IndexOptions(**recorded["parameters"]), recorded["figures"], before.store.rows
        since = {"added": figures.get("added", 0), "removed": figures.get("removed", 0)}
        features, changed = self._files.store.rows_of_features(), sum(since.values())
        index = update_index(
            before.folder / INDEX, options.metric, done.came_from, features, before=rows, changed=changed
        )
        if index is None:
            self.build_index(options)
            return
        since["added"] += int((done.came_from < 0).sum())
        since["removed"] += rows - int((done.came_from >= 0).sum())
        index.save(self._files.folder / INDEX)
        self._files.record("index", INDEX, recorded["parameters"], figures | since)

    def _update_derived(self, name: str, replaced: Artifacts, came_from: NDArray[np.int64]) -> None:
        """Keep the places of a map, or the clusters, of rows that were there; give new ones theirs by their nearest."""
        from aesearch.clusters import VOTERS, assign
        from aesearch.projection import PLACED_BY, Projection, between

        if name == "thumbnails":
            return self._maps.update_thumbnails(replaced, came_from)
        recorded = replaced.manifest.artifacts[name]
        kept, added = np.flatnonzero(came_from >= 0), np.flatnonzero(came_from < 0)
        if not len(kept):
            return
        column = "cluster" if name == "clusters" else "coordinates"
        before = replaced.read_rows(name)[column]
        now = np.zeros((len(came_from), *before.shape[1:]), before.dtype)
        now[kept] = before[came_from[kept]]
        figures = recorded["figures"] | {"placed": recorded["figures"].get("placed", 0) + len(added)}
        if len(added):
            voters = min(VOTERS if name == "clusters" else PLACED_BY, len(kept))
            rows, distances = self._files.index.search(self._files.store.features(added), voters, among=kept)
            now[added] = assign(rows, now)[0] if name == "clusters" else between(now[rows], distances)
        if name == "clusters":
            sizes = np.bincount(now[now >= 0], minlength=len(recorded["figures"]["sizes"]))
            figures |= {"sizes": [int(size) for size in sizes]}  # of one that has lost all its images 0
        if name != "clusters":
            by = recorded["parameters"]["colour_by"] or "none"
            groups, by = self._maps.colouring(by if by != "cluster" or self._files.is_fresh("clusters") else "none")
            made = recorded["parameters"]
            self._maps.draw_map(name, Projection(now, made["method"], tuple(made.get("axes", ()))), groups, by)
        if name == "clusters":
            return self._groups.write_clusters(now, recorded["parameters"], figures)
        self._files.write_rows(name, {column: now}, recorded["parameters"], figures)

    @exclusive
    def build_index(self, options: IndexOptions | None = None) -> SearchIndex:
        """Index the features and measure the index's recall@10 against exact search."""
        options = options or IndexOptions()
        check_room(self._files.folder / INDEX, least_bytes(options, self._files.store.rows, self._files.store.dim))
        built = build_index(self._files.store.rows_of_features(), options, progress=self._files.progress)
        built.save(self._files.folder / INDEX)
        built.figures["bytes_per_vector"] = round(
            (self._files.folder / INDEX).stat().st_size / self._files.store.rows, 1
        )
        self._files.manifest.record(
            "index",
            INDEX,
            made_from={"features": self._files.store.fingerprint},
            parameters=options.to_json(),
            figures=built.figures,
        )
        self._files.__dict__["index"] = built
        return built
