"""Creating and listing a cluster's topics, granting rights, and reading records without a group."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

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

from messaging import BrokerSettings, TopicSettings, kafka_config
from messaging.broker import BrokerUnavailable, Delivery, LogRecords, NotSupported, Planned, Right, Topic
from messaging.kafka_config import ClientLog, Properties, Refusal, translate, translated
from messaging.kafka_reader import SPACE, Reader, delivery_of

_COPIES = 3
_SILENCE_S = 30.0
_DELETE_TIMEOUT_S = 30.0
_METADATA_TIMEOUT_S = 10.0
_LIMIT = "max.message.bytes"


class KafkaAdministration:
    """Implements broker.Administration."""

    def __init__(self, broker: BrokerSettings, topics: TopicSettings) -> None:
        """Raises ValueError for an invalid URL."""
        self._servers, self._given = kafka_config.parse_url(broker.url)
        self._most_bytes = broker.max_message_bytes
        self._copies = topics.replication_factor

    def plan(self, topics: Sequence[Topic], timeout: float = 30.0) -> Sequence[Planned]:
        found = self.partitions(timeout)
        limits = self.limits([topic.name for topic in topics if topic.name in found], timeout)
        made_on_use = str(self._given.get("allow.auto.create.topics", "")).lower() == "true"
        return [self._planned(topic, found.get(topic.name), limits, made_on_use) for topic in topics]

    def apply(self, topics: Sequence[Topic], timeout: float = 30.0) -> Mapping[str, bool]:
        admin, cluster = self._cluster(timeout)
        copies = self._copies or min(_COPIES, len(cluster.brokers))
        wanted = [new_topic(topic, copies, self._most_bytes) for topic in topics]
        futures = admin.create_topics(wanted, operation_timeout=timeout, request_timeout=timeout)
        return {name: _was_created(name, future.exception(timeout)) for name, future in futures.items()}

    def grant(self, user: str, rights: Sequence[Right], timeout: float = 30.0) -> None:
        with translated(f"grant rights to {user}"):
            admin = self._client()
            made = admin.create_acls([_acl(user, right) for right in rights], request_timeout=timeout)
            for future in made.values():
                future.result(timeout)

    def partitions(self, timeout: float = 30.0) -> dict[str, int]:
        """How many partitions each existing topic has. Creates none. Raises BrokerError."""
        _, cluster = self._cluster(timeout)
        return {name: len(its.partitions) for name, its in cluster.topics.items()}

    def limits(self, names: Iterable[str], timeout: float = 30.0) -> dict[str, int]:
        """The largest message, in bytes, that each topic accepts, as far as this client may know."""
        topics = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        found: dict[str, int] = {}
        if not topics:
            return found
        admin = self._client()
        for topic, future in admin.describe_configs(topics, request_timeout=timeout).items():
            # The right DESCRIBE_CONFIGS is missing, or the broker has no such call, as the embedded one.
            with suppress(KafkaException, TimeoutError):
                found[topic.name] = int(future.result(timeout)[_LIMIT].value)
        return found

    def _planned(
        self, topic: Topic, partitions: int | None, limits: Mapping[str, int], made_on_use: bool
    ) -> Planned:
        what = f"topic {topic.name}"
        if partitions is None:
            return Planned(what, "ready", "made on first use") if made_on_use else Planned(what, "missing")
        limit = limits.get(topic.name, self._most_bytes)
        if limit < self._most_bytes:
            return Planned(
                what,
                "unfit",
                f"messages over {limit} bytes are refused, so large pictures get 413",
                "`kafka-configs.sh --bootstrap-server HOST:9092 --alter --entity-type topics "
                f"--entity-name {topic.name} --add-config {_LIMIT}={self._most_bytes}`",
            )
        has = f"{partitions} partition{'' if partitions == 1 else 's'}"
        if partitions < topic.partitions:
            return Planned(
                what, "differs", f"{has} instead of {topic.partitions}, which limits the number of workers"
            )
        return Planned(what, "ready", has)

    def _client(self) -> AdminClient:
        return AdminClient(kafka_config.producer(self._servers, self._given), logger=ClientLog())

    def _cluster(self, timeout: float) -> tuple[AdminClient, ClusterMetadata]:
        """A client, and what it sees. Raises BrokerError."""
        properties = kafka_config.producer(self._servers, self._given)
        refusal = Refusal(properties)
        with translated(f"broker {self._servers}", refusal):
            admin = AdminClient(properties, logger=ClientLog(), error_cb=refusal)
            try:
                # librdkafka tries again for all of that time, even if the address is wrong.
                return admin, admin.list_topics(timeout=min(timeout, _METADATA_TIMEOUT_S))
            finally:
                admin.poll(0)  # calls refusal


def new_topic(topic: Topic, copies: int, most_bytes: int) -> NewTopic:
    """copies: how many brokers store each message."""
    return NewTopic(
        topic.name,
        num_partitions=topic.partitions,
        replication_factor=copies,
        config={
            # With Kafka's default, 1, a message is acknowledged that only one broker has.
            "min.insync.replicas": str(max(1, copies - 1)),
            "retention.ms": str(topic.retention_ms),
            # Retention deletes closed segments only.
            "segment.ms": str(max(10_000, topic.retention_ms // 4)),
            _LIMIT: str(most_bytes),
        },
    )


def _was_created(name: str, error: BaseException | None) -> bool:
    if error is None:
        return True
    if not isinstance(error, KafkaException):
        raise error
    if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
        return False
    raise translate(error.args[0], f"create topic {name}") from error


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


class KafkaRecords(LogRecords):
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

    def read_offsets(self, partition: int, offsets: range) -> Iterator[Delivery]:
        """Ends at the last of the offsets or at the end of the partition. Raises BrokerUnavailable."""
        if not offsets:
            return
        self._reader.read_from(self._topic, partition, offsets.start)
        heard_at = self._clock()
        while not self._reader.is_at_end:
            records = self._reader.read(100, 0.2)
            for record in records:
                offset = record.offset() or 0
                delivery = delivery_of(record)
                if offset in offsets and delivery.message != SPACE:
                    yield delivery
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
