"""What a job is, and what follows from its record. Pure.

Times are epoch milliseconds: several gateways read them.
"""

import re
from enum import StrEnum

import msgspec

_ID = re.compile(r"[0-9a-f]{32}")
_CORRELATION_ID = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})")


class State(StrEnum):
    """What the store says of a job. That an open one is done, its results say."""

    OPEN = "open"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Status(StrEnum):
    """What the client is told."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"
    EXPIRED = "expired"


_DIGEST_BYTES = 32


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers need of the request: file names in order, and top_k, 0 for all labels.

    digests joins the SHA-256 digests of the pictures, in order. Jobs of older gateways have none.
    """

    filenames: list[str]
    top_k: int = 0
    request_id: str = ""
    digests: bytes = b""

    def sha256_of(self, index: int) -> str | None:
        """Of one picture, in hexadecimal; None if it is not known."""
        start = index * _DIGEST_BYTES
        return self.digests[start : start + _DIGEST_BYTES].hex() or None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A record. size_bytes is of all its pictures.

    key is the Idempotency-Key, empty for none, and fingerprint stands for all that was asked.
    publish_until_ms: by then it is acknowledged, or nobody was told of it; 0 once it is.
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
        """Nothing will be added any more."""
        return self.state is not State.OPEN or self.completed >= self.total


class Result(msgspec.Struct, frozen=True):
    """What one picture led to: a body that the store does not look into."""

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
    """Whether a job may have it."""
    return _ID.fullmatch(text) is not None


def correlation_id(job_id: str, index: int) -> str:
    return f"{job_id}.{index}"


def picture_of(correlation_id: str) -> tuple[str, int] | None:
    """The job's id and the picture's index; None if it is not a job's."""
    found = _CORRELATION_ID.fullmatch(correlation_id)
    return None if found is None else (found[1], int(found[2]))
