"""What the server is asked and answers, field by field: the models behind its OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

MOST_LISTED, MOST_DECODED = 1000, 128
LARGEST_ROW = 2**31 - 1


class Error(BaseModel):
    """What went wrong, and what to do."""

    error: str


class Hit(BaseModel):
    """A neighbour."""

    rank: int
    row: int
    id: str
    label: str
    cluster: str
    distance: float
    orientation: str | None = None


class Neighbours(BaseModel):
    """Of one image, nearest first."""

    query: str
    hits: list[Hit]


class QueryAnswer(BaseModel):
    """As ``aesearch query --json``, and each hit's cluster."""

    collection: str
    metric: str
    k: int
    queries: list[Neighbours]


class Anomaly(BaseModel):
    """An odd image."""

    rank: int
    row: int
    id: str
    label: str
    score: float
    part: str | None = None
    why: str | None = None
    where: list[float] | None = None
    tile: str | None = None
    p_value: float | None = None


class AnomaliesAnswer(BaseModel):
    """As ``aesearch anomalies --json``."""

    collection: str
    score: str
    scored: int
    threshold: float | None
    false_alarms: dict[str, float] | None
    auroc: float | None
    anomalies: list[Anomaly]


class Copy(BaseModel):
    """One image of a group."""

    row: int
    id: str


class DuplicatesAnswer(BaseModel):
    """As ``aesearch duplicates --json``."""

    collection: str
    metric: str
    threshold: float
    groups: list[list[Copy]]
    exact: list[bool]
    found: float | None
    pixel_distances: list[float | None]
    rejected: int


class ClustersAnswer(BaseModel):
    """As ``aesearch cluster --json``, and of each cluster the rows nearest to its centre."""

    method: str
    space: str
    clusters: int
    names: list[str]
    sizes: list[int]
    noise: int
    silhouette: float | None
    stability: float | None
    unclear: bool
    against_labels: dict[str, float] | None
    nearest: list[list[int]]


class Info(BaseModel):
    """As ``aesearch info --json``, what changes when the collection does, and the command that makes its report."""

    collection: str
    name: str
    version: str
    report: str
    source: str | None
    rows: int
    dim: int | None
    arch: str | None
    index: dict[str, Any] | None
    artifacts: dict[str, Any]


class Value(BaseModel):
    """A label, a split or a cluster, and how many images have it."""

    value: str
    images: int


class Values(BaseModel):
    """What images can be filtered by; the commonest thousand of each."""

    label: list[Value]
    split: list[Value]
    cluster: list[Value]


class Wanted(BaseModel):
    """Which images to list: those rows, else those of which all conditions hold, else all."""

    rows: list[Annotated[int, Field(ge=0, le=LARGEST_ROW)]] | None = Field(None, max_length=200_000)
    where: list[Annotated[str, Field(max_length=1000)]] = Field([], max_length=20)
    offset: int = Field(0, ge=0, le=LARGEST_ROW)
    limit: int = Field(60, ge=1, le=MOST_LISTED)


class Image(BaseModel):
    """An image of the collection."""

    row: int
    id: str
    label: str
    split: str
    cluster: str


class Listed(BaseModel):
    """Some images, and how many there are."""

    total: int
    rows: list[Image]


class Rebuilt(BaseModel):
    """An image as the encoder sees it, as the decoder rebuilds it, where they differ; data URLs of WebP."""

    error: float
    brightest: float
    original: str
    rebuilt: str
    difference: str


class Latent(BaseModel):
    """All that the encoder makes of an image: features, then style."""

    latent: list[float]


class Latents(BaseModel):
    """Points of the latent space."""

    latents: list[list[Annotated[float, Field(allow_inf_nan=False, ge=-1e6, le=1e6)]]] = Field(
        min_length=1, max_length=MOST_DECODED
    )


class Imagined(BaseModel):
    """What the decoder makes of a place on a map, and the images around it."""

    latent: list[float]
    rows: list[int]
    picture: str


class Name(BaseModel):
    """Of a cluster; empty for none."""

    name: str = Field(max_length=1000)
