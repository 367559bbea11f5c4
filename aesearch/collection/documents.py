"""What a collection answers, as documents for JSON: those of ``--json`` and of the server's ``/api/`` alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aesearch.collection.facade import Collection
    from aesearch.collection.results import Anomalies, Duplicates, Hits
    from aesearch.probe import ProbeResult


def of_query(collection: Collection, hits: Sequence[Hits], k: int) -> dict[str, Any]:
    """Neighbours of one or several images."""
    return {
        "collection": str(collection.folder),
        "metric": collection.metric,
        "k": k,
        "queries": [found.to_json() for found in hits],
    }


def of_anomalies(collection: Collection, found: Anomalies, score: str) -> dict[str, Any]:
    """The oddest images."""
    alarms = found.alarms
    return {
        "collection": str(collection.folder),
        "score": score,
        "scored": found.scored,
        "threshold": alarms.threshold if alarms else None,
        "false_alarms": alarms.to_json() | {"flagged": found.flagged} if alarms else None,
        "auroc": found.auroc,
        "anomalies": found.to_json(),
    }


def of_duplicates(collection: Collection, found: Duplicates) -> dict[str, Any]:
    """Groups of images that are there more than once."""
    return {"collection": str(collection.folder), "metric": collection.metric, **found.to_json()}


def of_probe(collection: Collection, result: ProbeResult, top: int) -> dict[str, Any]:
    """How well labels are read off the features, and the labels most in doubt, at most ``top`` of them."""
    labels, ids = collection.labels(), collection.ids
    suspicious = [
        {"row": row, "id": ids[row], "label": labels[row], "predicted": predicted, "confidence": confidence}
        for row, predicted, confidence in result.suspicious[:top]
    ]
    figures = ("train_rows", "test_rows", "linear_accuracy", "knn_accuracy", "per_class")
    return {
        "dim": collection.store.dim,
        **{name: getattr(result, name) for name in figures},
        "suspicious": suspicious,
        "doubts_withheld": result.withheld or None,
        "free": result.free,
    }


def of_clusters(collection: Collection) -> dict[str, Any]:
    """The clusters that are kept; `AesearchError` if there are none, or the features have changed since."""
    from aesearch.clusters import is_unclear

    noise = int((collection.assignments() < 0).sum())
    artifact = collection.manifest.artifacts["clusters"]
    parameters, figures = artifact["parameters"], artifact["figures"]
    return {
        "method": parameters["method"],
        "space": parameters["space"],
        "clusters": figures["clusters"],
        "names": collection.cluster_names(),
        "sizes": figures["sizes"],
        "noise": noise,
        "silhouette": figures["silhouette"],
        "stability": figures["stability"],
        "unclear": is_unclear(figures["stability"], figures["clusters"]),
        "against_labels": figures["against_labels"],
    }
