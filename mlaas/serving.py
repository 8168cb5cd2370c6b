"""Runs gateways and workers as the settings say."""

import ctypes
import fcntl
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from messaging import BrokerSettings, system, tracing
from messaging import connect as by_url
from messaging.broker import Broker
from mlaas import __version__
from mlaas.errors import reported, require
from mlaas.settings import Settings
from mlaas.up import shares, start_gateways, start_workers, stop_on_signals, supervising, watch

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

    from worker.pipe import ModelVersion, Role

_log = logging.getLogger("mlaas.worker")

_TRACE_RECEIVERS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

_MOST_ON_A_MACHINE = 1_000

# mallopt(3): its numbers, from malloc.h, and the variables with the same effect.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MALLOC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
_MIB = 1024 * 1024
_KEPT_BYTES, _LARGE_BUFFER_BYTES = 32 * _MIB, 16 * _MIB
_TRIM_EVERY_S = 1.0


def connect(settings: BrokerSettings) -> Broker:
    """Connects to the broker that the URL names. Raises UserError for an invalid URL, and BrokerError."""
    with reported(os.EX_CONFIG, ValueError):
        return by_url(
            settings.url,
            max_message_bytes=settings.max_message_bytes,
            publish_timeout_ms=settings.publish_timeout_ms,
        )


