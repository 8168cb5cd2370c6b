"""What gateway and worker share: the contract, the brokers behind one interface, and the settings of both.

configs/config.yaml has their defaults and the reasons for them.
"""

from collections.abc import Iterable
from itertools import chain
from typing import TYPE_CHECKING, Annotated, NamedTuple
from urllib.parse import urlsplit

import msgspec

from messaging.broker import Administration, Broker, NotSupported, Topic

if TYPE_CHECKING:
    from messaging.kafka import EmbeddedBroker

PositiveInt = Annotated[int, msgspec.Meta(gt=0)]
TopicName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
QueueName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]

SHARED = "shared"
"""The name of the queue of all models that have none of their own."""

_LONGEST_TOPIC_NAME = 249  # Kafka's limit


class BrokerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    url: str
    max_message_bytes: PositiveInt
    publish_timeout_ms: PositiveInt


class Queue(NamedTuple):
    """The topics of the requests for some models and of the pictures of their jobs.

    models: those that are in it by settings; the shared queue also has every model that the settings do not
    mention, and requests that name no model.
    """

    name: str
    requests: str
    jobs: str
    models: tuple[str, ...] = ()

    def groups(self, group: str) -> tuple[str, str]:
        """The consumer groups of its workers: for requests and for jobs.

        A group for each queue: a change of members would otherwise concern the workers of all.
        """
        if self.name == SHARED:
            return group, f"{group}.jobs"
        return f"{group}.requests.{self.name}", f"{group}.jobs.{self.name}"


class TopicSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """queues: the name of a queue, by the name of a model. Several models may share one."""

    requests: TopicName
    replies: TopicName
    dead_letters: TopicName
    cancellations: TopicName
    jobs: TopicName
    job_replies: TopicName
    queues: dict[str, QueueName]
    partitions: PositiveInt
    replication_factor: Annotated[int, msgspec.Meta(ge=0)]
    requests_retention_ms: PositiveInt
    replies_retention_ms: PositiveInt
    dead_letters_retention_ms: PositiveInt
    jobs_retention_ms: PositiveInt

    def __post_init__(self) -> None:
        taken = {self.replies, self.dead_letters, self.cancellations, self.job_replies}
        for queue in self.all_queues():
            for topic in (queue.requests, queue.jobs):
                if len(topic) > _LONGEST_TOPIC_NAME:
                    raise ValueError(
                        f"the queue {queue.name} needs the topic {topic}, a name too long for Kafka"
                    )
                if topic in taken:
                    raise ValueError(f"the queue {queue.name} needs the topic {topic}, which has another use")
                taken.add(topic)

    def all_queues(self) -> list[Queue]:
        """The shared one first."""
        own = dict.fromkeys(name for name in self.queues.values() if name != SHARED)
        return [self._queue(name) for name in chain([SHARED], own)]

    def queue_of(self, model: str) -> Queue:
        """Where requests for this model go; for an empty name, requests that name none."""
        return self._queue(self.queues.get(model, SHARED))

    def shares(self, models: Iterable[str]) -> dict[Queue, list[str]]:
        """These models by their queues."""
        found: dict[Queue, list[str]] = {}
        for model in models:
            found.setdefault(self.queue_of(model), []).append(model)
        return found

    def wanted(self, group: str) -> list[Topic]:
        """The topics that the broker must have. group: that of the workers."""
        found = []
        for queue in self.all_queues():
            requests, jobs = queue.groups(group)
            found.append(Topic(queue.requests, self.partitions, self.requests_retention_ms, [requests]))
            found.append(Topic(queue.jobs, self.partitions, self.jobs_retention_ms, [jobs]))
        return [
            *found,
            Topic(self.replies, self.partitions, self.replies_retention_ms),
            Topic(self.dead_letters, self.partitions, self.dead_letters_retention_ms, is_kept=True),
            Topic(self.cancellations, 1, self.replies_retention_ms),
            Topic(self.job_replies, self.partitions, self.jobs_retention_ms),
        ]

    def _queue(self, name: str) -> Queue:
        models = tuple(model for model, its in self.queues.items() if its == name)
        if name == SHARED:
            return Queue(name, self.requests, self.jobs, models)
        return Queue(name, f"{self.requests}.{name}", f"{self.jobs}.{name}", models)


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


def administration(broker: BrokerSettings, topics: TopicSettings) -> Administration:
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


def system(url: str) -> str:
    """The kind of broker, as OpenTelemetry names it."""
    return "gcp_pubsub" if urlsplit(url).scheme == "pubsub" else "kafka"


def _unknown(scheme: str) -> ValueError:
    known = "use kafka://host:9092, pubsub://PROJECT, embedded:// or memory://"
    # Do not show the URL: it may contain a password, even where the scheme belongs.
    return ValueError(f"the broker's URL has {'an unknown' if scheme else 'no'} scheme: {known}")
