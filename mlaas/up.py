"""The one-command start: broker, workers and gateways in child processes, restarted and stopped together."""

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from msgspec.structs import replace

from gateway import GatewaySettings
from messaging import SHARED, Queue, administration, hosted
from mlaas.errors import UserError, reported
from mlaas.settings import Settings, as_environment, load

_log = logging.getLogger("mlaas")

_TURN_S = 0.05
_WATCH_S = 0.2
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_SOUND_AFTER_S = 30.0

# As a caller who records nothing: looking after the gateway is no trace of its users.
_UNTRACED = {"traceparent": f"00-{32 * '1'}-{16 * '1'}-00"}


class StartFailed(Exception):
    """A child process failed during startup."""


def up(settings: Settings, announce: Callable[[str, Sequence[Mapping[str, Any]]], None]) -> None:
    """Runs everything until SIGINT or SIGTERM. Once the gateway is ready, calls announce with its URL.

    announce also gets what GET /models lists, which is nothing where that needs an API key. Raises OSError if
    it cannot listen on the address, KeyFileError, StartFailed and BrokerError.
    """
    from gateway.api_keys import open_key_file
    from gateway.server import listen

    open_key_file(settings.gateway.api_keys_file)
    stopping = stop_on_signals()
    alone = replace(settings, gateway=replace(settings.gateway, drain_delay_ms=0))  # no load balancer
    with (
        listen(settings.gateway) as listener,
        _with_broker(alone) as (theirs, url_of_share),
        supervising(theirs) as supervisor,
    ):
        host, port = reachable(settings.gateway.host), listener.getsockname()[1]
        start_gateways(supervisor, settings.gateway, listener)
        if SHARED not in (queue.name for queue in shares(settings)):
            _log.warning("requests that name no model are refused: every model has a queue of its own")
        start_workers(supervisor, theirs, url_of_share)
        _wait_until_ready(supervisor, host, port, {queue.name for queue in shares(theirs)}, stopping)
        if not stopping.is_set():
            listed = {} if settings.gateway.api_keys_file else _get(host, port, "/models")
            announce(url_of(host, port), listed.get("models", ()))
        watch(supervisor, stopping)
        _log.info("stopping; requests that are open get their answers first")


@contextmanager
def supervising(settings: Settings) -> Iterator["Supervisor"]:
    """A supervisor of children with these settings, which stops them at the end of the block."""
    gateway, worker = settings.gateway, settings.worker
    with tempfile.TemporaryDirectory(prefix="mlaas-") as folder:
        supervisor = Supervisor(as_environment(settings), Path(folder))
        try:
            yield supervisor
        finally:
            supervisor.stop("gateway", (gateway.drain_delay_ms + gateway.drain_timeout_ms) / 1000 + 10)
            supervisor.stop("worker", worker.model_timeout_ms / 1000 + 15)


def _serve_metrics(supervisor: "Supervisor", kind: str, host: str, port: int) -> None:
    """Serves the metrics of all children of a kind on one port, unless it is 0. Raises OSError."""
    if port:
        from messaging.metrics import Gathered, serve

        serve(host, port, Gathered(supervisor.folder, kind))


def start_gateways(supervisor: "Supervisor", settings: GatewaySettings, listener: socket.socket) -> None:
    """Starts gateway.processes gateways that share the listener and the metrics port; each has its own id.

    Raises OSError if the metrics port is taken.
    """
    _serve_metrics(supervisor, "gateway", settings.metrics_host, settings.metrics_port)
    fd = listener.fileno()
    for number in range(settings.processes):
        several = settings.instance_id and settings.processes > 1
        instance = f"{settings.instance_id}-{number + 1}" if several else settings.instance_id
        command = ["--set", f"gateway.instance_id={instance}", "gateway", "--fd", str(fd)]
        supervisor.start(f"gateway-{number + 1}", command, pass_fds=[fd])


