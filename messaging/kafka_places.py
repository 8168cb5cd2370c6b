"""The places to read from on Kafka: subscriptions and inboxes, which replace readers that cannot go on.

StallDetector decides which partitions are not read any more.
"""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Message as Record

from messaging.broker import ALONE, BrokerError, ClientBroken, Delivery, LogPosition, Message
from messaging.kafka_reader import OffsetTracker, Reader, decode, messages_in, timestamp_ms_of
from messaging.kafka_topics import AskedOffsets, Topics

_log = logging.getLogger("mlaas.kafka")

_CHECK_EVERY_S = 1.0
_CHECK_AFTER_S = 5.0
STALLED_AFTER_S = 15.0
_MAX_FAILURES = 3


class _RecoveringReader:
    """Reads a topic, with a new Reader whenever the current one cannot go on.

    That is when the topic was deleted and created again (see Topics), after a fatal error, and when records
    do not arrive (see StallDetector). If several readers in a row fail, the process must exit.
    """

    def __init__(self, topic: str, topics: Topics, clock: Callable[[], float]) -> None:
        self._topic = topic
        self._topics = topics
        self._clock = clock
        self._failures = 0
        self._failure = ""
        self._incarnation = topics.incarnation(topic)
        self._stalls = StallDetector()
        self._asked: tuple[int, AskedOffsets] | None = None
        self._reader = self._open(self._stalls, self._incarnation)

    def _open(self, stalls: "StallDetector", incarnation: int) -> Reader:
        """A reader that continues where the last one was. Raises BrokerError; then nothing has changed."""
        raise NotImplementedError

    def _after_fatal_error(self) -> None:
        """Called when the reader had a fatal error."""

    def _read(self, max_records: int, timeout: float) -> list[Record]:
        """Raises ClientBroken after too many failures in a row, and temporary BrokerErrors."""
        if self._topics.incarnation(self._topic) != self._incarnation:
            self._renew("the topic was created again")
        elif self._failure:
            self._renew(self._failure)
        try:
            records = self._reader.read(max_records, timeout)
        except ClientBroken as error:
            self._fail(str(error))
            self._after_fatal_error()
            return []
        now = self._clock()
        for record in records:
            self._stalls.received(record.partition() or 0, record.offset() or 0, now)
        if records and not self._stalls.has_excused:
            self._failures = 0
        if len(records) < max_records:
            self._check(now)
        return records

    def _check(self, now: float) -> None:
        """Ask the broker what a silent partition has, and look at the answer in a later call."""
        if self._asked is None:
            partition = self._stalls.due(now)
            if partition is not None:
                self._asked = partition, self._topics.ask_offsets(self._topic, partition)
            return
        partition, asked = self._asked
        if not asked.done():
            return
        self._asked = None
        self._stalls.checked(partition, asked.result(), now)
        if stalled := self._stalls.stalled(now):
            self._fail(f"records of partitions {sorted(stalled)} do not arrive")

    def _fail(self, reason: str) -> None:
        """Have the next call replace the reader. Raises ClientBroken after too many failures in a row."""
        self._failures += 1
        self._failure = reason
        if self._failures > _MAX_FAILURES:
            raise ClientBroken(f"this process cannot read {self._topic} any more: {reason}")

    def _renew(self, reason: str, level: int = logging.WARNING) -> None:
        """Replace the reader. Raises BrokerError; then the next call tries again."""
        incarnation = self._topics.incarnation(self._topic)
        excused = self._stalls.stalled(self._clock()) if incarnation == self._incarnation else {}
        stalls = StallDetector(excused, STALLED_AFTER_S * 2**self._failures)
        reader = self._open(stalls, incarnation)
        _log.log(level, "replaced the reader of %s: %s", self._topic, reason)
        self._reader.close(patience_s=0)
        self._reader, self._stalls, self._incarnation = reader, stalls, incarnation
        self._asked = None
        self._failure = ""


