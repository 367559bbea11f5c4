"""Maps of a collection: coordinates kept, a picture, and a page with every image on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.artifacts import Artifacts, Part, exclusive
from aesearch.collection.groups import Groups
from aesearch.errors import AesearchError, CollectionNotFoundError, check_choice
from aesearch.files.atomic import check_room, replacing
from aesearch.index.build import build_index
from aesearch.index.options import IndexOptions
from aesearch.progress import step
from aesearch.vectors.distances import in_blocks

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.drawing.map_page import MapPage
    from aesearch.drawing.thumbnails import Atlas
    from aesearch.projection import Projection

MOST_SHOWN = 100_000  # points on a map
PAGE_BYTES, POINT_BYTES = 5_000_000, 50  # of a map's page, and of each point on it, about
PART_ROWS = 2**14  # whose neighbours are looked for at once
NEIGHBOURS_ON_MAP = 8
THUMBNAILS_AT_ONCE = 1024


class Maps(Part):
    """Maps of a collection: coordinates kept, a picture, and a page with every image on it."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._groups = Groups(files)

    @exclusive
    def map(self, *, method: str = "umap", dims: int = 2, seed: int = 0, colour_by: str = "auto") -> Projection:
        """Lay the images out and keep coordinates, a picture and an interactive page.

        Parameters
        ----------
        method, dims
            See `aesearch.projection.project`.
        colour_by : {"auto", "label", "cluster", "split", "none"}
            ``auto``: labels where there are any, else clusters where there are any.
        """
        from aesearch.projection import project

        groups, by = self.colouring(colour_by)
        name = self.map_name(method, dims)
        check_room(
            self._files.manifest.target(f"{name}.html"),
            PAGE_BYTES + POINT_BYTES * min(self._files.store.rows, MOST_SHOWN),
        )
        projection = project(
            self._files.store.rows_of_features(),
            method=method,
            dims=dims,
            metric=self._files.metric,
            seed=seed,
            progress=self._files.progress,
        )
        self.draw_map(name, projection, groups, by)
        options = {"method": method, "dims": dims, "seed": seed, "colour_by": by, "axes": list(projection.axes)}
        self._files.write_rows(name, {"coordinates": projection.coordinates}, options, {})
        return projection

    @staticmethod
    def map_name(method: str, dims: int) -> str:
        """Files of a map without their endings: ``map-umap``, ``map-umap-3d``."""
        return f"map-{method}" + ("-3d" if dims == 3 else "")

    def draw_map(self, name: str, projection: Projection, groups: list[str], by: str) -> None:
        """Draw a picture of a map and write its page."""
        from aesearch.drawing.figures import save_picture
        from aesearch.drawing.plots import MapDisplay

        atlas = self._atlas()
        shown = np.arange(self._files.store.rows)
        shows = self.told_axes(projection.axes) or projection.method
        title = f"{self._files.name}: {len(shown):,} images, {shows}" + (f", coloured by {by}" if by else "")
        if len(shown) > MOST_SHOWN:
            shown = self._sample()
            title += f", {len(shown):,} of them shown"
        groups, coordinates = [groups[row] for row in shown], projection.coordinates
        laid_out = self._map_page(title, coordinates, shown, by, atlas)
        captions = [f"{i}  ({g})" if g else i for i, g in zip(laid_out.names, groups, strict=True)]
        display = MapDisplay(coordinates[shown], groups, captions, title)
        save_picture(display.draw(), self._files.manifest.target(f"{name}.png"))
        if coordinates.shape[1] == 3:
            page = display.page()
        else:
            page = dataclasses.replace(laid_out, neighbours=self._neighbours_on_map(shown)).html()
        with replacing(self._files.manifest.target(f"{name}.html"), len(page)) as temporary:
            temporary.write_text(page, encoding="utf-8")

    def told_axes(self, axes: Sequence[int]) -> str:
        """Which features a map shows as they are, by their names in an export; empty where it shows all of them."""
        if not axes:
            return ""
        *some, last = (f"f{axis}" for axis in axes)
        return f"{', '.join(some)} and {last} of {self._files.store.dim} features, those with the largest variance"

    def _map_page(
        self,
        title: str,
        coordinates: NDArray[np.float32],
        shown: NDArray[np.int64],
        by: str,
        atlas: Atlas | None,
    ) -> MapPage:
        from aesearch.drawing.map_page import MapPage

        columns = {name: self._files.store.texts(name, shown) for name in ("label", "split")}
        if self._files.is_fresh("clusters"):
            columns["cluster"] = self._groups.cluster_of_rows(shown)
        scores, score_name = self._files.store.reconstruction_errors(), "reconstruction error"
        if self._files.is_fresh("combined"):
            scores, score_name = self._files.read_rows("combined", "combined_score")["combined_score"], "combined score"
        return MapPage(
            title,
            shown,
            coordinates[shown],
            self._files.store.texts("id", shown),
            {name: values for name, values in columns.items() if any(values)},
            by,
            scores[shown],
            score_name,
            None if atlas is None else dataclasses.replace(atlas, places=atlas.places[shown]),
        )

    def map_page(self, method: str) -> MapPage:
        """What the page of a map in the plane shows, but for neighbours; `AesearchError` until ``map`` has run."""
        from aesearch.projection import METHODS

        check_choice("--method", method, METHODS)
        name = self.map_name(method, 2)
        if not self._files.is_fresh(name):
            raise CollectionNotFoundError(
                f"there is no map of these features by {method}: run {self._files.command(f'map --method {method}')}"
            )
        atlas = self._atlas_kept()
        shown = self._sample() if self._files.store.rows > MOST_SHOWN else np.arange(self._files.store.rows)
        made = self._files.manifest.artifacts[name]["parameters"]
        page = self._map_page(
            self._files.name, self._files.read_rows(name)["coordinates"], shown, made["colour_by"], atlas
        )
        return dataclasses.replace(page, told=self.told_axes(made.get("axes", ())))

    def _sample(self) -> NDArray[np.int64]:
        """Rows that a map of too many shows, rising: those that have thumbnails already, else drawn."""
        if self._files.is_fresh("thumbnails") and len(
            rows := np.flatnonzero(self._files.read_rows("thumbnails")["place"] >= 0)
        ):
            return rows[:MOST_SHOWN]
        return np.sort(np.random.default_rng(0).choice(self._files.store.rows, MOST_SHOWN, replace=False))

    def _neighbours_on_map(self, shown: NDArray[np.int64]) -> NDArray[np.int32]:
        """Nearest of each among the shown, as places among them: (n, `NEIGHBOURS_ON_MAP`) int32."""
        k = min(NEIGHBOURS_ON_MAP + 1, len(shown))
        among = shown if len(shown) < self._files.store.rows else None
        index = (
            self._files.index
            if not self._files.index_stale()
            else build_index(self._files.store.rows_of_features(), IndexOptions())
        )
        near = np.full((len(shown), NEIGHBOURS_ON_MAP), -1, np.int32)
        for start, part in in_blocks(shown, size=PART_ROWS):
            rows, _ = index.search(self._files.store.features(part), k, among)
            others = (rows != part[:, None]) & (rows >= 0)
            others &= np.cumsum(others, axis=1) <= k - 1
            found = np.where(others, np.searchsorted(shown, rows), -1)
            order = np.argsort(~others, axis=1, kind="stable")[:, : k - 1]
            near[start : start + len(part), : k - 1] = np.take_along_axis(found, order, axis=1)
        return near

    def _atlas(self) -> Atlas | None:
        """Thumbnails of what maps show, made when they are first asked for; none where the images are gone."""
        from aesearch.drawing.thumbnails import empty_atlas

        if kept := self._atlas_kept():
            return kept
        rows = self._sample() if self._files.store.rows > MOST_SHOWN else np.arange(self._files.store.rows)
        begun = dataclasses.replace(empty_atlas(len(rows)), places=np.full(self._files.store.rows, -1))
        return self._extend_atlas(begun, begun.places, rows)

    def _atlas_kept(self) -> Atlas | None:
        from aesearch.drawing.thumbnails import Atlas

        return Atlas.from_arrays(self._files.read_rows("thumbnails")) if self._files.is_fresh("thumbnails") else None

    def thumbnail_sheets(self) -> list[bytes]:
        """The sheets of thumbnails that maps show, as WebP; none until there is a map."""
        atlas = self._atlas_kept()
        return atlas.sheets if atlas else []

    def _extend_atlas(self, atlas: Atlas, places: NDArray[np.int64], rows: NDArray[np.int64]) -> Atlas | None:
        """Give rows thumbnails, and keep them in ``thumbnails.h5``."""
        try:
            positions = np.array(self._files.positions(self._files.store.texts("id", rows)), dtype=np.int64)
        except AesearchError:
            return None
        atlas = atlas.extended(places, rows, self._read_thumbnails(positions, atlas.side))
        self._files.write_rows("thumbnails", atlas.arrays(), {}, {"thumbnails": int((atlas.places >= 0).sum())})
        return atlas

    def _read_thumbnails(self, positions: NDArray[np.int64], side: int) -> Iterator[list[NDArray[np.uint8] | None]]:
        like, source = self._files.spec.preprocessing, self._files.source
        few = len(positions) < PART_ROWS or not self._files.progress
        with step("thumbnails", len(positions), progress=not few) as bar:
            for start in range(0, len(positions), THUMBNAILS_AT_ONCE):
                part = positions[start : start + THUMBNAILS_AT_ONCE]
                found = iter(source.thumbnails(part[part >= 0].tolist(), side, like))
                yield [next(found) if position >= 0 else None for position in part.tolist()]
                bar.update(len(part))

    def colouring(self, colour_by: str) -> tuple[list[str], str]:
        """What colours a map, and its name."""
        check_choice("--colour-by", colour_by, ("auto", "label", "cluster", "split", "none"))
        labels = self._files.labels()
        if colour_by == "label" or (colour_by == "auto" and any(labels)):
            return labels, "label"
        if colour_by == "split":
            return self._files.splits(), "split"
        if colour_by == "cluster" or (colour_by == "auto" and self._files.is_fresh("clusters")):
            return self._groups.cluster_of_rows(), "cluster"
        return [""] * self._files.store.rows, ""

    def update_thumbnails(self, before: Artifacts, came_from: NDArray[np.int64]) -> None:
        """Keep the thumbnails of images that were there; give new ones theirs, up to as many as a map shows."""
        from aesearch.drawing.thumbnails import Atlas

        atlas = Atlas.from_arrays(before.read_rows("thumbnails"))
        places = np.where(came_from >= 0, atlas.places[came_from], -1)
        room = max(0, MOST_SHOWN - int((places >= 0).sum()))
        self._extend_atlas(atlas, places, np.flatnonzero(came_from < 0)[:room])
