"""Messages that need most of the room that the embedded broker has for a partition, one after another."""

import uuid

import pytest

from messaging import connect
from messaging.broker import Message
from messaging.kafka import EmbeddedBroker
from tests.brokers.test_broker_contract import PATIENCE_S, receive

BODY = b"x" * 3_500_000
COUNT = 12  # three for each of its four partitions


@pytest.mark.parametrize("partition", ["", "/1"], ids=["any-partition", "one-partition"])
def test_each_arrives_and_nothing_else(embedded: EmbeddedBroker, partition: str) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    broker = connect(embedded.url, max_message_bytes=4_000_000, publish_timeout_ms=10_000)
    subscription = broker.subscribe(topic, "g")
    try:
        for number in range(COUNT):
            broker.publish(topic + partition, Message(BODY, {"number": str(number)})).result(PATIENCE_S)
            (delivery,) = receive(subscription, 1)
            assert delivery.message.headers == {"number": str(number)}
            subscription.acknowledge([delivery])
        assert subscription.receive(1, 0.2) == []
        records = broker.records(topic)
        stored = [each.message.headers for each in records.read()]
        records.close()
    finally:
        subscription.close()
        broker.close()
    assert {"number": str(COUNT - 1)} in stored
    assert all("number" in headers for headers in stored)
