"""Looking at what a topic has, and deleting from its old end: held by every implementation."""

import pytest

from deploy.kafka.local_kafka import LocalKafka
from messaging import connect
from messaging.broker import (
    Broker,
    BrokerUnavailable,
    LogPosition,
    Message,
    NotSupported,
    Records,
    TopicMissing,
)
from tests.brokers.conftest import Bench

PATIENCE_S = 30.0


@pytest.fixture
def broker(bench: Bench) -> Broker:
    return bench.connect()


def publish(broker: Broker, topic: str, *bodies: str) -> None:
    for body in bodies:
        broker.publish(topic, Message(body.encode(), {"n": body})).result(PATIENCE_S)


def bodies(records: Records) -> list[str]:
    return sorted(
        delivery.message.body.decode()
        for partition, offsets in records.bounds().items()
        for delivery in records.read(partition, offsets)
    )


def test_what_is_there_is_read_to_its_end_and_again(bench: Bench, broker: Broker) -> None:
    numbers = [f"{number:02}" for number in range(40)]
    publish(broker, bench.topic, *numbers)
    records = broker.records(bench.topic)
    assert bodies(records) == numbers
    publish(broker, bench.topic, "40")
    assert bodies(records) == [*numbers, "40"]
    records.close()


def test_an_empty_topic_has_nothing(bench: Bench, broker: Broker) -> None:
    records = broker.records(bench.topic)
    assert all(not offsets for offsets in records.bounds().values())
    assert bodies(records) == []
    records.close()


def test_one_is_read_by_its_offset_as_it_was_sent(bench: Bench, broker: Broker) -> None:
    publish(broker, bench.topic, *"abcdef")
    records = broker.records(bench.topic)
    partition, offsets = next((p, held) for p, held in records.bounds().items() if held)
    everything = list(records.read(partition, offsets))
    assert [delivery.position for delivery in everything] == [
        LogPosition(partition, offset) for offset in offsets
    ]
    (last,) = records.read(partition, offsets[-1:])
    assert last == everything[-1]
    assert last.message.headers == {"n": last.message.body.decode()}
    assert last.topic == bench.topic
    records.close()


def test_offsets_that_are_not_there_are_left_out_and_reading_ends(bench: Bench, broker: Broker) -> None:
    publish(broker, bench.topic, "only")
    records = broker.records(bench.topic)
    partition, offsets = next((p, held) for p, held in records.bounds().items() if held)
    beyond = range(offsets.stop, offsets.stop + 5)
    (only,) = records.read(partition, range(offsets.start, offsets.stop + 5))
    assert only.message.body == b"only"
    assert list(records.read(partition, beyond)) == []
    assert list(records.read(partition, range(0))) == []
    records.close()


def test_looking_takes_nothing_from_a_group(bench: Bench, broker: Broker) -> None:
    publish(broker, bench.topic, "x")
    records = broker.records(bench.topic)
    assert bodies(records) == ["x"]
    records.close()
    subscription = broker.subscribe(bench.topic, "g")
    taken = []
    while not taken:
        taken += subscription.receive(10, 0.5)
    assert [delivery.message.body for delivery in taken] == [b"x"]
    subscription.close()


def test_what_is_older_than_an_offset_is_deleted_for_good(bench: Bench, broker: Broker) -> None:
    publish(broker, bench.topic, *"abcdefgh")
    records = broker.records(bench.topic)
    before = records.bounds()
    partition, offsets = next((p, held) for p, held in before.items() if held)
    if bench.kind == "embedded":
        with pytest.raises(NotSupported, match="this broker cannot delete"):
            records.delete_before({partition: offsets[-1]})
        assert bodies(records) == list("abcdefgh")
    else:
        (newest,) = records.read(partition, offsets[-1:])
        records.delete_before({partition: offsets[-1]})
        assert records.bounds() == {**before, partition: offsets[-1:]}
        assert list(records.read(partition, offsets)) == [newest]
        records.delete_before({p: held.stop for p, held in records.bounds().items() if held})
        assert bodies(records) == []
        publish(broker, bench.topic, "new")
        assert bodies(records) == ["new"]
    records.close()


def test_a_missing_topic_is_named(apache_kafka: LocalKafka) -> None:
    """The other brokers make a topic when it is named."""
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}")
    with pytest.raises(TopicMissing, match=r"nowhere.*mlaas topics create"):
        broker.records("nowhere")
    broker.close()


def test_without_a_broker_it_says_so() -> None:
    broker = connect("kafka://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable):
        broker.records("t")
    broker.close()
