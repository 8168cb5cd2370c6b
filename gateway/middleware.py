"""What every request passes through, and what each route tells it."""

import re
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from random import getrandbits
from typing import Any, NamedTuple

from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api_keys import ApiKeys
from gateway.body import Body, BodyBounds, BodyLimit, Call, pattern_of
from gateway.errors import GatewayError
from gateway.http_protocol import Cycle, RawHeader
from gateway.metrics import AccessLog, GatewayMetrics
from messaging.tracing import CallSpan, CallSpans

BELOW = "/{path:path}"
"""Ends the path of facts about all that is mounted below it."""

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, version 00; later versions must be readable as this one.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")
_JSON = (b"content-type", b"application/json")

_trace: ContextVar[str] = ContextVar("traceparent", default="")
_state: ContextVar[dict[str, Any] | None] = ContextVar("state", default=None)


class RouteFacts(NamedTuple):
    """How the middlewares treat a route. body: what it may have; None for the limit of one picture."""

    needs_key: bool = True
    is_counted: bool = True
    body: BodyLimit | None = None


PROBE = RouteFacts(needs_key=False, is_counted=False)
_ORDINARY = RouteFacts()


class Router(APIRouter):
    """A router whose routes also state their facts, by path."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.facts: dict[str, RouteFacts] = {}

    def add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Any],
        facts: RouteFacts = _ORDINARY,
        **documented: Any,
    ) -> None:
        """Add a route. documented: FastAPI's arguments. All methods of a path must have the same facts."""
        if self.facts.setdefault(path, facts) != facts:
            raise ValueError(f"another method of {path} has other facts")
        self.add_api_route(path, endpoint, methods=[method], response_model=None, **documented)


class RouteTable:
    """The facts of all routes, as the middlewares look them up. A path without a route needs a key."""

    def __init__(self, routers: Iterable[Router]) -> None:
        self.facts = {path: facts for router in routers for path, facts in router.facts.items()}
        self.uncounted = {path for path, its in self.facts.items() if not its.is_counted}
        self.bodies = {path: its.body for path, its in self.facts.items() if its.body}
        self._open = {path for path, its in self.facts.items() if not its.needs_key}
        self._open_below = tuple(
            path.removesuffix(BELOW) + "/" for path in self._open if path.endswith(BELOW)
        )

    def is_open(self, path: str) -> bool:
        """Whether the path of a request needs no API key."""
        return path in self._open or path.startswith(self._open_below)


def request_id(scope: Scope) -> str:
    """The id that the middleware gave the request."""
    return str(scope.get("state", {}).get("request_id", ""))


def owner_of(scope: Scope) -> str:
    """The name of the request's API key; empty on a gateway without keys."""
    return str(scope.get("state", {}).get("api_key_name", ""))


def traceparent() -> str:
    """The W3C trace context of the current request; empty if it has no valid one."""
    return _trace.get()


