"""One librdkafka consumer: what a group's member and an inbox have in common."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from operator import methodcaller
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from messaging.broker import BrokerUnavailable, Delivery, Message, TopicMissing
from messaging.kafka_config import ClientLog, Properties, is_fatal, translate, translated

_log = logging.getLogger("mlaas.kafka")

_ANSWER_TIMEOUT_S = 5.0
_LOOK_TIMEOUT_S = 1.0
_LEAVE_TIMEOUT_S = 3.0

# For a name that is not UTF-8 confluent-kafka returns a list with a hole in it, and an exception beside it.
# Called like this, CPython notices. record.headers(), once it was called some times, is called without that
# check, and whoever walks through the list ends the process.
_ask_for_headers = methodcaller("headers")

Answer = TypeVar("Answer")
Rebalanced = Callable[[Consumer, list[TopicPartition]], None]


class Reader:
    """Owned by one thread. is_at_end: of the partition that it reads, where its role asks for that."""

    def __init__(self, properties: Properties) -> None:
        self._lost = False
        self.is_at_end = False
        self._has_instance_id = "group.instance.id" in properties
        with translated(f"broker {properties['bootstrap.servers']}"):
            self._consumer = Consumer(properties, logger=ClientLog(), error_cb=self._note)

    def partitions(self, topic: str) -> int:
        """How many the topic has. Asking makes a broker that creates topics by itself create it."""

        def ask() -> int:
            found = self._consumer.list_topics(topic, timeout=_ANSWER_TIMEOUT_S).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            return len(found.partitions)

        return _patiently(ask, f"topic {topic}")

    def join(self, topic: str, on_assign: Rebalanced, on_revoke: Rebalanced) -> None:
        with translated(f"subscribe to {topic}"):
            self._consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_revoke)

    def take(self, topic: str, partitions: Iterable[int], on_assign: Rebalanced) -> None:
        """Read them from where the group committed last, whoever else does."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        on_assign(self._consumer, places)
        with translated(f"read {topic}"):
            self._consumer.assign(places)

    def read_from(self, topic: str, partition: int, offset: int) -> None:
        """Not a logical OFFSET_END: it is looked up late, after the first record may have been written."""
        self.is_at_end = False
        with translated(f"read {topic}/{partition}"):
            self._consumer.assign([TopicPartition(topic, partition, offset)])

    def offsets(self, topic: str, partition: int, patience_s: float = _ANSWER_TIMEOUT_S) -> range:
        """Those that the partition has now, up to the high watermark. Without patience it asks once."""
        place = TopicPartition(topic, partition)

        def ask() -> tuple[int, int]:
            return self._consumer.get_watermark_offsets(place, timeout=patience_s or _LOOK_TIMEOUT_S)

        return range(*_patiently(ask, f"read {topic}/{partition}", patience_s))

    def read(self, max_records: int, timeout: float) -> list[Record]:
        """Wait for one record, then take what was fetched with it.

        consume(n, timeout) alone would wait the whole timeout unless n records came.
        Raises BrokerUnavailable once for each loss of the last connection.
        """
        with translated("receive"):
            first = self._consumer.poll(timeout)
        rest = self._more(max_records - 1) if first and max_records > 1 else []
        if self._lost:
            self._lost = False
            if first is None:
                raise BrokerUnavailable("no broker answers")
        return [record for record in (first, *rest) if record is not None and self._is_sound(record)]

    def _more(self, max_records: int) -> list[Record]:
        """What is wrong will be said by the next poll: the record before it is not to be lost."""
        try:
            return self._consumer.consume(max_records, timeout=0)
        except KafkaException as error:
            _log.warning("receive: %s", error.args[0].str())
            return []

    def store(self, topic: str, partition: int, offset: int, note: str) -> None:
        """Commit with the next automatic commit. A partition that was taken away is not ours to commit."""
        try:
            self._consumer.store_offsets(offsets=[TopicPartition(topic, partition, offset, note)])
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise translate(error.args[0], f"commit {topic}/{partition}") from error

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, str]]:
        """What the group has committed of them, with its note. Nothing if the broker does not say."""
        places = [TopicPartition(topic, partition) for partition in partitions]
        try:
            found = self._consumer.committed(places, timeout=_ANSWER_TIMEOUT_S)
        except KafkaException as error:
            _log.warning("what was committed of %s: %s", topic, error.args[0].str())
            return {}
        return {its.partition: (its.offset, its.metadata or "") for its in found if its.offset >= 0}

    def commit(self, topic: str, offsets: Mapping[int, int], note: str) -> None:
        """At once."""
        places = [TopicPartition(topic, partition, offset, note) for partition, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            _log.warning("commit %s: %s", topic, error.args[0].str())

    def close(self, patience_s: float = 10.0) -> None:
        """Leaves the group. Without patience the place stays for who has the same instance id.

        librdkafka may wait for ever for a coordinator that is away, hence the thread.
        """
        if self._has_instance_id and patience_s:
            self._leave()
        closing = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        closing.start()
        closing.join(patience_s)

    def _leave(self) -> None:
        """close() alone would keep the place until the session is over."""
        end = time.monotonic() + _LEAVE_TIMEOUT_S
        try:
            self._consumer.unsubscribe()
            while self._consumer.memberid() and time.monotonic() < end:
                self._consumer.poll(0.02)
        except KafkaException as error:
            _log.warning("leaving the group: %s", error.args[0].str())

    def _is_sound(self, record: Record) -> bool:
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

    def _note(self, error: KafkaError) -> None:
        self._lost = self._lost or error.code() == KafkaError._ALL_BROKERS_DOWN


def _patiently(ask: Callable[[], Answer], what: str, patience_s: float = _ANSWER_TIMEOUT_S) -> Answer:
    """A topic that was made a moment ago has no leader yet."""
    end = time.monotonic() + patience_s
    while True:
        try:
            with translated(what):
                return ask()
        except (BrokerUnavailable, TopicMissing):
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def delivery_of(record: Record, receipt: object = None) -> Delivery:
    _, timestamp_ms = record.timestamp()
    return Delivery(
        decode(record),
        record.topic() or "",
        record.partition() or 0,
        record.offset() or 0,
        max(0, timestamp_ms),
        receipt,
    )


def decode(record: Record) -> Message:
    return Message(record.value() or b"", decode_headers(_headers_of(record)))


def _headers_of(record: Record) -> object:
    """None for those with a name that is not UTF-8, which Kafka allows and the client cannot give."""
    try:
        return _ask_for_headers(record)
    except (SystemError, UnicodeError):
        return None


def decode_headers(headers: object) -> Mapping[str, str]:
    """As text. Bytes that are not UTF-8 survive the way there and back."""
    pairs = headers if isinstance(headers, list) else []
    return {name: value if isinstance(value, str) else _text(value) for name, value in pairs}


def encode_headers(headers: Mapping[str, str]) -> list[tuple[str, str | bytes | None]]:
    return [(name, value.encode("utf-8", "surrogateescape")) for name, value in headers.items()]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")
