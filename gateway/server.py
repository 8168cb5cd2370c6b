"""Running the application: one process, one event loop, a graceful end."""

import asyncio
import socket

import uvicorn

from gateway.app import create_app
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from messaging.broker import Broker
from messaging.settings import TopicSettings

_AFTER_DRAIN_S = 5


class _Server(uvicorn.Server):
    """Begins to drain when told to stop, so that every waiter is answered before connections are cut."""

    def __init__(self, config: uvicorn.Config, requester: Requester) -> None:
        super().__init__(config)
        self._requester = requester

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        async with asyncio.TaskGroup() as both:
            both.create_task(self._requester.drain())
            both.create_task(super().shutdown(sockets))


def listen(settings: GatewaySettings) -> socket.socket:
    """Take the address before anything else is started. Raises OSError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError:
        listener.close()
        raise
    return listener


def serve(listener: socket.socket, broker: Broker, topics: TopicSettings, settings: GatewaySettings) -> None:
    """Until SIGTERM or SIGINT; then the requests in flight are answered first."""
    requester = Requester(broker, topics, settings)
    config = uvicorn.Config(
        create_app(requester, settings),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=settings.drain_timeout_ms // 1000 + _AFTER_DRAIN_S,
        server_header=False,
    )
    _Server(config, requester).run(sockets=[listener])
