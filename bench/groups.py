"""What is measured beside plain load: the parts alone, whole batches, large pictures, starts."""

import asyncio
import http.client
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench import names
from bench.asking import AskingFailed, ask, printed, start_asking, warm_up
from bench.faults.fleet import Fleet
from bench.limits.model_alone import ModelAlone
from bench.limits.ping_pong import PingPong
from bench.measured import Measured, say
from bench.photo import photo
from bench.report import Case
from bench.systems import System, mlaas
from deploy.kafka.local_kafka import LocalKafka
from mlaas.load.exchange import batch
from mlaas.load.generator import load
from tests.e2e.services import SAMPLES

BATCH_PICTURES = 256
SMALL_RATE_PER_S = 50.0

_PATIENCE_S = 30.0

_LARGE = Case(system="", clients=1, generator="mlaas.load")
_SMALL = Case(system="", rate_per_s=SMALL_RATE_PER_S, generator="mlaas.load")


def limits(kafka: LocalKafka, seconds: float, into: Measured) -> None:
    say("the parts alone")
    module = [sys.executable, "-m"]
    alone = printed(
        [*module, "bench.limits.model_alone", str(photo()), "--seconds", str(2 * seconds)], ModelAlone
    )
    for size, took_ms in alone.inference_ms.items():
        into.value(names.inference_ms(size), took_ms)
    into.value(names.DECODE_SMALL_MS, alone.decode_small_ms)
    into.value(names.DECODE_LARGE_MS, alone.decode_large_ms)
    into.value(names.ALONE_PER_S, alone.pictures_per_s)
    ping_pong = printed(
        [*module, "bench.limits.ping_pong", kafka.bootstrap_servers, "--seconds", str(2 * seconds)], PingPong
    )
    into.value(names.PING_PONG_MS, ping_pong.p50_ms)
    into.value(names.PING_PONG_PER_S, ping_pong.per_s)


def batches(kafka: LocalKafka, seconds: float, into: Measured) -> None:
    """Two clients, so that one batch is on its way while another is worked on."""
    say("whole batches")
    with _one_worker(kafka) as system:
        pictures = [SAMPLES[number % len(SAMPLES)].read_bytes() for number in range(BATCH_PICTURES)]
        url = f"{system.urls['raw']}/batch"
        result = asyncio.run(load(url, [batch(url, pictures)], clients=2, seconds=2 * seconds))
        if result.errors or not result.answers:
            raise AskingFailed(f"of {result.answers} batches: {result.errors}")
        into.value(names.BATCH_PER_S, result.requests_per_s * BATCH_PICTURES)


def large(kafka: LocalKafka, seconds: float, into: Measured) -> None:
    say("large pictures")
    with _one_worker(kafka) as system:
        into.value(names.LARGE_MS, ask(system, _LARGE, seconds, [photo()]).result.p50_ms)
        into.value(names.SMALL_ALONE_MS, ask(system, _SMALL, 2 * seconds).result.p99_ms)
        with start_asking(system, _LARGE, 2 * seconds + 1, [photo()]) as beside:
            beneath = ask(system, _SMALL, 2 * seconds).result
            beside.communicate()
        into.value(names.SMALL_BESIDE_MS, beneath.p99_ms)


def starts(kafka: LocalKafka, _: float, into: Measured) -> None:
    """A gateway among workers and a worker among others, from the command to where it does its work."""
    say("starts")
    with Fleet(kafka.bootstrap_servers) as fleet:
        fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        fleet.stop("gateway")
        into.value(names.GATEWAY_READY_S, _until_ready_s(fleet))
        fleet.stop("worker")
        started = time.perf_counter()
        fleet.again("worker")
        fleet.wait_for("worker", "assigned partitions")
        into.value(names.WORKER_READY_S, time.perf_counter() - started)


def _until_ready_s(fleet: Fleet) -> float:
    address, started = fleet.url("gateway").removeprefix("http://"), time.perf_counter()
    fleet.again("gateway")
    while not _is_ready(address):
        if time.perf_counter() - started > _PATIENCE_S:
            raise AskingFailed("the gateway did not become ready")
        time.sleep(0.005)
    return time.perf_counter() - started


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE_S)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _one_worker(kafka: LocalKafka) -> Iterator[System]:
    with mlaas(f"kafka://{kafka.bootstrap_servers}", 1, kafka.pid) as system:
        warm_up(msgspec.structs.replace(system, urls={"raw": system.urls["raw"]}), 1.0)
        yield system


PARTS = {"limits": limits, "batch": batches, "large": large, "start": starts}
