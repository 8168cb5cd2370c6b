"""What gateway and worker share: the wire contract, and the brokers behind one interface."""

from urllib.parse import urlsplit

from messaging.broker import Broker


def connect(url: str, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000) -> Broker:
    """Connect to the broker of this URL. Imports its client library. Raises ValueError or BrokerError.

    kafka://host:9092?property=value   Apache Kafka; the query accepts any librdkafka property
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
    # Do not show the URL: it may contain a password, even where the scheme belongs.
    raise ValueError(f"the broker's URL has {'an unknown' if scheme else 'no'} scheme: {known}")
