"""One to sixteen workers with a simulated model, so that two cores suffice. Everything else is real."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from bench.load import AskingFailed, ask
from bench.report import Case, Scale
from bench.systems import System
from deploy.kafka.local_kafka import LocalKafka
from tests.faults.fleet import Fleet

WORKERS = (1, 2, 4, 8, 16)
PARTITIONS = 48
BATCH = 16
BATCH_MS = 640
CLIENTS_A_WORKER = 6 * BATCH

_SETTLE_TIMEOUT_S = 120.0
_WARM_UP_S = 2.0


def scale(kafka: LocalKafka, seconds: float, note: Callable[[Scale], None], most: int = max(WORKERS)) -> None:
    """Add workers step by step. Raises AskingFailed."""
    settings = {
        "MLAAS_TOPICS__PARTITIONS": str(PARTITIONS),
        "MLAAS_WORKER__MAX_BATCH_SIZE": str(BATCH),
        "MLAAS_GATEWAY__MAX_IN_FLIGHT": "4096",
        "SIMULATED_BATCH_MS": str(BATCH_MS),
    }
    rates: dict[int, float] = {}
    with Fleet(kafka.bootstrap_servers, **settings) as fleet:
        fleet.gateway("gateway")
        for workers in (count for count in WORKERS if count <= most):
            for number in range(len(rates) and max(rates), workers):
                fleet.worker(f"worker-{number + 1}", "simulated-model")
            _wait_until_shared(fleet, kafka.bootstrap_servers, workers)
            fleet.wait_until_ready()
            rates[workers], used = _rate(fleet, workers, seconds)
            note(result(workers, rates, used))


def result(workers: int, rates: Mapping[int, float], used: Sequence[int]) -> Scale:
    """rates has requests/s by number of workers, including 1; used has messages by partition."""
    middle = mean(used) or 1.0
    return Scale(
        workers=workers,
        requests_per_s=round(rates[workers], 1),
        efficiency=round(rates[workers] / (workers * rates[1]), 3),
        busiest=round(max(used) / middle, 2),
        idlest=round(min(used) / middle, 2),
    )


def _rate(fleet: Fleet, workers: int, seconds: float) -> tuple[float, list[int]]:
    url = f"{fleet.url('gateway')}/predict"
    system = System({"raw": url}, 0.0, {}, proof=False)
    case = Case(system="", clients=CLIENTS_A_WORKER * workers)
    ask(system, case, _WARM_UP_S)
    before = fleet.ends("requests")
    answered = ask(system, case, seconds).result
    after = fleet.ends("requests")
    return answered.requests_per_s, [after[number] - before[number] for number in before]


def _wait_until_shared(fleet: Fleet, servers: str, workers: int) -> None:
    """Wait until the workers share the partitions evenly."""
    admin = AdminClient({"bootstrap.servers": servers})
    end = time.monotonic() + _SETTLE_TIMEOUT_S
    even = [PARTITIONS // workers, -(-PARTITIONS // workers)]
    while True:
        shares = _shares(admin, fleet.group)
        if len(shares) == workers and [min(shares), max(shares)] == even and sum(shares) == PARTITIONS:
            return
        if time.monotonic() > end:
            raise AskingFailed(f"{workers} workers share the partitions as {shares}")
        time.sleep(0.2)


def _shares(admin: AdminClient, group: str) -> list[int]:
    """The number of partitions of each member; empty while the group rebalances."""
    try:
        described = admin.describe_consumer_groups([group], request_timeout=5)[group].result(10)
    except (KafkaException, TimeoutError):
        return []
    if described.state != ConsumerGroupState.STABLE:
        return []
    return [len(member.assignment.topic_partitions) for member in described.members]
