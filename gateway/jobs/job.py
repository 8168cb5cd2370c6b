"""What a job is, and what follows from its record. Pure.

Times are epoch milliseconds, for several gateways read them.
"""

import re
from enum import StrEnum

import msgspec

_ID = re.compile(r"[0-9a-f]{32}")
_CORRELATION_ID = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})")
_DIGEST_BYTES = 32


class State(StrEnum):
    """What the store records of a job. Whether an open job is done follows from its results."""

    OPEN = "open"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Status(StrEnum):
    """What the client is told of a job."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers need of the request: file names in order, and top_k, 0 for all labels.

    digests joins the SHA-256 digests of the pictures, in order. Jobs of older gateways have none.
    """

    filenames: list[str]
    top_k: int = 0
    request_id: str = ""
    digests: bytes = b""

    def sha256_of(self, index: int) -> str | None:
        """The digest of one picture, in hexadecimal; None if it is not known."""
        start = index * _DIGEST_BYTES
        return self.digests[start : start + _DIGEST_BYTES].hex() or None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job's record. size_bytes is the size of all its pictures.

    key is the Idempotency-Key, empty for none; fingerprint is equal for equal requests. A job is acknowledged
    by publish_until_ms, or nobody was told of it; 0 once it is acknowledged.
    """

    id: str
    owner: str
    key: str = ""
    fingerprint: str = ""
    created_ms: int
    deadline_ms: int
    expires_ms: int
    publish_until_ms: int = 0
    total: int
    size_bytes: int
    asked: Asked
    state: State = State.OPEN
    completed: int = 0

    @property
    def is_over(self) -> bool:
        """Whether it takes no more results."""
        return self.state is not State.OPEN or self.completed >= self.total


class Result(msgspec.Struct, frozen=True):
    """What one picture led to. The store does not look into the body."""

    job_id: str
    index: int
    body: bytes


def status_of(job: Job) -> Status:
    if job.state is not State.OPEN:
        return Status(job.state.value)
    if job.completed >= job.total:
        return Status.DONE
    return Status.RUNNING if job.completed else Status.ACCEPTED


def is_id(text: str) -> bool:
    """Whether a job could have this id."""
    return _ID.fullmatch(text) is not None


def correlation_id(job_id: str, index: int) -> str:
    return f"{job_id}.{index}"


def picture_of(correlation_id: str) -> tuple[str, int] | None:
    """The id of the job and the index of the picture; None if it belongs to no job."""
    found = _CORRELATION_ID.fullmatch(correlation_id)
    return None if found is None else (found[1], int(found[2]))
