"""Pure ASGI middleware: a BaseHTTPMiddleware would hide that a client hung up."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.body_memory import UNCOUNTED_BYTES, BodyMemory
from gateway.deadline import HEADER, shortened
from gateway.errors import SlowBody, TooLarge, UnacceptedCoding

_TIMEOUT = HEADER.lower().encode()
_NO_CODING = frozenset({"", "identity"})


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
                raise SlowBody(f"{read} bytes of the body came within {timeout_ms / 1000:g} s") from None
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
