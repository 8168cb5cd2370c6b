"""Who waits for which reply. Used from the event loop's thread alone."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import Enum

from gateway.errors import TooManyInFlight, Unavailable
from gateway.wait_estimate import WaitEstimate
from messaging.broker import Message

_ANSWERED_KEPT = 10_000


class Arrival(Enum):
    """What a reply was when it came."""

    EXPECTED = "expected"
    DUPLICATE = "duplicate"
    LATE = "late"


class Pending:
    """A bounded table: its bounds, and how long the wait would be, are the gateway's admission control."""

    def __init__(
        self, max_requests: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._waiters: dict[str, asyncio.Future[Message]] = {}
        self._published: dict[str, Future[None]] = {}
        self._answered: OrderedDict[str, None] = OrderedDict()
        self._estimate = WaitEstimate()

    def __len__(self) -> int:
        return len(self._waiters)

    def admit(self, size: int, timeout_s: float) -> None:
        """Raises TooManyInFlight if a request of so many bytes would be too much, or answered too late.

        One request is admitted whatever its size.
        """
        waiting = len(self._waiters)
        if waiting >= self._max_requests:
            raise self._too_many(f"{waiting} requests are in flight", timeout_s)
        if waiting and self._bytes + size > self._max_bytes:
            detail = f"{self._bytes} bytes are in flight, and {size} more are over the limit"
            raise self._too_many(detail, timeout_s)
        if self._estimate.is_too_long(waiting + 1, timeout_s):
            wait_s = self._estimate.wait_s(waiting + 1)
            raise self._too_many(
                f"the wait would be about {wait_s:.1f} s, too near to {timeout_s:g} s", timeout_s
            )

    @contextmanager
    def waiter(self, correlation_id: str, size: int) -> Iterator[asyncio.Future[Message]]:
        """Register before publishing; leave, however it ends, and the entry is gone. size is in bytes."""
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiters[correlation_id] = future
        self._bytes += size
        place, since = len(self._waiters), self._clock()
        try:
            yield future
        finally:
            del self._waiters[correlation_id]
            self._published.pop(correlation_id, None)
            self._bytes -= size
            if size and future.done() and not future.cancelled() and future.exception() is None:
                now = self._clock()
                self._estimate.answered(place, now - since, now)

    def resolve(self, correlation_id: str, message: Message) -> Arrival:
        """The first reply reaches who waits for it; another, or one that comes late, nobody."""
        future = self._waiters.get(correlation_id)
        if correlation_id in self._answered:
            return Arrival.DUPLICATE
        if future is None or future.done():
            return Arrival.LATE
        self._remember(correlation_id)
        future.set_result(message)
        return Arrival.EXPECTED

    def fail(self, correlation_id: str, error: Exception) -> None:
        future = self._waiters.get(correlation_id)
        if future is not None and not future.done():
            future.set_exception(error)

    def publishing(self, correlation_id: str, published: Future[None]) -> None:
        """The request is on its way to the broker; the future ends when the broker has it."""
        self._published[correlation_id] = published

    def fail_unpublished(self, reason: str) -> None:
        """Who waits for what the broker has not said that it has need not wait for a broker that is away."""
        for correlation_id, published in self._published.items():
            if not published.done():
                self.fail(correlation_id, Unavailable(reason))

    def fail_all(self, reason: str) -> None:
        """Nobody is left waiting."""
        for correlation_id in list(self._waiters):
            self.fail(correlation_id, Unavailable(reason))

    def _remember(self, correlation_id: str) -> None:
        self._answered[correlation_id] = None
        if len(self._answered) > _ANSWERED_KEPT:
            self._answered.popitem(last=False)

    def _too_many(self, detail: str, timeout_s: float) -> TooManyInFlight:
        return TooManyInFlight(detail, self._estimate.retry_after_s(len(self._waiters), timeout_s))
