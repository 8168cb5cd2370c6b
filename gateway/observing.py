"""Counting what is answered, and sending clients elsewhere when the process is about to end."""

import time
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.metrics import GatewayMetrics

_UNCOUNTED = ("/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready")


class Observing:
    """Counts each answer under its route's pattern, never its path: strangers choose paths."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, is_leaving: Callable[[], bool]) -> None:
        self._app = app
        self._metrics = metrics
        self._is_leaving = is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        status = 500

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._is_leaving():
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            if route not in _UNCOUNTED:
                self._metrics.answered(route, status, time.perf_counter() - started)
