"""Subscription and inbox over a reader that does as a test says, and writes down which thread calls it.

confluent-kafka lets one thread at a time into a consumer: a call beside a poll waits until the poll ends,
and one that waits with a lock held stands still for ever once the poll calls back for a rebalance.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from messaging.broker import (
    BrokerUnavailable,
    ClientBroken,
    Delivery,
    LogPosition,
    Message,
    TopicMissing,
)
from messaging.frames import frame_of, packed
from messaging.kafka_places import STALLED_AFTER_S, KafkaInbox, KafkaSubscription, StallDetector
from messaging.kafka_topics import AskedOffsets, Topics


class Record:
    def __init__(self, partition: int, offset: int, message: Message | None = None) -> None:
        """message: by default its body is the offset."""
        self._place = (partition, offset)
        self._message = message or Message(str(offset).encode())

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def topic(self) -> str:
        return "t"

    def value(self) -> bytes:
        return self._message.body

    def headers(self) -> list[tuple[str, bytes]]:
        return [(name, value.encode()) for name, value in self._message.headers.items()]

    def timestamp(self) -> tuple[int, int]:
        return 0, 0


class Cluster:
    """One topic, and the readers that were made for it, the last one last."""

    def __init__(self, partitions: int = 2) -> None:
        self.partitions = partitions
        self.id = "first"
        self.offsets: dict[int, range] = {}
        self.committed: dict[int, tuple[int, str]] = {}
        self.is_away = False
        self.is_slow = False
        self.asked: list[Future[Any]] = []
        self.now = 1000.0
        self.readers: list[Reader] = []
        self.next_has: list[Record] = []
        """What the next reader reads first."""
        self.topics = Topics(
            lambda _: [], lambda topics: dict.fromkeys(topics, self.id), self.ask_offsets, lambda: None
        )
        self.topics.close()
        self.topics.watch("t")
        self.topics.refresh()

    def ask_offsets(self, _: str, partition: int) -> AskedOffsets:
        found = self.offsets.get(partition, range(0))
        futures: list[Future[Any]] = [Future(), Future()]
        for future, offset in zip(futures, (found.start, found.stop), strict=True):
            if self.is_slow:
                self.asked.append(future)
            elif self.is_away:
                future.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
            else:
                future.set_result(SimpleNamespace(offset=offset))
        return AskedOffsets(futures)

    def create_again(self, partitions: int) -> None:
        self.id, self.partitions, self.offsets = "second", partitions, {}
        self.topics.refresh()

    def new_reader(self, instance_id: str = "") -> Any:
        self.readers.append(Reader(self, instance_id))
        self.readers[-1].records, self.next_has = self.next_has, []
        return self.readers[-1]

    def subscribe(self, instance_id: str = "") -> KafkaSubscription:
        return KafkaSubscription(self.new_reader, "t", instance_id, self.topics, clock=lambda: self.now)

    def open_inbox(self, number: int = 0) -> KafkaInbox:
        return KafkaInbox(self.new_reader, "t", lambda count: number % count, self.topics, lambda: self.now)


class Reader:
    """The next read() gives what the test puts into records, or raises failure."""

    def __init__(self, cluster: Cluster, instance_id: str) -> None:
        self._cluster = cluster
        self.instance_id = instance_id
        self.records: list[Record] = []
        self.failure: Exception | None = None
        self.stored: list[tuple[int, int, str]] = []
        self.committed_at_once: dict[int, tuple[int, str]] = {}
        self.callers: set[str] = set()
        self.began: tuple[int, int] | None = None
        self.end = ""

    def partitions(self, _: str) -> int:
        if self._cluster.is_away:
            raise BrokerUnavailable("away")
        if not self._cluster.partitions:
            raise TopicMissing("deleted")
        return self._cluster.partitions

    def join(self, topic: str, on_assign: Callable[..., None], on_revoke: Callable[..., None]) -> None:
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self.assign(*range(self._cluster.partitions))

    def assign(self, *partitions: int) -> None:
        self._on_assign(None, [TopicPartition("t", number) for number in partitions])

    def revoke(self, *partitions: int) -> None:
        self._on_revoke(None, [TopicPartition("t", number) for number in partitions])

    def read_from(self, _: str, partition: int, offset: int) -> None:
        self.began = (partition, offset)

    def read(self, max_records: int, timeout: float) -> list[Record]:
        if self.failure:
            raise self.failure
        taken, self.records = self.records[:max_records], self.records[max_records:]
        return taken

    def offsets(self, _: str, partition: int) -> range:
        """For inboxes, before they read."""
        assert self.began is None
        if self._cluster.is_away:
            raise BrokerUnavailable("away")
        return self._cluster.offsets.get(partition, range(0))

    def store(self, _: str, partition: int, offset: int, note: str) -> None:
        self.callers.add(threading.current_thread().name)
        self.stored.append((partition, offset, note))

    def known_end(self, _: str, partition: int) -> int:
        return 0

    def committed(self, _: str, partitions: list[int]) -> Mapping[int, tuple[int, str]]:
        return {number: its for number, its in self._cluster.committed.items() if number in partitions}

    def commit(self, _: str, offsets: Mapping[int, int], note: str) -> None:
        self.committed_at_once |= {number: (offset, note) for number, offset in offsets.items()}

    def close(self, patience_s: float = 10.0) -> None:
        self.end = "closed"


def received(cluster: Cluster, *places: tuple[int, int]) -> tuple[KafkaSubscription, list[Delivery]]:
    made = cluster.subscribe()
    cluster.readers[-1].records = [Record(*place) for place in places]
    return made, list(made.receive(10, 0))


def test_only_the_receiving_thread_calls_the_client() -> None:
    cluster = Cluster()
    made, deliveries = received(cluster, (0, 5), (0, 6), (1, 7))
    other = threading.Thread(target=made.acknowledge, args=[deliveries], name="another thread")
    other.start()
    other.join()
    (reader,) = cluster.readers
    assert reader.stored == []
    made.receive(10, 0)
    assert sorted(reader.stored) == [(0, 7, "first"), (1, 8, "first")]
    assert reader.callers == {threading.current_thread().name}


def test_records_are_received_while_the_broker_says_what_a_silent_partition_has() -> None:
    """The consumer itself is not asked: its answer would wait for the fetch that is running."""
    cluster = Cluster()
    cluster.is_slow = True
    made = cluster.subscribe()
    cluster.now += 10
    made.receive(10, 0)
    first, last = cluster.asked
    (reader,) = cluster.readers
    reader.records = [Record(1, 0)]
    assert [delivery.position for delivery in made.receive(10, 0)] == [LogPosition(1, 0)]
    cluster.now += 10
    made.receive(10, 0)
    assert len(cluster.asked) == 2  # one question at a time
    first.set_result(SimpleNamespace(offset=0))
    last.set_result(SimpleNamespace(offset=0))
    made.receive(10, 0)
    cluster.now += 10
    made.receive(10, 0)
    assert len(cluster.asked) == 4


def test_what_was_acknowledged_last_is_committed_at_the_end() -> None:
    cluster = Cluster()
    made, deliveries = received(cluster, (0, 5))
    made.acknowledge(deliveries)
    made.close()
    assert cluster.readers[0].stored == [(0, 6, "first")]
    assert cluster.readers[0].end == "closed"


def test_what_was_acknowledged_is_committed_before_its_partition_goes_and_nothing_after() -> None:
    cluster = Cluster()
    made, deliveries = received(cluster, (0, 5), (0, 6), (1, 7))
    made.acknowledge([deliveries[0]])
    cluster.readers[0].revoke(0)
    assert cluster.readers[0].stored == [(0, 6, "first")]
    made.acknowledge(deliveries[1:])
    made.receive(10, 0)
    assert cluster.readers[0].stored == [(0, 6, "first"), (1, 8, "first")]


def test_what_was_in_hand_when_a_partition_went_does_not_count_when_it_has_come_back() -> None:
    cluster = Cluster()
    made, before = received(cluster, (0, 5))
    (reader,) = cluster.readers
    reader.revoke(0)
    reader.assign(0)
    reader.records = [Record(0, 5), Record(0, 6)]
    after = made.receive(10, 0)
    made.acknowledge(before)
    made.receive(10, 0)
    assert reader.stored == []
    made.acknowledge(after)
    made.receive(10, 0)
    assert reader.stored == [(0, 7, "first")]


def frame(*bodies: bytes) -> Message:
    return frame_of([part for body in bodies if (part := packed(Message(body)))])


def bodies(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries]


def test_the_messages_of_a_frame_have_positions_of_their_own_and_are_committed_together() -> None:
    cluster = Cluster()
    made = cluster.subscribe()
    (reader,) = cluster.readers
    reader.records = [Record(0, 5, frame(b"a", b"b")), Record(0, 6)]
    deliveries = made.receive(10, 0)
    assert bodies(deliveries) == [b"a", b"b", b"6"]
    assert [str(each.position) for each in sorted(deliveries, key=lambda its: its.position)] == [
        "0/5.0",
        "0/5.1",
        "0/6",
    ]
    for acknowledged, stored in (([0, 2], []), ([0], []), ([1], [(0, 7, "first")])):
        made.acknowledge(deliveries[each] for each in acknowledged)
        made.receive(10, 0)
        assert reader.stored == stored


def test_what_is_left_of_a_frame_comes_with_the_next_calls() -> None:
    cluster = Cluster()
    made = cluster.subscribe()
    (reader,) = cluster.readers
    reader.records = [Record(0, 5, frame(b"a", b"b", b"c"))]
    assert bodies(made.receive(2, 0)) == [b"a", b"b"]
    assert made.lag() == 1
    reader.records = [Record(0, 6), Record(0, 7)]
    assert bodies(made.receive(2, 0)) == [b"c", b"6"]
    assert bodies(made.receive(2, 0)) == [b"7"]


def test_what_is_left_of_a_frame_goes_with_its_partition() -> None:
    cluster = Cluster()
    made = cluster.subscribe()
    (reader,) = cluster.readers
    reader.records = [Record(0, 5, frame(b"a", b"b")), Record(1, 6, frame(b"c", b"d"))]
    assert bodies(made.receive(1, 0)) == [b"a"]
    reader.revoke(0)
    assert bodies(made.receive(10, 0)) == [b"c", b"d"]


def test_an_inbox_takes_frames_apart() -> None:
    cluster = Cluster()
    made = cluster.open_inbox()
    (reader,) = cluster.readers
    reader.records = [Record(0, 5, frame(b"a", b"b", b"c"))]
    assert [each.body for each in made.receive(2, 0)] == [b"a", b"b"]
    reader.records = [Record(0, 6, Message(b"x", {"frame": "1"}))]
    assert list(made.receive(2, 0)) == [Message(b"c"), Message(b"x", {"frame": "1"})]


def test_of_a_topic_that_was_created_again_nothing_in_hand_is_committed() -> None:
    cluster = Cluster()
    made, deliveries = received(cluster, (0, 5))
    cluster.create_again(partitions=2)
    made.receive(10, 0)
    made.acknowledge(deliveries)
    made.receive(10, 0)
    before, after = cluster.readers
    assert (before.stored, after.stored) == ([], [])
    assert before.end == "closed"


def test_what_is_read_first_of_a_topic_that_was_created_again_is_received_and_committed() -> None:
    cluster = Cluster()
    made = cluster.subscribe()
    cluster.create_again(partitions=2)
    cluster.next_has = [Record(0, 0)]
    deliveries = made.receive(10, 0)
    assert bodies(deliveries) == [b"0"]
    made.acknowledge(deliveries)
    made.receive(10, 0)
    assert cluster.readers[-1].stored == [(0, 1, "second")]


def test_what_was_committed_before_the_topic_was_created_again_does_not_count() -> None:
    cluster = Cluster(partitions=3)
    cluster.committed = {0: (7, "first"), 1: (8, "second"), 2: (9, "")}
    cluster.subscribe()
    assert cluster.readers[-1].committed_at_once == {1: (0, "first")}
    cluster.create_again(partitions=3)
    cluster.subscribe()
    assert cluster.readers[-1].committed_at_once == {0: (0, "second")}


def test_a_member_whose_place_another_took_goes_on_without_an_instance_id() -> None:
    cluster = Cluster()
    made = cluster.subscribe("worker-1")
    cluster.readers[0].failure = ClientBroken("fenced")
    assert made.receive(10, 0) == []
    made.receive(10, 0)
    assert [reader.instance_id for reader in cluster.readers] == ["worker-1", ""]
    assert cluster.readers[0].end == "closed"


def test_after_a_fatal_error_a_place_is_read_anew_as_soon_as_the_broker_is_there() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    cluster.readers[0].failure = ClientBroken("fatal")
    assert inbox.receive(10, 0) == []
    cluster.is_away = True
    with pytest.raises(BrokerUnavailable):
        inbox.receive(10, 0)
    cluster.is_away = False
    inbox.receive(10, 0)
    cluster.readers[-1].records = [Record(0, 0)]
    assert [message.body for message in inbox.receive(10, 0)] == [b"0"]


def test_a_process_whose_readers_fail_one_after_the_other_cannot_go_on() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    with pytest.raises(ClientBroken, match="cannot read t any more"):
        for _ in range(10):
            cluster.readers[-1].failure = ClientBroken("fatal")
            inbox.receive(10, 0)
    assert len(cluster.readers) == 4


def test_failures_far_apart_are_survived() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    for offset in range(10):
        cluster.readers[-1].failure = ClientBroken("fatal")
        assert inbox.receive(10, 0) == []
        inbox.receive(10, 0)
        cluster.offsets = {0: range(offset + 1)}
        cluster.readers[-1].records = [Record(0, offset)]
        assert len(inbox.receive(10, 0)) == 1


def test_an_inbox_begins_at_the_end_and_goes_on_where_it_was() -> None:
    cluster = Cluster()
    cluster.offsets = {0: range(3, 10)}
    inbox = cluster.open_inbox()
    assert cluster.readers[0].began == (0, 10)
    cluster.readers[0].records = [Record(0, 10)]
    inbox.receive(10, 0)
    cluster.readers[0].failure = ClientBroken("fatal")
    inbox.receive(10, 0)
    cluster.offsets = {0: range(3, 15)}
    inbox.receive(10, 0)
    assert cluster.readers[1].began == (0, 11)


def test_a_topic_that_was_created_again_is_read_from_its_beginning_at_the_same_address() -> None:
    cluster = Cluster(partitions=4)
    cluster.offsets = {3: range(10)}
    inbox = cluster.open_inbox(number=7)
    assert inbox.address == "t/3"
    cluster.create_again(partitions=6)
    cluster.offsets = {3: range(20)}
    inbox.receive(10, 0)
    assert cluster.readers[1].began == (3, 0)
    assert inbox.address == "t/3"


def test_an_address_changes_only_if_the_topic_was_created_again_without_it() -> None:
    cluster = Cluster(partitions=4)
    inbox = cluster.open_inbox(number=7)
    cluster.create_again(partitions=2)
    inbox.receive(10, 0)
    assert inbox.address == "t/1"
    assert cluster.readers[1].began == (1, 0)


def test_a_topic_that_is_deleted_is_read_when_it_is_there_again() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    cluster.create_again(partitions=0)
    with pytest.raises(TopicMissing):
        inbox.receive(10, 0)
    cluster.partitions = 2
    inbox.receive(10, 0)
    assert cluster.readers[-1].began == (0, 0)


def pass_time(cluster: Cluster, place: KafkaInbox | KafkaSubscription, seconds: float) -> None:
    end = cluster.now + seconds
    while cluster.now < end:
        cluster.now += 1
        place.receive(10, 0)


def test_a_reader_that_does_not_get_what_is_there_is_replaced() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    pass_time(cluster, inbox, 10 * STALLED_AFTER_S)
    assert len(cluster.readers) == 1
    cluster.offsets = {0: range(1)}
    pass_time(cluster, inbox, 2 * STALLED_AFTER_S)
    assert len(cluster.readers) == 2
    assert cluster.readers[1].began == (0, 0)


def test_what_no_reader_gets_is_passed_over_and_does_not_end_the_process() -> None:
    """Marks of transactions have offsets, too."""
    cluster = Cluster()
    inbox = cluster.open_inbox()
    cluster.offsets = {0: range(1)}
    pass_time(cluster, inbox, 100 * STALLED_AFTER_S)
    assert len(cluster.readers) == 2


def test_a_process_that_gets_nothing_of_what_goes_on_coming_cannot_go_on() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    with pytest.raises(ClientBroken):
        for _ in range(1000):
            cluster.offsets = {0: range(cluster.offsets.get(0, range(0)).stop + 1)}
            pass_time(cluster, inbox, 1)
    assert len(cluster.readers) == 4


def test_a_subscription_notices_that_one_partition_of_several_does_not_come() -> None:
    cluster = Cluster(partitions=2)
    made = cluster.subscribe()
    for offset in range(100):
        cluster.offsets = {0: range(offset + 1), 1: range(offset + 1)}
        cluster.readers[-1].records += [Record(0, offset)]
        pass_time(cluster, made, 1)
        if len(cluster.readers) == 2:
            return
    pytest.fail("it did not notice")


def test_while_the_broker_is_away_nothing_is_stalled() -> None:
    cluster = Cluster()
    inbox = cluster.open_inbox()
    cluster.is_away = True
    pass_time(cluster, inbox, 10 * STALLED_AFTER_S)
    assert len(cluster.readers) == 1


def test_partitions_are_checked_in_turn_and_only_in_silence() -> None:
    stalls = StallDetector()
    for partition in range(3):
        stalls.start(partition, 0, 0.0)
    checked = []
    for second in range(1, 20):
        stalls.received(1, second, float(second))
        if (partition := stalls.due(float(second))) is not None:
            checked.append(partition)
            stalls.checked(partition, range(0), float(second))
    assert checked == [0, 2] * 3
