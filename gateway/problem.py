"""Every error leaves as a problem document (RFC 9457)."""

import logging
from collections.abc import Callable, Mapping

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.middleware import request_id

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger("mlaas.gateway")


Responder = Callable[[int, str, Mapping[str, str]], Response]


def respond(error: GatewayError, its_request_id: str) -> Response:
    return _response(document(error, its_request_id), _headers(error))


def document(error: GatewayError, its_request_id: str) -> dict[str, object]:
    return _document(error.kind, error.title, error.status, detail(error), its_request_id)


def detail(error: GatewayError) -> str:
    """A 5xx that is our own fault says no more than its title."""
    said = error.title if error.status == 500 else str(error)
    return said if error.index is None else f"picture {error.index}: {said}"


def install(app: FastAPI, others: Mapping[str, Responder]) -> None:
    """others: beginnings of paths whose errors have a form of their own, given status, detail and headers."""

    def other(request: Request) -> Responder | None:
        path = request.url.path + "/"
        return next((its_own for start, its_own in others.items() if path.startswith(start)), None)

    @app.exception_handler(GatewayError)
    async def gateway_error(request: Request, error: GatewayError) -> Response:
        if error.status >= 500:
            _log.warning("request %s: %s: %s", request_id(request.scope), error.title, error)
        its_own = other(request)
        if its_own is not None:
            return its_own(error.status, detail(error), _headers(error))
        return respond(error, request_id(request.scope))

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        """What the framework itself refuses: an unknown path, a wrong method, a broken form."""
        kind = "http-" + str(error.status_code)
        headers = dict(error.headers or {})
        said = error.detail if error.status_code < 500 else ""
        its_own = other(request)
        if its_own is not None:
            return its_own(error.status_code, said, headers)
        document = _document(kind, said, error.status_code, said, request_id(request.scope))
        return _response(document, headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        its_own = other(request)
        if its_own is not None:
            return its_own(500, GatewayError.title, {})
        return respond(GatewayError(), request_id(request.scope))


def _headers(error: GatewayError) -> dict[str, str]:
    closing = {"Connection": "close"} if error.status == 413 else {}  # the rest of the body is not read
    return {**error.headers, **closing}


def _document(kind: str, title: str, status: int, detail: str, its_request_id: str) -> dict[str, object]:
    return {
        "type": f"urn:mlaas:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": its_request_id,
    }


def _response(document: dict[str, object], headers: dict[str, str]) -> Response:
    status = document["status"]
    assert isinstance(status, int)
    return Response(msgspec.json.encode(document), status, headers, MEDIA_TYPE)
