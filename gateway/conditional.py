"""Answers that a client may keep, and ask about again (RFC 9110, ETag and If-None-Match)."""

import hashlib
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response


def respond(
    request: Request, body: bytes, media_type: str = "application/json", more: Mapping[str, str] | None = None
) -> Response:
    """The body with an ETag, or 304 for who has this very body.

    more are headers that go with each of them.
    """
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}  # keep it, and ask each time whether it still holds
    headers |= more or {}
    if _matches(request.headers.getlist("if-none-match"), etag):
        return Response(None, 304, headers)
    return Response(body, 200, headers, media_type)


def _matches(given: list[str], etag: str) -> bool:
    """The weak comparison, as GET and HEAD have it."""
    tags = [tag.strip() for line in given for tag in line.split(",")]
    return "*" in tags or etag in (tag.removeprefix("W/") for tag in tags)
