"""Nearest neighbours, filters and duplicates."""

from __future__ import annotations

import dataclasses
import fnmatch
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.artifacts import FIELDS, NO_CLUSTER, NO_CLUSTER_NAME, Artifacts, Part
from aesearch.collection.encoding import Encoding
from aesearch.collection.groups import Groups
from aesearch.collection.results import Duplicates, Hits
from aesearch.errors import AesearchError, SourceError, StaleArtifactError, check_count, did_you_mean
from aesearch.files.names import composed
from aesearch.images.decode import on_its_side
from aesearch.images.orientation import ORIENTATIONS, UPRIGHT, apart, is_turned, orient
from aesearch.images.single import ImageLike, crop, name_of, read_pictures, read_tiles, several
from aesearch.images.tiles import Box
from aesearch.vectors.distances import nearest_way

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.duplicates import Pixels as SamePixels

logger = logging.getLogger(__name__)


class Search(Part):
    """Nearest neighbours, filters and duplicates."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._encoding = Encoding(files)
        self._groups = Groups(files)

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
        rows = self._files.rows_of([id]) if row is None else [row]  # type: ignore[list-item]
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
        check_count("k", k)
        if self._files.tiling is not None and box is None:
            return [self._query_in_tiles(image, k, where, any_orientation) for image in several(images)]
        if box is not None:
            images = [crop(image, box, self._files.spec.preprocessing) for image in several(images)]
        asked = self._asked(any_orientation)
        images = several(images)
        return self._search(
            self._encoding.encode_oriented(images, asked), [name_of(image) for image in images], k, where, asked
        )

    def _asked(self, any_orientation: bool | None) -> list[str]:
        """In which orientations an image from elsewhere is looked for."""
        every = apart(ORIENTATIONS, self._files.spec.mirror)
        return self._encoding.orientations if any_orientation is None else every if any_orientation else [UPRIGHT]

    def _query_in_tiles(
        self, image: ImageLike, k: int, where: str | Sequence[str], any_orientation: bool | None
    ) -> Hits:
        """Nearest tiles to any tile of a picture; of one no larger than a tile, as it is, in all orientations."""
        assert self._files.tiling is not None
        tiles = read_tiles(image, self._files.tiling, self._files.spec.preprocessing)
        if len(tiles) == 1:
            asked = self._asked(any_orientation)
            return self._search(self._encoding.encode_oriented([image], asked), [name_of(image)], k, where, asked)[0]
        features = self._encoding.encode_pixels(tiles)[None]
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
        check_count("k", k)
        self._files.check_rows(rows)
        wanted = np.array(rows)
        asked = apart(ORIENTATIONS, self._files.spec.mirror) if any_orientation else [UPRIGHT]
        upright = self._files.store.features(wanted)[:, None]
        features = self._encode_rows_oriented(rows, asked) if any_orientation else upright
        found = self._search(features, self._files.store.texts("id", wanted), k + 1, where, asked)
        return [hits.without(row, k) for hits, row in zip(found, rows, strict=True)]

    def _encode_rows_oriented(self, rows: Sequence[int], orientations: Sequence[str]) -> NDArray[np.float32]:
        """Features (n, orientations, dim) float32 of rows, read again as `encode_oriented` wants them."""
        upright, read = self._files.spec.preprocessing, {}
        for way in {on_its_side(upright) if is_turned(o) else upright for o in orientations}:
            pictures = read_pictures(self._files.source, self._files.places(rows), way)
            if gone := [row for row, picture in zip(rows, pictures, strict=True) if picture is None]:
                raise StaleArtifactError(
                    f"the image of row {gone[0]} can no longer be read: leave out --any-orientation"
                )
            read[way] = np.stack([picture for picture in pictures if picture is not None])
        turned = [orient(read[on_its_side(upright) if is_turned(o) else upright], o) for o in orientations]
        pixels = np.stack(turned, axis=1).reshape(-1, *upright.shape)
        return self._encoding.encode_pixels(pixels).reshape(len(rows), len(orientations), -1)

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
        rows, distances = self._files.nearest(features.reshape(-1, dim), k, self.rows_where(where) if where else None)
        rows, distances, way = nearest_way(rows.reshape(n, -1), distances.reshape(n, -1), count)
        there = rows >= 0
        ids, labels = (self._files.store.texts(name, rows[there]) for name in ("id", "label"))
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

    def rows_where(self, conditions: str | Sequence[str]) -> NDArray[np.int64]:
        """Rows of which all conditions hold, or the only one, rising.

        A condition is ``label=VALUE``, ``split=VALUE``, ``id=PATTERN`` or ``cluster=NUMBER-OR-NAME``, or with ``!=``
        the opposite. What is written like that somewhere is meant; where nothing is, ``*`` stands for anything, ``?``
        for one character, ``[abc]`` for one of those.

        Raises
        ------
        AesearchError
            A condition is none, or no row is left.
        """
        found = np.ones(self._files.store.rows, dtype=bool)
        conditions = [conditions] if isinstance(conditions, str) else conditions
        if not isinstance(conditions, Sequence) or not all(isinstance(one, str) for one in conditions):
            raise AesearchError(f"where is like 'label=3', or a list of such texts, not {conditions!r}")
        for condition in conditions:
            field, equal, pattern = condition.partition("=")
            unequal, field = field.endswith("!"), field.removesuffix("!").strip()
            if not equal or field not in FIELDS:
                hint = did_you_mean(field, FIELDS) if equal else ""
                raise AesearchError(
                    f"--where {condition!r} is not like label=3, split=test, cluster=2 or id=cats/*, or with !={hint}"
                )
            found &= self._matching(field, pattern) != unequal
        if not found.any():
            hint = self._near_value(*conditions[0].split("=", 1)) if len(conditions) == 1 else ""
            raise AesearchError(f"no image has {' and '.join(map(repr, conditions))}{hint}")
        return np.flatnonzero(found)

    def _matching(self, field: str, pattern: str) -> NDArray[np.bool_]:
        """Which rows have a text that reads like that, or else fits it as a pattern, (rows,) bool."""
        where = self._in_clusters if field == "cluster" else partial(self._files.store.where, field)
        literal = {composed(pattern), composed(pattern.strip())}
        found = where(lambda text: composed(text) in literal)
        if found.any():
            return found
        return where(lambda text: fnmatch.fnmatchcase(composed(text), composed(pattern.strip())))

    def _near_value(self, field: str, wanted: str) -> str:
        """The end of a line that names the nearest value there is of a field."""
        field, wanted = field.strip(), wanted.strip()
        if field.endswith("!") or field == "id":
            return ""
        values = (
            [*self._groups.cluster_names(), NO_CLUSTER_NAME]
            if field == "cluster"
            else sorted(set(self._files.store.texts(field)))
        )
        return did_you_mean(wanted, [value for value in values if value])

    def _in_clusters(self, matches: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Which rows are in a cluster of such a number or name, (rows,) bool."""
        wanted = [c for c, name in enumerate(self._groups.cluster_names()) if matches(name) or matches(str(c))]
        return np.isin(self._groups.assignments(), [*wanted, *([NO_CLUSTER] if matches(NO_CLUSTER_NAME) else [])])

    def duplicates(self, *, threshold: float | None = None, confirm: bool = True) -> Duplicates:
        """Images that are there more than once, or nearly; see `aesearch.duplicates.find_duplicates`.

        With ``confirm`` what is near by its features is compared pixel by pixel, which reads those images again.
        """
        from aesearch.duplicates import find_duplicates

        found = find_duplicates(
            self._files.store.rows_of_features(),
            self._files.index,
            self._files.store.contents(),
            pixels=self._pixels() if confirm else None,
            threshold=threshold,
            progress=self._files.progress,
        )
        sizes = [len(group) for group in found.groups]
        ids = self._files.store.texts("id", np.concatenate([*found.groups, np.empty(0, np.int64)]))
        parts = [ids[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
        known = (found.exact, found.found, found.pixels, found.rejected)
        return Duplicates(found.threshold, found.groups, parts, *known)

    def _pixels(self) -> SamePixels:
        """What tells by the images themselves whether rows show the same; says so where images are gone."""
        from aesearch.duplicates import Pixels
        from aesearch.images.same_pixels import compared_size, distances_of_pairs, most_different

        height, width = self._files.manifest.artifacts["encoder"]["native_size"]
        size = compared_size((height, width), self._files.spec.preprocessing)

        def distances(pairs: NDArray[np.int64]) -> NDArray[np.float32]:
            far = np.full(len(pairs), np.nan, np.float32)
            reason = "some images cannot be read any more"
            rows, at = np.unique(pairs, return_inverse=True)
            if len(rows):
                try:
                    places = np.array(self._files.places(rows.tolist()), np.int64)
                    far = distances_of_pairs(
                        self._files.source, places, at.reshape(-1, 2), size, progress=self._files.progress
                    )
                except SourceError as error:
                    reason = str(error)
            if unknown := int(np.isnan(far).sum()):
                logger.warning("%s: %s pairs are called near by their features alone", reason, f"{unknown:,}")
            return far

        return Pixels(distances, most_different(size.shape))
