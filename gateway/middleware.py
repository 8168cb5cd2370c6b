"""What every request passes. Pure ASGI: a BaseHTTPMiddleware would hide that a client hung up."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from random import getrandbits

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.asked import HEADER, shortened
from gateway.errors import ClientGone, GatewayError, SlowBody, TooLarge, TooManyInFlight, UnacceptedCoding
from gateway.metrics import GatewayMetrics

UNCOUNTED_BYTES = 65_536
"""uvicorn keeps as much of each connection, read or not. So small requests do not suffer from large ones."""

_TIMEOUT = HEADER.lower().encode()
_NO_CODING = frozenset({"", "identity"})

_UNCOUNTED = ("/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready")
_ACCEPTED_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context, version 00, which later versions are to be read as.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_CLOSE = (b"connection", b"close")

RawHeader = tuple[bytes, bytes]


class BodyMemory:
    """Of one process. One body is admitted whatever its size. Belongs to the event loop."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0

    def admit(self, size: int, counted: int = 0) -> None:
        """Raises TooManyInFlight without room for one of so many bytes, some of them counted before."""
        others = self._bytes - counted
        if others and others + size > self._most_bytes:
            raise TooManyInFlight(
                f"{others} bytes of other bodies are in memory; {size} more would exceed the limit"
            )

    def grow(self, size: int, counted: int) -> int:
        """Another part of one has come: it has so many bytes now. Returns how many are counted of it now."""
        self.admit(size, counted)
        self._bytes += size - counted
        return size

    def release(self, counted: int) -> None:
        """The body is not held any more."""
        self._bytes -= counted


def request_id(scope: Scope) -> str:
    """The one that Observing gave it."""
    return str(scope.get("state", {}).get("request_id", ""))


def traceparent(scope: Scope) -> str:
    """The request's W3C trace context; empty if there is none that is valid."""
    return str(scope.get("state", {}).get("traceparent", ""))


def owner_of(scope: Scope) -> str:
    """The name of the API key that the request came with; empty where there are no keys."""
    return str(scope.get("state", {}).get("api_key_name", ""))


class BodyLimit:
    """Refuses a body over the limit: at once if it says its length, else as soon as it is passed.

    And one that is compressed, that takes longer than timeout_ms, or than the client itself would wait, or
    for which there is no memory beside all others. more has the beginnings of paths that have a limit of
    their own, in bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int,
        max_bytes_in_memory: int,
        timeout_ms: int,
        more: Mapping[str, int],
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_ms = timeout_ms
        self._more = more
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
        max_bytes = self._limit(scope["path"])
        until = asyncio.get_running_loop().time() + timeout_ms / 1000
        read = counted = 0
        complete = False

        async def limited_receive() -> Message:
            nonlocal read, counted, complete
            if complete:
                return await receive()
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

    def _limit(self, path: str) -> int:
        return next((limit for start, limit in self._more.items() if path.startswith(start)), self._max_bytes)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request's body is over {max_bytes} bytes")


def _check_coding(codings: str) -> None:
    """Raises UnacceptedCoding. Codings are compared without case (RFC 9110, 8.4.1)."""
    for coding in codings.split(","):
        if coding.strip().lower() not in _NO_CODING:
            said = f"Content-Encoding {coding.strip()[:20]!r} is not accepted; send the body as it is"
            raise UnacceptedCoding(said)


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


@asynccontextmanager
async def while_connected(request: Request) -> AsyncIterator[None]:
    """Cancels what is inside when the client hangs up, and raises ClientGone. For after the body is read.

    Where there is a body that nobody asked for, raises what is wrong with it.
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
