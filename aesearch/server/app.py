"""The web server of ``aesearch serve``: the page, the API, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import secrets
import socket
import threading
from urllib.parse import parse_qs, urlsplit

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aesearch.collection.facade import Collection
from aesearch.drawing.map_page import asset, leaflet
from aesearch.errors import AesearchError, CollectionNotFoundError, SourceError, StaleArtifactError
from aesearch.server import routes as api
from aesearch.server.shared_collection import BusyError, Live
from aesearch.version import __version__

PORT, PORTS_TRIED = 8765, 20
MOST_BYTES = 2**26  # of an image that is sent
MOST_JSON_BYTES = 2**21
IMAGES_AT_ONCE = 4
LONGEST_HEAD = 2**19  # bytes of an address, and what goes with it
LAST_ANSWERS = 0.8  # seconds for those that are under way when the server is told to stop
COOKIE = "aesearch"
STYLES = ("base.css", "mapview.css", "serve.css")
SCRIPTS = ("tools.js", "map.js", "mapview.js", "serve.js", "views.js")
GUARDS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def make_app(live: Live, token: str | None = None) -> ASGIApp:
    """The page at ``/``, the API under ``/api/``; with a token, only for who has it."""
    app = FastAPI(
        title="aesearch",
        version=__version__,
        description="Search, group, map and check unlabelled images.",
        docs_url=None,  # these pages would ask other machines for scripts
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.live = live
    app.include_router(api.router)
    files = _files()

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return Response(
            asset("serve.html"), media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-cache"}
        )

    @app.get("/static/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        return Response(files[name], media_type=f"{kind}; charset=utf-8", headers={"Cache-Control": "no-cache"})

    app.state.receiving = asyncio.Semaphore(IMAGES_AT_ONCE)
    app.exception_handler(AesearchError)(_refused)
    app.exception_handler(HTTPException)(_failed)
    app.exception_handler(RequestValidationError)(_misunderstood)
    app.exception_handler(OSError)(_unable)
    app.exception_handler(MemoryError)(_unable)
    app.exception_handler(ClientDisconnect)(_unable)
    return Guard(app, live, token)


def _files() -> dict[str, str]:
    """What the page asks for."""
    own = {name: asset(name) for name in (*STYLES, *SCRIPTS)}
    return own | {name: leaflet(name) for name in ("leaflet.css", "leaflet.js")}


def _refused(request: Request, error: Exception) -> JSONResponse:
    kinds = ((CollectionNotFoundError, 404), (SourceError, 404), (StaleArtifactError, 409), (BusyError, 503))
    return _error(next((code for kind, code in kinds if isinstance(error, kind)), 400), str(error))


def _failed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, dict(error.headers or {}))


def _unable(request: Request, error: Exception) -> JSONResponse:
    """A full disk, a lost permission, too little memory; or who asked has gone."""
    return _error(503, str(getattr(error, "strerror", None) or error or type(error).__name__).split("\n")[0])


def _misunderstood(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _error(422, f"{'.'.join(map(str, first['loc'][1:])) or first['loc'][0]}: {first['msg']}")


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": message}, code, headers)


class Guard:
    """Lets only those ask who may, and send no more than can be taken; every answer tells the collection's version.

    Without a token those may who ask this machine by its own name, from a page of its own: pages of other sites, open
    in the same browser, can neither ask nor give this machine another name (DNS rebinding). With one, who sends it,
    as the cookie that ``/?token=…`` sets or as ``Authorization: Bearer …``.
    """

    def __init__(self, app: ASGIApp, live: Live, token: str | None) -> None:
        self._app, self._live, self._token = app, live, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(GUARDS)
                asking = scope.get("state", {}).get("asking", self._live)
                headers["X-Collection"] = asking.version
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._entered(scope) or self._refusal(scope) or self._app
        await answer(scope, receive, guarded)

    def _entered(self, scope: Scope) -> Response | None:
        """The right token in the address of the page becomes a cookie."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if self._token is None or scope["path"] != "/" or not self._is_token(given):
            return None
        answer = Response(status_code=303, headers={"Location": "/"})
        answer.set_cookie(_cookie(scope), self._token, httponly=True, samesite="lax")  # links from elsewhere lead in
        return answer

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self._token is None and not is_loopback(_name(headers.get("host", ""))):
            return _error(421, "this server answers to localhost only")
        if self._token is not None and not self._is_token(_sent(scope, headers)):
            return _error(
                401,
                "the address with ?token=… is needed, or its token as Authorization: Bearer",
                {"WWW-Authenticate": "Bearer"},
            )
        origin = headers.get("origin")
        foreign = origin is not None and origin not in (
            f"http://{headers.get('host')}",
            f"https://{headers.get('host')}",
        )
        if foreign or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            if scope["path"] != "/" or scope["method"] != "GET":  # links lead here
                return _error(403, "requests from other sites are refused")
        return _too_large(scope, headers)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())


