"""Request and reply over a broker: publish, then wait for the reply with the same correlation id."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVarTuple

from gateway.errors import GatewayError, ReplyTimeout, TooLarge, TooManyInFlight, Unavailable, WorkerFailed
from gateway.liveness import Liveness
from gateway.pending import Pending
from gateway.reply_listener import ReplyListener
from gateway.settings import GatewaySettings
from messaging import contract
from messaging.broker import Broker, BrokerError, Message, MessageTooLarge, QueueFull
from messaging.contract import PING, Explain, Mode, Reply, Request
from messaging.settings import TopicSettings

_log = logging.getLogger("mlaas.gateway")

Arguments = TypeVarTuple("Arguments")


class Requester:
    """One per process. Its methods belong to the event loop that start() ran in."""

    def __init__(self, broker: Broker, topics: TopicSettings, settings: GatewaySettings) -> None:
        self._broker = broker
        self._requests_topic = topics.requests
        self._settings = settings
        self._instance_id = settings.instance_id or uuid.uuid4().hex
        self._pending = Pending(settings.max_in_flight, settings.max_in_flight_bytes)
        self._liveness = Liveness(worker_silence_s=settings.worker_silence_ms / 1000)
        self._address = ""
        self._closing = False
        self._listener = ReplyListener(
            broker,
            topics.replies,
            self._instance_id,
            on_open=lambda address: self._hand_over(self._opened, address),
            on_replies=lambda messages: self._hand_over(self._resolve, messages),
            on_lost=lambda reason: self._hand_over(self._liveness.lost, reason),
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener.start()
        self._pinging = asyncio.create_task(self._ping_for_ever())

    async def drain(self) -> None:
        """Take nothing new, and complete every waiter: with its reply, or an error after drain_timeout_ms."""
        self._closing = True
        self._pinging.cancel()
        end = time.monotonic() + self._settings.drain_timeout_ms / 1000
        while len(self._pending) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        self._pending.fail_all("the gateway is shutting down")

    async def close(self) -> None:
        await self.drain()
        await asyncio.to_thread(self._listener.stop)
        await asyncio.to_thread(self._broker.close)

    @property
    def alive(self) -> bool:
        """False when the process can only be mended by a restart."""
        return self._listener.alive

    def why_not_ready(self) -> str | None:
        if self._closing:
            return "the gateway is shutting down"
        return self._liveness.why_not_ready(time.monotonic())

    async def request(
        self,
        picture: bytes,
        *,
        content_type: str,
        model: str = "",
        mode: Mode = "auto",
        explain: Explain = "",
        traceparent: str = "",
        timeout_s: float,
    ) -> Reply:
        """Raises GatewayError. Publishing has a bound: the answer or an error comes within timeout_s."""
        reason = self.why_not_ready()
        if reason is not None:
            raise Unavailable(reason)
        return await self._ask(
            Request(
                body=picture,
                correlation_id=uuid.uuid4().hex,
                reply_to=self._address,
                deadline_ms=int((time.time() + timeout_s) * 1000),
                content_type=content_type,
                model=model,
                mode=mode,
                explain=explain,
                traceparent=traceparent,
            ),
            timeout_s,
        )

    async def _ask(self, request: Request, timeout_s: float) -> Reply:
        """Register, publish, wait under one deadline, remove: in this order."""
        with self._pending.waiter(request.correlation_id, len(request.body)) as reply:
            self._publish(request)
            try:
                async with asyncio.timeout(timeout_s):
                    message = await reply
            except TimeoutError as error:
                raise ReplyTimeout(f"no answer within {timeout_s:g} s") from error
        try:
            return contract.decode_reply(message)
        except contract.ContractError as error:
            raise WorkerFailed(str(error)) from error

    def _publish(self, request: Request) -> None:
        def report(published: Future[None]) -> None:
            error = published.exception()
            if error is not None:
                self._hand_over(self._pending.fail, request.correlation_id, _as_gateway_error(error))

        try:
            self._broker.publish(self._requests_topic, contract.encode_request(request)).add_done_callback(
                report
            )
        except BrokerError as error:
            raise _as_gateway_error(error) from error

    async def _ping_for_ever(self) -> None:
        """A ping takes the whole way there and back, so its reply shows that a picture's would come.

        Replies to pictures show as much: while they come, nobody pings.
        """
        interval_s = self._settings.ping_interval_ms / 1000
        async with asyncio.TaskGroup() as pings:
            while True:
                if self._address and self._liveness.silence(time.monotonic()) >= interval_s:
                    pings.create_task(self._ping(self._settings.worker_silence_ms / 1000))
                await asyncio.sleep(interval_s)

    async def _ping(self, timeout_s: float) -> None:
        ping = Request(
            body=b"",
            correlation_id=uuid.uuid4().hex,
            reply_to=self._address,
            deadline_ms=int((time.time() + timeout_s) * 1000),
            content_type=PING,
        )
        try:
            await self._ask(ping, timeout_s)
        except GatewayError as error:
            _log.debug("ping: %s", error)

    def _opened(self, address: str) -> None:
        self._address = address
        self._liveness.opened()

    def _resolve(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if self._pending.resolve(contract.correlation_id(message), message):
                self._liveness.heard(time.monotonic())

    def _hand_over(self, function: Callable[[*Arguments], object], *arguments: *Arguments) -> None:
        """From another thread to the event loop."""
        self._loop.call_soon_threadsafe(function, *arguments)


def _as_gateway_error(error: BaseException) -> GatewayError:
    if isinstance(error, MessageTooLarge):
        return TooLarge(str(error))
    if isinstance(error, QueueFull):
        return TooManyInFlight(str(error))
    return Unavailable(str(error))
