"""The two kinds of place to read from: a share of a topic, and an inbox."""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence

from confluent_kafka import Consumer, TopicPartition

from messaging.broker import Delivery, Message
from messaging.kafka_reader import Reader, decode, delivery_of
from messaging.offsets import OffsetTracker

_log = logging.getLogger("mlaas.kafka")


class KafkaSubscription:
    """A member of a consumer group. Commits each partition's finished prefix.

    Only the receiving thread calls the client: calls from another one wait until a poll has ended, and one
    that holds a lock meanwhile stands still for ever when the poll calls back.
    """

    def __init__(self, reader: Reader, topic: str) -> None:
        self._reader = reader
        self._topic = topic
        self._lock = threading.Lock()
        self._trackers: dict[int, OffsetTracker] = defaultdict(OffsetTracker)
        self._to_commit: dict[int, int] = {}
        reader.join(topic, _log_assigned, self._hand_back)

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        self._commit()
        records = self._reader.read(max_messages, timeout)
        with self._lock:
            for record in records:
                self._trackers[record.partition() or 0].received(record.offset() or 0)
        return [delivery_of(record) for record in records]

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        with self._lock:
            for delivery in deliveries:
                following = self._trackers[delivery.partition].finished(delivery.offset)
                if following is not None:
                    self._to_commit[delivery.partition] = following

    def close(self) -> None:
        try:
            self._commit()
        finally:
            self._reader.close()

    def _commit(self) -> None:
        with self._lock:
            offsets, self._to_commit = self._to_commit, {}
        for partition, offset in offsets.items():
            self._reader.store(self._topic, partition, offset)

    def _hand_back(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._commit()
        with self._lock:
            for partition in partitions:
                self._trackers.pop(partition.partition, None)
                self._to_commit.pop(partition.partition, None)


class KafkaInbox:
    """One partition of a topic, from now on. No group, so nothing to join, rebalance or lose.

    Two instances on one partition read each other's messages, and must ignore them.
    """

    def __init__(self, reader: Reader, topic: str, partition: int) -> None:
        self._reader = reader
        self.address = f"{topic}/{partition}"
        reader.read_from_end(topic, partition)

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        return [decode(record) for record in self._reader.read(max_messages, timeout)]

    def close(self) -> None:
        self._reader.close()


def _log_assigned(_: Consumer, partitions: list[TopicPartition]) -> None:
    for topic in sorted({each.topic for each in partitions}):
        numbers = sorted(each.partition for each in partitions if each.topic == topic)
        _log.info("assigned partitions of %s: %s", topic, numbers)