def _cookie(scope: Scope) -> str:
    """Its name: browsers keep those of all servers of a machine together, whatever their ports."""
    return f"{COOKIE}-{scope['server'][1]}"


def _sent(scope: Scope, headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return token.strip()
    return cookie_parser(headers.get("cookie", "")).get(_cookie(scope), "")


def _too_large(scope: Scope, headers: Headers) -> Response | None:
    length = headers.get("content-length", "" if scope["method"] in ("POST", "PUT", "PATCH") else "0")
    if not length.isdecimal() or "transfer-encoding" in headers:
        return _error(411, "the request needs a Content-Length header")
    most = MOST_BYTES if scope["path"] in api.TAKE_IMAGES and scope["method"] == "POST" else MOST_JSON_BYTES
    return _error(413, f"more than {most:,} bytes") if int(length) > most else None


def _name(host: str) -> str:
    """Of ``Host``, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is this machine's own and nobody else's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(live: Live, listening: socket.socket, token: str | None = None) -> None:
    """Answer until the process is told to stop."""
    config = uvicorn.Config(
        make_app(live, token), log_level="error", access_log=False, server_header=False, lifespan="off",
        proxy_headers=False, ws="none", http="h11", h11_max_incomplete_event_size=LONGEST_HEAD,
        timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    threading.Thread(target=warm_up, args=(live,), daemon=True).start()
    try:
        while thread.is_alive():
            thread.join(0.5)
    finally:
        server.should_exit = True
        thread.join(LAST_ANSWERS)


def warm_up(live: Live) -> None:
    """Open all that questions need, so that the first ones need not wait for it."""
    for question in (_encode_one, lambda c: c.pictures([0]), lambda c: c.query(row=0), _decode_one, _heat):
        try:
            live.ask(question)
        except AesearchError:  # who asks will be told
            continue


def _encode_one(collection: Collection) -> object:
    return collection.encode([np.zeros((8, 8), np.uint8)])


def _heat(collection: Collection) -> object:
    return collection.heat_scale


def _decode_one(collection: Collection) -> object:
    return collection.decode(np.zeros((1, collection.spec.latent_dim), np.float32))


def listen(host: str, port: int | None) -> socket.socket:
    """A socket at that address; without a port, at the first free one from 8765 on.

    Raises
    ------
    AesearchError
        There is no such address, or the port is taken.
    """
    for candidate in range(PORT, PORT + PORTS_TRIED) if port is None else (port,):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            return socket.create_server((host, candidate), family=family)
        except OSError as error:
            reason = error.strerror or str(error)
    raise AesearchError(f"cannot listen at {host}, port {port or PORT}: {reason}; give another --port")


def token_for(listening: socket.socket) -> str | None:
    """A secret that others must know, if they can reach that socket from elsewhere."""
    return None if is_loopback(listening.getsockname()[0]) else secrets.token_urlsafe(16)


def address(listening: socket.socket, token: str | None = None) -> str:
    """What to open in a browser."""
    host, port = listening.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = socket.gethostname()
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
