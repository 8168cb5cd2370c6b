"""Who is there: pings to the workers, whether they answer, and which models they serve."""

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


class Catalogue:
    """What was heard last. Every worker serves the same models but while new ones are rolled out.

    What was heard stays known when the workers fall silent. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self.models: Sequence[ServedModel] = ()
        self._heard_at = -math.inf

    def heard(self, models: Sequence[ServedModel], now: float) -> None:
        """Of a worker that does not describe its models, an older one, there is nothing to learn."""
        self._heard_at = now
        self.models = models or self.models

    def age_s(self, now: float) -> float:
        return now - self._heard_at

    def named(self, name: str, version: str = "") -> ServedModel:
        """In any version if none is given. Raises UnknownModel, which names those that there are."""
        for model in self.models:
            if model.name == name and version in ("", model.version):
                return model
        served = (f"{model.name} {model.version}" for model in self.models)
        raise UnknownModel(no_such_model(name, version, served))


def no_such_model(name: str, version: str, served: Iterable[str]) -> str:
    """Says which there are."""
    what = f"no model {name[:100]!r}" + (f" of version {version[:100]!r}" if version else "")
    return f"{what}; served: {', '.join(served)}"


@dataclass(slots=True)
class Liveness:
    """Times are monotonic seconds. A worker counts as alive for worker_silence_s after its last reply."""

    worker_silence_s: float
    heard_at: float | None = None
    trouble: str = "the reply inbox is not open yet"

    def opened(self) -> None:
        self.trouble = "no worker has answered yet"

    def heard(self, now: float) -> None:
        self.heard_at = now

    def lost(self, reason: str) -> None:
        """The broker is away: nothing heard before counts."""
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
