"""A Kafka-protocol broker inside this process: librdkafka's own mock cluster, behind the same Kafka client.

For trying the system and for tests, not for production: it keeps messages in memory, 5 MiB a
partition, and drops the oldest silently. Other processes reach it by its url while this one lives.
Source: librdkafka's rdkafka_mock.h.
"""

from confluent_kafka import Producer

from messaging.kafka import KafkaBroker
from messaging.kafka_config import SHARE
from messaging.kafka_errors import translated

# Below what one partition holds, so that nothing is dropped before it is read.
MAX_BYTES_IN_FLIGHT = 4 * 1024 * 1024
MAX_REPLIES_IN_FLIGHT = MAX_BYTES_IN_FLIGHT // 2048

# The mock never wakes a waiting fetch, so the wait is the latency. It gives a place in a group back
# only after session.timeout.ms, and never finishes a first join with less than 3000.
_PROPERTIES = "fetch.wait.max.ms=2&session.timeout.ms=6000&allow.auto.create.topics=true"


class EmbeddedBroker(KafkaBroker):
    def __init__(self, *, max_message_bytes: int = 1_000_000, publish_timeout_ms: int = 15_000) -> None:
        with translated("embedded broker"):
            self._cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3})
            brokers = self._cluster.list_topics(timeout=5).brokers
        self.url = f"kafka://127.0.0.1:{next(iter(brokers.values())).port}?{_PROPERTIES}"
        super().__init__(self.url, max_message_bytes=max_message_bytes, publish_timeout_ms=publish_timeout_ms)


def url_of_share(url: str, number: int, of: int) -> str:
    """For one of so many that subscribe, each to a fixed share of each topic: see kafka_config.SHARE."""
    return f"{url}&{SHARE}={number}/{of}"
