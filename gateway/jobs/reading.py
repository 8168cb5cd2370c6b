"""What requests about jobs ask for."""

import hashlib
import re
from collections.abc import Iterable

from starlette.requests import Request

from gateway.errors import GatewayError, InvalidRequest, TooLarge
from gateway.jobs.rendering import refused
from gateway.jobs.submitting import Picture
from gateway.picture import check
from gateway.query import Query, check_names
from gateway.upload import Upload

DONE = "done"

_WAIT = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)")
_EVENT_ID = re.compile(r"[0-9]{1,6}")


def read_wait(request: Request, most_ms: int) -> float:
    """Seconds, at most so many milliseconds; 0 if it is not asked for. Raises InvalidRequest."""
    check_names(request.query_params, ("wait",))
    given = request.query_params.get("wait")
    if given is None:
        return 0.0
    found = _WAIT.fullmatch(given)
    if found is None:
        raise InvalidRequest(f"wait {given[:20]!r} is not a number with s or ms, as 20s or 500ms")
    return min(float(found[1]) * {"s": 1.0, "ms": 0.001}[found[2]], most_ms / 1000)


def read_last_event_id(request: Request) -> int | None:
    """How many events were seen; None if all. Raises InvalidRequest."""
    given = request.headers.get("last-event-id", "")
    if given == DONE:
        return None
    if given and not _EVENT_ID.fullmatch(given):
        raise InvalidRequest(f"Last-Event-ID {given[:20]!r} is not the id of an event from here")
    return int(given or 0)


def judge(
    uploads: Iterable[Upload], request_id: str, *, max_bytes: int, max_pixels: int, most_together: int
) -> list[Picture]:
    """What can be told of each without decoding it: its media type, or why it is refused. Raises TooLarge."""
    pictures = [_judge(upload, request_id, max_bytes, max_pixels) for upload in uploads]
    together = sum(len(picture.content) for picture in pictures)
    if together > most_together:
        raise TooLarge(f"the pictures have {together} bytes; a job may have {most_together}")
    return pictures


def fingerprint(uploads: Iterable[Upload], asked: Query) -> str:
    """The same for the same request."""
    digest = hashlib.sha256(repr(asked).encode())
    for content, declared, filename in uploads:
        parts = (hashlib.sha256(content).hexdigest(), declared, filename)
        digest.update(repr(parts).encode())
    return digest.hexdigest()


def _judge(upload: Upload, request_id: str, max_bytes: int, max_pixels: int) -> Picture:
    filename = upload.filename[:255]
    try:
        media_type = check(upload.content, upload.declared, max_bytes=max_bytes, max_pixels=max_pixels)
    except GatewayError as error:
        return Picture(filename, b"", "", refused(error, request_id))
    return Picture(filename, upload.content, media_type)
