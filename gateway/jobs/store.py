"""Where jobs and their results are kept: what a store promises.

StoreError
└── StoreUnavailable    it does not answer, or not in time: try again later
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from gateway.jobs.job import Job, Result, State


class StoreError(Exception):
    """The store could not do what was asked. The only exception that leaves a store."""


class StoreUnavailable(StoreError):
    """Nobody answers, or not in time."""


class Limits(NamedTuple):
    """Of all unfinished jobs in the store."""

    max_pictures: int
    max_bytes: int


class Creation(Enum):
    CREATED = "created"
    KEY_TAKEN = "key taken"
    FULL = "full"


class Added(NamedTuple):
    """How many results were stored; had been stored before; belong to no job that waits for them."""

    stored: int
    duplicates: int
    unknown: int


class Progress(NamedTuple):
    state: State
    completed: int


class Store(Protocol):
    """Blocking, and safe to use from several threads. Every call ends in bounded time.

    Each call is all or nothing, and harms nothing when it is done twice. now_ms is epoch milliseconds. A job
    whose deadline is past at now_ms is expired from then on, whatever comes later. All raise StoreError.
    """

    def identity(self) -> str:
        """The same for all who share the store, and no other store's."""

    def create(
        self, job: Job, results: Sequence[Result], limits: Limits, now_ms: int
    ) -> tuple[Creation, Job | None]:
        """Keep a new job with the results that it has already.

        A job of the same owner with the same key is returned with KEY_TAKEN instead; one that was never
        acknowledged and is past publish_until_ms, or is past expires_ms, gives its key away.
        FULL: over the limits.
        """

    def accept(self, job_id: str, now_ms: int) -> bool:
        """The job is about to be acknowledged. False if it is past publish_until_ms, or not there."""

    def remove(self, job_id: str) -> bool:
        """Forget it, unless it is accepted: then it stays. Whether it is not there any more."""

    def get(self, job_id: str, now_ms: int, after: int = 0) -> tuple[Job, Sequence[Result]] | None:
        """The job, and its results in the order in which they were stored, without the first so many."""

    def progress(self, job_ids: Sequence[str]) -> Mapping[str, Progress]:
        """Of those that are there."""

    def add(self, results: Sequence[Result], now_ms: int) -> Added:
        """The first result of a picture counts. A job that is over takes none."""

    def cancel(self, job_id: str, now_ms: int) -> None:
        """An open job takes no more results."""

    def sweep(self, now_ms: int, most: int) -> int:
        """Expire, delete results past expires_ms, forget what is past it twice or was never accepted.

        How many were touched.
        """

    def close(self) -> None:
        """Disconnect."""
