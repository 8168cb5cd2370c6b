"""What the cluster says about the topics in use: where messages go, and which topics were created again."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from messaging.broker import BrokerError
from messaging.kafka_config import ClientLog, Properties, translated

ANY = -1
"""The partition that the client chooses."""

_REFRESH_EVERY_S = 1.0
_ANSWER_TIMEOUT_S = 5.0
# By then every consumer of the group reads a new partition: it has refreshed its metadata
# (topic.metadata.refresh.interval.ms), and two rebalances have followed.
READ_AFTER_S = 15.0


@dataclass(slots=True)
class _Topic:
    """led: partitions to publish to. since: when each was first seen with a leader. sent: records."""

    led: Sequence[int] = ()
    since: dict[int, float] = field(default_factory=dict)
    sent: int = 0
    published: bool = False
    id: str = ""
    incarnation: int = 0


@dataclass(frozen=True)
class AskedOffsets:
    """The first and the next offset of a partition, once the broker has answered."""

    futures: Sequence[Future[Any]]

    def done(self) -> bool:
        return all(each.done() for each in self.futures)

    def result(self) -> range | None:
        """What the partition has; None if the broker did not answer."""
        try:
            first, following = (each.result().offset for each in self.futures)
        except KafkaException:
            return None
        return range(first, following)


class Topics:
    """Asks about the topics in use once a second, in a thread of its own. Thread-safe.

    ask_led returns the partitions of a topic that have a leader, or raises BrokerError. ask_ids returns the
    ids of topics that are known by now, without waiting. ask_offsets asks what a partition has, without
    waiting: a consumer that asked would receive nothing until its running fetch ends, up to half a second
    later. on_recreated is called when the id of a topic has changed. Clients that knew the old topic must
    then be replaced: until the leader epochs exceed those of the old topic, librdkafka takes all it hears
    about the new one for outdated.
    """

    def __init__(
        self,
        ask_led: Callable[[str], Sequence[int]],
        ask_ids: Callable[[Collection[str]], Mapping[str, str]],
        ask_offsets: Callable[[str, int], AskedOffsets],
        on_recreated: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_led = ask_led
        self._ask_ids = ask_ids
        self.ask_offsets = ask_offsets
        self._on_recreated = on_recreated
        self._clock = clock
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def next(self, topic: str) -> int:
        """The partition for the next record: each that has a leader in turn; ANY while none is known.

        librdkafka chooses at random, and sends what it gets within 10 ms to one partition: of workers that
        answer a batch at once, some would get several and some none. New partitions are used once the
        workers have had time to find them.
        """
        with self._lock:
            known = self._watched(topic)
            known.published = True
            if not known.led:
                return ANY
            known.sent += 1
            return known.led[(known.sent - 1) % len(known.led)]

    def watch(self, topic: str) -> None:
        """Notice from now on if the topic is deleted and created again."""
        with self._lock:
            self._watched(topic)

    def incarnation(self, topic: str) -> int:
        """How often the topic was created again since it is watched."""
        with self._lock:
            return self._watched(topic).incarnation

    def id(self, topic: str) -> str:
        """The topic's id; empty while it is unknown."""
        with self._lock:
            return self._watched(topic).id

    def refresh(self) -> None:
        """Ask the cluster. What is known of a topic holds until the cluster says otherwise."""
        self._refresh_ids()
        for name, known in list(self._topics.items()):
            if known.published:
                self._refresh_led(name, known)

    def close(self) -> None:
        self._closing.set()

    def _watched(self, topic: str) -> _Topic:
        known = self._topics.setdefault(topic, _Topic())
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="kafka-topics", daemon=True)
            self._thread.start()
        return known

    def _refresh_ids(self) -> None:
        try:
            ids = self._ask_ids(list(self._topics))
        except BrokerError:
            return
        recreated = False
        with self._lock:
            for name, found in ids.items():
                known = self._topics[name]
                if known.id not in ("", found):
                    recreated = True
                    known.incarnation += 1
                    known.since.clear()
                known.id = found
        if recreated:
            self._on_recreated()

    def _refresh_led(self, name: str, known: _Topic) -> None:
        try:
            led = self._ask_led(name)
        except BrokerError:
            return
        now = self._clock()
        with self._lock:
            first_seen = now if known.since else now - READ_AFTER_S
            for partition in led:
                known.since.setdefault(partition, first_seen)
            known.led = [each for each in led if now - known.since[each] >= READ_AFTER_S]

    def _run(self) -> None:
        while not self._closing.is_set():
            self.refresh()
            self._closing.wait(_REFRESH_EVERY_S)


class TopicAdmin:
    """Asks the cluster without waiting, over a connection of its own. Thread-safe."""

    def __init__(self, properties: Properties, log: ClientLog) -> None:
        self._properties = properties
        self._log = log
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._asked: Mapping[str, Future[object]] = {}

    def offsets(self, topic: str, partition: int) -> AskedOffsets:
        """Raises BrokerError."""
        place = TopicPartition(topic, partition)
        with translated(f"offsets of {topic}/{partition}"):
            admin = self._client()
            asked = [
                admin.list_offsets({place: spec}, request_timeout=_ANSWER_TIMEOUT_S)
                for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
            ]
        return AskedOffsets([future for each in asked for future in each.values()])

    def ids(self, topics: Collection[str]) -> Mapping[str, str]:
        """Returns the answers to the previous call, which are there by now. Raises BrokerError.

        A broker that has no ids, such as the embedded one, lets the question time out.
        """
        if not all(asked.done() for asked in self._asked.values()):
            return {}
        found = {name: topic_id for name, asked in self._asked.items() if (topic_id := _topic_id(asked))}
        if topics:
            with translated("topic ids"):
                self._asked = self._client().describe_topics(
                    TopicCollection(list(topics)), request_timeout=_ANSWER_TIMEOUT_S
                )
        return found

    def _client(self) -> AdminClient:
        with self._lock:
            self._admin = self._admin or AdminClient(self._properties, logger=self._log)
            return self._admin


def _topic_id(asked: "Future[object]") -> str:
    """Empty if the topic does not exist, and from brokers before 2.8, which have no ids."""
    try:
        found = asked.result().topic_id  # type: ignore[attr-defined]
    except KafkaException:
        return ""
    return "" if not found.get_most_significant_bits() else str(found)