def start_workers(
    supervisor: "Supervisor", settings: Settings, url_of_share: Callable[[int, int], str] | None = None
) -> None:
    """Starts worker.processes workers for each queue; each has its own id, and all share the metrics port.

    url_of_share: the broker's URL for one of so many workers that share each topic without a group. Raises
    UserError, see shares, and OSError if the metrics port is taken.
    """
    its = settings.worker
    _serve_metrics(supervisor, "worker", its.metrics_host, its.metrics_port)
    started = 0
    for queue, models in shares(settings).items():
        several = "" if queue.name == SHARED else f"{queue.name}-"
        for number in range(1, its.processes + 1):
            started += 1
            instance = its.instance_id and f"{its.instance_id}-{started}"
            its_own = ["--set", f"worker.instance_id={instance}"]
            if url_of_share is not None:
                its_own += ["--set", f"broker.url={url_of_share(number, its.processes)}"]
            if models:
                its_own += ["--set", f"model.names=[{', '.join(models)}]"]
            its_own += ["--set", f"worker.queue={queue.name}"]
            name = f"worker-{several}{number}"
            supervisor.start(name, [*its_own, "worker", "--workers", "1"])
            if settings.topics.queues:
                which = ", ".join(models) or "all models without a queue of their own"
                _log.info("%s serves the queue %s: %s", name, queue.name, which)


def shares(settings: Settings) -> Mapping[Queue, list[str]]:
    """The queues to take, and the models for each: none for all that have no queue of their own.

    Raises UserError for a queue of which only some models are served: its workers would refuse the others.
    """
    names, topics = settings.model.names, settings.topics
    if not names and (its := topics.queue_of(settings.model.default)).name != SHARED:
        raise UserError(
            f"the default model, {settings.model.default}, has the queue {its.name}",
            "leave it in the shared one, since requests that name no model go there",
            os.EX_CONFIG,
        )
    of_all = {queue: [*queue.models] if queue.name != SHARED else [] for queue in topics.all_queues()}
    found = topics.shares(names) if names else of_all
    if only := settings.worker.queue:
        found = {queue: models for queue, models in found.items() if queue.name == only}
        if not found:
            raise UserError(f"worker.queue: no model that is served has the queue {only}", "", os.EX_CONFIG)
    for queue, models in found.items() if names else ():
        if lacking := [model for model in queue.models if model not in models]:
            raise UserError(
                f"the queue {queue.name} of {', '.join(models)} is also that of {', '.join(lacking)}",
                "serve all of them (model.names), or change topics.queues",
                os.EX_CONFIG,
            )
    return found


def watch(supervisor: "Supervisor", stopping: threading.Event) -> None:
    """Restarts children that die, until the event is set."""
    while not stopping.is_set():
        supervisor.watch(time.monotonic())
        stopping.wait(_WATCH_S)


def stop_on_signals() -> threading.Event:
    """An event that SIGINT and SIGTERM set."""
    stopping = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return stopping


@contextmanager
def _with_broker(settings: Settings) -> Iterator[tuple[Settings, Callable[[int, int], str] | None]]:
    """Starts a broker here, or creates the topics on one elsewhere.

    Yields the settings for children, and url_of_share for start_workers.
    """
    broker = hosted(settings.broker.url)
    if broker is None:
        topics = settings.topics.wanted(settings.worker.group)
        with reported(os.EX_CONFIG, ValueError):
            administering = administration(settings.broker, settings.topics)
        administering.apply(topics)
        yield settings, None
        return
    _log.info("embedded broker at %s", broker.url)
    try:
        with _store(settings.jobs.store) as store:
            limits = broker.max_bytes_in_flight, broker.max_replies_in_flight
            yield _within(settings, broker.url, store, *limits), broker.url_of_share
    finally:
        broker.close()


@contextmanager
def _store(chosen: str) -> Iterator[str]:
    """The job store: by default a temporary one, as jobs end with the embedded broker. Raises StartFailed."""
    if chosen != load(None, {}).jobs.store:
        yield chosen
        return
    try:
        folder = tempfile.TemporaryDirectory(prefix="mlaas-")
    except OSError as error:
        raise StartFailed(
            f"no folder for jobs: {error.strerror or error}; set TMPDIR to a folder that can be written"
        ) from error
    with folder as path:
        yield f"sqlite:///{path}/jobs.sqlite3"


