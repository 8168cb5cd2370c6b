"""Server-sent events, as the HTML Standard has them."""

import logging
from collections.abc import AsyncIterator

import msgspec

from gateway.errors import GatewayError
from gateway.jobs.reading import DONE
from gateway.jobs.rendering import Document, Event

_log = logging.getLogger("mlaas.jobs")

MEDIA_TYPE = "text/event-stream"
# no-transform and X-Accel-Buffering: proxies are to hand on each event at once.
HEADERS = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}

_RETRY_MS = 1_000


async def encode(found: AsyncIterator[Event | Document | None]) -> AsyncIterator[bytes]:
    """Where it cannot go on the stream ends, for there is no status any more; the client comes again."""
    yield f"retry: {_RETRY_MS}\n\n".encode()
    try:
        async for each in found:
            yield _encoded(each)
    except GatewayError as error:
        _log.warning("event stream: %s: %s", error.title, error)


def _encoded(each: Event | Document | None) -> bytes:
    if each is None:
        return b": still waiting\n\n"
    if isinstance(each, Event):
        return _event(str(each.number), "result", each.entry)
    return _event(DONE, "done", each)


def _event(number: str, kind: str, data: Document) -> bytes:
    """JSON has no line breaks outside of strings, and escapes those within."""
    return f"id: {number}\nevent: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"
