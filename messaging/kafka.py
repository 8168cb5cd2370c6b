"""Kafka through librdkafka: publishing, and opening the places to read from."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from zlib import crc32

from confluent_kafka import KafkaError, Producer

from messaging import kafka_config
from messaging.broker import BrokerError, BrokerUnavailable, Message, QueueFull, TopicMissing, feed
from messaging.kafka_errors import is_fatal, translate, translated
from messaging.kafka_log import ClientLog
from messaging.kafka_places import KafkaInbox, KafkaSubscription
from messaging.kafka_reader import Reader, encode_headers
from messaging.kafka_records import KafkaRecords


class KafkaBroker:
    """One producer, and one thread that serves its delivery reports."""

    def __init__(
        self, url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000
    ) -> None:
        """Connects in the background. Raises ValueError or BrokerError for a URL that cannot be."""
        self._servers, self._given = kafka_config.parse_url(url)
        self._reading = {
            "fetch.message.max.bytes": max_message_bytes,
            "receive.message.max.bytes": max(100_000_000, 4 * max_message_bytes),
            **self._given,
        }
        self._sending = {
            "message.max.bytes": max_message_bytes,
            "message.timeout.ms": publish_timeout_ms,
            **self._given,
        }
        self._broken = threading.Event()
        self._producer = self._new_producer()
        self._closing = threading.Event()
        self._poller = threading.Thread(
            target=self._serve_delivery_reports, name="kafka-reports", daemon=True
        )
        self._poller.start()

    def publish(self, address: str, message: Message) -> Future[None]:
        if self._closing.is_set():
            raise BrokerUnavailable("the broker is closed")
        topic, partition = split_address(address)
        published: Future[None] = Future()
        published.set_running_or_notify_cancel()  # else a waiter's cancel makes the delivery report raise

        def report(error: KafkaError | None, _: object) -> None:
            if error is None:
                published.set_result(None)
            else:
                published.set_exception(translate(error, f"publish to {topic}"))

        headers = encode_headers(message.headers)
        try:
            with translated(f"publish to {topic}"):
                self._producer.produce(
                    topic, message.body, partition=partition, headers=headers, on_delivery=report
                )
        except BufferError as error:
            raise QueueFull(f"publish to {topic}: {error}") from error
        return published

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> KafkaSubscription:
        reader = self._reader(kafka_config.member(group, instance_id))
        try:
            reader.partitions(topic)
            return KafkaSubscription(reader, topic)
        except BrokerError:
            reader.close()
            raise

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
        if not self._closing.is_set():
            self._closing.set()
            self._poller.join()
            self._producer.flush(5)

    def _inbox(self, topic: str, choose: Callable[[int], int]) -> KafkaInbox:
        reader = self._reader(kafka_config.INBOX)
        try:
            return KafkaInbox(reader, topic, choose(reader.partitions(topic)))
        except BrokerError:
            reader.close()
            raise

    def _reader(self, role: kafka_config.Properties) -> Reader:
        return Reader(kafka_config.consumer(self._servers, self._reading, role))

    def _new_producer(self) -> Producer:
        properties = kafka_config.producer(self._servers, self._sending)
        with translated(f"broker {self._servers}"):
            return Producer(properties, logger=ClientLog(), error_cb=self._note)

    def _note(self, error: KafkaError) -> None:
        """A message fails or succeeds by its own delivery report. After a fatal error all of them fail."""
        if is_fatal(error):
            self._broken.set()

    def _serve_delivery_reports(self) -> None:
        while not self._closing.is_set():
            if self._broken.is_set():
                self._broken.clear()
                broken, self._producer = self._producer, self._new_producer()
                broken.flush(1)
            self._producer.poll(0.1)


def split_address(address: str) -> tuple[str, int]:
    """topic/partition, or a topic alone: then -1, and the client spreads. Raises TopicMissing."""
    topic, slash, partition = address.partition("/")
    if not slash:
        return topic, -1
    if not (partition.isascii() and partition.isdigit() and len(partition) < 10):
        raise TopicMissing(f"{address[:100]!r} is not an address")
    return topic, int(partition)
