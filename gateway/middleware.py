"""What every request passes through, and what each route tells it.

The middlewares are plain ASGI: Starlette's BaseHTTPMiddleware would hide that a client hung up.
"""

import asyncio
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from random import getrandbits
from typing import Any, NamedTuple

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.asked import HEADER, shortened
from gateway.errors import ClientGone, GatewayError, SlowBody, TooLarge, TooManyInFlight, UnacceptedCoding
from gateway.metrics import GatewayMetrics
from messaging.tracing import CallSpan, CallSpans

UNCOUNTED_BYTES = 65_536
"""uvicorn buffers as much for each connection anyway, so smaller bodies never wait for larger ones."""

BELOW = "/{path:path}"
"""Ends the path of facts about all that is mounted below it."""

_TIMEOUT = HEADER.lower().encode()
_NO_CODING = frozenset({"", "identity"})

_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, version 00; later versions must be readable as this one.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")

# Of a path or a name that strangers choose.
_SHOWN = 100

RawHeader = tuple[bytes, bytes]

_access = logging.getLogger("mlaas.access")

_trace: ContextVar[str] = ContextVar("traceparent", default="")
_state: ContextVar[dict[str, Any] | None] = ContextVar("state", default=None)


class RouteFacts(NamedTuple):
    """How the middlewares treat a route. max_body_bytes: None for the limit of one picture."""

    needs_key: bool = True
    is_counted: bool = True
    max_body_bytes: int | None = None


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
        self.max_body_bytes = {
            path: its.max_body_bytes for path, its in self.facts.items() if its.max_body_bytes
        }
        self._open = {path for path, its in self.facts.items() if not its.needs_key}
        self._open_below = tuple(
            path.removesuffix(BELOW) + "/" for path in self._open if path.endswith(BELOW)
        )

    def is_open(self, path: str) -> bool:
        """Whether the path of a request needs no API key."""
        return path in self._open or path.startswith(self._open_below)


def request_id(scope: Scope) -> str:
    """The id that Observing gave the request."""
    return str(scope.get("state", {}).get("request_id", ""))


def owner_of(scope: Scope) -> str:
    """The name of the request's API key; empty on a gateway without keys."""
    return str(scope.get("state", {}).get("api_key_name", ""))


def traceparent() -> str:
    """The W3C trace context of the current request; empty if it has no valid one."""
    return _trace.get()


class Observing:
    """Identifies, times and counts every request, and answers errors that no route handled.

    Adds X-Request-ID, Server-Timing and a valid traceparent to each answer. Turns HEAD into GET without a
    body. Counts by the route's pattern rather than its path, which strangers choose. Closes connections
    while the process is leaving, so that clients go elsewhere.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: GatewayMetrics,
        uncounted: Collection[str],
        is_leaving: Callable[[], bool],
        answer: Callable[[Scope, GatewayError], Response],
        spans: CallSpans | None = None,
        access_log: "AccessLog | None" = None,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._uncounted = uncounted
        self._is_leaving = is_leaving
        self._answer = answer
        self._spans = spans
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, method = time.perf_counter(), scope["method"]
        if method == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        added = _identify(scope)
        span = self._start_span(scope)
        status = bytes_out = 0

        async def observed_send(message: Message) -> None:
            nonlocal status, bytes_out
            if message["type"] == "http.response.body":
                bytes_out += len(message.get("body", b""))
            elif message["type"] == "http.response.start":
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
            route = _route(scope)
            if span is not None:
                span.end(route, status or 500)
            if route not in self._uncounted:
                took_s = time.perf_counter() - started
                self._metrics.answered(route or "other", status or 500, took_s)
                if self._access_log is not None and self._access_log.has_room(status or 500):
                    self._access_log.write(scope, method, route, status or 500, took_s, bytes_out)

    def _start_span(self, scope: Scope) -> CallSpan | None:
        """None if the call is not recorded. If it is, messages sent for it will name its span."""
        if self._spans is None or scope["path"] in self._uncounted:
            return None
        span = self._spans.start(scope["method"], _trace.get())
        if span is not None:
            _trace.set(span.traceparent)
        return span


class AccessLog:
    """A line for each answer, at most lines_per_s in a second, then one that says how many are missing.

    Answers from status 500 on have as many lines of their own. For one event loop.
    """

    def __init__(self, lines_per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines_per_s = lines_per_s
        self._clock = clock
        self._ends_at = 0.0
        self._room = {False: 0, True: 0}
        self._left_out = 0

    def has_room(self, status: int) -> bool:
        """Whether to write a line for an answer with this status, which then counts."""
        if self._clock() >= self._ends_at:
            self.say_left_out()
            self._ends_at = self._clock() + 1.0
            self._room = dict.fromkeys(self._room, self._lines_per_s)
        failed = status >= 500
        if self._room[failed]:
            self._room[failed] -= 1
            return True
        if not self._left_out:  # perhaps there is no later answer to say it
            asyncio.get_running_loop().call_later(1.0, self.say_left_out)
        self._left_out += 1
        return False

    def write(
        self, scope: Scope, method: str, route: str, status: int, took_s: float, bytes_out: int
    ) -> None:
        state = scope.get("state", {})
        fields = {
            "method": method,
            "route": route,
            "path": "" if route else _shortened(scope["path"]),
            "status": status,
            "ms": round(took_s * 1000, 1),
            "bytes_in": state.get("bytes_in", 0),
            "bytes_out": 0 if method == "HEAD" else bytes_out,
            "request_id": request_id(scope),
            "trace_id": traceparent()[3:35],
            "key": owner_of(scope),
            "model": _shortened(state.get("model", "")),
        }
        _access.info("answered", extra={"fields": fields})

    def refused(self, status: int) -> None:
        """Write a line for an answer to what is no request."""
        if self.has_room(status):
            _access.info("refused what is not a valid request", extra={"fields": {"status": status}})

    def say_left_out(self) -> None:
        left_out, self._left_out = self._left_out, 0
        if left_out:
            said = "answers without a line: more came in a second than log.access_lines_per_s"
            _access.info(said, extra={"fields": {"left_out": left_out}})


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def note_model(name: str) -> None:
    """Have the access log name the model that answers the current request, if there is one."""
    if (state := _state.get()) is not None:
        state["model"] = name


def _route(scope: Scope) -> str:
    """The pattern of the route; empty before one is chosen, and for an unknown path."""
    return getattr(scope.get("route"), "path", "")


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


class BodyMemory:
    """What the bodies of all requests take in this process. A body alone is admitted whatever its size."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0

    def admit(self, size: int, counted: int = 0) -> None:
        """Raises TooManyInFlight without room for a body of this size, of which `counted` are in already."""
        others = self._bytes - counted
        if others and others + size > self._most_bytes:
            raise TooManyInFlight(
                f"{others} bytes of other bodies are in memory; {size} more would exceed the limit"
            )

    def grow(self, size: int, counted: int) -> int:
        """Count a body that has grown to this size. Returns the size, which is now counted."""
        self.admit(size, counted)
        self._bytes += size - counted
        return size

    def release(self, counted: int) -> None:
        self._bytes -= counted


