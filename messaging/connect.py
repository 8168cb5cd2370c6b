"""Choosing the broker."""

from urllib.parse import urlsplit

from messaging.broker import Broker


def connect(url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000) -> Broker:
    """Choose the broker by the URL's scheme; its client library is imported here and nowhere earlier.

    kafka://host:9092?property=value   Apache Kafka; the query takes any librdkafka property
    embedded://                        a Kafka-protocol broker inside this process
    memory://                          a broker in memory, for tests within one process
    """
    scheme = urlsplit(url).scheme
    if scheme == "kafka":
        from messaging.kafka import KafkaBroker

        return KafkaBroker(url, max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)
    if scheme == "embedded":
        from messaging.kafka import EmbeddedBroker

        return EmbeddedBroker(max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)
    if scheme == "memory":
        from messaging.memory import MemoryBroker

        return MemoryBroker(max_message_bytes=max_message_bytes)
    known = "use kafka://host:9092, embedded:// or memory://"
    # The rest of the URL may hold a password, and so may what stands in the place of a scheme.
    raise ValueError(f"the broker's URL has {'an unknown' if scheme else 'no'} scheme: {known}")
