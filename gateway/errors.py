"""The errors a request can end with, named for what the caller can do about them.

GatewayError
├── Rejected            the request is at fault
│   ├── BrokenForm          400
│   ├── NotListed           403  a gateway without API keys cannot tell whose jobs are whose
│   ├── UnknownModel        404  no worker serves a model of that name
│   ├── UnknownJob          404  there is no such job, or it belongs to another API key
│   ├── SlowBody            408  the body did not arrive in time
│   ├── JobExpired          410  the job's results have been deleted
│   ├── TooLarge            413
│   ├── UnacceptedMedia     415
│   ├── UnacceptedCoding    415  the body is compressed
│   ├── InvalidRequest      422
│   ├── KeyReused           422  the Idempotency-Key was used for another job
│   └── NotAPicture         422
├── Unauthorized        401  no API key, or a wrong one
├── RateLimited         429  the API key exceeded its rate; retry after retry_after_s
├── TooManyInFlight     429  retry after retry_after_s
├── TooManyJobs         429  too many jobs are unfinished; retry after retry_after_s
├── ClientGone          499  the client hung up; only logs and metrics show it
├── WorkerFailed        500  the worker failed; no detail
├── Unavailable         503  broker away, no worker, or shutting down; retry after retry_after_s
└── ReplyTimeout        504  no worker answered in time
"""

import math
from collections.abc import Mapping
from typing import ClassVar

from messaging.picture_header import MEDIA_TYPES

PROBLEM_MEDIA_TYPE = "application/problem+json"


class GatewayError(Exception):
    """Becomes a problem document (RFC 9457)."""

    status: ClassVar[int] = 500
    kind: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
    fixed_headers: ClassVar[Mapping[str, str]] = {}
    retry_after_s: int | None = None
    index: int | None = None
    """Which of several pictures the error is about, counted from 0."""

    def __init__(self, detail: str = "", retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s or self.retry_after_s

    @property
    def headers(self) -> Mapping[str, str]:
        retry = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return {**self.fixed_headers, **retry}


class Rejected(GatewayError):
    """The request is at fault: repeating it unchanged does not help."""


class BrokenForm(Rejected):
    status = 400
    kind = "broken-form"
    title = "Invalid form"


class InvalidRequest(Rejected):
    status = 422
    kind = "invalid-request"
    title = "Invalid request"


class KeyReused(Rejected):
    status = 422
    kind = "idempotency-key-reused"
    title = "Idempotency-Key reused"


class NotAPicture(Rejected):
    status = 422
    kind = "not-a-picture"
    title = "Unreadable picture"


class UnacceptedMedia(Rejected):
    status = 415
    kind = "unaccepted-media-type"
    title = "Unsupported media type"
    fixed_headers: ClassVar = {"Accept": ", ".join(("multipart/form-data", *MEDIA_TYPES, "application/json"))}


class UnacceptedCoding(Rejected):
    status = 415
    kind = "unaccepted-coding"
    title = "Unsupported content coding"
    fixed_headers: ClassVar = {"Accept-Encoding": "identity"}


class TooLarge(Rejected):
    status = 413
    kind = "too-large"
    title = "Content too large"

    @classmethod
    def over(cls, what: str, size: int, unit: str, most: int, setting: str) -> "TooLarge":
        """In one wording: what came, the limit, and the setting that raises it."""
        return cls(f"{what} has {size} {unit}; at most {most} are accepted ({setting})")


class SlowBody(Rejected):
    status = 408
    kind = "slow-body"
    title = "Request timeout"


class Unauthorized(GatewayError):
    status = 401
    kind = "unauthorized"
    title = "Missing or invalid API key"
    fixed_headers: ClassVar = {"WWW-Authenticate": "Bearer"}


class RateLimited(GatewayError):
    """wait_s: in how many seconds the next request would be admitted."""

    status = 429
    kind = "rate-limited"
    title = "Too many requests with this API key"

    def __init__(self, detail: str = "", wait_s: float = 1) -> None:
        super().__init__(detail, math.ceil(wait_s))


class NotListed(Rejected):
    status = 403
    kind = "jobs-not-listed"
    title = "Jobs are not listed"


class UnknownModel(Rejected):
    status = 404
    kind = "unknown-model"
    title = "Unknown model"


class UnknownJob(Rejected):
    status = 404
    kind = "unknown-job"
    title = "Unknown job"


class JobExpired(Rejected):
    status = 410
    kind = "job-expired"
    title = "Job expired"


class ClientGone(GatewayError):
    status = 499
    kind = "client-gone"
    title = "Client closed the connection"


class TooManyInFlight(GatewayError):
    status = 429
    kind = "too-many-in-flight"
    title = "Too many requests in flight"
    retry_after_s = 1


class TooManyJobs(GatewayError):
    status = 429
    kind = "too-many-jobs"
    title = "Too many unfinished jobs"
    retry_after_s = 10


class Unavailable(GatewayError):
    status = 503
    kind = "unavailable"
    title = "Temporarily unavailable"
    retry_after_s = 2


class ReplyTimeout(GatewayError):
    status = 504
    kind = "reply-timeout"
    title = "No answer in time"


class WorkerFailed(GatewayError):
    """The detail is only logged."""

    title = "The worker failed"
    kind = "worker-failed"
