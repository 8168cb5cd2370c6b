"""The exceptions of the client.

MlaasError
├── PictureUnreadable  the picture could not be read, and nothing was sent: use another file, type or mode
├── Misconfigured      an environment variable names an unusable proxy or certificate: correct it
├── Unreachable        no gateway answers at this address: start one, or use another address
├── DeadlineExceeded   no answer in time (408, 504): try again, or allow more time
├── Refused            the request is at fault (400, 405, 413, 415, 422, 431): correct it
│   ├── Unauthorized       no API key or an unknown one (401, 403)
│   └── NotFound           no such model or job (404), or a job whose results have expired (410)
├── Overloaded         too many requests, after all retries (429): try again in retry_after_s seconds
├── Unavailable        no broker, no worker, or a shutdown, after all retries (503): the same
├── AnswerMismatch     the answer is about another picture or job: a proxy on the way mixes up answers
└── ServerFailed       the gateway or a worker failed (500), or its answer is invalid
"""

from collections.abc import Mapping
from typing import Any


class MlaasError(Exception):
    """problem is the RFC 9457 document, if any. request_id identifies the request in the gateway's log."""

    problem: Mapping[str, Any] = {}
    request_id: str = ""
    retry_after_s: float | None = None


# fmt: off
class PictureUnreadable(MlaasError): ...
class Misconfigured(MlaasError): ...
class Unreachable(MlaasError): ...
class DeadlineExceeded(MlaasError): ...
class Refused(MlaasError): ...
class Unauthorized(Refused): ...
class NotFound(Refused): ...
class Overloaded(MlaasError): ...
class Unavailable(MlaasError): ...
class AnswerMismatch(MlaasError): ...
class ServerFailed(MlaasError): ...


_KINDS: Mapping[int, type[MlaasError]] = {
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 410: NotFound,
    408: DeadlineExceeded, 504: DeadlineExceeded, 429: Overloaded, 503: Unavailable,
}
# fmt: on


def of_problem(
    problem: Mapping[str, Any], status: int, request_id: str = "", retry_after_s: float | None = None
) -> MlaasError:
    """The error for a problem document, which may be empty, and an HTTP status."""
    parts = [str(problem[part]) for part in ("title", "detail") if problem.get(part)]
    kind = _KINDS.get(status, Refused if status < 500 else ServerFailed)
    error = kind(": ".join(dict.fromkeys(parts)) or f"HTTP status {status}")
    error.problem, error.retry_after_s = problem, retry_after_s
    error.request_id = request_id or str(problem.get("request_id", ""))
    return error
