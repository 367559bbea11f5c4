"""Clusters of a collection: found, named, assigned."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.artifacts import NO_CLUSTER, NO_CLUSTER_NAME, Artifacts, Part, exclusive
from aesearch.collection.encoding import Encoding
from aesearch.collection.manifest import is_unicode
from aesearch.collection.pictures import Pictures
from aesearch.errors import AesearchError, CollectionNotFoundError, StaleArtifactError
from aesearch.files.atomic import check_room
from aesearch.images.single import ImageLike
from aesearch.vectors.distances import exact_neighbours

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.clusters import Clustering

logger = logging.getLogger(__name__)
CENTRAL = 10  # rows that stand for the middle of many
MOST_PLACES = 3  # clusters that the images of one that is no more have gone to, in a message
LONGEST_NAME = 100  # characters of a cluster's


class Groups(Part):
    """Clusters of a collection: found, named, assigned."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._encoding = Encoding(files)
        self._pictures = Pictures(files)

    def assignments(self) -> NDArray[np.int32]:
        """Cluster of each row, (rows,) int32, -1 for noise; `AesearchError` until `cluster` has run."""
        if not self._files.is_fresh("clusters"):
            raise CollectionNotFoundError(
                f"there are no clusters of these features: run {self._files.command('cluster')}"
            )
        assignments = np.asarray(self._files.read_rows("clusters")["cluster"], dtype=np.int32)
        count = len(self._files.manifest.artifacts["clusters"]["figures"]["sizes"])
        if (
            assignments.shape != (self._files.store.rows,)
            or not (-1 <= assignments).all()
            or (assignments >= count).any()
        ):
            raise StaleArtifactError(f"the clusters do not fit the features: run {self._files.command('cluster')}")
        return assignments

    def cluster_names(self) -> list[str]:
        """The name that somebody gave each cluster, else its number."""
        recorded = self._files.manifest.artifacts.get("clusters", {"figures": {"sizes": []}, "parameters": {}})
        named = recorded["parameters"].get("names", {})
        return [named.get(str(c), str(c)) for c in range(len(recorded["figures"]["sizes"]))]

    def cluster_title(self, number: int) -> str:
        """``cluster 3``, or what somebody named it."""
        name = self.cluster_names()[number]
        return f"cluster {name}" if name == str(number) else name

    def cluster_of_rows(self, rows: NDArray[np.int64] | None = None) -> list[str]:
        """Name of the cluster of each row, empty for noise."""
        names = [*self.cluster_names(), ""]  # the last: of -1
        return [names[c] for c in self.assignments()[slice(None) if rows is None else rows]]

    @exclusive
    def cluster(
        self, *, method: str = "gmm", clusters: int | None = None, space: str = "umap", seed: int = 0
    ) -> Clustering:
        """Group the images and keep the groups in ``clusters.h5``; see `aesearch.clusters.cluster`."""
        from aesearch.clusters import cluster as cluster_features

        options = {"method": method, "clusters": clusters, "space": space, "seed": seed}
        check_room(self._files.manifest.target("clusters.h5"), 12 * self._files.store.rows)
        found = cluster_features(
            self._files.store.rows_of_features(),
            method=method,
            clusters=clusters,
            space=space,
            metric=self._files.metric,
            labels=self._files.labels(),
            seed=seed,
            progress=self._files.progress,
        )
        figures = {
            "clusters": len(found.sizes),
            "sizes": found.sizes,
            "silhouette": found.silhouette,
            "against_labels": found.against_labels,
            "stability": found.stability,
        }
        names = self._carried_names(found.assignments)
        self.write_clusters(found.assignments, options | ({"names": names} if names else {}), figures)
        return found

    def write_clusters(
        self, assignments: NDArray[np.int32], parameters: dict[str, Any], figures: dict[str, Any]
    ) -> None:
        """Keep groups, and with them what the images are known by when their rows have become others."""
        columns: dict[str, NDArray[Any]] = {"cluster": assignments, "content": self._files.store.contents()}
        self._files.write_rows("clusters", columns, parameters, figures)

    def _carried_names(self, now: NDArray[np.int32]) -> dict[str, str]:
        """Names for new groups by those of the ones before, as far as these live on; says which do not."""
        from aesearch.clusters import carry_names

        recorded = self._files.manifest.artifacts.get("clusters", {"parameters": {}})
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
        if not self._files.manifest.holds("clusters", "clusters.h5"):
            return None
        if self._files.is_fresh("clusters"):
            return self.assignments()
        kept = self._files.read_rows("clusters")
        if "content" not in kept or kept["content"].shape != kept["cluster"].shape or not kept["content"].size:
            return None
        order = np.argsort(kept["content"], kind="stable")
        known, contents = kept["content"][order], self._files.store.contents()
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
        before = self._files.manifest.artifacts["clusters"]
        self._files.manifest.artifacts["clusters"] = before | {"parameters": before["parameters"] | {"names": kept}}
        try:
            self._files.manifest.save()
        except BaseException:
            self._files.manifest.artifacts["clusters"] = before
            raise

    def assign(self, images: Sequence[ImageLike]) -> list[tuple[int, float]]:
        """(cluster, share of the nearest rows that are in it) of each image; nothing is fitted again.

        `AesearchError` until `cluster` has run.
        """
        from aesearch.clusters import VOTERS, assign

        assignments = self.assignments()
        rows, _ = self._files.nearest(self._encoding.encode(images), VOTERS)
        clusters, shares = assign(rows, assignments)
        return [(int(c), float(s)) for c, s in zip(clusters, shares, strict=True)]

    def centres(self) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
        """Mean features of each cluster, (clusters, dim) float32, and its rows, nearest to that centre first."""
        assignments, features = self.assignments(), self._files.features()
        members = [np.flatnonzero(assignments == c) for c in range(len(self.cluster_names()))]
        means = np.zeros((len(members), features.shape[1]), np.float32)
        nearest = []
        for number, rows in enumerate(members):
            if len(rows):  # an update may have left none
                means[number] = features[rows].mean(axis=0)
                order = exact_neighbours(features[rows], means[number : number + 1], len(rows), self._files.metric)[0][
                    0
                ]
                rows = rows[order]
            nearest.append(rows)
        return means, nearest

    def centre_picture(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the decoder makes of the middle of rows, nearest first: (channels, height, width) float32 in [0, 1].

        By their features alone, without how each of them lies, where the network rebuilds images from features; else
        by the latents of the nearest ten, as those of many are a blur.
        """
        upright = self._files.spec.rebuilt_from == self._files.spec.latent_dim
        mean = (self._files.features()[rows] if upright else self._files.store.latents(rows[:CENTRAL])).mean(axis=0)
        return self._pictures.decode(np.asarray(mean, np.float32)[None])[0]
