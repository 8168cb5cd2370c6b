"""Which offset may be committed when messages finish out of order."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Message as Record

from messaging.broker import BrokerError, ClientBroken, Delivery, Message
from messaging.kafka_reader import Reader, decode, delivery_of
from messaging.kafka_topics import Topics

_log = logging.getLogger("mlaas.kafka")

_LOOK_EVERY_S = 1.0
_SILENT_AFTER_S = 5.0
DEAF_AFTER_S = 15.0
_MOST_FAILURES = 3


class OffsetTracker:
    """One partition's finished prefix: a commit says "everything before this is done"."""

    def __init__(self) -> None:
        self._is_finished: dict[int, bool] = {}  # in the order received
        self._last = -1

    def received(self, offset: int) -> None:
        """Offsets rise; one that was seen before means that the partition is read anew."""
        if offset <= self._last:
            self._is_finished.clear()
        self._is_finished[offset] = False
        self._last = offset

    def finished(self, offset: int) -> int | None:
        """Return the next offset to read, if the prefix grew; else None."""
        if offset not in self._is_finished:
            return None
        self._is_finished[offset] = True
        following = None
        while self._is_finished and self._is_finished[first := next(iter(self._is_finished))]:
            del self._is_finished[first]
            following = first + 1
        return following


@dataclass(slots=True)
class _Heard:
    """One partition. next: the offset after the last record. at: when it was heard or looked at last.

    stop: the broker's next offset as it was then.
    """

    next: int
    at: float
    excused: int = 0
    stop: int = 0
    unread_since: float | None = None


class Hearing:
    """Which partitions have something that does not come. Pure: times are monotonic seconds.

    A reader may stop reading a partition for good and not say so. Offsets alone do not prove it: the last
    ones of a partition may hold marks of transactions and no record. So what another reader does not get
    either is excused, and only what is written after that counts.
    """

    def __init__(self, excused: Mapping[int, int] | None = None, patience_s: float = DEAF_AFTER_S) -> None:
        """excused: partitions with the offset up to which nothing need come."""
        self._excused = dict(excused or {})
        self._patience_s = patience_s
        self._heard: dict[int, _Heard] = {}
        self._looked_at = -math.inf

    def begin(self, partition: int, offset: int, now: float) -> None:
        """Reading starts there."""
        self._heard[partition] = _Heard(offset, now, self._excused.get(partition, 0))

    def end(self, partition: int) -> None:
        self._heard.pop(partition, None)

    def heard(self, partition: int, offset: int, now: float) -> None:
        if its := self._heard.get(partition):
            its.next, its.at, its.unread_since = offset + 1, now, None
            self._excused.pop(partition, None)

    def next(self, partition: int) -> int:
        """The offset after the last record that came."""
        return self._heard[partition].next

    @property
    def sound(self) -> bool:
        """Nothing here is excused."""
        return not self._excused.keys() & self._heard.keys()

    def due(self, now: float) -> int | None:
        """The partition to look at: the one that was silent longest, and not too often."""
        if not self._heard or now - self._looked_at < _LOOK_EVERY_S:
            return None
        partition, its = min(self._heard.items(), key=lambda each: each[1].at)
        return partition if now - its.at >= _SILENT_AFTER_S else None

    def looked(self, partition: int, offsets: range | None, now: float) -> None:
        """What the broker has of it; None if it did not say."""
        its = self._heard[partition]
        its.at = self._looked_at = now
        if offsets is None:
            return
        its.stop = offsets.stop
        if its.stop <= max(its.next, its.excused, offsets.start):
            its.unread_since = None
        elif its.unread_since is None:
            its.unread_since = now

    def deaf(self, now: float) -> dict[int, int]:
        """Those whose records did not come in time, as excuses. To be asked when the client has no more."""
        return {
            partition: its.stop
            for partition, its in self._heard.items()
            if its.unread_since is not None and now - its.unread_since >= self._patience_s
        }


