"""The seam where librdkafka's errors become the broker's."""

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException

from messaging.broker import (
    BrokerError,
    BrokerUnavailable,
    ClientBroken,
    MessageTooLarge,
    NotSupported,
    QueueFull,
    TopicMissing,
)

_KINDS: dict[int, type[BrokerError]] = {
    KafkaError._ALL_BROKERS_DOWN: BrokerUnavailable,
    KafkaError._TRANSPORT: BrokerUnavailable,
    KafkaError._RESOLVE: BrokerUnavailable,
    KafkaError._TIMED_OUT: BrokerUnavailable,
    KafkaError._MSG_TIMED_OUT: BrokerUnavailable,
    KafkaError.LEADER_NOT_AVAILABLE: BrokerUnavailable,
    KafkaError.NOT_LEADER_FOR_PARTITION: BrokerUnavailable,
    KafkaError.NOT_ENOUGH_REPLICAS: BrokerUnavailable,
    KafkaError._QUEUE_FULL: QueueFull,
    KafkaError.MSG_SIZE_TOO_LARGE: MessageTooLarge,
    KafkaError.RECORD_LIST_TOO_LARGE: MessageTooLarge,
    KafkaError.UNKNOWN_TOPIC_OR_PART: TopicMissing,
    KafkaError._UNKNOWN_TOPIC: TopicMissing,
    KafkaError._UNKNOWN_PARTITION: TopicMissing,
    KafkaError._UNSUPPORTED_FEATURE: NotSupported,
}


def is_fatal(error: KafkaError) -> bool:
    """An error that comes in the place of a record has only the code."""
    return bool(error.fatal() or error.code() == KafkaError._FATAL)


def translate(error: KafkaError, what: str) -> BrokerError:
    kind = ClientBroken if is_fatal(error) else _KINDS.get(error.code(), BrokerError)
    hint = "; `mlaas topics create` makes it" if kind is TopicMissing else ""
    return kind(f"{what}: {error.str()}{hint}")


@contextmanager
def translated(what: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0], what) from error
