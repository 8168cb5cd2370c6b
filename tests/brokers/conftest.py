"""The same tests over every broker."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from deploy.kafka.local_kafka import LocalKafka
from messaging import BrokerSettings, connect
from messaging.broker import Broker, Delivery, LogPosition, Topic
from messaging.kafka import EmbeddedBroker
from tests.brokers.gaps import GAPS, NOT_PROMISED

MAX_MESSAGE_BYTES = 200_000


@dataclass(frozen=True)
class Bench:
    """connect() is another client of the same broker, as another process would be."""

    kind: str
    connect: Callable[[], Broker]
    topic: str
    patience_s: float


@pytest.fixture(scope="session")
def embedded() -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker()
    yield broker
    broker.close()


@pytest.fixture(params=["memory", "embedded", "kafka", "pubsub"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    made: list[Broker] = []
    gap = GAPS.get((request.param, request.node.originalname.removeprefix("test_")))
    patience_s = 1.0 if gap else 30.0
    if gap:
        run = not gap.startswith(NOT_PROMISED)
        request.applymarker(pytest.mark.xfail(strict=True, reason=gap, run=run))

    def client(url: str) -> Callable[[], Broker]:
        def connect_one() -> Broker:
            made.append(connect(url, max_message_bytes=MAX_MESSAGE_BYTES, publish_timeout_ms=10_000))
            return made[-1]

        return connect_one

    if request.param == "memory":
        only = connect("memory://", max_message_bytes=MAX_MESSAGE_BYTES)
        yield Bench(request.param, lambda: only, topic, patience_s)
    elif request.param == "embedded":
        yield Bench(request.param, client(request.getfixturevalue("embedded").url), topic, patience_s)
    elif request.param == "pubsub":
        request.getfixturevalue("pubsub")
        create_on_pubsub(topic)
        yield Bench(request.param, client("pubsub://demo"), topic, patience_s)
    else:
        kafka: LocalKafka = request.getfixturevalue("apache_kafka")
        create_topic(kafka.bootstrap_servers, topic)
        yield Bench(request.param, client(f"kafka://{kafka.bootstrap_servers}"), topic, patience_s)
    for broker in made:
        broker.close()


def create_on_pubsub(*names: str) -> None:
    from messaging.pubsub_admin import PubSubAdministration

    settings = BrokerSettings(url="pubsub://demo", max_message_bytes=1, publish_timeout_ms=1)
    PubSubAdministration(settings).apply([Topic(name, 1, 600_000) for name in names])


def create_topic(servers: str, name: str, partitions: int = 4) -> None:
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(name, num_partitions=partitions, replication_factor=1)])[name].result(20)


def partition_of(delivery: Delivery) -> int:
    assert isinstance(delivery.position, LogPosition)
    return delivery.position.partition
