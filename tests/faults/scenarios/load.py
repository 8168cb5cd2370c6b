"""Overload, callers that hang up, and a long run near capacity."""

import asyncio
import signal
import threading
import time
from statistics import median

from tests.e2e.services import until
from tests.faults.asking import Choose, Client, Entry, in_turn, judge, percentile, request
from tests.faults.fleet import Fleet, descriptors, memory_mib, threads
from tests.faults.outcome import Outcome, least, most, none, one_right_answer_each, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Stage, under_load

DEADLINE_S = 2.0
SOAK_SHARE = 0.7
FAULT_EVERY_S = 120.0
WINDOW_S = 300.0
# What comes while one of two workers stands still for a second, at up to 8,000 requests a second.
IN_FLIGHT = 4096
UNCALM_S = 10.0
AT_REST_AFTER_S = 2.0
BATCH = 8
HANDLED = "mlaas_worker_requests_total"
ANSWERED = HANDLED + r"\{outcome=\"answered\"\}"
CANCELLED = HANDLED + r"\{outcome=\"cancelled\"\}"


def overload(stage: Stage) -> Outcome:
    """Three times the capacity for a minute; then half of it.

    The model leaves most of the processors to the gateway and the client, which must keep up.
    """
    with stage.running(1, "leisurely-model") as (fleet, address):
        gateway = in_turn([address])

        def drive(rate: float, seconds: float) -> list[Entry]:
            client = Client(DEADLINE_S)
            under_load(client.drive(gateway, map(stage.pictures, range(int(rate * seconds))), rate))
            return client.entries

        can_do = capacity(stage, gateway, stage.size(15, 5))
        before = drive(can_do / 2, stage.size(20, 5))
        usage = Usage(fleet, 1.0)
        resident_before = memory_mib(usage.pids())
        over = Client(DEADLINE_S)
        count = int(3 * can_do * stage.size(60, 10))
        under_load(over.drive(gateway, map(stage.pictures, range(count)), 3 * can_do), usage.watch)
        ended = time.monotonic()
        after = drive(can_do / 2, stage.size(30, 10))
    judged = judge(over.entries)
    accepted = [entry.seconds for entry in over.entries if entry.status in (200, 504)]
    rejected = [entry.seconds for entry in over.entries if entry.status == 429]
    resident_most = max((memory for memory, _ in usage.samples), default=0.0)
    return outcome(
        [
            *one_right_answer_each(judged),
            none(
                "neither accepted (200, 504) nor rejected", len(over.entries) - len(accepted) - len(rejected)
            ),
            within_s("accepted: p99", percentile(accepted, 0.99), DEADLINE_S),
            within_s("rejected: p99", percentile(rejected, 0.99), 0.05),
            within_s("back to what it was after", _recovery_s(before, after, ended), 10.0),
            most("memory, most during it over before", resident_most / resident_before, 1.1),
        ],
        judged.numbers()
        | {
            "capacity_per_s": round(can_do),
            "offered_per_s": round(3 * can_do),
            "rejected_p50_ms": round(percentile(rejected, 0.5) * 1000, 1),
            "resident_before_mib": round(resident_before),
            "resident_most_mib": round(resident_most),
        },
    )


def capacity(stage: Stage, gateway: Choose, seconds: float, path: str = "/predict") -> float:
    """Answers a second to 64 callers in a closed loop."""
    client = Client(10.0, path)
    began = time.monotonic()

    async def ask_repeatedly(number: int) -> None:
        while time.monotonic() < began + seconds:
            await client.ask(gateway, stage.pictures(number))
            number += 64

    async def closed_loop() -> None:
        async with client:
            await asyncio.gather(*(ask_repeatedly(number) for number in range(64)))

    under_load(closed_loop())
    return sum(began + seconds / 2 < at < began + seconds for at in client.answered_at) / (seconds / 2)


def _recovery_s(before: list[Entry], after: list[Entry], ended: float) -> float:
    """Seconds until each further second has only 200s and a median of at most twice that of before."""
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


