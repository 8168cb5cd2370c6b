"""What requests about jobs ask for."""

import hashlib
import re
from collections.abc import Iterable, Sequence

from starlette.requests import Request

from gateway.errors import GatewayError, InvalidRequest, TooLarge
from gateway.jobs.submitting import Picture
from gateway.picture import check
from gateway.query import Query, check_names
from gateway.upload import Upload

DONE = "done"

_KEY = re.compile(r"[!-~]{1,255}")
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


def read_key(request: Request) -> str:
    """The Idempotency-Key; empty if there is none. Raises InvalidRequest."""
    given = request.headers.get("idempotency-key")
    if given is None:
        return ""
    if not _KEY.fullmatch(given):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible ASCII characters")
    return given


def read_last_event_id(request: Request) -> int | None:
    """How many events were seen; None if all. Raises InvalidRequest."""
    given = request.headers.get("last-event-id", "")
    if given == DONE:
        return None
    if given and not _EVENT_ID.fullmatch(given):
        raise InvalidRequest(f"Last-Event-ID {given[:20]!r} is not the id of an event from here")
    return int(given or 0)


def judge(uploads: Iterable[Upload], *, max_bytes: int, max_pixels: int, most_together: int) -> list[Picture]:
    """Find each picture's media type, or why it is refused, without decoding it.

    Raises TooLarge, and the first refusal if every picture is refused: such a job costs no worker's time, so
    nothing but the disk would bound how many are stored.
    """
    pictures = [_judge(upload, max_bytes, max_pixels) for upload in uploads]
    refusals = [picture.refusal for picture in pictures if picture.refusal]
    if len(refusals) == len(pictures):
        refusals[0].index = 0 if len(pictures) > 1 else None
        raise refusals[0]
    together = sum(len(picture.content) for picture in pictures)
    if together > most_together:
        raise TooLarge(f"the pictures have {together} bytes; a job may have {most_together}")
    return pictures


def digests(uploads: Iterable[Upload]) -> list[bytes]:
    """The SHA-256 digest of each picture."""
    return [hashlib.sha256(upload.content).digest() for upload in uploads]


def fingerprint(uploads: Sequence[Upload], their_digests: Sequence[bytes], asked: Query) -> str:
    """Equal for equal requests."""
    whole = hashlib.sha256(repr(asked).encode())
    for upload, digest in zip(uploads, their_digests, strict=True):
        parts = (digest.hex(), upload.declared, upload.filename)
        whole.update(repr(parts).encode())
    return whole.hexdigest()


def _judge(upload: Upload, max_bytes: int, max_pixels: int) -> Picture:
    filename = upload.filename[:255]
    try:
        header = check(upload.content, upload.declared, max_bytes=max_bytes, max_pixels=max_pixels)
    except GatewayError as error:
        return Picture(filename, b"", "", error)
    return Picture(filename, upload.content, header.media_type)
