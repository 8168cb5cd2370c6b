"""Gateways and workers over a broker, by default a real Apache Kafka, and what their processes use."""

import os
import re
import tempfile
import threading
import uuid
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from signal import SIGCONT, Signals
from typing import Self
from urllib.request import urlopen

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, OffsetSpec

from deploy.kafka.local_kafka import free_port
from tests.e2e.services import ROOT, Service, descendants, is_ready, until

HOST = "127.0.0.1"

Address = tuple[str, int]


def metric_at(url: str, metric: str) -> float:
    """The sum of a gateway's samples whose name and labels match the pattern."""
    with urlopen(f"{url}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(metric, line))


class Fleet:
    """Processes by name, with topics and a consumer group of their own. A name keeps its port.

    defect is planted in every process, see planted.py. broker: its URL, in place of Kafka's. settings are
    environment variables.
    """

    def __init__(
        self, bootstrap_servers: str, query: str = "", defect: str = "", broker: str = "", **settings: str
    ) -> None:
        prefix = f"t{uuid.uuid4().hex[:7]}"  # names on Pub/Sub begin with a letter
        self._defect = defect
        self._folder = tempfile.TemporaryDirectory(prefix="mlaas-fleet-")
        self.group = f"{prefix}.workers"
        self.job_store = f"{self._folder.name}/jobs.sqlite3"
        self.topics = {
            name: f"{prefix}.{name.replace('_', '-')}"
            for name in ("requests", "replies", "dead_letters", "cancellations", "jobs", "job_replies")
        }
        self.broker_url = broker or f"kafka://{bootstrap_servers}{query}"
        self.environment = {
            "MLAAS_BROKER__URL": self.broker_url,
            "MLAAS_WORKER__GROUP": self.group,
            "MLAAS_JOBS__GROUP": f"{prefix}.gateways",
            "MLAAS_JOBS__STORE": f"sqlite:///{self.job_store}",
            **{f"MLAAS_TOPICS__{name.upper()}": topic for name, topic in self.topics.items()},
            **settings,
        }
        self._processes: dict[str, Service] = {}
        self._started: dict[str, tuple[str, list[str], Mapping[str, str], str, Path]] = {}
        self._ports: dict[str, int] = {}
        self._lock = threading.Lock()
        self._bootstrap_servers = bootstrap_servers
        self.create_topics()

    @cached_property
    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self._bootstrap_servers, "log_level": 0})

    def create_topics(self) -> None:
        """Create the missing topics."""
        creating = Service("topics", "create", **self.environment)
        if creating.wait():
            raise RuntimeError(creating.output)

    def delete_topics(self, *names: str) -> None:
        """Returns once the broker has deleted them."""
        topics = [self.topics[name] for name in names]
        for deleted in self._admin.delete_topics(topics).values():
            deleted.result(20)
        until(lambda: not set(topics) & self._admin.list_topics(timeout=20).topics.keys(), "deleting topics")

    def add_partitions(self, count: int, *names: str) -> None:
        """Increase the topics to this number of partitions."""
        for added in self._admin.create_partitions(
            [NewPartitions(self.topics[name], count) for name in names]
        ).values():
            added.result(20)

    def ends(self, name: str) -> dict[int, int]:
        """The end offset of each partition of the topic, except those just added."""
        topic = self.topics[name]
        partitions = self._admin.list_topics(topic, timeout=20).topics[topic].partitions
        latest = {TopicPartition(topic, number): OffsetSpec.latest() for number in partitions}
        found = self._admin.list_offsets(latest, request_timeout=20)
        return {at.partition: end.result().offset for at, end in found.items() if not end.exception(20)}

    def ended(self) -> list[str]:
        """The names of processes that have ended."""
        return [name for name, service in self._processes.items() if service.process.poll() is not None]

    def gateway(self, name: str, checkout: Path = ROOT, **settings: str) -> Address:
        """Start a gateway; see wait_until_ready()."""
        port = self._port(name)
        self._start(name, ["gateway"], settings | {"MLAAS_GATEWAY__PORT": str(port)}, checkout=checkout)
        return HOST, port

    def worker(self, name: str, model: str = "", checkout: Path = ROOT, **settings: str) -> None:
        """model is slow-model, leisurely-model, fragile-model or simulated-model, see planted.py."""
        settings = settings | {"MLAAS_WORKER__METRICS_PORT": str(self._port(name))}
        self._start(name, ["worker"], settings, model, checkout)

    def workers(self, count: int, model: str = "", **settings: str) -> list[str]:
        """Start worker-1 and so on."""
        names = [f"worker-{number}" for number in range(1, count + 1)]
        for name in names:
            self.worker(name, model, **settings)
        return names

    def again(self, name: str, checkout: Path | None = None) -> None:
        """Start a process that has ended, as before, or of another checkout."""
        *before, its_own = self._started[name]
        self._start(*before, checkout or its_own)

    def wait_until_ready(self, *names: str, patience_s: float = 90.0) -> None:
        """Wait for these gateways, or all. Raises AssertionError if one has ended."""
        for name in names or [name for name in self._processes if name.startswith("gateway")]:
            until(lambda name=name: self._is_ready(name), f"{name} ready", patience_s)  # type: ignore[misc]

    def url(self, name: str) -> str:
        return f"http://{HOST}:{self._port(name)}"

    def wait_for(self, name: str, pattern: str) -> None:
        self._processes[name].wait_for(pattern)

    def output(self, name: str) -> str:
        return self._processes[name].output

    def signal_all(self, name: str, what: Signals) -> None:
        """Send a signal to the process and its children."""
        for pid in self.pids(name):
            os.kill(pid, what)

    def kill(self, name: str) -> None:
        """SIGKILL the process and wait for its end."""
        service = self._processes[name]
        service.process.kill()
        service.wait()

    def stop(self, name: str) -> int:
        """SIGTERM the process and wait for its end."""
        return self._processes[name].stop()

    def wait(self, name: str) -> int:
        """Wait until the process ends by itself. Returns its exit code."""
        return self._processes[name].wait()

    def pids(self, name: str) -> dict[int, str]:
        """The process and its children, with their command lines."""
        pid = self._processes[name].process.pid
        return {pid: name, **descendants(pid)}

    def metric(self, name: str, metric: str) -> float:
        """The sum of the samples whose name and labels match the pattern."""
        return metric_at(self.url(name), metric)

    def ready(self, names: list[str]) -> list[Address]:
        """The addresses of those gateways that are ready now."""
        return [(HOST, self._port(name)) for name in names if is_ready(self.url(name))]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name, service in self._processes.items():
            if service.process.poll() is None:
                self.signal_all(name, SIGCONT)
                service.process.kill()
        for service in self._processes.values():
            service.wait()
        self._folder.cleanup()

    def _start(
        self,
        name: str,
        arguments: list[str],
        settings: Mapping[str, str],
        planted: str = "",
        checkout: Path = ROOT,
    ) -> None:
        defects = "+".join(filter(None, [self._defect, planted]))
        module = "tests.faults.planted" if defects else "mlaas"
        service = Service(
            *([defects] if defects else []),
            *arguments,
            module=module,
            checkout=checkout,
            **(self.environment | dict(settings)),
        )
        with self._lock:
            self._processes[name] = service
            self._started[name] = (name, arguments, settings, planted, checkout)

    def _is_ready(self, name: str) -> bool:
        service = self._processes[name]
        assert service.process.poll() is None, f"{name} ended:\n{service.output}"
        return is_ready(self.url(name))

    def _port(self, name: str) -> int:
        with self._lock:
            while name not in self._ports:
                port = free_port()
                if port not in self._ports.values():
                    self._ports[name] = port
            return self._ports[name]


def memory_mib(pids: Iterable[int]) -> float:
    """Resident memory of the processes that still exist."""
    return sum(map(_resident_mib, pids))


def threads(pids: Iterable[int]) -> int:
    return sum(_entries(pid, "task") for pid in pids)


def descriptors(pids: Iterable[int]) -> int:
    return sum(_entries(pid, "fd") for pid in pids)


def _entries(pid: int, folder: str) -> int:
    return len(list(Path(f"/proc/{pid}/{folder}").glob("*")))


def _resident_mib(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0
