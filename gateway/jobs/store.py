"""A job, its results, the ids that tie both to messages, and the interface of what keeps them.

All times are epoch milliseconds, because gateways on different machines compare them.
"""

import asyncio
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, StrEnum
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

import msgspec

from gateway.errors import Unavailable

_ID = re.compile(r"[0-9a-f]{32}")
_CORRELATION_ID = re.compile(r"([0-9a-f]{32})\.([0-9]{1,6})")
_DIGEST_BYTES = 32
_THREADS = 4

P = ParamSpec("P")
T = TypeVar("T")


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


class StoreError(Exception):
    """The store failed. Stores raise no other exception."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or did not answer in time. Try again later."""


class Limits(NamedTuple):
    """Bounds on all unfinished jobs in the store together."""

    max_pictures: int
    max_bytes: int


class Creation(Enum):
    CREATED = "created"
    KEY_TAKEN = "key taken"
    FULL = "full"


class Added(NamedTuple):
    """Counts of results: newly stored, already stored, and rejected because no open job takes them."""

    stored: int
    duplicates: int
    unknown: int


class Progress(NamedTuple):
    state: State
    completed: int


class Store(Protocol):
    """Thread-safe and blocking. Every call finishes in bounded time or raises StoreError.

    Calls are atomic and may be repeated. now_ms is the current time in epoch milliseconds; an open job whose
    deadline has passed at now_ms expires for good.
    """

    def identity(self) -> str:
        """An id shared by all users of this store and by no other store."""

    def create(
        self, job: Job, results: Sequence[Result], limits: Limits, now_ms: int
    ) -> tuple[Creation, Job | None]:
        """Store a new job and its first results.

        KEY_TAKEN comes with the owner's existing job of that key. A job releases its key at expires_ms, or at
        publish_until_ms if it was never accepted. FULL means the limits would be exceeded.
        """

    def accept(self, job_id: str, now_ms: int) -> bool:
        """Mark the job as accepted. Returns False if it is gone or past publish_until_ms."""

    def remove(self, job_id: str) -> bool:
        """Delete the job unless it is accepted. Returns whether it is gone."""

    def get(self, job_id: str, now_ms: int, after: int = 0) -> tuple[Job, Sequence[Result]] | None:
        """The job and its results in the order they were stored, skipping the first `after`."""

    def progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        """The progress of each of these jobs that exists."""

    def of_owner(self, owner: str, now_ms: int, most: int, before: str = "") -> Sequence[Job]:
        """The owner's accepted jobs that still have their results, newest first, at most `most`.

        before: only those older than this job; none if the owner has no such job.
        """

    def add(self, results: Sequence[Result], now_ms: int) -> Added:
        """Store results. The first result of a picture wins; a job that is over takes none."""

    def cancel(self, job_id: str, now_ms: int) -> None:
        """Stop an open job from taking results."""

    def sweep(self, now_ms: int, most: int) -> int:
        """Advance up to `most` jobs that are due by one step, and return how many there were.

        A job expires at its deadline, loses its results at expires_ms, and is deleted after the same period
        again. A job that was never accepted is deleted at publish_until_ms.
        """

    def close(self) -> None:
        """Disconnect."""


class StoreThreads:
    """Runs blocking store calls for the event loop."""

    def __init__(self, timeout_s: float) -> None:
        """timeout_s bounds each call, including its wait for a free thread."""
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="job-store")

    async def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Raises Unavailable on failure or timeout. The call may have taken effect nevertheless."""
        call = self._threads.submit(function, *arguments, **named)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(call)
        except StoreError as error:
            raise Unavailable(f"the job store failed: {error}") from error
        except TimeoutError as error:
            raise Unavailable(f"the job store did not answer within {self._timeout_s:g} s") from error

    def close(self) -> None:
        """Drop queued calls without waiting for those that are running."""
        self._threads.shutdown(wait=False, cancel_futures=True)
