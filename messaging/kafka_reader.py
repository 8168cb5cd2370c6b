"""Reading through librdkafka: a consumer for subscriptions, inboxes and records, and records as messages.

OffsetTracker decides which offset may be committed.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from operator import methodcaller
from typing import TypeVar
from weakref import finalize

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from messaging.broker import BrokerUnavailable, Delivery, LogPosition, Message, TopicMissing
from messaging.frames import messages_of
from messaging.kafka_config import ClientLog, Properties, Refusal, is_fatal, translate, translated

_log = logging.getLogger("mlaas.kafka")

_ANSWER_TIMEOUT_S = 5.0
_LEAVE_TIMEOUT_S = 3.0

# If the name of a header is not UTF-8, confluent-kafka returns a list with a NULL in it and sets an exception
# as well. Called like this, CPython notices. It does not check calls of record.headers() once it has
# specialised them, and then iterating over the list crashes the process.
_get_headers = methodcaller("headers")

# Every socket of this machine that is bound to it gets what is sent to it.
_EVERYBODY = "127.255.255.255"
_RING_EVERY_S = 0.02
# After a record or a ring: so much more than _RING_EVERY_S that no ring is needed in between.
_AWAKE_S = 0.05
_AT_FIRST_S = 1.0
_ASLEEP_S = 2.0  # until it asks the broker, because whoever publishes may not know of the bell
_NEXT_S = 0.005
_NUDGE_S = 0.1
_MAX_TOPIC_BYTES = 1_000

# Follows each large message where kafka_config.SPACED is set. A message that needs the room of all others in
# its partition is lost with them in librdkafka's mock cluster; now one small record is left.
SPACE = Message(b"", {"mlaas.space": "true"})

Answer = TypeVar("Answer")
Rebalanced = Callable[[Consumer, list[TopicPartition]], None]


class Reader:
    """A consumer. For one thread. is_at_end: of its partition, if its role asks for that."""

    def __init__(self, properties: Properties, log: ClientLog, bell: "Bell | None" = None) -> None:
        """Raises BrokerError if the properties are invalid."""
        self._lost = False
        self.is_at_end = False
        self._has_instance_id = "group.instance.id" in properties
        self._refusal = Refusal(properties)
        with translated(f"broker {properties['bootstrap.servers']}"):
            self._consumer = Consumer(properties, logger=log, error_cb=self._on_error)
        self._naps: Naps | None = None
        if bell is not None:
            with suppress(OSError):
                self._naps = Naps(self._consumer, bell.listen())

    def partitions(self, topic: str) -> int:
        """How many the topic has. A broker with automatic topic creation creates it. Raises BrokerError."""

        def ask() -> int:
            found = self._consumer.list_topics(topic, timeout=_ANSWER_TIMEOUT_S).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            return len(found.partitions)

        try:
            return _retried(ask, f"topic {topic}")
        except BrokerUnavailable as error:
            if not self._consumer.assignment():
                self._consumer.poll(0)  # calls _on_error
            raise self._refusal.explained(error) from error

    def join(self, topic: str, on_assign: Rebalanced, on_revoke: Rebalanced) -> None:
        """Read as a member of the group. Calls back from read() and close()."""
        with translated(f"subscribe to {topic}"):
            self._consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def assign(self, topic: str, partitions: Iterable[int], on_assign: Rebalanced) -> None:
        """Read from where the group last committed, without joining it."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        on_assign(self._consumer, places)
        with translated(f"read {topic}"):
            self._consumer.assign(places)

    def read_from(self, topic: str, partition: int, offset: int) -> None:
        """offset: not OFFSET_END, which is looked up only after the first record may have been written."""
        self.is_at_end = False
        with translated(f"read {topic}/{partition}"):
            self._consumer.assign([TopicPartition(topic, partition, offset)])

    def offsets(self, topic: str, partition: int) -> range:
        """The offsets that the partition has now. Waits for a running fetch. Raises BrokerError."""
        place = TopicPartition(topic, partition)

        def ask() -> tuple[int, int]:
            return self._consumer.get_watermark_offsets(place, timeout=_ANSWER_TIMEOUT_S)

        return range(*_retried(ask, f"read {topic}/{partition}"))

    def known_end(self, topic: str, partition: int) -> int:
        """The next offset that the broker will use, as of the last fetch; 0 if nothing was fetched yet."""
        try:
            offsets = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
        except KafkaException:  # revoked, or not assigned yet
            return 0
        return max(0, offsets[1])

    def read(self, max_records: int, timeout: float) -> list[Record]:
        """Wait up to timeout seconds for one record, then take what was fetched with it.

        consume(n, timeout) alone would wait the whole timeout unless n records came.
        Raises BrokerError; BrokerUnavailable once each time the last connection is lost.
        """
        with translated("receive"):
            first = (self._naps or self._consumer).poll(timeout)
        rest = self._fetched(max_records - 1) if first and max_records > 1 else []
        if self._lost:
            self._lost = False
            if first is None:
                raise self._refusal.explained(BrokerUnavailable("no broker answers"))
        if first is not None:
            self._refusal.forget()
        return [record for record in (first, *rest) if record is not None and self._is_sound(record)]

    def _fetched(self, max_records: int) -> list[Record]:
        """Only logs errors, so that the first record is not lost; the next poll raises them again."""
        try:
            return self._consumer.consume(max_records, timeout=0)
        except KafkaException as error:
            _log.warning("receive: %s", error.args[0].str())
            return []

    def store(self, topic: str, partition: int, offset: int, note: str) -> None:
        """Commit with the next automatic commit, unless the partition was revoked. Raises BrokerError."""
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset, note)])
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise translate(error.args[0], f"commit {topic}/{partition}") from error

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, str]]:
        """The group's committed offsets and their notes by partition; none if the broker does not answer."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        try:
            found = self._consumer.committed(places, timeout=_ANSWER_TIMEOUT_S)
        except KafkaException as error:
            _log.warning("cannot read the committed offsets of %s: %s", topic, error.args[0].str())
            return {}
        return {its.partition: (its.offset, its.metadata or "") for its in found if its.offset >= 0}

    def commit(self, topic: str, offsets: Mapping[int, int], note: str) -> None:
        """Commit now. A failure is only logged."""
        places = [TopicPartition(topic, partition, offset, note) for partition, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            _log.warning("commit %s: %s", topic, error.args[0].str())

    def close(self, patience_s: float = 10.0) -> None:
        """Leave the group. With patience_s 0, keep the place for a new member with the same instance id.

        In a thread, because librdkafka may wait forever for a coordinator that is unavailable.
        """
        if self._has_instance_id and patience_s:
            self._leave()
        if self._naps is not None:
            self._naps.close()
        closing = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        closing.start()
        closing.join(patience_s)

    def _leave(self) -> None:
        """With an instance id, close() alone would keep the place until the session expires."""
        end = time.monotonic() + _LEAVE_TIMEOUT_S
        try:
            self._consumer.unsubscribe()
            while self._consumer.memberid() and time.monotonic() < end:
                self._consumer.poll(0.02)
        except KafkaException as error:
            _log.warning("leaving the group: %s", error.args[0].str())

    def _is_sound(self, record: Record) -> bool:
        """False for an error in place of a record. Raises ClientBroken if it is fatal."""
        error = record.error()
        if error is None:
            return True
        if error.code() == KafkaError._PARTITION_EOF:
            self.is_at_end = True
            return False
        if is_fatal(error):
            raise translate(error, "receive")
        _log.warning("receive: %s", error.str())
        return False

    def _on_error(self, error: KafkaError) -> None:
        self._lost = self._lost or error.code() == KafkaError._ALL_BROKERS_DOWN
        self._refusal(error)


class Bell:
    """Says on this machine, to all processes, that a message to a topic is on its way. Thread-safe.

    For a broker that lets each fetch wait its whole time. Readers have to ask it at short intervals, which
    costs 3 % of a core each, unless they may stop while the bell is silent. A ring is a datagram with the
    topic's name.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._rung_at: dict[str, float] = {}
        self.close = finalize(self, self._socket.close)  # of itself, too, once nobody has this any more

    def ring(self, topic: str, now: float) -> None:
        """now: monotonic seconds."""
        if now - self._rung_at.get(topic, 0.0) >= _RING_EVERY_S:
            self._rung_at[topic] = now
            with suppress(OSError):
                self._socket.sendto(topic.encode(), (_EVERYBODY, self._port))

    def listen(self) -> socket.socket:
        """A socket that receives rings. Raises OSError."""
        heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            heard.bind((_EVERYBODY, self._port))
        except OSError:
            heard.close()
            raise
        return heard

    def works(self) -> bool:
        """Whether rings are heard; some systems have no broadcasts on the loopback interface."""
        try:
            with self.listen() as heard:
                self.ring("", time.monotonic())
                heard.settimeout(_NUDGE_S)
                return heard.recv(_MAX_TOPIC_BYTES) == b""
        except OSError:
            return False


