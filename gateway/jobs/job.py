"""A job, the results of its pictures, and the ids that tie both to messages.

All times are epoch milliseconds, because gateways on different machines compare them.
"""

import re
import time
from enum import StrEnum

import msgspec

_ID = re.compile(r"[0-9a-f]{32}")
_CORRELATION_ID = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})")
_DIGEST_BYTES = 32


class State(StrEnum):
    """A job's state in the store. An open job is done once it has all its results."""

    OPEN = "open"
    CANCELED = "canceled"
    EXPIRED = "expired"


class Status(StrEnum):
    """A job's status as clients see it."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    DONE = "done"
    CANCELED = "canceled"
    EXPIRED = "expired"


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a request that its results are checked against and rendered with.

    top_k is 0 for all labels. version is the one that was asked for, or empty. digests concatenates the
    pictures' SHA-256 digests in order; it is empty in jobs created before digests were recorded.
    """

    filenames: list[str]
    top_k: int = 0
    version: str = ""
    request_id: str = ""
    digests: bytes = b""

    def sha256_of(self, index: int) -> str | None:
        """The hexadecimal digest of one picture, or None if it is unknown."""
        start = index * _DIGEST_BYTES
        return self.digests[start : start + _DIGEST_BYTES].hex() or None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job's record.

    key is the Idempotency-Key, empty if there is none; equal requests have equal fingerprints.
    publish_until_ms is 0 once the job is accepted; a job not accepted by then is abandoned. size_bytes is the
    total size of the pictures.
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
    request: JobRequest
    state: State = State.OPEN
    completed: int = 0

    @property
    def answered(self) -> int:
        """How many pictures have a prediction or a problem."""
        return self.total if self.state is State.EXPIRED else self.completed

    @property
    def is_over(self) -> bool:
        """Whether the job takes no more results."""
        return self.state is not State.OPEN or self.completed >= self.total


class Result(msgspec.Struct, frozen=True):
    """The result of one picture. Stores treat the body as opaque."""

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
    """Whether the text has the form of a job id."""
    return _ID.fullmatch(text) is not None


def correlation_id(job_id: str, index: int) -> str:
    return f"{job_id}.{index}"


def picture_of(correlation_id: str) -> tuple[str, int] | None:
    """The job id and picture index in a correlation id, or None if it is not that of a job's picture."""
    found = _CORRELATION_ID.fullmatch(correlation_id)
    return None if found is None else (found[1], int(found[2]))


def now_ms() -> int:
    return int(time.time() * 1000)
