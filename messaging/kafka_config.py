"""How this project uses librdkafka: its properties, the URL that overrides them, its errors and its log.

librdkafka's defaults suit pipelines; these properties suit request and reply. librdkafka's CONFIGURATION.md
explains each property.
"""

import logging
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, unquote, urlsplit

from confluent_kafka import KafkaError, KafkaException

from messaging.broker import (
    BrokerError,
    BrokerRefuses,
    BrokerUnavailable,
    ClientBroken,
    MessageTooLarge,
    NotSupported,
    QueueFull,
    TopicMissing,
)

Properties = dict[str, str | int | float | bool]

SHARE = "mlaas.share"
"""A property of a URL that is not librdkafka's. 2/3, the second of three shares: a subscription reads every
third partition, the second one first, without joining its group."""

BELL = "mlaas.bell"
"""Another one: the port of a bell, see kafka_reader.Bell."""

SPACED = "mlaas.spaced"
"""Another one, true for the embedded broker: a space follows each large message, see kafka_reader.SPACE."""

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
    # How long messages to a topic without metadata wait for the topic to appear.
    "topic.metadata.propagation.max.ms": 5_000,
}

CONSUMER: Properties = {
    "enable.auto.commit": True,
    "enable.auto.offset.store": False,
    "auto.commit.interval.ms": 1_000,
    "auto.offset.reset": "earliest",
    "group.protocol": "classic",
    "partition.assignment.strategy": "cooperative-sticky",
    # How long the partitions of a killed worker wait; brokers allow no less.
    # docs/decisions/0001-group-protocol.md
    "session.timeout.ms": 6_000,
    # Members learn of a rebalance from the response to a heartbeat, twice for each partition that moves.
    "heartbeat.interval.ms": 500,
    "max.poll.interval.ms": 300_000,
    # Prefetched messages are not available to other workers, and are redelivered late if this one dies.
    "queued.min.messages": 256,
    "queued.max.messages.kbytes": 16 * 1024,
    "fetch.queue.backoff.ms": 10,
    # How soon a group notices new partitions; the default is five minutes.
    "topic.metadata.refresh.interval.ms": 5_000,
}

INBOX: Properties = {
    # The client requires a group even for partitions that are assigned by hand.
    "group.id": "mlaas-inbox",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Where to continue if the broker has lost the position: nobody waits for old replies.
    "auto.offset.reset": "latest",
    # The default may exceed a max.poll.interval.ms that is set for the workers.
    "session.timeout.ms": 6_000,
    "fetch.queue.backoff.ms": 10,
}

RECORDS: Properties = {
    **INBOX,
    # The next records may have been deleted in the meantime.
    "auto.offset.reset": "earliest",
    # Shows the end even if the last offsets hold no record.
    "enable.partition.eof": True,
    "queued.max.messages.kbytes": 16 * 1024,
}

# Not allowed with group.protocol=consumer, where the broker decides them. An instance id is allowed, but then
# the broker turns away whoever replaces a killed member until that member's session has expired.
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

_DENIED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)

REPEAT_AFTER_S = 30.0
_TLS_TIMEOUT_S = 3.0

# What librdkafka's messages begin with.
_THREAD = re.compile(r"^\[thrd:[^\]]*\]: ")

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
    """The SHARE in a URL, as its number, from 1 on, and how many there are. Raises ValueError."""
    if SHARE not in given:
        return None
    number, _, of = str(given[SHARE]).partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise ValueError(f"{SHARE} must be like 2/3, the second of three shares")
    return int(number), int(of)


def port_of_bell(given: Properties) -> int | None:
    """The BELL in a URL. Raises ValueError."""
    if BELL not in given:
        return None
    port = str(given[BELL])
    if not (port.isdecimal() and 1 <= int(port) <= 65_535):
        raise ValueError(f"{BELL} must be a port, such as 9092")
    return int(port)


def producer(servers: str, given: Properties) -> Properties:
    return _without_ours({**CLIENT, "bootstrap.servers": servers, **PRODUCER, **given})


