"""The same over Google Pub/Sub: workers and gateways that are killed, a service that is away or frozen."""

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from google.pubsub_v1.types import pubsub as types

from bench.load import ask, warm_up
from bench.report import Case
from bench.systems import BROKER, mlaas
from messaging import connect
from messaging.broker import BrokerError, Message
from messaging.codec import decode_letter
from messaging.pubsub_link import Link
from tests.e2e.services import until
from tests.faults.asking import Client, Verdict, in_turn, judge, longest_gap, percentile
from tests.faults.fleet import Fleet, metric_at
from tests.faults.outcome import Outcome, least, most, none, one_right_answer_each, outcome, within_s
from tests.faults.scenarios.workers import Killer
from tests.faults.stage import PUBSUB, TIMEOUT_S, Stage, under_load
from tests.fragile_model import KILL

LEASE_S = 10.0  # how long a killed worker's messages wait, see messaging/pubsub_admin.py
AWAY_S = 10.0
COPY = "copy"

_THE_FAKE = (
    "Google's fake of Pub/Sub, which delivers every 10 ms: for correctness, and slower than the service"
)


def worker_kill(stage: Stage) -> Outcome:
    """kill -9 a worker every five seconds."""
    requests, rate = stage.size(10_000, 150), stage.size(50, 10)
    client = Client(TIMEOUT_S)
    with stage.running(3, "slow-model" if stage.quick else "", broker=PUBSUB) as (fleet, gateway):
        killer = Killer(fleet, "is warm")
        under_load(client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate), killer)
    judged = judge(client.entries)
    return outcome(
        [
            *one_right_answer_each(judged, 0.999),
            least("kills", killer.kills, 1),
            within_s("longest wait", judged.longest_s, 2 * LEASE_S),
        ],
        _numbers(judged) | {"kills": killer.kills, "requests_per_s": rate},
    )


def gateway_kill(stage: Stage) -> Outcome:
    """kill -9 the only gateway and start it again, some times; then end it cleanly."""
    rounds = stage.size(5, 1)
    answers, took_s = Client(TIMEOUT_S), list[float]()
    with stage.running(1, broker=PUBSUB) as (fleet, gateway):
        for number in range(rounds):
            fleet.kill("gateway")
            fleet.again("gateway")
            fleet.wait_until_ready("gateway")
            began = time.monotonic()
            asyncio.run(answers.drive(in_turn([gateway]), [stage.pictures(number)], rate=1))
            took_s.append(time.monotonic() - began)
        left_behind = subscriptions(fleet.topics["replies"])
        fleet.stop("gateway")
        at_the_end = subscriptions(fleet.topics["replies"])
    judged = judge(answers.entries)
    return outcome(
        [
            *one_right_answer_each(judged, 1.0),
            within_s("first answer of the next", max(took_s), 1.0),
            none("subscriptions of killed ones beyond one each", len(left_behind) - rounds - 1),
            none("left behind that never expire", sum(each == 0 for each in left_behind.values())),
            most("they expire after, s", max(left_behind.values()), 86_400),
            none("left by a clean end", len(at_the_end) - rounds),
        ],
        _numbers(judged) | {"kills": rounds},
    )


def subscriptions(topic: str) -> dict[str, int]:
    """Those of the topic, with the seconds without a reader after which each expires; 0: never."""
    link = Link(PUBSUB.removeprefix("pubsub://"))
    try:
        request = types.ListTopicSubscriptionsRequest.pb()(topic=link.topic(topic))
        answer = types.ListTopicSubscriptionsResponse.pb()
        found = {}
        for name in link.ask("Publisher/ListTopicSubscriptions", request, answer).subscriptions:
            of_it = types.GetSubscriptionRequest.pb()(subscription=name)
            its = link.ask("Subscriber/GetSubscription", of_it, types.Subscription.pb())
            found[name] = its.expiration_policy.ttl.seconds
        return found
    finally:
        link.close()


def outage(stage: Stage) -> Outcome:
    """The network to the service is cut for ten seconds."""
    return _without(stage, stage.pubsub.away, stage.pubsub.back, refused_at_once=True)


def frozen(stage: Stage) -> Outcome:
    """The service is frozen for ten seconds: connections stay, and nothing answers."""
    return _without(stage, stage.pubsub.freeze, stage.pubsub.thaw, refused_at_once=False)


