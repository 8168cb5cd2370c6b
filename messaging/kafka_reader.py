"""Reading through librdkafka: a consumer for subscriptions, inboxes and records, and records as messages.

OffsetTracker decides which offset may be committed.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from messaging.broker import BrokerUnavailable, Delivery, LogPosition, Message, TopicMissing
from messaging.kafka_config import ClientLog, Properties, Refusal, is_fatal, translate, translated

_log = logging.getLogger("mlaas.kafka")

_ANSWER_TIMEOUT_S = 5.0
_LEAVE_TIMEOUT_S = 3.0

# If the name of a header is not UTF-8, confluent-kafka returns a list with a NULL in it and sets an exception
# as well. Called like this, CPython notices. It does not check calls of record.headers() once it has
# specialised them, and then iterating over the list crashes the process.
_get_headers = methodcaller("headers")

Answer = TypeVar("Answer")
Rebalanced = Callable[[Consumer, list[TopicPartition]], None]


class Reader:
    """A consumer. For one thread. is_at_end: of its partition, if its role asks for that."""

    def __init__(self, properties: Properties) -> None:
        """Raises BrokerError if the properties are invalid."""
        self._lost = False
        self.is_at_end = False
        self._has_instance_id = "group.instance.id" in properties
        self._refusal = Refusal(properties)
        with translated(f"broker {properties['bootstrap.servers']}"):
            self._consumer = Consumer(properties, logger=ClientLog(), error_cb=self._on_error)

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
            first = self._consumer.poll(timeout)
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
