"""Kafka through librdkafka: the broker, its senders, and the embedded one that speaks its protocol."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import closing, suppress
from dataclasses import dataclass
from zlib import crc32

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Record

from messaging import frames, kafka_config
from messaging.broker import (
    BrokerError,
    BrokerUnavailable,
    FrameCounts,
    Message,
    QueueFull,
    TopicMissing,
    feed,
)
from messaging.frames import Gathered, Gathering, being_published
from messaging.kafka_admin import KafkaRecords
from messaging.kafka_config import BELL, SHARE, SPACED, ClientLog, Properties, is_fatal, translate, translated
from messaging.kafka_places import KafkaInbox, KafkaSubscription
from messaging.kafka_reader import SPACE, Bell, Reader, encode_headers
from messaging.kafka_topics import ANY, TopicAdmin, Topics

_LARGE_BYTES = 1_000_000

# The embedded broker never wakes a waiting fetch, so fetch.wait.max.ms is the latency. It frees a group
# member's place only after session.timeout.ms, and needs at least 3000 to finish a first join.
_EMBEDDED_PROPERTIES = (
    "fetch.wait.max.ms=2&session.timeout.ms=6000&allow.auto.create.topics=true&" + SPACED + "=true"
)

_ANSWER_TIMEOUT_S = 2.0
_POLL_S = 0.25
_PAUSE_S = 1.0
# How long messages gather.
_GATHER_S = 0.005

Place = tuple[str, int]
"""A topic, and a partition or ANY."""


@dataclass(slots=True, eq=False)
class _Sending:
    """A record on its way, through as many producers as it takes.

    published: ends for all messages in it. or_any: any other partition will do. unknown: a producer did not
    know the partition.
    """

    topic: str
    partition: int
    message: Message
    published: Future[None]
    or_any: bool
    unknown: bool = False


class Sender:
    """Thread-safe. Replaces its producer after a fatal error, after renew(), and when a message times out.

    The last because a broker may be available that the producer does not find. The new producer sends what
    the old one has not yet sent.

    While messages gather, its thread looks at them and at the reports every few milliseconds, and is not
    woken in between: waking a thread for each message would cost more than a frame saves.
    """

    def __init__(
        self,
        properties: Properties,
        choose: Callable[[str], int],
        max_message_bytes: int,
        counts: FrameCounts,
        log: ClientLog,
        with_space: bool,
    ) -> None:
        """choose: returns the partition for the next record of a topic; it may be ANY. counts: to increase.

        with_space: whether kafka_reader.SPACE is to follow each message.

        Connects in the background. Raises BrokerError if the properties are invalid.
        """
        self._properties = properties
        self._choose = choose
        self._counts = counts
        self._gathering: Gathering[Place] = Gathering(max_message_bytes)
        self._gathered = threading.Lock()
        self._log = log
        self._with_space = with_space
        self._stale = threading.Event()
        self._changing = threading.Lock()
        self._producer = self._new_producer()
        self._retired: list[Producer] = []
        self._unsent: deque[_Sending] = deque()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._run, name="kafka-reports", daemon=True)
        self._poller.start()

    def send(self, topic: str, partition: int, message: Message, *, gather: bool = False) -> Future[None]:
        """As Broker.publish. partition: may be ANY."""
        if self._closing.is_set():
            raise BrokerUnavailable("the broker is closed")
        part = frames.packed(message) if gather else None
        if part is None:
            published = being_published()
            self._produce(self._record(topic, partition, message, published))
            return published
        with self._gathered:
            published, ready = self._gathering.add((topic, partition), message, part)
        if ready is not None:
            self._send_together((topic, partition), ready)
        return published

    def led_partitions(self, topic: str) -> list[int]:
        """The partitions that have a leader. The producer knows them afterwards. Raises BrokerError."""
        with translated(f"topic {topic}"):
            found = self._producer.list_topics(topic, timeout=_ANSWER_TIMEOUT_S).topics[topic]
        return sorted(number for number, its in found.partitions.items() if its.leader >= 0)

    def renew(self) -> None:
        """Replace the producer soon."""
        self._stale.set()

    def accept_no_more(self) -> None:
        """Have its thread end soon. To be called before close()."""
        self._closing.set()

    def close(self) -> None:
        """Send what is still waiting, for a few seconds."""
        self._poller.join()
        self._stop_gathering()
        self._producer.flush(5)
        while self._unsent:
            self._unsent.popleft().published.set_exception(BrokerUnavailable("the broker is closed"))

    def _record(self, topic: str, partition: int, message: Message, published: Future[None]) -> _Sending:
        """If any partition will do, choose one, and another if that one does not exist any more."""
        if partition == ANY:
            return _Sending(topic, self._choose(topic), message, published, or_any=True)
        return _Sending(topic, partition, message, published, or_any=False)

    def _send_together(self, place: Place, gathered: Gathered) -> None:
        """A failure is that of each message."""
        if len(gathered.parts) > 1:
            with self._gathered:
                self._counts.frames += 1
                self._counts.messages += len(gathered.parts)
        sending = self._record(*place, gathered.together(), gathered.published)
        try:
            self._produce(sending)
        except BrokerError as error:
            sending.published.set_exception(error)

    def _produce(self, sending: _Sending) -> None:
        """Raises BrokerError if the message cannot be sent, now or later."""
        what = f"publish to {sending.topic}"
        headers = encode_headers(sending.message.headers)
        try:
            with self._changing:
                producer = self._producer

                def report(error: KafkaError | None, record: Record) -> None:
                    if self._with_space and error is None and sending.message != SPACE:
                        self._send_space(sending.topic, record.partition())
                    self._report(producer, sending, error)

                producer.produce(
                    sending.topic,
                    sending.message.body,
                    partition=sending.partition,
                    headers=headers,
                    on_delivery=report,
                )
        except BufferError as error:
            raise QueueFull(f"{what}: {error}") from error
        except KafkaException as error:
            if not self._queue_again(sending, error.args[0]):
                raise translate(error.args[0], what) from error

    def _send_space(self, topic: str, partition: int | None) -> None:
        with suppress(BrokerError):
            self.send(topic, ANY if partition is None else partition, SPACE)

    def _report(self, producer: Producer, sending: _Sending, error: KafkaError | None) -> None:
        if error is None:
            sending.published.set_result(None)
            return
        if error.code() == KafkaError._MSG_TIMED_OUT and producer is self._producer:
            self._stale.set()
        if not self._queue_again(sending, error):
            sending.published.set_exception(translate(error, f"publish to {sending.topic}"))

    def _queue_again(self, sending: _Sending, error: KafkaError) -> bool:
        """Whether it is sent again: if a retired producer gave it back; once, if the partition is unknown."""
        is_new = error.code() == KafkaError._UNKNOWN_PARTITION and not sending.unknown
        if not is_new and error.code() != KafkaError._PURGE_QUEUE:
            return False
        sending.unknown = sending.unknown or is_new
        self._unsent.append(sending)
        return True

    def _resend(self) -> None:
        refreshed: dict[str, BrokerError | None] = {}
        for _ in range(len(self._unsent)):
            sending = self._unsent.popleft()
            try:
                if sending.unknown:
                    self._refresh(sending.topic, refreshed)
                    sending.partition = ANY if sending.or_any else sending.partition
                self._produce(sending)
            except BrokerError as error:
                sending.published.set_exception(error)

    def _refresh(self, topic: str, refreshed: dict[str, BrokerError | None]) -> None:
        """Ask for the topic's partitions, once for all messages that need them. Raises BrokerError."""
        if topic not in refreshed:
            refreshed[topic] = None
            try:
                self.led_partitions(topic)
            except BrokerError as error:
                refreshed[topic] = error
        if (failure := refreshed[topic]) is not None:
            raise failure

    def _new_producer(self) -> Producer:
        with translated(f"broker {self._properties['bootstrap.servers']}"):
            return Producer(self._properties, logger=self._log, error_cb=self._on_error)

    def _on_error(self, error: KafkaError) -> None:
        """Delivery reports tell what becomes of a message. After a fatal error, all of them fail."""
        if is_fatal(error):
            self._stale.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            if self._stale.is_set():
                self._stale.clear()
                self._stop_gathering()
                self._replace_producer()
            if self._gathering.is_open:
                time.sleep(_GATHER_S)
                self._poll(0)
            else:
                self._poll(_POLL_S)
            with self._gathered:
                gathered = self._gathering.turn()
            self._send_each(gathered)
            self._poll_retired()
            if self._unsent:
                self._stop_gathering()
                self._resend()
        self._stop_gathering()
        self._resend()

    def _stop_gathering(self) -> None:
        """Because what follows may take long."""
        with self._gathered:
            gathered = self._gathering.close()
        self._send_each(gathered)

    def _send_each(self, gathered: Iterable[tuple[Place, Gathered]]) -> None:
        for place, its in gathered:
            self._send_together(place, its)

    def _poll(self, timeout: float) -> None:
        try:
            self._producer.poll(timeout)
        except KafkaException:  # fatal: a right is missing, for one, which its successor may have
            self._stale.set()
            self._closing.wait(_PAUSE_S)

    def _replace_producer(self) -> None:
        successor = self._new_producer()
        with self._changing:
            retired, self._producer = self._producer, successor
        retired.purge(in_queue=True, in_flight=False)
        self._retired.append(retired)

    def _poll_retired(self) -> None:
        """Keep a retired producer until the broker has reported on each of its messages."""
        for retired in self._retired:
            retired.poll(0)
        self._retired = [retired for retired in self._retired if len(retired)]


