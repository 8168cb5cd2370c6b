"""From settings to a running worker, or several."""

import fcntl
import logging
import os
import signal
import socket
import tempfile
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from mlaas.connect import connect
from mlaas.memory import give_back_large_buffers
from mlaas.settings import Settings, as_environment
from mlaas.supervisor import Supervisor
from mlaas.up import start_workers, stop_on_signals, watch
from worker.consumer import Consumer
from worker.model_process import IsolatedModel, ModelProcess
from worker.pipe import Role

_log = logging.getLogger("mlaas.worker")

_MOST_ON_A_MACHINE = 1_000


def run(settings: Settings) -> None:
    """One consumer with its processes, until SIGTERM or SIGINT. Raises ModelUnavailable."""

    def start(role: Role) -> ModelProcess:
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


def own_instance_id(folder: Path | None = None) -> str:
    """What no other worker on this machine has, and one that is started in the place of this one gets again.

    It ends in the lowest number that nobody has: a lock, which ends with the process, however that ends.
    Empty where there are no locks to be had.
    """
    user = os.getuid()
    folder = folder or Path(tempfile.gettempdir(), f"mlaas-{user}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != user:
            raise PermissionError(None, "it is another user's", str(folder))
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


def run_several(settings: Settings) -> None:
    stopping = stop_on_signals()
    supervisor = Supervisor(as_environment(settings))
    try:
        start_workers(supervisor, settings)
        watch(supervisor, stopping)
    finally:
        supervisor.stop("worker", settings.worker.model_timeout_ms / 1000 + 15)
