"""The shortest way to the busiest routes."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from fastapi.routing import APIRoute
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

Endpoint = Callable[[Request], Awaitable[Response]]


class Shortcut:
    """Calls an endpoint that takes a Request and returns a Response, past the framework's routing.

    Routing, and solving dependencies that such an endpoint has not, take longer than POST /predict itself.
    Errors meet the same handlers, by their type. Other requests go on to the app.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[APIRoute], handlers: Mapping[Any, Any]) -> None:
        self._app = app
        self._known = {
            (method, route.path): (route, ExceptionMiddleware(_asgi(route.endpoint), handlers))
            for route in routes
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._known.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if known is None:
            return await self._app(scope, receive, send)
        scope["route"], app = known
        await app(scope, receive, send)


def _asgi(endpoint: Endpoint) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app
