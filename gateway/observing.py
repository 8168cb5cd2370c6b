"""What every request and every answer has: in one layer, since every picture passes it."""

import re
import time
from collections.abc import Callable, Iterable
from random import getrandbits

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import GatewayError
from gateway.metrics import GatewayMetrics

_UNCOUNTED = ("/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready")
_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, version 00, which later versions are to be read as.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")

RawHeader = tuple[bytes, bytes]


class Observing:
    """Returns X-Request-ID, a new one unless it can be logged as it is, and traceparent if it is valid.

    Asks what is under it GET for HEAD. Answers an error that no route answered. Counts each answer under its
    route's pattern, never its path: strangers choose paths. Sends clients elsewhere when the process is about
    to end.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: GatewayMetrics,
        is_leaving: Callable[[], bool],
        answer: Callable[[Scope, GatewayError], Response],
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._is_leaving = is_leaving
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = time.perf_counter()
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        added = _identify(scope)
        status = 0

        async def observed_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers: list[RawHeader] = [*message["headers"], *added]
                if not any(name == b"server-timing" for name, _ in headers):
                    took_ms = (time.perf_counter() - started) * 1000
                    headers.append((b"server-timing", b"total;dur=%.3f" % took_ms))
                if self._is_leaving():
                    headers.append(_CLOSE)
                message["headers"] = headers
            await send(message)

        try:
            await self._app(scope, receive, observed_send)
        except Exception as error:
            if status:
                raise
            ours = error if isinstance(error, GatewayError) else None
            await self._answer(scope, ours or GatewayError())(scope, receive, observed_send)
            if ours is None:
                raise
        finally:
            route = getattr(scope.get("route"), "path", "other")
            if route not in _UNCOUNTED:
                self._metrics.answered(route, status or 500, time.perf_counter() - started)


def _identify(scope: Scope) -> list[RawHeader]:
    """Puts the ids where gateway.middleware finds them. Returns what every answer has."""
    given, trace = _ids(scope["headers"])
    its_id = given.decode() if _ACCEPTED_ID.fullmatch(given) else f"{getrandbits(128):032x}"
    state = scope.setdefault("state", {})
    state["request_id"] = its_id
    added = [(b"x-request-id", its_id.encode()), _NO_SNIFFING]
    if _TRACEPARENT.fullmatch(trace):
        state["traceparent"] = trace.decode()
        added.append((b"traceparent", trace))
    return added


def _ids(headers: Iterable[RawHeader]) -> tuple[bytes, bytes]:
    """X-Request-ID and traceparent, which several together are not."""
    given = trace = b""
    for name, value in headers:
        if name == b"x-request-id":
            given = value
        elif name == b"traceparent":
            trace += value
    return given, trace


def _without_body(send: Send) -> Send:
    """Ends the answer with its head, also one that would go on for long."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})

    return send_head