def wants_traces(environment: Mapping[str, str]) -> bool:
    """Whether the environment names a receiver of traces, as OpenTelemetry defines it."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    return exporter.lower() == "otlp" and any(environment.get(name) for name in _TRACE_RECEIVERS)


def traced(broker: Broker, service: str, url: str) -> "tuple[Broker, Tracer | None]":
    """The broker of this URL, and a tracer if the environment asks for traces. Raises UserError."""
    if not wants_traces(os.environ):
        return broker, None
    require("tracing")
    tracer = tracing.start(service, __version__)
    return tracing.TracedBroker(broker, tracer, system(url)), tracer


def run_gateway(settings: Settings, fd: int | None, metrics_socket: Path | None = None) -> None:
    """Runs a gateway until SIGTERM or SIGINT. fd is a bound socket, which other gateways may share.

    metrics_socket: where to answer scrapes for a supervisor, instead of on gateway.metrics_port.

    Raises OSError if it cannot listen on the address, KeyFileError, StoreError, UserError and BrokerError.
    """
    from gateway.api_keys import open_key_file
    from gateway.server import listen, serve

    reuse_buffers()
    open_key_file(settings.gateway.api_keys_file)
    listener = listen(settings.gateway) if fd is None else socket.socket(fileno=fd)
    connection, tracer = traced(connect(settings.broker), "mlaas-gateway", settings.broker.url)
    serve(
        listener,
        connection,
        settings.topics,
        settings.gateway,
        settings.jobs,
        __version__,
        spans=tracing.CallSpans(tracer) if tracer else None,
        metrics_socket=metrics_socket,
        access_lines_per_s=settings.log.access_lines_per_s,
    )


def run_gateways(settings: Settings) -> None:
    """Runs several gateways on one port until SIGTERM or SIGINT. Raises OSError and KeyFileError."""
    from gateway.api_keys import open_key_file
    from gateway.server import listen

    open_key_file(settings.gateway.api_keys_file)
    stopping = stop_on_signals()
    with listen(settings.gateway) as listener, supervising(settings) as supervisor:
        start_gateways(supervisor, settings.gateway, listener)
        watch(supervisor, stopping)


def run_worker(settings: Settings, metrics_socket: Path | None = None) -> None:
    """Runs a consumer and its model process until SIGTERM or SIGINT. shares() must have one queue.

    metrics_socket: where to answer scrapes for a supervisor, instead of on worker.metrics_port.
    Raises ModelUnavailable, UserError, BrokerError, and OSError if it cannot listen on worker.metrics_port.
    """
    from worker.consumer import Consumer
    from worker.model_process import ModelProcess
    from worker.rollout import Rollout

    def start(role: "Role", versions: "Sequence[ModelVersion]") -> ModelProcess:
        return ModelProcess(
            settings.model,
            versions,
            timeout_s=settings.worker.model_timeout_ms / 1000,
            start_timeout_s=settings.worker.model_start_timeout_ms / 1000,
            role=role,
        )

    reuse_buffers()
    ours = replace(settings.worker, instance_id=settings.worker.instance_id or own_instance_id())
    ((queue, names),) = shares(settings).items()
    served = replace(settings.model, names=tuple(names)) if names else settings.model
    elsewhere = {model for model, its in settings.topics.queues.items() if its != queue.name}
    poll_s = settings.worker.models_poll_ms / 1000
    models = Rollout(served, start, poll_s, queue.name, elsewhere)
    connection, tracer = traced(connect(settings.broker), "mlaas-worker", settings.broker.url)
    consumer = Consumer(
        connection,
        settings.topics,
        queue,
        ours,
        models,
        settings.model.max_pixels,
        trace=partial(tracing.record_batch, tracer) if tracer else None,
    )
    signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
    signal.signal(signal.SIGINT, lambda *_: consumer.stop())
    if metrics_socket is not None:
        consumer.metrics.answer_at(metrics_socket)
    elif settings.worker.metrics_port:
        consumer.metrics.serve(settings.worker.metrics_host, settings.worker.metrics_port)
    consumer.run()


def run_workers(settings: Settings) -> None:
    """Runs several consumers, each in a process of its own, until SIGTERM or SIGINT. Raises UserError."""
    stopping = stop_on_signals()
    with supervising(settings) as supervisor:
        start_workers(supervisor, settings)
        watch(supervisor, stopping)


def own_instance_id(folder: Path | None = None) -> str:
    """An id that no other worker on this machine has, and that a restarted worker gets again.

    It ends in the lowest number whose lock file nobody holds; the system releases the lock when this process
    ends. It is empty if no lock file can be created.
    """
    user = os.getuid()
    folder = folder or Path(tempfile.gettempdir(), f"mlaas-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != user:
            raise PermissionError(None, "the folder belongs to another user", str(folder))
        for number in range(1, _MOST_ON_A_MACHINE):
            if _lock(folder / f"worker-{number}.lock"):
                return f"{socket.gethostname()}-{user}-{number}"
    except OSError as error:
        _log.warning(
            "no instance id, so if this worker is killed, its partitions pause for seconds: %s", error
        )
    return ""


def _lock(file: Path) -> bool:
    """Whether the lock could be taken. Its descriptor stays open for the life of this process."""
    descriptor = os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, mode=0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    return True


def reuse_buffers() -> None:
    """Has this process and its children use the memory of one picture for the next.

    Memory that is asked for anew costs a page fault for every 4 KiB: half a millisecond for a megabyte. So
    glibc keeps up to 32 MiB, and returns only buffers from 16 MiB on at once. After a burst, freed memory
    lies between what is still in use; this process looks once a second, and returns it. Child processes have
    one picture or batch at a time. This has no effect if one of the environment variables of mallopt(3) is
    set, or with another C library.
    """
    libc = ctypes.CDLL(None)
    if any(name in os.environ for name in _MALLOC_VARIABLES) or not hasattr(libc, "mallinfo2"):
        return
    for name, size_bytes in zip(_MALLOC_VARIABLES, (_KEPT_BYTES, _LARGE_BUFFER_BYTES), strict=True):
        os.environ[name] = str(size_bytes)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BUFFER_BYTES)
    libc.mallinfo2.restype = _MallInfo2
    threading.Thread(target=_trim, args=[libc], name="trimmer", daemon=True).start()


def _trim(libc: ctypes.CDLL) -> None:
    while True:
        time.sleep(_TRIM_EVERY_S)
        if libc.mallinfo2().fordblks > _KEPT_BYTES:
            libc.malloc_trim(0)


class _MallInfo2(ctypes.Structure):
    """mallinfo(3). fordblks: bytes that are free, in all arenas."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip
