"""From settings to a running gateway or worker, or several of them."""

import ctypes
import fcntl
import logging
import os
import signal
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from messaging import connect as by_url
from messaging.broker import Broker
from messaging.settings import BrokerSettings
from mlaas import __version__
from mlaas.errors import reported
from mlaas.settings import Settings, as_environment
from mlaas.supervisor import Supervisor
from mlaas.up import start_gateways, start_workers, stop_gateways, stop_on_signals, stop_workers, watch

if TYPE_CHECKING:
    from worker.model_process import ModelProcess
    from worker.pipe import Role

_log = logging.getLogger("mlaas.worker")

_MOST_ON_A_MACHINE = 1_000

_MALLOC_VARIABLE = "MALLOC_MMAP_THRESHOLD_"
_M_MMAP_THRESHOLD = -3  # malloc.h
_LARGE_BUFFER_BYTES = 1024 * 1024


def connect(settings: BrokerSettings) -> Broker:
    """Returns the broker that the URL names. Raises BrokerError."""
    with reported(os.EX_CONFIG, ValueError):
        return by_url.connect(
            settings.url,
            max_message_bytes=settings.max_message_bytes,
            publish_timeout_ms=settings.publish_timeout_ms,
        )


def run_gateway(settings: Settings, fd: int | None) -> None:
    """Runs one gateway until SIGTERM or SIGINT. fd: a bound socket, which other gateways may share.

    Raises OSError if the address is taken, KeyFileError, StoreError, BrokerError.
    """
    from gateway.api_keys import open_key_file
    from gateway.server import listen, serve

    give_back_large_buffers()
    open_key_file(settings.gateway.api_keys_file)
    listener = listen(settings.gateway) if fd is None else socket.socket(fileno=fd)
    connection = connect(settings.broker)
    serve(listener, connection, settings.topics, settings.gateway, settings.jobs, __version__)


def run_gateways(settings: Settings) -> None:
    """Runs several gateways on one port. Raises OSError if the address is taken, KeyFileError."""
    from gateway.api_keys import open_key_file
    from gateway.server import listen

    open_key_file(settings.gateway.api_keys_file)
    stopping = stop_on_signals()
    with listen(settings.gateway) as listener:
        supervisor = Supervisor(as_environment(settings))
        try:
            start_gateways(supervisor, settings.gateway, listener)
            watch(supervisor, stopping)
        finally:
            stop_gateways(supervisor, settings.gateway)


def run_worker(settings: Settings) -> None:
    """Runs one consumer with its processes, until SIGTERM or SIGINT. Raises ModelUnavailable."""
    from worker.consumer import Consumer
    from worker.model_process import IsolatedModel, ModelProcess
    from worker.pipe import Role

    def start(role: "Role") -> "ModelProcess":
        return ModelProcess(
            settings.model,
            timeout_s=settings.worker.model_timeout_ms / 1000,
            start_timeout_s=settings.worker.model_start_timeout_ms / 1000,
            role=role,
        )

    give_back_large_buffers()
    ours = replace(settings.worker, instance_id=settings.worker.instance_id or own_instance_id())
    model = IsolatedModel(partial(start, Role.MODEL), partial(start, Role.DECODER))
    consumer = Consumer(connect(settings.broker), settings.topics, ours, model, settings.model.max_pixels)
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    signal.signal(signal.SIGINT, lambda *_: consumer.stop())
    if settings.worker.metrics_port:
        consumer.metrics.serve(settings.worker.metrics_host, settings.worker.metrics_port)
    consumer.run()


def run_workers(settings: Settings) -> None:
    stopping = stop_on_signals()
    supervisor = Supervisor(as_environment(settings))
    try:
        start_workers(supervisor, settings)
        watch(supervisor, stopping)
    finally:
        stop_workers(supervisor, settings.worker)


def own_instance_id(folder: Path | None = None) -> str:
    """Returns an id that no other worker on this machine has; a worker's replacement gets the same one.

    The id ends in the lowest number whose lock file is free. The lock is released whenever the process ends.
    Where no lock can be taken, the id is empty.
    """
    user = os.getuid()
    folder = folder or Path(tempfile.gettempdir(), f"mlaas-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != user:
            raise PermissionError(None, "it belongs to another user", str(folder))
        for number in range(1, _MOST_ON_A_MACHINE):
            if _lock(folder / f"worker-{number}.lock"):
                return f"{socket.gethostname()}-{user}-{number}"
    except OSError as error:
        _log.warning("if this worker is killed, its share of the work waits some seconds: %s", error)
    return ""


def _lock(file: Path) -> bool:
    """The descriptor stays open for as long as the process lives."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, mode=0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def give_back_large_buffers() -> None:
    """Makes this process and its children return the buffers of pictures to the system once they are freed.

    By default glibc raises the size from which it returns memory, up to 32 MiB; smaller buffers stay as
    fragments. This does nothing with another C library, or where the variable is set. See mallopt(3).
    """
    if _MALLOC_VARIABLE in os.environ:
        return
    os.environ[_MALLOC_VARIABLE] = str(_LARGE_BUFFER_BYTES)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFER_BYTES)
