"""Measurements beside plain load: the parts alone, whole batches, large pictures, starts, idling."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import Protocol

import httpx
import msgspec

from bench import aims
from bench.limits import KafkaAlone, ModelAlone
from bench.load import AskingFailed, ask, printed, start, warm_up
from bench.material import large_photo
from bench.report import EMBEDDED, KAFKA, Case
from bench.systems import BROKER, System, mlaas
from deploy.kafka.local_kafka import LocalKafka
from mlaas.commands.bench import exchange, exchanges, form, run
from tests.e2e.services import SAMPLES
from tests.faults.fleet import Fleet

BATCH_PICTURES = 256
SMALL_RATE_PER_S = 50.0

_PATIENCE_S = 30.0
_IDLE = 7
"""Times the seconds of a load; 21 s of the usual three."""
_SETTLE_S = 3.0
_PAUSES = 5
_PAUSE_S = 2.0
_LARGE = Case(system="", clients=1, generator="mlaas bench")
_SMALL = Case(system="", rate_per_s=SMALL_RATE_PER_S, generator="mlaas bench")


class Values(Protocol):
    """Takes single measurements."""

    def value(self, name: str, value: float) -> None: ...


def limits(kafka: LocalKafka, seconds: float, into: Values) -> None:
    command = [sys.executable, "-m", "bench.limits"]
    lasting = ["--seconds", str(2 * seconds)]
    alone = printed([*command, "model", str(large_photo()), *lasting], ModelAlone)
    for size, took_ms in alone.inference_ms.items():
        into.value(aims.inference_ms(size), took_ms)
    into.value(aims.DECODE_SMALL_MS, alone.decode_small_ms)
    into.value(aims.DECODE_LARGE_MS, alone.decode_large_ms)
    into.value(aims.ALONE_PER_S, alone.pictures_per_s)
    there_and_back = printed([*command, "kafka", kafka.bootstrap_servers, *lasting], KafkaAlone)
    into.value(aims.PING_PONG_MS, there_and_back.p50_ms)
    into.value(aims.PING_PONG_PER_S, there_and_back.per_s)


def batches(kafka: LocalKafka, seconds: float, into: Values) -> None:
    """Two clients, so that one batch is on its way while the other is processed."""
    with _one_worker(kafka) as system:
        pictures = [SAMPLES[number % len(SAMPLES)].read_bytes() for number in range(BATCH_PICTURES)]
        url = f"{system.urls['raw']}/batch"
        result = run(
            url, [exchange(url, *form(*pictures), proof=pictures[-1])], clients=2, seconds=2 * seconds
        )
        if result.errors or not result.answers:
            raise AskingFailed(f"of {result.answers} batches: {result.errors}")
        into.value(aims.BATCH_PER_S, result.requests_per_s * BATCH_PICTURES)


def large(kafka: LocalKafka, seconds: float, into: Values) -> None:
    with _one_worker(kafka) as system:
        into.value(aims.LARGE_MS, ask(system, _LARGE, seconds, [large_photo()]).result.p50_ms)
        into.value(aims.SMALL_ALONE_MS, ask(system, _SMALL, 2 * seconds).result.p99_ms)
        with start(system, _LARGE, 2 * seconds + 1, [large_photo()]) as beside:
            beneath = ask(system, _SMALL, 2 * seconds).result
            beside.communicate()
        into.value(aims.SMALL_BESIDE_MS, beneath.p99_ms)


def starts(kafka: LocalKafka, _: float, into: Values) -> None:
    """The time from starting a gateway or worker until it is ready, while the rest runs."""
    with Fleet(kafka.bootstrap_servers) as fleet:
        fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        fleet.stop("gateway")
        into.value(aims.GATEWAY_READY_S, _until_ready_s(fleet))
        fleet.stop("worker")
        started = time.perf_counter()
        fleet.again("worker")
        fleet.wait_for("worker", "assigned partitions")
        into.value(aims.WORKER_READY_S, time.perf_counter() - started)


def idle(kafka: LocalKafka, seconds: float, into: Values) -> None:
    """What the processes take while nobody asks, and the first request after that and after more pauses."""
    with _one_worker(kafka) as over_kafka, mlaas("embedded://") as embedded:
        warm_up(embedded, 1.0)
        systems = {KAFKA: over_kafka, EMBEDDED: embedded}
        time.sleep(_SETTLE_S)
        shares = _idle_shares(systems, _IDLE * seconds)
        first_ms: dict[str, list[float]] = {KAFKA: [], EMBEDDED: []}
        for _ in range(_PAUSES):
            for name, system in systems.items():
                time.sleep(_PAUSE_S / len(systems))
                first_ms[name].append(_ask_once_ms(system))
    for name, of_roles in shares.items():
        for role, share in of_roles.items():
            into.value(f"{name}, idle, {role}, % of a core", share)
        if name == KAFKA:
            del of_roles[BROKER]
        into.value(aims.idle_share(name), sum(of_roles.values()))
        into.value(aims.first_ms(name), median(first_ms[name]))


PARTS = {"limits": limits, "batch": batches, "large": large, "start": starts, "idle": idle}


def _idle_shares(systems: Mapping[str, System], seconds: float) -> dict[str, dict[str, float]]:
    """The percentages of a core that are taken by role, of each system."""
    started = time.perf_counter()
    before = {name: system.cpu_s() for name, system in systems.items()}
    time.sleep(seconds)
    after = {name: system.cpu_s() for name, system in systems.items()}
    took_s = time.perf_counter() - started
    return {
        name: {role: 100 * (after[name][role] - was) / took_s for role, was in roles.items()}
        for name, roles in before.items()
    }


def _ask_once_ms(system: System) -> float:
    picture, url = SAMPLES[0].read_bytes(), system.urls["raw"]
    result = run(url, exchanges(url, [picture]), clients=1, seconds=_PATIENCE_S, count=1)
    if not result.answers:
        raise AskingFailed(f"no answer after a pause: {result.errors}")
    return result.p50_ms


def _until_ready_s(fleet: Fleet) -> float:
    url, started = f"{fleet.url('gateway')}/health/ready", time.perf_counter()
    fleet.again("gateway")
    with httpx.Client(trust_env=False, timeout=_PATIENCE_S) as client:
        while not _is_ready(client, url):
            if time.perf_counter() - started > _PATIENCE_S:
                raise AskingFailed("the gateway did not become ready")
            time.sleep(0.005)
    return time.perf_counter() - started


def _is_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def _one_worker(kafka: LocalKafka) -> Iterator[System]:
    with mlaas(f"kafka://{kafka.bootstrap_servers}", 1, kafka.pid) as system:
        warm_up(msgspec.structs.replace(system, urls={"raw": system.urls["raw"]}), 1.0)
        yield system