def _without(
    stage: Stage, begin: Callable[[], None], end: Callable[[], None], *, refused_at_once: bool
) -> Outcome:
    client, back_at = Client(TIMEOUT_S), 0.0
    away_s = stage.size(10, 4)
    with stage.running(2, broker=PUBSUB) as (_, gateway):

        def cut_for_a_while(over: threading.Event) -> None:
            nonlocal back_at
            over.wait(3)
            begin()
            time.sleep(away_s)
            end()
            back_at = time.monotonic()

        requests, rate = stage.size(1_500, 300), stage.size(50, 25)
        load = client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate)
        under_load(load, cut_for_a_while)
    judged = judge(client.entries)
    refused_s = [entry.seconds for entry in client.entries if entry.status == 503]
    first_s = min((at - back_at for at in client.answered_at if at > back_at), default=TIMEOUT_S)
    refusing = [
        least("answered 503 meanwhile", len(refused_s), 1),
        within_s("503s: p99", percentile(refused_s, 0.99), 0.5),
    ]
    return outcome(
        [
            *one_right_answer_each(judged),
            none("connection errors", judged.statuses.get(0, 0)),
            *(refusing if refused_at_once else []),
            within_s("first 200 after its return", first_s, 5.0),
        ],
        _numbers(judged) | {"away_s": away_s},
    )


