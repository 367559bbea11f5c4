"""Anomalies of a collection: scores, thresholds, and where images are odd."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import error_map
from aesearch.anomalies.names import NEIGHBOURS, PARTS, SCALES, SCORES
from aesearch.anomalies.normality import Normality
from aesearch.anomalies.ranking import rank
from aesearch.anomalies.thresholds import Alarms, learn_threshold
from aesearch.collection.artifacts import LEARNED, Artifacts, Part, SourceLike, exclusive
from aesearch.collection.pictures import Pictures
from aesearch.collection.results import Anomalies
from aesearch.errors import AesearchError, SourceError, StaleArtifactError, check_choice
from aesearch.files.atomic import check_room
from aesearch.images.decode import larger_side
from aesearch.images.grouping import highest_of, oddest_of, units_of
from aesearch.images.single import blank, read_pictures
from aesearch.images.tiles import TileSource, picture_and_box
from aesearch.index.options import most_rows
from aesearch.vectors.distances import in_blocks

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.anomalies.inspection import Measures
    from aesearch.anomalies.scorer import Scorer
    from aesearch.images.decode import Preprocessing
    from aesearch.images.sources.base import Source

logger = logging.getLogger(__name__)
MOST_FREE = 4000  # images that what trains nothing learns from
FREE_SIDE = 96  # pixels of images that are judged by what trains nothing
PER = ("picture", "tile")
TILES_AT_ONCE = 128  # of which there are maps in memory


class AnomalyScores(Part):
    """Anomalies of a collection: scores, thresholds, and where images are odd."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._pictures = Pictures(files)

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
            texts, places = self._files.store.texts, np.arange(self._files.store.rows)
            known = scores = self.scores_of_rows(score) if scores is None else scores
            why, where = self._reasons_of_rows(score)
        else:
            source = self._files.open_images(source)
            scored, places = self.scorer(score).of_source(source, progress=self._files.progress)
            texts, known, scores, why, where = source.texts, None, scored.scores, scored.why, scored.where
        alarms = None if false_alarms is None else self._learn_threshold(score, false_alarms, normal_label, known)
        tiles: list[str] = []
        tiled = (source or self._files.source) if self._files.tiling is not None and per != "tile" else None
        if tiled is not None:
            oddest = oddest_of(units_of([picture_and_box(id)[0] for id in texts("id", places)]), scores)
            places, scores, why = places[oddest], scores[oddest], why[oddest]
            positions = np.array(self._files.places(places.tolist())) if source is None else places
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
            return np.full(self._files.store.rows, -1, np.int16), np.full(
                (self._files.store.rows, 2), np.nan, np.float32
            )
        kept = self._files.read_rows("combined", f"{score}_why", "where")
        return kept[f"{score}_why"], kept["where"]

    def _learn_threshold(
        self, score: str, rate: float, normal_label: str | None, known: NDArray[np.float32] | None
    ) -> Alarms:
        """From `_usual_rows`; all of them are normal unless a label says which are."""
        normal = self._usual_rows()
        if normal_label is not None:
            normal &= self._files.store.where("label", lambda label: label == normal_label)
        scores = self._scores_of_rows(score, np.flatnonzero(normal)) if known is None else known[normal]
        units = self._files.units[normal]
        if self._files.tiling is not None:
            pictures = units_of(
                [picture_and_box(id)[0] for id in self._files.store.texts("id", np.flatnonzero(normal))]
            )
            oddest = oddest_of(pictures, scores)
            scores, units = scores[oddest], units[oddest]
        return learn_threshold(scores, rate, units=units)

    def _usual_rows(self) -> NDArray[np.bool_]:
        """Rows not trained on that tell what is usual; those of a split test, which may hold odd ones, do not."""
        held_out = self._files.store.held_out()
        usual = held_out & ~self._files.store.where("split", lambda split: split == "test")
        return usual if usual.any() else held_out

    def scores_of_rows(self, score: str) -> NDArray[np.float32]:
        """How odd each row is, (rows,) float32; see `anomalies`."""
        return self._scores_of_rows(score, np.arange(self._files.store.rows))

    def _scores_of_rows(self, score: str, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        if score == "reconstruction":
            return self._files.store.reconstruction_errors()[rows]
        if score == "neighbours":
            far = self.scorer(score).far
            blocks = in_blocks(rows, "score" if self._files.progress else "", most_rows(self._files.store.dim))
            parts = [far(self._files.store.features(part), self._files.units[part]) for _, part in blocks]
            return np.concatenate([*parts, np.empty(0, np.float32)])
        return np.asarray(self._learned(score)[f"{score}_score"][rows], dtype=np.float32)

    def scorer(self, score: str) -> Scorer:
        """What scores images; learned when it is first asked for."""
        from aesearch.anomalies.combining import Usual
        from aesearch.anomalies.finder import LARGEST

        blank = self._blank_scorer(score)
        if score not in LEARNED:
            return blank
        learned = self._learned(score)
        if score == "nap":
            count = self._files.manifest.artifacts[score]["figures"]["learned_from"]
            normality = Normality(learned["mean"], learned["directions"], count)
            return dataclasses.replace(blank, normality=normality)
        detailed = larger_side(self._files.spec.preprocessing, self._files.native_size, LARGEST)
        return dataclasses.replace(blank, usual=Usual.from_arrays(learned, detailed, self._files.autoencoder.device))

    def _blank_scorer(self, score: str) -> Scorer:
        from aesearch.anomalies.scorer import Scorer

        units = self._files.units if "features" in self._files.manifest.artifacts else np.empty(0, np.int64)
        return Scorer(score, self._files.autoencoder, self._files.nearest, NEIGHBOURS, units)

    def _learned(self, score: str) -> dict[str, NDArray[np.float32]]:
        """What a score has learned from the images, and that of each row; learned when first asked for."""
        if not self.is_learned(score):
            self._learn_score(score)
        return self._files.read_rows(LEARNED[score])

    def is_learned(self, score: str) -> bool:
        """Whether one of the scores that are learned from the images is, of the features and the index as they are."""
        name = LEARNED[score]
        return self._files.is_fresh(name) and self._files.manifest.artifacts[name]["parameters"] == self._compared(name)

    def _compared(self, name: str) -> dict[str, Any]:
        if name != "combined":
            return {}
        kept = [*PARTS, *SCALES]  # what an earlier version kept is learned again
        return {"metric": self._files.metric, "kept": kept}

    @exclusive
    def _learn_score(self, score: str) -> None:
        from aesearch.anomalies.scorer import learn_normality, learn_usual

        try:
            positions = np.array(self._files.positions(self._files.ids))
        except SourceError as error:
            raise SourceError(f"--score {score} needs the images; {error}; or take --score neighbours") from error
        if (positions < 0).any():
            raise StaleArtifactError(
                f"--score {score} needs the images, and some are gone: "
                f"run {self._files.command('extract')}, or take --score reconstruction or neighbours"
            )
        name, trained = LEARNED[score], ~self._files.store.held_out()
        check_room(self._files.manifest.target(f"{name}.h5"), 4 * self._files.store.rows)
        images = self._files.source, positions, trained
        kept: dict[str, NDArray[Any]]
        if name == "nap":
            normality, scored = learn_normality(self._blank_scorer(name), *images, progress=self._files.progress)
            kept = {"mean": normality.mean, "directions": normality.directions, "nap_score": scored.scores}
            figures: dict[str, Any] = {"learned_from": normality.learned_from}
        else:
            usual, by_score = learn_usual(
                self._blank_scorer(name),
                *images,
                self._usual_rows(),
                self._files.native_size,
                progress=self._files.progress,
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
                logger.info("the images form distinct kinds: images of a new kind are ranked first")
        self._files.write_rows(name, kept, self._compared(name), figures)

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

        labels, test = np.array(self._files.labels()), self._files.store.where("split", lambda split: split == "test")
        rows, normal = np.flatnonzero(test & (labels != "")), labels == normal_label
        new, known = np.flatnonzero(self._usual_rows() & normal), np.flatnonzero(~self._files.store.held_out() & normal)
        if not 0 < normal[rows].sum() < len(rows) or not len(known) or not len(new):
            return []
        known = np.sort(np.random.default_rng(0).permutation(known)[:MOST_FREE])
        ids = [picture_and_box(id)[0] if self._files.tiling else id for id in self._files.store.texts("id", rows)]
        pictures, of_new = units_of(ids), self._files.units[new] if self._files.tiling else np.arange(len(new))
        firsts = np.sort(np.unique(pictures, return_index=True)[1])
        rate = max(false_alarms, 1 / (len(np.unique(of_new)) + 1))

        def judge(fresh: NDArray[np.float32], shown: NDArray[np.float32], maps: Any) -> Judged:
            """By scores of new images and of those to judge; a picture in tiles is as odd as its oddest tile."""
            threshold = float(np.quantile(highest_of(of_new, fresh), 1 - rate))
            return Judged(highest_of(pictures, shown), threshold, maps)

        scores = self.scores_of_rows(score)
        small = larger_side(self._files.spec.preprocessing, self._files.native_size, FREE_SIDE)
        images = [self._read_again(part, small) for part in (known, np.concatenate([new, rows]))]
        judged = {score: judge(scores[new], scores[rows], self._heat_of(rows[firsts], score))}
        for name, (free, maps) in free_scores(*images).items():
            of_rows = None if maps is None or self._files.tiling else list(maps[len(new) :])
            judged[name] = judge(free[: len(new)], free[len(new) :], of_rows)
        files = [self._files.source.masks.get(ids[first]) for first in firsts]
        masks = [None if file is None else read_mask(file) for file in files]
        return measure(judged, labels[rows[firsts]].tolist(), normal_label, masks)

    def _read_again(self, rows: NDArray[np.int64], preprocessing: Preprocessing) -> NDArray[np.uint8]:
        pictures = read_pictures(self._files.source, self._files.places(rows.tolist()), preprocessing)
        if any(picture is None for picture in pictures):
            raise StaleArtifactError(f"some images can no longer be read: run {self._files.command('extract')}")
        return np.stack([picture for picture in pictures if picture is not None])

    def _heat_of(self, rows: NDArray[np.int64], score: str) -> list[NDArray[np.float32]]:
        """Of images, or of the pictures that tiles are of, no larger than masks are."""
        if self._files.tiling is not None:
            from aesearch.anomalies.inspection import no_larger

            return [
                no_larger(one)
                for one in self._picture_maps(self._files.source, self._files.places(rows.tolist()), score)
            ]
        if LEARNED.get(score) == "combined":
            return self._faults_of(self._files.source, self._files.places(rows.tolist()))
        originals, rebuilt = self._pictures.reconstruct(rows=rows.tolist())
        return [error_map(*pair) for pair in zip(originals, rebuilt, strict=True)]

    def heat_maps(self, found: Anomalies, source: Source | None = None) -> list[NDArray[np.float32]]:
        """Where anomalies are odd, each (height, width) float32: 1 is drawn brightest, 0 and less dark.

        By ``combined`` and ``patches`` it is where they look faulty, by the others where they are rebuilt badly;
        ``source`` is what was scored, if not the collection.
        """
        if found.tiles:
            return [*self.picture_maps(found, source)]
        if LEARNED.get(found.by) == "combined":
            places = self._files.places(found.rows.tolist()) if source is None else found.rows.tolist()
            return self._faults_of(source or self._files.source, places)
        return [errors / np.float32(self._pictures.heat_scale) for errors in self.error_maps(found, source)]

    def picture_maps(self, found: Anomalies, source: Source | None = None) -> Iterator[NDArray[np.float32]]:
        """As `heat_maps` of pictures in tiles, one after the other: each is as large as its picture."""
        places = self._files.places(found.rows.tolist()) if source is None else found.rows.tolist()
        return self._picture_maps(source or self._files.source, places, found.by)

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
        gone = blank(self._files.spec.preprocessing.shape)
        read = [
            gone if one is None else one for one in read_pictures(source, positions, self._files.spec.preprocessing)
        ]
        errors = [error_map(*pair) for pair in zip(read, self._pictures.rebuild(read), strict=True)]
        return [one / np.float32(self._pictures.heat_scale) for one in errors]

    def heat_of_row(self, row: int) -> NDArray[np.float32]:
        """That of one image, by ``combined`` where that is learned, else by its reconstruction."""
        self._files.check_rows([row])
        if self.is_learned("combined"):
            usual, detailed = self._kept_scorer.usual, self._kept_scorer.detailed
            assert usual is not None and detailed is not None
            (picture,) = read_pictures(self._files.source, self._files.places([row]), detailed)
            if picture is None:
                raise SourceError(f"the image of row {row} cannot be read any more")
            return np.asarray(usual.heat_maps(picture[None])[0])
        (original,), (rebuilt,) = self._pictures.reconstruct(rows=[row])
        return error_map(original, rebuilt) / np.float32(self._pictures.heat_scale)

    def _faults_of(self, source: Source, places: Sequence[int]) -> list[NDArray[np.float32]]:
        usual, detailed = self._kept_scorer.usual, self._kept_scorer.detailed
        assert usual is not None and detailed is not None
        pictures = read_pictures(source, places, detailed)
        there = [picture for picture in pictures if picture is not None]
        maps = iter(usual.heat_maps(np.stack(there)) if there else ())
        nothing = np.zeros(detailed.shape[1:], np.float32)
        return [nothing if picture is None else next(maps) for picture in pictures]

    @property
    def _kept_scorer(self) -> Scorer:
        return self._files.keep("scorer", lambda: self.scorer("combined"))

    def error_maps(self, found: Anomalies, source: Source | None = None) -> list[NDArray[np.float32]]:
        """Where the reconstruction errors of anomalies lie; see `aesearch.anomalies.error_maps.error_map`.

        ``source`` is what was scored, if not the collection.
        """
        pairs = zip(*self._pictures.reconstruct_anomalies(found, source), strict=True)
        return [error_map(original, rebuilt) for original, rebuilt in pairs]
