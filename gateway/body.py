"""A request's body: its bounds, what all bodies may take together, and whether the client is still there."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import NamedTuple

from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from gateway.asked import FORM_OVERHEAD_BYTES, RAW_HEADER, shortened
from gateway.errors import ClientGone, GatewayError, SlowBody, TooLarge, TooManyInFlight, UnacceptedCoding
from gateway.http_protocol import Cycle

UNCOUNTED_BYTES = 65_536
"""uvicorn buffers as much for each connection anyway, so smaller bodies never wait for larger ones."""

_NO_CODING = frozenset({"", "identity"})
_HUNG_UP = "the client disconnected"


def pattern_of(scope: Scope) -> str:
    """The pattern of the route; empty before one is chosen, and for an unknown path."""
    return getattr(scope.get("route"), "path", "")


class BodyLimit(NamedTuple):
    """What a body may have, and the settings that say so, in words."""

    most_bytes: int
    setting: str

    def exceeded(self, size: int, unit: str = "bytes") -> TooLarge:
        return TooLarge.over("the request body", size, unit, self.most_bytes, self.setting)


def body_of_form(most_bytes: int, setting: str) -> BodyLimit:
    """For files of most_bytes together."""
    return BodyLimit(most_bytes + FORM_OVERHEAD_BYTES, f"{setting}, and {FORM_OVERHEAD_BYTES} for a form")


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


class BodyBounds:
    """What a body may be, and what those of all requests may take together.

    limits: by route; usual applies to all other routes. A body may take timeout_ms, or the time that the
    client itself allows.
    """

    def __init__(
        self, usual: BodyLimit, limits: Mapping[str, BodyLimit], max_bytes_in_memory: int, timeout_ms: int
    ) -> None:
        self.memory = BodyMemory(max_bytes_in_memory)
        self.timeout_ms = timeout_ms
        self._usual = usual
        self._limits = limits

    def limit(self, route: str) -> BodyLimit:
        return self._limits.get(route, self._usual)


class Body:
    """A request's body as it comes. Refused if it is compressed, too large, too slow, or has no room.

    A declared length is judged before anything is read.
    """

    def __init__(self, scope: Scope, receive: Receive, bounds: BodyBounds) -> None:
        self._scope = scope
        self._receive = receive
        self._bounds = bounds
        self._cycle = Cycle.of(receive)
        self._started = time.monotonic()
        self._declared: int | None = None
        self._timeout_ms = bounds.timeout_ms
        self._coding = ""
        self._counted = 0
        self._complete = False
        self.read_bytes = 0

    def take(self) -> bytes | None:
        """The whole body, if it is here; None if it has to be received. Raises Rejected."""
        body = None
        if self._cycle is not None and not self.read_bytes:
            limit = self._judged_head()
            body = self._cycle.take_body()
        if body is not None:
            self._count(len(body), limit)
            self._complete = True
        return body

    async def receive(self) -> Message:
        """As ASGI's. Raises Rejected and TooManyInFlight."""
        if self._complete:
            return await self._receive()
        limit = self._judged_head()
        if self._cycle is not None and self._cycle.has_news:
            message = await self._receive()
        else:
            message = await self._received_in_time()
        self._complete = not message.get("more_body", False)
        self._count(len(message.get("body", b"")), limit)
        return message

    def cycle_if_read(self) -> Cycle | None:
        """Whose end tells that the client hung up, as there is nothing left to receive."""
        cycle = self._cycle
        return cycle if cycle is not None and not cycle.more_body and not cycle.body else None

    def release(self) -> None:
        self._bounds.memory.release(self._counted)

    def _judged_head(self) -> BodyLimit:
        """What the body may have at most. Raises Rejected, and TooManyInFlight."""
        if self._declared is None:
            self._read_head()
        limit = self._bounds.limit(pattern_of(self._scope))
        if self._coding:
            _check_coding(self._coding)
        declared = self._declared or 0
        if declared > limit.most_bytes:
            raise limit.exceeded(declared)
        if declared > UNCOUNTED_BYTES and not self.read_bytes:
            self._bounds.memory.admit(declared)
        return limit

    def _read_head(self) -> None:
        self._declared = 0
        for name, value in self._scope["headers"]:
            if name == b"content-length" and value.isdigit():
                self._declared = int(value[:20])
            elif name == b"content-encoding":
                self._coding += "," + value.decode("latin-1")
            elif name == RAW_HEADER:
                self._timeout_ms = shortened(value.decode("latin-1"), self._timeout_ms)

    async def _received_in_time(self) -> Message:
        left_s = self._started + self._timeout_ms / 1000 - time.monotonic()
        try:
            async with asyncio.timeout(left_s):
                return await self._receive()
        except TimeoutError:
            said = f"only {self.read_bytes} bytes of the body arrived within {self._timeout_ms / 1000:g} s"
            raise SlowBody(f"{said}; send it faster, or make it smaller") from None

    def _count(self, size: int, limit: BodyLimit) -> None:
        self.read_bytes += size
        if self.read_bytes > limit.most_bytes:
            raise limit.exceeded(self.read_bytes, "bytes so far")
        if self.read_bytes > UNCOUNTED_BYTES:
            self._counted = self._bounds.memory.grow(self.read_bytes, self._counted)


class Call(Request):
    """A request that the framework has not seen, whose body may be here already."""

    def __init__(self, scope: Scope, coming: Body) -> None:
        super().__init__(scope, coming.receive)
        self._coming = coming
        self._whole: bytes | None = None

    async def body(self) -> bytes:
        whole = self._taken()
        return await super().body() if whole is None else whole

    async def stream(self) -> AsyncGenerator[bytes, None]:
        whole = self._taken()
        if whole is not None:
            yield whole
            return
        async for part in super().stream():
            yield part

    def _taken(self) -> bytes | None:
        if self._whole is None:
            self._whole = self._coming.take()
        return self._whole


def _check_coding(codings: str) -> None:
    """Raises UnacceptedCoding. Codings are case-insensitive (RFC 9110, 8.4.1)."""
    for coding in codings.split(","):
        if coding.strip().lower() not in _NO_CODING:
            said = f"Content-Encoding {coding.strip()[:20]!r} is not accepted; send the body uncompressed"
            raise UnacceptedCoding(said)


def while_connected(request: Request) -> AbstractAsyncContextManager[None]:
    """Cancel the block when the client hangs up, and raise ClientGone. Enter it once the body is read.

    A body that the endpoint did not read is read here, and its errors are raised.
    """
    body = getattr(request.receive, "__self__", None)
    cycle = body.cycle_if_read() if isinstance(body, Body) else None
    return _watching(request) if cycle is None else _Connected(cycle)


class _Connected:
    """The block is told by the connection itself."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle
        self._is_gone = False

    async def __aenter__(self) -> None:
        self._waiting = asyncio.current_task()
        if self._cycle.disconnected:
            raise ClientGone(_HUNG_UP)
        self._cycle.on_hang_up(self._stop)

    def _stop(self) -> None:
        assert self._waiting
        self._is_gone = True
        self._waiting.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._cycle.on_hang_up(None)
        if self._is_gone and kind is asyncio.CancelledError:
            assert self._waiting
            self._waiting.uncancel()
            raise ClientGone(_HUNG_UP) from None


@asynccontextmanager
async def _watching(request: Request) -> AsyncIterator[None]:
    """The block is told by a task of its own, which receives what comes."""
    waiting = asyncio.current_task()
    assert waiting
    reason: GatewayError | None = None

    async def watch() -> None:
        nonlocal reason
        try:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            reason = ClientGone(_HUNG_UP)
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
