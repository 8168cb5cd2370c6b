"""Gateways that share a reply partition, that are restarted, and that nobody answers."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator

from tests.e2e.services import predict, until
from tests.faults.asking import Address, Client, in_turn
from tests.faults.fleet import Fleet
from tests.faults.ledger import judge
from tests.faults.outcome import Outcome, least, none, one_right_answer_each, outcome, within_s
from tests.faults.republishing import republishing
from tests.faults.stage import TIMEOUT_S, Stage, under_load

POLL_S = 0.25


def cross_talk(stage: Stage) -> Outcome:
    """Three gateways, two of them on one partition of the replies; each request is delivered three times."""
    requests, rate = stage.size(30_000, 1_000), stage.size(120, 60)
    client = Client(TIMEOUT_S)
    with stage.fleet() as fleet:
        gateways = [
            fleet.gateway("gateway-1", MLAAS_GATEWAY__INSTANCE_ID="same"),
            fleet.gateway("gateway-2", MLAAS_GATEWAY__INSTANCE_ID="same"),
            fleet.gateway("gateway-3"),
        ]
        names = fleet.workers(2)
        fleet.wait_until_ready()
        with republishing(stage.kafka, fleet.topics["requests"], copies=2) as republished:
            load = client.drive(in_turn(gateways), map(stage.pictures, range(requests)), rate)
            under_load(load)
        worked = {name: fleet.metric(name, "mlaas_worker_requests_total") for name in names}
        dropped = sum(
            fleet.metric(f"gateway-{number}", "mlaas_(duplicate|late)_replies_total") for number in (1, 2, 3)
        )
    judged = judge(client.entries)
    return outcome(
        "cross-talk",
        [
            *one_right_answer_each(judged),
            least("answered 200, share", judged.share(200), 0.999),
            least("delivered, times each", republished.count / requests + 1, 2.99),
        ],
        judged.numbers()
        | {"republished": republished.count, "second_replies_dropped": dropped, "handled_by_worker": worked},
    )


def gateway_rolling(stage: Stage) -> Outcome:
    """One of three gateways is told to end and started again every ten seconds."""
    rate, rounds = stage.size(100, 40), stage.size(12, 2)
    client = Client(TIMEOUT_S)
    names = ["gateway-1", "gateway-2", "gateway-3"]
    # On a busy machine the balancer may ask seldom, and must have asked before the end.
    noticed = {"MLAAS_GATEWAY__DRAIN_DELAY_MS": "8000"} if stage.quick else {}
    with stage.fleet(**noticed) as fleet:
        for name in names:
            fleet.gateway(name)
        fleet.worker("worker")
        fleet.wait_until_ready()
        balancer = Balancer(fleet, names)
        done = threading.Event()

        def restart_in_turn(over: threading.Event) -> None:
            for name in itertools.islice(itertools.cycle(names), rounds):
                began = time.monotonic()
                fleet.stop(name)
                fleet.again(name)
                fleet.wait_until_ready(name)
                over.wait(max(0.0, began + 10 - time.monotonic()))
            done.set()

        load = client.drive(balancer, map(stage.pictures, range(1_000_000)), rate, stop=done.is_set)
        under_load(load, restart_in_turn, balancer.poll)
    judged = judge(client.entries)
    return outcome(
        "gateway-rolling",
        [
            *one_right_answer_each(judged),
            none("connection errors and 5xx", judged.errors()),
            least("answered 200, share", judged.share(200), 1.0),
        ],
        judged.numbers() | {"restarts": rounds, "requests_per_s": rate},
    )


class Balancer:
    """In turn over those that were ready when last asked: /health/ready, four times a second."""

    def __init__(self, fleet: Fleet, names: list[str]) -> None:
        self._fleet, self._names = fleet, names
        self._turn = self._in_turn(fleet.ready(names))

    def __call__(self) -> Address | None:
        return next(self._turn, None)

    def poll(self, over: threading.Event) -> None:
        while not over.wait(POLL_S):
            self._turn = self._in_turn(self._fleet.ready(self._names))

    def _in_turn(self, addresses: list[Address]) -> Iterator[Address]:
        return itertools.cycle(addresses)


def deadline(stage: Stage) -> Outcome:
    """The workers stand still; each caller says how long it waits."""
    timeouts_s = (0.5, 1.0, 1.5, 2.0)
    clients = [Client(timeout_s) for timeout_s in timeouts_s]
    each, good = stage.size(200, 25), stage.pictures(0).content
    with stage.fleet() as fleet:
        gateway = fleet.gateway("gateway")
        fleet.worker("worker")
        fleet.wait_until_ready()
        fleet.signal_all("worker", signal.SIGSTOP)
        for turn, client in enumerate(clients):
            numbers = range(turn * each, (turn + 1) * each)
            under_load(client.drive(in_turn([gateway]), map(stage.pictures, numbers), rate=each))
            if turn == 1:  # before the gateway refuses because nobody is heard any more
                fleet.signal_all("worker", signal.SIGCONT)
                until(lambda: predict(fleet.url("gateway"), good).status_code == 200, "the workers' going on")
                fleet.signal_all("worker", signal.SIGSTOP)
    entries = [entry for client in clients for entry in client.entries]
    judged = judge(entries)
    return outcome(
        "deadline",
        [
            none("without an answer", judged.lost),
            least("answered 504, share", judged.share(504), 1.0),
            within_s("latest after its deadline", judged.latest_s, 0.05),
        ],
        judged.numbers() | {"timeouts_s": timeouts_s},
    )
