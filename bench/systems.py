"""What is measured: mlaas over a real Apache Kafka, mlaas by itself, and a bare HTTP server beside them."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from mlaas.load.tally import Result
from tests.e2e.services import ROOT, descendants, up

_PROCESSES = {" gateway ": "gateway", " worker ": "consumer", "worker.model_main": "model process"}


class System(msgspec.Struct, frozen=True):
    """A running one. ready_s: from starting it until it says that it is ready."""

    url: str
    ready_s: float
    pid: int


@contextmanager
def mlaas(broker: str) -> Iterator[System]:
    """`mlaas up` with one worker, on a free port."""
    started = time.perf_counter()
    with up("--workers", "1", "--broker", broker) as (service, url):
        yield System(f"{url}/predict", time.perf_counter() - started, service.process.pid)


@contextmanager
def bare() -> Iterator[System]:
    started = time.perf_counter()
    command = [sys.executable, "-m", "bench.bare_app"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            url = process.stdout.readline().strip()
            yield System(url, time.perf_counter() - started, process.pid)
        finally:
            process.terminate()


def ask(system: System, pictures: list[Path], *options: str) -> Result:
    """Run the load generator, in a process of its own."""
    command = [sys.executable, "-m", "bench.load", system.url, *map(str, pictures), *options]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return msgspec.json.decode(printed, type=Result)


def memory_mib(system: System) -> dict[str, float]:
    """Resident, by what the process is for."""
    found = {"mlaas up": _resident_mib(system.pid)}
    for pid, command in descendants(system.pid).items():
        name = next((name for part, name in _PROCESSES.items() if part in f"{command} "), None)
        if name:
            found[name] = _resident_mib(pid)
    return found


def _resident_mib(pid: int) -> float:
    printed = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], stdout=subprocess.PIPE, text=True).stdout
    return round(int(printed) / 1024, 1)
