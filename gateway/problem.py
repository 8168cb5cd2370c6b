"""Every error leaves as a problem document (RFC 9457)."""

import logging

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.middleware import request_id

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger("mlaas.gateway")


def respond(error: GatewayError, its_request_id: str) -> Response:
    headers = dict(error.headers)
    if error.status == 413:
        headers["Connection"] = "close"  # the rest of the body is not read
    return _response(document(error, its_request_id), headers)


def document(error: GatewayError, its_request_id: str) -> dict[str, object]:
    """A 5xx that is our own fault says no more than its title."""
    detail = error.title if error.status == 500 else str(error)
    return _document(error.kind, error.title, error.status, detail, its_request_id)


def install(app: FastAPI) -> None:
    @app.exception_handler(GatewayError)
    async def gateway_error(request: Request, error: GatewayError) -> Response:
        if error.status >= 500:
            _log.warning("request %s: %s: %s", request_id(request.scope), error.title, error)
        return respond(error, request_id(request.scope))

    @app.exception_handler(HTTPException)
    async def http_exception(request: Request, error: HTTPException) -> Response:
        """What the framework itself refuses: an unknown path, a wrong method, a broken form."""
        kind = "http-" + str(error.status_code)
        headers = dict(error.headers or {})
        detail = error.detail if error.status_code < 500 else ""
        document = _document(kind, detail, error.status_code, detail, request_id(request.scope))
        return _response(document, headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        return respond(GatewayError(), request_id(request.scope))


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
