"""From settings to a running gateway, or several that share a port."""

import socket

from gateway.api_keys import open_key_file
from gateway.server import listen, serve
from mlaas import __version__
from mlaas.connect import connect
from mlaas.memory import give_back_large_buffers
from mlaas.settings import Settings, as_environment
from mlaas.supervisor import Supervisor
from mlaas.up import start_gateways, stop_gateways, stop_on_signals, watch


def run(settings: Settings, fd: int | None) -> None:
    """One process, until SIGTERM or SIGINT. fd: a socket that is bound already, which others may share.

    Raises OSError when the address is taken, KeyFileError, StoreError, BrokerError.
    """
    give_back_large_buffers()
    open_key_file(settings.gateway.api_keys_file)
    listener = listen(settings.gateway) if fd is None else socket.socket(fileno=fd)
    connection = connect(settings.broker)
    serve(listener, connection, settings.topics, settings.gateway, settings.jobs, __version__)


def run_several(settings: Settings) -> None:
    """Raises OSError when the address is taken, KeyFileError."""
    open_key_file(settings.gateway.api_keys_file)
    stopping = stop_on_signals()
    with listen(settings.gateway) as listener:
        supervisor = Supervisor(as_environment(settings))
        try:
            start_gateways(supervisor, settings.gateway, listener)
            watch(supervisor, stopping)
        finally:
            stop_gateways(supervisor, settings.gateway)