class KafkaInbox(_RecoveringReader):
    """One partition of a topic, from now on. It has no group, so there is nothing to join or rebalance.

    Instances that share a partition receive each other's messages, and must ignore them.
    """

    def __init__(
        self,
        new_reader: Callable[[], Reader],
        topic: str,
        choose: Callable[[int], int],
        topics: Topics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """choose: returns a partition, given their number. Raises BrokerError."""
        self._new_reader = new_reader
        self._choose = choose
        self._partition: int | None = None
        self._kept: deque[Message] = deque()
        super().__init__(topic, topics, clock)

    @property
    def address(self) -> str:
        return f"{self._topic}/{self._partition}"

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        if room := max_messages - len(self._kept):
            for record in self._read(room, 0 if self._kept else timeout):
                message = decode(record)
                messages = messages_in(message)
                self._kept.extend([message] if messages is None else messages)
        return [self._kept.popleft() for _ in range(min(max_messages, len(self._kept)))]

    def renew(self) -> None:
        self._renew("it is silent", logging.DEBUG)

    def close(self) -> None:
        self._reader.close()

    def _open(self, stalls: "StallDetector", incarnation: int) -> Reader:
        reader = self._new_reader()
        try:
            partition, partitions = self._partition, reader.partitions(self._topic)
            if partition is None or partition >= partitions:
                partition = self._choose(partitions)
            start = self._start(reader.offsets(self._topic, partition), incarnation)
            reader.read_from(self._topic, partition, start)
        except BrokerError:
            reader.close(patience_s=0)
            raise
        stalls.start(partition, start, self._clock())
        self._partition = partition
        return reader

    def _start(self, available: range, incarnation: int) -> int:
        """The end for the first reader; then where the last one was, or the beginning of another log."""
        if self._partition is None:
            return available.stop
        following = self._stalls.next_offset(self._partition)
        is_same_log = incarnation == self._incarnation and available.start <= following <= available.stop
        return following if is_same_log else available.start


class KafkaSubscription(_RecoveringReader):
    """A member of a consumer group. Commits each partition's finished prefix.

    Only the receiving thread calls the client. A call from another thread would wait for a poll to end; if it
    held a lock that the poll's callbacks need, both would wait forever.
    """

    def __init__(
        self,
        new_reader: Callable[[str], Reader],
        topic: str,
        instance_id: str,
        topics: Topics,
        share: tuple[int, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """new_reader: takes the instance id. share: see kafka_config.SHARE. Raises BrokerError."""
        self._new_reader = new_reader
        self._share = share
        self._instance_id = instance_id
        super().__init__(topic, topics, clock)

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        self._member.commit()
        kept = self._member.kept()
        if room := max(0, max_messages - kept):
            records = self._read(room, 0 if kept else timeout)  # may replace the member
            self._member.received(records)
        return self._member.take(max_messages)

    def lag(self) -> int:
        return self._member.kept() + self._stalls.unread(partial(self._reader.known_end, self._topic))

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        self._member.finished(deliveries)

    def close(self) -> None:
        try:
            self._member.commit()
        finally:
            self._reader.close()

    def _open(self, stalls: "StallDetector", incarnation: int) -> Reader:
        reader = self._new_reader("" if self._share else self._instance_id)
        try:
            partitions = reader.partitions(self._topic)
            member = _Member(reader, self._topic, self._topics, stalls, self._clock)
            if self._share is None:
                member.join()
            else:
                number, of = self._share
                member.assign(range(number - 1, partitions, of))
            self._member = member
        except BrokerError:
            reader.close(patience_s=0)
            raise
        return reader

    def _after_fatal_error(self) -> None:
        """Perhaps another member has taken over the instance id: do without it."""
        self._instance_id = ""


class _Member:
    """A reader's membership in its group. Called back by the thread that polls or closes the reader."""

    def __init__(
        self,
        reader: Reader,
        topic: str,
        topics: Topics,
        stalls: "StallDetector",
        clock: Callable[[], float],
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._topics = topics
        self._stalls = stalls
        self._clock = clock
        self._lock = threading.Lock()
        self._assignments: dict[int, _Assignment] = {}
        self._kept: deque[Delivery] = deque()

    def join(self) -> None:
        self._reader.join(self._topic, self._assigned, self._revoked)

    def assign(self, partitions: Iterable[int]) -> None:
        """Instead of join(): read these, from where the group last committed."""
        self._reader.assign(self._topic, partitions, self._assigned)

    def received(self, records: Iterable[Record]) -> None:
        with self._lock:
            for record in records:
                self._kept.extend(self._deliveries(record))

    def kept(self) -> int:
        """How many messages were received and not taken."""
        return len(self._kept)

    def take(self, max_messages: int) -> list[Delivery]:
        with self._lock:
            return [self._kept.popleft() for _ in range(min(max_messages, len(self._kept)))]

    def finished(self, deliveries: Iterable[Delivery]) -> None:
        """Deliveries from assignments that have been revoked since are ignored."""
        with self._lock:
            for delivery in deliveries:
                at, assignment = delivery.position, delivery.receipt
                if (
                    isinstance(at, LogPosition)
                    and isinstance(assignment, _Assignment)
                    and assignment is self._assignments.get(at.partition)
                ):
                    assignment.finished(at.offset, max(0, at.place))

    def commit(self) -> None:
        """Commit what is finished with the next automatic commit; its note is the topic's id, see _starts."""
        with self._lock:
            commits = {partition: its.take_commit() for partition, its in self._assignments.items()}
        for partition, offset in commits.items():
            if offset is not None:
                self._reader.store(self._topic, partition, offset, self._topics.id(self._topic))

    def _deliveries(self, record: Record) -> list[Delivery]:
        partition, offset = record.partition() or 0, record.offset() or 0
        assignment = self._assignments.setdefault(partition, _Assignment())
        message = decode(record)
        messages = messages_in(message)
        assignment.tracker.received(offset, 1 if messages is None else len(messages))
        topic, sent_ms = record.topic() or "", timestamp_ms_of(record)
        if messages is None:
            return [Delivery(message, topic, LogPosition(partition, offset, ALONE), sent_ms, assignment)]
        if not messages:
            assignment.finished(offset, 0)
        return [
            Delivery(each, topic, LogPosition(partition, offset, place), sent_ms, assignment)
            for place, each in enumerate(messages)
        ]

    def _assigned(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = sorted(each.partition for each in assigned)
        if not partitions:
            return
        _log.info("assigned partitions of %s: %s", self._topic, partitions)
        starts = self._starts(partitions)
        now = self._clock()
        with self._lock:
            for partition in partitions:
                self._assignments[partition] = _Assignment()
                self._stalls.start(partition, starts.get(partition, 0), now)

    def _starts(self, partitions: list[int]) -> dict[int, int]:
        """The committed offsets; 0, committed at once, for those of a topic that has been deleted since."""
        topic_id = self._topics.id(self._topic)
        committed = self._reader.committed(self._topic, partitions)
        stale = [number for number, (_, note) in committed.items() if topic_id and note not in ("", topic_id)]
        if stale:
            _log.warning("reading partitions %s of %s from the beginning", stale, self._topic)
            self._reader.commit(self._topic, dict.fromkeys(stale, 0), topic_id)
        return {number: offset for number, (offset, _) in committed.items()} | dict.fromkeys(stale, 0)

    def _revoked(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        self.commit()
        with self._lock:
            for each in revoked:
                gone = self._assignments.pop(each.partition, None)
                self._kept = deque(its for its in self._kept if its.receipt is not gone)
                self._stalls.stop(each.partition)


@dataclass(slots=True, eq=False)
class _Assignment:
    """A partition from its assignment to its revocation."""

    tracker: OffsetTracker = field(default_factory=OffsetTracker)
    to_commit: int | None = None

    def finished(self, offset: int, place: int) -> None:
        if (following := self.tracker.finished(offset, place)) is not None:
            self.to_commit = following

    def take_commit(self) -> int | None:
        """The offset to commit, once; None if it has not changed."""
        taken, self.to_commit = self.to_commit, None
        return taken


@dataclass(slots=True)
class _Progress:
    """A partition's. next: the offset after the last record. at: when it was last received from or checked.

    end: the broker's next offset at the last check. unread_since: which check first found unread records.
    """

    next: int
    at: float
    excused: int = 0
    end: int = 0
    unread_since: float | None = None


class StallDetector:
    """Detects partitions whose records do not arrive. Pure; times are monotonic seconds.

    A consumer may stop reading a partition without an error. Offsets do not prove it: the last ones of a
    partition may be transaction markers, which are never delivered. So what a second reader does not receive
    either is excused, and only what is written after it counts.
    """

    def __init__(self, excused: Mapping[int, int] | None = None, patience_s: float = STALLED_AFTER_S) -> None:
        """excused: by partition, the offset before which nothing needs to arrive."""
        self._excused = dict(excused or {})
        self._patience_s = patience_s
        self._progress: dict[int, _Progress] = {}
        self._checked_at = -math.inf

    def start(self, partition: int, offset: int, now: float) -> None:
        """The partition is read from this offset on."""
        self._progress[partition] = _Progress(offset, now, self._excused.get(partition, 0))

    def stop(self, partition: int) -> None:
        self._progress.pop(partition, None)

    def received(self, partition: int, offset: int, now: float) -> None:
        if its := self._progress.get(partition):
            its.next, its.at, its.unread_since = offset + 1, now, None
            self._excused.pop(partition, None)

    def next_offset(self, partition: int) -> int:
        """The offset after the last record."""
        return self._progress[partition].next

    def unread(self, end_of: Callable[[int], int]) -> int:
        """How many offsets have not been received, of all partitions. end_of: a partition's next offset."""
        return sum(max(0, end_of(partition) - its.next) for partition, its in self._progress.items())

    @property
    def has_excused(self) -> bool:
        """Whether a partition is excused that has not delivered a record since."""
        return not self._excused.keys().isdisjoint(self._progress)

    def due(self, now: float) -> int | None:
        """The partition to check: the one that has been silent longest. None if it is not time yet."""
        if not self._progress or now - self._checked_at < _CHECK_EVERY_S:
            return None
        partition, its = min(self._progress.items(), key=lambda each: each[1].at)
        return partition if now - its.at >= _CHECK_AFTER_S else None

    def checked(self, partition: int, offsets: range | None, now: float) -> None:
        """offsets: what the broker has of the partition; None if it did not answer."""
        self._checked_at = now
        its = self._progress.get(partition)
        if its is None:  # revoked since
            return
        its.at = now
        if offsets is None:
            return
        its.end = offsets.stop
        if its.end <= max(its.next, its.excused, offsets.start):
            its.unread_since = None
        elif its.unread_since is None:
            its.unread_since = now

    def stalled(self, now: float) -> dict[int, int]:
        """The stalled partitions, as excuses for the next reader. Ask only when the client has no records."""
        return {
            partition: its.end
            for partition, its in self._progress.items()
            if its.unread_since is not None and now - its.unread_since >= self._patience_s
        }
