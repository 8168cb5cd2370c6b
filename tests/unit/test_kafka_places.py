"""The subscription over a reader that writes down which thread calls it.

confluent-kafka lets one thread at a time into a consumer: a call beside a poll waits until the poll ends,
and one that waits with a lock held stands still for ever once the poll calls back for a rebalance.
"""

import threading
from collections.abc import Callable
from typing import Any

from confluent_kafka import TopicPartition

from messaging.broker import Delivery
from messaging.kafka_places import KafkaSubscription


class Record:
    def __init__(self, partition: int, offset: int) -> None:
        self._place = (partition, offset)

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def topic(self) -> str:
        return "t"

    def value(self) -> bytes:
        return b""

    def headers(self) -> None:
        return None

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


class Reader:
    """The next read() gives what the test puts into records; revoke() is what a poll does in a rebalance."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.stored: list[tuple[int, int]] = []
        self.callers: set[str] = set()

    def join(self, topic: str, on_assign: Callable[..., None], on_revoke: Callable[..., None]) -> None:
        self.revoke = on_revoke

    def read(self, max_records: int, timeout: float) -> list[Record]:
        taken, self.records = self.records, []
        return taken

    def store(self, topic: str, partition: int, offset: int) -> None:
        self.callers.add(threading.current_thread().name)
        self.stored.append((partition, offset))

    def close(self) -> None: ...


def subscription(*places: tuple[int, int]) -> tuple[KafkaSubscription, Reader, list[Delivery]]:
    reader: Any = Reader()
    reader.records = [Record(*place) for place in places]
    made = KafkaSubscription(reader, "t")
    return made, reader, list(made.receive(10, 0))


def test_only_the_receiving_thread_calls_the_client() -> None:
    made, reader, deliveries = subscription((0, 5), (0, 6), (1, 7))
    other = threading.Thread(target=made.acknowledge, args=[deliveries], name="another thread")
    other.start()
    other.join()
    assert reader.stored == []
    made.receive(10, 0)
    assert sorted(reader.stored) == [(0, 7), (1, 8)]
    assert reader.callers == {threading.current_thread().name}


def test_what_was_acknowledged_last_is_committed_at_the_end() -> None:
    made, reader, deliveries = subscription((0, 5))
    made.acknowledge(deliveries)
    made.close()
    assert reader.stored == [(0, 6)]


def test_what_was_acknowledged_is_committed_before_its_partition_goes_and_nothing_after() -> None:
    made, reader, deliveries = subscription((0, 5), (0, 6), (1, 7))
    made.acknowledge([deliveries[0]])
    reader.revoke(None, [TopicPartition("t", 0)])
    assert reader.stored == [(0, 6)]
    made.acknowledge(deliveries[1:])
    made.receive(10, 0)
    assert reader.stored == [(0, 6), (1, 8)]
