"""Every error leaves as a problem document (RFC 9457)."""

import logging
from collections.abc import Callable, Mapping
from http import HTTPStatus

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from gateway.errors import ClientGone, GatewayError
from gateway.methods import allowed
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


class Problems:
    """others: beginnings of paths whose errors have a form of their own, given status, detail and headers."""

    def __init__(self, others: Mapping[str, Responder]) -> None:
        self._others = others

    def answer(self, scope: Scope, error: GatewayError) -> Response:
        if error.status >= 500:
            _log.warning("request %s: %s: %s", request_id(scope), error.title, error)
        its_own = self._other(scope)
        if its_own is not None:
            return its_own(error.status, detail(error), _headers(error))
        return respond(error, request_id(scope))

    def answer_http(self, scope: Scope, error: HTTPException) -> Response:
        """What the framework itself refuses: an unknown path, a wrong method, a broken form."""
        status, headers = error.status_code, dict(error.headers or {})
        said = error.detail if status < 500 else ""
        path = scope["path"].rstrip("/")
        if status == 404 and path != scope["path"] and allowed(scope["app"].routes, {**scope, "path": path}):
            said = f"there is no {scope['path']}; there is {path}, without a slash at its end"
        if status == 405:
            headers["Allow"] = ", ".join(allowed(scope["app"].routes, scope))
            if scope["method"] == "OPTIONS":
                return Response(None, 204, {"Allow": headers["Allow"]})
            said = f"Method {scope['method']} is not allowed here; allowed: {headers['Allow']}"
        its_own = self._other(scope)
        if its_own is not None:
            return its_own(status, said, headers)
        title = HTTPStatus(status).phrase
        return _response(_document(f"http-{status}", title, status, said, request_id(scope)), headers)

    def install(self, app: FastAPI) -> None:
        @app.exception_handler(GatewayError)
        async def gateway_error(request: Request, error: GatewayError) -> Response:
            return self.answer(request.scope, error)

        @app.exception_handler(ClientDisconnect)
        async def client_gone(request: Request, _: ClientDisconnect) -> Response:
            return self.answer(request.scope, ClientGone("the client hung up while it sent the body"))

        @app.exception_handler(HTTPException)
        async def http_exception(request: Request, error: HTTPException) -> Response:
            return self.answer_http(request.scope, error)

    def _other(self, scope: Scope) -> Responder | None:
        path = scope["path"] + "/"
        return next((its_own for start, its_own in self._others.items() if path.startswith(start)), None)


def _headers(error: GatewayError) -> dict[str, str]:
    closing = (
        {"Connection": "close"} if error.status in (408, 413) else {}
    )  # the rest of the body is not read
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