class _Place:
    """Reads a topic, with another reader where the one at hand is of no use any more.

    It is of none when the topic was deleted and created again (see Topics), after a fatal error, and when
    it is deaf. If several in a row failed so, the process must end.
    """

    def __init__(self, topic: str, topics: Topics, clock: Callable[[], float]) -> None:
        self._topic = topic
        self._topics = topics
        self._clock = clock
        self._failures = 0
        self._failed = ""
        self._incarnation = topics.incarnation(topic)
        self._hearing = Hearing()
        self._reader = self._open(self._hearing, self._incarnation)

    def _open(self, hearing: Hearing, incarnation: int) -> Reader:
        """A reader that goes on where the last one was. Raises BrokerError; then nothing has changed."""
        raise NotImplementedError

    def _lost_place(self) -> None:
        """The reader had a fatal error."""

    def _read(self, max_records: int, timeout: float) -> list[Record]:
        """Raises ClientBroken after too many failures in a row, and other BrokerErrors that pass."""
        if self._topics.incarnation(self._topic) != self._incarnation:
            self._renew("the topic was created again")
        elif self._failed:
            self._renew(self._failed)
        try:
            records = self._reader.read(max_records, timeout)
        except ClientBroken as error:
            self._fail(str(error))
            self._lost_place()
            return []
        now = self._clock()
        for record in records:
            self._hearing.heard(record.partition() or 0, record.offset() or 0, now)
        if records and self._hearing.sound:
            self._failures = 0
        if len(records) < max_records:
            self._look(now)
        return records

    def _look(self, now: float) -> None:
        partition = self._hearing.due(now)
        if partition is None:
            return
        try:
            offsets = self._reader.offsets(self._topic, partition, patience_s=0)
        except BrokerError:
            offsets = None
        self._hearing.looked(partition, offsets, now)
        if deaf := self._hearing.deaf(now):
            self._fail(f"what partitions {sorted(deaf)} have does not come")

    def _fail(self, why: str) -> None:
        """The next call reads anew."""
        self._failures += 1
        self._failed = why
        if self._failures > _MOST_FAILURES:
            raise ClientBroken(f"this process cannot read {self._topic} any more: {why}")

    def _renew(self, why: str, level: int = logging.WARNING) -> None:
        """Raises BrokerError; the next call tries again."""
        incarnation = self._topics.incarnation(self._topic)
        excused = self._hearing.deaf(self._clock()) if incarnation == self._incarnation else {}
        hearing = Hearing(excused, DEAF_AFTER_S * 2**self._failures)
        reader = self._open(hearing, incarnation)
        _log.log(level, "reading %s anew: %s", self._topic, why)
        self._reader.close(patience_s=0)
        self._reader, self._hearing, self._incarnation = reader, hearing, incarnation
        self._failed = ""


@dataclass(slots=True, eq=False)
class _Share:
    """One partition, from its assignment to its revocation. following: the offset to commit next."""

    tracker: OffsetTracker = field(default_factory=OffsetTracker)
    following: int | None = None


