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

Decode = Callable[[Message], Reply]
"""Raises ContractError for a message that cannot be the reply."""


class _Waiter(NamedTuple):
    reply: asyncio.Future[Reply]
    decode: Decode


class Pending:
    """A bounded table. Its bounds and the estimated wait are the gateway's admission control."""

    def __init__(
        self, max_requests: int, max_bytes: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._waiters: dict[str, _Waiter] = {}
        self._published: dict[str, Future[None]] = {}
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
    def waiter(self, correlation_id: str, size: int, decode: Decode) -> Iterator[asyncio.Future[Reply]]:
        """Register before publishing; the entry is gone when the block ends. size is in bytes."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiters[correlation_id] = _Waiter(reply, decode)
        self._bytes += size
        place, since = len(self._waiters), self._clock()
        try:
            yield reply
        finally:
            del self._waiters[correlation_id]
            self._published.pop(correlation_id, None)
            self._bytes -= size
            if size and reply.done() and not reply.cancelled() and reply.exception() is None:
                now = self._clock()
                self._estimate.answered(place, now - since, now)

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

    def _too_many(self, detail: str, timeout_s: float) -> TooManyInFlight:
        return TooManyInFlight(detail, self._estimate.retry_after_s(len(self._waiters), timeout_s))
