"""Kafka through librdkafka, and the embedded broker that speaks its protocol."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from zlib import crc32

from confluent_kafka import Producer

from messaging import kafka_config
from messaging.broker import BrokerError, FrameCounts, Message, TopicMissing, feed
from messaging.kafka_admin import KafkaRecords
from messaging.kafka_config import BELL, SHARE, translated
from messaging.kafka_places import KafkaInbox, KafkaSubscription
from messaging.kafka_reader import Bell, Reader
from messaging.kafka_sender import Sender
from messaging.kafka_topics import ANY, TopicAdmin, Topics

_LARGE_BYTES = 1_000_000

# The embedded broker never wakes a waiting fetch, so fetch.wait.max.ms is the latency. It frees a group
# member's place only after session.timeout.ms, and needs at least 3000 to finish a first join.
_EMBEDDED_PROPERTIES = "fetch.wait.max.ms=2&session.timeout.ms=6000&allow.auto.create.topics=true"


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
        self._sender = Sender(of_senders, self._next, max_message_bytes, self.frame_counts)
        self._sender_of_large = Sender(of_senders, self._next, max_message_bytes, self.frame_counts)
        admin = TopicAdmin(kafka_config.producer(self._servers, self._given))
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
        self._sender.close()
        self._sender_of_large.close()
        if self._bell is not None:
            self._bell.close()

    def _led_partitions(self, topic: str) -> list[int]:
        """The partitions whose leader both producers know. Raises BrokerError."""
        known = self._sender, self._sender_of_large
        return sorted(set.intersection(*({*each.led_partitions(topic)} for each in known)))

    def _renew_producers(self) -> None:
        self._sender.renew()
        self._sender_of_large.renew()

    def _next(self, topic: str) -> int:
        return self._topics.next(topic)

    def _inbox(self, topic: str, choose: Callable[[int], int]) -> KafkaInbox:
        return KafkaInbox(lambda: self._reader(kafka_config.INBOX), topic, choose, self._topics)

    def _reader(self, role: kafka_config.Properties) -> Reader:
        return Reader(kafka_config.consumer(self._servers, self._reading, role), self._bell)


class EmbeddedBroker(KafkaBroker):
    """librdkafka's mock cluster in this process; other processes reach it by its url."""

    # It drops the oldest messages of a partition beyond 5 MiB.
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
