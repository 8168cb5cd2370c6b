"""Asking whether anybody is there."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.catalogue import Catalogue
from gateway.errors import GatewayError
from gateway.liveness import Liveness
from gateway.settings import GatewaySettings

_log = logging.getLogger("mlaas.gateway")

_REFRESH_S = 5.0


class Pinging:
    """A ping takes the whole way there and back, so its reply shows that a picture's would come.

    Replies to pictures show as much: while they come, nobody pings but to hear which models there are.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[object]],
        liveness: Liveness,
        catalogue: Catalogue,
        settings: GatewaySettings,
    ) -> None:
        self._ping = ping
        self._liveness = liveness
        self._catalogue = catalogue
        self._interval_s = settings.ping_interval_ms / 1000
        self._refresh_s = min(_REFRESH_S, settings.worker_silence_ms / 1000)
        self._opened = asyncio.Event()

    def opened(self) -> None:
        """There is a place for replies now."""
        self._opened.set()

    async def run(self) -> None:
        """From opened() on, until cancelled."""
        await self._opened.wait()
        async with asyncio.TaskGroup() as pings:
            while True:
                if self._is_due(time.monotonic()):
                    pings.create_task(self._once())
                await asyncio.sleep(self._interval_s)

    def _is_due(self, now: float) -> bool:
        is_silent = self._liveness.silence(now) >= self._interval_s
        return is_silent or self._catalogue.age_s(now) >= self._refresh_s

    async def _once(self) -> None:
        try:
            await self._ping()
        except GatewayError as error:
            _log.debug("ping: %s", error)
        except Exception:  # the next may come through, and without any the gateway would stay unready
            _log.exception("ping")