def _within(settings: Settings, url: str, store: str, most_bytes: int, most_replies: int) -> Settings:
    """The settings for a broker here, which can hold so much."""
    gateway, jobs = settings.gateway, settings.jobs
    return replace(
        settings,
        broker=replace(settings.broker, url=url),
        gateway=replace(
            gateway,
            max_in_flight_bytes=min(gateway.max_in_flight_bytes, most_bytes),
            max_upload_bytes=min(gateway.max_upload_bytes, most_bytes),
        ),
        jobs=replace(
            jobs,
            store=store,
            max_unfinished_bytes=min(jobs.max_unfinished_bytes, most_bytes),
            max_unfinished_pictures=min(jobs.max_unfinished_pictures, most_replies),
        ),
    )


def _wait_until_ready(
    supervisor: "Supervisor", host: str, port: int, queues: Collection[str], stopping: threading.Event
) -> None:
    while not stopping.is_set() and not _is_ready(host, port, queues):
        if dead := supervisor.dead():
            raise StartFailed(
                f"{dead[0].name} did not start: see its last log lines above, or run `mlaas doctor`"
            )
        stopping.wait(_TURN_S)


def _is_ready(host: str, port: int, queues: Collection[str]) -> bool:
    """Whether pictures for each of these queues would be answered."""
    health = _get(host, port, "/health/ready")
    answering = health.get("queues", {})
    return health.get("status") == "ready" and all(answering.get(queue, True) for queue in queues)


def _get(host: str, port: int, path: str) -> Mapping[str, Any]:
    """The JSON object that a GET answers; empty if there is no such answer."""
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path, headers=_UNTRACED)
        answer = json.loads(connection.getresponse().read())
        return answer if isinstance(answer, dict) else {}
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()


def reachable(host: str) -> str:
    """The address at which to reach a server that listens on host."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def url_of(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


@dataclass(slots=True)
class Child:
    """A child process and its restarts. Times are seconds on time.monotonic()."""

    name: str
    arguments: Sequence[str]
    pass_fds: Sequence[int] = ()
    process: "subprocess.Popen[bytes]" = field(init=False)
    started_at: float = 0.0
    restart_at: float = 0.0
    pause_s: float = 0.0


def pause_before_restart(pause_s: float, lived_s: float) -> float:
    """Seconds: 0 after a life of over 30 s, otherwise from 0.5 s, doubling up to 30 s."""
    return 0.0 if lived_s > _SOUND_AFTER_S else min(max(_FIRST_PAUSE_S, pause_s * 2), _LONGEST_PAUSE_S)


class Supervisor:
    """Runs `mlaas` commands as child processes, which get their settings from the environment.

    The standard input of each is a pipe from this process, so that it ends when this process does. Each
    answers scrapes of its metrics at a socket in the folder, named like itself.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.folder = folder
        self._environment = {**os.environ, **environment}
        self._children: list[Child] = []

    def start(self, name: str, arguments: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        child = Child(name, arguments, pass_fds)
        self._spawn(child)
        self._children.append(child)

    def dead(self) -> list[Child]:
        return [child for child in self._children if child.process.poll() is not None]

    def watch(self, now: float) -> None:
        """Schedules a restart for each child that has died since; restarts those that are due."""
        for child in self.dead():
            if not child.restart_at:
                child.pause_s = pause_before_restart(child.pause_s, now - child.started_at)
                child.restart_at = now + child.pause_s
                code = child.process.returncode
                _log.error("%s exited with code %s; restarting it in %.1f s", child.name, code, child.pause_s)
            elif now >= child.restart_at:
                self._spawn(child)

    def stop(self, name_prefix: str, timeout_s: float) -> None:
        """Sends SIGTERM to the children with this prefix; after timeout_s, SIGKILL to those still running."""
        running = [child for child in self._children if child.name.startswith(name_prefix)]
        for child in running:
            child.process.terminate()
        end = time.monotonic() + timeout_s
        for child in running:
            _wait_or_kill(child, max(0.1, end - time.monotonic()))
            self._children.remove(child)

    def _spawn(self, child: Child) -> None:
        child.restart_at = 0.0
        child.started_at = time.monotonic()
        child.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mlaas", "--supervised", self.folder / child.name, *child.arguments],
            stdin=subprocess.PIPE,
            pass_fds=child.pass_fds,
            env=self._environment,
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the children in order
        )


def _wait_or_kill(child: Child, timeout_s: float) -> None:
    try:
        child.process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        _log.warning("%s did not stop in time; killing it", child.name)
        child.process.kill()
        child.process.wait()
    if child.process.stdin:
        child.process.stdin.close()
