"""The requests that wait for a reply. Used from the event loop's thread alone."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from gateway.errors import TooManyInFlight, Unavailable
from gateway.wait_estimate import WaitEstimate
from messaging.broker import Message
from messaging.contract import Reply
from messaging.picture_header import Size, size_of

Decode = Callable[[Message], Reply]
"""Raises ContractError for a message that cannot be the reply."""

# Of each bound, what pictures of a size may take together with those of the larger sizes.
_SHARES = (1.0, 0.75, 0.5)


class _Waiter(NamedTuple):
    reply: asyncio.Future[Reply]
    decode: Decode


class _Bound:
    """On something that requests in flight take. Pictures of a size never have the share of smaller ones."""

    def __init__(self, limit: float, unit: str) -> None:
        self.unit = unit
        self._limits = [share * limit for share in _SHARES]
        self._taken = [0.0 for _ in Size]

    def take(self, size: Size, amount: float) -> None:
        """A negative amount gives it back."""
        self._taken[size] += amount

    def taken(self, size: Size) -> float:
        """By this size and the larger ones, which count up to their share."""
        larger = 0.0
        for each in range(Size.LARGE, size, -1):
            larger = min(larger + self._taken[each], self._limits[each])
        return larger + self._taken[size]

    def has_room(self, size: Size, amount: float) -> bool:
        return self.taken(size) + amount <= self._limits[size]


class Pending:
    """A table with bounds on the number of requests, their bytes, and what their pictures cost to decode.

    These, and the estimated wait, are the gateway's admission control. Small pictures are not refused because
    of larger ones: they have a share of each bound to themselves, and their wait is estimated from pictures
    of their own size.
    """

    def __init__(
        self,
        max_requests: int,
        max_bytes: int,
        max_cost_ms: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._requests = _Bound(max_requests, "requests")
        self._bytes = _Bound(max_bytes, "bytes")
        self._cost_ms = _Bound(max_cost_ms, "ms of decoding")
        self._waiters: dict[str, _Waiter] = {}
        self._published: dict[str, Future[None]] = {}
        self._waiting = [0 for _ in Size]
        self._estimates = [WaitEstimate() for _ in Size]

    def __len__(self) -> int:
        return len(self._waiters)

    def admit(self, size_bytes: int, cost_ms: float, timeout_s: float) -> None:
        """Raises TooManyInFlight if a request of this size would be too much, or answered too late.

        The only one in flight of its kind (small, medium or large) is admitted whatever its size.
        """
        size = size_of(cost_ms)
        waiting, estimate = self._waiting[size], self._estimates[size]
        if not waiting:
            return
        for bound, amount in ((self._requests, 1), (self._bytes, size_bytes), (self._cost_ms, cost_ms)):
            if not bound.has_room(size, amount):
                detail = f"{bound.taken(size):.0f} {bound.unit} are in flight, and {amount:.0f} more are over"
                raise self._too_many(f"{detail} the limit for {size.name.lower()} pictures", size, timeout_s)
        if estimate.is_too_long(waiting + 1, timeout_s):
            wait_s = estimate.wait_s(waiting + 1)
            detail = f"the wait would be about {wait_s:.1f} s, too near to {timeout_s:g} s"
            raise self._too_many(detail, size, timeout_s)

    @contextmanager
    def waiter(
        self, correlation_id: str, size_bytes: int, cost_ms: float, decode: Decode
    ) -> Iterator[asyncio.Future[Reply]]:
        """Register before publishing; the entry is gone when the block ends."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiters[correlation_id] = _Waiter(reply, decode)
        size = size_of(cost_ms)
        self._take(size, 1, size_bytes, cost_ms)
        place, since = self._waiting[size], self._clock()
        try:
            yield reply
        finally:
            del self._waiters[correlation_id]
            self._published.pop(correlation_id, None)
            self._take(size, -1, -size_bytes, -cost_ms)
            if size_bytes and reply.done() and not reply.cancelled() and reply.exception() is None:
                now = self._clock()
                self._estimates[size].answered(place, now - since, now)

    def resolve(self, correlation_id: str, message: Message) -> bool:
        """Hand the reply to whoever waits for it; False if nobody does any more.

        Raises ContractError for a message that cannot be the reply: the wait goes on.
        """
        waiter = self._waiters.get(correlation_id)
        if waiter is None or waiter.reply.done():
            return False
        waiter.reply.set_result(waiter.decode(message))
        return True

    def fail(self, correlation_id: str, error: Exception) -> None:
        waiter = self._waiters.get(correlation_id)
        if waiter is not None and not waiter.reply.done():
            waiter.reply.set_exception(error)

    def publishing(self, correlation_id: str, published: Future[None]) -> None:
        """The request is on its way to the broker; the future completes when the broker has it."""
        self._published[correlation_id] = published

    def fail_unpublished(self, reason: str) -> None:
        """Fail the requests that the broker has not confirmed: it is away."""
        for correlation_id, published in self._published.items():
            if not published.done():
                self.fail(correlation_id, Unavailable(reason))

    def fail_all(self, reason: str) -> None:
        """Nobody is left waiting."""
        for correlation_id in list(self._waiters):
            self.fail(correlation_id, Unavailable(reason))

    def _take(self, size: Size, count: int, size_bytes: int, cost_ms: float) -> None:
        self._waiting[size] += count
        self._requests.take(size, count)
        self._bytes.take(size, size_bytes)
        self._cost_ms.take(size, cost_ms)

    def _too_many(self, detail: str, size: Size, timeout_s: float) -> TooManyInFlight:
        return TooManyInFlight(detail, self._estimates[size].retry_after_s(self._waiting[size], timeout_s))
