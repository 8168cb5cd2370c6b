"""Many pictures of one call: where not all may be in flight at once, some wait for the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.deadline import Deadline
from gateway.errors import TooManyInFlight
from gateway.request_reply import Requester


class Turns:
    """Those of one call."""

    def __init__(self, requester: Requester, deadline: Deadline) -> None:
        self._requester = requester
        self._deadline = deadline
        self._in_flight = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def take(self, size: int, cost_ms: float) -> AsyncIterator[None]:
        """For one picture of this size and cost, from its request to its reply. Raises GatewayError."""
        await self._enter(size, cost_ms)
        try:
            yield
        finally:
            await self._leave()

    async def _enter(self, size: int, cost_ms: float) -> None:
        """Waits while this call's own pictures are too many. Raises GatewayError."""
        async with self._changed:
            while True:
                try:
                    self._requester.admit(size, cost_ms, self._deadline.left_s())
                    break
                except TooManyInFlight:
                    if not self._in_flight:
                        raise
                await self._changed.wait()
            self._in_flight += 1

    async def _leave(self) -> None:
        async with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()
