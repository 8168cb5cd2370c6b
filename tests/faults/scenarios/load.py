"""More than can be done, and callers that do not wait."""

import asyncio
import threading
import time
from statistics import median

from tests.e2e.services import until
from tests.faults.asking import Choose, Client, in_turn, request
from tests.faults.fleet import Fleet
from tests.faults.ledger import Entry, judge, percentile
from tests.faults.outcome import Outcome, least, most, none, one_right_answer_each, outcome, within_s
from tests.faults.processes import memory_mib
from tests.faults.stage import Stage, under_load

DEADLINE_S = 2.0


def overload(stage: Stage) -> Outcome:
    """Three times what it can do, for a minute; then half.

    A model that leaves most of the processors to the gateway and to the client, who must keep up with it.
    """
    with stage.fleet() as fleet:
        gateway = in_turn([fleet.gateway("gateway")])
        fleet.worker("worker", "leisurely-model")
        fleet.wait_until_ready()

        def drive(rate: float, seconds: float, timeout_s: float = DEADLINE_S) -> list[Entry]:
            client = Client(timeout_s)
            count = int(rate * seconds)
            under_load(client.drive(gateway, map(stage.pictures, range(count)), rate))
            return client.entries

        can_do = capacity(stage, gateway, stage.size(15, 5))
        before = drive(can_do / 2, stage.size(20, 5))
        memory = Memory(fleet)
        resident_before = memory.now()
        over = Client(DEADLINE_S)
        count = int(3 * can_do * stage.size(60, 10))
        under_load(over.drive(gateway, map(stage.pictures, range(count)), 3 * can_do), memory.watch)
        ended = time.monotonic()
        after = drive(can_do / 2, stage.size(30, 10))
    judged = judge(over.entries)
    accepted = sorted(entry.seconds for entry in over.entries if entry.status in (200, 504))
    rejected = sorted(entry.seconds for entry in over.entries if entry.status == 429)
    return outcome(
        "overload",
        [
            *one_right_answer_each(judged),
            none(
                "neither accepted (200, 504) nor rejected", len(over.entries) - len(accepted) - len(rejected)
            ),
            within_s("accepted: p99", percentile(accepted, 0.99), DEADLINE_S),
            within_s("rejected: p99", percentile(rejected, 0.99), 0.05),
            within_s("back to what it was after", _recovery_s(before, after, ended), 10.0),
            most("memory, most during it over before", memory.most / resident_before, 1.1),
        ],
        judged.numbers()
        | {
            "capacity_per_s": round(can_do),
            "offered_per_s": round(3 * can_do),
            "rejected_p50_ms": round(percentile(rejected, 0.5) * 1000, 1),
            "resident_before_mib": round(resident_before),
            "resident_most_mib": round(memory.most),
        },
    )


def capacity(stage: Stage, gateway: Choose, seconds: float, path: str = "/predict") -> float:
    """Answers a second to 64 callers, each of whom waits for his answer before he asks again."""
    client = Client(10.0, path)
    began = time.monotonic()

    async def ask_again_and_again(first: int) -> None:
        number = first
        while time.monotonic() < began + seconds:
            await client.ask(gateway, stage.pictures(number))
            number += 64

    async def closed_loop() -> None:
        async with client:
            await asyncio.gather(*(ask_again_and_again(number) for number in range(64)))

    under_load(closed_loop())
    return sum(began + seconds / 2 < at < began + seconds for at in client.answered_at) / (seconds / 2)


def _recovery_s(before: list[Entry], after: list[Entry], ended: float) -> float:
    """Until the last second whose median is over twice the median of before, or that has other than 200."""
    usual = median(entry.seconds for entry in before)
    seconds: dict[int, list[Entry]] = {}
    for entry in after:
        seconds.setdefault(int(entry.due - ended), []).append(entry)
    unusual = [
        second
        for second, entries in seconds.items()
        if median(entry.seconds for entry in entries) > 2 * usual
        or any(entry.status != 200 for entry in entries)
    ]
    return max(unusual, default=-1) + 1.0


class Memory:
    """Resident, of gateway and worker together, in MiB."""

    def __init__(self, fleet: Fleet) -> None:
        self._pids = [*fleet.pids("gateway"), *fleet.pids("worker")]
        self.most = 0.0

    def now(self) -> float:
        return memory_mib(self._pids)

    def watch(self, over: threading.Event) -> None:
        while not over.wait(1.0):
            self.most = max(self.most, self.now())


def hang_up(stage: Stage) -> Outcome:
    """A thousand callers close their connections while their pictures wait for a slow model."""
    callers = stage.size(1_000, 300)
    with stage.fleet() as fleet:
        host, port = fleet.gateway("gateway")
        fleet.worker("worker", "slow-model")
        fleet.wait_until_ready()

        async def ask_and_hang_up() -> float:
            streams = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(callers)))
            for number, (_, writer) in enumerate(streams):
                writer.write(request((host, port), "/predict", stage.pictures(number).content, timeout_s=30))
            await asyncio.to_thread(until, lambda: _in_flight(fleet) >= 0.9 * callers, "all are in flight")
            for _, writer in streams:
                writer.transport.abort()
            return time.monotonic()

        hung_up = asyncio.run(ask_and_hang_up())
        until(lambda: _in_flight(fleet) <= 1, "the table of pending requests is empty")
        empty_s = time.monotonic() - hung_up
        until(lambda: _ended(fleet) >= callers, "the worker is through", 120)
        skipped = fleet.metric("worker", r"mlaas_worker_requests_total\{outcome=\"cancelled\"\}")
    return outcome(
        "hang-up",
        [
            within_s("pending table empty after", empty_s, 1.0),
            least("queued work skipped, share", skipped / callers, 0.9),
        ],
        {"callers": callers, "skipped": skipped},
    )


def _in_flight(fleet: Fleet) -> float:
    """A ping may be among them."""
    return fleet.metric("gateway", "mlaas_in_flight_requests")


def _ended(fleet: Fleet) -> float:
    return fleet.metric("worker", "mlaas_worker_requests_total")
