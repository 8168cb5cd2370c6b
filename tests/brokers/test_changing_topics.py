"""Topics that change while they are in use: partitions are added, or a topic is deleted and created again."""

import contextlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions

from deploy.kafka.local_kafka import LocalKafka
from messaging import connect, kafka_topics
from messaging.broker import Broker, BrokerError, Delivery, Inbox, Message, Subscription, TopicMissing
from tests.brokers.conftest import create_topic, partition_of

PATIENCE_S = 60.0


class Heard:
    """Reads a place in a thread, as gateways and workers do: what fails is tried again."""

    def __init__(self, place: Inbox | Subscription) -> None:
        self.bodies: list[bytes] = []
        self.partitions: set[int] = set()
        self._place = place
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> "Heard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._place.close()

    def _read(self) -> None:
        while not self._over.is_set():
            try:
                self._take(self._place.receive(100, 0.1))
            except BrokerError:
                self._over.wait(0.1)

    def _take(self, taken: Sequence[Delivery] | Sequence[Message]) -> None:
        deliveries = [each for each in taken if isinstance(each, Delivery)]
        if deliveries:
            self._place.acknowledge(deliveries)  # type: ignore[union-attr]
        self.partitions |= {partition_of(each) for each in deliveries}
        self.bodies += [(each.message if isinstance(each, Delivery) else each).body for each in taken]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE_S:g} s"
        time.sleep(0.05)


class Load:
    """Publishes numbered messages to a topic, alone and gathered by turns, in a thread."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self.sent: list[bytes] = []
        self.errors: list[BaseException] = []
        self._broker = broker
        self._topic = topic
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish)

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _publish(self) -> None:
        while not self._over.wait(0.005):
            body = str(len(self.sent)).encode()
            self.sent.append(body)
            try:
                published = self._broker.publish(self._topic, Message(body), gather=len(self.sent) % 2 == 0)
                published.add_done_callback(self._report)
            except BrokerError as error:
                self.errors.append(error)

    def _report(self, published: "Future[None]") -> None:
        if error := published.exception():
            self.errors.append(error)


def test_adding_partitions_under_load_loses_nothing(
    apache_kafka: LocalKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here they are used at once: before the members of the group have found them."""
    monkeypatch.setattr(kafka_topics, "READ_AFTER_S", 0.0)
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic, partitions=2)
    url = f"kafka://{apache_kafka.bootstrap_servers}"
    publisher, *readers = brokers = [connect(url) for _ in range(3)]
    with ExitStack() as opened:
        members = [opened.enter_context(Heard(reader.subscribe(topic, topic))) for reader in readers]

        def read() -> set[int]:
            return set().union(*(member.partitions for member in members))

        def heard() -> set[bytes]:
            return {body for member in members for body in member.bodies}

        with Load(publisher, topic) as load:
            add_partitions(apache_kafka, topic, 3)
            until(lambda: read() == set(range(3)), "reading 3 partitions")
            add_partitions(apache_kafka, topic, 8)
            until(lambda: read() == set(range(8)), "reading 8 partitions")
        until(lambda: heard() >= set(load.sent), "reading all messages")
    assert not load.errors
    for broker in brokers:
        broker.close()


def test_a_partition_that_was_added_just_now_can_be_replied_to(apache_kafka: LocalKafka) -> None:
    """A gateway that is started after that may read it, and workers have known the topic before."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic, partitions=2)
    worker, gateway = (connect(f"kafka://{apache_kafka.bootstrap_servers}") for _ in range(2))
    for gather in (False, True):
        worker.publish(f"{topic}/1", Message(b""), gather=gather).result(PATIENCE_S)
    add_partitions(apache_kafka, topic, 40)
    inbox = gateway.open_inbox(topic, "i")
    assert int(inbox.address.partition("/")[2]) >= 2
    with Heard(inbox) as heard:
        for gather in (False, True):
            worker.publish(inbox.address, Message(b"reply"), gather=gather).result(PATIENCE_S)
        until(lambda: len(heard.bodies) == 2, "hearing both replies")
    assert isinstance(worker.publish(f"{topic}/40", Message(b"")).exception(PATIENCE_S), TopicMissing)
    for broker in (worker, gateway):
        broker.close()


def test_topics_that_are_created_again_are_read_and_written_again() -> None:
    """After the broker was started anew: leader epochs are lower then than those that clients have seen."""
    with LocalKafka() as kafka, ExitStack() as opened:
        for topic in ("requests", "replies"):
            create_topic(kafka.bootstrap_servers, topic)
        url = f"kafka://{kafka.bootstrap_servers}"
        gateway, worker = (connect(url, publish_timeout_ms=5_000) for _ in range(2))
        opened.callback(gateway.close)
        opened.callback(worker.close)
        inbox = gateway.open_inbox("replies", "i")
        replies = opened.enter_context(Heard(inbox))
        requests = opened.enter_context(Heard(worker.subscribe("requests", "g", "worker-1")))

        def both_ways(when: str) -> None:
            comes_through(gateway, "requests", requests, f"{when}, a request")
            comes_through(worker, inbox.address, replies, f"{when}, a reply")

        both_ways("at first")
        kafka.kill()
        kafka.start()
        both_ways("after a kill")
        for topic in ("requests", "replies"):
            create_again(kafka, topic)
        both_ways("created again")
        kafka.kill()
        shutil.rmtree(kafka.data)
        kafka.start()
        for topic in ("requests", "replies"):
            create_topic(kafka.bootstrap_servers, topic)
        both_ways("after a disk was lost")


def comes_through(broker: Broker, address: str, heard: Heard, what: str) -> None:
    """One that is published now, or a little later."""
    prefix = uuid.uuid4().hex

    def is_heard() -> bool:
        with contextlib.suppress(BrokerError):
            broker.publish(address, Message(f"{prefix} {time.monotonic()}".encode()))
        return any(body.startswith(prefix.encode()) for body in heard.bodies)

    until(is_heard, what)


def add_partitions(kafka: LocalKafka, topic: str, partitions: int) -> None:
    """The broker says that it is done a moment before it tells clients of them."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(PATIENCE_S)

    def told() -> int:
        return len(admin.list_topics(topic, PATIENCE_S).topics[topic].partitions)

    until(lambda: told() == partitions, f"the broker telling clients of {partitions} partitions")


def create_again(kafka: LocalKafka, topic: str) -> None:
    """Deleting goes on for a moment after the broker has said that it is done."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.delete_topics([topic])[topic].result(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            create_topic(kafka.bootstrap_servers, topic)
        except KafkaException:
            assert time.monotonic() < end
            time.sleep(0.1)
        else:
            return
