"""Looking at what a topic has, and deleting some of it: held by every implementation."""

import pytest

from deploy.kafka.local_kafka import LocalKafka
from messaging import connect
from messaging.broker import (
    Broker,
    BrokerUnavailable,
    Message,
    NoSuchRecord,
    NotSupported,
    Records,
    TopicMissing,
)
from tests.brokers.conftest import Bench

PATIENCE_S = 30.0


@pytest.fixture
def broker(bench: Bench) -> Broker:
    return bench.connect()


@pytest.fixture
def records(bench: Bench, broker: Broker):
    records = broker.records(bench.topic)
    yield records
    records.close()


def publish(broker: Broker, topic: str, *bodies: str) -> None:
    for body in bodies:
        broker.publish(topic, Message(body.encode(), {"n": body})).result(PATIENCE_S)


def bodies(records: Records) -> list[str]:
    return sorted(delivery.message.body.decode() for delivery in records.read())


def positions(records: Records) -> dict[str, str]:
    """By body."""
    return {delivery.message.body.decode(): str(delivery.position) for delivery in records.read()}


def test_what_is_there_is_read_to_its_end_and_again(bench: Bench, broker: Broker, records: Records) -> None:
    numbers = [f"{number:02}" for number in range(40)]
    publish(broker, bench.topic, *numbers)
    assert bodies(records) == numbers
    publish(broker, bench.topic, "40")
    assert bodies(records) == [*numbers, "40"]
    assert records.count() == 41


def test_an_empty_topic_has_nothing(records: Records) -> None:
    assert bodies(records) == []
    assert records.count() == 0


def test_the_newest_are_among_those_that_are_read(bench: Bench, broker: Broker, records: Records) -> None:
    publish(broker, bench.topic, *"abcdef")
    newest = sorted(records.read(newest=2), key=lambda each: each.timestamp_ms)
    assert {each.message.body for each in newest} >= {b"f"}
    assert len(newest) <= 6


def test_one_is_found_by_its_position_as_it_was_sent(bench: Bench, broker: Broker, records: Records) -> None:
    publish(broker, bench.topic, *"abcdef")
    everything = list(records.read())
    for each in everything:
        found = records.find(str(each.position))
        assert found == each
        assert found.message.headers == {"n": found.message.body.decode()}
        assert found.topic == bench.topic
    assert (
        len({each.position for each in everything}) == len(sorted(each.position for each in everything)) == 6
    )


def test_a_position_that_is_not_there_is_named(bench: Bench, broker: Broker, records: Records) -> None:
    publish(broker, bench.topic, "only")
    for position in ("0/99", "99/0", "elsewhere"):
        with pytest.raises(NoSuchRecord, match=position):
            records.find(position)
    with pytest.raises(NoSuchRecord):
        records.purge("elsewhere")
    assert bodies(records) == ["only"]


def test_looking_takes_nothing_from_a_group(bench: Bench, broker: Broker, records: Records) -> None:
    subscription = broker.subscribe(bench.topic, "g")
    publish(broker, bench.topic, "x")
    assert bodies(records) == ["x"]
    taken = []
    while not taken:
        taken += subscription.receive(10, 0.5)
    assert [delivery.message.body for delivery in taken] == [b"x"]
    subscription.close()


def test_what_is_deleted_is_gone_for_good(bench: Bench, broker: Broker, records: Records) -> None:
    publish(broker, bench.topic, *"abcdefgh")
    its = positions(records)
    assert records.delete([]) == 0
    assert records.delete(set(its.values())) == 8
    assert bodies(records) == []
    publish(broker, bench.topic, "new")
    assert bodies(records) == ["new"]
    assert records.purge() == 1
    assert bodies(records) == []


def test_what_is_older_than_a_record_is_deleted_for_good(
    bench: Bench, broker: Broker, records: Records
) -> None:
    older = 0
    while not older:  # of a log, in the partition of the newest alone
        publish(broker, bench.topic, *"abcdefgh")
        newest = max(records.read(), key=lambda each: each.position)
        older = records.count(str(newest.position))
    there = records.count()
    assert records.purge(str(newest.position)) == older
    assert records.count() == there - older
    assert records.find(str(newest.position)) == newest
    assert records.purge(str(newest.position)) == 0


def test_one_that_is_not_the_oldest_is_deleted_alone(bench: Bench, broker: Broker, records: Records) -> None:
    publish(broker, bench.topic, *(f"{number:02}" for number in range(20)))
    newest = max(records.read(), key=lambda each: each.position)
    assert records.delete([str(newest.position)]) == 1
    assert newest.message.body.decode() not in bodies(records)
    assert records.count() == 19


def test_the_embedded_broker_says_that_it_cannot_delete(embedded) -> None:
    publish(embedded, "kept", *"ab")
    records = embedded.records("kept")
    with pytest.raises(NotSupported, match="this broker cannot delete"):
        records.purge()
    assert bodies(records) == ["a", "b"]
    records.close()


def test_a_missing_topic_is_named(apache_kafka: LocalKafka) -> None:
    """The embedded broker and that in memory make a topic when it is named."""
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}")
    with pytest.raises(TopicMissing, match=r"nowhere.*mlaas topics create"):
        broker.records("nowhere")
    broker.close()


def test_without_a_broker_it_says_so() -> None:
    broker = connect("kafka://127.0.0.1:1")
    with pytest.raises(BrokerUnavailable):
        broker.records("t")
    broker.close()