def poison(stage: Stage) -> Outcome:
    """One of the pictures kills the model process (SIGSEGV)."""
    count = stage.size(1_000, 100)
    client = Client(TIMEOUT_S)
    bad = stage.pictures(count // 2, KILL)
    pictures = [*map(stage.pictures, range(count // 2)), bad, *map(stage.pictures, range(count // 2, count))]
    with stage.running(1, "fragile-model", broker=PUBSUB) as (fleet, gateway):
        under_load(client.drive(in_turn([gateway]), pictures, rate=stage.size(50, 25)))
        letters = dead_letters(fleet)
    judged = judge(client.entries)
    return outcome(
        [
            none("lost", judged.lost),
            none("wrong", judged.wrong),
            none("double", judged.double),
            none("answered 500, beyond one", judged.statuses.get(500, 0) - 1),
            none("answered otherwise", count - judged.statuses.get(200, 0) - judged.statuses.get(429, 0)),
            none("dead letters, beyond one", len(letters) - 1),
            none("other dead letters", sum(letter.body != bad.content for letter in letters)),
            within_s("longest pause", longest_gap(client.answered_at), 5.0),
        ],
        _numbers(judged),
    )


def dead_letters(fleet: Fleet) -> list[Message]:
    broker = connect(PUBSUB)
    records = broker.records(fleet.topics["dead_letters"])
    try:
        found = list(records.read())
        assert all(decode_letter(each).reason for each in found)
        return [each.message for each in found]
    finally:
        records.close()
        broker.close()


def duplicates(stage: Stage) -> Outcome:
    """Each request is delivered three times, to two workers."""
    requests, rate = stage.size(3_000, 60), stage.size(50, 15)
    client = Client(TIMEOUT_S)
    with stage.fleet(broker=PUBSUB) as fleet:
        gateway = fleet.gateway("gateway")
        fleet.workers(2)
        with repeating(fleet.topics["requests"], copies=2) as repeated:
            fleet.wait_until_ready()
            under_load(client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate))
            until(lambda: sum(repeated) >= 2 * requests, "repeating all")
        dropped = fleet.metric("gateway", "mlaas_replies_dropped_total")
    judged = judge(client.entries)
    return outcome(
        [
            *one_right_answer_each(judged, 0.999),
            least("delivered, times each", sum(repeated) / requests + 1, 2.99),
        ],
        _numbers(judged) | {"repeated": sum(repeated), "second_replies_dropped": dropped},
    )


@contextmanager
def repeating(topic: str, copies: int) -> Iterator[list[int]]:
    """Publish each request of the topic again, as the service may deliver it again.

    Yields a list that gets the number of copies of each.
    """
    broker = connect(PUBSUB)
    subscription = broker.subscribe(topic, "repeating")
    repeated: list[int] = []
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            try:
                taken = subscription.receive(100, 0.1)
            except BrokerError:
                continue
            for each in taken:
                if each.message.body and COPY not in each.message.headers:
                    again = Message(each.message.body, {**each.message.headers, COPY: "1"})
                    for _ in range(copies):
                        broker.publish(topic, again)
                    repeated.append(copies)
            subscription.acknowledge(taken)

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield repeated
    finally:
        over.set()
        thread.join()
        subscription.close()
        broker.close()


def slow_worker(stage: Stage) -> Outcome:
    """A worker takes longer for what it holds than a lease lasts: nothing is delivered again."""
    requests = stage.size(600, 400)  # in batches of 32, each of which takes 1.2 s
    client = Client(TIMEOUT_S)
    with stage.running(1, "slow-model", broker=PUBSUB) as (fleet, gateway):
        under_load(client.drive(in_turn([gateway]), map(stage.pictures, range(requests)), rate=requests))
        again = fleet.metric("worker-1", r"mlaas_worker_requests_total\{outcome=\"duplicate\"\}")
        worked = fleet.metric("worker-1", r"mlaas_worker_requests_total\{outcome=\"answered\"\}")
    judged = judge(client.entries)
    return outcome(
        [
            none("wrong", judged.wrong),
            none("double", judged.double),
            none("lost", judged.lost),
            least("longest wait, s", judged.longest_s, LEASE_S),
            none("delivered again", again),
        ],
        _numbers(judged) | {"answered_by_the_worker": worked},
    )


def stopped_worker(stage: Stage) -> Outcome:
    """SIGSTOP one of two workers for longer than a lease, then SIGCONT."""
    client, stopped_s = Client(TIMEOUT_S), LEASE_S + 5
    with stage.running(2, broker=PUBSUB) as (fleet, gateway):

        def stop_and_continue(over: threading.Event) -> None:
            over.wait(3)
            fleet.signal_all("worker-1", signal.SIGSTOP)
            over.wait(stopped_s)
            fleet.signal_all("worker-1", signal.SIGCONT)

        load = client.drive(in_turn([gateway]), map(stage.pictures, range(1_000)), rate=40)
        under_load(load, stop_and_continue)
    judged = judge(client.entries)
    return outcome(
        [  # the fake, unlike the service, goes on delivering to a stopped one: some may be refused with 429
            *one_right_answer_each(judged, 0.8),
            within_s("longest wait", judged.longest_s, 2 * LEASE_S),
        ],
        _numbers(judged) | {"stopped_s": stopped_s},
    )


def cost(stage: Stage) -> Outcome:
    """Processor time of a request beside Kafka's, with 64 clients and frames: the best of some rounds."""
    seconds, rounds = stage.size(10, 5), stage.size(3, 1)
    pids = {"Kafka": stage.kafka_pid, "Pub/Sub": stage.pubsub.pid}
    urls = {"Kafka": f"kafka://{stage.kafka}", "Pub/Sub": PUBSUB}
    case = Case(system="", body="raw", clients=64, generator="wrk")
    found: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    frames: list[float] = []
    for _ in range(rounds):
        for name, url in urls.items():
            with mlaas(url, 1, pids[name]) as system:
                warm_up(system, 5.0)
                ask(system, case, 3.0)
                cell = ask(system, case, seconds)
                frames.append(metric_at(system.urls["raw"].removesuffix("/predict"), "mlaas_frames_total"))
            found[name].append(cell.cpu_ms)
            rates[name].append(cell.result.requests_per_s)
    best = {name: min(each, key=_own_ms) for name, each in found.items()}
    ratio = _own_ms(best["Pub/Sub"]) / _own_ms(best["Kafka"])
    return outcome(
        [
            least("frames of requests", min(frames), 1),
            most("processor time over that with Kafka, without the brokers", ratio, 2.5),
        ],
        {
            "note": _THE_FAKE,
            "cpu_ms": {name: {role: round(ms, 4) for role, ms in its.items()} for name, its in best.items()},
            "own_ms": {name: [round(_own_ms(its), 4) for its in each] for name, each in found.items()},
            "requests_per_s": {name: [round(each) for each in its] for name, its in rates.items()},
        },
    )


def _own_ms(cpu_ms: dict[str, float]) -> float:
    """Without the broker."""
    return sum(ms for role, ms in cpu_ms.items() if role != BROKER)


def _numbers(judged: Verdict) -> dict[str, object]:
    return judged.numbers() | {"note": _THE_FAKE}