class _Member:
    """One reader's membership in the group. Called back by the thread that polls or closes the reader."""

    def __init__(
        self, reader: Reader, topic: str, topics: Topics, hearing: Hearing, clock: Callable[[], float]
    ) -> None:
        self._reader = reader
        self._topic = topic
        self._topics = topics
        self._hearing = hearing
        self._clock = clock
        self._lock = threading.Lock()
        self._shares: dict[int, _Share] = {}

    def join(self) -> None:
        self._reader.join(self._topic, self._assigned, self._revoked)

    def take(self, partitions: Iterable[int]) -> None:
        """Without the group: from where it committed last."""
        self._reader.take(self._topic, partitions, self._assigned)

    def received(self, records: Iterable[Record]) -> list[Delivery]:
        with self._lock:
            return [delivery_of(record, self._receipt(record)) for record in records]

    def finished(self, deliveries: Iterable[Delivery]) -> None:
        """Those of a share that was given back since are somebody else's."""
        with self._lock:
            for delivery in deliveries:
                share = self._shares.get(delivery.partition)
                if share is None or share is not delivery.receipt:
                    continue
                following = share.tracker.finished(delivery.offset)
                share.following = share.following if following is None else following

    def commit(self) -> None:
        """What is finished, with the next automatic commit. The topic's id goes along: see _starts."""
        with self._lock:
            following = {partition: its.following for partition, its in self._shares.items()}
            for its in self._shares.values():
                its.following = None
        for partition, offset in following.items():
            if offset is not None:
                self._reader.store(self._topic, partition, offset, self._topics.id(self._topic))

    def _receipt(self, record: Record) -> _Share:
        share = self._shares.setdefault(record.partition() or 0, _Share())
        share.tracker.received(record.offset() or 0)
        return share

    def _assigned(self, _: Consumer, assigned: list[TopicPartition]) -> None:
        partitions = sorted(each.partition for each in assigned)
        if not partitions:
            return
        _log.info("assigned partitions of %s: %s", self._topic, partitions)
        starts = self._starts(partitions)
        now = self._clock()
        with self._lock:
            for partition in partitions:
                self._shares[partition] = _Share()
                self._hearing.begin(partition, starts.get(partition, 0), now)

    def _starts(self, partitions: list[int]) -> dict[int, int]:
        """Where reading starts: at the beginning, where a topic that was deleted since was committed."""
        known = ("", self._topics.id(self._topic))
        committed = self._reader.committed(self._topic, partitions)
        stale = [number for number, (_, its_id) in committed.items() if known[1] and its_id not in known]
        starts = {number: offset for number, (offset, _) in committed.items()} | dict.fromkeys(stale, 0)
        if stale:
            _log.warning("partitions %s of %s are read from their beginning", stale, self._topic)
            self._reader.commit(self._topic, dict.fromkeys(stale, 0), known[1])
        return starts

    def _revoked(self, _: Consumer, revoked: list[TopicPartition]) -> None:
        self.commit()
        with self._lock:
            for each in revoked:
                self._shares.pop(each.partition, None)
                self._hearing.end(each.partition)


class KafkaSubscription(_Place):
    """A member of a consumer group. Commits each partition's finished prefix.

    Only the receiving thread calls the client: calls from another one wait until a poll has ended, and one
    that holds a lock meanwhile stands still for ever when the poll calls back.
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
        """new_reader is told the instance id. share: see kafka_config.SHARE. Raises BrokerError."""
        self._new_reader = new_reader
        self._share = share
        self._instance_id = instance_id
        super().__init__(topic, topics, clock)

    def receive(self, max_messages: int, timeout: float) -> Sequence[Delivery]:
        self._member.commit()
        return self._member.received(self._read(max_messages, timeout))

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        self._member.finished(deliveries)

    def close(self) -> None:
        try:
            self._member.commit()
        finally:
            self._reader.close()

    def _open(self, hearing: Hearing, incarnation: int) -> Reader:
        reader = self._new_reader("" if self._share else self._instance_id)
        try:
            partitions = reader.partitions(self._topic)
            member = _Member(reader, self._topic, self._topics, hearing, self._clock)
            if self._share is None:
                member.join()
            else:
                number, of = self._share
                member.take(range(number - 1, partitions, of))
            self._member = member
        except BrokerError:
            reader.close(patience_s=0)
            raise
        return reader

    def _lost_place(self) -> None:
        """Another member has the same instance id, or the group took this one for another."""
        self._instance_id = ""


class KafkaInbox(_Place):
    """One partition of a topic, from now on. No group, so nothing to join, rebalance or lose.

    Two instances on one partition read each other's messages, and must ignore them.
    """

    def __init__(
        self,
        new_reader: Callable[[], Reader],
        topic: str,
        choose: Callable[[int], int],
        topics: Topics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """choose a partition of so many. Raises BrokerError."""
        self._new_reader = new_reader
        self._choose = choose
        self._partition: int | None = None
        super().__init__(topic, topics, clock)

    @property
    def address(self) -> str:
        return f"{self._topic}/{self._partition}"

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        return [decode(record) for record in self._read(max_messages, timeout)]

    def renew(self) -> None:
        self._renew("it is silent", logging.DEBUG)

    def close(self) -> None:
        self._reader.close()

    def _open(self, hearing: Hearing, incarnation: int) -> Reader:
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
        hearing.begin(partition, start, self._clock())
        self._partition = partition
        return reader

    def _start(self, there: range, incarnation: int) -> int:
        """The first reader starts at the end; another where it was, or with a log that is not the same."""
        if self._partition is None:
            return there.stop
        following = self._hearing.next(self._partition)
        is_same = incarnation == self._incarnation and there.start <= following <= there.stop
        return following if is_same else there.start
