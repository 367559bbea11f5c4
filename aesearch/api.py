"""What a collection answers over HTTP: the documents of ``--json`` under ``/api/``, and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi import Path as InPath
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from aesearch import documents
from aesearch.anomalies import error_map
from aesearch.collection import LEARNED, Collection
from aesearch.errors import AesearchError, CollectionNotFoundError
from aesearch.figures import data_url, heat_over, to_picture, webp
from aesearch.live import Live
from aesearch.pictures import ImageLike

Responses = dict[int | str, dict[str, Any]]
MOST_HITS, MOST_LISTED, MOST_DECODED, MOST_VALUES = 1000, 1000, 128, 1000
LARGEST_ROW = 2**31 - 1
NEAREST_ON_MAP = 8  # images whose mean is imagined at a place between them
PICTURES: Responses = {200: {"content": {"image/webp": {}}, "description": "a picture"}}


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
    """As ``aesearch info --json``, and what changes when the collection does."""

    collection: str
    name: str
    version: str
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


def _live(request: Request) -> Live:
    live: Live = request.app.state.live
    return live


async def _image(request: Request) -> bytes:
    return await request.body()


UPLOAD = {
    "requestBody": {
        "required": True,
        "description": "an image file as it is",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
ERRORS: Responses = {code: {"model": Error} for code in (400, 404, 409, 422)}
TOO_LARGE: Responses = {413: {"model": Error}, 411: {"model": Error}}
Asked = Annotated[Live, Depends(_live)]
Uploaded = Annotated[bytes, Depends(_image)]
Row = Annotated[int, InPath(ge=0, le=LARGEST_ROW)]
K = Annotated[int, Query(ge=1, le=MOST_HITS, description="how many neighbours")]
Where = Annotated[
    list[Annotated[str, Field(max_length=1000)]],
    Query(
        default_factory=list,
        max_length=20,
        description="only images with label=3, split=test, id=cats/* or cluster=2, or != instead",
    ),
]
router = APIRouter(prefix="/api", responses=ERRORS)


# ---------------------------------------------------------------- documents


@router.get("/info", response_model=Info)
def info(live: Asked) -> Response:
    """What the collection holds, how it was made, how good it measured."""
    return _json(live.ask(lambda collection: collection.info() | {"name": collection.name, "version": live.version}))


@router.get("/values", response_model=Values)
def values(live: Asked) -> Response:
    """Labels, splits and clusters that images can be filtered by."""
    return _json(live.keep("values", _values))


def _values(collection: Collection) -> dict[str, Any]:
    texts = {"label": collection.labels(), "split": collection.splits()}
    texts["cluster"] = _clusters_of(collection, range(collection.store.rows))
    counted = {name: Counter(filter(None, found)).most_common(MOST_VALUES) for name, found in texts.items()}
    return {name: [{"value": v, "images": n} for v, n in found] for name, found in counted.items()}


@router.get("/query", response_model=QueryAnswer)
def query(
    live: Asked,
    where: Where,
    row: Annotated[int | None, Query(ge=0, le=LARGEST_ROW)] = None,
    id: Annotated[str | None, Query(max_length=10_000)] = None,
    k: K = 10,
) -> Response:
    """Nearest neighbours of an image of the collection, by its row or its id."""

    def question(collection: Collection) -> dict[str, Any]:
        hits = collection.query(row=row, id=id, k=k, where=where)
        return _with_clusters(collection, documents.of_query(collection, [hits], k))

    return _json(live.ask(question))


@router.post("/query", response_model=QueryAnswer, openapi_extra=UPLOAD, responses=TOO_LARGE)
def query_image(live: Asked, image: Uploaded, where: Where, k: K = 10) -> Response:
    """Nearest neighbours of an image from elsewhere."""

    def question(collection: Collection) -> dict[str, Any]:
        hits = collection.query_images([image], k=k, where=where)
        return _with_clusters(collection, documents.of_query(collection, hits, k))

    return _json(live.ask(question))


def _with_clusters(collection: Collection, document: dict[str, Any]) -> dict[str, Any]:
    hits = [hit for found in document["queries"] for hit in found["hits"]]
    for hit, cluster in zip(hits, _clusters_of(collection, [hit["row"] for hit in hits]), strict=True):
        hit["cluster"] = cluster
    return document


def _clusters_of(collection: Collection, rows: Sequence[int]) -> list[str]:
    """Name of each row's cluster, empty where there is none."""
    try:
        return collection.cluster_of_rows(np.array(rows, np.int64))
    except CollectionNotFoundError:
        return [""] * len(rows)


@router.post("/rows", response_model=Listed)
def rows(live: Asked, wanted: Wanted) -> Response:
    """List images."""
    return _json(live.ask(lambda collection: _listed(collection, wanted)))


