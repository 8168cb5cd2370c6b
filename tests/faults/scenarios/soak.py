"""Half an hour at seven tenths of what it can do, with a mild fault every two minutes."""

import signal
import threading
import time

from tests.faults.asking import Client, in_turn
from tests.faults.fleet import Fleet
from tests.faults.ledger import Entry, judge, percentile
from tests.faults.outcome import Outcome, least, most, one_right_answer_each, outcome
from tests.faults.processes import descriptors, memory_mib, threads
from tests.faults.scenarios.load import capacity
from tests.faults.stage import TIMEOUT_S, Stage, under_load

CLIENTS_SHARE = 0.7
FAULT_EVERY_S = 120.0
WINDOW_S = 300.0
AT_REST_AFTER_S = 2.0


def soak(stage: Stage) -> Outcome:
    """Mild: a worker is told to end and started again; the other stands still for a second."""
    minutes = stage.size(30, 1)
    with stage.fleet() as fleet:
        gateway = in_turn([fleet.gateway("gateway")])
        fleet.worker("worker-1")
        fleet.worker("worker-2")
        fleet.wait_until_ready()
        rate = CLIENTS_SHARE * capacity(stage, gateway, stage.size(60, 15))
        client, watch = Client(TIMEOUT_S), Usage(fleet)
        time.sleep(AT_REST_AFTER_S)
        before = descriptors(watch.pids())
        began = time.monotonic()
        load = client.drive(gateway, map(stage.pictures, range(int(rate * minutes * 60))), rate)
        under_load(load, Mischief(fleet).run, watch.run)
        time.sleep(AT_REST_AFTER_S)
        after = descriptors(watch.pids())
        pending = fleet.metric("gateway", "mlaas_in_flight_requests")
    judged = judge(client.entries)
    window_s = min(WINDOW_S, minutes * 60 / 3)
    first = _p99(client.entries, began, began + window_s)
    last = _p99(client.entries, began + minutes * 60 - window_s, began + minutes * 60)
    early, late = watch.between(0.2, 0.4), watch.between(0.8, 1.0)
    return outcome(
        "soak",
        [
            *one_right_answer_each(judged),
            least("answered 200, share", judged.share(200), 0.999),
            most("p99 of the last minutes over that of the first", last / first, 1.2),
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


class Mischief:
    """A mild fault every two minutes, in turn."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def run(self, over: threading.Event) -> None:
        turn = 0
        while not over.wait(FAULT_EVERY_S):
            (self._restart_a_worker, self._stop_a_worker)[turn % 2]()
            turn += 1

    def _restart_a_worker(self) -> None:
        self._fleet.stop("worker-2")
        self._fleet.again("worker-2")

    def _stop_a_worker(self) -> None:
        self._fleet.signal_all("worker-1", signal.SIGSTOP)
        time.sleep(1)
        self._fleet.signal_all("worker-1", signal.SIGCONT)


class Usage:
    """Memory in MiB and threads of the gateway and of the worker that is never restarted."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._samples: list[tuple[float, int]] = []

    def run(self, over: threading.Event) -> None:
        while not over.wait(2.0):
            pids = self.pids()
            self._samples.append((memory_mib(pids), threads(pids)))

    def pids(self) -> list[int]:
        return [*self._fleet.pids("gateway"), *self._fleet.pids("worker-1")]

    def between(self, start: float, end: float) -> tuple[float, int]:
        """The medians of a part of the samples, given in shares of the whole time."""
        part = self._samples[int(start * len(self._samples)) : int(end * len(self._samples))]
        memory, threads = (sorted(column)[len(part) // 2] for column in zip(*part, strict=True))
        return memory, int(threads)


def _p99(entries: list[Entry], start: float, end: float) -> float:
    """Of those that were due between two times, in seconds."""
    return percentile(sorted(entry.seconds for entry in entries if start <= entry.due < end), 0.99)
