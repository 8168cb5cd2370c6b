"""What gateway and worker share: the wire contract, and the brokers behind one interface."""

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from messaging.broker import Administration, Broker, NotSupported

if TYPE_CHECKING:
    from messaging.kafka import EmbeddedBroker
    from messaging.settings import BrokerSettings, TopicSettings


def connect(url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000) -> Broker:
    """Connect to the broker of this URL. Imports its client library. Raises ValueError or BrokerError.

    kafka://host:9092?property=value   Apache Kafka; the query accepts any librdkafka property
    embedded://                        a Kafka-protocol broker inside this process
    pubsub://PROJECT                   Google Cloud Pub/Sub, or the fake at PUBSUB_EMULATOR_HOST
    memory://                          a broker in memory, for tests within one process
    """
    scheme = urlsplit(url).scheme
    if scheme == "kafka":
        from messaging.kafka import KafkaBroker

        return KafkaBroker(url, max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)
    if scheme == "embedded":
        from messaging.kafka import EmbeddedBroker

        return EmbeddedBroker(max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)
    if scheme == "pubsub":
        from messaging.pubsub import PubSubBroker

        return PubSubBroker(url, max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)
    if scheme == "memory":
        from messaging.memory import MemoryBroker

        return MemoryBroker(max_message_bytes=max_message_bytes)
    raise _unknown(scheme)


def administration(broker: "BrokerSettings", topics: "TopicSettings") -> Administration:
    """What makes the broker have the topics. Raises ValueError, and NotSupported if it lives elsewhere."""
    scheme = urlsplit(broker.url).scheme
    if scheme == "kafka":
        from messaging.kafka_admin import KafkaAdministration

        return KafkaAdministration(broker, topics)
    if scheme == "pubsub":
        from messaging.pubsub_admin import PubSubAdministration

        return PubSubAdministration(broker)
    if lives_inside(broker.url):
        raise NotSupported("it runs inside another process")
    raise _unknown(scheme)


def lives_inside(url: str) -> bool:
    """Whether the broker of this URL is made inside the process that connects, and ends with it."""
    return urlsplit(url).scheme in ("embedded", "memory")


def hosted(url: str) -> "EmbeddedBroker | None":
    """The broker of this URL, started in this process for others too; None if it runs elsewhere."""
    if urlsplit(url).scheme != "embedded":
        return None
    from messaging.kafka import EmbeddedBroker

    return EmbeddedBroker()


def address(url: str) -> str:
    """The URL without user, password and properties."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _unknown(scheme: str) -> ValueError:
    known = "use kafka://host:9092, pubsub://PROJECT, embedded:// or memory://"
    # Do not show the URL: it may contain a password, even where the scheme belongs.
    return ValueError(f"the broker's URL has {'an unknown' if scheme else 'no'} scheme: {known}")
