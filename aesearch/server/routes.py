"""What a collection answers over HTTP: the documents of ``--json`` under ``/api/``, and pictures."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from typing import Annotated, Any, TypeVar

import numpy as np
from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi import Path as InPath
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from numpy.typing import NDArray
from pydantic import Field

from aesearch.anomalies.error_maps import error_map
from aesearch.anomalies.names import SCORES
from aesearch.collection import documents
from aesearch.collection.artifacts import LEARNED
from aesearch.collection.facade import Collection
from aesearch.drawing.figures import data_url, heat_over, in_frame, to_picture, webp
from aesearch.errors import AesearchError, CollectionNotFoundError, StaleArtifactError, check_choice
from aesearch.images.single import ImageLike, Read, read
from aesearch.images.tiles import parse_box
from aesearch.server.schema import (
    LARGEST_ROW,
    MOST_LISTED,
    AnomaliesAnswer,
    ClustersAnswer,
    DuplicatesAnswer,
    Error,
    Imagined,
    Info,
    Latent,
    Latents,
    Listed,
    Name,
    QueryAnswer,
    Rebuilt,
    Values,
    Wanted,
)
from aesearch.server.shared_collection import Live

Answer = TypeVar("Answer")
Responses = dict[int | str, dict[str, Any]]
MOST_HITS, MOST_VALUES = 1000, 1000
LONGEST_TEXT = 4096
WIDEST = 16_383  # pixels of a WebP
MOST_PIXELS = 2**26  # that are decoded at once
NEAREST_ON_MAP = 8  # images whose mean is imagined at a place between them
PICTURES: Responses = {200: {"content": {"image/webp": {}}, "description": "a picture"}}


class Asking:
    """What one request asks of a collection, and which version of it has answered."""

    def __init__(self, live: Live) -> None:
        self._live, self.version = live, live.version

    def ask(self, question: Callable[[Collection], Answer]) -> Answer:
        """As `Live.ask`."""
        return self._live.ask(self._noted(question))

    def keep(self, name: Hashable, question: Callable[[Collection], Answer]) -> Answer:
        """As `Live.keep`."""
        return self._live.ask(self._noted(lambda _: self._live.keep(name, question)))

    def work_out(self, name: Hashable, question: Callable[[Collection], Answer]) -> Answer:
        """As `Live.work_out`."""
        return self._live.work_out(name, question)

    def check(self, version: str | None) -> None:
        """`StaleArtifactError` unless the collection is of that version, if one is given; to be asked in a question."""
        if version not in (None, self._live.version):
            raise StaleArtifactError("the collection has changed: reload the page")

    def _noted(self, question: Callable[[Collection], Answer]) -> Callable[[Collection], Answer]:
        def noted(collection: Collection) -> Answer:
            self.version = self._live.version
            answer = question(collection)
            self.version = self._live.version
            return answer

        return noted


def _asking(request: Request) -> Asking:
    request.state.asking = Asking(request.app.state.live)
    asking: Asking = request.state.asking
    return asking


async def _image(request: Request, asking: Annotated[Asking, Depends(_asking)]) -> AsyncIterator[Read]:
    """An image that was sent, decoded while others ask; a few at a time, or they would take all memory."""
    async with request.app.state.receiving:
        data = await request.body()
        yield await run_in_threadpool(lambda: read(data, asking.ask(lambda collection: collection.spec).preprocessing))


UPLOAD = {
    "requestBody": {
        "required": True,
        "description": "an image file as it is",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
ERRORS: Responses = {code: {"model": Error} for code in (400, 404, 409, 422, 503)}
TOO_LARGE: Responses = {413: {"model": Error}, 411: {"model": Error}}
Asked = Annotated[Asking, Depends(_asking)]
Uploaded = Annotated[Read, Depends(_image)]
Version = Annotated[str | None, Query(max_length=100, description="answer only if the collection is still that")]
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
AnyOrientation = Annotated[bool | None, Query(description="also search all eight mirrored and rotated orientations")]
TAKE_IMAGES = ("/api/query", "/api/reconstruct", "/api/latents")
router = APIRouter(prefix="/api", responses=ERRORS)


# ---------------------------------------------------------------- documents


@router.get("/info", response_model=Info)
def info(live: Asked) -> Response:
    """What the collection holds, how it was made, how good it measured."""

    def question(collection: Collection) -> dict[str, Any]:
        more = {"name": collection.name, "version": live.version, "report": collection.command("report")}
        return collection.info() | more

    return _json(live.ask(question))


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
    id: Annotated[str | None, Query(max_length=LONGEST_TEXT)] = None,
    k: K = 10,
    any_orientation: AnyOrientation = None,
) -> Response:
    """Nearest neighbours of an image of the collection, by its row or its id."""

    def question(collection: Collection) -> dict[str, Any]:
        hits = collection.query(row=row, id=id, k=k, where=where, any_orientation=any_orientation)
        return _with_clusters(collection, documents.of_query(collection, [hits], k))

    return _json(live.ask(question))


@router.post("/query", response_model=QueryAnswer, openapi_extra=UPLOAD, responses=TOO_LARGE)
def query_image(
    live: Asked,
    image: Uploaded,
    where: Where,
    k: K = 10,
    any_orientation: AnyOrientation = None,
    box: Annotated[str | None, Query(max_length=LONGEST_TEXT)] = None,
) -> Response:
    """Nearest neighbours of an image from elsewhere, or of a box of it: left,top,width,height in pixels."""
    within = None if box is None else parse_box(box)

    def question(collection: Collection) -> dict[str, Any]:
        hits = collection.query_images([image], k=k, where=where, any_orientation=any_orientation, box=within)
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
    normal_label: Annotated[str | None, Query(max_length=LONGEST_TEXT)] = None,
) -> Response:
    """The oddest images; scores that are learned must have been asked for once with ``aesearch anomalies``."""
    check_choice("score", score, SCORES)
    far = live.work_out(score, lambda c: c.scores_of_rows(score)) if score == "neighbours" else None

    def question(collection: Collection) -> dict[str, Any]:
        if score in LEARNED and not collection.is_learned(score):
            learn = collection.command(f"anomalies --score {score}")
            raise CollectionNotFoundError(f"score {score} is not learned yet: run {learn}")
        if far is not None and len(far) != collection.store.rows:
            raise StaleArtifactError("the collection has changed meanwhile: ask again")
        found = collection.anomalies(
            score=score, top=top, false_alarms=false_alarms, normal_label=normal_label, scores=far
        )
        return documents.of_anomalies(collection, found, score)

    return _json(live.ask(question))


@router.get("/duplicates", response_model=DuplicatesAnswer)
def duplicates(live: Asked, threshold: Annotated[float | None, Query(ge=0, le=1e9)] = None) -> Response:
    """Groups of images that are there more than once, or nearly; worked out when first asked for."""

    def question(collection: Collection) -> bytes:
        return bytes(JSONResponse(documents.of_duplicates(collection, collection.duplicates(threshold=threshold))).body)

    return Response(live.work_out(("duplicates", threshold), question), media_type="application/json")


@router.get("/clusters", response_model=ClustersAnswer)
def clusters(live: Asked, nearest: Annotated[int, Query(ge=0, le=100)] = 10) -> Response:
    """The clusters, and the images nearest to each one's centre."""

    def question(collection: Collection) -> dict[str, Any]:
        document = documents.of_clusters(collection)
        _, members = live.keep("centres", Collection.centres)
        return document | {"nearest": [rows[:nearest].tolist() for rows in members]}

    return _json(live.ask(question))


