"""Every error leaves as the protocol has it."""

from collections.abc import Mapping

import msgspec
from starlette.responses import Response

PREFIX = "/v2/"


def respond(status: int, detail: str, headers: Mapping[str, str]) -> Response:
    """The protocol has 400 for whatever is wrong with a request."""
    body = msgspec.json.encode({"error": detail})
    return Response(body, 400 if status == 422 else status, headers, "application/json")
