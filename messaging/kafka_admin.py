"""Creating and listing a cluster's topics, granting rights, and reading records without a group."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ClusterMetadata,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from confluent_kafka.cimpl import NewTopic

from messaging import kafka_config
from messaging.broker import BrokerUnavailable, Delivery, NotSupported
from messaging.kafka_config import ClientLog, Properties, Refusal, translate, translated
from messaging.kafka_reader import Reader, delivery_of
from messaging.settings import BrokerSettings, TopicSettings

_COPIES = 3
_SILENCE_S = 30.0
_DELETE_TIMEOUT_S = 30.0
_METADATA_TIMEOUT_S = 10.0
_LIMIT = "max.message.bytes"


def create_topics(broker: BrokerSettings, topics: TopicSettings, timeout: float = 30.0) -> dict[str, bool]:
    """Create the missing topics. Returns for each topic whether it was created now.

    Raises BrokerError, and ValueError for an invalid URL.
    """
    servers, given = kafka_config.parse_url(broker.url)
    admin, cluster = _cluster(servers, given, timeout)
    copies = topics.replication_factor or min(_COPIES, len(cluster.brokers))
    futures = admin.create_topics(
        wanted_topics(broker, topics, copies), operation_timeout=timeout, request_timeout=timeout
    )
    return {name: _was_created(name, future.exception(timeout)) for name, future in futures.items()}


def partitions(broker: BrokerSettings, timeout: float = 30.0) -> dict[str, int]:
    """How many partitions each existing topic has. Creates none.

    Raises BrokerError, and ValueError for an invalid URL.
    """
    servers, given = kafka_config.parse_url(broker.url)
    _, cluster = _cluster(servers, given, timeout)
    return {name: len(its.partitions) for name, its in cluster.topics.items()}


def _cluster(servers: str, given: Properties, timeout: float) -> tuple[AdminClient, ClusterMetadata]:
    """A client, and what it sees. Raises BrokerError."""
    properties = kafka_config.producer(servers, given)
    refusal = Refusal(properties)
    with translated(f"broker {servers}", refusal):
        admin = AdminClient(properties, logger=ClientLog(), error_cb=refusal)
        try:
            return admin, _listed(admin, timeout)
        finally:
            admin.poll(0)  # calls refusal


def _listed(admin: AdminClient, timeout: float) -> ClusterMetadata:
    """librdkafka tries again for all of that time, even if the address is wrong."""
    return admin.list_topics(timeout=min(timeout, _METADATA_TIMEOUT_S))


def message_limits(broker: BrokerSettings, names: Iterable[str], timeout: float = 30.0) -> dict[str, int]:
    """The largest message, in bytes, that each topic accepts, as far as this client may know.

    Raises BrokerError, and ValueError for an invalid URL.
    """
    servers, given = kafka_config.parse_url(broker.url)
    admin = AdminClient(kafka_config.producer(servers, given), logger=ClientLog())
    topics = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, int] = {}
    for topic, future in admin.describe_configs(topics, request_timeout=timeout).items() if topics else ():
        # The right DESCRIBE_CONFIGS is missing, or the broker has no such call: the embedded one is silent.
        with suppress(KafkaException, TimeoutError):
            found[topic.name] = int(future.result(timeout)[_LIMIT].value)
    return found


def wanted_partitions(topics: TopicSettings) -> dict[str, int]:
    """How many partitions each topic should have."""
    of_queues = (topic for queue in topics.all_queues() for topic in (queue.requests, queue.jobs))
    others = (topics.replies, topics.dead_letters, topics.job_replies)
    return {**dict.fromkeys([*of_queues, *others], topics.partitions), topics.cancellations: 1}


def wanted_topics(broker: BrokerSettings, topics: TopicSettings, copies: int) -> list[NewTopic]:
    """What create_topics creates. copies: how many brokers store each message."""
    partitions_of = wanted_partitions(topics)
    retention_ms_of = {
        **{queue.requests: topics.requests_retention_ms for queue in topics.all_queues()},
        **{queue.jobs: topics.jobs_retention_ms for queue in topics.all_queues()},
        topics.replies: topics.replies_retention_ms,
        topics.dead_letters: topics.dead_letters_retention_ms,
        topics.cancellations: topics.replies_retention_ms,
        topics.job_replies: topics.jobs_retention_ms,
    }
    return [
        NewTopic(
            name,
            num_partitions=partitions_of[name],
            replication_factor=copies,
            config={
                # With Kafka's default, 1, a message is acknowledged that only one broker has.
                "min.insync.replicas": str(max(1, copies - 1)),
                "retention.ms": str(retention_ms),
                # Retention deletes closed segments only.
                "segment.ms": str(max(10_000, retention_ms // 4)),
                _LIMIT: str(broker.max_message_bytes),
            },
        )
        for name, retention_ms in retention_ms_of.items()
    ]


def _was_created(name: str, error: BaseException | None) -> bool:
    if error is None:
        return True
    if not isinstance(error, KafkaException):
        raise error
    if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
        return False
    raise translate(error.args[0], f"create topic {name}") from error


class Right(NamedTuple):
    """To do something with a topic or a group, or with all whose names begin like this."""

    operation: Literal["write", "read", "delete"]
    kind: Literal["topic", "group"]
    name: str
    is_prefix: bool = False


def grant(broker: BrokerSettings, user: str, rights: Iterable[Right], timeout: float = 30.0) -> None:
    """Allow the user these things. What it was allowed before stays.

    Raises BrokerError, and ValueError for an invalid URL.
    """
    servers, given = kafka_config.parse_url(broker.url)
    with translated(f"grant rights to {user}"):
        admin = AdminClient(kafka_config.producer(servers, given), logger=ClientLog())
        made = admin.create_acls([_acl(user, right) for right in rights], request_timeout=timeout)
        for future in made.values():
            future.result(timeout)


def _acl(user: str, right: Right) -> AclBinding:
    return AclBinding(
        ResourceType[right.kind.upper()],
        right.name,
        ResourcePatternType.PREFIXED if right.is_prefix else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[right.operation.upper()],
        AclPermissionType.ALLOW,
    )


class KafkaRecords:
    """Implements broker.Records."""

    def __init__(
        self, reader: Reader, topic: str, admin: Properties, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """admin: properties of the client that deletes. Raises TopicMissing."""
        self._reader = reader
        self._topic = topic
        self._admin = admin
        self._clock = clock
        self._partitions = reader.partitions(topic)

    def bounds(self) -> Mapping[int, range]:
        return {number: self._reader.offsets(self._topic, number) for number in range(self._partitions)}

    def read(self, partition: int, offsets: range) -> Iterator[Delivery]:
        """Ends at the last of the offsets or at the end of the partition. Raises BrokerUnavailable."""
        if not offsets:
            return
        self._reader.read_from(self._topic, partition, offsets.start)
        heard_at = self._clock()
        while not self._reader.is_at_end:
            records = self._reader.read(100, 0.2)
            for record in records:
                offset = record.offset() or 0
                if offset in offsets:
                    yield delivery_of(record)
                if offset >= offsets[-1]:
                    return
            if records:
                heard_at = self._clock()
            elif self._clock() - heard_at > _SILENCE_S:
                raise BrokerUnavailable(f"read {self._topic}/{partition}: no record in {_SILENCE_S:g} s")

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        if not offsets:
            return
        client = AdminClient(self._admin, logger=ClientLog())
        wanted = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        deleting = client.delete_records(
            wanted, request_timeout=_DELETE_TIMEOUT_S, operation_timeout=_DELETE_TIMEOUT_S
        )
        try:
            for place, future in deleting.items():
                with translated(f"delete from {self._topic}/{place.partition}"):
                    future.result()
        except NotSupported as error:
            raise NotSupported(
                "this broker cannot delete; the embedded one loses all records when its process ends"
            ) from error

    def close(self) -> None:
        self._reader.close()