class Naps:
    """Polls a consumer that does not fetch while nothing comes and the bell is silent. For one thread."""

    def __init__(self, consumer: Consumer, heard: socket.socket) -> None:
        """heard: see Bell.listen. It is closed with this."""
        self._consumer = consumer
        self._heard = heard
        self._paused: list[TopicPartition] = []
        self._places: set[tuple[str, int]] = set()
        self._until = 0.0
        """When to stop fetching; while paused, when to ask whether there is something to fetch."""
        self.close = finalize(self, heard.close)

    @property
    def is_asleep(self) -> bool:
        """Whether nothing is fetched."""
        return bool(self._paused)

    def poll(self, timeout: float) -> Record | None:
        """As Consumer.poll; when the bell has just rung, it waits a little longer for the record."""
        end = time.monotonic() + timeout
        while True:
            awake_s = 0.0 if self._paused else min(end, self._until) - time.monotonic()
            record = self._consumer.poll(max(0.0, awake_s))
            now = time.monotonic()
            if record is not None:
                self._wake(now)
                return record
            if not self._paused and now >= self._until:
                self._fall_asleep(now)
            if self._paused and self._is_rung(min(end, self._until)):
                now = time.monotonic()
                self._wake(now)
                end = max(end, now + _NEXT_S)
            elif self._paused and time.monotonic() >= self._until:
                self._look(time.monotonic())
            if time.monotonic() >= end:
                return None

    def _fall_asleep(self, now: float) -> None:
        """Unless the bell has rung, something else is assigned than before, or there is something to fetch.

        What was fetched and not yet polled is fetched again later.
        """
        assigned = self._consumer.assignment()
        places = {(each.topic, each.partition) for each in assigned}
        if not places or places != self._places:
            self._places = places
            self._until = now + _AT_FIRST_S
        elif self._is_rung(now) or not self._has_all():
            self._until = now + _AWAKE_S
        else:
            self._consumer.pause(assigned)
            self._paused = assigned
            self._until = now + _ASLEEP_S

    def _wake(self, now: float) -> None:
        self._until = now + _AWAKE_S
        if self._paused:
            place, self._paused = self._paused[0], []
            self._consumer.resume(self._consumer.assignment())
            # librdkafka's thread notices within a second, or when it has something else to do.
            with suppress(KafkaException):
                self._consumer.get_watermark_offsets(place, timeout=_NUDGE_S, cached=False)

    def _look(self, now: float) -> None:
        """Wake if there is something to fetch."""
        if self._has_all():
            self._until = now + _ASLEEP_S
        else:
            self._wake(now)

    def _has_all(self) -> bool:
        """Whether the broker says that nothing is left to fetch."""
        try:
            places = self._consumer.position(self._consumer.assignment())
            ends = [
                self._consumer.get_watermark_offsets(each, timeout=_NUDGE_S, cached=False) for each in places
            ]
        except KafkaException:
            return False
        # Before its first record, the position of a partition is below 0.
        return all(max(low, its.offset) >= high for its, (low, high) in zip(places, ends, strict=True))

    def _is_rung(self, end: float) -> bool:
        """Wait until then for a ring for a topic that is read. Takes all rings that there are."""
        topics = {topic.encode() for topic, _ in self._places}
        is_rung = False
        while True:
            left_s = 0.0 if is_rung else max(0.0, end - time.monotonic())
            self._heard.settimeout(left_s)
            try:
                is_rung |= self._heard.recv(_MAX_TOPIC_BYTES) in topics
            except (TimeoutError, BlockingIOError):
                return is_rung