class KafkaBroker:
    """Has a consumer for each place, and two producers: large messages have a connection of their own.

    Small ones would wait behind them.
    """

    def __init__(
        self, url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000
    ) -> None:
        """Connects in the background. Raises ValueError or BrokerError if the URL is invalid."""
        self._servers, self._given = kafka_config.parse_url(url)
        self._share = kafka_config.fixed_share(self._given)
        port = kafka_config.port_of_bell(self._given)
        self._bell = None if port is None else Bell(port)
        self._reading = {
            "fetch.message.max.bytes": max_message_bytes,
            "receive.message.max.bytes": max(100_000_000, 4 * max_message_bytes),
            **self._given,
        }
        sending = {
            "message.max.bytes": max_message_bytes,
            "message.timeout.ms": publish_timeout_ms,
            **self._given,
        }
        self.frame_counts = FrameCounts()
        of_senders = kafka_config.producer(self._servers, sending)
        log = self._log = ClientLog()  # one for all clients, which say the same of the same broker
        with_space = self._given.get(SPACED) == "true"
        self._senders = self._sender, self._sender_of_large = [
            Sender(of_senders, self._next, max_message_bytes, self.frame_counts, log, its_space)
            for its_space in (False, with_space)
        ]
        admin = TopicAdmin(kafka_config.producer(self._servers, self._given), log)
        self._topics = Topics(self._led_partitions, admin.ids, admin.offsets, self._renew_producers)

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        topic, partition = split_address(address)
        if partition != ANY:
            self._topics.watch(topic)
        sender = self._sender_of_large if len(message.body) > _LARGE_BYTES else self._sender
        published = sender.send(topic, partition, message, gather=gather)
        if (bell := self._bell) is not None:
            bell.ring(topic, time.monotonic())
            published.add_done_callback(lambda _: bell.ring(topic, time.monotonic()))
        return published

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> KafkaSubscription:
        def new_reader(instance_id: str) -> Reader:
            return self._reader(kafka_config.member(group, instance_id))

        return KafkaSubscription(new_reader, topic, instance_id, self._topics, self._share)

    def open_inbox(self, topic: str, instance_id: str) -> KafkaInbox:
        return self._inbox(topic, lambda partitions: crc32(instance_id.encode()) % partitions)

    def listen(self, topic: str) -> KafkaInbox:
        _, partition = split_address(feed(topic))
        return self._inbox(topic, lambda _: partition)

    def records(self, topic: str) -> KafkaRecords:
        reader = self._reader(kafka_config.RECORDS)
        try:
            return KafkaRecords(reader, topic, kafka_config.producer(self._servers, self._given))
        except BrokerError:
            reader.close()
            raise

    def close(self) -> None:
        self._topics.close()
        for each in self._senders:
            each.accept_no_more()
        for each in self._senders:
            each.close()
        if self._bell is not None:
            self._bell.close()

    def _led_partitions(self, topic: str) -> list[int]:
        """The partitions whose leader both producers know. Raises BrokerError."""
        return sorted(set.intersection(*({*each.led_partitions(topic)} for each in self._senders)))

    def _renew_producers(self) -> None:
        for each in self._senders:
            each.renew()

    def _next(self, topic: str) -> int:
        return self._topics.next(topic)

    def _inbox(self, topic: str, choose: Callable[[int], int]) -> KafkaInbox:
        return KafkaInbox(lambda: self._reader(kafka_config.INBOX), topic, choose, self._topics)

    def _reader(self, role: kafka_config.Properties) -> Reader:
        return Reader(kafka_config.consumer(self._servers, self._reading, role), self._log, self._bell)