class BodyLimit:
    """Refuses a body that is compressed, too large, too slow, or has no room in memory beside the others.

    A declared length is judged before anything is read. A body may take timeout_ms, or the time that the
    client itself allows. limits: in bytes, by route; max_bytes applies to all other routes.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        limits: Mapping[str, int],
        max_bytes_in_memory: int,
        timeout_ms: int,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._limits = limits
        self._timeout_ms = timeout_ms
        self._memory = BodyMemory(max_bytes_in_memory)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared, coding, timeout_ms = 0, "", self._timeout_ms
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit():
                declared = int(value[:20])
            elif name == b"content-encoding":
                coding += "," + value.decode("latin-1")
            elif name == _TIMEOUT:
                timeout_ms = shortened(value.decode("latin-1"), timeout_ms)
        until = asyncio.get_running_loop().time() + timeout_ms / 1000
        read = counted = 0
        complete = False

        async def limited_receive() -> Message:
            nonlocal read, counted, complete
            if complete:
                return await receive()
            max_bytes = self._limits.get(_route(scope), self._max_bytes)
            if coding:
                _check_coding(coding)
            if declared > max_bytes:
                raise _too_large(max_bytes)
            if declared > UNCOUNTED_BYTES and not read:
                self._memory.admit(declared)
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                said = f"only {read} bytes of the body arrived within {timeout_ms / 1000:g} s"
                raise SlowBody(f"{said}; send it faster, or make it smaller") from None
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > max_bytes:
                raise _too_large(max_bytes)
            if read > UNCOUNTED_BYTES:
                counted = self._memory.grow(read, counted)
            return message

        try:
            await self._app(scope, limited_receive, send)
        finally:
            self._memory.release(counted)
            scope.setdefault("state", {})["bytes_in"] = read


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request body is over {max_bytes} bytes")


def _check_coding(codings: str) -> None:
    """Raises UnacceptedCoding. Codings are case-insensitive (RFC 9110, 8.4.1)."""
    for coding in codings.split(","):
        if coding.strip().lower() not in _NO_CODING:
            said = f"Content-Encoding {coding.strip()[:20]!r} is not accepted; send the body uncompressed"
            raise UnacceptedCoding(said)


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancel the block when the client hangs up, and raise ClientGone. Enter it once the body is read.

    A body that the endpoint did not read is read here, and BodyLimit's errors about it are raised.
    """
    waiting = asyncio.current_task()
    assert waiting
    reason: GatewayError | None = None

    async def watch() -> None:
        nonlocal reason
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            reason = ClientGone("the client disconnected")
        except GatewayError as error:
            reason = error
        waiting.cancel()

    watching = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if reason is None:
            raise
        waiting.uncancel()
        raise reason from None
    finally:
        watching.cancel()