def _retried(ask: Callable[[], Answer], what: str) -> Answer:
    """Retries for a while, because a new topic has no leader at first. Raises BrokerError."""
    end = time.monotonic() + _ANSWER_TIMEOUT_S
    while True:
        try:
            with translated(what):
                return ask()
        except (BrokerUnavailable, TopicMissing):
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


class OffsetTracker:
    """Finds a partition's finished prefix, because a commit means that everything before it is finished."""

    def __init__(self) -> None:
        self._unfinished: dict[int, int] = {}  # the places as bits, by offset in the order received
        self._last = -1

    def received(self, offset: int, messages: int = 1) -> None:
        """Offsets increase; one that does not means that the partition is read again."""
        if offset <= self._last:
            self._unfinished.clear()
        self._unfinished[offset] = (1 << messages) - 1
        self._last = offset

    def finished(self, offset: int, place: int = 0) -> int | None:
        """The offset to commit if the prefix has grown, else None. place: of the message in its frame."""
        if offset not in self._unfinished:
            return None
        self._unfinished[offset] &= ~(1 << place)
        following = None
        while self._unfinished and not self._unfinished[first := next(iter(self._unfinished))]:
            del self._unfinished[first]
            following = first + 1
        return following


def messages_in(message: Message) -> list[Message] | None:
    """Those of a frame, and none for a space; None for any other message."""
    return [] if message == SPACE else messages_of(message)


def delivery_of(record: Record) -> Delivery:
    """A frame as it was sent."""
    position = LogPosition(record.partition() or 0, record.offset() or 0)
    return Delivery(decode(record), record.topic() or "", position, timestamp_ms_of(record))


def timestamp_ms_of(record: Record) -> int:
    """0 if the broker does not say."""
    return max(0, record.timestamp()[1])


def decode(record: Record) -> Message:
    """Headers are dropped, all of them, if the name of one is not UTF-8: the client cannot return them."""
    try:
        headers = _get_headers(record)
    except (SystemError, UnicodeError):
        headers = None
    return Message(record.value() or b"", decode_headers(headers))


def decode_headers(headers: object) -> Mapping[str, str]:
    """As text. Bytes that are not UTF-8 survive decoding and encoding."""
    pairs = headers if isinstance(headers, list) else []
    return {
        name: value if isinstance(value, str) else (value or b"").decode("utf-8", "surrogateescape")
        for name, value in pairs
    }


def encode_headers(headers: Mapping[str, str]) -> list[tuple[str, str | bytes | None]]:
    return [(name, value.encode("utf-8", "surrogateescape")) for name, value in headers.items()]
