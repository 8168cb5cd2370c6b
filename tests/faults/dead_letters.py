"""What lies in a topic of dead letters."""

import time
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition


@dataclass(frozen=True, slots=True)
class Letter:
    body: bytes
    headers: dict[str, str]


def dead_letters(bootstrap_servers: str, topic: str, patience_s: float = 5.0) -> list[Letter]:
    """All of them; waits a while for the first."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "nobody", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        found: list[Letter] = []
        end = time.monotonic() + patience_s
        while time.monotonic() < end:
            for message in consumer.consume(100, timeout=0.5):
                if message.error() is None:
                    headers = {name: (value or b"").decode() for name, value in message.headers() or []}
                    found.append(Letter(message.value() or b"", headers))
        return found
    finally:
        consumer.close()
