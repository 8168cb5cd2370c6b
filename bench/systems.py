"""What is measured: mlaas over either broker, its peers, and a bare HTTP server."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import msgspec

from bench import usage
from bench.serving import serving
from bench.usage import Roles
from mlaas.load.bodies import Body
from tests.e2e.services import up

GATEWAY, CONSUMER, MODEL, BROKER, UP = "gateway", "consumer", "model process", "broker", "mlaas up"

_PARTS = {" gateway ": GATEWAY, " worker ": CONSUMER, "worker.model_main": MODEL}


class System(msgspec.Struct, frozen=True):
    """A running one. urls: by how pictures may be sent to it. ready_s: from starting it until it is ready."""

    urls: Mapping[Body, str]
    ready_s: float
    roles: Roles
    proof: bool = True

    @property
    def body(self) -> Body:
        """The plainest that it takes."""
        return next(iter(self.urls))

    def cpu_s(self) -> dict[str, float]:
        return {role: usage.cpu_s(pids) for role, pids in self.roles.items()}

    def memory_mb(self) -> dict[str, float]:
        return {role: usage.memory_mb(pids) for role, pids in self.roles.items()}


@contextmanager
def mlaas(broker_url: str, workers: int = 1, broker_pid: int | None = None) -> Iterator[System]:
    """`mlaas up` on a free port. The embedded broker lives in the process of `mlaas up` itself."""
    started = time.perf_counter()
    with up("--workers", str(workers), "--broker", broker_url) as (service, url):
        ready_s = time.perf_counter() - started
        roles = usage.roles(service.process.pid, _PARTS, UP if broker_pid else BROKER)
        if broker_pid:
            roles[BROKER] = [broker_pid]
        predict = f"{url}/predict"
        yield System({"raw": predict, "form": predict}, ready_s, roles)


@contextmanager
def bare() -> Iterator[System]:
    command = [sys.executable, "-m", "bench.bare_app", "--port"]
    with serving("bare", command, proof=False) as (process, port, ready_s):
        url = f"http://127.0.0.1:{port}/"
        yield System({"raw": url, "form": url}, ready_s, {"server": [process.pid]}, proof=False)
