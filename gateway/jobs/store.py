"""Where jobs and their results are kept: what a store promises, and how the event loop calls it.

StoreError
└── StoreUnavailable    it does not answer, or not in time: try again later
"""

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
    """The store could not do what was asked. The only exception that leaves a store."""


class StoreUnavailable(StoreError):
    """It does not answer, or not in time."""


class Limits(NamedTuple):
    """Of all unfinished jobs in the store."""

    max_pictures: int
    max_bytes: int


class Creation(Enum):
    CREATED = "created"
    KEY_TAKEN = "key taken"
    FULL = "full"


class Added(NamedTuple):
    """How many results were stored, had been stored before, or belong to no job that takes them."""

    stored: int
    duplicates: int
    unknown: int


class Progress(NamedTuple):
    state: State
    completed: int


class Store(Protocol):
    """Blocks, and may be used from several threads. Every call ends in bounded time, or raises StoreError.

    A call takes effect wholly or not at all, and may safely be repeated. now_ms is epoch milliseconds. A job
    whose deadline has passed at now_ms has expired for good.
    """

    def identity(self) -> str:
        """The same for everyone who shares the store, and different from any other store's."""

    def create(
        self, job: Job, results: Sequence[Result], limits: Limits, now_ms: int
    ) -> tuple[Creation, Job | None]:
        """Keep a new job and the results that it has already.

        KEY_TAKEN returns the job of the same owner with the same key instead. A job past expires_ms gives its
        key away, and so does one past publish_until_ms that was never accepted. FULL: over the limits.
        """

    def accept(self, job_id: str, now_ms: int) -> bool:
        """Mark the job as about to be acknowledged. False if it is past publish_until_ms, or gone."""

    def remove(self, job_id: str) -> bool:
        """Forget the job unless it is accepted. Whether it is gone."""

    def get(self, job_id: str, now_ms: int, after: int = 0) -> tuple[Job, Sequence[Result]] | None:
        """The job, and its results in the order in which they were stored, without the first `after`."""

    def progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        """The progress of those jobs that exist."""

    def add(self, results: Sequence[Result], now_ms: int) -> Added:
        """Store results. The first result of a picture counts; a job that is over takes none."""

    def cancel(self, job_id: str, now_ms: int) -> None:
        """Let an open job take no more results."""

    def sweep(self, now_ms: int, most: int) -> int:
        """Take the next step with at most so many jobs that are due, and return how many there were.

        Jobs expire, lose their results at expires_ms, and are forgotten after as long again, or if they were
        never accepted.
        """

    def close(self) -> None:
        """Disconnect."""


class Calls:
    """A store's methods for the event loop: they run in threads, and end in bounded time."""

    def __init__(self, timeout_s: float) -> None:
        """timeout_s: for one call, including the wait for a thread."""
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="job-store")

    async def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Raises Unavailable; the call may have taken effect all the same."""
        call = self._threads.submit(function, *arguments, **named)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(call)
        except StoreError as error:
            raise Unavailable(f"the job store: {error}") from error
        except TimeoutError as error:
            raise Unavailable(f"the job store did not answer within {self._timeout_s:g} s") from error

    def close(self) -> None:
        """Drop the calls that have not begun; the others end in their own time."""
        self._threads.shutdown(wait=False, cancel_futures=True)
