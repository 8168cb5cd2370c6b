"""Which workers are there: pings, whether they are answered, and which models the answers name."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from gateway.errors import GatewayError, UnknownModel
from gateway.settings import GatewaySettings
from messaging.contract import ServedModel

_log = logging.getLogger("mlaas.gateway")

_REFRESH_S = 5.0


class Pinging:
    """Pings the workers at intervals.

    A ping takes the same way as a picture, so its reply shows that a picture's would arrive. Replies to
    pictures show as much; while they arrive, pings only refresh the catalogue.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[object]],
        liveness: "Liveness",
        catalogue: "Catalogue",
        settings: GatewaySettings,
    ) -> None:
        self._ping = ping
        self._liveness = liveness
        self._catalogue = catalogue
        self._interval_s = settings.ping_interval_ms / 1000
        self._refresh_s = min(_REFRESH_S, settings.worker_silence_ms / 1000)
        self._opened = asyncio.Event()

    def opened(self) -> None:
        """Start pinging: replies have an address now."""
        self._opened.set()

    async def run(self) -> None:
        """Ping from opened() on, until cancelled."""
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
        except Exception:  # the next ping may succeed, and without pings the gateway would stay unready
            _log.exception("ping")


@dataclass(slots=True)
class Liveness:
    """Whether a worker would answer: one has within worker_silence_s. Times are monotonic seconds."""

    worker_silence_s: float
    heard_at: float | None = None
    trouble: str = "the reply inbox is not open yet"

    def opened(self) -> None:
        self.trouble = "no worker has answered yet"

    def heard(self, now: float) -> None:
        self.heard_at = now

    def lost(self, reason: str) -> None:
        """The broker is away, so earlier replies prove nothing."""
        self.heard_at = None
        self.trouble = reason

    def silence(self, now: float) -> float:
        """Seconds since the last reply."""
        return math.inf if self.heard_at is None else now - self.heard_at

    def why_not_ready(self, now: float) -> str | None:
        """None when ready."""
        if self.heard_at is None:
            return self.trouble
        if self.silence(now) > self.worker_silence_s:
            return f"no worker has answered for {self.silence(now):.0f} s"
        return None


class Catalogue:
    """The models that a worker reported last. All workers serve the same, except during a roll-out.

    They stay known when the workers fall silent. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self.models: Sequence[ServedModel] = ()
        self._heard_at = -math.inf

    def heard(self, models: Sequence[ServedModel], now: float) -> None:
        """models: empty from a worker of an older version, which does not report its models."""
        self._heard_at = now
        self.models = models or self.models

    def age_s(self, now: float) -> float:
        return now - self._heard_at

    def named(self, name: str, version: str = "") -> ServedModel:
        """Without a version, any will do. Raises UnknownModel, which lists the models served."""
        for model in self.models:
            if model.name == name and version in ("", model.version):
                return model
        served = (f"{model.name} {model.version}" for model in self.models)
        raise UnknownModel(no_such_model(name, version, served))


def no_such_model(name: str, version: str, served: Iterable[str]) -> str:
    what = f"no model {name[:100]!r}" + (f" of version {version[:100]!r}" if version else "")
    return f"{what}; served: {', '.join(served)}"