def _listed(collection: Collection, wanted: Wanted) -> dict[str, Any]:
    found: Sequence[int] | NDArray[np.int64] = range(collection.store.rows)
    if wanted.rows is not None:
        collection.check_rows(wanted.rows)
        found = wanted.rows
    elif wanted.where:
        found = collection.rows_where(wanted.where)
    some = [int(row) for row in found[wanted.offset : wanted.offset + wanted.limit]]
    texts = [collection.store.texts(name, some) if some else [] for name in ("id", "label", "split")]
    columns = zip(some, *texts, _clusters_of(collection, some), strict=True)
    names = ("row", "id", "label", "split", "cluster")
    return {"total": len(found), "rows": [dict(zip(names, facts, strict=True)) for facts in columns]}


@router.get("/anomalies", response_model=AnomaliesAnswer, response_model_exclude_unset=True)
def anomalies(
    live: Asked,
    score: Annotated[str, Query(max_length=100)] = "combined",
    top: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 50,
    false_alarms: Annotated[float | None, Query(gt=0, lt=1)] = None,
    normal_label: Annotated[str | None, Query(max_length=10_000)] = None,
) -> Response:
    """The oddest images; scores that are learned must have been asked for once with ``aesearch anomalies``."""

    def question(collection: Collection) -> dict[str, Any]:
        if score in LEARNED and not collection.is_fresh(score):
            raise CollectionNotFoundError(f"score {score} is not learned yet: run aesearch anomalies --score {score}")
        found = collection.anomalies(score=score, top=top, false_alarms=false_alarms, normal_label=normal_label)
        return documents.of_anomalies(collection, found, score)

    if score == "neighbours":  # searches for all of them
        return _json(live.work_out(("anomalies", score, top, false_alarms, normal_label), question))
    return _json(live.ask(question))


@router.get("/duplicates", response_model=DuplicatesAnswer)
def duplicates(live: Asked, threshold: Annotated[float | None, Query(ge=0, le=1e9)] = None) -> Response:
    """Groups of images that are there more than once, or nearly; worked out when first asked for."""

    def question(collection: Collection) -> dict[str, Any]:
        return documents.of_duplicates(collection, collection.duplicates(threshold=threshold))

    return _json(live.work_out(("duplicates", threshold), question))


@router.get("/clusters", response_model=ClustersAnswer)
def clusters(live: Asked, nearest: Annotated[int, Query(ge=0, le=100)] = 10) -> Response:
    """The clusters, and the images nearest to each one's centre."""

    def question(collection: Collection) -> dict[str, Any]:
        document = documents.of_clusters(collection)
        _, members = live.keep("centres", Collection.centres)
        return document | {"nearest": [rows[:nearest].tolist() for rows in members]}

    return _json(live.ask(question))


@router.put("/clusters/{number}/name", response_model=ClustersAnswer)
def name_cluster(live: Asked, number: Row, name: Name) -> Response:
    """Name a cluster; kept in the collection."""
    live.ask(lambda collection: collection.name_clusters({number: name.name}))
    return clusters(live)


@router.get("/map", responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}})
def show_map(live: Asked, method: Annotated[str, Query(max_length=100)] = "umap") -> Response:
    """A map in the plane with all that its page shows; arrays are little-endian base64."""

    def question(collection: Collection) -> bytes:
        page = collection.map_page(method)
        sheets = [
            f"/api/map/sheets/{n}?version={live.version}" for n in range(len(page.atlas.sheets if page.atlas else []))
        ]
        return bytes(JSONResponse(page.document(sheets)).body)

    return Response(live.keep(("map", method), question), media_type="application/json")


@router.get("/map/sheets/{number}", response_class=Response, responses=PICTURES)
def map_sheet(live: Asked, number: Row) -> Response:
    """A sheet of the map's thumbnails."""

    def question(collection: Collection) -> list[bytes]:
        return collection.thumbnail_sheets()

    sheets = live.keep("sheets", question)
    if number >= len(sheets):
        raise CollectionNotFoundError(f"there is no sheet {number}: there are {len(sheets)}")
    return _picture(sheets[number])


@router.get("/map/imagine", response_model=Imagined)
def imagine(
    live: Asked,
    x: Annotated[float, Query(ge=-1e9, le=1e9, allow_inf_nan=False)],
    y: Annotated[float, Query(ge=-1e9, le=1e9, allow_inf_nan=False)],
    method: Annotated[str, Query(max_length=100)] = "umap",
) -> Response:
    """What the decoder imagines at a place of a map: the images around it, the nearer counting more."""

    def question(collection: Collection) -> dict[str, Any]:
        from aesearch.projection import between

        shown, tree = live.keep(("places", method), lambda collection: _places(collection, method))
        distances, near = (np.atleast_1d(found) for found in tree.query((x, y), min(NEAREST_ON_MAP, len(shown))))
        rows = shown[near]
        latent = between(collection.store.latents(rows)[None], distances.astype(np.float32)[None])
        picture = data_url(webp(to_picture(collection.decode(latent)[0])), "webp")
        return {"latent": latent[0].tolist(), "rows": rows.tolist(), "picture": picture}

    return _json(live.ask(question))


