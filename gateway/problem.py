"""Errors as problem documents (RFC 9457), or in the form of the API they belong to."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount
from starlette.types import Scope

from gateway.errors import PROBLEM_MEDIA_TYPE, ClientGone, GatewayError
from gateway.middleware import request_id

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

_log = logging.getLogger("mlaas.gateway")


class Problem(msgspec.Struct, frozen=True):
    """A problem document (RFC 9457). detail says what is wrong with this request."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


class ErrorForm(NamedTuple):
    """How an API below a path of its own presents errors.

    respond makes a response of a status, a detail and headers. describe takes GatewayError classes and
    returns their OpenAPI responses by status.
    """

    prefix: str
    respond: Callable[[int, str, Mapping[str, str]], Response]
    describe: Callable[..., dict[int | str, dict[str, Any]]]


def form_of(path: str, forms: Iterable[ErrorForm]) -> ErrorForm | None:
    """The form for a path, whether it exists or not; None for problem documents."""
    return next((form for form in forms if f"{path}/".startswith(form.prefix)), None)


def document(error: GatewayError, its_request_id: str) -> Problem:
    return _document(error.kind, error.title, error.status, detail(error), its_request_id)


def detail(error: GatewayError) -> str:
    """What the client is told. A 500 reveals only its title."""
    said = error.title if error.status == 500 else str(error)
    return said if error.index is None else f"picture {error.index}: {said}"


class Problems:
    """The application's error handlers. forms: those of APIs that have their own."""

    def __init__(self, forms: Sequence[ErrorForm]) -> None:
        self._forms = forms

    def install(self, app: FastAPI) -> None:
        app.add_exception_handler(GatewayError, self._on_error)
        app.add_exception_handler(ClientDisconnect, self._on_error)
        app.add_exception_handler(HTTPException, self._on_http_exception)

    def answer(self, scope: Scope, error: Exception) -> Response:
        """The answer to a request that ended with this error. What is none of ours is an internal error."""
        if isinstance(error, ClientDisconnect):
            error = ClientGone("the client closed the connection while sending the body")
        elif not isinstance(error, GatewayError):
            error = GatewayError()
        if error.status >= 500:
            _log.warning("request %s: %s: %s", request_id(scope), error.title, error)
        # After 408 and 413 the rest of the body is not read.
        closing = {"Connection": "close"} if error.status in (408, 413) else {}
        headers = {**error.headers, **closing}
        form = form_of(scope["path"], self._forms)
        if form is not None:
            return form.respond(error.status, detail(error), headers)
        return _response(document(error, request_id(scope)), headers)

    async def _on_error(self, request: Request, error: Exception) -> Response:
        return self.answer(request.scope, error)

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        """Answer what the framework itself refuses: an unknown path, or a wrong method."""
        assert isinstance(error, HTTPException)
        scope, status, headers = request.scope, error.status_code, dict(error.headers or {})
        said = error.detail if status < 500 else ""
        if status == 404:
            said = f"{scope['path'][:100]} does not exist; /docs lists every call"
        path, routes = scope["path"].rstrip("/"), scope["app"].routes
        if status == 404 and path != scope["path"] and allowed(routes, {**scope, "path": path}):
            said = f"{scope['path']} does not exist; use {path}, without a trailing slash"
        if status == 405:
            headers["Allow"] = ", ".join(allowed(routes, scope))
            if scope["method"] == "OPTIONS":
                return Response(None, 204, {"Allow": headers["Allow"]})
            said = f"method {scope['method']} is not allowed here; allowed: {headers['Allow']}"
        form = form_of(scope["path"], self._forms)
        if form is not None:
            return form.respond(status, said, headers)
        title = HTTPStatus(status).phrase
        return _response(_document(f"http-{status}", title, status, said, request_id(scope)), headers)


def allowed(routes: Iterable[BaseRoute], scope: Scope) -> Sequence[str]:
    """The methods of all routes with the request's path, with HEAD and OPTIONS; none for an unknown path.

    Starlette's own 405 names only the methods of the first route that has the path.
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


def _document(kind: str, title: str, status: int, said: str, its_request_id: str) -> Problem:
    return Problem(f"urn:mlaas:problem:{kind}", title, status, said, its_request_id)


def _response(problem: Problem, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(problem), problem.status, headers, PROBLEM_MEDIA_TYPE)
