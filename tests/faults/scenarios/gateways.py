"""Gateways that share a reply partition, that restart in turn, and whose workers are silent."""

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from tests.e2e.services import predict, until
from tests.faults.asking import Client, in_turn, judge
from tests.faults.fleet import Address, Fleet
from tests.faults.outcome import Outcome, least, none, one_right_answer_each, outcome, within_s
from tests.faults.stage import TIMEOUT_S, Stage, under_load

POLL_S = 0.25
COPY = "copy"


def cross_talk(stage: Stage) -> Outcome:
    """Three gateways, two of them on one reply partition; each request is delivered three times."""
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
            under_load(client.drive(in_turn(gateways), map(stage.pictures, range(requests)), rate))
        worked = {name: fleet.metric(name, "mlaas_worker_requests_total") for name in names}
        dropped = sum(
            fleet.metric(f"gateway-{number}", "mlaas_replies_dropped_total") for number in (1, 2, 3)
        )
    judged, copies = judge(client.entries), sum(republished)
    return outcome(
        [*one_right_answer_each(judged, 0.999), least("delivered, times each", copies / requests + 1, 2.99)],
        judged.numbers()
        | {"republished": copies, "second_replies_dropped": dropped, "handled_by_worker": worked},
    )


@contextmanager
def republishing(bootstrap_servers: str, topic: str, copies: int) -> Iterator[list[int]]:
    """Duplicate each message of the topic until the block ends, as a broker may after a fault.

    Yields a list that gets the number of copies of each message.
    """
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "nobody", "enable.auto.commit": False}
    )
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in partitions])
    for partition in partitions:
        consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    republished: list[int] = []
    over = threading.Event()

    def repeat() -> None:
        while not over.is_set():
            for message in consumer.consume(100, timeout=0.05):
                headers = message.headers() or []
                if message.error() is None and message.value() and COPY not in dict(headers):
                    for _ in range(copies):
                        producer.produce(topic, message.value(), headers=[*headers, (COPY, b"1")])
                    republished.append(copies)
            producer.poll(0)

    repeating = threading.Thread(target=repeat, daemon=True)
    repeating.start()
    try:
        yield republished
    finally:
        over.set()
        repeating.join()
        producer.flush(10)
        consumer.close()


def gateway_rolling(stage: Stage) -> Outcome:
    """Stop one of three gateways and start it again, every ten seconds in turn."""
    rate, rounds = stage.size(100, 40), stage.size(12, 2)
    client = Client(TIMEOUT_S)
    names = ["gateway-1", "gateway-2", "gateway-3"]
    # On a busy machine the balancer may poll late, but must have polled before the gateway stops.
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
        [*one_right_answer_each(judged, 1.0), none("connection errors and 5xx", judged.errors())],
        judged.numbers() | {"restarts": rounds, "requests_per_s": rate},
    )


class Balancer:
    """Round-robin over the gateways that were ready when last polled, four times a second."""

    def __init__(self, fleet: Fleet, names: list[str]) -> None:
        self._fleet, self._names = fleet, names
        self._turn = itertools.cycle(fleet.ready(names))

    def __call__(self) -> Address | None:
        return next(self._turn, None)

    def poll(self, over: threading.Event) -> None:
        while not over.wait(POLL_S):
            self._turn = itertools.cycle(self._fleet.ready(self._names))


def deadline(stage: Stage) -> Outcome:
    """Pause the workers; each caller sets its own timeout."""
    timeouts_s = (0.5, 1.0, 1.5, 2.0)
    clients = [Client(timeout_s) for timeout_s in timeouts_s]
    each, good = stage.size(200, 25), stage.pictures(0).content
    with stage.running() as (fleet, gateway):
        fleet.signal_all("worker-1", signal.SIGSTOP)
        for turn, client in enumerate(clients):
            numbers = range(turn * each, (turn + 1) * each)
            under_load(client.drive(in_turn([gateway]), map(stage.pictures, numbers), rate=each))
            if turn == 1:  # before the gateway refuses because no worker answers
                fleet.signal_all("worker-1", signal.SIGCONT)
                until(lambda: predict(fleet.url("gateway"), good).status_code == 200, "the workers' going on")
                fleet.signal_all("worker-1", signal.SIGSTOP)
    judged = judge(entry for client in clients for entry in client.entries)
    return outcome(
        [
            none("without an answer", judged.lost),
            least("answered 504, share", judged.share(504), 1.0),
            within_s("latest after its deadline", judged.latest_s, 0.05),
        ],
        judged.numbers() | {"timeouts_s": timeouts_s},
    )
