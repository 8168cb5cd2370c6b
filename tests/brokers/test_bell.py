"""Readers of the embedded broker sleep while nothing comes, and lose nothing by it."""

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import pytest
from confluent_kafka import Consumer, TopicPartition

from messaging import connect, kafka_config
from messaging.broker import Broker, Message
from messaging.kafka import EmbeddedBroker
from messaging.kafka_reader import Bell, Naps

PATIENCE_S = 20.0


@dataclass
class Sleeper:
    """A reader of partition 0 of a topic, its broker, and the bell that wakes it."""

    naps: Naps
    broker: Broker
    bell: Bell
    topic: str

    def publish(self, body: bytes) -> None:
        self.broker.publish(f"{self.topic}/0", Message(body)).result(PATIENCE_S)

    def fall_asleep(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while not self.naps.is_asleep and time.monotonic() < end:
            assert self.naps.poll(0.01) is None
        assert self.naps.is_asleep

    def next(self) -> bytes | None:
        record = self.naps.poll(PATIENCE_S)
        return record and record.value()


@pytest.fixture
def sleeper(embedded: EmbeddedBroker) -> Iterator[Sleeper]:
    """Its publisher does not ring."""
    servers, given = kafka_config.parse_url(embedded.url)
    port = kafka_config.port_of_bell(given)
    if port is None:
        pytest.skip("this system has no broadcasts on the loopback interface")
    topic, bell = f"t-{uuid.uuid4().hex[:8]}", Bell(port)
    without = {name: value for name, value in given.items() if name != kafka_config.BELL}
    broker = connect(f"kafka://{servers}?" + "&".join(f"{name}={value}" for name, value in without.items()))
    broker.publish(f"{topic}/0", Message(b"first")).result(PATIENCE_S)
    consumer = Consumer(kafka_config.consumer(servers, given, kafka_config.INBOX))
    consumer.assign([TopicPartition(topic, 0, 0)])
    naps = Naps(consumer, bell.listen())
    its = Sleeper(naps, broker, bell, topic)
    assert its.next() == b"first"
    yield its
    naps.close()
    consumer.close()
    broker.close()
    bell.close()


def test_the_embedded_broker_has_a_bell_that_works(embedded: EmbeddedBroker) -> None:
    port = parse_qs(urlsplit(embedded.url).query).get(kafka_config.BELL)
    if port is not None:
        with closing(Bell(int(port[0]))) as bell:
            assert bell.works()


def test_a_ring_wakes_who_reads_the_topic(sleeper: Sleeper) -> None:
    sleeper.fall_asleep()
    sleeper.bell.ring(sleeper.topic, time.monotonic())
    sleeper.naps.poll(0)
    assert not sleeper.naps.is_asleep
    sleeper.publish(b"next")
    assert sleeper.next() == b"next"


def test_nobody_wakes_for_other_topics(sleeper: Sleeper) -> None:
    sleeper.fall_asleep()
    sleeper.bell.ring("another", time.monotonic())
    assert sleeper.naps.poll(0.01) is None
    assert sleeper.naps.is_asleep


def test_without_a_ring_a_record_comes_too(sleeper: Sleeper) -> None:
    sleeper.fall_asleep()
    sleeper.publish(b"silent")
    assert sleeper.next() == b"silent"


def test_a_reader_that_has_nothing_assigned_stays_awake(embedded: EmbeddedBroker) -> None:
    servers, given = kafka_config.parse_url(embedded.url)
    bell = Bell(kafka_config.port_of_bell(given) or 1)
    consumer = Consumer(kafka_config.consumer(servers, given, kafka_config.INBOX))
    naps = Naps(consumer, bell.listen())
    assert naps.poll(0.2) is None
    assert not naps.is_asleep
    naps.close()
    consumer.close()
    bell.close()


def test_of_many_records_at_irregular_times_each_comes_once_and_in_order(embedded: EmbeddedBroker) -> None:
    broker, topic = connect(embedded.url), f"t-{uuid.uuid4().hex[:8]}"
    broker.publish(f"{topic}/0", Message(b"")).result(PATIENCE_S)
    inbox = broker.open_inbox(topic, "me")
    address, received = inbox.address, []
    for number in range(120):
        broker.publish(address, Message(b"%d" % number), gather=number % 3 == 0)
        received += inbox.receive(100, (0.0, 0.001, 0.02, 0.05)[number * 7 % 4])
    end = time.monotonic() + PATIENCE_S
    while len(received) < 120 and time.monotonic() < end:
        received += inbox.receive(100, 0.2)
    assert sorted(int(each.body) for each in received) == list(range(120))
    inbox.close()
    broker.close()


def test_who_does_not_know_the_bell_is_heard_by_who_does(embedded: EmbeddedBroker) -> None:
    url = embedded.url.partition(f"&{kafka_config.BELL}")[0]
    knows, knows_not = connect(embedded.url), connect(url)
    topic = f"t-{uuid.uuid4().hex[:8]}"
    knows_not.publish(topic, Message(b"1")).result(PATIENCE_S)
    subscription = knows.subscribe(topic, topic)
    end, bodies = time.monotonic() + 2 * PATIENCE_S, []
    while not bodies and time.monotonic() < end:
        bodies += [each.message.body for each in subscription.receive(10, 0.2)]
    knows_not.publish(topic, Message(b"2")).result(PATIENCE_S)
    while len(bodies) < 2 and time.monotonic() < end:
        bodies += [each.message.body for each in subscription.receive(10, 0.2)]
    assert bodies == [b"1", b"2"]
    subscription.close()
    knows.close()
    knows_not.close()