def hang_up(stage: Stage) -> Outcome:
    """A thousand callers close their connections while their pictures wait for a slow model."""
    callers = stage.size(1_000, 300)
    with stage.running(1, "slow-model", MLAAS_WORKER__MAX_BATCH_SIZE=str(BATCH)) as (fleet, address):

        def in_flight() -> float:  # a ping may be among them
            return fleet.metric("gateway", "mlaas_in_flight_requests")

        async def ask_and_hang_up() -> float:
            streams = await asyncio.gather(*(asyncio.open_connection(*address) for _ in range(callers)))
            for number, (_, writer) in enumerate(streams):
                writer.write(request(address, "/predict", stage.pictures(number).content, timeout_s=30))
            await asyncio.to_thread(until, lambda: in_flight() >= 0.9 * callers, "all are in flight")
            for _, writer in streams:
                writer.transport.abort()
            return time.monotonic()

        hung_up = asyncio.run(ask_and_hang_up())
        until(lambda: in_flight() <= 1, "the table of pending requests is empty")
        empty_s = time.monotonic() - hung_up
        queued = callers - fleet.metric("worker-1", ANSWERED) - BATCH  # one is with the model
        until(lambda: fleet.metric("worker-1", HANDLED) >= callers, "the worker is through", 120)
        skipped = fleet.metric("worker-1", CANCELLED)
    return outcome(
        [
            within_s("pending table empty after", empty_s, 1.0),
            least("queued work skipped, share", min(skipped / queued, 1), 0.9),
        ],
        {"callers": callers, "queued": queued, "skipped": skipped},
    )


def soak(stage: Stage) -> Outcome:
    """Half an hour at seven tenths of capacity, with a mild fault every two minutes."""
    minutes = stage.size(30, 1)
    faults: list[float] = []
    with stage.fleet() as fleet:
        gateway = in_turn([fleet.gateway("gateway", MLAAS_GATEWAY__MAX_IN_FLIGHT=str(IN_FLIGHT))])
        fleet.workers(2)
        fleet.wait_until_ready()
        rate = SOAK_SHARE * capacity(stage, gateway, stage.size(60, 15))
        client, usage = Client(TIMEOUT_S), Usage(fleet, 2.0)

        def disturb(over: threading.Event) -> None:
            """Restart a worker, then pause the other one for a second, and so on."""
            turn = 0
            while not over.wait(FAULT_EVERY_S):
                faults.append(time.monotonic())
                if turn % 2 == 0:
                    fleet.stop("worker-2")
                    fleet.again("worker-2")
                else:
                    fleet.signal_all("worker-1", signal.SIGSTOP)
                    time.sleep(1)
                    fleet.signal_all("worker-1", signal.SIGCONT)
                turn += 1

        time.sleep(AT_REST_AFTER_S)
        before = descriptors(usage.pids())
        began = time.monotonic()
        load = client.drive(gateway, map(stage.pictures, range(int(rate * minutes * 60))), rate)
        under_load(load, disturb, usage.watch)
        time.sleep(AT_REST_AFTER_S)
        after = descriptors(usage.pids())
        pending = fleet.metric("gateway", "mlaas_in_flight_requests")
    judged = judge(client.entries)
    window_s = min(WINDOW_S, minutes * 60 / 3)
    calm = [each for each in client.entries if not any(at - 1 < each.due < at + UNCALM_S for at in faults)]
    first = _p99(calm, began, began + window_s)
    last = _p99(calm, began + minutes * 60 - window_s, began + minutes * 60)
    early, late = usage.between(0.2, 0.4), usage.between(0.8, 1.0)
    return outcome(
        [
            *one_right_answer_each(judged, 0.999),
            most("p99 away from faults, last minutes over first", last / first, 1.2),
            most("memory, late over early", late[0] / early[0], 1.05),
            most("threads, late minus early", late[1] - early[1], 0),
            most("descriptors at rest, after minus before", after - before, 0),
            most("pending at the end", pending, 1),
        ],
        judged.numbers()
        | {
            "minutes": minutes,
            "requests_per_s": round(rate),
            "p99_first_ms": round(first * 1000, 1),
            "p99_last_ms": round(last * 1000, 1),
            "resident_mib": [round(early[0]), round(late[0])],
            "threads": [early[1], late[1]],
            "descriptors": [before, after],
        },
    )


class Usage:
    """Samples of memory in MiB and threads of the gateway and of worker-1."""

    def __init__(self, fleet: Fleet, interval_s: float) -> None:
        self._fleet, self._interval_s = fleet, interval_s
        self.samples: list[tuple[float, int]] = []

    def watch(self, over: threading.Event) -> None:
        while not over.wait(self._interval_s):
            pids = self.pids()
            self.samples.append((memory_mib(pids), threads(pids)))

    def pids(self) -> list[int]:
        return [*self._fleet.pids("gateway"), *self._fleet.pids("worker-1")]

    def between(self, start: float, end: float) -> tuple[float, int]:
        """The medians of the samples between two shares of the whole time."""
        part = self.samples[int(start * len(self.samples)) : int(end * len(self.samples))]
        memory, threads = (sorted(column)[len(part) // 2] for column in zip(*part, strict=True))
        return memory, int(threads)


def _p99(entries: list[Entry], start: float, end: float) -> float:
    """In seconds, of the requests due in this interval."""
    return percentile((entry.seconds for entry in entries if start <= entry.due < end), 0.99)
