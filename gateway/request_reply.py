"""Request and reply over a broker: publish a picture, then wait for the reply with its correlation id."""

import asyncio
import logging
import math
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import TypedDict, TypeVarTuple, Unpack

from gateway import GatewaySettings
from gateway.answer import check_version
from gateway.errors import GatewayError, ReplyTimeout, TooLarge, TooManyInFlight, Unavailable
from gateway.metrics import GatewayMetrics
from gateway.middleware import note_model, traceparent
from gateway.pending import Deadlines
from gateway.presence import Channel, Pinging, Presence
from messaging import TopicSettings, codec
from messaging.broker import (
    Broker,
    BrokerError,
    ClientBroken,
    Inbox,
    Message,
    MessageTooLarge,
    QueueFull,
    Retries,
    feed,
)
from messaging.contract import MAX_CANCELLED, PING, ContractError, Explain, Mode, Reply, Request, sha256_of
from messaging.frames import reads_frames

_log = logging.getLogger("mlaas.gateway")

# With so many requests before it, a few milliseconds more make no difference to a request.
_GATHERED_FROM = 8
# Hashing more than this takes 0.2 ms, which would hold up other requests.
_LARGE_BYTES = 131_072
_SHUTTING_DOWN = "the gateway is shutting down"

_MOST_AT_ONCE = 500
_RETRY_S = 0.25
_CANCEL_TOGETHER_S = 0.005

Arguments = TypeVarTuple("Arguments")


class PictureFields(TypedDict, total=False):
    """The fields of a Request that describe its picture and what to do with it."""

    content_type: str
    model: str
    version: str
    mode: Mode
    explain: Explain
    top_k: int


