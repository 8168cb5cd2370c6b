"""Which workers each queue has: pings, whether they are answered, and which models the answers name."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from msgspec.structs import replace

from gateway import GatewaySettings
from gateway.errors import GatewayError, Unavailable, UnknownModel
from gateway.pending import Capacity, Pending
from messaging import Queue, TopicSettings
from messaging.contract import ServedModel, UnservedModel, cannot_be_served, no_such_model

_log = logging.getLogger("mlaas.gateway")

_REFRESH_S = 5.0


class Pinging:
    """Pings the workers of a queue at intervals.

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
    """Whether a worker would answer: one has within worker_silence_s. Times are monotonic seconds.

    whom: which workers, for the reasons.
    """

    worker_silence_s: float
    whom: str = "worker"
    heard_at: float | None = None
    framed_since: float | None = None
    trouble: str = "this gateway has just started, and cannot receive replies yet"

    def opened(self) -> None:
        self.trouble = f"no {self.whom} has answered yet"

    def heard(self, now: float, *, reads_frames: bool = False) -> None:
        """reads_frames: whether the worker that has answered says so."""
        if not reads_frames:
            self.framed_since = None
        elif self.framed_since is None or self.silence(now) > self.worker_silence_s:
            self.framed_since = now
        self.heard_at = now

    def all_read_frames(self, now: float) -> bool:
        """Whether every worker that has answered within worker_silence_s reads frames."""
        return self.framed_since is not None and now - self.framed_since >= self.worker_silence_s

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
            return f"no {self.whom} has answered for {self.silence(now):.0f} s"
        return None


class Catalogue:
    """The models that a worker of a queue reported last. The others serve the same, except during a roll-out.

    They stay known when the workers fall silent. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self.models: Sequence[ServedModel] = ()
        self.unserved: Sequence[UnservedModel] = ()
        self._heard_at = -math.inf

    def heard(
        self, models: Sequence[ServedModel], now: float, unserved: Sequence[UnservedModel] = ()
    ) -> None:
        """models: empty from a worker of an older version, which does not report its models."""
        self._heard_at = now
        if models:
            self.models, self.unserved = models, unserved

    def age_s(self, now: float) -> float:
        return now - self._heard_at


class KnownModel(ServedModel, frozen=True, kw_only=True):
    """A model that workers have reported.

    queue: whose workers serve it, see topics.queues. ready: whether it would answer a picture sent now. Of a
    model that cannot be served, only its versions and their problems are known.
    """

    queue: str
    ready: bool


class Channel:
    """To the workers of one queue and back: who waits for them, whether they answer, what they serve.

    prefix: what the ids of its requests begin with; no other channel of any gateway has it.
    """

    def __init__(self, queue: Queue, liveness: Liveness, capacity: Capacity) -> None:
        self.queue = queue
        self.liveness = liveness
        self.pending = Pending(capacity)
        self.catalogue = Catalogue()
        self.prefix = uuid4().hex
        self.correlation_ids = map(f"{self.prefix}.{{}}".format, count())


class Presence:
    """The channels of all queues, and what their workers serve together. Times are monotonic seconds."""

    def __init__(self, topics: TopicSettings, settings: GatewaySettings) -> None:
        queues, silence_s = topics.all_queues(), settings.worker_silence_ms / 1000
        capacity = Capacity(
            settings.max_in_flight, settings.max_in_flight_bytes, settings.max_in_flight_cost_ms
        )
        self.channels = [
            Channel(queue, Liveness(silence_s, _whom(queue, len(queues))), capacity) for queue in queues
        ]
        self._shared = self.channels[0]
        self._of_model = {model: channel for channel in self.channels for model in channel.queue.models}
        self._of_prefix = {channel.prefix: channel for channel in self.channels}

    def channel_of(self, model: str) -> Channel:
        """Where requests for this model go; for an empty name, requests that name none."""
        return self._of_model.get(model, self._shared)

    def asked_over(self, correlation_id: str) -> Channel | None:
        """The channel of the request with this id; None for those of other gateways."""
        return self._of_prefix.get(correlation_id.partition(".")[0])

    def waiting(self) -> int:
        """How many requests wait for a reply."""
        return sum(len(channel.pending) for channel in self.channels)

    def why_not_ready(self, now: float) -> str | None:
        """None if any worker would answer."""
        reasons = [channel.liveness.why_not_ready(now) for channel in self.channels]
        if None in reasons:
            return None
        silences = [channel.liveness.silence(now) for channel in self.channels]
        return reasons[silences.index(min(silences))]

    def why_refused(self, channel: Channel, now: float) -> str | None:
        """Why a request over this channel would not be answered, and what would be; None if it would."""
        reason = channel.liveness.why_not_ready(now)
        ready = [model.name for model in self.models(now) if model.ready] if reason else []
        return f"{reason}; served now: {', '.join(ready)}" if ready else reason

    def listed(self, now: float) -> list[KnownModel]:
        """All that workers have reported: first those that they serve, then those that they cannot serve."""
        served = self.models(now)
        names = {model.name for model in served}
        return served + [
            _unserved(model, channel)
            for channel in self.channels
            for model in channel.catalogue.unserved
            if self.channel_of(model.name) is channel and model.name not in names
        ]

    def models(self, now: float) -> list[KnownModel]:
        """All that workers serve. The default is the one that answers in the shared queue."""
        default = next((model.name for model in self._shared.catalogue.models if model.default), "")
        return [
            _known(model, channel, model.name == default, now)
            for channel in self.channels
            for model in channel.catalogue.models
            if self.channel_of(model.name) is channel
        ]

    def named(self, name: str, version: str, now: float) -> KnownModel:
        """Without a name, the default; described as the version, if one is named.

        Raises UnknownModel, which says why it cannot be served or which models are, and Unavailable if only a
        silent queue can have it.
        """
        known = self.models(now)
        for model in known:
            is_it = model.name == name or (model.default and not name)
            if is_it and version in ("", *model.answering):
                its = [each for each in model.versions if each.version == version]
                more = (
                    {"version": version, "sha256": its[0].sha256, "accuracy": its[0].accuracy} if its else {}
                )
                return replace(model, **more)
        if name in self._of_model and (reason := self.why_refused(self._of_model[name], now)):
            raise Unavailable(reason)
        for each in (each for model in self.listed(now) if model.name == name for each in model.versions):
            if each.problem and (version in ("", each.version) or not each.version):
                raise UnknownModel(cannot_be_served(name, each.version, each.problem))
        raise UnknownModel(no_such_model(name, version, known))


def _whom(queue: Queue, queues: int) -> str:
    return "worker" if queues == 1 else f"worker of the queue {queue.name}"


def _unserved(model: UnservedModel, channel: Channel) -> KnownModel:
    return KnownModel(
        name=model.name,
        version=model.versions[0].version,
        kind="",
        shape=(),
        dtype="",
        output="",
        versions=model.versions,
        queue=channel.queue.name,
        ready=False,
    )


def _known(model: ServedModel, channel: Channel, default: bool, now: float) -> KnownModel:
    its = {name: getattr(model, name) for name in ServedModel.__struct_fields__}
    ready = channel.liveness.why_not_ready(now) is None
    return KnownModel(**{**its, "default": default, "queue": channel.queue.name, "ready": ready})
