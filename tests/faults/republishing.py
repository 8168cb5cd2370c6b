"""A producer that repeats what others sent, as a broker may do after a fault."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from confluent_kafka import OFFSET_END, Consumer, Message, Producer, TopicPartition

MARK = "copy"


@dataclass(slots=True)
class Republished:
    count: int = 0


@contextmanager
def republishing(bootstrap_servers: str, topic: str, copies: int) -> Iterator[Republished]:
    """Sends each message of the topic so many times more, to any partition, until the block ends."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "nobody", "enable.auto.commit": False}
    )
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_END) for partition in partitions])
    for partition in partitions:
        consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    counted, over = Republished(), threading.Event()

    def repeat() -> None:
        while not over.is_set():
            for message in consumer.consume(100, timeout=0.05):
                if message.error() is None and _is_original(message) and message.value():
                    for _ in range(copies):
                        producer.produce(topic, message.value(), headers=[*message.headers(), (MARK, b"1")])
                    counted.count += copies
            producer.poll(0)

    repeating = threading.Thread(target=repeat, daemon=True)
    repeating.start()
    try:
        yield counted
    finally:
        over.set()
        repeating.join()
        producer.flush(10)
        consumer.close()


def _is_original(message: Message) -> bool:
    return all(name != MARK for name, _ in message.headers() or [])