@router.put("/clusters/{number}/name", response_model=ClustersAnswer)
def name_cluster(live: Asked, number: Row, name: Name, version: Version = None) -> Response:
    """Name a cluster; kept in the collection. With a version of the collection, only if it is still that."""

    def question(collection: Collection) -> None:
        live.check(version)
        collection.name_clusters({number: name.name})

    live.ask(question)
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
def map_sheet(live: Asked, number: Row, version: Version = None) -> Response:
    """A sheet of the map's thumbnails."""

    def question(collection: Collection) -> bytes:
        live.check(version)
        sheets = live.keep("sheets", Collection.thumbnail_sheets)
        if number >= len(sheets):
            raise CollectionNotFoundError(f"there is no sheet {number}: there are {len(sheets)}")
        return sheets[number]

    return _picture(live.ask(question), version)


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
    brightest = collection.heat_scale
    seen = to_picture(original)
    over = heat_over(seen, errors / np.float32(brightest))
    pictures = {"original": seen, "rebuilt": to_picture(rebuilt), "difference": over}
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
        if len(points.latents) * spec.preprocessing.pixels > MOST_PIXELS:
            raise AesearchError(f"too many images of this size at once: the limit is {MOST_PIXELS:,} pixels")
        return collection.decode(np.array(points.latents, np.float32))

    images = live.ask(question)
    step = -(-images.shape[3] * len(images) // WIDEST)  # every so many pixels, where they are too many
    return _picture(webp(to_picture(np.concatenate(list(images[:, :, ::step, ::step]), axis=2))))


# ---------------------------------------------------------------- pictures


@router.get("/images/{row}", response_class=Response, responses=PICTURES)
def picture(live: Asked, row: Row, version: Version = None) -> Response:
    """An image of the collection, of 224 pixels at most."""

    def question(collection: Collection) -> NDArray[np.uint8]:
        live.check(version)
        collection.check_rows([row])
        return collection.pictures([row])[0]

    return _picture(webp(to_picture(live.ask(question))), version)


@router.get("/images/{row}/place", response_class=Response, responses=PICTURES)
def place(live: Asked, row: Row, version: Version = None) -> Response:
    """The whole picture that a tile is of, of 448 pixels at most, with a frame around the tile."""

    def question(collection: Collection) -> NDArray[np.uint8]:
        live.check(version)
        ((whole, box),) = collection.in_place([row])
        return in_frame(to_picture(whole), box)

    return _picture(webp(live.ask(question)), version)


@router.get("/images/{row}/heat", response_class=Response, responses=PICTURES)
def heat(live: Asked, row: Row, version: Version = None) -> Response:
    """The same with heat laid over it: where it looks faulty once ``combined`` is learned, else where badly rebuilt."""

    def question(collection: Collection) -> NDArray[np.uint8]:
        live.check(version)
        hot = collection.heat_of_row(row)
        return heat_over(to_picture(collection.pictures([row])[0]), hot)

    return _picture(webp(live.ask(question)), version)


@router.get("/clusters/{number}/centre", response_class=Response, responses=PICTURES)
def centre(live: Asked, number: Row, version: Version = None) -> Response:
    """What the decoder makes of a cluster's centre."""

    def question(collection: Collection) -> NDArray[np.float32]:
        live.check(version)
        _, members = live.keep("centres", Collection.centres)
        if number >= len(members) or not len(members[number]):
            raise CollectionNotFoundError(f"there is no image in a cluster {number}")
        return collection.centre_picture(members[number])

    return _picture(webp(to_picture(live.ask(question))), version)


def _json(document: dict[str, Any]) -> JSONResponse:
    try:
        return JSONResponse(document)
    except ValueError:  # JSON has no infinite numbers: what did not converge, or a stranger's manifest, may
        return JSONResponse(json.loads(json.dumps(document), parse_constant=lambda name: None))


def _picture(data: bytes, version: str | None = None) -> Response:
    """One that may be kept where its address names the version of the collection."""
    kept = {"Cache-Control": "private, max-age=3600"} if version else {}
    return Response(data, media_type="image/webp", headers=kept)