class Requester:
    """Sends pictures to the workers and hands back their replies.

    There is one per process. Its methods belong to the event loop in which start() ran.
    """

    def __init__(self, broker: Broker, topics: TopicSettings, settings: GatewaySettings) -> None:
        self.metrics = GatewayMetrics()
        self.metrics.watch_frames(broker.frame_counts)
        self.presence = Presence(topics, settings)
        self._broker = broker
        self._settings = settings
        self.metrics.in_flight.set_function(self.presence.waiting)
        self.metrics.ready.set_function(lambda: self.why_not_ready() is None)
        for channel in self.presence.channels:
            self.metrics.watch_queue(
                channel.queue.name, partial(len, channel.pending), partial(self._is_ready, channel)
            )
        self._asked = {
            channel: self.metrics.queue_requests.labels(channel.queue.name)
            for channel in self.presence.channels
        }
        self._pinging = [
            Pinging(partial(self._ping, channel), channel.liveness, channel.catalogue, settings)
            for channel in self.presence.channels
        ]
        self._cancellations = Cancellations(broker, topics.cancellations)
        self._deadlines = Deadlines()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._unsent: deque[tuple[Channel, str, BaseException]] = deque()
        self._is_told = False
        self._address = ""
        self.leaving = False
        """Whether the process is about to end."""
        self._closing = False
        self._listener = ReplyListener(
            broker,
            topics.replies,
            settings.instance_id or uuid.uuid4().hex,
            settings.worker_silence_ms / 1000,
            on_open=lambda address: self._hand_over(self._opened, address),
            on_replies=lambda messages: self._hand_over(self._resolve, messages),
            on_lost=lambda reason: self._hand_over(self._lost, reason),
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener.start()
        self._pings = [asyncio.create_task(pinging.run()) for pinging in self._pinging]

    def leave(self) -> None:
        """Stop being ready, so that no new clients are sent here. Requests are still answered."""
        self.leaving = True

    async def drain(self) -> None:
        """Refuse new requests, and answer every waiting one: with its reply, or with an error in the end.

        Replies have drain_timeout_ms to arrive.
        """
        self.leaving = self._closing = True
        for pings in self._pings:
            pings.cancel()
        end = time.monotonic() + self._settings.drain_timeout_ms / 1000
        while self.presence.waiting() and self.alive and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for channel in self.presence.channels:
            channel.pending.fail_all(_SHUTTING_DOWN)

    async def close(self) -> None:
        await self.drain()
        await asyncio.to_thread(self._listener.stop)
        await asyncio.to_thread(self._broker.close)

    @property
    def alive(self) -> bool:
        """Whether replies are still read."""
        return self._listener.alive

    @property
    def failure(self) -> Exception | None:
        """What ended the reading of replies. Only a restart of the process helps."""
        return self._listener.failure

    def why_not_ready(self, model: str | None = None) -> str | None:
        """None when a picture for this model would be answered; without one, for any model."""
        if self.leaving:
            return _SHUTTING_DOWN
        presence, now = self.presence, time.monotonic()
        if model is None:
            return presence.why_not_ready(now)
        return presence.why_refused(presence.channel_of(model), now)

    def queues(self) -> dict[str, bool]:
        """By the name of each queue, whether a picture for it would be answered."""
        return {channel.queue.name: self._is_ready(channel) for channel in self.presence.channels}

    def admit(self, model: str, size: int, cost_ms: float, timeout_s: float) -> None:
        """Raises Unavailable, or TooManyInFlight without room for a picture of this size and cost."""
        channel = self.presence.channel_of(model)
        reason = _SHUTTING_DOWN if self._closing else self.presence.why_refused(channel, time.monotonic())
        if reason is not None:
            raise Unavailable(reason)
        channel.pending.admit(size, cost_ms, timeout_s)

    async def request(
        self, picture: bytes, *, cost_ms: float, timeout_s: float, **fields: Unpack[PictureFields]
    ) -> Reply:
        """Return the reply within timeout_s. Raises GatewayError.

        cost_ms: what decoding costs, by the picture's header. If the caller is cancelled, the workers are
        told to skip the picture.
        """
        model = fields.get("model", "")
        self.admit(model, len(picture), cost_ms, timeout_s)
        channel = self.presence.channel_of(model)
        self._asked[channel].inc()
        reply = await self._ask(channel, picture, cost_ms, timeout_s, **fields)
        check_version(reply, fields.get("version", ""))
        note_model(reply.model)
        return reply

    async def hear_models(self) -> None:
        """Ask the workers that would answer for their models, where none is known. Raises GatewayError."""
        unheard = [
            channel
            for channel in self.presence.channels
            if self._is_ready(channel) and not channel.catalogue.models
        ]
        await asyncio.gather(*map(self._ping, unheard))

    async def _ping(self, channel: Channel) -> None:
        """Hear from a worker that it is alive, and what of its models. Raises GatewayError."""
        timeout_s = self._settings.worker_silence_ms / 1000
        reply = await self._ask(channel, b"", 0.0, timeout_s, content_type=PING)
        channel.catalogue.heard(reply.models, time.monotonic(), reply.unserved)

    def _is_ready(self, channel: Channel) -> bool:
        return not self.leaving and channel.liveness.why_not_ready(time.monotonic()) is None

    def cancel(self, correlation_ids: Iterable[str]) -> None:
        """Tell the workers to skip those of these requests that they have not begun."""
        for correlation_id in correlation_ids:
            self._cancellations.add(correlation_id)

    async def _ask(
        self, channel: Channel, body: bytes, cost_ms: float, timeout_s: float, **fields: Unpack[PictureFields]
    ) -> Reply:
        """Register, publish, wait under one deadline, remove: in this order."""
        request = Request(
            body=body,
            correlation_id=next(channel.correlation_ids),
            reply_to=self._address,
            deadline_ms=int((time.time() + timeout_s) * 1000),
            traceparent=traceparent(),
            reads_frames=True,
            **fields,
        )
        sha256 = ""

        def decode(message: Message) -> Reply:
            if request.is_ping:
                return codec.decode_pong(message)
            return codec.decode_prediction(message, sha256 or sha256_of(body))

        pending = channel.pending
        with pending.waiter(request.correlation_id, len(body), cost_ms, decode) as reply:
            slot = self._expect(reply, timeout_s)
            try:
                gather = pending.waiting(cost_ms) > _GATHERED_FROM
                gather = gather and channel.liveness.all_read_frames(time.monotonic())
                self._publish(channel, request, gather=gather)
                if len(body) > _LARGE_BYTES:  # which takes a millisecond or more
                    sha256 = await asyncio.to_thread(sha256_of, body)
                return await reply
            except asyncio.CancelledError:
                self.metrics.cancelled.inc()
                self._cancellations.add(request.correlation_id)
                raise
            finally:
                self._deadlines.remove(slot, reply)

    def _expect(self, reply: "asyncio.Future[Reply]", timeout_s: float) -> int:
        """Fail the reply after timeout_s. Returns its slot among the deadlines."""
        slot = self._deadlines.add(reply, time.monotonic(), timeout_s)
        self._set_timer()
        return slot

    def _set_timer(self) -> None:
        at = self._deadlines.next_at()
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer, self._timer_at = self._loop.call_later(at - time.monotonic(), self._expire), at

    def _expire(self) -> None:
        self._timer, self._timer_at = None, math.inf
        for reply, timeout_s in self._deadlines.due(time.monotonic()):
            if not reply.done():
                reply.set_exception(ReplyTimeout(f"no answer within {max(timeout_s, 0.001):.2g} s"))
        self._set_timer()

    def _publish(self, channel: Channel, request: Request, *, gather: bool) -> None:
        def report(published: Future[None]) -> None:
            error = published.exception()
            if error is not None:
                self._unsent.append((channel, request.correlation_id, error))
                if not self._is_told:  # one call into the loop for all that fail until it comes
                    self._is_told = True
                    self._hand_over(self._fail_unsent)

        try:
            message = codec.encode_request(request)
            published = self._broker.publish(channel.queue.requests, message, gather=gather)
            channel.pending.publishing(request.correlation_id, published)
            published.add_done_callback(report)
        except BrokerError as error:
            raise as_gateway_error(error) from error

    def _fail_unsent(self) -> None:
        self._is_told = False  # before looking: what fails from now on calls again
        while self._unsent:
            channel, correlation_id, error = self._unsent.popleft()
            channel.pending.fail(correlation_id, as_gateway_error(error))

    def _opened(self, address: str) -> None:
        self._address = address
        for channel in self.presence.channels:
            channel.liveness.opened()
        for pinging in self._pinging:
            pinging.opened()

    def _lost(self, reason: str) -> None:
        for channel in self.presence.channels:
            channel.liveness.lost(reason)
            channel.pending.fail_unpublished(reason)

    def _resolve(self, messages: Sequence[Message]) -> None:
        """Ignore replies to other gateways' requests, which may share the partition."""
        unusable: list[ContractError] = []
        for message in messages:
            correlation_id = codec.correlation_id(message)
            channel = self.presence.asked_over(correlation_id)
            if channel is None:
                continue
            try:
                resolved = channel.pending.resolve(correlation_id, message)
            except ContractError as error:
                unusable.append(error)
            else:
                channel.liveness.heard(time.monotonic(), reads_frames=reads_frames(message))
                if not resolved:
                    self.metrics.replies_dropped.labels("late").inc()
        if unusable:
            self.metrics.replies_dropped.labels("unusable").inc(len(unusable))
            _log.warning("dropped %d unusable replies, the first: %s", len(unusable), unusable[0])

    def _hand_over(self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """Call from another thread; the function runs in the event loop."""
        self._loop.call_soon_threadsafe(function, *arguments)


def as_gateway_error(error: BaseException) -> GatewayError:
    """The error to answer with when publishing fails."""
    if isinstance(error, MessageTooLarge):
        return TooLarge(
            f"{error}; `mlaas doctor` names the topics that accept less than broker.max_message_bytes"
        )
    if isinstance(error, QueueFull):
        return TooManyInFlight(str(error))
    return Unavailable(str(error))


class ReplyListener:
    """A thread that opens the inbox, retrying until it can, and passes on what arrives.

    Calls back from that thread. Renews an inbox that is silent for silence_s, in case replies are missed.
    Ends when this process can no longer read the inbox (ClientBroken), or at an unexpected exception.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        instance_id: str,
        silence_s: float,
        *,
        on_open: Callable[[str], None],
        on_replies: Callable[[Sequence[Message]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._instance_id = instance_id
        self._silence_s = silence_s
        self._on_open = on_open
        self._on_replies = on_replies
        self._stopping = threading.Event()
        self._retries = Retries(
            "read replies", _log, _RETRY_S, self._stopping, on_failure=lambda error: on_lost(str(error))
        )
        self._address = ""
        self._heard_at = 0.0
        self.failure: Exception | None = None
        """What ended the thread."""
        self._thread = threading.Thread(target=self._run, name="reply-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Block until the inbox is closed."""
        self._stopping.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            inbox = self._retries.until_success(self._open)
            if inbox is None:
                return
            try:
                while not self._stopping.is_set():
                    self._listen(inbox)
            finally:
                inbox.close()
        except Exception as error:
            self.failure = error

    def _open(self) -> Inbox:
        inbox = self._broker.open_inbox(self._topic, self._instance_id)
        self._heard_at = time.monotonic()
        self._note_address(inbox)
        return inbox

    def _listen(self, inbox: Inbox) -> None:
        try:
            messages = inbox.receive(_MOST_AT_ONCE, 0.2)
            self._note_address(inbox)
            if messages:
                self._retries.succeeded()
                self._heard_at = time.monotonic()
                self._on_replies(messages)
            elif time.monotonic() - self._heard_at > self._silence_s:
                self._heard_at = time.monotonic()
                inbox.renew()
        except ClientBroken:
            raise
        except BrokerError as error:
            self._retries.failed(error)

    def _note_address(self, inbox: Inbox) -> None:
        if inbox.address != self._address:
            self._address = inbox.address
            _log.info("replies come to %s", inbox.address)
            self._on_open(inbox.address)


class Cancellations:
    """Sends cancellations a few milliseconds later, many at once. Belongs to the event loop.

    One that cannot be sent only costs a worker needless work.
    """

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._address = feed(topic)
        self._waiting: list[str] = []

    def add(self, correlation_id: str) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(_CANCEL_TOGETHER_S, self._send)
        self._waiting.append(correlation_id)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), MAX_CANCELLED):
            message = codec.encode_cancellation(waiting[start : start + MAX_CANCELLED])
            try:
                self._broker.publish(self._address, message)
            except BrokerError as error:
                _log.debug("cancellations: %s", error)
