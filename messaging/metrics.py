"""The metrics of gateways and workers: how they are declared, and how a scrape gets those of many processes.

Each of several processes that were started together answers on a Unix socket, all in one folder. A scrape
asks all of them, and the label `process` tells their series apart. They are not added up: a process that is
restarted begins at 0, which Prometheus recognises in a series but would take for an increase in a sum.
"""

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from messaging.broker import FrameCounts

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Buckets for what a caller waits for."""

_log = logging.getLogger("mlaas.metrics")

_UP = Metric("mlaas_process_up", "1 if the process answered this scrape.", "gauge")
_ANSWER_TIMEOUT_S = 2.0
_READ_BYTES = 65_536

Labels = Mapping[str, Iterable[str]]
"""By label, the values that it can have; none if the configuration decides. They never come from a request.

If all are known, each series exists from the start with the value 0: Prometheus does not notice an increase
from nothing to 1.
"""

Made = TypeVar("Made", Counter, Gauge, Histogram)


class Declared(msgspec.Struct, frozen=True):
    """A metric as it is documented. is_open: whether a gateway's GET /metrics, which needs no key, has it."""

    name: str
    kind: str
    about: str
    labels: dict[str, tuple[str, ...]]
    is_open: bool = True


class Family(msgspec.Struct, array_like=True):
    """A metric as it is now. samples: name, labels and value of each."""

    name: str
    about: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


class Metrics(Collector):
    """The metrics of a process. A subclass declares them in __init__."""

    def __init__(self) -> None:
        self.declared: list[Declared] = []
        self._registry = CollectorRegistry()
        self._of_all: Collector = self
        self._frames = FrameCounts()
        ProcessCollector(registry=self._registry)

    def counter(
        self, name: str, about: str, labels: Labels | None = None, *, is_open: bool = True
    ) -> Counter:
        its = self._declare(name, "counter", about, labels, is_open)
        return _from_zero(Counter(name, about, tuple(its.labels), registry=self._registry), its)

    def gauge(self, name: str, about: str, labels: Labels | None = None) -> Gauge:
        its = self._declare(name, "gauge", about, labels)
        return _from_zero(Gauge(name, about, tuple(its.labels), registry=self._registry), its)

    def histogram(
        self, name: str, about: str, buckets: Sequence[float], labels: Labels | None = None
    ) -> Histogram:
        its = self._declare(name, "histogram", about, labels)
        made = Histogram(name, about, tuple(its.labels), buckets=buckets, registry=self._registry)
        return _from_zero(made, its)

    def counted(self, name: str, about: str, label: str, counts: Mapping[str, Callable[[], int]]) -> None:
        """A counter that others keep. counts: by the label's value, what returns the count."""
        self._declare(name, "counter", about, {label: counts})
        self._registry.register(_Counted(name, about, label, counts))

    def count_frames(self, name: str, sent: str) -> None:
        """Declare the counter of frames. sent: what is sent in them."""
        about = f"Frames that were sent, each one record of several {sent}, and the messages in them."
        self.counted(
            name,
            about,
            "what",
            {"frames": lambda: self._frames.frames, "messages": lambda: self._frames.messages},
        )

    def watch_frames(self, counts: FrameCounts) -> None:
        """counts: of this process's broker."""
        self._frames = counts

    def collect(self) -> Iterable[Metric]:
        """As prometheus_client asks for them."""
        return map(_as_metric, self.families())

    def families(self) -> list[Family]:
        return [
            Family(
                each.name,
                each.documentation,
                each.type,
                # _created belongs to OpenMetrics, and would be a second series for each.
                [
                    (its.name, its.labels, its.value)
                    for its in each.samples
                    if not its.name.endswith("_created")
                ],
            )
            for each in self._registry.collect()
        ]

    @property
    def has_siblings(self) -> bool:
        """Whether open_text() asks processes, and so may take seconds."""
        return self._of_all is not self

    def open_text(self) -> bytes:
        """What GET /metrics answers, for all processes that were started together."""
        closed = {each.name.removesuffix("_total") for each in self.declared if not each.is_open}
        return as_text(each for each in self._of_all.collect() if each.name not in closed)

    def answer_at(self, path: Path) -> None:
        """Answer scrapes of all processes on this Unix socket, from a thread."""
        path.unlink(missing_ok=True)  # of the process that this one replaces
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind(str(path))
        except OSError as error:  # such as a path of over a hundred characters
            _log.warning("this process is missing in the metrics: %s: %s", path, error)
            return listener.close()
        listener.listen()
        self._of_all = Gathered(path.parent, path.name.partition("-")[0])
        threading.Thread(target=self._answer, args=[listener], name="metrics", daemon=True).start()

    def serve(self, host: str, port: int) -> None:
        """Serve GET /metrics from a thread. Raises OSError with the address as its filename."""
        serve(host, port, self)

    def _answer(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_ANSWER_TIMEOUT_S)
                try:
                    connection.sendall(msgspec.msgpack.encode(self.families()))
                except OSError:  # whoever asked has gone
                    continue

    def _declare(
        self, name: str, kind: str, about: str, labels: Labels | None, is_open: bool = True
    ) -> Declared:
        known = {label: tuple(values) for label, values in (labels or {}).items()}
        self.declared.append(Declared(name, kind, about, known, is_open))
        return self.declared[-1]


class Gathered(Collector):
    """The metrics of the processes with sockets in a folder, of those whose names begin with `kind`."""

    def __init__(self, folder: Path, kind: str) -> None:
        self._folder = folder
        self._kind = kind

    def collect(self) -> Iterable[Metric]:
        """One that does not answer is only missing, with mlaas_process_up 0."""
        up = Family(_UP.name, _UP.documentation, _UP.type, [])
        found = {up.name: up}
        for path in sorted(self._folder.glob(f"{self._kind}-*")):
            its = {"process": path.name}
            families = _asked(path)
            up.samples.append((up.name, its, float(families is not None)))
            for family in families or ():
                samples = [(name, labels | its, value) for name, labels, value in family.samples]
                found.setdefault(
                    family.name, Family(family.name, family.about, family.kind, [])
                ).samples += samples
        return map(_as_metric, found.values())


def serve(host: str, port: int, metrics: Collector) -> None:
    """Serve GET /metrics from a thread. Raises OSError with the address as its filename."""
    try:
        start_http_server(port, host, metrics)
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error


def as_text(families: Iterable[Metric]) -> bytes:
    """In Prometheus's text format."""
    return generate_latest(_Given(families))


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class _Counted(Collector):
    def __init__(self, name: str, about: str, label: str, counts: Mapping[str, Callable[[], int]]) -> None:
        self._of = name, about, [label]
        self._counts = counts

    def collect(self) -> Iterable[Metric]:
        name, about, labels = self._of
        family = CounterMetricFamily(name, about, labels=labels)
        for value, count in self._counts.items():
            family.add_metric([value], count())
        yield family


def _from_zero(made: Made, its: Declared) -> Made:
    """With every series, if the labels and their values are known."""
    if its.labels:
        for values in itertools.product(*its.labels.values()):
            made.labels(*values)
    return made


def _asked(path: Path) -> list[Family] | None:
    """None if the process does not answer."""
    parts: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_TIMEOUT_S)
        try:
            connection.connect(str(path))
            while part := connection.recv(_READ_BYTES):
                parts.append(part)
            return msgspec.msgpack.decode(b"".join(parts), type=list[Family])
        except (OSError, msgspec.DecodeError):
            return None


def _as_metric(family: Family) -> Metric:
    metric = Metric(family.name, family.about, family.kind)
    for sample in family.samples:
        metric.add_sample(*sample)
    return metric
