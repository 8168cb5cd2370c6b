"""Asking whether anybody is there."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.errors import GatewayError
from gateway.liveness import Liveness

_log = logging.getLogger("mlaas.gateway")


class Pinging:
    """A ping takes the whole way there and back, so its reply shows that a picture's would come.

    Replies to pictures show as much: while they come, nobody pings.
    """

    def __init__(self, ping: Callable[[], Awaitable[object]], liveness: Liveness, interval_s: float) -> None:
        self._ping = ping
        self._liveness = liveness
        self._interval_s = interval_s

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as pings:
            while True:
                silence_s = self._liveness.silence(time.monotonic())
                if self._liveness.inbox_open and silence_s >= self._interval_s:
                    pings.create_task(self._once())
                await asyncio.sleep(self._interval_s)

    async def _once(self) -> None:
        try:
            await self._ping()
        except GatewayError as error:
            _log.debug("ping: %s", error)
