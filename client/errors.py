"""What can go wrong, named for what the caller does next.

MlaasError
├── PictureUnreadable  it cannot be read here, nothing was sent: another file, another type
├── Unreachable        no gateway answers at this address: start it, or ask another
├── DeadlineExceeded   no answer in time (408, 504): ask again, or allow more of it
├── Refused            the request is at fault (400, 405, 413, 415, 422, 431): repeating it does not help
│   ├── Unauthorized       no API key or a wrong one (401, 403)
│   └── NotFound           no such model or job (404), or a job whose results are over (410)
├── Overloaded         too much at once (429), after all retries: come back in retry_after_s
├── Unavailable        broker away, no worker, closing (503), after all retries: the same
└── ServerFailed       the gateway or a worker could not (500), or it was not understood
"""

from collections.abc import Mapping
from typing import Any


class MlaasError(Exception):
    """problem is the problem document (RFC 9457), empty where none came; request_id finds it in the log."""

    problem: Mapping[str, Any] = {}
    request_id: str = ""
    retry_after_s: float | None = None


# fmt: off
class PictureUnreadable(MlaasError): ...
class Unreachable(MlaasError): ...
class DeadlineExceeded(MlaasError): ...
class Refused(MlaasError): ...
class Unauthorized(Refused): ...
class NotFound(Refused): ...
class Overloaded(MlaasError): ...
class Unavailable(MlaasError): ...
class ServerFailed(MlaasError): ...


_KINDS: Mapping[int, type[MlaasError]] = {
    401: Unauthorized, 403: Unauthorized, 404: NotFound, 410: NotFound,
    408: DeadlineExceeded, 504: DeadlineExceeded, 429: Overloaded, 503: Unavailable,
}
# fmt: on


def of_problem(
    problem: Mapping[str, Any], status: int, request_id: str = "", retry_after_s: float | None = None
) -> MlaasError:
    """The error that a problem document stands for; an empty one is said by its status."""
    said = [str(problem[part]) for part in ("title", "detail") if problem.get(part)]
    kind = _KINDS.get(status, Refused if status < 500 else ServerFailed)
    error = kind(": ".join(dict.fromkeys(said)) or f"HTTP status {status}")
    error.problem, error.retry_after_s = problem, retry_after_s
    error.request_id = request_id or str(problem.get("request_id", ""))
    return error
