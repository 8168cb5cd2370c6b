"""Kafka through librdkafka: publishing, and opening the places to read from."""

from collections.abc import Callable
from concurrent.futures import Future
from zlib import crc32

from messaging import kafka_config
from messaging.broker import BrokerError, Message, TopicMissing, feed
from messaging.kafka_places import KafkaInbox, KafkaSubscription
from messaging.kafka_reader import Reader
from messaging.kafka_records import KafkaRecords
from messaging.kafka_sender import Sender
from messaging.kafka_topics import ANY, TopicIds, Topics

# librdkafka's batch.size: what is larger waits for nothing, whatever linger.ms is.
_LARGE_BYTES = 1_000_000


class KafkaBroker:
    """Two producers, for what is sent at once and for what is gathered; a consumer for each place.

    A large message takes the second's connection, so that small ones need not wait behind it.
    """

    def __init__(
        self, url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000
    ) -> None:
        """Connects in the background. Raises ValueError or BrokerError for a URL that cannot be."""
        self._servers, self._given = kafka_config.parse_url(url)
        self._share = kafka_config.fixed_share(self._given)
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
        self._sender = Sender(kafka_config.producer(self._servers, sending))
        self._gatherer = Sender(kafka_config.gatherer(self._servers, sending))
        self._topics = Topics(
            self._led_partitions,
            TopicIds(kafka_config.producer(self._servers, self._given)),
            self._renew_producers,
        )

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        topic, partition = split_address(address)
        sender = self._gatherer if gather or len(message.body) > _LARGE_BYTES else self._sender
        if partition == ANY:
            return sender.send(topic, self._topics.next(topic, gather=gather), message, or_any=True)
        self._topics.watch(topic)
        return sender.send(topic, partition, message)

    def subscribe(self, topic: str, group: str, instance_id: str = "") -> KafkaSubscription:
        def new_reader(its_id: str) -> Reader:
            return self._reader(kafka_config.member(group, its_id))

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
        self._gatherer.close()

    def _led_partitions(self, topic: str) -> list[int]:
        """Those that both producers know. Raises BrokerError."""
        return sorted({*self._sender.led_partitions(topic)} & {*self._gatherer.led_partitions(topic)})

    def _renew_producers(self) -> None:
        self._sender.renew()
        self._gatherer.renew()

    def _inbox(self, topic: str, choose: Callable[[int], int]) -> KafkaInbox:
        return KafkaInbox(lambda: self._reader(kafka_config.INBOX), topic, choose, self._topics)

    def _reader(self, role: kafka_config.Properties) -> Reader:
        return Reader(kafka_config.consumer(self._servers, self._reading, role))


def split_address(address: str) -> tuple[str, int]:
    """topic/partition, or a topic alone: then ANY. Raises TopicMissing."""
    topic, slash, partition = address.partition("/")
    if not slash:
        return topic, ANY
    if not (partition.isascii() and partition.isdigit() and len(partition) < 10):
        raise TopicMissing(f"{address[:100]!r} is not an address")
    return topic, int(partition)
