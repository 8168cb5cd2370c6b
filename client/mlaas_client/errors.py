"""What can go wrong, named for what the caller does next.

MlaasError
├── PictureUnreadable  the picture cannot be read here, nothing was sent: use another file, type or mode
├── Misconfigured      the environment names a proxy or certificates that cannot be used: correct the variable
├── Unreachable        no gateway answers at this address: start it, or name another
├── DeadlineExceeded   no answer in time (408, 504): try again, or allow more time
├── Refused            the request is at fault (400, 405, 413, 415, 422, 431): repeating it does not help
│   ├── Unauthorized       no API key or an unknown one (401, 403)
│   └── NotFound           no such model or job (404), or a job whose results have expired (410)
├── Overloaded         too many requests (429), after all retries: try again in retry_after_s
├── Unavailable        no broker, no worker, or a gateway that is closing (503), after all retries: the same
├── AnswerMismatch     the answer belongs to another picture or job: discard it, and do not use this route
└── ServerFailed       the gateway or a worker failed (500), or its answer could not be understood
"""

from collections.abc import Mapping
from typing import Any


class MlaasError(Exception):
    """problem is the problem document (RFC 9457), empty if there is none; request_id finds it in the log."""

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
    """The error that a problem document describes; without one, the status describes it."""
    said = [str(problem[part]) for part in ("title", "detail") if problem.get(part)]
    kind = _KINDS.get(status, Refused if status < 500 else ServerFailed)
    error = kind(": ".join(dict.fromkeys(said)) or f"HTTP status {status}")
    error.problem, error.retry_after_s = problem, retry_after_s
    error.request_id = request_id or str(problem.get("request_id", ""))
    return error
