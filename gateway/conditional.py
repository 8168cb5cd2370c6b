"""Answers that a client may keep, and ask about again (RFC 9110, ETag and If-None-Match)."""

import hashlib

from starlette.requests import Request
from starlette.responses import Response


def respond(request: Request, body: bytes) -> Response:
    """JSON with an ETag, or 304 for who has this very body; to HEAD the same without the body."""
    etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}  # keep it, and ask each time whether it still holds
    if _matches(request.headers.getlist("if-none-match"), etag):
        return Response(None, 304, headers)
    if request.method == "HEAD":
        headers["Content-Length"] = str(len(body))
        return Response(None, 200, headers, "application/json")
    return Response(body, 200, headers, "application/json")


def _matches(given: list[str], etag: str) -> bool:
    """The weak comparison, as GET and HEAD have it."""
    tags = [tag.strip() for line in given for tag in line.split(",")]
    return "*" in tags or etag in (tag.removeprefix("W/") for tag in tags)
