"""Pure ASGI middleware: a BaseHTTPMiddleware would hide that a client hung up."""

import re
import uuid
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import TooLarge

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(scope: Scope) -> str:
    """The one RequestIds gave it."""
    return str(scope.get("state", {}).get("request_id", ""))


def owner_of(scope: Scope) -> str:
    """The name of the API key that the request came with; empty where there are no keys."""
    return str(scope.get("state", {}).get("api_key_name", ""))


class RequestIds:
    """Takes X-Request-ID if it can be logged as it is, else makes one; returns it with the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get("x-request-id", "")
        its_id = given if _ACCEPTED_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = its_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = its_id
            await send(message)

        await self._app(scope, receive, send_with_id)


class BodyLimit:
    """Refuses a body over the limit: at once if it says its length, else as soon as it is passed.

    more has the beginnings of paths that have a limit of their own, in bytes.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, more: Mapping[str, int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._more = more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = Headers(scope=scope).get("content-length", "0")
        max_bytes = self._limit(scope["path"])
        read = 0

        async def limited_receive() -> Message:
            nonlocal read
            if declared.isdigit() and int(declared) > max_bytes:
                raise _too_large(max_bytes)
            message = await receive()
            read += len(message.get("body", b""))
            if read > max_bytes:
                raise _too_large(max_bytes)
            return message

        await self._app(scope, limited_receive, send)

    def _limit(self, path: str) -> int:
        return next((limit for start, limit in self._more.items() if path.startswith(start)), self._max_bytes)


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request's body is over {max_bytes} bytes")
