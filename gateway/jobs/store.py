"""The interface of job stores, and the threads that call them for the event loop."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from typing import NamedTuple, ParamSpec, Protocol, TypeVar

from gateway.errors import Unavailable
from gateway.jobs.job import Job, Result, State

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 4


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
