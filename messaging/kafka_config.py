"""librdkafka's properties for request and reply. Its own defaults are made for pipelines.

Everything here can be overridden by the query of the broker's URL.
Meanings: librdkafka's CONFIGURATION.md.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

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

Properties = dict[str, str | int | float | bool]

SHARE = "mlaas.share"
"""The one property of a URL that is not librdkafka's. 2/3 is the second of three fixed shares: a subscription
has every third partition then, and no place in a group."""

CLIENT: Properties = {
    "client.id": "mlaas",
    "socket.keepalive.enable": True,
    "socket.timeout.ms": 10_000,
    "reconnect.backoff.ms": 100,
    "reconnect.backoff.max.ms": 1_000,
    "log.connection.close": False,
}

PRODUCER: Properties = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 0,
    "queue.buffering.max.kbytes": 128 * 1024,
    # After a topic's metadata is gone, how long a message may wait for the topic to appear.
    "topic.metadata.propagation.max.ms": 5_000,
}

# Many messages in one request cost client and broker little more than one. Not less than some milliseconds:
# of the last one before it sends, librdkafka spends the most spinning.
GATHERING: Properties = {"linger.ms": 5}

CONSUMER: Properties = {
    "enable.auto.commit": True,
    "enable.auto.offset.store": False,
    "auto.commit.interval.ms": 1_000,
    "auto.offset.reset": "earliest",
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    # The least that brokers allow: how long a killed worker's share of the work stands still.
    # docs/decisions/0001-group-protocol.md
    "session.timeout.ms": 6_000,
    # A member learns from the answer to its heartbeat that partitions move, twice for each move.
    "heartbeat.interval.ms": 500,
    "max.poll.interval.ms": 300_000,
    # What is prefetched here is hidden from the other workers, and comes again late if this one dies.
    "queued.min.messages": 256,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.queue.backoff.ms": 10,
    # How soon a group notices that partitions were added; librdkafka's default is five minutes.
    "topic.metadata.refresh.interval.ms": 5_000,
}

INBOX: Properties = {
    # The client refuses to start without a group, even when partitions are assigned by hand.
    "group.id": "mlaas-inbox",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Where to go on when the broker lost what was here: nobody waits for old replies.
    "auto.offset.reset": "latest",
    # Its default is above a max.poll.interval.ms that is meant for the workers.
    "session.timeout.ms": 6_000,
    "fetch.queue.backoff.ms": 10,
}

RECORDS: Properties = {
    **INBOX,
    # What was to be read next may have been deleted meanwhile.
    "auto.offset.reset": "earliest",
    # How the end is known where the last offsets hold no record.
    "enable.partition.eof": True,
    "queued.max.messages.kbytes": 16 * 1024,
}

# Not understood together with group.protocol=consumer: there the broker decides. And with an instance id it
# would refuse who takes a killed member's place until that one's session is over.
_CLASSIC_ONLY = (
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "group.instance.id",
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

REPEAT_AFTER_S = 30.0

_log = logging.getLogger("mlaas.kafka")


def parse_url(url: str) -> tuple[str, Properties]:
    """Split kafka://host:9092,host2:9092?property=value into bootstrap servers and properties.

    User and password in the URL, percent-encoded, become sasl.username and sasl.password. Raises ValueError.
    """
    parts = urlsplit(url)
    credentials, _, servers = parts.netloc.rpartition("@")
    if parts.scheme != "kafka" or not servers:
        raise ValueError(f"{parts.scheme}:// is not a Kafka URL: use kafka://host:9092")
    if parts.path not in ("", "/") or parts.fragment:
        raise ValueError("a Kafka URL has no path: write / ? # in user or password as %2F %3F %23")
    properties: Properties = dict(
        parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    )
    if credentials:
        user, _, password = credentials.partition(":")
        properties = {"sasl.username": unquote(user), "sasl.password": unquote(password), **properties}
    return servers, properties


def fixed_share(given: Properties) -> tuple[int, int] | None:
    """Which of how many, from 1 on. Raises ValueError."""
    if SHARE not in given:
        return None
    number, _, of = str(given[SHARE]).partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"{SHARE} is not as 2/3, the second of three")
    return int(number), int(of)


def producer(servers: str, given: Properties) -> Properties:
    return _without_ours({**CLIENT, "bootstrap.servers": servers, **PRODUCER, **given})


def gatherer(servers: str, given: Properties) -> Properties:
    """A producer that waits some milliseconds for more, for who has many messages under way."""
    return producer(servers, {**GATHERING, **given})


def member(group: str, instance_id: str) -> Properties:
    """A role. An instance id makes the membership static (KIP-345)."""
    return {**CONSUMER, "group.id": group} | ({"group.instance.id": instance_id} if instance_id else {})


def consumer(servers: str, given: Properties, role: Properties) -> Properties:
    """role is a member's, INBOX or RECORDS."""
    merged = _without_ours({**CLIENT, "bootstrap.servers": servers, **role, **given})
    if merged.get("group.protocol") == "consumer":
        return {name: value for name, value in merged.items() if name not in _CLASSIC_ONLY}
    return merged


def _without_ours(properties: Properties) -> Properties:
    return {name: value for name, value in properties.items() if name != SHARE}


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


class ClientLog:
    """What librdkafka's client takes as its logger. Each kind of line comes once in 30 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[object, float] = {}

    def log(self, level: int, text: str, kind: object = None, *args: object) -> None:
        """kind is librdkafka's facility: FAIL is a connection, CONFWARN a property of the other role."""
        now = self._clock()
        if kind == "CONFWARN" or now - self._last.get(kind, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return
        self._last[kind] = now
        # A lost connection is reported where it matters, by the one who waits for an answer.
        _log.log(min(level, logging.WARNING), text, kind, *args)