def _places(collection: Collection, method: str) -> tuple[NDArray[np.int64], Any]:
    """The rows on a map, and what finds the nearest of them to a place."""
    from scipy.spatial import KDTree

    page = collection.map_page(method)
    return page.rows, KDTree(page.coordinates)


# ---------------------------------------------------------------- the decoder at work


@router.get("/reconstruct/{row}", response_model=Rebuilt)
def reconstruct(live: Asked, row: Row) -> Response:
    """An image of the collection, and what the network makes of it."""
    return _json(live.ask(lambda collection: _rebuilt(collection, rows=[row])))


@router.post("/reconstruct", response_model=Rebuilt, openapi_extra=UPLOAD, responses=TOO_LARGE)
def reconstruct_image(live: Asked, image: Uploaded) -> Response:
    """An image from elsewhere, and what the network makes of it."""
    return _json(live.ask(lambda collection: _rebuilt(collection, images=[image])))


def _rebuilt(collection: Collection, images: Sequence[ImageLike] = (), rows: Sequence[int] = ()) -> dict[str, Any]:
    (original,), (rebuilt,) = collection.reconstruct(images, rows)
    errors = error_map(original, rebuilt)
    brightest = float(errors.max())
    seen = to_picture(original)
    pictures = {"original": seen, "rebuilt": to_picture(rebuilt), "difference": heat_over(seen, errors, brightest)}
    urls = {name: data_url(webp(picture), "webp") for name, picture in pictures.items()}
    return {"error": float(errors.mean()), "brightest": brightest, **urls}


@router.get("/latents/{row}", response_model=Latent)
def latent(live: Asked, row: Row) -> Response:
    """What the encoder made of an image of the collection."""

    def question(collection: Collection) -> dict[str, Any]:
        collection.check_rows([row])
        return {"latent": collection.store.latents(np.array([row]))[0].tolist()}

    return _json(live.ask(question))


@router.post("/latents", response_model=Latent, openapi_extra=UPLOAD, responses=TOO_LARGE)
def latent_of_image(live: Asked, image: Uploaded) -> Response:
    """What the encoder makes of an image from elsewhere."""
    return _json(live.ask(lambda collection: {"latent": collection.encode_latents([image])[0].tolist()}))


@router.post("/decode", response_class=Response, responses=PICTURES)
def decode(live: Asked, points: Annotated[Latents, Body()]) -> Response:
    """Images of points of the latent space, side by side in one picture."""

    def question(collection: Collection) -> NDArray[np.float32]:
        spec = collection.spec
        wanted = {len(point) for point in points.latents}
        if len(wanted) > 1 or not wanted <= {spec.latent_dim, spec.feature_dim}:
            raise AesearchError(f"points have {spec.latent_dim} numbers here, or {spec.feature_dim} without the style")
        return collection.decode(np.array(points.latents, np.float32))

    images = live.ask(question)
    return _picture(webp(to_picture(np.concatenate(list(images), axis=2))))


# ---------------------------------------------------------------- pictures


@router.get("/images/{row}", response_class=Response, responses=PICTURES)
def picture(live: Asked, row: Row) -> Response:
    """An image of the collection, of 224 pixels at most."""

    def question(collection: Collection) -> NDArray[np.uint8]:
        collection.check_rows([row])
        return collection.pictures([row])[0]

    return _picture(webp(to_picture(live.ask(question))))


@router.get("/images/{row}/heat", response_class=Response, responses=PICTURES)
def heat(live: Asked, row: Row) -> Response:
    """The same with its reconstruction error laid over it, the largest of it brightest."""

    def question(collection: Collection) -> NDArray[np.uint8]:
        (original,), (rebuilt,) = collection.reconstruct(rows=[row])
        errors = error_map(original, rebuilt)
        return heat_over(to_picture(collection.pictures([row])[0]), errors, float(errors.max()))

    return _picture(webp(live.ask(question)))


@router.get("/clusters/{number}/centre", response_class=Response, responses=PICTURES)
def centre(live: Asked, number: Row) -> Response:
    """What the decoder makes of a cluster's centre."""

    def question(collection: Collection) -> NDArray[np.float32]:
        means, _ = live.keep("centres", Collection.centres)
        if number >= len(means):
            raise CollectionNotFoundError(f"there is no cluster {number}")
        return collection.decode(means[number][None])[0]

    return _picture(webp(to_picture(live.ask(question))))


def _json(document: dict[str, Any]) -> JSONResponse:
    return JSONResponse(document)


def _picture(data: bytes) -> Response:
    """One that may be kept: its address names the version of the collection."""
    return Response(data, media_type="image/webp", headers={"Cache-Control": "private, max-age=3600"})
