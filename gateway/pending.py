"""Who waits for which reply. Used from the event loop's thread alone."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.errors import TooManyInFlight, Unavailable
from messaging.broker import Message


class Pending:
    """A bounded table: its bounds are the gateway's admission control."""

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._bytes = 0
        self._waiters: dict[str, asyncio.Future[Message]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def waiter(self, correlation_id: str, size: int) -> Iterator[asyncio.Future[Message]]:
        """Register before publishing; leave, however it ends, and the entry is gone.

        size is the request's, in bytes. One request is admitted whatever its size. Raises TooManyInFlight.
        """
        if len(self._waiters) >= self._max_requests:
            raise TooManyInFlight(f"{len(self._waiters)} requests are in flight")
        if self._waiters and self._bytes + size > self._max_bytes:
            raise TooManyInFlight(f"{self._bytes} bytes are in flight, and {size} more are over the limit")
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiters[correlation_id] = future
        self._bytes += size
        try:
            yield future
        finally:
            del self._waiters[correlation_id]
            self._bytes -= size

    def resolve(self, correlation_id: str, message: Message) -> bool:
        """False for a reply nobody waits for: it came late, twice, or is another instance's."""
        future = self._waiters.get(correlation_id)
        if future is None or future.done():
            return False
        future.set_result(message)
        return True

    def fail(self, correlation_id: str, error: Exception) -> None:
        future = self._waiters.get(correlation_id)
        if future is not None and not future.done():
            future.set_exception(error)

    def fail_all(self, reason: str) -> None:
        """Nobody is left waiting."""
        for correlation_id in list(self._waiters):
            self.fail(correlation_id, Unavailable(reason))
