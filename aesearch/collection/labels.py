"""What labels can be read off the features, and labels for new images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from aesearch.collection.artifacts import Artifacts, Part, exclusive
from aesearch.collection.encoding import Encoding
from aesearch.collection.results import Classified
from aesearch.errors import AesearchError, StaleArtifactError, need_torch
from aesearch.images.single import ImageLike, read_pictures, several

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.probe import LinearProbe, ProbeResult

PROBE = "probe.h5"
MOST_DOUBTS = 50  # labels in doubt that the manifest keeps


class Labels(Part):
    """What labels can be read off the features, and labels for new images."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._encoding = Encoding(files)

    @exclusive
    def probe(self, *, doubts: bool = True, seed: int = 0) -> ProbeResult:
        """Train and measure a linear probe on the labels; `classify` uses it from then on.

        With ``doubts`` it also looks for labels that are suspicious, which takes five more probes.
        """
        from aesearch.probe import probe as probe_features

        result = probe_features(
            self._files.features(),
            self._files.labels(),
            self._files.splits(),
            units=self._files.units,
            metric=self._files.metric,
            doubts=doubts,
            seed=seed,
        )
        result = dataclasses.replace(result, free=self._free_accuracies(seed))
        result.model.save(self._files.manifest.target(PROBE), self._files.store.fingerprint)
        figures = {k: getattr(result, k) for k in ("train_rows", "test_rows", "linear_accuracy", "knn_accuracy")}
        figures["commonest_share"] = max(f["test_rows"] for f in result.per_class.values()) / result.test_rows
        if doubts:
            figures |= {"doubted": len(result.suspicious), "doubts": [list(d) for d in result.suspicious[:MOST_DOUBTS]]}
            figures |= {"doubts_withheld": result.withheld}
        if result.free:
            from aesearch.baselines import judge

            figures |= {"free": result.free, "best": judge(result.free)}
        self._files.record("probe", PROBE, {"seed": seed}, figures)
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
        known, _, targets, *parts = divide(self._files.labels(), self._files.splits(), seed, self._files.units)
        draw, drawn, images = np.random.default_rng(seed), [], []
        for part, most in zip(parts, (baselines.MOST_TRAIN, baselines.MOST_TEST), strict=True):
            rows = np.sort(draw.permutation(part)[:most])
            try:
                found = read_pictures(
                    self._files.source, self._files.places(known[rows].tolist()), self._files.spec.preprocessing
                )
            except AesearchError:
                return {}
            there = [picture for picture in found if picture is not None]
            drawn.append(rows[[picture is not None for picture in found]])
            images.append(np.array(there, np.uint8))
        train, test = drawn
        if not len(test) or len(np.unique(targets[train])) < 2:
            return {}
        features = self._files.features()
        return baselines.compare_with_free(
            (features[known[train]], features[known[test]]),
            (images[0], images[1]),
            (targets[train], targets[test]),
            self._files.metric,
            self._files.spec.fields if self._files.spec.patch_dim else FIELDS,
        )

    def classify(self, images: Sequence[ImageLike]) -> list[Classified]:
        """(label, probability) of each image by the linear probe, and whether that is unsure.

        `AesearchError` until `probe` has run.
        """
        from aesearch.probe import UNSURE

        images, model = several(images), self.learned_probe()
        chances = model.predict_probabilities(self._encoding.encode(images))
        return [Classified.of(model.classes, c, UNSURE) for c in chances]

    def learned_probe(self) -> LinearProbe:
        """What `classify` asks; `AesearchError` until `probe` has run."""
        from aesearch.probe import LinearProbe

        path = self._files.manifest.path("probe", PROBE)
        if self._files.manifest.artifacts["probe"]["made_from"].get("features") != self._files.store.fingerprint:
            raise StaleArtifactError(
                f"the features have changed since the probe was trained: run {self._files.command('probe')}"
            )
        return LinearProbe.load(path)