def member(group: str, instance_id: str) -> Properties:
    """The role of a group's member. An instance id makes its membership static (KIP-345)."""
    return {**CONSUMER, "group.id": group} | ({"group.instance.id": instance_id} if instance_id else {})


def consumer(servers: str, given: Properties, role: Properties) -> Properties:
    """role: a member's, INBOX or RECORDS."""
    merged = _without_ours({**CLIENT, "bootstrap.servers": servers, **role, **given})
    if merged.get("group.protocol") == "consumer":
        return {name: value for name, value in merged.items() if name not in _CLASSIC_ONLY}
    return merged


def _without_ours(properties: Properties) -> Properties:
    return {name: value for name, value in properties.items() if name not in (SHARE, BELL, SPACED)}


class Refusal:
    """An error callback that learns why a broker does not let a client in: the calls only time out."""

    def __init__(self, properties: Properties) -> None:
        self._properties = properties
        self._seen: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
            self._seen = error

    def forget(self) -> None:
        """The broker answers."""
        self._seen = None

    def explained(self, error: BrokerError) -> BrokerError:
        """The error, or what it follows from."""
        if self._seen is None or not isinstance(error, BrokerUnavailable):
            return error
        servers = self._properties["bootstrap.servers"]
        if self._seen.code() == KafkaError._AUTHENTICATION:
            user = self._properties.get("sasl.username", "")
            return BrokerRefuses(f"broker {servers} does not accept user {user!r} with this password")
        problem = _certificate_problem(self._properties) or self._seen.str()
        return BrokerRefuses(f"TLS with broker {servers} fails: {problem}")


def _certificate_problem(properties: Properties) -> str:
    """Why the first broker's certificate is not valid: librdkafka says the same whatever the reason is."""
    host, _, port = str(properties["bootstrap.servers"]).partition(",")[0].rpartition(":")
    location = properties.get("ssl.ca.location")
    try:
        context = ssl.create_default_context(cafile=None if location is None else str(location))
        with (
            socket.create_connection((host, int(port)), _TLS_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"its certificate is not valid: {error.verify_message}"
    except (OSError, ValueError):
        return ""


@contextmanager
def translated(what: str, refusal: Refusal | None = None) -> Iterator[None]:
    """Raise the BrokerError for a KafkaException. what: was being done."""
    try:
        yield
    except KafkaException as error:
        found = translate(error.args[0], what)
        raise (refusal.explained(found) if refusal else found) from error


def translate(error: KafkaError, what: str) -> BrokerError:
    kind = ClientBroken if is_fatal(error) else _KINDS.get(error.code(), BrokerError)
    hint = "; `mlaas topics create` creates it" if kind is TopicMissing else ""
    if error.code() in _DENIED:
        hint = "; `mlaas topics grant` gives a user its rights"
    return kind(f"{what}: {error.str()}{hint}")


def is_fatal(error: KafkaError) -> bool:
    """A fatal error that arrives in place of a record has the code, but not the flag."""
    return bool(error.fatal() or error.code() == KafkaError._FATAL)


class ClientLog:
    """The logger of a librdkafka client. Passes on one line of each kind in 30 s."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: dict[object, float] = {}
        self._left_out: Counter[object] = Counter()

    def log(self, level: int, text: str, kind: object = None, *args: object) -> None:
        """kind: librdkafka's facility. FAIL: a connection. CONFWARN: a property of another kind of client.

        args: the client's name and the message.
        """
        now = self._clock()
        if kind == "CONFWARN":
            return
        if now - self._last.get(kind, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            self._left_out[kind] += 1
            return
        self._last[kind] = now
        left_out = self._left_out.pop(kind, 0)
        more = f" (and {left_out} more {kind} since the last one)" if left_out else ""
        said = _THREAD.sub("", str(args[-1])) if args else text
        # Whoever waits for an answer reports a lost connection as an error.
        _log.log(min(level, logging.WARNING), "librdkafka: %s%s", said, more)
