"""Running the application: one process, one event loop, a graceful shutdown."""

import asyncio
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from gateway import GatewaySettings, JobSettings
from gateway.app import create_app
from gateway.http_protocol import BoundedProtocol
from gateway.jobs.service import Jobs
from gateway.metrics import AccessLog
from gateway.request_reply import Requester
from messaging import TopicSettings
from messaging.broker import Broker
from messaging.tracing import CallSpans

_AFTER_DRAIN_S = 5
# Longer than clients and proxies keep idle connections, so that none is closed just as it is reused.
_KEEP_ALIVE_S = 75
_TICK_S = 1.0  # the resolution of the date in the head of an answer
# Connections in a turn of the loop. Processes that share a port must leave some for each other.
_ACCEPTED_ALONE, _ACCEPTED_AMONG_OTHERS = 64, 2

_log = logging.getLogger("mlaas.gateway")


def serve(
    listener: socket.socket,
    broker: Broker,
    topics: TopicSettings,
    settings: GatewaySettings,
    job_settings: JobSettings,
    version: str,
    *,
    spans: CallSpans | None = None,
    metrics_socket: Path | None = None,
    access_lines_per_s: int = 0,
) -> None:
    """Serve until SIGTERM or SIGINT, then answer the requests in flight and return.

    spans: see create_app. metrics_socket: where to answer scrapes, instead of on settings.metrics_port.
    access_lines_per_s: the most lines of the access log; 0: there is none.
    Raises KeyFileError, StoreError, OSError if the port for metrics is taken, and whatever exception ended
    the reading of replies.
    """
    requester = Requester(broker, topics, settings)
    if metrics_socket is not None:
        requester.metrics.answer_at(metrics_socket)
    elif settings.metrics_port:
        requester.metrics.serve(settings.metrics_host, settings.metrics_port)
    jobs = Jobs(broker, topics, job_settings, settings, requester)
    host, port = listener.getsockname()[:2]
    if not (settings.api_keys_file or ip_address(host).is_loopback):
        _log.warning(
            "anyone who can reach %s:%s may call it; set gateway.api_keys_file to require API keys",
            host,
            port,
        )
    _log.info("listening on %s:%s", host, port)
    access_log = AccessLog(access_lines_per_s) if access_lines_per_s else None

    def refused(status: int) -> None:
        requester.metrics.requests.labels("other", status).inc()
        if access_log is not None:
            access_log.refused(status)

    protocol: Any = partial(
        BoundedProtocol,
        max_head_bytes=settings.max_head_bytes,
        head_timeout_s=settings.head_timeout_ms / 1000,
        max_rest_bytes=max(settings.max_upload_bytes, settings.max_batch_bytes, job_settings.max_bytes),
        rest_timeout_s=settings.body_timeout_ms / 1000,
        on_refusal=refused,
    )
    config = uvicorn.Config(
        create_app(requester, settings, version, jobs, spans=spans, access_log=access_log),
        http=protocol,
        log_config=None,
        access_log=False,
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.drain_timeout_ms // 1000 + _AFTER_DRAIN_S,
        server_header=False,
        proxy_headers=False,  # nothing here asks for the client's address or scheme
    )
    server = _Server(config, requester, jobs, settings)

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # While it runs, uvicorn handles the signals itself; afterwards it raises them again for these handlers.
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run(sockets=[listener])
    if requester.failure is not None:
        raise requester.failure


def listen(settings: GatewaySettings) -> socket.socket:
    """Bind the address, before anything else is started. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """Shuts down in two steps, and ends by itself when replies can no longer be read.

    First it leaves: for drain_delay_ms it is not ready but still answers, closing each connection with its
    answer, so that load balancers go elsewhere. Then it drains: it takes nothing new, and answers every
    waiting request before it closes the connections.
    """

    def __init__(
        self, config: uvicorn.Config, requester: Requester, jobs: Jobs, settings: GatewaySettings
    ) -> None:
        super().__init__(config)
        self._requester = requester
        self._jobs = jobs
        self._drain_delay_s = settings.drain_delay_ms / 1000
        self._write_timeout_s = settings.write_timeout_ms / 1000
        self._accepted_in_a_turn = _ACCEPTED_ALONE if settings.processes == 1 else _ACCEPTED_AMONG_OTHERS
        self._acceptors: list[Acceptor] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signalled = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._acceptors = [
            Acceptor(listener, self._protocol, self._accepted_in_a_turn) for listener in sockets or ()
        ]
        _collect_seldom()

    async def main_loop(self) -> None:
        """Replaces uvicorn's method, which looks around ten times a second."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._signalled.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._signalled.set)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end: if no replies can be read, only a new process helps."""
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.end_unless_answers_are_taken(time.monotonic(), self._write_timeout_s)
        return await super().on_tick(counter) or self._requester.failure is not None

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._requester.leave()
        await self._leave()
        for acceptor in self._acceptors:
            acceptor.close()
        async with asyncio.TaskGroup() as ending:
            ending.create_task(self._requester.drain())
            ending.create_task(self._jobs.drain())
            ending.create_task(super().shutdown(sockets))

    async def _leave(self) -> None:
        """A second signal ends the delay."""
        end = time.monotonic() + self._drain_delay_s
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.05)


class Acceptor:
    """Accepts several connections in one turn of the running event loop.

    libuv accepts one per turn (since 1.45). When turns are long, callers would wait in the backlog, where no
    limit applies to them, until they give up.
    """

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], most_in_a_turn: int
    ) -> None:
        """The listener stays open after close()."""
        # socket.dup() would briefly make the listener blocking, for all processes that share it.
        self._listener = socket.socket(fileno=os.dup(listener.fileno()))
        self._listener.setblocking(False)
        self._protocol = protocol
        self._most_in_a_turn = most_in_a_turn
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(self._most_in_a_turn):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # the backlog is empty, or no descriptor is left, which libuv deals with
                return
            connecting = self._loop.create_task(
                self._loop.connect_accepted_socket(self._protocol, connection)
            )
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)


def _collect_seldom() -> None:
    """Never scan what startup allocated, and the rest seldom: requests leave no reference cycles behind."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
