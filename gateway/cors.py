"""Web pages of other origins, where they are allowed to ask."""

from collections.abc import Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Inference-Header-Content-Length",
    "Last-Event-ID",
    "traceparent",
    "X-API-Key",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
)
_READ = (
    "Allow",
    "ETag",
    "Idempotent-Replayed",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "Server-Timing",
    "traceparent",
    "WWW-Authenticate",
    "X-Request-ID",
)
_OF_A_BODY = {"content-length", "content-type"}


class Cors(CORSMiddleware):
    """Starlette's, but that a preflight is answered as any OPTIONS is, with the permissions added.

    The browser finds from them itself what is not allowed.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(
            app, allow_origins=origins, allow_methods=_METHODS, allow_headers=_SENT, expose_headers=_READ
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "OPTIONS":
            return await super().__call__(scope, receive, send)
        asked = Headers(scope=scope)
        if not {"origin", "access-control-request-method"} <= set(asked):
            return await super().__call__(scope, receive, send)
        granted = self.preflight_response(asked).headers

        async def send_granted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({name: value for name, value in granted.items() if name not in _OF_A_BODY})
            await send(message)

        await self.app(scope, receive, send_granted)