class EmbeddedBroker(KafkaBroker):
    """librdkafka's mock cluster in this process; other processes reach it by its url."""

    # It drops the oldest messages of a partition beyond 5 MiB, and any that is larger than that.
    max_bytes_in_flight = 4 * 1024 * 1024
    max_replies_in_flight = max_bytes_in_flight // 2048

    def __init__(self, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000) -> None:
        with translated("embedded broker"):
            self._cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
            brokers = self._cluster.list_topics(timeout=5).brokers
        port = next(iter(brokers.values())).port
        with closing(Bell(port)) as bell:
            its_bell = f"&{BELL}={port}" if bell.works() else ""
        self.url = f"kafka://127.0.0.1:{port}?{_EMBEDDED_PROPERTIES}{its_bell}"
        super().__init__(self.url, max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)

    def url_of_share(self, number: int, of: int) -> str:
        """See the function of this name. In a group, it takes 12 s to notice that a member died."""
        return url_of_share(self.url, number, of)


def split_address(address: str) -> tuple[str, int]:
    """Split topic/partition; for a topic alone, the partition is ANY. Raises TopicMissing."""
    topic, slash, partition = address.partition("/")
    if not slash:
        return topic, ANY
    if not (partition.isascii() and partition.isdigit() and len(partition) < 10):
        raise TopicMissing(f"{address[:100]!r} is not an address")
    return topic, int(partition)


def url_of_share(url: str, number: int, of: int) -> str:
    """The URL for one of several subscribers with a fixed share of each topic; see kafka_config.SHARE."""
    return f"{url}&{SHARE}={number}/{of}"
