"""The addresses of the server, as a FastAPI app: POST /predict, GET /healthz, GET /openapi.json, and the page at GET /.

    request -> host looked at -> a place, or 503 -> body, up to its limit -> messages.py -> worker.py -> JSON

Every refusal and failure is `{"error": one sentence}` with its status; a traceback goes to the log, never to the client. There is
no CORS: pages of other sites can't ask. FastAPI's own pages of documentation are off, they load scripts from elsewhere.
"""

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from .messages import ANSWER, ANSWERS, ERROR, Limits, question_schema, read_question
from .page import make_page
from .worker import Predict, Worker

BODY_TIMEOUT_S = 20.0  # in which a body must have come: until then it holds a place
ADDRESSES = "POST /predict, GET /healthz, GET /openapi.json, GET /"


@dataclass(frozen=True)
class About:
    """What the server says of its model."""

    name: str
    labels: list[str]
    multi_label: bool
    can_explain: bool
    version: str  # of ulmpipe


def make_app(predict: Predict, about: About, limits: Limits, *, joins: bool) -> FastAPI:
    """An app that answers with what `predict` says of texts; `joins` as in `Worker`."""
    app = FastAPI(
        title=f"ulmpipe: {about.name}",
        version=about.version,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={404: _no_address, 405: _no_method, StarletteHTTPException: _refused, Exception: _failed},
    )
    worker = Worker(predict, joins=joins, max_waiting=limits.max_waiting)
    html, policy = make_page(about)
    page = HTMLResponse(html, headers={"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-cache"})  # fmt: skip

    async def show_page(request: Request) -> Response:
        return page

    app.add_route("/", show_page, include_in_schema=False)

    @app.get("/healthz", responses=_answered("it answers", {"type": "object"}))
    async def healthz() -> dict[str, Any]:
        """Say that the server is there, what of, and how many requests wait."""
        return {"status": "ok", "model": about.name, "labels": about.labels, "multi_label": about.multi_label, "explain": about.can_explain, "waiting": worker.n_places, "version": about.version}  # fmt: skip

    @app.post(
        "/predict",
        openapi_extra={"requestBody": {"required": True, **_json(question_schema(limits))}},
        responses={
            **_answered("of `text` a prediction, of `texts` one for each", {"oneOf": [ANSWER, ANSWERS]}),
            **{status: {"description": what, **_json(ERROR)} for status, what in REFUSALS.items()},
        },
    )
    async def predict_texts(request: Request) -> Response:
        """Predict the labels of a text, or of several, with probabilities."""
        with worker.place():
            question = read_question(await read_body(request, limits.max_body_bytes), limits)
            if question.explain and not about.can_explain:
                raise HTTPException(422, "explain needs gradients, which int8 weights don't have: leave it out, or start the server without --quantize")  # fmt: skip
            answers = await worker.ask(question, request.is_disconnected)
        return JSONResponse({"predictions": answers} if question.several else answers[0])

    return app


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body, if it is said to be JSON. Raises `HTTPException`, 413 before more than `max_bytes` are held.

    The type must be said because browsers send no JSON to another site unless that site allows it (and this one does not).
    """
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, f"the content type is {_cut(kind) or 'not given'}, expected application/json")
    too_large = HTTPException(413, f"the body has more than {max_bytes:,} bytes, which is the most that is read")
    if int(request.headers.get("content-length", 0)) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError as err:
        raise HTTPException(408, f"the body has not come within {BODY_TIMEOUT_S:.0f} s", {"Connection": "close"}) from err  # fmt: skip
    except ClientDisconnect as err:
        raise HTTPException(400, "the client has left") from err
    await (
        request.is_disconnected()
    )  # behind a large body uvicorn reads on when asked, and only then sees a client leave
    return bytes(body)


def only_hosts(app: ASGIApp, names: set[str]) -> ASGIApp:
    """An app that answers requests to these names and to loopback addresses, and refuses any other with 421.

    A page elsewhere could have a name of its own lead to 127.0.0.1 and so reach a server that is meant for this machine alone.
    """

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if _is_among(host, names):
            await app(scope, receive, send)
        else:
            refusal = (
                f"the request is to host {_cut(host)!r}, and this server answers to {' and '.join(sorted(names))} only"
            )
            await JSONResponse({"error": refusal}, 421)(scope, receive, send)

    return checked


def _is_among(host: str, names: set[str]) -> bool:
    """Whether a Host header, which may have a port, is a loopback address or one of the names.

    >>> [_is_among(host, {"localhost"}) for host in ("LOCALHOST:80", "[::1]:80", "127.0.0.1", "evil.example", "[::1", "")]
    [True, True, True, False, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in names or ip_address(name).is_loopback
    except ValueError:
        return False


# ---- what is answered -----------------------------------------------------------------------------------------------

REFUSALS = {
    400: "no JSON in UTF-8",
    408: "the body did not come in time",
    413: "too many texts, characters or bytes",
    415: "not said to be JSON",
    422: "JSON, but not what is expected",
    500: "the prediction failed",
    503: "too many requests wait",
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _answered(what: str, schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": what, **_json(schema)}}


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:79]}…"


async def _refused(request: Request, err: Any) -> Response:
    return JSONResponse({"error": err.detail}, err.status_code, err.headers)


async def _no_address(request: Request, err: Any) -> Response:
    return JSONResponse({"error": f"there is no {_cut(request.url.path)}, expected one of {ADDRESSES}"}, 404)


async def _no_method(request: Request, err: Any) -> Response:
    found = _cut(f"{request.method} {request.url.path}")
    return JSONResponse({"error": f"there is no {found}, expected one of {ADDRESSES}"}, 405, err.headers)


async def _failed(request: Request, err: Exception) -> Response:
    return JSONResponse({"error": "the prediction failed: the log of the server says why"}, 500)
