"""Every error leaves as a problem document (RFC 9457), or in the form of the API that it belongs to."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

from gateway.errors import ClientGone, GatewayError
from gateway.middleware import request_id

MEDIA_TYPE = "application/problem+json"

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_log = logging.getLogger("mlaas.gateway")

Responder = Callable[[int, str, Mapping[str, str]], Response]
"""Makes a response of a status, a detail and headers."""


class Problem(msgspec.Struct, frozen=True):
    """A problem document (RFC 9457). detail says what is wrong with this request."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


def document(error: GatewayError, its_request_id: str) -> Problem:
    return _document(error.kind, error.title, error.status, detail(error), its_request_id)


def detail(error: GatewayError) -> str:
    """A 5xx that is our own fault says no more than its title."""
    said = error.title if error.status == 500 else str(error)
    return said if error.index is None else f"picture {error.index}: {said}"


def respond(error: GatewayError, its_request_id: str) -> Response:
    return _response(document(error, its_request_id), _headers(error))


class Problems:
    """others: prefixes of paths whose errors have a form of their own."""

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
        """What the framework itself refuses: an unknown path, or a wrong method."""
        status, headers = error.status_code, dict(error.headers or {})
        said = error.detail if status < 500 else ""
        path = scope["path"].rstrip("/")
        if status == 404 and path != scope["path"] and allowed(scope["app"].routes, {**scope, "path": path}):
            said = f"{scope['path']} does not exist; use {path}, without a slash at its end"
        if status == 405:
            headers["Allow"] = ", ".join(allowed(scope["app"].routes, scope))
            if scope["method"] == "OPTIONS":
                return Response(None, 204, {"Allow": headers["Allow"]})
            said = f"method {scope['method']} is not allowed here; allowed: {headers['Allow']}"
        its_own = self._other(scope)
        if its_own is not None:
            return its_own(status, said, headers)
        title = HTTPStatus(status).phrase
        return _response(_document(f"http-{status}", title, status, said, request_id(scope)), headers)

    def install(self, app: FastAPI) -> None:
        app.add_exception_handler(GatewayError, self._on_gateway_error)
        app.add_exception_handler(ClientDisconnect, self._on_client_gone)
        app.add_exception_handler(HTTPException, self._on_http_exception)

    async def _on_gateway_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, GatewayError)
        return self.answer(request.scope, error)

    async def _on_client_gone(self, request: Request, _: Exception) -> Response:
        return self.answer(
            request.scope, ClientGone("the client closed the connection while sending the body")
        )

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return self.answer_http(request.scope, error)

    def _other(self, scope: Scope) -> Responder | None:
        path = scope["path"] + "/"
        return next((its_own for start, its_own in self._others.items() if path.startswith(start)), None)


def allowed(routes: Iterable[BaseRoute], scope: Scope) -> Sequence[str]:
    """The methods of all routes with the request's path, with HEAD and OPTIONS; none for an unknown path.

    Starlette's own 405 names the methods of the first route that has the path.
    """
    routes = list(routes)
    found = [method for method in _METHODS if any(_has(route, method, scope) for route in routes)]
    if not found:
        return ()
    return [*found, *(["HEAD"] if "GET" in found else []), "OPTIONS"]


def _has(route: BaseRoute, method: str, scope: Scope) -> bool:
    if isinstance(route, Mount) and method != "GET":  # static files
        return False
    asked = {"type": "http", "method": method, "path": scope["path"], "root_path": "", "headers": []}
    return route.matches(asked)[0] is Match.FULL


def _headers(error: GatewayError) -> dict[str, str]:
    """After 408 and 413 the rest of the body is not read."""
    closing = {"Connection": "close"} if error.status in (408, 413) else {}
    return {**error.headers, **closing}


def _document(kind: str, title: str, status: int, said: str, its_request_id: str) -> Problem:
    return Problem(f"urn:mlaas:problem:{kind}", title, status, said, its_request_id)


def _response(problem: Problem, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(problem), problem.status, headers, MEDIA_TYPE)