class Middleware:
    """The one layer around the routes: what each request passes through, in this order.

    It identifies the request, starts its span, asks for its key, bounds its body, calls its endpoint, answers
    errors that no route handled, counts and logs the answer. Requests of the busiest routes go to their
    endpoints directly, the others to the app, which finds their route.

    Adds X-Request-ID, Server-Timing and a valid traceparent to each answer. Turns HEAD into GET without a
    body. Counts by the route's pattern rather than its path, which strangers choose. Closes connections
    while the process is leaving, so that clients go elsewhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        busiest: Iterable[APIRoute],
        table: RouteTable,
        keys: ApiKeys | None,
        bounds: BodyBounds,
        metrics: GatewayMetrics,
        is_leaving: Callable[[], bool],
        answer: Callable[[Scope, Exception], Response],
        spans: CallSpans | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        """busiest: their endpoints take a request and return a Response. answer: see Problems."""
        self._app = app
        self._busiest = {(method, route.path): route for route in busiest for method in route.methods or ()}
        self._uncounted = table.uncounted
        self._keys = keys
        self._bounds = bounds
        self._metrics = metrics
        self._is_leaving = is_leaving
        self._answer = answer
        self._spans = spans
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        method = scope["method"]
        if method == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        reply = Reply(send, _identify(scope), self._is_leaving)
        span = self._start_span(scope)
        body = Body(scope, receive, self._bounds)
        try:
            if self._keys is not None:
                self._keys.check(scope)
            route = self._busiest.get((scope["method"], scope["path"]))
            if route is None:
                await self._app(scope, body.receive, reply.send)
            else:
                scope["route"] = route
                await reply.give(await route.endpoint(Call(scope, body)), scope)
        except Exception as error:
            if reply.status:
                raise
            await self._answer(scope, error)(scope, receive, reply.send)
            if not isinstance(error, (GatewayError, ClientDisconnect)):
                raise
        finally:
            body.release()
            route_path, status = pattern_of(scope), reply.status or 500
            if span is not None:
                span.end(route_path, status)
            if route_path not in self._uncounted:
                took_s = reply.took_s()
                self._metrics.answered(route_path or "other", status, took_s)
                log = self._access_log
                if log is not None and log.has_room(status):
                    log.write(log_fields(scope, method, status, took_s, body.read_bytes, reply.bytes_out))

    def _start_span(self, scope: Scope) -> CallSpan | None:
        """None if the call is not recorded. If it is, messages sent for it will name its span."""
        if self._spans is None or scope["path"] in self._uncounted:
            return None
        span = self._spans.start(scope["method"], _trace.get())
        if span is not None:
            _trace.set(span.traceparent)
        return span


class Answer(Response):
    """A JSON answer whose headers are bytes from the beginning. more: in lower case, and safe to send."""

    def __init__(self, body: bytes, *more: RawHeader) -> None:
        self.status_code = 200
        self.background = None
        self.body = body
        self.raw_headers = [(b"content-length", b"%d" % len(body)), _JSON, *more]


class Reply:
    """The answer to a request as it is sent, with the headers that every answer has."""

    def __init__(self, send: Send, added: list[RawHeader], is_leaving: Callable[[], bool]) -> None:
        self._send = send
        self._added = added
        self._is_leaving = is_leaving
        self._started = time.perf_counter()
        self.status = 0
        self.bytes_out = 0

    def took_s(self) -> float:
        return time.perf_counter() - self._started

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        elif message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._completed(message["headers"])
        await self._send(message)

    async def give(self, response: Response, scope: Scope) -> None:
        """Send a whole response: an Answer in one piece, past ASGI's messages, where that is possible."""
        cycle = Cycle.of(self._send) if isinstance(response, Answer) else None
        if cycle is not None and cycle.answer(
            response.status_code, self._completed(response.raw_headers), bytes(response.body)
        ):
            self.status, self.bytes_out = response.status_code, len(response.body)
        else:
            await response(scope, _nothing_comes, self.send)

    def _completed(self, given: Iterable[RawHeader]) -> list[RawHeader]:
        headers = [*given, *self._added]
        if not any(name == b"server-timing" for name, _ in headers):
            headers.append((b"server-timing", b"total;dur=%.3f" % (self.took_s() * 1000)))
        if self._is_leaving():
            headers.append(_CLOSE)
        return headers


async def _nothing_comes() -> Message:
    """For responses that read nothing."""
    raise AssertionError("a response has read from the client")


def log_fields(
    scope: Scope, method: str, status: int, took_s: float, bytes_in: int, bytes_out: int
) -> dict[str, object]:
    """What the access log says of an answer."""
    route = pattern_of(scope)
    return {
        "method": method,
        "route": route,
        "path": "" if route else scope["path"],
        "status": status,
        "ms": round(took_s * 1000, 1),
        "bytes_in": bytes_in,
        "bytes_out": 0 if method == "HEAD" else bytes_out,
        "request_id": request_id(scope),
        "trace_id": traceparent()[3:35],
        "key": owner_of(scope),
        "model": scope.get("state", {}).get("model", ""),
    }


def note_model(name: str) -> None:
    """Have the access log name the model that answers the current request, if there is one."""
    if (state := _state.get()) is not None:
        state["model"] = name


def _identify(scope: Scope) -> list[RawHeader]:
    """Keep the ids for request_id() and traceparent(); return the headers that every answer has."""
    given = trace = b""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value
        elif name == b"traceparent":
            trace += value  # several together are not valid
    its_id = given.decode() if _ACCEPTED_ID.fullmatch(given) else f"{getrandbits(128):032x}"
    state = scope.setdefault("state", {})
    state["request_id"] = its_id
    _state.set(state)
    added = [(b"x-request-id", its_id.encode()), _NO_SNIFFING]
    if _TRACEPARENT.fullmatch(trace):
        added.append((b"traceparent", trace))
    else:
        trace = b""
    _trace.set(trace.decode())  # always: a pipelined request starts in the context of the one before it
    return added


def _without_body(send: Send) -> Send:
    """End the answer after its head, even one that would stream for long."""

    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send(message)
            await send({"type": "http.response.body"})

    return send_head
